//! What the providers of the stores charge for a run, computed before the run.

use std::fmt;

use serde::Serialize;

use super::copy::Prove;
use super::plan::Plan;
use super::{Migration, OnConflict, Side};
use crate::keystore::Charged;
use crate::text::counted;

/// What a provider charges for from the plan on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Charge {
    /// Who charges.
    pub by: &'static str,
    /// For which store.
    pub side: Side,
    /// The number of requests, without retries.
    pub requests: usize,
    /// The number of new keys, if the provider charges for stored keys.
    pub keys: usize,
}

impl fmt::Display for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by, side, requests, keys } = self;
        write!(f, "Charged by {by}: about {} for the {side}", counted(*requests, "request"))?;
        if *keys > 0 { write!(f, ", and {} that it keeps", counted(*keys, "more key")) } else { Ok(()) }
    }
}

impl Migration {
    /// What carrying out the plan costs. The requests for making the plan are not included.
    pub fn charges(&self, plan: &Plan, on_conflict: OnConflict, prove: Prove) -> Vec<Charge> {
        let counts = plan.counts();
        let replaced = if on_conflict == OnConflict::Replace { counts.different } else { 0 };
        let read = if prove == Prove::ReadBack { counts.missing + replaced } else { 0 };
        let of_source = |charged: Charged| Charge {
            by: charged.by,
            side: Side::Source,
            // The source is listed once more at the end.
            requests: charged.page.map_or(0, |page| plan.source_keys.div_ceil(page).max(1)),
            keys: 0,
        };
        let of_target = |charged: Charged| Charge {
            by: charged.by,
            side: Side::Target,
            requests: counts.missing * charged.create + replaced * charged.replace + read * charged.get,
            keys: if charged.keeps { counts.missing } else { 0 },
        };
        let source = self.source.charges().into_iter().map(of_source);
        let target = self.target.charges().into_iter().map(of_target);
        source.chain(target).filter(|charge| charge.requests > 0).collect()
    }
}
