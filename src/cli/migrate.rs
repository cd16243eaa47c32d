//! `claviger migrate`: copies keys from one key store, or key manager, to another.

pub(super) mod meter;
pub(super) mod place;
pub(super) mod report_file;
pub(super) mod session;
mod transit;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, bail};

pub(super) use self::place::Usage;
use self::session::{Scope, Session};
use super::out::Out;
use super::prompt::Consent;
use crate::keystore::Access;
use crate::migrate::{KeyReport, OnConflict, Plan, Prove, Report, Side, Verdict};
use crate::text::{counted, first};

/// Copy keys from one key store to another, or to and from a key manager
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    scope: Scope,
    /// Replace keys that have another value on the target.
    #[arg(short, long, conflicts_with = "merge")]
    force: bool,
    /// Copy only missing keys, and leave those that the target has.
    #[arg(long)]
    merge: bool,
    /// Plan and check everything, write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not read written keys back to check them.
    #[arg(long)]
    no_verify: bool,
    #[command(flatten)]
    consent: Consent,
}

impl Args {
    fn on_conflict(&self) -> OnConflict {
        match (self.force, self.merge) {
            (true, _) => OnConflict::Replace,
            (_, true) => OnConflict::Skip,
            _ => OnConflict::Fail,
        }
    }
}

/// The run is incomplete: some keys are not on the target, but none is half-written. The program exits with 3.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Incomplete(String);

impl Incomplete {
    /// The error with this message.
    pub(super) fn new(message: String) -> Self {
        Self(message)
    }
}

/// Runs the command.
pub(super) fn run(args: Args, out: &mut Out) -> anyhow::Result<()> {
    if args.scope.names_transit() {
        return transit::run(args, out);
    }
    session::block_on(async {
        let on_conflict = args.on_conflict();
        let prove = if args.no_verify { Prove::Trust } else { Prove::ReadBack };
        let mut session = Session::open("migrate", args.scope, out).await?;
        session.report.set_on_conflict(on_conflict);
        session.report.dry_run = args.dry_run;
        let proof = session.migration.target.proof();
        session.report.proof = (prove == Prove::ReadBack && !args.dry_run).then_some(proof);
        session.result("Starting key migration:\n\n");
        let ended = session.migrate(on_conflict, prove, args.dry_run).await;
        session.finish(ended)
    })
}

impl Session<'_> {
    async fn migrate(&mut self, on_conflict: OnConflict, prove: Prove, dry_run: bool) -> anyhow::Result<Verdict> {
        let access = if on_conflict == OnConflict::Replace { Access::Replace } else { Access::Create };
        let plan = self.plan(access).await?;
        self.report.charges = self.migration.charges(&plan, on_conflict, prove);
        self.note(plan_text(&self.report, on_conflict, prove));
        self.note_oddities();
        self.note_losses();
        if on_conflict == OnConflict::Replace {
            plan.check_replaceable().inspect_err(|error| self.report.refuse(error))?;
        }
        let verdict = self.report.verdict_of_plan(on_conflict);
        if verdict == Verdict::Refused {
            self.report.message = Some(refusal(&self.report));
            return Ok(verdict);
        }
        self.note_replaced(on_conflict);
        if dry_run {
            self.rehearse(&plan, on_conflict).await?;
            self.warn_different(on_conflict);
            if verdict == Verdict::Incomplete {
                self.report.message = Some(left_out(self.report.counts.different));
            }
            self.result("Dry run: nothing was written.\n");
            return Ok(verdict);
        }
        self.copy(&plan, on_conflict, prove).await?;
        self.recheck(&plan).await?;
        Ok(self.conclude(on_conflict))
    }

    async fn rehearse(&mut self, plan: &Plan, on_conflict: OnConflict) -> anyhow::Result<()> {
        let meter = self.meter();
        let rehearsed = tokio::select! {
            rehearsed = self.migration.rehearse(plan, on_conflict, &self.progress) => rehearsed,
            () = self.stop.cancelled() => bail!("interrupted while rehearsing; nothing was written"),
        };
        meter.stop().await;
        rehearsed.inspect_err(|error| self.report.refuse(error))?;
        Ok(())
    }

    /// Completes or undoes interrupted replacements on the target. This may take minutes.
    async fn settle(&self) -> anyhow::Result<()> {
        let meter = self.meter();
        let settled = tokio::select! {
            settled = self.migration.settle(&self.progress) => settled,
            () = self.stop.cancelled() => bail!("interrupted before the first key was written"),
        };
        meter.stop().await;
        settled.context("nothing was written")
    }

    async fn copy(&mut self, plan: &Plan, on_conflict: OnConflict, prove: Prove) -> anyhow::Result<()> {
        let started = Instant::now();
        if on_conflict == OnConflict::Replace && plan.leftovers.iter().any(|(side, _)| *side == Side::Target) {
            self.settle().await?;
        }
        self.migration.target.prepare().await.context("the target cannot be made")?;
        self.report.target.identity = self.migration.target.identity().await.ok().flatten();
        let meter = self.meter();
        let outcomes = self.migration.copy(plan, on_conflict, prove, &self.progress, &self.stop).await;
        meter.stop().await;
        self.report.set_outcomes(&outcomes);
        self.report.seconds.copy = started.elapsed().as_secs_f64();
        Ok(())
    }

    /// Lists the source again, to find keys that changed there during the run.
    async fn recheck(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let started = Instant::now();
        match self.migration.drift(plan).await {
            Ok(drift) => self.report.set_drift(&drift),
            Err(error) => self.warn(format_args!("Warning: {:#}", anyhow::Error::from(error))),
        }
        self.report.seconds.recheck = started.elapsed().as_secs_f64();
        self.warn_list("appeared on the source during the run and NOT migrated", &self.report.appeared);
        self.warn_list("vanished from the source during the run", &self.report.vanished);
        Ok(())
    }

    fn conclude(&mut self, on_conflict: OnConflict) -> Verdict {
        let interrupted = self.stop.is_cancelled();
        let verdict = self.report.verdict_of_outcomes(interrupted);
        self.note(summary(&self.report));
        let failed = self.report.keys.iter().filter_map(|key| Some(format!("{}: {}", key.name(), key.error()?)));
        for failed in first(failed) {
            self.warn(format_args!("FAILED: {failed}"));
        }
        self.warn_different(on_conflict);
        let counts = self.report.counts;
        let done = counts.written + counts.replaced;
        if counts.failed + counts.not_reached == 0 {
            self.result(last_line(done));
        }
        if verdict != Verdict::Complete {
            self.report.message = Some(shortfall(&self.report, interrupted));
        }
        verdict
    }

    /// Warns about keys that stay different.
    fn warn_different(&self, on_conflict: OnConflict) {
        if on_conflict != OnConflict::Skip {
            return;
        }
        for other in first(self.report.names_of("different").map(another_key)) {
            self.warn(format_args!("NOT MIGRATED: {other}"));
        }
    }

    /// Lists the keys of the target that will be replaced.
    fn note_replaced(&self, on_conflict: OnConflict) {
        if on_conflict != OnConflict::Replace {
            return;
        }
        for other in first(self.report.names_of("different").map(another_key)) {
            self.note(format_args!("To be REPLACED: {other}"));
        }
    }

    /// Reports what was found besides keys.
    pub(super) fn note_oddities(&self) {
        if !self.report.excluded.is_empty() {
            self.note(format_args!("Excluded: {}", first(&self.report.excluded).join(", ")));
        }
        for left in first(&self.report.leftovers) {
            self.warn(format_args!("Warning: {left}"));
        }
    }

    /// Says what will be lost of which keys, before anything is written.
    fn note_losses(&self) {
        let mut losses = BTreeMap::<String, Vec<&str>>::new();
        for key in self.report.keys.iter().filter(|key| !key.lost().is_empty()) {
            losses.entry(key.lost().join(", ")).or_default().push(key.name());
        }
        for (lost, keys) in losses {
            self.warn(format_args!("Warning: will be LOST of {}: {lost}", first(keys).join(", ")));
        }
    }

    fn warn_list(&self, what: &str, names: &[String]) {
        if !names.is_empty() {
            self.warn(format_args!("Warning: {what}: {}", first(names).join(", ")));
        }
    }
}

fn plan_text(report: &Report, on_conflict: OnConflict, prove: Prove) -> String {
    let counts = report.counts;
    let writes = match on_conflict {
        OnConflict::Replace => counts.missing + counts.different,
        OnConflict::Fail | OnConflict::Skip => counts.missing,
    };
    let reads = if prove == Prove::ReadBack { writes } else { 0 };
    let charges: String = report.charges.iter().map(|charge| format!("\n{charge}")).collect();
    format!(
        "Source: {} ({}, {} selected)\nTarget: {}{}\nPlan: {} missing on the target, {} identical, {} different\n\
         To come: {} and {} on the target, one listing of the source{charges}",
        report.source.store,
        keys(report.source.keys),
        report.keys.len(),
        report.target.store,
        report.target.identity.as_ref().map_or(String::new(), |_| format!(" ({})", keys(report.target.keys))),
        counts.missing,
        counts.identical,
        counts.different,
        counted(writes, "write"),
        counted(reads, "read"),
    )
}

/// Describes a key of the target that differs from the source's.
fn another_key(key: &KeyReport) -> String {
    let fingerprints = match key.fingerprints() {
        (source, Some(target)) => format!("{target}, not {source}"),
        (source, None) => format!("not {source}"),
    };
    format!("{}: the target holds ANOTHER KEY ({fingerprints})", key.name())
}

fn refusal(report: &Report) -> String {
    let mut text = String::from("the target holds some of these keys already; nothing was written:");
    for (class, note) in [("different", "holds ANOTHER KEY"), ("identical", "holds the same key")] {
        for key in first(report.names_of(class).map(|key| format!("{}: {note}", key.name()))) {
            text += &format!("\n  {key}");
        }
    }
    text + "\nUse --merge to copy only what is missing, --force to replace keys that differ."
}

fn summary(report: &Report) -> String {
    let counts = report.counts;
    let proof = report.proof.map_or_else(String::new, |proof| format!(", each {proof}"));
    let seconds = report.seconds.plan + report.seconds.copy + report.seconds.recheck;
    format!(
        "{} written, {} replaced{proof}; {} identical, {} not migrated, {} failed, {} not reached; {seconds:.1} s",
        counts.written, counts.replaced, counts.identical, counts.not_migrated, counts.failed, counts.not_reached,
    )
}

fn last_line(done: usize) -> String {
    match done {
        0 => "Migration succeeded! No keys migrated.\n".into(),
        done => format!("Migrated {done:6} keys successfully!\n"),
    }
}

/// Says exactly what was done, and how to go on.
fn shortfall(report: &Report, interrupted: bool) -> String {
    let counts = report.counts;
    let done = counts.written + counts.replaced;
    let stopped = counts.failed + counts.not_reached;
    let planned = done + stopped;
    if interrupted && stopped > 0 {
        return format!(
            "interrupted: {done} of {} migrated, and none half; run again with --merge to go on",
            were(planned)
        );
    }
    if stopped > 0 {
        return format!(
            "{done} of {} migrated, {} failed, {} not begun; when the cause is gone, run again with --merge to go on",
            were(planned),
            counts.failed,
            counts.not_reached
        );
    }
    if counts.not_migrated > 0 {
        return left_out(counts.not_migrated);
    }
    format!("{} appeared on the source during the run; run again with --merge", keys(report.appeared.len()))
}

/// "1 key was", "2 keys were".
fn were(count: usize) -> String {
    format!("{} {}", keys(count), if count == 1 { "was" } else { "were" })
}

fn left_out(count: usize) -> String {
    format!("{} NOT migrated: the target holds other keys under these names", keys(count))
}

/// "1 key", "2 keys".
pub(super) fn keys(count: usize) -> String {
    counted(count, "key")
}
