//! `tls.proxy`: a server behind a TLS proxy knows clients by the certificate that the proxy forwards. The proxies are the
//! real nginx and HAProxy, configured as an operator would.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::support::client::Request;
use crate::support::curl::{curl, curl_as};
use crate::support::peer::{Peer, program, template};
use crate::support::{Client, Identity, Protocol, TestServer, block_on, certs, eventually};

const SELF: &str = "/v1/identity/self/describe";
const HEADER: &str = "X-Tls-Client-Cert";

/// A server that trusts the proxy of `certs/`. `tls` is more of its `tls:` section.
fn server(tls: &str) -> TestServer {
    reading(&format!("{{ cert: {HEADER} }}"), tls)
}

/// The same with this section `tls.proxy.header`.
fn reading(header: &str, tls: &str) -> TestServer {
    let proxy = Identity::dev("proxy").hash();
    TestServer::with_dev_config(&format!("proxy: {{ identities: [ {proxy} ], header: {header} }}\n  {tls}"))
}

fn auth_on() -> String {
    format!("auth: on\n  ca: {}", certs("ca.crt").display())
}

/// nginx before a server.
fn nginx(server: &TestServer) -> Peer {
    Peer::start(&program("nginx", "nginx-light"), |directory, address| {
        let values = [
            ("SERVER", server.address().to_string()),
            ("PORT", address.port().to_string()),
            ("CERTS", certs("").display().to_string()),
        ];
        let values: Vec<_> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
        std::fs::write(directory.join("nginx.conf"), template("nginx.conf", &values)).expect("its config");
        ["-e", "stderr", "-p", ".", "-c", "nginx.conf"].map(Into::into).into()
    })
}

/// HAProxy before a server.
fn haproxy(server: &TestServer) -> Peer {
    Peer::start(&program("haproxy", "haproxy"), |directory, address| {
        let (server, port, own) = (server.address().to_string(), address.port().to_string(), certs(""));
        let values = [("SERVER", server.as_str()), ("PORT", &port), ("CERTS", own.to_str().expect("UTF-8"))];
        std::fs::write(directory.join("haproxy.cfg"), template("haproxy.cfg", &values)).expect("its config");
        for (file, name) in [("front.pem", "server"), ("back.pem", "proxy")] {
            let both = ["crt", "key"].map(|kind| std::fs::read(certs(format!("{name}.{kind}"))).expect("a PEM file"));
            std::fs::write(directory.join(file), both.concat()).expect("a PEM file");
        }
        ["-db", "-f", "haproxy.cfg"].map(Into::into).into()
    })
}

fn url(peer: &Peer, path: &str) -> String {
    format!("https://localhost:{}{path}", peer.address().port())
}

fn direct_url(server: &TestServer, path: &str) -> String {
    format!("https://localhost:{}{path}", server.address().port())
}

/// A certificate as a proxy puts it into the header.
fn escaped(client: &str) -> String {
    let pem = std::fs::read_to_string(certs(format!("{client}.crt"))).expect("a certificate");
    utf8_percent_encode(&pem, NON_ALPHANUMERIC).to_string()
}

/// The one audit event that `wanted` describes.
fn audit_event(server: &TestServer, wanted: impl Fn(&Value) -> bool) -> Value {
    let find = || {
        let events: Vec<Value> = server.stdout().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let found: Vec<_> = events.into_iter().filter(|event| wanted(event)).collect();
        assert!(found.len() < 2, "more than one such event: {found:?}");
        found.into_iter().next()
    };
    eventually("the audit event is written", || find().is_some());
    find().expect("it was there")
}

#[test]
#[ignore = "runs nginx: tests/run"]
fn clients_are_known_by_their_own_certificates() {
    let server = server("");
    let nginx = nginx(&server);
    // In turns, since they share the proxy's connection.
    for client in ["app", "admin", "stranger", "app", "admin"] {
        let answer = curl_as(client, &[&url(&nginx, SELF)]).expect("an answer");
        assert_eq!(answer.status, 200, "{client}: {}", answer.body);
        assert_eq!(answer.json()["identity"], Identity::dev(client).hash(), "{client}");
    }
    let create = |client, key| {
        let path = format!("/v1/key/create/{key}");
        curl_as(client, &["--request", "PUT", &url(&nginx, &path)]).expect("an answer").status
    };
    assert_eq!(create("app", "app-key"), 200);
    assert_eq!(create("app", "other"), 403, "its policy applies");
    assert_eq!(create("admin", "other"), 200);
    assert_eq!(create("proxy", "app-two"), 403, "to speak for others is no right of one's own");
}

#[test]
#[ignore = "runs nginx: tests/run"]
fn who_has_no_certificate_is_nobody() {
    let server = server("");
    let nginx = nginx(&server);
    assert_eq!(curl(&[&url(&nginx, "/version")]).expect("an answer").status, 200);
    assert_eq!(curl(&[&url(&nginx, SELF)]).expect("an answer").status, 400);
}

#[test]
#[ignore = "runs nginx: tests/run"]
fn a_forged_header_is_replaced_by_the_proxy() {
    let server = server("");
    let nginx = nginx(&server);
    let forged = format!("{HEADER}: {}", escaped("admin"));
    let answer = curl_as("app", &["--header", &forged, &url(&nginx, SELF)]).expect("an answer");
    assert_eq!(answer.json()["identity"], Identity::dev("app").hash());
    assert_eq!(curl(&["--header", &forged, &url(&nginx, SELF)]).expect("an answer").status, 400);
}

#[test]
#[ignore = "runs nginx: tests/run"]
fn the_client_address_is_the_one_that_the_proxy_saw() {
    let server = server("");
    let nginx = nginx(&server);
    let forged = ["--header", "X-Forwarded-For: 192.0.2.7, 192.0.2.8"];
    let path = "/v1/key/create/app-behind";
    let (from, to) = (["--interface", "127.0.0.2", "--request", "PUT"], url(&nginx, path));
    assert_eq!(curl_as("app", &[&forged[..], &from, &[&to]].concat()).expect("an answer").status, 200);
    let event = audit_event(&server, |event| event["request"]["path"] == path);
    assert_eq!(event["request"]["ip"], "127.0.0.2");
    assert_eq!(event["request"]["identity"], Identity::dev("app").hash());

    let path = "/v1/key/create/app-direct";
    let (from, to) = (["--interface", "127.0.0.3", "--request", "PUT"], direct_url(&server, path));
    assert_eq!(curl_as("app", &[&forged[..], &from, &[&to]].concat()).expect("an answer").status, 200);
    let event = audit_event(&server, |event| event["request"]["path"] == path);
    assert_eq!(event["request"]["ip"], "127.0.0.3", "the header of a client that is no proxy is ignored");
}

#[test]
#[ignore = "runs nginx: tests/run"]
fn the_certificate_is_verified_where_direct_ones_are() {
    let server = server(&auth_on());
    let nginx = nginx(&server);
    let answer = curl_as("app", &[&url(&nginx, SELF)]).expect("an answer");
    assert_eq!(answer.json()["identity"], Identity::dev("app").hash());
    let answer = curl_as("stranger", &[&url(&nginx, SELF)]).expect("an answer");
    assert_eq!(answer.status, 400, "no CA knows it: {}", answer.body);
}

#[test]
#[ignore = "runs nginx and HAProxy: tests/run"]
fn each_form_is_read_as_its_proxy_writes_it() {
    type Before = fn(&TestServer) -> Peer;
    let forms: [(&str, Before, &str, &str); 3] = [
        ("base64", haproxy, "X-Forwarded-Tls-Client-Cert", ""),
        ("rfc9440", haproxy, "Client-Cert", ":"),
        ("xfcc", nginx, "X-Forwarded-Client-Cert", ""),
    ];
    for (form, before, header, frame) in forms {
        let server = reading(&format!("{{ form: {form} }}"), &auth_on());
        let proxy = before(&server);
        let admin = match form {
            "xfcc" => format!("Cert=\"{}\"", escaped("admin")),
            _ => format!("{frame}{}{frame}", bare("admin")),
        };
        let forged = ["--header", &format!("{header}: {admin}")];
        for client in ["app", "admin", "app"] {
            for forged in [&[][..], &forged] {
                let answer = curl_as(client, &[forged, &[&url(&proxy, SELF)]].concat()).expect("an answer");
                assert_eq!(answer.status, 200, "{form}: {client}: {}", answer.body);
                assert_eq!(answer.json()["identity"], Identity::dev(client).hash(), "{form}: {client}");
            }
        }
        for forged in [&[][..], &forged] {
            let answer = curl(&[forged, &[&url(&proxy, SELF)]].concat()).expect("an answer");
            assert_eq!(answer.status, 400, "{form}: who has no certificate is nobody: {}", answer.body);
        }
        let answer = curl_as("stranger", &[&url(&proxy, SELF)]).expect("an answer");
        assert_eq!(answer.status, 400, "{form}: no CA knows it: {}", answer.body);
    }
}

/// A certificate as base64 of DER.
fn bare(client: &str) -> String {
    let pem = std::fs::read_to_string(certs(format!("{client}.crt"))).expect("a certificate");
    pem.lines().filter(|line| !line.starts_with("-----")).collect()
}

/// The form is chosen by the config, never by what the header holds.
#[test]
fn another_form_than_the_configured_one_is_no_certificate() {
    let (app, bare) = (escaped("app"), bare("app"));
    let chain = format!("{bare},{}", self::bare("ca"));
    let values = [
        ("pem", app.clone()),
        ("base64", bare.clone()),
        ("base64", bare.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")),
        ("base64", chain),
        ("base64", format!("{bare},{}", self::bare("admin"))),
        ("xfcc", format!("By=spiffe://k/s;Hash=;Cert=\"{app}\"")),
        ("xfcc", format!("By=spiffe://k/s;Subject=\"CN=a,\\\";\";URI=;Cert=\"{app}\";Chain=\"{app}\"")),
        ("xfcc", format!("Cert=\"{app}\",Cert=\"{app}\"")),
        ("rfc9440", format!(":{bare}:")),
    ];
    // Two certificates of clients, a hash of something else, an element of another proxy: these have the right form.
    let refused = [4, 5, 7];
    for form in ["pem", "base64", "xfcc", "rfc9440"] {
        let server = reading(&format!("{{ cert: {HEADER}, form: {form} }}"), "");
        let client = Client::new(server.address(), Some(Identity::dev("proxy")), Protocol::H1);
        for (index, (own, value)) in values.iter().enumerate() {
            let answer = block_on(client.send(Request::new("GET", SELF).header(HEADER, value))).expect("an answer");
            if *own == form && !refused.contains(&index) {
                assert_eq!(answer.json()["identity"], Identity::dev("app").hash(), "{form}: {value}");
            } else {
                assert_eq!(answer.status, 400, "{form}: {value}");
            }
        }
    }
}

/// As the proxy itself, without nginx, which never sends any of this.
#[test]
fn a_proxy_that_forwards_nonsense_speaks_for_nobody() {
    let server = server("");
    let app = escaped("app");
    let with_spaces = app.replace("%20", "+");
    let half = &app[..app.len() / 2];
    let two = app.clone() + &escaped("admin");
    let ca = escaped("ca");
    for protocol in Protocol::ALL {
        let status = |values: &[&str]| {
            let client = Client::new(server.address(), Some(Identity::dev("proxy")), protocol);
            let request = values.iter().fold(Request::new("GET", SELF), |request, value| request.header(HEADER, value));
            block_on(client.send(request)).expect("an answer").status
        };
        assert_eq!(status(&[&app]), 200, "{protocol:?}");
        assert_eq!(status(&[&with_spaces]), 200, "{protocol:?}: nginx writes spaces as pluses, too");
        for values in [&[][..], &[""], &["nonsense"], &["%"], &[half], &[&two], &[&app, &app], &[&app, ""], &[&ca]] {
            assert_eq!(status(values), 400, "{protocol:?}: {values:?}");
        }
    }
}

#[test]
fn the_header_of_anybody_else_is_ignored() {
    let server = server("");
    for protocol in Protocol::ALL {
        for value in [&escaped("admin"), "nonsense", ""] {
            let client = Client::new(server.address(), Some(Identity::dev("app")), protocol);
            let answer = block_on(client.send(Request::new("GET", SELF).header(HEADER, value))).expect("an answer");
            assert_eq!(answer.json()["identity"], Identity::dev("app").hash(), "{protocol:?}: {value:?}");
        }
        let client = Client::new(server.address(), None, protocol);
        let request = Request::new("GET", SELF).header(HEADER, &escaped("admin"));
        assert_eq!(block_on(client.send(request)).expect("an answer").status, 400, "{protocol:?}");
    }
}
