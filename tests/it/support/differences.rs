//! `testdata/differences.toml`: every recorded case of the archived server in which we answer otherwise on
//! purpose. A replay takes the entry of its case and asserts our answer; an entry that no case took fails.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::testdata;

/// One entry of the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// The cases it is for, such as `http/key-list#12` or `config/076-policy-allow-scalar`.
    pub cases: Vec<String>,
    /// What we do and why, in one or two sentences.
    pub reason: String,
    /// Where the specification of this project says so.
    pub spec: String,
    /// Our exact answer, in the form that the replay compares.
    pub answer: toml::Table,
}

/// A difference that no recording shows.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unrecorded {
    /// What it is about, such as `http/transport`.
    pub topic: String,
    /// What we do and why, in one or two sentences.
    pub reason: String,
    /// Where the specification of this project says so.
    pub spec: String,
    /// The test that shows it.
    pub test: String,
}

/// The entries of one area: which were for a case, and which of those are needed.
pub struct Differences(BTreeMap<String, Entry>);

struct Entry {
    difference: Difference,
    taken: bool,
    /// Whether some answer was not the recorded one; none where a replay does not say.
    needed: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    difference: Vec<Difference>,
    #[serde(default)]
    unrecorded: Vec<Unrecorded>,
}

/// All entries, in the order of the file.
pub fn all() -> Vec<Difference> {
    file().difference
}

/// Those that no recording shows.
pub fn unrecorded() -> Vec<Unrecorded> {
    file().unrecorded
}

fn file() -> File {
    let text = std::fs::read_to_string(testdata("differences.toml")).expect("readable");
    toml::from_str(&text).unwrap_or_else(|error| panic!("differences.toml: {error}"))
}

impl Differences {
    /// The entries for the cases of `area`, such as `config` or `http/key-list`.
    pub fn of(area: &str) -> Self {
        let is_ours = |case: &&String| case.strip_prefix(area).is_some_and(|rest| rest.starts_with(['/', '#']));
        let mut entries = BTreeMap::new();
        for difference in all() {
            for case in difference.cases.iter().filter(is_ours) {
                let entry = Entry { difference: difference.clone(), taken: false, needed: None };
                let double = entries.insert(case.clone(), entry).is_some();
                assert!(!double, "differences.toml: '{case}' stands in it twice");
            }
        }
        Self(entries)
    }

    /// The entry for a case, which counts as used from now on.
    pub fn take(&mut self, case: &str) -> Option<Difference> {
        let entry = self.0.get_mut(case)?;
        entry.taken = true;
        Some(entry.difference.clone())
    }

    /// Says of a case that was taken whether our answer was another than the recorded one. A case may be
    /// noted several times; it is enough that it differed once.
    pub fn note(&mut self, case: &str, differed: bool) {
        if let Some(entry) = self.0.get_mut(case) {
            entry.needed = Some(entry.needed.unwrap_or_default() || differed);
        }
    }

    /// Fails when an entry was for no case, or for one in which we answer as recorded.
    pub fn finish(self) {
        let idle = self.0.into_iter().filter(|(_, entry)| !entry.taken || entry.needed == Some(false));
        let idle: Vec<_> = idle.map(|(case, _)| case).collect();
        assert!(idle.is_empty(), "differences.toml has entries that no case needs: {idle:?}");
    }
}
