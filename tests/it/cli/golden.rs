//! Transcripts of our own commands and of what errors say, in `testdata/golden/cli`: `UPDATE=1` writes them anew.

use std::path::PathBuf;

use super::fixture::{ADMIN, APP, Fixture, identity};
use crate::support::{console, testdata};

#[test]
fn errors() {
    check("errors");
}

#[test]
fn explain() {
    check("explain");
}

#[test]
fn key_manager() {
    check("kms");
}

#[test]
fn help() {
    check("help");
}

/// Runs a transcript, and compares it with itself.
fn check(name: &str) {
    let path: PathBuf = testdata(format!("golden/cli/{name}.txt"));
    let golden = std::fs::read_to_string(&path).expect("a transcript");
    let steps = console::parse(&golden);
    let fixture = Fixture::start();
    let address = fixture.server().address().to_string();
    let env = [("SERVER", address.as_str()), ("ADMIN", ADMIN), ("APP", APP), ("APP_ID", &identity(APP))];
    let mut env: Vec<_> = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    env.push(("MINIO_KES_SERVER".into(), address.clone()));
    env.push(("MINIO_KES_API_KEY".into(), ADMIN.into()));
    let outputs = console::run(&steps, fixture.directory(), &env);
    let mut transcript = String::new();
    for (step, output) in steps.iter().zip(outputs) {
        transcript.push_str(&format!("$ {}\n{}", step.command, output.replace(&address, "<server>")));
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &transcript).expect("the transcript is written");
        return;
    }
    assert!(transcript == golden, "{} differs; UPDATE=1 writes it anew:\n{transcript}", path.display());
}
