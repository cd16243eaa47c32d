//! `seal.keys`: how many keys each seal has sealed; `seal.risk`: what is dangerous about the key of a seal.

use std::collections::BTreeMap;

use super::{Report, count};
use crate::keystore::{Error, Seal, Sealed, Section};
use crate::telemetry::log::causes;

const ID: &str = "seal.keys";

/// How many keys are read at the same time.
const AT_ONCE: usize = 32;

/// Reads every stored value and counts the seals.
pub(super) async fn check(section: &Section, report: &mut Report) {
    match look(section, report).await {
        Ok((seals, newest)) => conclude(&seals, &newest, report),
        Err(error) => report.failed(ID, causes(&error), "correct what the message names, then run this again"),
    }
}

async fn look(section: &Section, report: &mut Report) -> Result<(BTreeMap<String, usize>, String), Error> {
    let seal = Seal::connect(section.encrypt.as_ref()).await?;
    for warning in seal.warnings() {
        report.warning("seal.risk", warning, "do as the message says");
    }
    let newest = seal.newest().await?;
    let Some(store) = section.store.open().await? else { return Ok((BTreeMap::new(), newest)) };
    Ok((Sealed::new(store, seal).labels(AT_ONCE).await?, newest))
}

fn conclude(seals: &BTreeMap<String, usize>, newest: &str, report: &mut Report) {
    let others: Vec<_> = seals.iter().filter(|(label, _)| *label != newest).collect();
    if others.is_empty() {
        let all = seals.get(newest).copied().unwrap_or_default();
        return report.ok(ID, format!("{}, all sealed by the {newest}", count(all, "key")));
    }
    let others: Vec<_> = others.into_iter().map(|(label, keys)| format!("{} ({label})", count(*keys, "key"))).collect();
    let fix = "run 'claviger reseal' with this config as --config and --target";
    report.warning(ID, format!("not sealed by the {newest}: {}", others.join(", ")), fix);
}
