//! OpenBao as it runs in earnest: nodes with a log of their own (raft) behind mutual TLS, sealed at every start.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::{Admin, program};
use crate::support::peer::{Peer, free_address};
use crate::support::{certs, eventually};

/// Nodes that elect a leader. Stopped when dropped.
pub struct Cluster {
    directory: tempfile::TempDir,
    nodes: Vec<Node>,
    unseal_key: String,
    token: String,
}

struct Node {
    address: SocketAddr,
    /// Where the others reach it.
    cluster: SocketAddr,
    /// None: it is stopped.
    peer: Option<Peer>,
}

impl Cluster {
    /// Starts so many nodes, unsealed. Their certificates, and the authority of those they ask of clients, are those
    /// of `certs/`; the file of the authority is `clients.crt` in the directory.
    pub fn start(nodes: usize) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::copy(certs("ca.crt"), directory.path().join("clients.crt")).expect("copied");
        let node = |_| Node { address: free_address(), cluster: free_address(), peer: None };
        let nodes = (0..nodes).map(node).collect();
        let mut cluster = Self { directory, nodes, unseal_key: String::new(), token: String::new() };
        cluster.run(0);
        let shares = json!({ "secret_shares": 1, "secret_threshold": 1 });
        eventually("the first node answers", || cluster.admin(0).health() == Some(501));
        let keys = cluster.admin(0).ask("PUT", "sys/init", shares);
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        (cluster.unseal_key, cluster.token) = (text(&keys["keys_base64"][0]), text(&keys["root_token"]));
        cluster.unseal(0);
        eventually("there is a leader", || cluster.admin(0).health() == Some(200));
        let autopilot = json!({ "server_stabilization_time": "1s" });
        cluster.admin(0).ask("POST", "sys/storage/raft/autopilot/configuration", autopilot);
        for index in 1..cluster.nodes.len() {
            cluster.start_node(index);
            eventually("a standby follows", || cluster.admin(index).health() == Some(429));
        }
        // Before they may vote they cannot take over.
        eventually("all may vote", || {
            let found = cluster.admin(0).ask("GET", "sys/storage/raft/configuration", Value::Null);
            let servers = found["data"]["config"]["servers"].as_array().expect("a list");
            servers.len() == cluster.nodes.len() && servers.iter().all(|server| server["voter"] == true)
        });
        cluster
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The API of a node.
    pub fn admin(&self, index: usize) -> Admin {
        Admin { endpoint: format!("https://{}", self.nodes[index].address), token: self.token.clone() }
    }

    /// The node that leads.
    pub fn leader(&self) -> usize {
        (0..self.nodes.len()).find(|index| self.admin(*index).health() == Some(200)).expect("one leads")
    }

    /// Waits until one of the nodes that run leads.
    pub fn elected(&self) {
        let leads = |index: usize| self.admin(index).health() == Some(200);
        eventually("a leader is elected", || (0..self.nodes.len()).any(leads));
    }

    /// Kills a node.
    pub fn stop(&mut self, index: usize) {
        self.nodes[index].peer = None;
    }

    /// Starts a node, sealed as it is then, and unseals it.
    pub fn start_node(&mut self, index: usize) {
        self.run(index);
        self.unseal(index);
    }

    /// Starts a node and leaves it sealed.
    pub fn run(&mut self, index: usize) {
        let config = self.config(index);
        let file = self.directory().join(format!("node{index}.hcl"));
        std::fs::create_dir_all(self.directory().join(format!("data{index}"))).expect("a directory");
        std::fs::write(&file, config).expect("the config is written");
        let arg = format!("-config={}", file.display());
        let peer = Peer::start_at(&program(), self.nodes[index].address, |_, _| vec!["server".into(), arg]);
        self.nodes[index].peer = Some(peer);
    }

    /// A node that joins can be unsealed once it has found the others.
    fn unseal(&self, index: usize) {
        let (admin, key) = (self.admin(index), json!({ "key": self.unseal_key }));
        eventually("the node is unsealed", || {
            let answer = admin.send("PUT", "sys/unseal", None, "", &key);
            answer.is_some_and(|(status, answer)| status == 200 && answer["sealed"] == false)
        });
    }

    fn config(&self, index: usize) -> String {
        let Node { address, cluster, .. } = &self.nodes[index];
        let certs = certs("").display().to_string();
        let directory = self.directory().display();
        let join = if index == 0 {
            String::new()
        } else {
            format!(
                "retry_join {{
                    leader_api_addr = \"https://{}\"
                    leader_ca_cert_file = \"{certs}/ca.crt\"
                    leader_client_cert_file = \"{certs}/app.crt\"
                    leader_client_key_file = \"{certs}/app.key\"
                }}",
                self.nodes[0].address
            )
        };
        format!(
            "ui = false
            api_addr = \"https://{address}\"
            cluster_addr = \"https://{cluster}\"
            storage \"raft\" {{
                path = \"{directory}/data{index}\"
                node_id = \"node{index}\"
                performance_multiplier = 1
                {join}
            }}
            listener \"tcp\" {{
                address = \"{address}\"
                cluster_address = \"{cluster}\"
                tls_cert_file = \"{certs}/server.crt\"
                tls_key_file = \"{certs}/server.key\"
                tls_client_ca_file = \"{directory}/clients.crt\"
                tls_require_and_verify_client_cert = true
            }}"
        )
    }
}
