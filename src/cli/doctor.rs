//! `claviger doctor`: finds faults, present or soon to come, in a server's config, files, key store and machine; of a key
//! manager too.
//!
//! It changes nothing. To add a check, write a function that adds to the [`Report`] and call it in [`examine`].

mod access;
mod cache;
mod cluster;
mod config;
mod decrypts;
mod fs;
mod keystore;
mod kms;
mod private;
mod process;
mod required;
mod seal;
pub(super) mod tls;

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::bail;
use serde::Serialize;

use super::out::{BAD, GOOD, LABEL, Out, WARNING, printable};
use super::words;
use crate::config::{Any, Config, Examined};
use crate::keystore::Access;
use crate::text::counted as count;

/// Find what is wrong with a server's config, files and key store
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The config file of a key server or key manager; for a migration, one with only 'keystore:' is enough
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What the key store is needed for
    #[arg(long = "for", value_name = "PURPOSE", value_enum, default_value_t)]
    purpose: Purpose,
    /// Keys that must exist and work: their names, or a file with one name on each line ('./names')
    #[arg(long, value_name = "NAME,…|FILE", value_parser = required::Given::parse)]
    require_keys: Option<required::Given>,
    /// A ciphertext that a key must decrypt, as 'kes key encrypt' printed it; may be repeated
    #[arg(long, value_name = "FILE")]
    decrypts: Vec<PathBuf>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// What a key store is needed for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Purpose {
    /// A server: everything is checked
    #[default]
    Server,
    /// A migration that reads its keys
    MigrateSource,
    /// A migration that adds keys to it, and with '--force' replaces some
    MigrateTarget,
}

impl Purpose {
    fn access(self) -> Access {
        match self {
            Self::Server => Access::Serve,
            Self::MigrateSource => Access::Read,
            Self::MigrateTarget => Access::Replace,
        }
    }
}

/// What must be in the key store.
struct Wanted {
    keys: Option<required::Keys>,
    ciphertexts: Vec<decrypts::Ciphertext>,
}

impl Wanted {
    fn of(args: &Args) -> anyhow::Result<Self> {
        let keys = args.require_keys.as_ref().map(required::Given::read).transpose()?;
        let ciphertexts =
            args.decrypts.iter().map(|file| decrypts::Ciphertext::read(file)).collect::<Result<_, _>>()?;
        Ok(Self { keys, ciphertexts })
    }
}

/// Runs the command.
pub(super) async fn run(args: Args, out: &mut Out) -> anyhow::Result<()> {
    let wanted = Wanted::of(&args)?;
    let report = examine(&args, &wanted).await.by_name(out.program());
    match args.json {
        true => out.json(&report.0)?,
        false => report.print(out)?,
    }
    match report.count(Status::Failed) {
        0 => Ok(()),
        1 => bail!("1 check failed"),
        failed => bail!("{failed} checks failed"),
    }
}

async fn examine(args: &Args, wanted: &Wanted) -> Report {
    let mut report = Report::default();
    // First, because it also keeps secrets that the other checks read out of core files.
    process::core_dumps(&mut report);
    process::memory_lock(&mut report);
    process::clock(&mut report);
    let access = args.purpose.access();
    if args.purpose != Purpose::Server {
        let Some(config) = config::check_keystore(&args.config, &mut report) else { return report };
        let place = format!("{}: keystore", args.config.display());
        let section = keystore::Section { config: &config, place, keys: &[] };
        keystore::check(&section, access, wanted, &mut report).await;
        return report;
    }
    match Any::examine(&args.config) {
        Any::Kms(examined) => {
            kms::examine(&args.config, examined, &mut report).await;
            let message = "this is the config of a key manager, whose data only its server can open";
            if wanted.keys.is_some() {
                report.failed(required::ID, message, "ask the server: 'kms ls-key' lists its keys");
            }
            if !wanted.ciphertexts.is_empty() {
                report.failed(decrypts::ID, message, "ask the server: 'kms decrypt' opens a ciphertext");
            }
        }
        Any::Kes(examined) => examine_server(args, examined, wanted, &mut report).await,
    }
    report
}

async fn examine_server(args: &Args, examined: Examined<Config>, wanted: &Wanted, report: &mut Report) {
    let Some(config) = config::judge(&args.config, examined.whole(), report) else { return };
    tls::check(&config.tls, &config.check_tls_files(), report);
    let files = config.keystore_files();
    let files = files.iter().filter(|(setting, _)| private::is_secret(setting)).map(|(_, file)| *file);
    private::check(config.tls.certs.iter().map(|pair| pair.key.as_path()).chain(files), report);
    let place = config.keystore_place("").to_string();
    let section = keystore::Section { config: &config.keystore, place, keys: &config.keys };
    keystore::check(&section, args.purpose.access(), wanted, report).await;
    cache::check(&config, report);
    access::admin(&config, report);
    access::policies(&config, report);
    access::keys(&config, report);
}

/// What the checks found, in order.
#[derive(Debug, Default)]
struct Report(Vec<Check>);

/// One finding of one check.
#[derive(Debug, Serialize)]
struct Check {
    /// The id of the check. Scripts rely on it, so it never changes. A check with several findings appears several
    /// times.
    id: &'static str,
    status: Status,
    message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// It works, and may not be meant.
    Warning,
    /// It does not work.
    Failed,
}

impl Report {
    fn ok(&mut self, id: &'static str, message: impl Into<String>) {
        self.0.push(Check { id, status: Status::Ok, message: message.into(), fix: None });
    }

    fn warning(&mut self, id: &'static str, message: impl Into<String>, fix: impl Into<String>) {
        self.0.push(Check { id, status: Status::Warning, message: message.into(), fix: Some(fix.into()) });
    }

    fn failed(&mut self, id: &'static str, message: impl Into<String>, fix: impl Into<String>) {
        self.0.push(Check { id, status: Status::Failed, message: message.into(), fix: Some(fix.into()) });
    }

    fn add(&mut self, id: &'static str, status: Status, message: String, fix: &str) {
        match status {
            Status::Ok => self.ok(id, message),
            Status::Warning => self.warning(id, message, fix),
            Status::Failed => self.failed(id, message, fix),
        }
    }

    /// The same, with the name that the program was called by in what is to be done.
    fn by_name(mut self, program: &str) -> Self {
        for Check { message, fix, .. } in &mut self.0 {
            *message = words::by_name(program, std::mem::take(message));
            *fix = fix.take().map(|fix| words::by_name(program, fix));
        }
        self
    }

    /// Whether this check found nothing so far.
    fn is_clean(&self, id: &str) -> bool {
        self.0.iter().all(|check| check.id != id)
    }

    fn count(&self, status: Status) -> usize {
        self.0.iter().filter(|check| check.status == status).count()
    }

    fn print(&self, out: &mut Out) -> io::Result<()> {
        let width = self.0.iter().map(|check| check.id.len()).max().unwrap_or(0);
        for Check { id, status, message, fix } in &self.0 {
            let (style, word) = match status {
                Status::Ok => (GOOD, "ok"),
                Status::Warning => (WARNING, "warning"),
                Status::Failed => (BAD, "failed"),
            };
            let word = out.paint(style, format!("{word:<7}"));
            let indent = width + 11;
            writeln!(out, "{word}  {id:<width$}  {}", lines(message, indent))?;
            if let Some(fix) = fix {
                let label = out.paint(LABEL, format!("{:indent$}fix:", ""));
                writeln!(out, "{label} {}", lines(fix, indent + 5))?;
            }
        }
        Ok(())
    }
}

/// A text of several lines, such as a policy to be pasted, with all but the first of them indented so far.
fn lines(text: &str, indent: usize) -> String {
    let lines: Vec<_> = text.lines().map(printable).collect();
    lines.join(&format!("\n{:indent$}", ""))
}

/// The first of a list, and how many more there are.
fn some(texts: &[String]) -> String {
    const SHOWN: usize = 20;
    let first = texts[..texts.len().min(SHOWN)].join(", ");
    match texts.len().saturating_sub(SHOWN) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_lines() {
        assert_eq!(lines("{\n  \"a\": 1\n}\u{1b}", 4), "{\n      \"a\": 1\n    }\u{fffd}");
    }

    #[test]
    fn long_lists_are_cut() {
        let texts = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!((some(&texts(0)), some(&texts(2))), (String::new(), "0, 1".into()));
        assert!(some(&texts(20)).ends_with("18, 19"));
        assert!(some(&texts(22)).ends_with("18, 19 and 2 more"));
    }
}
