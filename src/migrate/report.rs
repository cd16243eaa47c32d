//! The report of a run, for people and machines: what it found and did. It holds no key material.

use std::fmt;

use serde::Serialize;

use super::charge::Charge;
use super::copy::Outcome;
use super::plan::{Class, Counts, Drift, Entry, Plan};
use super::{Error, Migration, OnConflict, Side};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All selected keys are on the target, or would be.
    Complete,
    /// The target already has selected keys, and no option says what to do with them. Nothing was written.
    Refused,
    /// There is no plan, or not one key could be written. Nothing was written.
    Failed,
    /// Some keys are not on the target.
    Incomplete,
}

/// The report: everything about a run, as JSON.
#[derive(Debug, Serialize)]
pub struct Report {
    /// "migrate" or "verify".
    pub command: &'static str,
    /// The program's version.
    pub version: &'static str,
    /// When the run began, RFC 3339.
    pub started_at: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Why it did not complete.
    pub message: Option<String>,
    /// Where keys come from.
    pub source: Place,
    /// Where they go.
    pub target: Place,
    /// The pattern, if there was one.
    pub pattern: Option<String>,
    /// The exclusions.
    pub exclude: Vec<String>,
    /// "fail", "merge" or "force"; none when nothing was going to be written.
    pub on_conflict: Option<&'static str>,
    /// Whether it was a rehearsal.
    pub dry_run: bool,
    /// How written keys were proven; none: they were not.
    pub proof: Option<&'static str>,
    /// How many keys.
    pub counts: Totals,
    /// What the stores' providers charge for when the plan is carried out.
    pub charges: Vec<Charge>,
    /// Seconds spent.
    pub seconds: Seconds,
    /// Every selected key of the source.
    pub keys: Vec<KeyReport>,
    /// What exclusions left out.
    pub excluded: Vec<String>,
    /// Selected keys that the source does not have.
    pub only_on_target: Vec<String>,
    /// Keys that are new on the source since the plan was made, and not copied.
    pub appeared: Vec<String>,
    /// Keys that are gone from the source since the plan was made.
    pub vanished: Vec<String>,
    /// What replacements that were cut off have left.
    pub leftovers: Vec<Oddity>,
    /// Entries that stopped the run.
    pub problems: Vec<Oddity>,
}

/// A store.
#[derive(Debug, Default, Serialize)]
pub struct Place {
    /// As the program names it.
    pub store: String,
    /// What tells it from others; none when it does not exist yet.
    pub identity: Option<String>,
    /// All its keys, selected or not.
    pub keys: usize,
}

/// Counts per class and per outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Keys that the target lacked.
    pub missing: usize,
    /// Keys that were the same on both sides.
    pub identical: usize,
    /// Names under which the target had another key.
    pub different: usize,
    /// Keys that were created.
    pub written: usize,
    /// Keys that took another one's place.
    pub replaced: usize,
    /// Keys that were left out because the target has another one.
    pub not_migrated: usize,
    /// Keys that failed.
    pub failed: usize,
    /// Keys whose turn did not come.
    pub not_reached: usize,
}

/// Seconds per part of a run.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Seconds {
    /// Listing both sides, reading, parsing.
    pub plan: f64,
    /// Writing and reading back.
    pub copy: f64,
    /// Listing the source again.
    pub recheck: f64,
}

/// A selected key.
#[derive(Debug, Serialize)]
pub struct KeyReport {
    name: String,
    class: &'static str,
    result: Option<&'static str>,
    fingerprint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lost: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// An entry that is no key.
#[derive(Debug, Serialize)]
pub struct Oddity {
    side: String,
    name: String,
    reason: String,
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' on the {}: {}", self.name, self.side, self.reason)
    }
}

impl Report {
    /// A report at the beginning of a run.
    pub async fn begin(command: &'static str, started_at: String, migration: &Migration) -> Self {
        let selection = &migration.selection;
        let identity = migration.source.identity().await.ok();
        Self {
            command,
            version: env!("CARGO_PKG_VERSION"),
            started_at,
            verdict: Verdict::Failed,
            message: None,
            source: Place { store: migration.source.to_string(), identity, keys: 0 },
            target: Place {
                store: migration.target.to_string(),
                identity: migration.target.identity().await.ok().flatten(),
                keys: 0,
            },
            pattern: selection.pattern.as_ref().map(|pattern| pattern.as_str().into()),
            exclude: selection.exclude.iter().map(|glob| glob.as_str().into()).collect(),
            on_conflict: None,
            dry_run: false,
            proof: None,
            counts: Totals::default(),
            charges: Vec::new(),
            seconds: Seconds::default(),
            keys: Vec::new(),
            excluded: Vec::new(),
            only_on_target: Vec::new(),
            appeared: Vec::new(),
            vanished: Vec::new(),
            leftovers: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Records what to do with keys that the target already has.
    pub fn set_on_conflict(&mut self, on_conflict: OnConflict) {
        self.on_conflict = Some(match on_conflict {
            OnConflict::Fail => "fail",
            OnConflict::Skip => "merge",
            OnConflict::Replace => "force",
        });
    }

    /// Records why there is no plan.
    pub fn refuse(&mut self, error: &Error) {
        let Error::Unusable(problems) = error else { return };
        let oddity = |problem: &super::Problem| Oddity {
            side: problem.side.to_string(),
            name: problem.name.clone(),
            reason: problem.reason.clone(),
        };
        self.problems = problems.iter().map(oddity).collect();
    }

    /// Records the plan.
    pub fn set_plan(&mut self, plan: &Plan) {
        let Counts { missing, identical, different } = plan.counts();
        self.counts = Totals { missing, identical, different, ..self.counts };
        (self.source.keys, self.target.keys) = (plan.source_keys, plan.target_keys);
        self.keys = plan.entries.iter().map(KeyReport::of).collect();
        self.excluded.clone_from(&plan.excluded);
        self.only_on_target = plan.only_on_target.iter().map(ToString::to_string).collect();
        let leftover = |(side, name): &(Side, String)| Oddity {
            side: side.to_string(),
            name: name.clone(),
            reason: "left by a replacement that was cut off".into(),
        };
        self.leftovers = plan.leftovers.iter().map(leftover).collect();
    }

    /// Records the outcomes of the plan's entries, in their order.
    pub fn set_outcomes(&mut self, outcomes: &[Outcome]) {
        let totals = &mut self.counts;
        for (key, outcome) in self.keys.iter_mut().zip(outcomes) {
            let (result, count) = match outcome {
                Outcome::Written => ("written", &mut totals.written),
                Outcome::Replaced => ("replaced", &mut totals.replaced),
                Outcome::Unchanged => {
                    key.result = Some("unchanged");
                    continue;
                }
                Outcome::NotMigrated => ("not migrated", &mut totals.not_migrated),
                Outcome::Failed(failure) => {
                    key.error = Some(failure.to_string());
                    ("failed", &mut totals.failed)
                }
                Outcome::NotReached => ("not reached", &mut totals.not_reached),
            };
            key.result = Some(result);
            *count += 1;
        }
    }

    /// Records how the source has changed during the run.
    pub fn set_drift(&mut self, drift: &Drift) {
        self.appeared = drift.appeared.iter().map(ToString::to_string).collect();
        self.vanished = drift.vanished.iter().map(ToString::to_string).collect();
    }

    /// The verdict when only the plan is known.
    pub fn verdict_of_plan(&self, on_conflict: OnConflict) -> Verdict {
        match on_conflict {
            OnConflict::Fail if self.counts.identical + self.counts.different > 0 => Verdict::Refused,
            OnConflict::Skip if self.counts.different > 0 => Verdict::Incomplete,
            _ => Verdict::Complete,
        }
    }

    /// The verdict when the outcomes are known.
    pub fn verdict_of_outcomes(&self, interrupted: bool) -> Verdict {
        let Totals { written, replaced, not_migrated, failed, not_reached, .. } = self.counts;
        match failed + not_reached {
            0 if not_migrated == 0 && self.appeared.is_empty() => Verdict::Complete,
            0 => Verdict::Incomplete,
            _ if written + replaced == 0 && !interrupted => Verdict::Failed,
            _ => Verdict::Incomplete,
        }
    }

    /// Selected keys of a class: `missing`, `identical` or `different`.
    pub fn names_of(&self, class: &str) -> impl Iterator<Item = &KeyReport> {
        self.keys.iter().filter(move |key| key.class == class)
    }
}

impl KeyReport {
    fn of(entry: &Entry) -> Self {
        let (class, other) = match &entry.class {
            Class::Missing => ("missing", None),
            Class::Identical => ("identical", None),
            Class::Different(other) => ("different", other.fingerprint.clone()),
        };
        Self {
            name: entry.name.to_string(),
            class,
            result: None,
            fingerprint: entry.fingerprint.clone(),
            target_fingerprint: other,
            lost: entry.lost.clone(),
            error: None,
        }
    }

    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Why it failed, if it did.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// The fingerprints of the source's key, and of the target's different key where that is known.
    pub fn fingerprints(&self) -> (&str, Option<&str>) {
        (&self.fingerprint, self.target_fingerprint.as_deref())
    }

    /// What is lost of the key, such as versions.
    pub fn lost(&self) -> &[String] {
        &self.lost
    }
}
