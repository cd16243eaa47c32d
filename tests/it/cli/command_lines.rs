//! Every command line in `testdata/command-lines.toml`.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::support::program::{Outcome, Program};
use crate::support::{certs, eventually, testdata};

#[derive(Deserialize)]
struct Table {
    line: Vec<Line>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    serves: bool,
    at: Option<String>,
    #[serde(default)]
    quiet: bool,
    #[serde(default)]
    warns: Vec<Vec<String>>,
    error: Option<Vec<String>>,
    #[serde(default)]
    usage: bool,
    prints: Option<Vec<String>>,
}

/// The addresses of a row, where nobody listens.
struct Addresses {
    config: SocketAddr,
    other: SocketAddr,
    addr: SocketAddr,
}

impl Addresses {
    fn free() -> Self {
        let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let [config, other, addr] = listeners.map(|listener| listener.local_addr().expect("bound"));
        Self { config, other, addr }
    }

    fn of(&self, name: Option<&str>) -> SocketAddr {
        match name {
            None | Some("config") => self.config,
            Some("other") => self.other,
            Some("addr") => self.addr,
            Some(other) => panic!("no such address: {other}"),
        }
    }
}

fn write_config(directory: &Path, name: &str, address: SocketAddr) {
    let (key, cert) = (certs("server.key"), certs("server.crt"));
    let config = format!(
        "address: {address}\nadmin: {{ identity: disabled }}\ntls: {{ key: {}, cert: {}, auth: off }}\n\
         keystore: {{ fs: {{ path: keys }} }}\n",
        key.display(),
        cert.display(),
    );
    std::fs::write(directory.join(name), config).expect("written");
}

/// Whether a server answers there, whatever it answers to nonsense.
fn answers(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let _ = stream.write_all(b"nonsense\r\n\r\n");
    let _ = stream.read(&mut [0]);
    true
}

/// Waits until the server answers, stops it, and returns what it has said.
fn stop(mut child: Child, address: SocketAddr) -> Outcome {
    eventually("the server answers, or ends", || answers(address) || child.try_wait().expect("our child").is_some());
    // It has ended, and says why, where this fails.
    let _ = kill_process(Pid::from_child(&child), Signal::TERM);
    let exit = child.wait().expect("our child").code();
    let (mut stdout, mut stderr) = (String::new(), String::new());
    child.stdout.take().expect("piped").read_to_string(&mut stdout).expect("text");
    child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("text");
    Outcome { stdout, stderr, exit }
}

fn check_server(line: &Line, outcome: &Outcome) {
    assert_eq!(outcome.exit, Some(0), "{line:?}: {outcome:?}");
    let warnings = outcome.stderr.lines().filter_map(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    let warnings = warnings.filter(|record| record["level"] == "WARN");
    let warnings: Vec<_> = warnings.map(|record| record["message"].as_str().expect("a text").to_owned()).collect();
    let about_options: Vec<_> = warnings.iter().filter(|text| text.contains("'--")).collect();
    assert_eq!(about_options.len(), line.warns.len(), "{line:?}: {about_options:?}");
    for texts in &line.warns {
        let is_there = about_options.iter().any(|warning| texts.iter().all(|text| warning.contains(text)));
        assert!(is_there, "{line:?}: no warning with {texts:?}: {about_options:?}");
    }
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    assert_eq!(!said.contains("=> Server is up"), line.quiet, "{line:?}: {said}");
}

fn check_command(line: &Line, outcome: &Outcome) {
    let Outcome { stdout, stderr, exit } = outcome;
    if let Some(texts) = &line.prints {
        assert!(*exit == Some(0) && stderr.is_empty(), "{line:?}: {outcome:?}");
        assert!(texts.iter().all(|text| stdout.contains(text)), "{line:?}: {stdout}");
        assert!(!texts.is_empty() || stdout.is_empty(), "{line:?}: {stdout}");
        return;
    }
    assert!(exit.is_some_and(|code| code != 0) && stdout.is_empty(), "{line:?}: {outcome:?}");
    match &line.error {
        Some(texts) => {
            assert_eq!(stderr.lines().count(), 1, "{line:?}: {stderr}");
            assert!(texts.iter().all(|text| stderr.contains(text)), "{line:?}: {stderr}");
        }
        None => assert!(line.usage && stderr.contains("--help'"), "{line:?}: {stderr}"),
    }
}

#[test]
fn command_lines_of_older_versions_start_a_server_or_are_answered() {
    let text = std::fs::read_to_string(testdata("command-lines.toml")).expect("readable");
    let table: Table = toml::from_str(&text).expect("valid");
    assert!(table.line.len() > 60);
    for line in &table.line {
        let directory = tempfile::tempdir().expect("a directory");
        let addresses = Addresses::free();
        write_config(directory.path(), "config.yml", addresses.config);
        write_config(directory.path(), "other.yml", addresses.other);
        let mut program = Program::named("kes", directory.path());
        for (name, value) in &line.env {
            program = program.env(name, value);
        }
        let replace = |arg: &String| {
            let port = addresses.addr.port().to_string();
            let arg = arg.replace("<dir>", directory.path().to_str().expect("text"));
            arg.replace("<addr>", &addresses.addr.to_string()).replace("<port>", &port)
        };
        let args: Vec<_> = line.args.iter().map(replace).collect();
        if line.serves {
            let mut command = program.command(&args);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            check_server(line, &stop(command.spawn().expect("it runs"), addresses.of(line.at.as_deref())));
        } else {
            check_command(line, &program.run(&args));
        }
    }
}
