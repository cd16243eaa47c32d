//! Every command line in `testdata/cli`, called again as `kes`: we print to standard output, and succeed or fail, as
//! the archived command did, or as `testdata/differences.toml` says.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::fixture::{ADMIN, APP, Fixture};
use super::template;
use crate::support::differences::Differences;
use crate::support::program::{Outcome, Program};
use crate::support::terminal::{Terminal, plain};
use crate::support::{eventually, testdata};

#[derive(Deserialize)]
struct File {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    tty: bool,
    #[serde(default)]
    stdout: String,
    /// Of a terminal: everything.
    #[serde(default)]
    output: String,
    exit: i32,
    /// How it was ended, where it did not end by itself.
    ended: Option<String>,
    /// Set where the archived command prints lines in any order.
    line_order: Option<String>,
    made: Option<serde_json::Value>,
}

/// What we print, and whether we succeed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ours {
    stdout: String,
    /// Of a server: its start message.
    stderr: Option<String>,
    exit: i32,
}

macro_rules! replays {
    ($($name:ident: $file:literal),* $(,)?) => {
        const FILES: &[&str] = &[$($file),*];

        $(#[test]
        fn $name() {
            replay($file);
        })*
    };
}

replays! {
    general: "general",
    identity: "identity",
    key: "key",
    policy_and_ls: "policy-ls",
    status_and_server: "status-server",
    terminal: "terminal",
}

#[test]
fn every_file_has_a_test() {
    let entries = std::fs::read_dir(testdata("cli")).expect("readable").map(|entry| entry.expect("readable"));
    let names = entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json").map(str::to_owned));
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, FILES);
}

/// Keys that other recordings had left behind, by file and case: they were not made in the order of their names.
const LEFT_BEHIND: [(&str, usize); 2] = [("policy-ls", 0), ("terminal", 0)];

fn replay(file: &str) {
    let text = std::fs::read(testdata(format!("cli/{file}.json"))).expect("readable");
    let cases = serde_json::from_slice::<File>(&text).expect("the recordings").cases;
    assert!(cases.len() > 20, "{file} has its cases");
    let fixture = Fixture::start();
    let ciphertexts = Ciphertexts::new(&fixture);
    let mut differences = Differences::of(&format!("cli/{file}"));
    let mut failures = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        if LEFT_BEHIND.contains(&(file, index)) {
            fixture.kes().run(&["key", "create", "-k", "i1", "my-app-x"]).ok();
        }
        let name = format!("cli/{file}#{index}");
        let mut outcome = call(&fixture, case, &ciphertexts);
        if case.line_order.is_some() {
            sort_table(&mut outcome.stdout);
        }
        let recorded = check(&fixture, &outcome, recorded_text(case), case.exit, case.tty);
        let verdict = match differences.take(&name) {
            None => recorded,
            Some(difference) => {
                differences.note(&name, recorded.is_err());
                let ours: Ours = difference.answer.try_into().expect("stdout and exit");
                let said = ours.stderr.map_or(Ok(()), |said| template::matches(&said, &outcome.stderr));
                said.and_then(|()| check(&fixture, &outcome, &ours.stdout, ours.exit, case.tty))
            }
        };
        if let Err(why) = verdict {
            failures.push(format!("{name} {:?}: {why}\n    stderr: {}", case.args, outcome.stderr));
        }
        if let Some(made) = &case.made {
            super::identity::check_made(&fixture, case.args.last().map(String::as_str), made);
        }
    }
    assert!(failures.is_empty(), "{} of {} differ:\n{}", failures.len(), cases.len(), failures.join("\n"));
    differences.finish();
}

/// Sorts the lines of a table, behind the empty line and the heading above it, by their second column.
fn sort_table(text: &mut String) {
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    let start = lines.iter().position(String::is_empty).expect("an empty line") + 2;
    lines[start..].sort_by_key(|line| line.split_whitespace().nth(1).map(str::to_owned));
    *text = lines.join("\n") + "\n";
}

fn recorded_text(case: &Case) -> &str {
    if case.tty { &case.output } else { &case.stdout }
}

/// Compares what scripts rely on: standard output, and whether it is a success.
fn check(fixture: &Fixture, outcome: &Outcome, recorded: &str, exit: i32, on_terminal: bool) -> Result<(), String> {
    if (outcome.exit == Some(0)) != (exit == 0) {
        return Err(format!("exit code {:?} instead of {exit}, {:?}", outcome.exit, outcome.stdout));
    }
    if on_terminal && exit != 0 {
        // Nothing but an error, and those are in our own words.
        return Ok(());
    }
    template::matches(&place(fixture, &plain(recorded)), &plain(&outcome.stdout))
}

/// Fills in what this server has.
fn place(fixture: &Fixture, text: &str) -> String {
    let directory = fixture.directory().display().to_string();
    text.replace("<dir>", &directory).replace("<port>", &fixture.server().address().port().to_string())
}

fn call(fixture: &Fixture, case: &Case, ciphertexts: &Ciphertexts) -> Outcome {
    let mut program = Program::named("kes", fixture.directory());
    for (name, value) in &case.env {
        program = program.env(name, place(fixture, value));
    }
    let args: Vec<_> = case.args.iter().map(|arg| ciphertexts.ours(&place(fixture, arg))).collect();
    match (case.tty, &case.ended) {
        (true, _) => {
            let (output, exit) = Terminal::start(&program, &args).wait();
            Outcome { stdout: output, stderr: String::new(), exit }
        }
        (false, None) if args.first().is_some_and(|first| first == "server") && case.exit == 0 => {
            serve(&program, &args)
        }
        (false, None) => program.run(&args),
        (false, Some(_)) => interrupt(&program, &args, case.stdout.lines().count()),
    }
}

/// Calls a command that does not end by itself, and interrupts it when it has printed some lines.
fn interrupt(program: &Program, args: &[String], lines: usize) -> Outcome {
    // Who starts the tests in the background of a script has the signal ignored, and whatever they start, too.
    let mut command = Command::new("env");
    command.arg("--default-signal=INT").arg(program.path()).args(args);
    program.prepare(&mut command);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the program starts");
    let pid = Pid::from_child(&child);
    let mut reader = BufReader::new(child.stdout.take().expect("piped"));
    let mut stdout = String::new();
    for _ in 0..lines {
        reader.read_line(&mut stdout).expect("text");
    }
    if lines == 0 {
        eventually("it is connected", || has_socket(pid));
    }
    kill_process(pid, Signal::INT).expect("it runs");
    let status = child.wait().expect("it ends");
    Outcome { stdout, stderr: String::new(), exit: status.code() }
}

/// Starts a server, on any port, and stops it as soon as it says that it is up.
fn serve(program: &Program, args: &[String]) -> Outcome {
    let args: Vec<_> = args.iter().map(|arg| if arg.starts_with("127.0.0.1:") { "127.0.0.1:0" } else { arg }).collect();
    let mut command = program.command(&args);
    let pipes = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().expect("the program starts");
    let mut reader = BufReader::new(child.stderr.take().expect("piped"));
    let mut said = String::new();
    while !said.contains("=> Server is up") {
        assert!(reader.read_line(&mut said).expect("text") > 0, "the server does not start: {said}");
    }
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
    reader.read_to_string(&mut said).expect("text");
    let output = child.wait_with_output().expect("it ends");
    // The start message is no JSON, the log is nothing else.
    let stderr = said.split_inclusive('\n').filter(|line| !line.starts_with('{')).collect();
    Outcome { stdout: String::from_utf8(output.stdout).expect("text"), stderr, exit: output.status.code() }
}

fn has_socket(pid: Pid) -> bool {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).expect("it runs");
    descriptors.flatten().any(|entry| {
        std::fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    })
}

/// The recorded ciphertexts are of a key that is not in the recordings: ours, of the same messages, take their place.
struct Ciphertexts(Vec<(&'static str, String)>);

impl Ciphertexts {
    fn new(fixture: &Fixture) -> Self {
        use crate::support::{Client, Identity, Protocol, block_on};
        let client = |name: &str| {
            let directory = fixture.directory();
            let (certificate, key) = (directory.join(format!("{name}.crt")), directory.join(format!("{name}.key")));
            Client::new(fixture.server().address(), Some(Identity::load(certificate, key)), Protocol::H2)
        };
        let encrypt = |plaintext: &str, context: &str| {
            let request = serde_json::json!({ "plaintext": plaintext, "context": context });
            let answer = block_on(client("admin").put_json("/v1/key/encrypt/my-key", &request));
            answer.json()["ciphertext"].as_str().expect("a ciphertext").to_owned()
        };
        Self(vec![
            ("ZiG/4oBZKa4gwXpvCz6oWPsKubIgs7PtVDmE/We8NBysGwDMyEHCjxf3XvUdqWSbSA==", encrypt("aGVsbG8=", "")),
            (
                "DwSSOL3IisQUem+YCXY/3OvkJZTqYL2/4RCB81cyMA1Q7OXJ4QNiHv1bxI5GwWlRL63GfeYXAr6Nw1cxZG5le1gwU18n2T6lKtppKw==",
                encrypt("W1HW+EZNLTjQIByL0UOsv8mFaYo/Dt+0/m1Sc5QVDl0=", "Y3R4"),
            ),
        ])
    }

    fn ours(&self, arg: &str) -> String {
        let ours = self.0.iter().find(|(recorded, _)| *recorded == arg);
        ours.map_or_else(|| arg.to_owned(), |(_, ours)| ours.clone())
    }
}

#[test]
fn the_fixture_has_the_recorded_identities() {
    use super::fixture::identity;
    assert_eq!(identity(ADMIN), "a54965afdde5d12ef173249fad000a22396699269b16db4a40b864ca264e2507");
    assert_eq!(identity(APP), "deb4229ba4ed0ee3654b6e8d7dfeefe9dd400043a71ac9d0acb1d5f7da8720ab");
}
