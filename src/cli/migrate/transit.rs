//! `claviger migrate` where one side is a transit engine of a Vault, and the other an enclave.

use std::io::Write as _;

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;
use time::format_description::well_known::Rfc3339;
use tokio_util::sync::CancellationToken;

use super::report_file::ReportFile;
use super::session::{self, Parts};
use super::{Args, Incomplete, keys, place};
use crate::cli::out::{self, Out};
use crate::clock;
use crate::config::Holder;
use crate::keystore::vault::Engine;
use crate::migrate::transit::{Class, NoPlan, Outcome, Plan, Planned, Transfer, Way};
use crate::migrate::{self, Progress, Verdict};
use crate::text::{counted, first};

/// What `--report` and `--json` write.
#[derive(Serialize)]
struct Report {
    command: &'static str,
    version: &'static str,
    started_at: String,
    verdict: Verdict,
    /// Why it did not complete.
    message: Option<String>,
    dry_run: bool,
    source: String,
    target: String,
    keys: Vec<KeyReport>,
    excluded: Vec<String>,
    /// The keys that stopped the run before it began.
    problems: Vec<Unusable>,
}

#[derive(Serialize)]
struct KeyReport {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    /// What the target had under the name.
    on_target: Class,
    /// Whether the run made it exportable at the Vault, or would.
    becomes_exportable: bool,
    outcome: Option<String>,
    error: Option<String>,
}

#[derive(Serialize)]
struct Unusable {
    name: String,
    reason: String,
}

/// Runs the command.
pub(super) fn run(args: Args, out: &mut Out) -> anyhow::Result<()> {
    session::block_on(async {
        ensure!(
            !args.force && !args.no_verify,
            "a transit key is never replaced, and always proven: leave out '--force' and '--no-verify'"
        );
        let Args { scope, merge, dry_run, consent, .. } = args;
        let Parts { from, target, selection, only_version, report, json, quiet } = scope.into_parts();
        ensure!(only_version.is_none(), "transit keys are copied with all their versions: leave out '--only-version'");
        let waits = Progress::default().waits().clone();
        let (engine, enclave, way) = match place::holder(&from)? {
            Holder::Transit(engine) => (engine, target.enclave_only(&waits).await?, Way::In),
            Holder::Enclave(config) => {
                let file = target.file().context("a transit engine as target is named with '--to FILE'")?;
                let Holder::Transit(engine) = place::holder(file)? else { bail!("no side is a transit engine") };
                let enclave = place::enclave(&config, &waits).await;
                (engine, enclave.with_context(|| format!("the source ({})", from.display()))?, Way::Back)
            }
            Holder::Store(_) => bail!("the keys of a transit engine come from an enclave, and go to one"),
        };
        for warning in engine.warnings() {
            out::note(format_args!("Warning: {warning}"));
        }
        let engine = Engine::open(&engine)?;
        let identity = engine.identity().await.context("the Vault cannot be used")?;
        let file = match report {
            Some(path) => Some(ReportFile::create(path, &[Some(identity.as_str())]).await?),
            None => None,
        };
        let stop = CancellationToken::new();
        session::cancel_on_signal(stop.clone())?;
        let (source, target) = match way {
            Way::In => (engine.to_string(), enclave.to_string()),
            Way::Back => (enclave.to_string(), engine.to_string()),
        };
        let report = Report {
            command: "migrate",
            version: env!("CARGO_PKG_VERSION"),
            started_at: clock::now().format(&Rfc3339)?,
            verdict: Verdict::Complete,
            message: None,
            dry_run,
            source,
            target,
            keys: Vec::new(),
            excluded: Vec::new(),
            problems: Vec::new(),
        };
        let transfer = Transfer { engine, enclave, way, selection, waits };
        let mut run = Run { transfer, report, stop, merge, json, quiet };
        let ended = run.run(&consent, out).await;
        run.finish(ended, file, out)
    })
}

struct Run {
    transfer: Transfer,
    report: Report,
    stop: CancellationToken,
    merge: bool,
    json: bool,
    quiet: bool,
}

impl Run {
    async fn run(&mut self, consent: &crate::cli::prompt::Consent, out: &mut Out) -> anyhow::Result<()> {
        let plan = tokio::select! {
            plan = self.transfer.plan() => plan.inspect_err(|error| self.report.refuse(error))?,
            () = self.stop.cancelled() => bail!("interrupted while planning; nothing was written"),
        };
        self.report.set_plan(&plan);
        let of = |class| plan.keys.iter().filter(move |key| key.class == class);
        self.note(format_args!(
            "Source: {}\nTarget: {}\nPlan: {} missing on the target, {} identical, {} different, {} that cannot be compared",
            self.report.source,
            self.report.target,
            of(Class::Missing).count(),
            of(Class::Identical).count(),
            of(Class::Different).count(),
            of(Class::Unknown).count(),
        ));
        if !plan.excluded.is_empty() {
            self.note(format_args!("Excluded: {}", first(&plan.excluded).join(", ")));
        }
        let there: Vec<_> = plan.keys.iter().filter(|key| key.class != Class::Missing).map(name).collect();
        ensure!(
            self.merge || there.is_empty(),
            "the target holds some of these keys already; nothing was written: {}\nUse --merge to copy only what is missing.",
            first(&there).join(", ")
        );
        let missing: Vec<_> = of(Class::Missing).map(name).collect();
        let opened: Vec<_> = plan.keys.iter().filter(|key| key.becomes_exportable).map(name).collect();
        let question = self.warn_of_exports(&opened, &missing);
        if self.report.dry_run {
            self.result(out, "Dry run: nothing was written, and no key was made exportable.");
            return left_over(&plan);
        }
        if let Some(question) = question {
            consent.insist(&question)?;
        }
        let outcomes = self.transfer.run(&plan, &self.stop).await;
        self.report.set_outcomes(&outcomes);
        let copied = outcomes.iter().filter(|outcome| **outcome == Outcome::Copied).count();
        self.result(out, &format!("Copied {}, each proven: each side decrypts what the other encrypts.", keys(copied)));
        self.shortfall(&plan, &outcomes)
    }

    /// Says which keys will be exportable at the Vault; returns what is asked because of that.
    fn warn_of_exports(&self, opened: &[&str], missing: &[&str]) -> Option<String> {
        let names = match self.transfer.way {
            Way::In => opened,
            Way::Back => missing,
        };
        if names.is_empty() {
            return None;
        }
        let (count, names) = (counted(names.len(), "key"), first(names).join(", "));
        out::note(format_args!(
            "Warning: at the Vault {count} will be EXPORTABLE, for everybody who may read backups there: {names}"
        ));
        Some(format!("Make {count} exportable at the Vault? That can never be taken back."))
    }

    fn shortfall(&self, plan: &Plan, outcomes: &[Outcome]) -> anyhow::Result<()> {
        let failed = plan.keys.iter().zip(outcomes).filter_map(|(key, outcome)| match outcome {
            Outcome::Failed(why) => Some(format!("{}: {why}", name(key))),
            _ => None,
        });
        let failed: Vec<_> = failed.collect();
        for failed in first(&failed) {
            out::note(format_args!("FAILED: {failed}"));
        }
        let not_reached = outcomes.iter().filter(|outcome| **outcome == Outcome::NotReached).count();
        if failed.len() + not_reached > 0 {
            let text = format!(
                "{} failed, {} not begun; when the cause is gone, run again with --merge to go on",
                keys(failed.len()),
                keys(not_reached)
            );
            return Err(Incomplete::new(text).into());
        }
        left_over(plan)
    }

    /// Writes the report.
    fn finish(mut self, ended: anyhow::Result<()>, file: Option<ReportFile>, out: &mut Out) -> anyhow::Result<()> {
        if let Err(error) = &ended {
            self.report.verdict = if error.is::<Incomplete>() { Verdict::Incomplete } else { Verdict::Failed };
            self.report.message = Some(format!("{error:#}"));
        }
        if let Some(file) = file {
            file.write(&self.report).context("the report cannot be written")?;
        }
        if self.json {
            out.json(&self.report)?;
        }
        ended
    }

    fn note(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            out::note(text);
        }
    }

    fn result(&self, out: &mut Out, text: &str) {
        if !self.json && !self.quiet {
            // A closed pipe must not stop the run half-way.
            let _ = writeln!(out, "{text}").and_then(|()| out.flush());
        }
    }
}

fn name(key: &Planned) -> &str {
    key.name.as_str()
}

/// Keys that the target has, and that are others, or maybe.
fn left_over(plan: &Plan) -> anyhow::Result<()> {
    let left = plan.keys.iter().filter(|key| matches!(key.class, Class::Different | Class::Unknown));
    let left: Vec<_> = left.map(name).collect();
    if left.is_empty() {
        return Ok(());
    }
    let text = format!(
        "{} NOT copied: the target holds keys of these names that are others, or cannot be compared: {}",
        keys(left.len()),
        first(&left).join(", ")
    );
    Err(Incomplete::new(text).into())
}

impl Report {
    fn refuse(&mut self, error: &NoPlan) {
        if let NoPlan::Unusable(migrate::Error::Unusable(problems)) = error {
            let unusable =
                |problem: &migrate::Problem| Unusable { name: problem.name.clone(), reason: problem.reason.clone() };
            self.problems = problems.iter().map(unusable).collect();
        }
    }

    fn set_plan(&mut self, plan: &Plan) {
        let key = |key: &Planned| KeyReport {
            name: name(key).to_owned(),
            kind: key.kind.clone(),
            on_target: key.class,
            becomes_exportable: key.becomes_exportable,
            outcome: None,
            error: None,
        };
        self.keys = plan.keys.iter().map(key).collect();
        self.excluded.clone_from(&plan.excluded);
    }

    fn set_outcomes(&mut self, outcomes: &[Outcome]) {
        for (key, outcome) in self.keys.iter_mut().zip(outcomes) {
            key.outcome = Some(outcome.to_string());
            key.error = if let Outcome::Failed(why) = outcome { Some(why.clone()) } else { None };
        }
    }
}
