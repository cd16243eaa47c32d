//! Listings: `ls`, and the `ls` of keys, policies and identities.

use anyhow::Context as _;
use secrecy::SecretString;

use super::connection::Connection;
use super::out::Out;
use crate::client::{self, Client};

/// The arguments of a listing.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// List only names that begin with this text; a '*' at the end is optional
    pattern: Option<String>,
    /// Write one JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What is listed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Key,
    Policy,
    Identity,
}

impl Kind {
    async fn list(self, client: &Client, pattern: &str) -> Result<Vec<String>, client::Error> {
        match self {
            Self::Key => client.list_keys(pattern).await,
            Self::Policy => client.list_policies(pattern).await,
            Self::Identity => client.list_identities(pattern).await,
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Key => "keys",
            Self::Policy => "policies",
            Self::Identity => "identities",
        }
    }
}

/// Lists what there is of a kind.
pub(super) async fn run(args: Args, kind: Kind, out: &mut Out) -> anyhow::Result<()> {
    // Existing scripts expect the heading "Key" for policies, too.
    let heading = if matches!(kind, Kind::Identity) { "Identity" } else { "Key" };
    run_with(args, kind, heading, None, out).await
}

/// Like `run`, with another heading, and with an API key that takes precedence over all others.
pub(super) async fn run_with(
    args: Args,
    kind: Kind,
    heading: &str,
    api_key: Option<SecretString>,
    out: &mut Out,
) -> anyhow::Result<()> {
    let client = args.connection.client_with(api_key.as_ref())?;
    let listed = kind.list(&client, args.pattern.as_deref().unwrap_or_default()).await;
    let names = listed.with_context(|| format!("failed to list {}", kind.plural()))?;
    Ok(out.names(heading, kind.plural(), &names, args.json)?)
}
