//! `claviger kms`, which is also `minkms`: the key manager, its server and its clients.

mod cluster;
mod connection;
mod data;
mod enclave;
mod env;
mod identity;
mod json;
mod key;
mod policies;
mod policy;
mod server;

use std::io::Write as _;

use super::completions::{self, Completions, Man};
use super::out::Out;
use crate::kms::seal::HsmKey;

/// Run a key manager, or use one
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, disable_help_subcommand = true, subcommand_negates_reqs = true)]
pub(super) struct Args {
    /// Make and print a key that takes the place of an HSM
    #[arg(long)]
    soft_hsm: bool,
    /// Print the version
    #[arg(short = 'v', short_alias = 'V', long, action = clap::ArgAction::SetTrue)]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Server(server::Args),
    Env(env::Args),
    Identity(identity::Args),
    #[command(alias = "create-enclave", alias = "new-enclave")]
    AddEnclave(enclave::Add),
    #[command(alias = "ls-enclaves", alias = "list-enclave", alias = "list-enclaves")]
    LsEnclave(enclave::List),
    #[command(alias = "get-enclave", alias = "info-enclave", alias = "show-enclave")]
    StatEnclave(enclave::Stat),
    RmEnclave(enclave::Remove),
    #[command(alias = "create-key", alias = "new-key")]
    AddKey(key::Add),
    #[command(alias = "ls-keys", alias = "list-key", alias = "list-keys")]
    LsKey(key::List),
    #[command(alias = "get-key", alias = "info-key", alias = "show-key")]
    StatKey(key::Stat),
    RmKey(key::Remove),
    ExportKey(key::Export),
    #[command(alias = "generate-key", alias = "gen-key")]
    Keygen(key::Keygen),
    Encrypt(key::Encrypt),
    Decrypt(key::Decrypt),
    #[command(alias = "hmac")]
    Mac(key::Mac),
    #[command(alias = "create-policy", alias = "new-policy", alias = "set-policy")]
    AddPolicy(policy::Add),
    #[command(alias = "ls-policies", alias = "list-policy", alias = "list-policies")]
    LsPolicy(policy::List),
    #[command(alias = "stat-policy", alias = "info-policy", alias = "show-policy")]
    GetPolicy(policy::Get),
    AssignPolicy(policy::Assign),
    RmPolicy(policy::Remove),
    Policies(policies::Args),
    #[command(alias = "create-identity", alias = "new-identity")]
    AddIdentity(identity::Add),
    #[command(alias = "ls-identities", alias = "list-identity", alias = "list-identities")]
    LsIdentity(identity::List),
    #[command(alias = "stat-identity", alias = "info-identity", alias = "show-identity")]
    GetIdentity(identity::Get),
    RmIdentity(identity::Remove),
    Ls(cluster::List),
    Stat(cluster::Stat),
    Add(cluster::Add),
    Rm(cluster::Remove),
    Edit(cluster::Edit),
    AddHsm(cluster::AddHsm),
    RmHsm(cluster::RemoveHsm),
    RotateRoot(cluster::RotateRoot),
    Join(cluster::Join),
    Leave(cluster::LeaveCluster),
    Backup(data::Backup),
    Restore(data::Restore),
    Logs(data::Logs),
    // Shown by `minkms` only: the program that this is a command of has its own.
    #[command(hide = true)]
    Completions(Completions),
    #[command(hide = true)]
    Man(Man),
}

/// Runs the command.
pub(super) fn run(args: Args, out: &mut Out) -> anyhow::Result<()> {
    if args.soft_hsm {
        let key = HsmKey::generate()?;
        return Ok(writeln!(out, "{}", key.expose().as_str())?);
    }
    match args.command {
        None if args.version => super::version(out),
        None => anyhow::bail!("no command given; '--help' lists them"),
        Some(Command::Server(args)) => server::run(args),
        Some(Command::Completions(args)) => completions::completions(&args, out),
        Some(Command::Man(args)) => completions::man(&args, out),
        Some(command) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(ask(command, out))
        }
    }
}

/// Runs a command that may wait for answers.
async fn ask(command: Command, out: &mut Out) -> anyhow::Result<()> {
    match command {
        Command::Server(_) | Command::Completions(_) | Command::Man(_) => unreachable!("`run` has run it"),
        Command::Env(args) => env::run(args, out).await,
        Command::Identity(args) => identity::run(&args, out),
        Command::AddEnclave(args) => enclave::add(args).await,
        Command::LsEnclave(args) => enclave::list(args, out).await,
        Command::StatEnclave(args) => enclave::stat(args, out).await,
        Command::RmEnclave(args) => enclave::remove(args, out).await,
        Command::AddKey(args) => key::add(args).await,
        Command::LsKey(args) => key::list(args, out).await,
        Command::StatKey(args) => key::stat(args, out).await,
        Command::RmKey(args) => key::remove(args, out).await,
        Command::ExportKey(args) => key::export(args, out).await,
        Command::Keygen(args) => key::keygen(args, out).await,
        Command::Encrypt(args) => key::encrypt(args, out).await,
        Command::Decrypt(args) => key::decrypt(args, out).await,
        Command::Mac(args) => key::mac(args, out).await,
        Command::AddPolicy(args) => policy::add(args).await,
        Command::LsPolicy(args) => policy::list(args, out).await,
        Command::GetPolicy(args) => policy::get(args, out).await,
        Command::AssignPolicy(args) => policy::assign(args).await,
        Command::RmPolicy(args) => policy::remove(args, out).await,
        Command::Policies(args) => policies::run(args, out).await,
        Command::AddIdentity(args) => identity::add(args, out).await,
        Command::LsIdentity(args) => identity::list(args, out).await,
        Command::GetIdentity(args) => identity::get(args, out).await,
        Command::RmIdentity(args) => identity::remove(args, out).await,
        Command::Ls(args) => cluster::list(args, out).await,
        Command::Stat(args) => cluster::stat(args, out).await,
        Command::Add(args) => cluster::add(args).await,
        Command::Rm(args) => cluster::remove(args).await,
        Command::Edit(args) => cluster::edit(args).await,
        Command::AddHsm(args) => cluster::add_hsm(args).await,
        Command::RmHsm(args) => cluster::remove_hsm(args, out).await,
        Command::RotateRoot(args) => cluster::rotate_root(args, out).await,
        Command::Join(args) => cluster::join(args, out).await,
        Command::Leave(args) => cluster::leave(args, out).await,
        Command::Backup(args) => data::backup(args, out).await,
        Command::Restore(args) => data::restore(args, out).await,
        Command::Logs(args) => data::logs(args, out).await,
    }
}
