//! `testdata/differences.toml`: every recorded case of the archived server in which we answer otherwise on
//! purpose. A replay takes the entry of its case and asserts our answer; an entry that no case took fails.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

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

/// The entries of one area that no case has taken yet.
pub struct Differences(BTreeMap<String, Difference>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    difference: Vec<Difference>,
}

/// All entries, in the order of the file.
pub fn all() -> Vec<Difference> {
    let text = std::fs::read_to_string(testdata("differences.toml")).expect("readable");
    toml::from_str::<File>(&text).unwrap_or_else(|error| panic!("differences.toml: {error}")).difference
}

impl Differences {
    /// The entries for cases that begin with `area` and a slash.
    pub fn of(area: &str) -> Self {
        let mut entries = BTreeMap::new();
        for difference in all() {
            for case in difference.cases.iter().filter(|case| case.split('/').next() == Some(area)) {
                match entries.entry(case.clone()) {
                    Entry::Vacant(place) => place.insert(difference.clone()),
                    Entry::Occupied(_) => panic!("differences.toml: '{case}' stands in it twice"),
                };
            }
        }
        Self(entries)
    }

    /// The entry for a case, which counts as used from now on.
    pub fn take(&mut self, case: &str) -> Option<Difference> {
        self.0.remove(case)
    }

    /// Fails when an entry was for no case.
    pub fn finish(self) {
        let unused: Vec<_> = self.0.into_keys().collect();
        assert!(unused.is_empty(), "differences.toml has entries that no case uses: {unused:?}");
    }
}
