//! What `migrate` and `verify` share: their stores, what they print, and how they end.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use time::format_description::well_known::Rfc3339;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Incomplete;
use super::meter::Meter;
use super::place::{self, Destination};
use super::report_file::ReportFile;
use crate::cli::out::{self, Out};
use crate::keystore::Access;
use crate::migrate::{Error, Glob, Malformed, Migration, Plan, Progress, Report, Selection, Verdict};
use crate::{clock, memory};

/// Which keys, from where, to where, and what to print.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Scope {
    /// The config file of the key store that keys come from; just `keystore:` is enough.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    #[command(flatten)]
    target: Destination,
    /// Only these keys: a name, or a glob (`*`, `?`, `[a-c]`, `[^x]`, `\`).
    #[arg(value_name = "PATTERN", value_parser = pattern)]
    pattern: Option<Glob>,
    /// Leave these out; may be given several times.
    #[arg(long, value_name = "PATTERN", value_parser = Glob::parse)]
    exclude: Vec<Glob>,
    /// Of a key manager's keys take this version alone; 0: the latest
    #[arg(long, value_name = "NUMBER")]
    only_version: Option<u32>,
    /// How many threads or requests work at once
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

/// A [`Scope`] in parts.
pub(super) struct Parts {
    pub(super) from: PathBuf,
    pub(super) target: Destination,
    pub(super) selection: Selection,
    pub(super) only_version: Option<u32>,
    pub(super) report: Option<PathBuf>,
    pub(super) json: bool,
    pub(super) quiet: bool,
}

impl Scope {
    /// Whether a side is a transit engine of a Vault.
    pub(super) fn names_transit(&self) -> bool {
        place::names_transit(&self.from) || self.target.file().is_some_and(place::names_transit)
    }

    pub(super) fn into_parts(self) -> Parts {
        let Self { from, target, pattern, exclude, only_version, report, json, quiet, .. } = self;
        Parts { from, target, selection: Selection { pattern, exclude }, only_version, report, json, quiet }
    }
}

/// Parses a pattern. An empty one selects all keys.
fn pattern(text: &str) -> Result<Glob, Malformed> {
    Glob::parse(if text.is_empty() { "*" } else { text })
}

/// Runs a command that holds keys in memory.
pub(in crate::cli) fn block_on(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    memory::forbid_core_dumps().context("failed to forbid core dumps")?;
    // It works without the right to lock memory, too.
    let _ = memory::lock();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

/// A run of `migrate` or `verify`.
pub(in crate::cli) struct Session<'a> {
    pub(in crate::cli) migration: Migration,
    pub(in crate::cli) report: Report,
    pub(in crate::cli) stop: CancellationToken,
    pub(in crate::cli) progress: Arc<Progress>,
    out: &'a mut Out,
    report_file: Option<ReportFile>,
    json: bool,
    quiet: bool,
}

impl<'a> Session<'a> {
    /// Loads both configs and connects to both stores. Creates only the report's file.
    pub(in crate::cli) async fn open(command: &'static str, scope: Scope, out: &'a mut Out) -> anyhow::Result<Self> {
        let started_at = clock::now().format(&Rfc3339)?;
        let progress = Arc::<Progress>::default();
        let meter = Meter::start(progress.clone(), scope.quiet);
        let source = place::source(&scope.from, progress.waits()).await?;
        let target = scope.target.open(progress.waits()).await?;
        let migration = Migration {
            source,
            target,
            selection: Selection { pattern: scope.pattern, exclude: scope.exclude },
            only_version: scope.only_version,
            concurrency: scope.concurrency.into(),
        };
        let report = Report::begin(command, started_at, &migration).await;
        meter.stop().await;
        let stores = [&report.source, &report.target].map(|place| place.identity.as_deref());
        let report_file = match scope.report {
            Some(path) => Some(ReportFile::create(path, &stores).await?),
            None => None,
        };
        let stop = CancellationToken::new();
        cancel_on_signal(stop.clone())?;
        let (json, quiet) = (scope.json, scope.quiet);
        Ok(Self { migration, report, stop, progress, out, report_file, json, quiet })
    }

    /// Checks both stores, makes the plan, and prints a summary of it.
    pub(in crate::cli) async fn plan(&mut self, access: Access) -> anyhow::Result<Plan> {
        let started = Instant::now();
        let meter = self.meter();
        let plan = async {
            self.migration.check(access).await?;
            self.migration.plan(&self.progress).await
        };
        let plan = tokio::select! {
            plan = plan => plan,
            () = self.stop.cancelled() => bail!("interrupted while planning; nothing was written"),
        };
        meter.stop().await;
        self.report.seconds.plan = started.elapsed().as_secs_f64();
        let plan = plan.inspect_err(|error: &Error| self.report.refuse(error))?;
        self.report.set_plan(&plan);
        Ok(plan)
    }

    /// Shows progress until it is dropped.
    pub(super) fn meter(&self) -> Meter {
        Meter::start(self.progress.clone(), self.quiet)
    }

    /// Prints a result to standard output, unless that is for JSON only.
    pub(in crate::cli) fn result(&mut self, text: impl std::fmt::Display) {
        if !self.json && !self.quiet {
            // A closed pipe must not stop the run half-way.
            let _ = write!(self.out, "{text}").and_then(|()| self.out.flush());
        }
    }

    /// Prints information to standard error.
    pub(in crate::cli) fn note(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            self.warn(text);
        }
    }

    /// Prints a warning to standard error.
    pub(in crate::cli) fn warn(&self, text: impl std::fmt::Display) {
        out::note(text);
    }

    /// Writes the report, and returns the error of a run that is not complete.
    pub(in crate::cli) fn finish(mut self, ended: anyhow::Result<Verdict>) -> anyhow::Result<()> {
        self.report.verdict = match &ended {
            Ok(verdict) => *verdict,
            Err(_) if self.stop.is_cancelled() => Verdict::Incomplete,
            Err(_) => Verdict::Failed,
        };
        if let Err(error) = &ended {
            self.report.message = Some(format!("{error:#}"));
        }
        if let Some(file) = self.report_file.take() {
            file.write(&self.report).context("the report cannot be written")?;
        }
        if self.json {
            self.out.json(&self.report)?;
        }
        let message = self.report.message.unwrap_or_default();
        match self.report.verdict {
            Verdict::Complete => Ok(()),
            Verdict::Refused | Verdict::Failed => Err(anyhow::Error::msg(message)),
            Verdict::Incomplete => Err(Incomplete(message).into()),
        }
    }
}

/// Cancels `stop` on Ctrl-C and on the signals of service managers and closing terminals, so that a run ends cleanly.
pub(in crate::cli) fn cancel_on_signal(stop: CancellationToken) -> std::io::Result<()> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signal = signal(kind)?;
        let stop = stop.clone();
        tokio::spawn(async move {
            signal.recv().await;
            stop.cancel();
        });
    }
    Ok(())
}
