//! `claviger kms env`: sets up an enclave, a key and an identity for an object store, and prints its settings.

use std::collections::BTreeMap;
use std::io::Write as _;

use anyhow::Context as _;
use hyper::StatusCode;

use super::connection::{InEnclave, servers};
use crate::auth::enclave::ApiKey;
use crate::cli::out::{self, Out, printable};
use crate::client::kms::Commands;
use crate::client::{self, Client};
use crate::kms::Action;
use crate::kms::wire::{CreateIdentityRequest, CreateKeyRequest, NameRequest};

/// The enclave of an object store, unless somebody says otherwise.
const ENCLAVE: &str = "minio";

/// Set up an enclave with a key and an admin for an object store, and print its environment
///
/// An existing enclave or key is used as it is. Every run makes a new admin.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The key that the object store encrypts with
    #[arg(default_value = "minio-default-key")]
    key: String,
    /// Write one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: InEnclave,
}

pub(super) async fn run(args: Args, out: &mut Out) -> anyhow::Result<()> {
    let (enclave, connection) = args.connection.parts();
    let (enclave, client) = (enclave.unwrap_or_else(|| ENCLAVE.to_owned()), connection.client()?);
    let create = Commands::one(Action::EnclaveCreate, &NameRequest { name: enclave.clone() });
    unless_it_exists(client.change("", create).await)
        .with_context(|| format!("failed to create enclave \"{}\"", printable(&enclave)))?;
    let request = CreateKeyRequest { name: args.key.clone(), ..CreateKeyRequest::default() };
    unless_it_exists(client.change(&enclave, Commands::one(Action::KeyCreate, &request)).await)
        .with_context(|| format!("failed to create key \"{}\"", printable(&args.key)))?;
    let admin = add_admin(&client, &enclave).await.context("failed to add the admin")?;
    let server = servers();
    let variables = [
        ("MINIO_KMS_SERVER", server.as_str()),
        ("MINIO_KMS_ENCLAVE", &enclave),
        ("MINIO_KMS_API_KEY", admin.expose()),
        ("MINIO_KMS_SSE_KEY", &args.key),
    ];
    if args.json {
        return Ok(out.json(&BTreeMap::from(variables))?);
    }
    variables.iter().try_for_each(|(name, value)| writeln!(out, "export {name}={value}"))?;
    out.flush()?;
    // Not among the variables: a shell that evaluates them without quotes takes all for one line.
    out::note(
        "This is the environment of an object store. Evaluated in this shell, it makes you an admin of the enclave \
         instead of the system administrator.",
    );
    Ok(())
}

fn unless_it_exists(done: Result<(), client::Error>) -> Result<(), client::Error> {
    match done {
        Err(error) if error.status() == Some(StatusCode::CONFLICT) => Ok(()),
        done => done,
    }
}

async fn add_admin(client: &Client, enclave: &str) -> anyhow::Result<ApiKey> {
    let key = ApiKey::generate()?;
    let (identity, privilege) = (key.identity().to_string(), "Admin".to_owned());
    let request = CreateIdentityRequest { identity, privilege, ..CreateIdentityRequest::default() };
    client.change(enclave, Commands::one(Action::IdentityCreate, &request)).await?;
    Ok(key)
}
