//! `status --ready`: the health check of containers.

use super::fixture::{APP, Fixture};
use crate::kms::HSM;
use crate::support::program::{Outcome, Program};
use crate::support::server::{TestServer, fixture_config};

/// Asks a server that is not verified, with these variables.
fn ask(server: &TestServer, variables: &[(&str, &str)]) -> Outcome {
    let mut program = Program::named("claviger", server.directory());
    for (name, value) in variables {
        program = program.env(name, *value);
    }
    program.run(&["status", "--ready", "-k", "--server", &server.address().to_string()])
}

#[test]
fn whoever_asks_needs_a_right_unless_everybody_may_ask() {
    let fixture = Fixture::start();
    let server = fixture.server();
    let outcome = fixture.program("claviger").run(&["status", "--ready", "-k"]);
    assert_eq!((outcome.exit, outcome.stdout), (Some(0), format!("{} is ready\n", server.address())));
    let outcome = ask(server, &[]);
    let hint = "by the server's config:\napi: { /v1/ready: { skip_auth: true } }\n";
    assert!(outcome.exit == Some(1) && outcome.stdout.is_empty(), "{outcome:?}");
    assert!(
        outcome.stderr.starts_with("Error: the server is not ready: ") && outcome.stderr.ends_with(hint),
        "{outcome:?}"
    );
    let outcome = ask(server, &[("MINIO_KES_API_KEY", APP)]);
    assert!(outcome.exit == Some(1) && outcome.stderr.contains("does not allow /v1/ready"), "{outcome:?}");
    let open =
        TestServer::with_config(&fixture_config(|text| format!("{text}api: {{ /v1/ready: {{ skip_auth: true }} }}\n")));
    assert_eq!(ask(&open, &[]).exit, Some(0));
}

#[test]
fn a_server_without_its_key_store_is_not_ready_and_one_that_is_gone_neither() {
    let fixture = Fixture::start();
    let program = fixture.program("claviger");
    let asked = |says: &str| {
        let outcome = program.run(&["status", "--ready", "-k"]);
        assert!(outcome.exit == Some(1) && outcome.stdout.is_empty(), "{outcome:?}");
        assert!(
            outcome.stderr.starts_with("Error: the server is not ready: ") && outcome.stderr.contains(says),
            "{outcome:?}"
        );
    };
    std::fs::remove_dir_all(fixture.directory().join("keys")).expect("removed");
    asked("key store is not reachable");
    let outcome = program.run(&["status", "--ready", "-k", "--server", "127.0.0.1:1"]);
    assert!(outcome.exit == Some(1) && outcome.stderr.contains("connection refused"), "{outcome:?}");
}

#[test]
fn a_key_manager_is_asked_as_it_wants_to_be_asked() {
    let server = TestServer::key_manager_dev(HSM);
    let outcome = ask(&server, &[]);
    assert_eq!((outcome.exit, outcome.stdout), (Some(0), format!("{} is ready\n", server.address())));
}
