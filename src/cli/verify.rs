//! `claviger verify`: compares two key stores and changes nothing.

use anyhow::bail;

use super::migrate::keys;
use super::migrate::session::{self, Scope, Session};
use super::out::Out;
use crate::keystore::Access;
use crate::migrate::{KeyReport, Report, Verdict};
use crate::text::first;

/// Check that every key of one key store is on another, unchanged
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    scope: Scope,
}

/// Runs the command.
pub(super) fn run(args: Args, out: &mut Out) -> anyhow::Result<()> {
    session::block_on(async {
        let mut session = Session::open("verify", args.scope, out).await?;
        let ended = session.verify().await;
        session.finish(ended)
    })
}

impl Session<'_> {
    async fn verify(&mut self) -> anyhow::Result<Verdict> {
        if !self.migration.target.exists() {
            bail!("the target does not exist: {}", self.migration.target);
        }
        self.plan(Access::Read).await?;
        self.note(format_args!("Source: {}\nTarget: {}", self.report.source.store, self.report.target.store));
        self.note_oddities();
        self.result(differences(&self.report));
        Ok(self.conclude_comparison())
    }

    fn conclude_comparison(&mut self) -> Verdict {
        let counts = self.report.counts;
        if counts.missing + counts.different > 0 {
            let [missing, different] = [counts.missing, counts.different].map(keys);
            self.report.message = Some(format!("{missing} missing on the target, {different} different"));
            return Verdict::Incomplete;
        }
        self.result(format_args!("Verified {}: all are on the target and identical.\n", keys(counts.identical)));
        Verdict::Complete
    }
}

/// The differences between both sides, one on each line; only the first ones of each kind.
fn differences(report: &Report) -> String {
    let different = |key: &KeyReport| match key.fingerprints() {
        (source, Some(target)) => format!("{} (source {source}, target {target})", key.name()),
        (source, None) => format!("{} (source {source})", key.name()),
    };
    let lists = [
        ("missing on the target", first(report.names_of("missing").map(KeyReport::name))),
        ("different", first(report.names_of("different").map(different))),
        ("only on the target", first(&report.only_on_target)),
    ];
    let lines = lists.iter().flat_map(|(what, list)| list.iter().map(move |one| format!("{what}: {one}\n")));
    lines.collect()
}
