//! `claviger init`: what it makes is a server that works, and nothing is ever overwritten.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::eventually;
use crate::support::program::Program;
use crate::support::terminal::Terminal;

/// A port that nobody listens on.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port()
}

/// What was made, and what was said of it.
struct Made {
    place: tempfile::TempDir,
    program: Program,
    said: String,
    address: String,
}

impl Made {
    fn new(args: &[&str]) -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let program = Program::named("claviger", place.path());
        let address = format!("127.0.0.1:{}", free_port());
        let given = ["init", "made", "--host", "localhost,127.0.0.1", "--address", &address];
        let said = program.run(&[&given, args].concat()).ok();
        Self { place, program, said, address }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join("made").join(name)
    }

    /// The lines to type beneath a heading, for a shell.
    fn lines(&self, heading: &str) -> String {
        let (_, rest) = self.said.split_once(&format!("{heading}:\n\n")).unwrap_or_else(|| panic!("{}", self.said));
        rest.lines().take_while(|line| line.starts_with("  ")).map(|line| format!("{}\n", line.trim())).collect()
    }

    /// A shell that runs these lines.
    fn shell(&self, lines: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-ec", lines]);
        self.program.prepare(&mut command);
        let bin = self.program.path().parent().expect("in a directory").display();
        command.env("PATH", format!("{bin}:/usr/bin:/bin")).stdin(Stdio::null());
        // Whose administrators nobody knows.
        command.env_remove("CLAVIGER_ALLOW_PUBLISHED_ADMIN");
        command
    }

    /// What a shell prints that runs these lines.
    fn type_in(&self, lines: &str) -> Result<String, String> {
        let output = self.shell(lines).output().expect("a shell");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// Starts the server as it was said.
    fn start(&self) -> Running {
        let lines = format!("exec {}", self.lines("Start the server"));
        let child = self.shell(&lines).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let running = Running(child);
        let ready = format!("claviger status --ready --server {}", self.address);
        eventually("the server is ready", || {
            let mut command = self.shell(&ready);
            command.env("SSL_CERT_FILE", self.path("server.crt"));
            command.output().is_ok_and(|output| output.status.success())
        });
        running
    }

    /// What doctor and config check say against a config; locked memory depends on the machine.
    fn troubles(&self, config: &str) -> Vec<Value> {
        let path = self.path(config);
        let path = path.to_str().expect("text");
        let said = self.program.run(&["doctor", "--config", path, "--json"]).ok();
        let checks: Vec<Value> = serde_json::from_str(&said).expect("JSON");
        assert!(checks.len() > 5, "{checks:?}");
        let is_trouble = |check: &Value| check["status"] != "ok" && check["id"] != "memory.lock";
        let check = self.program.run(&["config", "check", path, "--json"]).ok();
        let check: Value = serde_json::from_str(&check).expect("JSON");
        let warnings = check["warnings"].as_array().expect("an array").clone();
        checks.into_iter().filter(is_trouble).chain(warnings).collect()
    }
}

/// A server, which ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every file below a directory, with its permissions and its content.
fn tree(directory: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(tree(&path));
        } else {
            let mode = path.metadata().expect("there").permissions().mode() & 0o777;
            found.push((path.clone(), mode, std::fs::read(&path).expect("readable")));
        }
    }
    found.sort();
    found
}

/// Secrets stand in no file that others can read, and are not printed.
fn assert_secret(made: &Made, beginnings: &[&str]) {
    for (path, mode, content) in tree(&made.path("")) {
        let text = String::from_utf8_lossy(&content).into_owned();
        let is_secret = beginnings.iter().any(|secret| text.contains(secret)) || text.contains("PRIVATE KEY");
        assert!(!is_secret || mode == 0o600, "{} {mode:o}", path.display());
    }
    assert!(beginnings.iter().all(|secret| !made.said.contains(secret)), "{}", made.said);
    let mode = made.path("").metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o700);
}

#[test]
fn a_key_server_is_made_that_an_object_store_can_use() {
    let made = Made::new(&[]);
    assert_secret(&made, &["kes:v1:"]);
    assert_eq!(made.troubles("config.yml"), Vec::<Value>::new());
    let _server = made.start();
    let store = made.lines("The environment of the object store");
    let data_key = made.type_in(&format!("{store}export SSL_CERT_FILE=$MINIO_KMS_KES_CAPATH\nclaviger key dek my-key"));
    assert!(data_key.expect("a data key").contains("ciphertext"));
    let denied = made.type_in(&format!("{store}export SSL_CERT_FILE=$MINIO_KMS_KES_CAPATH\nclaviger key rm my-key"));
    assert!(denied.expect_err("not allowed").contains("not authorized"));
    let status = made.type_in(&made.lines("Look at it as the administrator")).expect("a status");
    assert!(status.contains("Uptime"), "{status}");
}

#[test]
fn a_key_manager_is_made_that_an_object_store_can_use() {
    let made = Made::new(&["--kms", "--key", "store-key"]);
    assert_secret(&made, &["k1:", "hsm:aes256:"]);
    assert_eq!(made.troubles("kms.yml"), Vec::<Value>::new());
    let _server = made.start();
    let setup = made.lines("Make an enclave and a key for the object store, and its environment");
    let environment = made.type_in(&setup).expect("an environment");
    let lines = format!(
        "export SSL_CERT_FILE={}\n{environment}claviger kms keygen store-key",
        made.path("server.crt").display()
    );
    assert!(made.type_in(&lines).expect("a data key").contains("ciphertext"));
}

#[test]
fn nothing_is_overwritten() {
    let made = Made::new(&[]);
    let before = tree(made.place.path());
    for kind in [&["init", "made"][..], &["init", "made", "--kms"]] {
        let outcome = made.program.run(kind);
        let says = "Error: 'made' is not empty, and nothing is overwritten; name another directory\n";
        assert_eq!((outcome.exit, outcome.stderr.as_str()), (Some(1), says));
    }
    let outcome = made.program.run(&["init", "other", "--host", "a b"]);
    assert!(outcome.exit == Some(2) && outcome.stderr.contains("neither a DNS name nor an IP address"), "{outcome:?}");
    assert_eq!(tree(made.place.path()), before);
}

#[test]
fn the_unit_is_that_of_the_packages_for_this_place() {
    for (args, unit, config) in
        [(&[][..], "claviger.service", "config.yml"), (&["--kms"], "claviger-kms.service", "kms.yml")]
    {
        let made = Made::new(args);
        let text = std::fs::read_to_string(made.path(unit)).expect("a unit");
        let path = made.path("").canonicalize().expect("there").display().to_string();
        for line in [
            format!("ConditionPathExists={path}/{config}"),
            format!("WorkingDirectory={path}"),
            format!("ReadWritePaths={path}"),
            "ProtectSystem=strict".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        for gone in ["/etc/claviger", "/var/lib", "StateDirectory", "LogsDirectory", "Credential"] {
            assert!(!text.contains(gone), "{gone} in\n{text}");
        }
    }
}

#[test]
fn on_a_terminal_it_asks() {
    let place = tempfile::tempdir().expect("a directory");
    let program = Program::named("claviger", place.path()).env("TERM", "dumb");
    let mut terminal = Terminal::start(&program, &["init", "made"].map(str::to_owned));
    let mut answer = |question: &str, keys: &str| {
        eventually(question, || terminal.output().contains(question));
        terminal.type_keys(keys);
    };
    answer("clients reach the server [localhost,127.0.0.1]: ", "https://x\n");
    answer("neither a DNS name nor an IP address", "keys.example.com, 10.1.2.3\n");
    answer("Where it listens [0.0.0.0:7373]: ", ":7374\n");
    answer("The key that the object store encrypts with [my-key]: ", "\n");
    let (said, exit) = terminal.wait();
    assert_eq!(exit, Some(0), "{said}");
    assert!(said.contains("MINIO_KMS_KES_ENDPOINT=https://keys.example.com:7374"), "{said}");
    let config = std::fs::read_to_string(place.path().join("made/config.yml")).expect("a config");
    assert!(
        config.contains("address: 0.0.0.0:7374\n") && config.contains("--dns keys.example.com --ip 10.1.2.3\n"),
        "{config}"
    );
    // Nobody answers: nothing is made.
    let mut terminal = Terminal::start(&program, &["init", "other"].map(str::to_owned));
    eventually("the first question", || terminal.output().contains("[localhost,127.0.0.1]: "));
    terminal.type_keys("\x04");
    assert_eq!(terminal.wait().1, Some(1));
    assert!(!place.path().join("other").exists());
}
