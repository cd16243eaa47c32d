//! The key manager's command line as people meet it: questions before something is destroyed, words of other programs,
//! and who answered.

use claviger::auth::enclave::ApiKey;

use super::{HSM, root};
use crate::support::program::{Outcome, Program};
use crate::support::terminal::{Terminal, plain};
use crate::support::{TestServer, eventually};

struct Fixture {
    server: TestServer,
    data: tempfile::TempDir,
}

impl Fixture {
    /// A key manager with the enclave "tenant", and in it the key "k" with two versions.
    fn start() -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let fixture = Self { server: TestServer::key_manager(data.path(), HSM, &[]), data };
        let root = fixture.root();
        root.run(&["add-enclave", "tenant"]).ok();
        root.run(&["add-key", "k"]).ok();
        root.run(&["add-key", "k", "--version"]).ok();
        fixture
    }

    fn named(&self, name: &str, key: &ApiKey) -> Program {
        let certificate = self.data.path().join("server.crt");
        Program::named(name, self.server.directory())
            .env("MINIO_KMS_SERVER", self.server.address().to_string())
            .env("MINIO_KMS_API_KEY", key.expose())
            .env("MINIO_KMS_ENCLAVE", "tenant")
            .env("SSL_CERT_FILE", certificate.to_str().expect("text"))
    }

    fn root(&self) -> Program {
        self.named("minkms", &root())
    }

    fn keys(&self) -> String {
        self.root().run(&["ls-key", "--json"]).ok()
    }

    fn versions(&self) -> String {
        self.root().run(&["ls-key", "--versions", "k", "--json"]).ok()
    }
}

/// Runs a command on a terminal, where it must ask; gives the answer.
fn answer(program: &Program, line: &[&str], answer: &str) -> (String, Option<i32>) {
    let line: Vec<_> = line.iter().map(|word| (*word).to_owned()).collect();
    let mut terminal = Terminal::start(program, &line);
    eventually("it asks", || terminal.output().contains("[y/N] "));
    terminal.type_keys(&format!("{answer}\n"));
    let (output, exit) = terminal.wait();
    (plain(&output), exit)
}

/// Runs a command on a terminal, where it must not ask.
fn unasked(program: &Program, line: &[&str]) -> (String, Option<i32>) {
    let line: Vec<_> = line.iter().map(|word| (*word).to_owned()).collect();
    let (output, exit) = Terminal::start(program, &line).wait();
    assert!(!output.contains("[y/N]"), "{output}");
    (plain(&output), exit)
}

#[test]
fn the_first_rotation_of_a_key_that_clients_of_a_kes_use_is_agreed_to() {
    let server = crate::support::door::fixture();
    let program = |name| {
        Program::named(name, server.directory())
            .env("MINIO_KMS_SERVER", server.key_manager_address().to_string())
            .env("MINIO_KMS_API_KEY", crate::support::door::root().expose())
            .env("MINIO_KMS_ENCLAVE", crate::support::door::ENCLAVE)
    };
    let rotate = ["add-key", "my-key", "--version", "--insecure"];
    let root = program("minkms");
    let refused = root.run(&rotate);
    for text in ["there is no way back to a KES", "say '--yes'"] {
        assert!(refused.exit == Some(1) && refused.stderr.contains(text), "{refused:?}");
    }
    let typed = |name: &str| {
        let mut terminal = Terminal::start(&root, &rotate.map(str::to_owned));
        eventually("it asks", || terminal.output().contains("type its name: "));
        terminal.type_keys(&format!("{name}\n"));
        terminal.wait()
    };
    assert_eq!(typed("y").1, Some(1));
    let versions = || root.run(&["ls-key", "--versions", "my-key", "--json", "--insecure"]).ok();
    assert_eq!(versions().trim(), r#"["1"]"#);
    assert_eq!(typed("my-key").1, Some(0));
    assert_eq!(versions().trim(), r#"["1","2"]"#);
    // The way is closed, so nobody is asked again; and for a new key nobody needs to be.
    root.run(&rotate).ok();
    root.run(&["add-key", "new", "--insecure"]).ok();
    root.run(&["add-key", "new", "--version", "--yes", "--insecure"]).ok();
}

#[test]
fn nothing_is_destroyed_on_a_terminal_before_somebody_agrees() {
    let fixture = Fixture::start();
    let root = fixture.root();
    root.run(&["backup", "all.backup"]).ok();
    for line in
        [&["rm-enclave", "tenant"][..], &["rm-key", "k", "--all"], &["restore", "all.backup"], &["rm-hsm", "env"]]
    {
        for no in ["", "n", "maybe"] {
            let (output, exit) = answer(&root, line, no);
            assert!(exit == Some(1) && output.contains("nothing was done"), "{line:?}: {output}");
        }
    }
    assert_eq!((fixture.keys(), fixture.versions()), ("[\"k\"]\n".into(), "[\"1\",\"2\"]\n".into()));
    let (output, exit) = answer(&root, &["rm-key", "k", "--version", "1"], "y");
    assert!(exit == Some(0) && output.contains("Deleted version 1 of key \"k\"."), "{output}");
    let (output, exit) = answer(&root, &["rm-enclave", "tenant"], "yes");
    assert!(exit == Some(0) && output.contains("Deleted enclave \"tenant\""), "{output}");
    let (output, exit) = answer(&root, &["restore", "all.backup"], "y");
    assert!(exit == Some(0) && output.contains("Replaced all data of https://"), "{output}");
    assert_eq!(fixture.versions(), "[\"1\",\"2\"]\n");
    let (output, exit) = unasked(&root, &["rm-enclave", "tenant", "--yes"]);
    assert!(exit == Some(0) && output.contains("Deleted enclave"), "{output}");
}

#[test]
fn the_version_in_use_is_never_deleted_because_nobody_said_which() {
    let fixture = Fixture::start();
    let root = fixture.root();
    for line in [&["rm-key", "k"][..], &["rm-key", "k", "--yes"]] {
        let refused = root.run(line);
        assert!(
            refused.exit == Some(1) && refused.stderr.contains("name what to delete: '--version NUMBER'"),
            "{refused:?}"
        );
    }
    let (output, _) = unasked(&root, &["rm-key", "k", "--yes"]);
    assert!(output.contains("name what to delete"), "{output}");
    let (output, exit) = answer(&root, &["rm-key", "k"], "n");
    assert!(exit == Some(1) && output.contains("Delete version 2 of key \"k\", the one that is in use?"), "{output}");
    assert_eq!(fixture.versions(), "[\"1\",\"2\"]\n");
    let (output, exit) = answer(&root, &["rm-key", "k"], "y");
    assert!(exit == Some(0) && output.contains("Deleted version 2 of key \"k\""), "{output}");
    assert_eq!(fixture.versions(), "[\"1\"]\n");
}

#[test]
fn who_removes_itself_is_asked() {
    let fixture = Fixture::start();
    let (own, other) = (ApiKey::generate().expect("a key"), ApiKey::generate().expect("a key"));
    for key in [&own, &other] {
        fixture.root().run(&["add-identity", "--admin", &key.identity().to_string()]).ok();
    }
    let program = fixture.named("minkms", &own);
    let (output, exit) = unasked(&program, &["rm-identity", &other.identity().to_string()]);
    assert!(exit == Some(0) && output.contains("Removed identity h1:"), "{output}");
    let own = own.identity().to_string();
    let (output, exit) = answer(&program, &["rm-identity", &own], "");
    assert!(exit == Some(1) && output.contains("acts as that identity"), "{output}");
    assert!(fixture.root().run(&["ls-identity", "--json"]).ok().contains(&own));
    program.run(&["rm-identity", &own]).ok();
    assert_eq!(fixture.root().run(&["ls-identity", "--json"]).ok(), "[]\n", "no terminal, no question");
}

#[test]
fn a_terminal_is_told_that_a_list_is_empty_and_gets_no_backup() {
    let fixture = Fixture::start();
    let root = fixture.root();
    for (line, text) in [
        (&["ls-key", "nothing"][..], "No keys found."),
        (&["ls-policy"], "No policies found."),
        (&["ls-identity"], "No identities found."),
        (&["ls-enclave", "nothing*"], "No enclaves found."),
    ] {
        assert_eq!(unasked(&root, line), (format!("{text}\n"), Some(0)));
        assert_eq!(root.run(line).ok(), "", "scripts get nothing");
    }
    let (output, exit) = unasked(&root, &["backup", "-"]);
    assert!(exit == Some(1) && output.contains("no text for a terminal"), "{output}");
    assert_eq!(root.command(&["backup", "-"]).output().expect("it runs").status.code(), Some(0));
}

#[test]
fn a_star_at_the_end_of_a_prefix_may_stand_or_not() {
    let fixture = Fixture::start();
    let root = fixture.root();
    for name in ["my-a", "my-b", "other"] {
        root.run(&["add-key", name]).ok();
    }
    for pattern in ["my", "my*", "my-*"] {
        assert_eq!(root.run(&["ls-key", pattern, "--json"]).ok(), "[\"my-a\",\"my-b\"]\n", "{pattern}");
    }
    assert_eq!(root.run(&["ls-key", "*", "--json"]).ok(), "[\"k\",\"my-a\",\"my-b\",\"other\"]\n");
    assert_eq!(root.run(&["ls-enclave", "ten*", "--json"]).ok(), "[\"tenant\"]\n");
    let refused = root.run(&["ls-key", "*-a"]);
    assert!(refused.exit == Some(2) && refused.stderr.contains("only stand at the end"), "{refused:?}");
}

#[test]
fn words_of_other_programs_are_understood_or_lead_to_the_command() {
    let fixture = Fixture::start();
    let root = fixture.root();
    root.run(&["create-key", "new"]).ok();
    assert_eq!(root.run(&["list-keys", "--json"]).ok(), "[\"k\",\"new\"]\n");
    let claviger = fixture.named("claviger", &root_key());
    claviger.run(&["kms", "new-key", "newer"]).ok();
    for (program, line, text) in [
        (&root, &["delete-key", "k"][..], "'minkms rm-key'"),
        (&root, &["rotate-key", "k"], "'minkms add-key NAME --version'"),
        (&claviger, &["kms", "delete-key", "k"], "'claviger kms rm-key'"),
        (&claviger, &["delete", "k"], "'claviger key rm NAME'"),
    ] {
        let Outcome { stdout, stderr, exit } = program.run(line);
        assert!(stdout.is_empty() && stderr.lines().count() == 1 && stderr.contains(text), "{line:?}: {stderr}");
        assert_eq!(exit, Some(2));
    }
    let tip = root.run(&["r-key", "k"]);
    assert!(tip.exit == Some(2) && !tip.stderr.contains("rm-key"), "{tip:?}");
    assert_eq!(fixture.keys(), "[\"k\",\"new\",\"newer\"]\n");
}

fn root_key() -> ApiKey {
    root()
}

#[test]
fn help_and_version_work_under_every_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = |name: &str, line: &[&str]| Program::named(name, directory.path()).run(line);
    let version = format!("Version    {}", env!("CARGO_PKG_VERSION"));
    for (name, before) in
        [("claviger", &[][..]), ("kes", &[]), ("minkms", &[]), ("claviger", &["kms"]), ("kes", &["kms"])]
    {
        for word in ["version", "--version", "-v", "-V"] {
            let shown = run(name, &[before, &[word]].concat()).ok();
            assert!(shown.starts_with(&version), "{name} {before:?} {word}: {shown}");
        }
        let long = run(name, &[before, &["--help"]].concat()).ok();
        assert_eq!(run(name, &[before, &["help"]].concat()).ok(), long);
    }
    for (name, help, long) in [
        ("kes", &["help", "key", "create"][..], &["key", "create", "--help"][..]),
        ("kes", &["key", "help", "rm"], &["key", "rm", "--help"]),
        ("minkms", &["help", "rm-key"], &["rm-key", "--help"]),
        ("claviger", &["help", "kms", "rm-key"], &["kms", "rm-key", "--help"]),
        ("claviger", &["kms", "help", "rm-key"], &["kms", "rm-key", "--help"]),
    ] {
        assert_eq!(run(name, help).ok(), run(name, long).ok(), "{name} {help:?}");
    }
    assert_eq!(run("minkms", &["help", "nonsense"]).exit, Some(2));
}

#[test]
fn the_environment_of_an_object_store_is_told_from_ones_own() {
    let fixture = Fixture::start();
    let made = fixture.root().run(&["env"]);
    assert!(made.exit == Some(0) && made.stderr.contains("the environment of an object store"), "{made:?}");
    assert!(made.stdout.lines().all(|line| line.starts_with("export MINIO_KMS_")), "{made:?}");
    let key = made.stdout.lines().find_map(|line| line.strip_prefix("export MINIO_KMS_API_KEY=")).expect("a key");
    let store = ApiKey::parse(key).expect("a key");
    for name in ["minkms", "claviger"] {
        let program = fixture.named(name, &store);
        let before: &[&str] = if name == "minkms" { &[] } else { &["kms"] };
        for line in [&["add-enclave", "another"][..], &["backup", "all.backup"]] {
            let refused = program.run(&[before, line].concat());
            let text = format!("You act as {}", store.identity());
            assert!(refused.exit == Some(1) && refused.stderr.contains(&text), "{refused:?}");
            let env = format!("'{}'", [&[name], before, &["env"]].concat().join(" "));
            assert!(refused.stderr.contains(&env) && refused.stderr.contains("MINIO_KMS_API_KEY"), "{refused:?}");
        }
    }
}

#[test]
fn a_server_of_the_other_kind_is_told_from_one_that_knows_nothing() {
    let fixture = Fixture::start();
    let kes = TestServer::fixture();
    for name in ["kes", "claviger"] {
        let asks_kms = Program::named(name, fixture.server.directory())
            .env("MINIO_KES_SERVER", fixture.server.address().to_string())
            .env("MINIO_KES_API_KEY", crate::cli::fixture::ADMIN);
        for line in [&["key", "create", "-k", "k"][..], &["status", "-k"], &["key", "ls", "-k"], &["log", "-k"]] {
            let refused = asks_kms.run(line);
            assert_eq!(refused.exit, Some(1), "{refused:?}");
            let wanted = format!("https://{} is a key manager and no KES server", fixture.server.address());
            assert!(refused.stderr.contains(&wanted), "{refused:?}");
            assert!(refused.stderr.contains(&format!("use '{name} kms'")), "{refused:?}");
        }
    }
    let asks_kes = fixture.root().env("MINIO_KMS_SERVER", kes.address().to_string());
    for line in [&["ls-key", "-k"][..], &["add-enclave", "-k", "e"], &["backup", "-k", "b"], &["logs", "-k"]] {
        let refused = asks_kes.run(line);
        let wanted = format!("https://{} is a KES server and no key manager", kes.address());
        assert!(refused.exit == Some(1) && refused.stderr.contains(&wanted), "{refused:?}");
        assert!(refused.stderr.contains("use 'claviger key'"), "{refused:?}");
    }
}
