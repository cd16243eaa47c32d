//! Every request in `testdata/http`, sent again: we answer as the archived server did, or as
//! `testdata/differences.toml` says.
//!
//! Each file runs in order against a fresh server, once over HTTP/1.1 and once over HTTP/2. Then the same for a key
//! manager that serves the KES API over an enclave.

mod answer;
mod case;
mod keystore;
mod metrics;
mod streams;

use std::collections::BTreeMap;

use self::answer::Expected;
use self::case::{Case, File};
use crate::support::differences::Differences;
use crate::support::server::fixture_config;
use crate::support::{Client, Identity, Protocol, TestServer, block_on, door, testdata};

/// Declares a test for each file whose requests need nothing but the fixture.
macro_rules! replays {
    ($($name:ident: $file:literal),* $(,)?) => {
        const PLAIN: &[&str] = &[$($file),*];

        $(#[test]
        fn $name() {
            replay($file, || TestServer::fixture());
        })*

        mod of_an_enclave {
            use super::*;

            $(#[test]
            fn $name() {
                replay_door($file, || door::fixture());
            })*
        }
    };
}

replays! {
    api: "api",
    auth: "auth",
    identity_describe: "identity-describe",
    identity_list: "identity-list",
    identity_self: "identity-self",
    key_create: "key-create",
    key_decrypt: "key-decrypt",
    key_delete: "key-delete",
    key_describe: "key-describe",
    key_encrypt: "key-encrypt",
    key_generate: "key-generate",
    key_hmac: "key-hmac",
    key_import: "key-import",
    key_list: "key-list",
    paths: "paths",
    policy_describe: "policy-describe",
    policy_list: "policy-list",
    policy_read: "policy-read",
    ready: "ready",
    status: "status",
    version: "version",
}

/// The files that need more, each with a test of its own.
const OTHERS: &[&str] =
    &["fs-odd-entries", "keystore-trouble", "log-streams", "log-streams-by-version", "metrics", "skip-auth"];

#[test]
fn skip_auth() {
    let config = || {
        fixture_config(|config| {
            format!("{config}api:\n  /v1/ready:\n    skip_auth: true\n  /v1/metrics:\n    timeout: 7s\n")
        })
    };
    replay("skip-auth", || TestServer::with_config(&config()));
}

#[test]
fn skip_auth_of_an_enclave() {
    let config = || {
        door::door_config(|config| {
            format!("{config}api:\n  /v1/ready:\n    skip_auth: true\n  /v1/metrics:\n    timeout: 7s\n")
        })
    };
    replay_door("skip-auth", || {
        let server = door::empty(&config());
        block_on(door::fill(&server, &server.keys()));
        server
    });
}

#[test]
fn every_file_has_a_test() {
    let mut files: Vec<_> = std::fs::read_dir(testdata("http"))
        .expect("readable")
        .filter_map(|entry| entry.expect("readable").file_name().to_str()?.strip_suffix(".json").map(str::to_owned))
        .collect();
    files.sort();
    let mut known: Vec<_> = PLAIN.iter().chain(OTHERS).map(|name| (*name).to_owned()).collect();
    known.sort();
    assert_eq!(files, known);
}

/// Sends the requests of a file, in order, once per protocol.
fn replay(file: &str, start: impl Fn() -> TestServer) {
    replay_into(Report::new(file), start);
}

/// The same for the listener of a key manager. It answers as a key server does, or as the entries for `enclave/…` say.
fn replay_door(file: &str, start: impl Fn() -> TestServer) {
    replay_into(Report { enclave: Some(Differences::of(&format!("enclave/{file}"))), ..Report::new(file) }, start);
}

fn replay_into(mut report: Report, start: impl Fn() -> TestServer) {
    let cases = File::load(&report.file).cases;
    for protocol in Protocol::ALL {
        let server = start();
        let clients = Clients::new(&server, protocol);
        for (index, case) in cases.iter().enumerate().filter(|(_, case)| case.is_for(protocol)) {
            let answer = block_on(clients.of(case).send(case.request()));
            report.compare(index, protocol, case, answer);
        }
    }
    report.finish();
}

/// The fixture's clients, over one protocol.
struct Clients {
    known: BTreeMap<String, Client>,
    anonymous: Client,
}

impl Clients {
    fn new(server: &TestServer, protocol: Protocol) -> Self {
        let names = ["admin", "app", "deny", "nobody", "ops", "reader"];
        let client = |name: &str| Client::new(server.address(), Some(Identity::fixture(name)), protocol);
        Self {
            known: names.iter().map(|name| ((*name).to_owned(), client(name))).collect(),
            anonymous: Client::new(server.address(), None, protocol),
        }
    }

    fn of(&self, case: &Case) -> &Client {
        case.client.as_ref().map_or(&self.anonymous, |name| &self.known[name])
    }
}

/// What differs from the recording and from our list of differences.
struct Report {
    file: String,
    differences: Differences,
    /// Where a key manager answers otherwise than a key server, if this is about one.
    enclave: Option<Differences>,
    failures: Vec<String>,
    compared: usize,
}

impl Report {
    fn new(file: &str) -> Self {
        let differences = Differences::of(&format!("http/{file}"));
        Self { file: file.into(), differences, enclave: None, failures: Vec::new(), compared: 0 }
    }

    fn compare(
        &mut self,
        index: usize,
        protocol: Protocol,
        case: &Case,
        answer: std::io::Result<crate::support::Response>,
    ) {
        let name = format!("http/{}#{index}", self.file);
        let recorded = case.recorded(protocol);
        let own_name = format!("enclave/{}#{index}", self.file);
        let own = self.enclave.as_mut().and_then(|enclave| enclave.take(&own_name));
        let ours = own.or_else(|| self.differences.take(&name));
        let ours = ours.map(|difference| Expected::ours(&difference.answer, protocol));
        self.compared += 1;
        let what = format!("{name} {protocol:?} {} {}", case.request.method, case.request.short_path());
        match ours {
            None => {
                if let Err(why) = recorded.check(&answer, &case.request.method) {
                    self.failures.push(format!("{what}: {why}\n    got {answer:?}"));
                }
            }
            Some(ours) => {
                if let Err(why) = ours.check(&answer, &case.request.method) {
                    self.failures.push(format!("{what}: not even our own answer: {why}\n    got {answer:?}"));
                }
                let differs = recorded.check(&answer, &case.request.method).is_err();
                self.differences.note(&name, differs);
                if let Some(enclave) = &mut self.enclave {
                    enclave.note(&own_name, differs);
                }
            }
        }
    }

    fn finish(self) {
        assert!(self.compared > 0, "{} has no cases", self.file);
        assert!(
            self.failures.is_empty(),
            "{} of {} answers differ:\n{}",
            self.failures.len(),
            self.compared,
            self.failures.join("\n")
        );
        // What a key server needs, a key manager may not.
        self.enclave.unwrap_or(self.differences).finish();
    }
}
