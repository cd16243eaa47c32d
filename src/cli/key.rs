//! `claviger key`: manages keys, and encrypts and decrypts with them.

mod crypto;
mod everywhere;
mod reveal;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::connection::Connection;
use super::out::{Out, moment, printable};
use super::prompt::Consent;
use super::{input, list};
use crate::api::wire::ImportRequest;

/// Manage keys, encrypt and decrypt with them.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Create keys
    #[command(alias = "new", alias = "add")]
    Create(Names),
    /// Import a key that exists elsewhere
    Import(Import),
    /// Show the details of a key
    #[command(alias = "show", alias = "describe", alias = "stat", alias = "status")]
    Info(Info),
    /// List keys
    #[command(visible_alias = "list")]
    Ls(list::Args),
    /// Delete keys; what they encrypted can then never be decrypted
    Rm(Remove),
    /// Encrypt a message
    Encrypt(crypto::Encrypt),
    /// Decrypt a ciphertext
    Decrypt(crypto::Decrypt),
    /// Make a data key: a random key, in plaintext and encrypted
    Dek(crypto::Dek),
    /// Print a key itself, for a server that takes one raw key
    Reveal(reveal::Reveal),
}

#[derive(Debug, clap::Args)]
struct Names {
    /// The names of the keys
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, clap::Args)]
struct Remove {
    #[command(flatten)]
    keys: Names,
    /// Tell every server in '--server' to forget the keys, not only the first that answers
    #[arg(long)]
    everywhere: bool,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, clap::Args)]
struct Import {
    /// The name of the key
    name: String,
    /// The key: base64 of 32 bytes, or '-' to read that from standard input
    #[arg(required_unless_present = "key_file")]
    key: Option<SecretString>,
    /// Read the base64 from a file
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    key_file: Option<PathBuf>,
    /// The key's algorithm: AES256 or ChaCha20
    #[arg(long, value_name = "NAME", default_value = "AES256")]
    cipher: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, clap::Args)]
struct Info {
    /// The name of the key
    name: String,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
pub(super) async fn run(args: Args, out: &mut Out) -> anyhow::Result<()> {
    match args.command {
        Command::Create(args) => create(args).await,
        Command::Import(args) => import(args).await,
        Command::Info(args) => info(args, out).await,
        Command::Ls(args) => list::run(args, list::Kind::Key, out).await,
        Command::Rm(args) => remove(args, out).await,
        Command::Encrypt(args) => crypto::encrypt(args, out).await,
        Command::Decrypt(args) => crypto::decrypt(args, out).await,
        Command::Dek(args) => crypto::dek(args, out).await,
        Command::Reveal(args) => reveal::run(args).await,
    }
}

/// Creates one key after the other. When one fails, those before it stay.
async fn create(Names { names, connection }: Names) -> anyhow::Result<()> {
    let client = connection.client()?;
    for name in names {
        client.create_key(&name).await.with_context(|| format!("failed to create key \"{}\"", printable(&name)))?;
    }
    Ok(())
}

async fn import(args: Import) -> anyhow::Result<()> {
    let key = match (&args.key, &args.key_file) {
        (_, Some(file)) => base64_file(file)?,
        (key, None) => input::base64(key.as_ref().map_or("-", |key| key.expose_secret()), "key")?,
    };
    let client = args.connection.client()?;
    let request = ImportRequest { key: key.into(), cipher: Some(args.cipher) };
    let imported = client.import_key(&args.name, &request).await;
    imported.with_context(|| format!("failed to import \"{}\"", printable(&args.name)))
}

fn base64_file(path: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    input::base64(input::read_line(path)?.expose_secret(), "key")
}

async fn info(args: Info, out: &mut Out) -> anyhow::Result<()> {
    /// The JSON of the archived command, which scripts read.
    #[derive(Serialize)]
    struct Json<'a> {
        name: &'a str,
        #[serde(with = "crate::api::wire::rfc3339")]
        created_at: OffsetDateTime,
        #[serde(skip_serializing_if = "str::is_empty")]
        created_by: &'a str,
    }
    let client = args.connection.client()?;
    let described = client.describe_key(&args.name).await;
    let key = described.with_context(|| format!("failed to describe key \"{}\"", printable(&args.name)))?;
    if args.json {
        let json = Json { name: &key.name, created_at: key.created_at, created_by: &key.created_by };
        return Ok(out.json(&json)?);
    }
    // No line feed after the last: as scripts have come to know it.
    write!(
        out,
        "Name        {}\nAlgorithm   {}\nDate        {}\nOwner       {}",
        printable(&key.name),
        printable(&key.algorithm),
        moment(key.created_at),
        printable(&key.created_by)
    )?;
    Ok(())
}

async fn remove(args: Remove, out: &mut Out) -> anyhow::Result<()> {
    let Remove { keys: Names { names, connection }, everywhere, consent } = args;
    let clients = if everywhere { connection.clients()? } else { vec![connection.client()?] };
    let all = names.iter().map(|name| format!("\"{}\"", printable(name))).collect::<Vec<_>>().join(", ");
    let plural = if names.len() == 1 { "" } else { "s" };
    let others = match everywhere {
        true => "",
        false => " Other servers of the same key store may use it until their caches expire: see '--everywhere'.",
    };
    consent
        .ask(&format!("Delete key{plural} {all}? What was encrypted with it can never be decrypted again.{others}"))?;
    for name in names {
        let removed = everywhere::remove(&clients, &name).await;
        removed.with_context(|| format!("failed to remove key \"{}\"", printable(&name)))?;
        out.done(format_args!("Deleted key \"{}\".", printable(&name)))?;
    }
    Ok(())
}
