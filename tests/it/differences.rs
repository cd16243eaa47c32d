//! `docs/differences.md`, for operators who move over: made of `testdata/differences.toml`, whose cases
//! the replays prove.

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::differences::{Difference, Unrecorded, all, unrecorded};

/// The areas: the first part of a case's name, its title and what stands below that.
const AREAS: &[(&str, &str, &str)] = &[
    ("http", "The HTTP API", "What clients see."),
    (
        "enclave",
        "The KES API of a key manager",
        "Where the KES API over an enclave answers otherwise than a key server.",
    ),
    ("keystore", "Key stores", "What single key stores do, and what lies in them."),
    ("config", "The config file", "What a config file means, and which are refused."),
    ("cli", "The command line", "What the commands print, and how they exit."),
];

const HEAD: &str = "\
# Where Claviger answers otherwise than the archived KES

Claviger takes the place of the archived server: the same requests, config files and commands give the same
results. This is the list of what is different on purpose. An entry with a number stands for recorded cases in which
the archived server did something else; the tests replay all recordings and accept no other difference.

This file is made of `testdata/differences.toml` by `UPDATE=1 cargo test --test it differences`.
";

#[test]
fn the_document_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/differences.md");
    let document = document(&all(), &unrecorded());
    // The one switch of this test, meant for whoever changed the list.
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &document).expect("docs/differences.md is written");
    }
    let current = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(current == document, "docs/differences.md is stale; run 'UPDATE=1 cargo test --test it differences'");
}

#[test]
fn every_entry_belongs_to_an_area_and_explains_itself() {
    for difference in all() {
        assert!(!difference.cases.is_empty(), "an entry without cases: {}", difference.reason);
        for case in &difference.cases {
            let area = case.split('/').next().unwrap_or_default();
            assert!(AREAS.iter().any(|(name, ..)| *name == area), "'{case}' is of no area");
        }
        assert!(difference.reason.ends_with('.'), "not a sentence: {}", difference.reason);
        assert!(!difference.spec.is_empty(), "no source: {}", difference.reason);
    }
    for Unrecorded { topic, reason, spec, test } in unrecorded() {
        assert!(AREAS.iter().any(|(name, ..)| topic.split('/').next() == Some(*name)), "'{topic}' is of no area");
        assert!(reason.ends_with('.') && !spec.is_empty(), "{reason}");
        let (file, test) = test.rsplit_once("::").expect("a module and a test");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(file.replace("::", "/"));
        let code = std::fs::read_to_string(file.with_extension("rs")).expect("the test's file");
        assert!(code.contains(&format!("fn {test}()")), "there is no test '{test}'");
    }
}

fn document(differences: &[Difference], unrecorded: &[Unrecorded]) -> String {
    let mut document = HEAD.to_owned();
    for (area, title, about) in AREAS {
        let mut of_area = of_area(differences, area);
        for difference in unrecorded.iter().filter(|difference| difference.topic.split('/').next() == Some(area)) {
            of_area.entry(topic(&difference.topic)).or_default().push((&difference.reason, 0));
        }
        if of_area.is_empty() {
            continue;
        }
        document.push_str(&format!("\n## {title}\n\n{about}\n"));
        for (topic, reasons) in of_area {
            document.push_str(&format!("\n### {topic}\n\n"));
            for (reason, cases) in reasons {
                let count = match cases {
                    0 => String::new(),
                    1 => " (1 recorded case)".to_owned(),
                    count => format!(" ({count} recorded cases)"),
                };
                document.push_str(&format!("- {reason}{count}\n"));
            }
        }
    }
    document
}

/// The sentences of an area, each once, with the number of its cases, under the topic that most of them have.
fn of_area<'a>(differences: &'a [Difference], area: &str) -> BTreeMap<String, Vec<(&'a str, usize)>> {
    let mut by_reason: Vec<(&str, BTreeMap<String, usize>)> = Vec::new();
    for difference in differences {
        let place = by_reason.iter().position(|(reason, _)| *reason == difference.reason).unwrap_or_else(|| {
            by_reason.push((&difference.reason, BTreeMap::new()));
            by_reason.len() - 1
        });
        for case in difference.cases.iter().filter(|case| case.split('/').next() == Some(area)) {
            *by_reason[place].1.entry(topic(case)).or_default() += 1;
        }
    }
    let mut topics: BTreeMap<String, Vec<(&str, usize)>> = BTreeMap::new();
    for (reason, cases) in by_reason {
        let count = cases.values().sum();
        if let Some((topic, _)) = cases.into_iter().max_by_key(|(_, count)| *count) {
            topics.entry(topic).or_default().push((reason, count));
        }
    }
    topics
}

/// What a case is about: `http/key-list#3` is about "Key list", `config/076-policy-x` about "Policy".
fn topic(case: &str) -> String {
    let name = case.split_once('/').map_or(case, |(_, name)| name);
    let name = name.split('#').next().unwrap_or(name).trim_start_matches(|c: char| c.is_ascii_digit() || c == '-');
    let name = if case.starts_with("config/") { name.split('-').next().unwrap_or(name) } else { name };
    let name = name.split('/').next().unwrap_or(name).replace('-', " ");
    let mut letters = name.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
