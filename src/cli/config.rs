//! `claviger config check`: whether a server could start from a config file.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Subcommand;
use serde::Serialize;

use super::daemon::message;
use super::doctor::Status;
use super::doctor::tls::{Judgement, judge};
use super::out::{GOOD, Out, moment, printable};
use super::{published, words};
use crate::clock;
use crate::config::{Any, Config, Errors, Examined, Finding, Place, kms};
use crate::server::tls::Setting;
use crate::text::{counted, counted_as};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the config file of a key server or a key manager, and the files that it names
    ///
    /// It starts no server and contacts no key store. 'doctor' checks those too.
    Check {
        /// The config file
        file: PathBuf,
        /// Name the settings that an archived KES does not know: whether the way back to it is open
        #[arg(long)]
        for_kes: bool,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
}

/// What is to be said about a file.
#[derive(Debug, Serialize)]
struct Verdict {
    ok: bool,
    /// The server that it is for: `kes` or `kms`.
    kind: &'static str,
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
    /// What it sets up, where it is good for anything.
    #[serde(skip)]
    fields: Vec<(&'static str, String)>,
}

/// Runs the command.
pub(super) fn run(args: &Args, out: &mut Out) -> anyhow::Result<()> {
    let Command::Check { file, for_kes, json } = &args.command;
    let verdict = check(file, *for_kes).by_name(out.program());
    if *json {
        out.json(&verdict)?;
        return match verdict.errors.len() {
            0 => Ok(()),
            errors => bail!("{} in '{}'", counted(errors, "error"), file.display()),
        };
    }
    if verdict.ok {
        writeln!(out, "{}: {}", printable(&file.display().to_string()), out.paint(GOOD, "ok"))?;
    }
    for warning in &verdict.warnings {
        writeln!(out, "Warning: {warning}")?;
    }
    if !verdict.ok {
        return Err(Errors::from(verdict.errors).into());
    }
    let fields: Vec<_> =
        verdict.fields.iter().map(|(label, value)| (*label, value as &dyn std::fmt::Display)).collect();
    Ok(out.fields(11, &fields)?)
}

fn check(file: &Path, for_kes: bool) -> Verdict {
    match Any::examine(file) {
        Any::Kes(mut examined) => {
            examined.warnings.extend(for_kes.then(|| Config::unknown_to_kes(file)).into_iter().flatten());
            check_key_server(examined)
        }
        Any::Kms(mut examined) => {
            let message = "KES is no key manager and cannot read its config";
            examined.errors.extend(for_kes.then(|| Finding::new(Place::of(file), message)));
            check_key_manager(examined)
        }
    }
}

impl Verdict {
    fn new(kind: &'static str, errors: Vec<Finding>, warnings: Vec<Finding>) -> Self {
        let (dangers, warnings): (Vec<_>, Vec<_>) = warnings.into_iter().partition(Finding::is_danger);
        let errors = errors.into_iter().chain(dangers).collect();
        Self { ok: false, kind, errors, warnings, fields: Vec::new() }
    }

    /// The same, with the name that the program was called by in what is to be done.
    fn by_name(mut self, program: &str) -> Self {
        for finding in self.errors.iter_mut().chain(&mut self.warnings) {
            finding.reword(|message| words::by_name(program, message));
        }
        self
    }

    /// Whether nothing is wrong with a section of the file.
    fn is_clean(&self, section: &str) -> bool {
        self.errors.iter().all(|error| error.key().split(['.', '[']).next() != Some(section))
    }

    /// Adds what is to be said about certificates by their time. A server starts with those that have expired, too.
    fn add(&mut self, judgements: Vec<Judgement>, place: impl Fn(Setting) -> Place) {
        let bad = judgements.into_iter().filter(|judgement| judgement.status != Status::Ok);
        self.warnings.extend(bad.map(|judgement| Finding::new(place(judgement.setting), judgement.message)));
    }
}

fn check_key_server(examined: Examined<Config>) -> Verdict {
    let Examined { config, errors, warnings } = examined;
    let mut verdict = Verdict::new("kes", errors, warnings);
    let Some(config) = config else { return verdict };
    if verdict.is_clean("tls") {
        verdict.errors.extend(config.check_tls_files());
    }
    if verdict.is_clean("tls") {
        verdict.add(judge(&config.tls, clock::now()), |setting| config.tls_place(setting));
    }
    if verdict.is_clean("log") {
        verdict.errors.extend(config.check_log());
    }
    if verdict.is_clean("keystore") {
        verdict.errors.extend(config.check_keystore_files());
        if let Some(message) = config.keystore.store.not_built() {
            verdict.warnings.push(Finding::new(config.keystore_place(""), message));
        }
        let warnings = config.keystore.warnings();
        let warnings = warnings.iter().map(|warning| Finding::new(config.keystore_place(""), printable(warning)));
        verdict.warnings.extend(warnings);
    }
    if verdict.is_clean("admin")
        && let Some(message) = published::refusal(config.admin.as_str())
    {
        verdict.errors.push(Finding::new(config.admin_place(), message));
    }
    verdict.ok = verdict.errors.is_empty();
    if verdict.ok {
        verdict.fields = fields(&config);
    }
    verdict
}

fn fields(config: &Config) -> Vec<(&'static str, String)> {
    let members: usize = config.policy.values().map(|policy| policy.identities.len()).sum();
    let expires = config.load_tls().map_or_else(|error| error.to_string(), |tls| moment(tls.not_after));
    vec![
        ("Address", config.address.to_string()),
        ("Certificate", format!("expires {expires}")),
        ("Key store", config.keystore.store.name().into()),
        ("Admin", message::admin(&config.admin).into()),
        ("Policies", format!("{}, with {}", config.policy.len(), counted_as(members, "identity", "identities"))),
        ("Keys", format!("{}, created where missing", config.keys.len())),
        ("Logs", config.log.to_string()),
    ]
}

fn check_key_manager(examined: Examined<kms::Config>) -> Verdict {
    let Examined { config, errors, warnings } = examined;
    let mut verdict = Verdict::new("kms", errors, warnings);
    let Some(config) = config else { return verdict };
    let files = config.tls();
    if verdict.is_clean("tls") {
        verdict.errors.extend(files.check());
    }
    if verdict.is_clean("tls") {
        verdict.add(judge(&files.config, clock::now()), |setting| files.place(setting));
    }
    if verdict.is_clean("hsm") {
        verdict.errors.extend(config.check_hsm_files());
        verdict.warnings.extend(config.hsm_warnings());
    }
    if verdict.is_clean("log") {
        verdict.errors.extend(config.check_log());
    }
    if let Some((identity, place)) = config.admin.identity.zip(config.admin_place())
        && let Some(message) = published::refusal(&identity.to_hex())
    {
        verdict.errors.push(Finding::new(place.clone(), message));
    }
    verdict.ok = verdict.errors.is_empty();
    let certificates = match files.config.certs.len() {
        0 => "made beside the data".into(),
        len => counted(len, "pair"),
    };
    let admin = config.admin.identity.map_or("worked out from the HSM key".into(), |identity| identity.to_string());
    verdict.fields = vec![
        ("Server", "key manager".into()),
        ("Certificate", certificates),
        ("Admin", admin),
        ("HSMs", format!("{} beside MINIO_KMS_HSM_KEY", config.hsm.len())),
        ("Logs", config.log.to_string()),
    ];
    verdict
}
