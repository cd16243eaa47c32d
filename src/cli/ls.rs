//! `claviger ls`: keys, policies or identities.

use secrecy::SecretString;

use super::list::{self, Kind};
use super::out::Out;

/// List keys, policies or identities
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// List identities
    #[arg(short, long, conflicts_with = "policy")]
    identity: bool,
    /// List policies
    #[arg(short, long)]
    policy: bool,
    /// The API key; other users can see it in the process list, so prefer MINIO_KES_API_KEY
    #[arg(short, long, value_name = "KEY", conflicts_with = "api_key_file", help_heading = "Connection")]
    api_key: Option<SecretString>,
    #[command(flatten)]
    list: list::Args,
}

/// Runs the command.
pub(super) async fn run(args: Args, out: &mut Out) -> anyhow::Result<()> {
    let (kind, heading) = match (args.identity, args.policy) {
        (true, _) => (Kind::Identity, "Identity"),
        (_, true) => (Kind::Policy, "Policy"),
        _ => (Kind::Key, "Key"),
    };
    list::run_with(args.list, kind, heading, args.api_key, out).await
}
