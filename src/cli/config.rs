//! `claviger config check`: whether a server could start from a config file.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Subcommand;

use super::daemon::message;
use super::out::{GOOD, Out, moment, printable};
use crate::config::Config;
use crate::keystore;
use crate::telemetry::log::Level;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a config file and the files it names, without starting a server or asking the key store.
    Check {
        /// The config file.
        file: PathBuf,
    },
}

/// Runs the command.
pub(super) fn run(args: &Args, out: &mut Out) -> anyhow::Result<()> {
    let Command::Check { file } = &args.command;
    let (config, warnings) = Config::load(file)?;
    let tls = config.load_tls()?;
    config.check_keystore_files()?;
    writeln!(out, "{}: {}", printable(&file.display().to_string()), out.paint(GOOD, "ok"))?;
    for warning in warnings {
        writeln!(out, "Warning: {warning}")?;
    }
    for warning in config.keystore.warnings() {
        writeln!(out, "Warning: {}: {}", config.keystore_place(""), printable(&warning))?;
    }
    let keystore = config.keystore.store.name();
    if !keystore::BUILT.contains(&keystore) {
        writeln!(out, "Warning: {}: {}", config.keystore_place(""), keystore::not_built(keystore))?;
    }
    let members: usize = config.policy.values().map(|policy| policy.identities.len()).sum();
    let level = |level: Option<Level>| level.map_or("off".into(), |level| level.to_string());
    Ok(out.fields(
        11,
        &[
            ("Address", &config.address),
            ("Certificate", &format_args!("expires {}", moment(tls.not_after))),
            ("Key store", &keystore),
            ("Admin", &message::admin(&config.admin)),
            ("Policies", &format_args!("{}, with {members} identities", config.policy.len())),
            ("Keys", &format_args!("{}, created where missing", config.keys.len())),
            ("Logs", &format_args!("error={} audit={}", level(config.log.error), level(config.log.audit))),
        ],
    )?)
}
