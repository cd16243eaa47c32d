//! Copies keys from one key store or key manager to another: plan, check, write, prove, report.
//!
//! Begin reading at [`Migration`]. The way of a key:
//!
//! 1. `plan.rs` lists both sides, reads and parses every selected key, and sorts the keys by what the target holds.
//!    The plan is complete before the first write.
//! 2. `copy.rs` writes each key that the plan and [`OnConflict`] ask for: a create that never overwrites, or an atomic
//!    replace. It is the only loop that writes.
//! 3. [`Target::prove`] reads each key back, or has it decrypt where the target does not give keys back.
//! 4. `report.rs` records the outcome of each key.
//!
//! `source.rs` and `target.rs` are the traits of the two sides; `enclave/` implements both for a key manager.
//! A run that ends early leaves no key half-written. Another run with [`OnConflict::Skip`] goes on from there.
//! `reseal.rs` is a run of its own: it changes the seal of the keys in one store. So is `transit.rs`, for the keys of a
//! transit engine of a Vault.

mod charge;
mod copy;
pub mod enclave;
mod glob;
mod material;
mod plan;
mod progress;
mod report;
pub mod reseal;
pub mod source;
pub mod target;
pub mod transit;

use std::fmt;

use serde::Serialize;

use crate::keystore::{self, Access};
use crate::text::first;

pub use charge::Charge;
pub use copy::{Failure, Outcome, Prove};
pub use enclave::Enclave;
pub use glob::{Glob, Malformed, Selection};
pub use plan::{Class, Counts, Drift, Entry, Plan, Problem};
pub use progress::{Progress, Step};
pub use report::{KeyReport, Report, Verdict};
pub use source::Source;
pub use target::Target;

/// What to do when the target already has another key under the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    /// Refuse the run and write nothing, even when the target's key is the same.
    Fail,
    /// Keep the target's key and count it as not migrated.
    Skip,
    /// Replace the target's key by the source's.
    Replace,
}

/// One of the two stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Where keys come from; never written.
    Source,
    /// Where keys go.
    Target,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Source => "source",
            Side::Target => "target",
        })
    }
}

/// Why there is no plan. Nothing has been written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A store failed, or does not allow what is needed.
    #[error("the {side} cannot be {verb}")]
    Store {
        /// Which one.
        side: Side,
        /// What was tried, such as "listed".
        verb: &'static str,
        /// What it answered.
        source: keystore::Error,
    },
    /// Both sides are the same store.
    #[error(
        "source and target are the same store ({0}): nothing can be copied; to seal its keys anew use 'claviger reseal'"
    )]
    SameStore(String),
    /// The source has no key at all.
    #[error("the source has no keys; is it the right one?")]
    Empty,
    /// The source does not have the one key that was asked for.
    #[error("the source has no key '{0}'")]
    NoSuchKey(String),
    /// The pattern matches no key.
    #[error("no key of the source matches '{0}'")]
    NoMatch(String),
    /// Exclusions leave out every key that the pattern matches.
    #[error("--exclude leaves no key of the source")]
    AllExcluded,
    /// Entries that cannot be copied or compared.
    #[error("{} cannot be used:{}", if .0.len() == 1 { "1 entry".into() } else { format!("{} entries", .0.len()) }, lines(.0))]
    Unusable(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    let lines = first(problems).into_iter().map(|problem| format!("\n  {problem}"));
    lines.collect::<String>() + "\nRepair or remove them, or leave them out with a pattern or --exclude."
}

/// A source, a target, and the keys to copy from one to the other.
pub struct Migration {
    /// Where keys come from.
    pub source: Box<dyn Source>,
    /// Where they go.
    pub target: Box<dyn Target>,
    /// Which keys.
    pub selection: Selection,
    /// The only version to copy of each key (0: the latest); none: all versions.
    pub only_version: Option<u32>,
    /// The number of batches in flight at once; at least 1. Where a store gains nothing from batches, a batch is one
    /// key.
    pub concurrency: usize,
}

impl Migration {
    /// Completes or undoes interrupted replacements of the target's keys. Until that is done, these keys cannot be
    /// replaced.
    pub async fn settle(&self, progress: &Progress) -> Result<(), Error> {
        self.target.settle(progress.waits()).await.map_err(failed(Side::Target, "made ready to have keys replaced"))
    }

    /// Checks that source and target are different stores, that both answer, and that the target allows `access`.
    pub async fn check(&self, access: Access) -> Result<(), Error> {
        let identity = self.source.identity().await.map_err(failed(Side::Source, "identified"))?;
        if self.target.identity().await.map_err(failed(Side::Target, "identified"))? == Some(identity.clone()) {
            return Err(Error::SameStore(identity));
        }
        self.source.check().await.map_err(failed(Side::Source, "used"))?;
        self.target.check(access).await.map_err(failed(Side::Target, "used"))
    }
}

/// Says which store failed at what.
fn failed(side: Side, verb: &'static str) -> impl FnOnce(keystore::Error) -> Error {
    move |source| Error::Store { side, verb, source }
}

/// Cuts a list into batches of at most `largest`, but small enough that `in_flight` of them can run at once.
fn batches<T: Clone>(list: &[T], largest: usize, in_flight: usize) -> Vec<Vec<T>> {
    let size = list.len().div_ceil(in_flight).clamp(1, largest);
    list.chunks(size).map(<[T]>::to_vec).collect()
}
