//! A cluster behind mutual TLS: leaders fall, nodes restart, certificates are renewed.

use std::path::Path;

use serde_json::{Value, json};

use super::{CACHE, COLD, HOT, NO_ANSWER, OK, Place};
use super::{config, expect, hot_and_cold, recovers, serve, session};
use crate::support::certificates::{Authority, leaf};
use crate::support::openbao::cluster::Cluster;
use crate::support::{Identity, TestServer, block_on, certs, eventually};

/// The section's settings of TLS: a client certificate, and a directory of authorities.
fn tls(directory: &Path) -> Value {
    for (from, to) in [("app.key", "client.key"), ("app.crt", "client.crt")] {
        std::fs::copy(certs(from), directory.join(to)).expect("copied");
    }
    let authorities = directory.join("authorities");
    std::fs::create_dir(&authorities).expect("a directory");
    std::fs::copy(certs("ca.crt"), authorities.join("ca.crt")).expect("copied");
    Authority::new("another").write(authorities.join("another.crt"));
    json!({ "key": directory.join("client.key"), "cert": directory.join("client.crt"), "ca": authorities })
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_leader_falls_and_a_node_restarts() {
    let mut cluster = Cluster::start(3);
    let (leader, standby) = (cluster.leader(), (cluster.leader() + 1) % 3);
    let place = Place::new(&cluster.admin(leader), 2);
    // Standbys answer by themselves, and lag behind.
    eventually("the standby knows the role", || {
        let (id, secret) = &place.role;
        let body = json!({ "role_id": id, "secret_id": secret });
        let answer = cluster.admin(standby).send("PUT", "auth/approle/login", None, "", &body);
        answer.is_some_and(|(status, _)| status == 200)
    });
    let files = tempfile::tempdir().expect("a directory");
    let mut section = place.by_role(&cluster.admin(standby).endpoint);
    section["tls"] = tls(files.path());
    let server = serve(&section, CACHE);
    block_on(async {
        let session = session(&server).await;
        hot_and_cold(&session).await;
        for key in 0..50 {
            let target = |action| format!("/v1/key/{action}/written-{key}");
            expect(&session, "PUT", &target("create"), OK).await;
            expect(&session, "GET", &target("describe"), OK).await;
        }
        cluster.stop(leader);
        expect(&session, "GET", HOT, OK).await;
        recovers(&session, COLD).await;
        // A standby reads without a leader, and that a new one is elected takes as long as the machine is busy.
        cluster.elected();
        expect(&session, "PUT", "/v1/key/create/later", OK).await;
        // What was the leader comes back as a standby. Then ours goes.
        cluster.start_node(leader);
        cluster.stop(standby);
        expect(&session, "GET", "/v1/key/describe/later", NO_ANSWER).await;
        expect(&session, "GET", HOT, OK).await;
        cluster.start_node(standby);
        recovers(&session, "/v1/key/describe/later").await;
        expect(&session, "GET", COLD, OK).await;
    });
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn certificates_are_renewed_without_a_restart() {
    let mut cluster = Cluster::start(1);
    let place = Place::new(&cluster.admin(0), 2);
    let files = tempfile::tempdir().expect("a directory");
    let mut section = place.by_role(&cluster.admin(0).endpoint);
    section["tls"] = tls(files.path());
    let server = serve(&section, CACHE);
    block_on(async {
        let session = session(&server).await;
        hot_and_cold(&session).await;
        // From now on the store wants certificates of another authority, too.
        let authority = Authority::new("new");
        let own = std::fs::read_to_string(certs("app.crt")).expect("a certificate");
        cluster.stop(0);
        authority.write(cluster.directory().join("clients.crt"));
        cluster.run(0);
        expect(&session, "GET", COLD, NO_ANSWER).await;
        write(&authority.issue(leaf("new")), files.path());
        assert_ne!(own, std::fs::read_to_string(files.path().join("client.crt")).expect("a certificate"));
        expect(&session, "GET", COLD, NO_ANSWER).await;
        // The store is sealed still: that it says so shows that it takes the certificate.
        super::super::wait_for_log(&server, &["sealed"]);
        expect(&session, "GET", HOT, OK).await;
    });
}

fn write(identity: &Identity, directory: &Path) {
    let pem = |tag: &str, der: &[u8]| pem::encode(&pem::Pem::new(tag, der));
    std::fs::write(directory.join("client.key"), pem("PRIVATE KEY", identity.key.secret_der())).expect("written");
    std::fs::write(directory.join("client.crt"), pem("CERTIFICATE", &identity.chain[0])).expect("written");
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_server_that_nobody_vouches_for_is_refused_unless_told_otherwise() {
    let cluster = Cluster::start(1);
    let place = Place::new(&cluster.admin(0), 2);
    let files = tempfile::tempdir().expect("a directory");
    let mut section = place.by_role(&cluster.admin(0).endpoint);
    section["tls"] = tls(files.path());
    section["tls"]["ca"] = json!(files.path().join("authorities/another.crt"));
    let said = TestServer::refuses(files.path(), &config(&section, CACHE));
    assert!(said.contains("invalid peer certificate"), "{said}");
    section["tls"]["insecure_skip_verify"] = json!(true);
    let server = serve(&section, CACHE);
    super::super::wait_for_log(&server, &["WARN", "insecure_skip_verify: anybody between"]);
    block_on(async { hot_and_cold(&session(&server).await).await });
    // A server's own certificate, given as an authority, is good enough.
    section["tls"] = tls(tempfile::tempdir_in(files.path()).expect("a directory").keep().as_path());
    section["tls"]["ca"] = json!(certs("server.crt"));
    let server = serve(&section, CACHE);
    block_on(async { expect(&session(&server).await, "GET", COLD, OK).await });
}
