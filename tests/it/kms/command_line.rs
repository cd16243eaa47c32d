//! The command line, as `claviger kms` and as `minkms`.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;

use super::{HSM, root};
use crate::support::TestServer;
use crate::support::program::Program;

struct Fixture {
    server: TestServer,
    data: tempfile::TempDir,
}

impl Fixture {
    fn start() -> Self {
        let data = tempfile::tempdir().expect("a directory");
        Self { server: TestServer::key_manager(data.path(), HSM, &[]), data }
    }

    fn program(&self, api_key: &str) -> Program {
        let certificate = self.data.path().join("server.crt");
        Program::named("minkms", self.server.directory())
            .env("MINIO_KMS_SERVER", format!("https://{}", self.server.address()))
            .env("MINIO_KMS_API_KEY", api_key)
            .env("SSL_CERT_FILE", certificate.to_str().expect("text"))
    }
}

#[test]
fn one_command_makes_all_that_an_object_store_needs() {
    let fixture = Fixture::start();
    let root = fixture.program(root().expose());
    let exports = root.run(&["env", "sse-key"]).ok();
    let value = |name: &str| {
        let line = exports.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
        line.unwrap_or_else(|| panic!("{name} in {exports}")).to_owned()
    };
    assert_eq!((value("MINIO_KMS_ENCLAVE"), value("MINIO_KMS_SSE_KEY")), ("minio".into(), "sse-key".into()));
    assert_eq!(value("MINIO_KMS_SERVER"), format!("https://{}", fixture.server.address()));
    let store = fixture.program(&value("MINIO_KMS_API_KEY")).env("MINIO_KMS_ENCLAVE", "minio");
    let made: serde_json::Value = serde_json::from_str(&store.run(&["keygen", "sse-key", "{}"]).ok()).expect("JSON");
    let opened = store.run(&["decrypt", "sse-key", made["ciphertext"].as_str().expect("text"), "{}"]).ok();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&opened).expect("JSON")["plaintext"], made["plaintext"]);
    root.run(&["env", "sse-key"]).ok();
    assert_eq!(root.run(&["ls-identity", "-e", "minio", "--json"]).ok().matches("h1:").count(), 2, "another admin");
}

#[test]
fn a_policy_is_read_as_it_was_written() {
    let fixture = Fixture::start();
    let program = fixture.program(root().expose()).env("MINIO_KMS_ENCLAVE", "tenant");
    program.run(&["add-enclave", "tenant"]).ok();
    let policy = r#"{"allow":{"KEY:CREATE":"my-key*","KEY:GENERATE":["a","b*"],"KEY:IMPORT":{"c":{}}},"deny":{"KEY:DELETE":"*"}}"#;
    std::fs::write(fixture.server.directory().join("p.json"), policy).expect("written");
    program.run(&["add-policy", "p", "p.json"]).ok();
    let read: serde_json::Value = serde_json::from_str(&program.run(&["get-policy", "p"]).ok()).expect("JSON");
    assert_eq!(read["allow"]["KEY:GENERATE"], serde_json::json!(["a", "b*"]));
    assert_eq!(
        (&read["allow"]["KEY:IMPORT"], &read["deny"]["KEY:DELETE"]),
        (&serde_json::json!(["c"]), &serde_json::json!(["*"]))
    );
    std::fs::write(fixture.server.directory().join("p.json"), r#"{"allow":{"KEY:FLY":"*"}}"#).expect("written");
    let refused = program.run(&["add-policy", "p", "p.json"]);
    assert!(refused.exit == Some(1) && refused.stderr.contains("an action that there is not"), "{refused:?}");
}

#[test]
fn a_backup_takes_back_what_was_deleted() {
    let fixture = Fixture::start();
    let program = fixture.program(root().expose()).env("MINIO_KMS_ENCLAVE", "tenant");
    program.run(&["add-enclave", "tenant"]).ok();
    program.run(&["add-key", "k"]).ok();
    program.run(&["backup", "all.backup"]).ok();
    let again = program.run(&["backup", "all.backup"]);
    assert_eq!(again.exit, Some(1), "the file is not replaced unasked: {again:?}");
    program.run(&["rm-enclave", "tenant"]).ok();
    program.run(&["restore", "all.backup"]).ok();
    assert_eq!(program.run(&["ls-key", "--json"]).ok(), "[\"k\"]\n");
}

#[test]
fn the_root_key_is_worked_out_of_the_hsm_key_without_a_server() {
    let directory = tempfile::tempdir().expect("a directory");
    let program = Program::named("minkms", directory.path());
    let shown: serde_json::Value = serde_json::from_str(&program.run(&["identity", HSM, "--json"]).ok()).expect("JSON");
    assert_eq!(shown["api_key"], root().expose());
    assert_eq!(shown["identity"], root().identity().to_string());
    let made = program.run(&["--soft-hsm"]).ok();
    assert!(made.starts_with("hsm:aes256:") && made.len() == 56, "{made}");
    let files = program.run(&["identity", "--key", "c.key", "--cert", "c.crt", "--json"]).ok();
    let made: serde_json::Value = serde_json::from_str(&files).expect("JSON");
    let of: serde_json::Value =
        serde_json::from_str(&program.run(&["identity", "c.crt", "--json"]).ok()).expect("JSON");
    assert_eq!(made["identity"], of["identity"]);
}

#[test]
fn errors_say_what_failed_and_what_to_do() {
    let fixture = Fixture::start();
    let program = fixture.program(root().expose()).env("MINIO_KMS_ENCLAVE", "tenant");
    let refused = program.run(&["add-key", "k"]);
    assert!(refused.stderr.contains("failed to create key \"k\": enclave does not exist"), "{refused:?}");
    program.run(&["add-enclave", "tenant"]).ok();
    let added = program.run(&["add-identity", "--json"]).ok();
    let added: serde_json::Value = serde_json::from_str(&added).expect("JSON");
    let user = fixture.program(added["api_key"].as_str().expect("text")).env("MINIO_KMS_ENCLAVE", "tenant");
    let refused = user.run(&["add-key", "k"]);
    assert!(refused.stderr.contains("access denied: insufficient permissions\nThe identity h1:"), "{refused:?}");
    let nobody = program.run(&["add-key", "k", "--api-key", "k1:x"]);
    assert!(nobody.stderr.contains("invalid API key") && !nobody.stderr.contains("k1:x"), "{nobody:?}");
    let alone = program.run(&["add", "127.0.0.1:7373"]);
    assert!(alone.stderr.contains("this key manager is one server"), "{alone:?}");
}

/// The commands that the program lists.
fn commands(program: &Program) -> BTreeSet<String> {
    let help = program.run(&["--help"]).ok();
    let (_, list) = help.split_once("Commands:\n").expect("a list of commands");
    let lines = list.lines().take_while(|line| !line.is_empty());
    // Descriptions go on in lines that begin further to the right.
    let names = lines.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    names.filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect()
}

/// Commands whose result is a change, and that print nothing.
const SILENT: [&str; 18] = [
    "add",
    "add-enclave",
    "add-hsm",
    "add-key",
    "add-policy",
    "assign-policy",
    "edit",
    "export-key",
    "join",
    "leave",
    "restore",
    "rm",
    "rm-enclave",
    "rm-hsm",
    "rm-identity",
    "rm-key",
    "rm-policy",
    "rotate-root",
];

/// Commands whose output is of a form of its own: a server's, a backup's bytes, scripts and pages.
const OTHERS: [&str; 5] = ["server", "backup", "completions", "man", "policies"];

#[test]
fn every_command_with_a_result_writes_it_as_one_json_document() {
    let fixture = Fixture::start();
    let program = fixture.program(root().expose()).env("MINIO_KMS_ENCLAVE", "tenant");
    let takes_json = |command: &String| program.run(&[command, "--help"]).ok().contains("--json");
    let all = commands(&program);
    let json: BTreeSet<_> = all.iter().filter(|command| takes_json(command)).cloned().collect();
    let rest: BTreeSet<_> = all.difference(&json).map(String::as_str).collect();
    let known: BTreeSet<_> = SILENT.into_iter().chain(OTHERS).collect();
    assert_eq!(rest, known, "commands without '--json'");

    // Run in this order; each is followed by what its document is.
    let mut run = BTreeSet::from(["logs".to_owned()]);
    let mut shows = |args: &[&str], is_right: &dyn Fn(&Value) -> bool| {
        run.insert(args[0].to_owned());
        let output = program.run(&[args, &["--json"]].concat());
        assert!(output.exit == Some(0) && output.stderr.is_empty(), "{args:?}: {output:?}");
        let document = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}"));
        assert!(is_right(&document), "{args:?}: {document}");
        document
    };
    let changes = |args: &[&str]| assert_eq!(program.run(args).ok(), "", "{args:?} prints nothing");
    let has =
        |field: &'static str| move |document: &Value| document[field].as_str().is_some_and(|text| !text.is_empty());
    let names = |count: usize| {
        move |document: &Value| {
            document.as_array().is_some_and(|names| names.len() == count && names.iter().all(Value::is_string))
        }
    };

    shows(&["ls-enclave"], &names(0));
    changes(&["add-enclave", "tenant"]);
    shows(&["ls-enclave"], &names(1));
    changes(&["add-enclave", "b", "c"]);
    shows(&["ls-enclave"], &names(3));
    shows(&["stat-enclave", "tenant"], &has("name"));

    shows(&["ls-key"], &names(0));
    changes(&["add-key", "k"]);
    shows(&["ls-key"], &names(1));
    shows(&["ls-key", "--versions", "k"], &names(1));
    changes(&["add-key", "k", "--version"]);
    changes(&["add-key", "l"]);
    shows(&["ls-key"], &names(2));
    shows(&["ls-key", "--versions", "k"], &names(2));
    shows(&["stat-key", "k"], &has("name"));
    shows(&["keygen", "k"], &has("plaintext"));
    shows(&["mac", "k", "message"], &has("mac"));
    let encrypted = shows(&["encrypt", "k", "message"], &has("ciphertext"));
    shows(&["decrypt", "k", encrypted["ciphertext"].as_str().expect("text")], &has("plaintext"));

    std::fs::write(fixture.server.directory().join("p.json"), "{}").expect("written");
    shows(&["ls-policy"], &names(0));
    changes(&["add-policy", "p", "p.json"]);
    shows(&["ls-policy"], &names(1));
    changes(&["add-policy", "q", "p.json"]);
    shows(&["ls-policy"], &names(2));
    shows(&["get-policy", "p"], &|document| document["allow"].is_object() && document["deny"].is_object());

    shows(&["ls-identity"], &names(0));
    let added = shows(&["add-identity"], &has("api_key"));
    let identity = added["identity"].as_str().expect("an identity").to_owned();
    shows(&["ls-identity"], &names(1));
    let other = shows(&["identity"], &has("api_key"));
    changes(&["add-identity", other["identity"].as_str().expect("an identity"), "--admin"]);
    shows(&["ls-identity"], &names(2));
    changes(&["assign-policy", "p", &identity]);
    shows(&["get-identity", &identity], &has("policy"));

    shows(&["env"], &has("MINIO_KMS_API_KEY"));
    shows(&["ls"], &names(1));
    shows(&["stat"], &|document| document["nodes_up"].is_object());

    changes(&["backup", "all.backup"]);
    changes(&["restore", "all.backup"]);
    changes(&["rm-policy", "p", "q"]);
    changes(&["rm-identity", &identity]);
    changes(&["rm-key", "k", "--all"]);
    changes(&["rm-enclave", "tenant", "b"]);
    assert_eq!(run, json, "every command that takes '--json' was tried");

    for args in [&["stat-enclave", "none"][..], &["ls-key"], &["get-identity"], &["keygen", "k"]] {
        let refused = program.run(&[args, &["--json"]].concat());
        let is_told = refused.stdout.is_empty() && refused.stderr.starts_with("Error: ");
        assert!(refused.exit == Some(1) && is_told, "{args:?}: {refused:?}");
    }
    let nothing = program.run(&["add-identity", &identity, "--json"]);
    assert!(nothing.exit == Some(2) && nothing.stdout.is_empty(), "{nothing:?}");
}

#[test]
fn the_log_is_shown_from_some_moment_on_and_with_places() {
    let fixture = Fixture::start();
    let program = fixture.program(root().expose());
    program.run(&["add-enclave", "tenant"]).ok();
    let first_line = |args: &[&str]| {
        let mut command = program.command(&[&["logs", "--message", "ENCLAVE:CREATE"], args].concat());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut line = || lines.next().expect("a line").expect("text");
        let shown = (line(), if args.contains(&"--json") { String::new() } else { line() });
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        shown
    };
    let (record, place) = first_line(&["--since", "10m", "--trace", "INFO"]);
    assert!(record.ends_with("INFO  changed enclave= changes=ENCLAVE:CREATE tenant"), "{record}");
    assert!(place.starts_with("    claviger::kms::writer src/kms/writer.rs:"), "{place}");
    let (record, _) = first_line(&["--since", "2026-01-02T15:04:05Z", "--trace", "DEBUG", "--json"]);
    let record: Value = serde_json::from_str(&record).expect("one JSON object a line");
    assert_eq!(record["trace"][0]["file"], "src/kms/writer.rs");
    let (record, _) = first_line(&["--since", "1h30m", "--json"]);
    let record: Value = serde_json::from_str(&record).expect("one JSON object a line");
    assert!(record["trace"].is_null() && record["message"].is_string(), "{record}");
    for bad in ["yesterday", "10", "-5m", "2026-01-02"] {
        assert_eq!(program.run(&["logs", &format!("--since={bad}")]).exit, Some(2), "{bad}");
    }
}
