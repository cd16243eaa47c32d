//! Whom the server takes a client for: every kind of certificate, over every protocol.

mod chains;
mod impersonation;
mod recorded;
mod resumption;
mod server_key;

use std::sync::Arc;

use rustls::{ClientConfig, SupportedProtocolVersion};

use crate::support::client::{Request, Tls};
use crate::support::server::fixture_config;
use crate::support::{Client, Identity, Protocol, Response, TestServer};

/// What needs a policy, in [`config`].
const TARGET: &str = "/v1/key/list/x";

const NEEDED: &str = "tls: client certificate is required";
const TOO_MANY: &str = "tls: received more than one client certificate";

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// The fixture's config with a policy that lets `identities` ask for [`TARGET`], and more settings of `tls:`.
fn config(identities: &[String], tls: &str) -> String {
    fixture_config(|config| {
        let member = |identity: &String| format!("    - {identity}\n");
        let members: String = identities.iter().map(member).collect();
        let policy = format!("policy:\n  listing:\n    allow:\n    - {TARGET}\n    identities:\n{members}");
        config.replace("policy:\n", &policy).replace("tls:\n", &format!("tls:\n{tls}"))
    })
}

/// Every protocol with every version of TLS.
fn transports() -> impl Iterator<Item = (Protocol, &'static SupportedProtocolVersion)> {
    Protocol::ALL.into_iter().flat_map(|protocol| VERSIONS.into_iter().map(move |version| (protocol, version)))
}

fn tls(
    identity: Option<Identity>,
    protocol: Protocol,
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    Tls::with_versions(identity, protocol, &[version]).shared()
}

/// Asks for [`TARGET`] as `identity`. An error means that the handshake failed.
async fn ask(
    server: &TestServer,
    identity: Option<Identity>,
    protocol: Protocol,
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<Response> {
    let client = Client::with_tls(server.address(), tls(identity, protocol, version), protocol);
    client.send(Request::new("GET", TARGET)).await
}
