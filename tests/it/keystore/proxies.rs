//! Key stores behind a proxy: the real tinyproxy, which makes tunnels. The stores have an address that is not this
//! machine's own, since that is never asked for through a proxy.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::{admin, ask, wait_for_log};
use crate::support::certificates;
use crate::support::etcd::Etcd;
use crate::support::moto::{Moto, REGION};
use crate::support::openbao::{OpenBao, unique};
use crate::support::peer::{Peer, free_address, program, template};
use crate::support::program::Program;
use crate::support::server::{PROGRAM, dev_config};
use crate::support::{TestServer, block_on, certs};

/// A service with an address beside loopback, over TLS.
struct Front {
    address: SocketAddr,
    directory: tempfile::TempDir,
    _haproxy: Peer,
}

impl Front {
    /// `server` is how HAProxy reaches the service.
    fn of(server: &str, protocol: &str) -> Self {
        let own = if_addrs::get_if_addrs().expect("the addresses of this machine").into_iter().map(|one| one.ip());
        let own = own.filter(IpAddr::is_ipv4).find(|ip| !ip.is_loopback());
        let ip = own.expect("this test needs an address of this machine beside 127.0.0.1");
        let address = SocketAddr::new(ip, free_address().port());
        let directory = tempfile::tempdir().expect("a directory");
        let mut params = certificates::authority("front");
        params.subject_alt_names = vec![rcgen::SanType::IpAddress(ip)];
        let made = certificates::self_signed(params);
        let certificate = pem::encode(&pem::Pem::new("CERTIFICATE", &made.chain[0][..]));
        let key = pem::encode(&pem::Pem::new("PRIVATE KEY", made.key.secret_der()));
        std::fs::write(directory.path().join("ca.crt"), &certificate).expect("written");
        let haproxy = Peer::start_at(&program("haproxy", "haproxy"), address, |directory, address| {
            let address = address.to_string();
            let values = [("ADDRESS", address.as_str()), ("SERVER", server), ("PROTOCOL", protocol)];
            std::fs::write(directory.join("front.cfg"), template("haproxy-front.cfg", &values)).expect("its config");
            std::fs::write(directory.join("both.pem"), format!("{certificate}{key}")).expect("written");
            let client = ["crt", "key"].map(|kind| std::fs::read(certs(format!("app.{kind}"))).expect("a PEM file"));
            std::fs::write(directory.join("client.pem"), client.concat()).expect("written");
            ["-db", "-f", "front.cfg"].map(Into::into).into()
        });
        Self { address, directory, _haproxy: haproxy }
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.crt")
    }
}

/// A proxy that makes tunnels to this port only.
fn tinyproxy(allowed: SocketAddr) -> Peer {
    Peer::start(&program("tinyproxy", "tinyproxy"), |directory, address| {
        let (port, allowed) = (address.port().to_string(), allowed.port().to_string());
        let text = template("tinyproxy.conf", &[("PORT", port.as_str()), ("ALLOWED", &allowed)]);
        std::fs::write(directory.join("tinyproxy.conf"), text).expect("its config");
        ["-d", "-c", "tinyproxy.conf"].map(Into::into).into()
    })
}

/// Its address for those who say this password.
fn with_password(proxy: &Peer, password: &str) -> String {
    format!("http://claviger:{password}@{}", proxy.address())
}

fn tunnels(proxy: &Peer, to: SocketAddr) -> usize {
    proxy.log().matches(&format!("CONNECT {to} ")).count()
}

fn config(store: &Value) -> String {
    let text = dev_config("").replace("{ fs: { path: keys } }", &store.to_string());
    format!("cache: {{ expiry: {{ any: 1ms, unused: 1ms }} }}\n{text}")
}

/// A server with these variables.
fn serve(store: &Value, env: &[(&str, &str)]) -> TestServer {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(PROGRAM);
    command.env("HOME", directory.path()).env("AWS_EC2_METADATA_DISABLED", "true").envs(env.iter().copied());
    TestServer::start_under(command, directory, &config(store))
}

fn a_key_is_made_and_read(server: &TestServer) {
    block_on(async {
        let session = admin(server).session().await.expect("connects");
        assert_eq!(ask(&session, "PUT", "/v1/key/create/key").await, (200, String::new()));
        assert_eq!(ask(&session, "GET", "/v1/key/describe/key").await, (200, String::new()));
        assert_eq!(ask(&session, "DELETE", "/v1/key/delete/key").await, (200, String::new()));
    });
}

#[test]
#[ignore = "runs OpenBao, HAProxy and tinyproxy: tests/run"]
fn a_vault_is_reached_through_the_proxy_of_the_environment() {
    let bao = OpenBao::shared();
    let front = Front::of(&bao.address().to_string(), "http/1.1");
    let proxy = tinyproxy(front.address);
    let (good, bad) = (with_password(&proxy, "hunter2"), with_password(&proxy, "hunter3"));
    let vault = json!({ "vault": {
        "endpoint": front.url(), "engine": bao.kv(None, 2), "version": "v2", "token": { "value": bao.token },
        "tls": { "ca": front.ca() },
    } });
    let server = serve(&vault, &[("https_proxy", &good), ("HTTP_PROXY", "http://127.0.0.1:1")]);
    a_key_is_made_and_read(&server);
    assert!(tunnels(&proxy, front.address) > 0, "{}", proxy.log());
    wait_for_log(&server, &["requests go through a proxy", &front.address.to_string(), &proxy.address().to_string()]);
    assert!(!server.stderr().contains("hunter2"), "{}", server.stderr());

    let before = tunnels(&proxy, front.address);
    let own = front.address.ip().to_string();
    for env in [&[("HTTPS_PROXY", good.as_str()), ("NO_PROXY", &own)][..], &[("HTTP_PROXY", &good)]] {
        a_key_is_made_and_read(&serve(&vault, env));
        assert_eq!(tunnels(&proxy, front.address), before, "{env:?}");
    }

    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("config.yml"), config(&vault)).expect("written");
    let doctor = |variable: &str, value: &str| {
        let program = Program::named("claviger", directory.path()).env(variable, value);
        let outcome = program.run(&["doctor", "--config", "config.yml"]);
        assert!(!format!("{outcome:?}").contains("hunter"), "{outcome:?}");
        outcome.stdout
    };
    let said = doctor("HTTPS_PROXY", &good);
    let expected = format!("{} was reached through the proxy {}", front.address, proxy.address());
    assert!(said.contains(&expected), "{said}");
    assert!(!doctor("HTTP_PROXY", &good).contains("proxy"), "it is not for HTTPS");
    let said = doctor("HTTPS_PROXY", &bad);
    assert!(
        said.contains(&format!("the proxy {} makes no connection to {}", proxy.address(), front.address)),
        "{said}"
    );
    let said = doctor("HTTPS_PROXY", "socks5://user:hunter2@127.0.0.1:1");
    assert!(said.contains("HTTPS_PROXY is not the address of a proxy"), "{said}");
    // One that forbids what is asked.
    let other = tinyproxy(free_address());
    let said = doctor("HTTPS_PROXY", &with_password(&other, "hunter2"));
    assert!(said.contains(&format!("the proxy {} makes no connection", other.address())), "{said}");
    // Its name and its address are those of nobody.
    let said = doctor("HTTPS_PROXY", &format!("http://{}", free_address()));
    assert!(said.contains("makes no connection to") && said.contains("add the host to NO_PROXY"), "{said}");
}

#[test]
#[ignore = "runs moto, HAProxy and tinyproxy: tests/run"]
fn aws_is_reached_through_the_proxy_and_so_is_what_gives_credentials() {
    let moto = Moto::start();
    let front = Front::of(&moto.address().to_string(), "http/1.1");
    let proxy = tinyproxy(front.address);
    let good = with_password(&proxy, "hunter2");
    let (url, ca) = (front.url(), front.ca().display().to_string());
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), "a token of the cluster").expect("written");
    let role = moto.role("server", &json!([{ "Effect": "Allow", "Action": "secretsmanager:*", "Resource": "*" }]));
    let section = json!({ "endpoint": url, "region": REGION, "prefix": format!("{}/", unique("proxied")) });
    let env = [
        ("HTTPS_PROXY", good.as_str()),
        ("SSL_CERT_FILE", &ca),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.path().to_str().expect("UTF-8")),
        ("AWS_ROLE_ARN", &role),
        ("AWS_ENDPOINT_URL_STS", &url),
    ];
    a_key_is_made_and_read(&serve(&json!({ "aws": { "secretsmanager": section } }), &env));
    // One for the credentials, at least one for the keys.
    assert!(tunnels(&proxy, front.address) > 1, "{}", proxy.log());
}

#[test]
#[ignore = "runs etcd, HAProxy and tinyproxy: tests/run"]
fn etcd_is_reached_through_the_proxy() {
    let etcd = Etcd::shared();
    let front = Front::of(&format!("{} ssl verify none alpn h2 crt client.pem", etcd.address(0)), "h2");
    let proxy = tinyproxy(front.address);
    let section =
        json!({ "endpoints": [front.url()], "prefix": format!("{}/", unique("proxied")), "tls": { "ca": front.ca() } });
    a_key_is_made_and_read(&serve(&json!({ "etcd": section }), &[("HTTPS_PROXY", &with_password(&proxy, "hunter2"))]));
    assert!(tunnels(&proxy, front.address) > 0, "{}", proxy.log());
}
