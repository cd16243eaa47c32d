//! `claviger reseal`: changes the seal of the keys in a store, in place.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::migrate::meter::Meter;
use super::migrate::{Incomplete, keys, session};
use super::out::{self, Out};
use crate::migrate::Progress;
use crate::migrate::reseal::{Done, Error, Readers, Reseal, Todo};
use crate::text::{counted, first};

/// Seal the keys of a key store anew, where they are
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The config file by which the keys are sealed now; just `keystore:` is enough.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The config file by which they shall be: the same key store with another `encrypt:`.
    #[arg(long, visible_alias = "to", value_name = "FILE")]
    target: PathBuf,
    /// Open, seal and open everything in memory, store nothing.
    #[arg(long)]
    dry_run: bool,
    /// How many keys are in work at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=512))]
    concurrency: u16,
    /// Print the result in JSON, and nothing else, to standard output.
    #[arg(long)]
    json: bool,
    /// Print errors and what needs attention, and nothing else.
    #[arg(short, long)]
    quiet: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    newest: &'a str,
    dry_run: bool,
    /// How many keys had which seal before.
    sealed_by: &'a BTreeMap<String, usize>,
    to_reseal: usize,
    resealed: usize,
    failed: Vec<Failed<'a>>,
    not_reached: usize,
    /// How many keys had another seal in the end.
    others: &'a BTreeMap<String, usize>,
}

#[derive(Serialize)]
struct Failed<'a> {
    name: &'a str,
    error: &'a str,
}

/// Runs the command.
pub(super) fn run(args: Args, out: &mut Out) -> anyhow::Result<()> {
    session::block_on(async {
        let old = session::load(&args.config)?;
        let new = session::load(&args.target)?;
        for warning in new.store_warnings() {
            out::note(format_args!("Warning: {}: {warning}", args.target.display()));
        }
        let progress = Arc::<Progress>::default();
        let meter = Meter::start(progress.clone(), args.quiet);
        let reseal = Reseal::open(&old, &new, args.concurrency.into(), progress.waits()).await?;
        meter.stop().await;
        let stop = CancellationToken::new();
        session::cancel_on_signal(stop.clone())?;
        Run { args, reseal, stop, progress }.run(out).await
    })
}

struct Run {
    args: Args,
    reseal: Reseal,
    stop: CancellationToken,
    progress: Arc<Progress>,
}

impl Run {
    async fn run(&self, out: &mut Out) -> anyhow::Result<()> {
        let todo = self.before_the_first_write(self.reseal.plan(&self.progress)).await?;
        self.note(self.plan_text(&todo));
        let done = if self.args.dry_run {
            self.before_the_first_write(self.reseal.rehearse(&todo, &self.progress)).await?;
            Done::default()
        } else {
            self.before_the_first_write(self.reseal.settle()).await?;
            self.write(&todo).await?
        };
        if self.args.json {
            out.json(&self.report(&todo, &done))?;
        } else if !self.args.quiet {
            writeln!(out, "{}", self.conclusion(&todo, &done))?;
        }
        shortfall(&todo, &done, self.stop.is_cancelled())
    }

    /// Seals anew, and looks what else there is then.
    async fn write(&self, todo: &Todo) -> anyhow::Result<Done> {
        let meter = self.meter();
        let mut done = self.reseal.run(todo, &self.progress, &self.stop).await;
        let look = async {
            if done.resealed > 0 && done.resealed == todo.names.len() {
                done.others = self.reseal.others(todo, &self.progress).await?;
                done.copies = self.reseal.copies().await?;
            }
            Ok::<_, Error>(done)
        };
        let looked = look.await;
        meter.stop().await;
        looked.context("all keys of the plan have the new seal; whether there are others is not known")
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

    fn report<'a>(&self, todo: &'a Todo, done: &'a Done) -> Report<'a> {
        Report {
            newest: &todo.newest,
            dry_run: self.args.dry_run,
            sealed_by: &todo.sealed_by,
            to_reseal: todo.names.len(),
            resealed: done.resealed,
            failed: done.failed.iter().map(|(name, error)| Failed { name: name.as_str(), error }).collect(),
            not_reached: if self.args.dry_run { 0 } else { done.not_reached },
            others: &done.others,
        }
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
            said.push(format!("No key in this store is any more: {}.", gone.join("; ")));
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
