//! `claviger reseal`: changes the seal of the keys in a store, in place.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde::Serialize;
use time::format_description::well_known::Rfc3339;
use tokio_util::sync::CancellationToken;

use super::migrate::meter::Meter;
use super::migrate::report_file::ReportFile;
use super::migrate::{Incomplete, keys, place, session};
use super::out::{self, Out};
use crate::clock;
use crate::migrate::reseal::{Done, Error, Readers, Reseal, Todo};
use crate::migrate::{Progress, Verdict};
use crate::name::KeyName;
use crate::text::{counted, first};

/// Seal the keys of a key store again, in place
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The config file with the seal that the keys have now; just `keystore:` is enough.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The config file with their new seal: the same key store with another `encrypt:`.
    #[arg(long, visible_alias = "to", value_name = "FILE")]
    target: PathBuf,
    /// Try everything in memory, and store nothing.
    #[arg(long)]
    dry_run: bool,
    /// How many keys to work on at a time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=512))]
    concurrency: u16,
    /// Write a report in JSON to a file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print the report in JSON, and nothing else, to standard output.
    #[arg(long)]
    json: bool,
    /// Print errors and what needs attention, and nothing else.
    #[arg(short, long)]
    quiet: bool,
}

/// What `--report` and `--json` write.
#[derive(Serialize)]
struct Report {
    command: &'static str,
    version: &'static str,
    started_at: String,
    verdict: Verdict,
    /// Why it did not complete.
    message: Option<String>,
    newest: Option<String>,
    dry_run: bool,
    /// How many keys had which seal before.
    sealed_by: BTreeMap<String, usize>,
    to_reseal: usize,
    resealed: usize,
    failed: Vec<Failed>,
    not_reached: usize,
    /// How many keys had another seal in the end.
    others: BTreeMap<String, usize>,
    /// The entries that stopped the run before it began.
    problems: Vec<Failed>,
}

#[derive(Serialize)]
struct Failed {
    name: String,
    error: String,
}

impl Report {
    fn begin(dry_run: bool) -> anyhow::Result<Self> {
        Ok(Self {
            command: "reseal",
            version: env!("CARGO_PKG_VERSION"),
            started_at: clock::now().format(&Rfc3339)?,
            verdict: Verdict::Complete,
            message: None,
            newest: None,
            dry_run,
            sealed_by: BTreeMap::new(),
            to_reseal: 0,
            resealed: 0,
            failed: Vec::new(),
            not_reached: 0,
            others: BTreeMap::new(),
            problems: Vec::new(),
        })
    }

    fn set_plan(&mut self, todo: &Todo) {
        self.newest = Some(todo.newest.clone());
        self.sealed_by.clone_from(&todo.sealed_by);
        self.to_reseal = todo.names.len();
    }

    fn set_done(&mut self, done: &Done) {
        let failed = |(name, error): &(KeyName, String)| Failed { name: name.to_string(), error: error.clone() };
        self.failed = done.failed.iter().map(failed).collect();
        (self.resealed, self.not_reached) = (done.resealed, done.not_reached);
        self.others.clone_from(&done.others);
    }

    fn set_error(&mut self, error: &anyhow::Error) {
        self.verdict = if error.is::<Incomplete>() { Verdict::Incomplete } else { Verdict::Failed };
        self.message = Some(format!("{error:#}"));
        if let Some(Error::Unusable(problems)) = error.downcast_ref() {
            let problem = |(name, error): &(String, String)| Failed { name: name.clone(), error: error.clone() };
            self.problems = problems.iter().map(problem).collect();
        }
    }
}

/// Runs the command.
pub(super) fn run(args: Args, out: &mut Out) -> anyhow::Result<()> {
    session::block_on(async {
        let old = place::load(&args.config)?;
        let new = place::load(&args.target)?;
        for warning in new.store.warnings() {
            out::note(format_args!("Warning: {}: {warning}", args.target.display()));
        }
        let progress = Arc::<Progress>::default();
        let meter = Meter::start(progress.clone(), args.quiet);
        let reseal = Reseal::open(&old, &new, args.concurrency.into(), progress.waits()).await?;
        meter.stop().await;
        let file = match &args.report {
            Some(path) => Some(ReportFile::create(path.clone(), &[Some(reseal.identity())]).await?),
            None => None,
        };
        let stop = CancellationToken::new();
        session::cancel_on_signal(stop.clone())?;
        let report = Report::begin(args.dry_run)?;
        let mut run = Run { args, reseal, stop, progress, report };
        let ended = run.run(out).await;
        run.finish(ended, file, out)
    })
}

struct Run {
    args: Args,
    reseal: Reseal,
    stop: CancellationToken,
    progress: Arc<Progress>,
    report: Report,
}

impl Run {
    async fn run(&mut self, out: &mut Out) -> anyhow::Result<()> {
        let todo = self.before_the_first_write(self.reseal.plan(&self.progress)).await?;
        self.report.set_plan(&todo);
        self.note(self.plan_text(&todo));
        let done = if self.args.dry_run {
            self.before_the_first_write(self.reseal.rehearse(&todo, &self.progress)).await?;
            Done::default()
        } else {
            self.before_the_first_write(self.reseal.settle()).await?;
            self.write(&todo).await?
        };
        if !self.args.json && !self.args.quiet {
            writeln!(out, "{}", self.conclusion(&todo, &done))?;
        }
        shortfall(&todo, &done, self.stop.is_cancelled())
    }

    /// Writes the report.
    fn finish(mut self, ended: anyhow::Result<()>, file: Option<ReportFile>, out: &mut Out) -> anyhow::Result<()> {
        if let Err(error) = &ended {
            self.report.set_error(error);
        }
        if let Some(file) = file {
            file.write(&self.report).context("the report cannot be written")?;
        }
        if self.args.json {
            out.json(&self.report)?;
        }
        ended
    }

    /// Seals anew, and looks what else there is then.
    async fn write(&mut self, todo: &Todo) -> anyhow::Result<Done> {
        let meter = self.meter();
        let mut done = self.reseal.run(todo, &self.progress, &self.stop).await;
        self.report.set_done(&done);
        let look = async {
            if done.resealed > 0 && done.resealed == todo.names.len() {
                done.others = self.reseal.others(todo, &self.progress).await?;
                done.copies = self.reseal.copies().await?;
            }
            Ok::<_, Error>(done)
        };
        let looked = look.await;
        meter.stop().await;
        let done = looked.context("all keys of the plan have the new seal; whether there are others is not known")?;
        self.report.set_done(&done);
        Ok(done)
    }

    /// Runs a step that an interruption may end at any moment.
    async fn before_the_first_write<T>(&self, step: impl Future<Output = Result<T, Error>>) -> anyhow::Result<T> {
        let meter = self.meter();
        let done = tokio::select! {
            done = step => done,
            () = self.stop.cancelled() => bail!("interrupted before the first key was changed"),
        };
        meter.stop().await;
        done.context("nothing was changed")
    }

    fn plan_text(&self, todo: &Todo) -> String {
        let Todo { names, sealed_by, newest, readers, cut_off } = todo;
        let seals = sealed_by.iter().map(|(label, count)| format!("\n  {label}: {}", keys(*count)));
        let seals = seals.collect::<String>();
        let (count, [old, new]) = (names.len(), [&self.args.config, &self.args.target].map(|file| file.display()));
        let readers = match readers {
            Readers::Old => format!("'{old}', which reads both seals"),
            Readers::New => format!("'{new}', which reads both seals"),
            Readers::Both => format!("'{old}' or '{new}': both read both seals"),
        };
        let cut_off = match cut_off {
            0 => String::new(),
            cut_off => format!(
                "\nOf {} a replacement was cut off, or is under way: it is ended first, which takes up to two minutes",
                keys(*cut_off)
            ),
        };
        let charged: Vec<_> = self.reseal.charged_by().into_iter().collect();
        let charged = match charged.is_empty() {
            true => String::new(),
            false => format!("\nCharged by {}: its part of these", charged.join(" and ")),
        };
        format!(
            "Sealed by now:{seals}\nPlan: {} to seal anew, as {newest}\nTo come: {} and {} in the key store, {} to wrap and \
             {} to unwrap{charged}\nUntil it ends every server must run with {readers}{cut_off}",
            keys(count),
            counted(2 * count + if count == 0 { 0 } else { sealed_by.values().sum() }, "read"),
            counted(count, "replacement"),
            counted(count, "data key"),
            3 * count,
        )
    }

    fn conclusion(&self, todo: &Todo, done: &Done) -> String {
        if self.args.dry_run {
            return format!("Dry run: {} can be sealed anew; nothing was changed.", keys(todo.names.len()));
        }
        let resealed = format!("Resealed {}, each opened again and compared.", keys(done.resealed));
        if done.failed.len() + done.not_reached > 0 {
            return resealed;
        }
        let gone = todo.sealed_by.keys().filter(|label| **label != todo.newest && !done.others.contains_key(*label));
        let gone: Vec<_> = gone.map(String::as_str).collect();
        let mut said = vec![resealed];
        if !gone.is_empty() && done.copies == 0 {
            said.push(format!("Seals that no key in this store has any more: {}.", gone.join("; ")));
        }
        if todo.readers == Readers::Old {
            let [old, new] = [&self.args.config, &self.args.target].map(|file| file.display());
            said.push(format!("Servers with '{old}' seal new keys as before: give them '{new}', and run this again."));
        }
        said.join("\n")
    }

    fn meter(&self) -> Meter {
        Meter::start(self.progress.clone(), self.args.quiet)
    }

    fn note(&self, text: impl std::fmt::Display) {
        if !self.args.quiet {
            out::note(text);
        }
    }
}

fn shortfall(todo: &Todo, done: &Done, interrupted: bool) -> anyhow::Result<()> {
    if !done.others.is_empty() {
        let others = done.others.iter().map(|(label, count)| format!("{} ({label})", keys(*count)));
        let others = others.collect::<Vec<_>>().join(", ");
        return Err(Incomplete::new(format!("made meanwhile with another seal: {others}; run again")).into());
    }
    if done.copies > 0 {
        let copies = counted(done.copies, "key");
        let message = format!("of {copies} a copy with the old seal is left; run again, which removes it");
        return Err(Incomplete::new(message).into());
    }
    if done.failed.is_empty() && done.not_reached == 0 {
        return Ok(());
    }
    for failed in first(done.failed.iter().map(|(name, error)| format!("{name}: {error}"))) {
        out::note(format_args!("FAILED: {failed}"));
    }
    let why = if interrupted { "interrupted" } else { "stopped" };
    let message = format!(
        "{why}: {} of {} have the new seal, all others the old one, and every key is whole; run again to go on",
        done.resealed,
        keys(todo.names.len())
    );
    Err(Incomplete::new(message).into())
}
