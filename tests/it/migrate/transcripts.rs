//! `testdata/cli/migrate`: what the archived tool did with two directories, said again by ours.

use std::collections::BTreeMap;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::support::{Stores, key};
use crate::support::differences::Differences;
use crate::support::{pty, testdata};

#[derive(Deserialize)]
struct Transcripts {
    other_value_sha: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    what: String,
    args: Vec<String>,
    source: Option<Vec<String>>,
    target_before: BTreeMap<String, String>,
    tty: bool,
    #[serde(default)]
    stdout: String,
    #[serde(default)]
    output: String,
    exit: i32,
    target_after: Option<BTreeMap<String, String>>,
}

/// What we compare: standard output (on a terminal nothing but its last line), success or not, and what the target
/// holds afterwards.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    stdout: String,
    success: bool,
    target: BTreeMap<String, String>,
}

/// A full server config: of all this `migrate` needs the key store only.
const SERVER: &str = "version: v1\naddress: 0.0.0.0:7373\nadmin:\n  identity: disabled\n\
                      tls:\n  key: ./no.key\n  cert: ./no.crt\n";

#[test]
#[ignore = "takes half a minute: tests/run"]
fn transcripts_are_said_again() {
    let text = std::fs::read_to_string(testdata("cli/migrate/transcripts.json")).expect("readable");
    let transcripts: Transcripts = serde_json::from_str(&text).expect("valid");
    let mut differences = Differences::of("cli/migrate");
    let mut failures = String::new();
    for (index, case) in transcripts.cases.iter().enumerate() {
        let expected = match differences.take(&format!("cli/migrate#{index}")) {
            Some(difference) => difference.answer.try_into().unwrap_or_else(|error| panic!("{index}: {error}")),
            None => case.answer(),
        };
        let answer = case.replay(&transcripts.other_value_sha);
        if answer != expected {
            failures += &format!("case {index}: {}\n  expected {expected:?}\n  got      {answer:?}\n", case.what);
        }
    }
    assert!(failures.is_empty(), "{failures}");
    differences.finish();
}

impl Case {
    fn answer(&self) -> Answer {
        Answer {
            stdout: if self.tty { last_line(&self.output) } else { self.stdout.clone() },
            success: self.exit == 0,
            target: self.target_after.clone().unwrap_or_default(),
        }
    }

    fn replay(&self, other: &str) -> Answer {
        let stores = Stores::empty();
        self.prepare(&stores);
        let source = stores.path("src").is_dir().then(|| stores.snapshot("src"));
        let args: Vec<_> = ["migrate"].into_iter().chain(self.args.iter().map(String::as_str)).collect();
        let (stdout, code) = if self.tty {
            let (output, code) = pty::run(stores.command(&args));
            (last_line(&output), code)
        } else {
            let run = stores.run(&args);
            (run.stdout, run.code)
        };
        if let Some(source) = source {
            assert!(stores.snapshot("src") == source, "{}: the source is as it was", self.what);
        } else {
            assert!(!stores.path("src").is_dir(), "{}: no source was made", self.what);
        }
        Answer { stdout, success: code == Some(0), target: self.target(&stores, other) }
    }

    /// Makes the directories and configs that the case began with.
    fn prepare(&self, stores: &Stores) {
        let server = if self.what.starts_with("minimal") { "" } else { SERVER };
        let target = if self.what.contains("the same directory") { "src" } else { "dst" };
        for (file, path) in [("src.yml", "src"), ("dst.yml", target)] {
            stores.write(file, &format!("{server}keystore:\n  fs:\n    path: {path}\n"));
        }
        match &self.source {
            Some(names) => names.iter().for_each(|name| add_source_key(stores, name)),
            None => std::fs::remove_dir(stores.path("src")).expect("removed"),
        }
        for (name, sha) in &self.target_before {
            let value = std::fs::read(stores.path("src").join(name)).unwrap_or_default();
            let same = short(&value) == *sha;
            std::fs::write(stores.path("dst").join(name), if same { value } else { key(0).into() }).expect("written");
        }
        match self.what.as_str() {
            "a subdirectory in the source" => std::fs::create_dir(stores.path("src/delta")).expect("made"),
            "source path is a file" => stores.write("src", "a file"),
            "target path is a file" => {
                std::fs::remove_dir(stores.path("dst")).expect("removed");
                stores.write("dst", "a file");
            }
            "target directory missing" => std::fs::remove_dir(stores.path("dst")).expect("removed"),
            _ => {}
        }
    }

    /// The hashes of the keys on the target, that of our other key replaced by the recorded one.
    fn target(&self, stores: &Stores, other: &str) -> BTreeMap<String, String> {
        let target = if self.what.contains("the same directory") { "src" } else { "dst" };
        if !stores.path(target).is_dir() {
            return BTreeMap::new();
        }
        let ours = short(key(0).as_bytes());
        let hash = |value: &[u8]| Some(short(value)).filter(|sha| *sha != ours).unwrap_or_else(|| other.into());
        stores.keys(target).into_iter().map(|(name, value)| (name, hash(&value))).collect()
    }
}

fn add_source_key(stores: &Stores, name: &str) {
    let to = stores.path("src").join(name);
    match name {
        ".hidden" | "broken" => std::fs::write(to, "no key").expect("written"),
        "empty" => std::fs::write(to, "").expect("written"),
        _ => _ = std::fs::copy(testdata("cli/migrate/src").join(name), to).expect("copied"),
    }
}

/// The last line, without its colours.
fn last_line(output: &str) -> String {
    let line = output.trim_end().lines().last().unwrap_or_default();
    let mut text = String::new();
    for (index, part) in line.split("\x1b[").enumerate() {
        text += if index == 0 {
            part
        } else {
            part.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, rest)| rest)
        };
    }
    text.trim_start_matches('\r').to_owned() + "\n"
}

fn short(value: &[u8]) -> String {
    Sha256::digest(value)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
