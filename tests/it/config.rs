//! The config files of `testdata/config`: the archived server loads them or does not, and so does ours.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use serde::Deserialize;

use crate::support::differences::Differences;
use crate::support::server::PROGRAM;
use crate::support::{TestServer, testdata};

#[derive(Deserialize)]
struct Manifest {
    cases: Vec<Case>,
}

/// A file, and what the archived server did with it.
#[derive(Deserialize)]
struct Case {
    file: String,
    #[serde(default)]
    env: BTreeMap<String, String>,
    result: String,
    #[serde(default)]
    message: String,
    listens: Option<String>,
    log: Option<Log>,
    admin: Option<String>,
    /// What is wanted here, where that differs.
    claviger: Option<String>,
    #[serde(default)]
    keys_made: Vec<String>,
}

/// The levels of its logs; none: off.
#[derive(Deserialize)]
struct Log {
    error: String,
    audit: Option<String>,
}

/// What a program makes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Loads,
    Error(String),
}

/// What `config check` says.
struct Check {
    answer: Answer,
    output: String,
}

impl Case {
    fn name(&self) -> &str {
        Path::new(&self.file).file_stem().and_then(|stem| stem.to_str()).expect("a file name")
    }

    fn text(&self) -> Vec<u8> {
        std::fs::read(testdata("config").join(&self.file)).expect("readable")
    }

    /// Whether the archived server took the file. It asked the key store of some at once, where nobody answered.
    fn loads(&self) -> bool {
        self.result == "loads" || self.message.contains("connection refused")
    }

    /// A directory with the file and those it names.
    fn directory(&self) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        std::os::unix::fs::symlink(testdata("config/tls"), directory.path().join("tls")).expect("a link");
        std::fs::write(directory.path().join("config.yml"), self.text()).expect("the file is written");
        directory
    }

    /// A program with the variables of the case, and authorities that do not depend on the machine.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.envs(&self.env).env("SSL_CERT_FILE", testdata("config/tls/ca.crt"));
        command
    }

    fn check(&self) -> Check {
        let directory = self.directory();
        let mut command = self.command(PROGRAM);
        let output = command.args(["config", "check", "config.yml"]).current_dir(directory.path()).output();
        let output = output.expect("the program runs");
        let (stdout, stderr) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
        let (stdout, stderr) = (stdout.expect("text"), stderr.expect("text"));
        let error = stderr.trim_end().strip_prefix("Error: ").unwrap_or(&stderr);
        match output.status.code() {
            Some(0) => {
                assert!(stdout.starts_with("config.yml: ok\n") && stderr.is_empty(), "{stdout}{stderr}");
                Check { answer: Answer::Loads, output: stdout }
            }
            Some(1) => Check { answer: Answer::Error(error.into()), output: stdout },
            other => panic!("{}: exit {other:?}: {stderr}", self.name()),
        }
    }

    /// Whether the file needs no server but ours.
    fn is_local(&self) -> bool {
        let text = String::from_utf8_lossy(&self.text()).into_owned();
        let remote = ["vault", "fortanix", "gemalto", "aws", "gcp", "azure", "entrust"];
        !remote.iter().any(|store| text.contains(&format!("\n  {store}:")))
    }

    /// What our answer must be like, where it is that of the archived server.
    fn compare(&self, check: &Check) -> Result<(), String> {
        match &check.answer {
            Answer::Loads if self.loads() => Ok(()),
            Answer::Loads => Err("loads".into()),
            Answer::Error(error) if self.loads() => Err(format!("an error: {error}")),
            Answer::Error(error) => self.compare_error(error),
        }
    }

    /// An error names file, line and column, the key, and the line that the archived server names.
    fn compare_error(&self, error: &str) -> Result<(), String> {
        let parts = error.strip_prefix("config.yml:").and_then(|rest| rest.split_once(": "));
        let Some((place, message)) = parts else { return Err(format!("names no line: {error}")) };
        let numbers: Vec<u64> = place.split(':').filter_map(|number| number.parse().ok()).collect();
        let [line, _] = numbers[..] else { return Err(format!("names no line and column: {error}")) };
        // What is no YAML, or no section, has no key; and lines are counted differently there.
        let is_syntax = self.message.contains("yaml: line") || self.name() < "011" || self.name() == "013-not-utf8";
        if is_syntax {
            return Ok(());
        }
        let has_key = message.split_once(": ").is_some_and(|(key, _)| !key.contains(' '));
        let recorded = self.message.split("line ").nth(1).map(|rest| rest.trim_start_matches('\''));
        let recorded: Option<u64> =
            recorded.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
        match recorded {
            _ if !has_key => Err(format!("names no key: {error}")),
            Some(recorded) if recorded != line => Err(format!("not line {recorded}: {error}")),
            _ => Ok(()),
        }
    }

    /// The server itself says and does what the archived server said and did.
    fn start(&self, check: &Check) {
        let directory = self.directory();
        let text = String::from_utf8(self.text()).expect("UTF-8");
        let server = TestServer::start_under(self.command(PROGRAM), directory, &text);
        let said = server.stderr();
        let field = |label: &str| said.lines().find_map(|line| line.strip_prefix(label)).map(str::trim);
        let name = self.name();
        if let Some(admin) = &self.admin {
            assert_eq!(field("Admin ") == Some("disabled"), admin == "disabled", "{name}: {said}");
        }
        if let Some(log) = &self.log {
            let error = match log.error.as_str() {
                "ERROR+1" => "error=off".into(),
                level => format!("error=stderr level={level}"),
            };
            let audit = log.audit.as_ref().map_or("audit=off".into(), |level| format!("audit=stdout level={level}"));
            assert_eq!(field("Logs "), Some(error.as_str()), "{name}: {said}");
            assert!(said.lines().any(|line| line.trim() == audit), "{name}: {audit}: {said}");
        }
        if let Some(listens) = &self.listens {
            let address = check.output.lines().find_map(|line| line.strip_prefix("Address")).expect("an address");
            // The archived server names the addresses behind 0.0.0.0.
            let address = address.trim().replace("0.0.0.0", "127.0.0.1");
            assert_eq!(format!("https://{address}"), *listens, "{name}");
        }
        for key in &self.keys_made {
            assert!(server.keys().join(key).is_file(), "{name}: {key}");
        }
        assert_eq!(server.stop().code(), Some(0), "{name}");
    }
}

/// Runs `each` for all cases, two at a time.
fn for_each(cases: &[Case], each: impl Fn(&Case) + Sync) {
    let next = Mutex::new(cases.iter());
    let work = || {
        while let Some(case) = { next.lock().expect("nobody panics in it").next() } {
            each(case);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
}

fn cases() -> Vec<Case> {
    let text = std::fs::read(testdata("config/manifest.json")).expect("readable");
    let cases = serde_json::from_slice::<Manifest>(&text).expect("valid").cases;
    assert_eq!(cases.len(), 217);
    cases
}

fn answer_of(table: &toml::Table) -> Answer {
    match (table["result"].as_str(), table.get("message")) {
        (Some("loads"), None) => Answer::Loads,
        (Some("error"), Some(message)) => Answer::Error(message.as_str().expect("a text").into()),
        _ => panic!("differences.toml: no answer of a config case: {table:?}"),
    }
}

#[test]
fn every_file_loads_or_fails_as_with_the_archived_server() {
    let cases = cases();
    let differences = Mutex::new(Differences::of("config"));
    let failures = Mutex::new(Vec::new());
    for_each(&cases, |case| {
        let check = case.check();
        let entry = format!("config/{}", case.name());
        let compared = case.compare(&check);
        let difference = differences.lock().expect("nobody panics in it").take(&entry);
        let problem = match difference {
            None => compared.err(),
            Some(difference) => {
                differences.lock().expect("nobody panics in it").note(&entry, compared.is_err());
                let ours = answer_of(&difference.answer);
                (check.answer != ours).then(|| format!("not even our own answer: {:?}", check.answer))
            }
        };
        if let Some(problem) = problem {
            failures.lock().expect("nobody panics in it").push(format!("{entry}: {problem}"));
        }
    });
    let failures = failures.into_inner().expect("nobody panicked in it");
    assert!(failures.is_empty(), "{} of 217 differ:\n{}", failures.len(), failures.join("\n"));
    differences.into_inner().expect("nobody panicked in it").finish();
}

/// What the archived server loads as it is meant has nothing that it does not know.
#[test]
fn the_archived_server_knows_what_it_loads() {
    let cases: Vec<_> = cases().into_iter().filter(|case| case.loads() && case.claviger.is_none()).collect();
    assert!(cases.len() >= 80, "{}", cases.len());
    for_each(&cases, |case| {
        let directory = case.directory();
        std::fs::write(directory.path().join("config.yml"), case.text()).expect("written");
        let mut command = Command::new(PROGRAM);
        command.args(["config", "check", "config.yml", "--for-kes"]).current_dir(directory.path());
        let output = command.envs(&case.env).output().expect("it runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!said.contains("KES does"), "{}: {said}", case.name());
    });
}

#[test]
fn a_server_starts_from_every_file_that_is_ok_and_from_no_other() {
    let started = Mutex::new(0);
    let refused = Mutex::new(0);
    for_each(&cases(), |case| {
        let check = case.check();
        match &check.answer {
            Answer::Loads if case.is_local() => {
                case.start(&check);
                *started.lock().expect("nobody panics in it") += 1;
            }
            Answer::Error(error) if case.is_local() && case.env.is_empty() => {
                let Ok(text) = String::from_utf8(case.text()) else { return };
                let said = TestServer::refuses(case.directory().path(), &text);
                // The key store's own words may differ where it is the one that finds the error.
                let same = said.contains(error) || error.contains("keystore.fs.path: there is something");
                assert!(same, "{}: {said} instead of {error}", case.name());
                *refused.lock().expect("nobody panics in it") += 1;
            }
            _ => {}
        }
    });
    let (started, refused) = (started.into_inner().expect("no panic"), refused.into_inner().expect("no panic"));
    assert!(started >= 65 && refused >= 80, "{started} started, {refused} refused");
}
