//! `claviger identity`: makes API keys and certificates, and prints their identities.

pub(super) mod files;
pub(super) mod new;

use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hyper::StatusCode;
use rcgen::{KeyPair, PublicKeyData as _};
use rustls::pki_types::PrivateKeyDer;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use time::OffsetDateTime;

use super::connection::Connection;
use super::out::{Out, STRONG, WARNING, moment, printable};
use super::{input, list};
use crate::auth::Identity;
use crate::auth::api_key::{self, ApiKey};
use crate::auth::certificate::Certificate;
use crate::client::{self, Client};
use crate::crypto::pem;

/// Make and inspect identities; without a command, make an API key or print the identity of KEY or FILE
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// An API key, a file with a certificate or with an Ed25519 private key, or '-' for standard input
    #[arg(value_name = "KEY|FILE")]
    of: Option<SecretString>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make an API key and, if asked, files with its private key and certificate
    #[command(alias = "create")]
    New(new::Args),
    /// Print the identity of an API key, a certificate or a private key
    Of(Of),
    /// Show what a server knows about an identity
    Info(Info),
    /// List identities
    Ls(list::Args),
}

#[derive(Debug, clap::Args)]
struct Of {
    /// An API key, a file with a certificate or a private key, or '-' for standard input
    #[arg(value_name = "KEY|FILE")]
    of: SecretString,
}

#[derive(Debug, clap::Args)]
struct Info {
    /// The identity [default: your own]
    #[arg(value_name = "ID")]
    identity: Option<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
pub(super) async fn run(args: Args, out: &mut Out) -> anyhow::Result<()> {
    match (args.command, args.of) {
        (Some(Command::New(args)), _) => new::run(args, out),
        (Some(Command::Of(args)), _) => of(&args.of, out),
        (Some(Command::Info(args)), _) => info(args, out).await,
        (Some(Command::Ls(args)), _) => list::run(args, list::Kind::Identity, out).await,
        (None, Some(of)) => show(&of, out),
        (None, None) => generate(out),
    }
}

/// Makes an API key. When standard output is not a terminal, it prints only the key, without a line feed.
fn generate(out: &mut Out) -> anyhow::Result<()> {
    let key = ApiKey::generate()?;
    let text = key.expose();
    if !out.is_terminal() {
        out.write_all(text.as_bytes())?;
        return Ok(());
    }
    let (shown, identity) = (out.paint(STRONG, text.as_str()), out.paint(STRONG, key.identity()));
    let program = out.program();
    write!(
        out,
        "\n Your API key:\n\n    {shown}\n\n This is the only time it is shown. Keep it secret, and keep it.\n\n \
         It is the key of this identity:\n\n    {identity}\n\n The identity is no secret: give it to the policies \
         of a server\n that is to know you.\n\n To see the identity again:\n\n   $ {program} identity {}\n\n",
        text.as_str()
    )?;
    Ok(())
}

/// The argument of `identity`.
enum Subject {
    Identity(Identity),
    Key(ApiKey),
}

fn show(argument: &SecretString, out: &mut Out) -> anyhow::Result<()> {
    let (heading, value) = match subject(argument.expose_secret())? {
        Subject::Identity(identity) => ("Identity:", SecretString::from(identity.as_str())),
        Subject::Key(key) => ("API key:", SecretString::from(key.expose().as_str())),
    };
    let value = value.expose_secret();
    if !out.is_terminal() {
        out.write_all(value.as_bytes())?;
        return Ok(());
    }
    let explanation = match heading {
        "Identity:" => {
            "An identity is the hash of a public key, and no secret.\n Policies name it to say who may do what."
        }
        _ => "Keep it secret: it is the private key in another form.\n Clients take it from MINIO_KES_API_KEY.",
    };
    let value = out.paint(STRONG, value);
    Ok(write!(out, "\n {heading}\n\n    {value}\n\n {explanation}\n\n")?)
}

fn subject(argument: &str) -> anyhow::Result<Subject> {
    match read(argument)? {
        Given::Identity(identity) => Ok(Subject::Identity(identity)),
        Given::PrivateKey(key, path) => {
            let PrivateKeyDer::Pkcs8(pkcs8) = &key else { bail!("{}", unsupported(&path)) };
            let key = ApiKey::from_pkcs8(pkcs8.secret_pkcs8_der()).map(Subject::Key);
            key.with_context(|| unsupported(&path))
        }
    }
}

fn unsupported(path: &Path) -> String {
    format!("'{}' holds a private key that cannot be an API key: only Ed25519 keys can", path.display())
}

/// Whose an API key is, or a file with one, with a certificate or with a private key; '-' is standard input.
pub(super) fn identity_of(argument: &str) -> anyhow::Result<Identity> {
    match read(argument)? {
        Given::Identity(identity) => Ok(identity),
        Given::PrivateKey(key, path) => {
            let pair = KeyPair::try_from(&key);
            let pair =
                pair.ok().with_context(|| format!("'{}' holds a private key of an unknown kind", path.display()))?;
            Ok(Identity::of_public_key(&pair.subject_public_key_info()))
        }
    }
}

/// What somebody gave us to know an identity by.
enum Given {
    /// An API key or a certificate: no more than its identity is wanted.
    Identity(Identity),
    /// A private key, and the file that holds it.
    PrivateKey(PrivateKeyDer<'static>, PathBuf),
}

fn read(argument: &str) -> anyhow::Result<Given> {
    match ApiKey::parse(argument) {
        Ok(key) => return Ok(Given::Identity(key.identity())),
        Err(error) if argument.starts_with(api_key::HEADER) => return Err(error.into()),
        Err(_) => {}
    }
    let path = Path::new(argument);
    let file = input::read(path)?;
    if let Some(key) = std::str::from_utf8(&file).ok().and_then(|text| ApiKey::parse(text.trim()).ok()) {
        return Ok(Given::Identity(key.identity()));
    }
    match pem::certificates(&file) {
        Err(pem::Error::NoCertificate) => Ok(Given::PrivateKey(input::private_key_in(&file, path)?, path.to_owned())),
        certificates => identity_in(certificates, path).map(Given::Identity),
    }
}

fn identity_in(
    certificates: Result<Vec<rustls::pki_types::CertificateDer<'static>>, pem::Error>,
    path: &Path,
) -> anyhow::Result<Identity> {
    let place = || format!("failed to load the certificate '{}'", path.display());
    let certificates = certificates.with_context(place)?;
    let leaf = certificates.first().context("there is no certificate").with_context(place)?;
    Ok(Certificate::parse(leaf).with_context(place)?.identity())
}

fn of(args: &SecretString, out: &mut Out) -> anyhow::Result<()> {
    let identity = identity_of(args.expose_secret())?;
    if !out.is_terminal() {
        out.write_all(identity.as_str().as_bytes())?;
        return Ok(());
    }
    let identity = out.paint(STRONG, identity);
    Ok(write!(out, "Identity:\n\n   {identity}\n")?)
}

/// What a server knows of an identity.
#[derive(Debug, Serialize)]
struct Description {
    identity: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    admin: bool,
    #[serde(with = "crate::api::wire::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_by: Option<String>,
}

async fn info(args: Info, out: &mut Out) -> anyhow::Result<()> {
    let client = args.connection.client()?;
    let described = match &args.identity {
        Some(identity) => describe(&client, identity).await,
        None => describe_self(&client).await,
    };
    let whose = args.identity.as_deref().or(client.identity().map(Identity::as_str)).unwrap_or_default();
    let description = described.with_context(|| format!("failed to describe identity {}", printable(whose)))?;
    if args.json {
        return Ok(out.json(&description)?);
    }
    Ok(print(&description, out)?)
}

async fn describe(client: &Client, identity: &str) -> Result<Description, client::Error> {
    let described = client.describe_identity(identity).await?;
    Ok(Description {
        identity: identity.to_owned(),
        policy: described.policy,
        admin: described.admin,
        created_at: described.created_at,
        created_by: described.created_by,
    })
}

/// Archived servers answer this only for admins. For others, ask by name; a policy must allow that.
async fn describe_self(client: &Client) -> Result<Description, client::Error> {
    let described = match (client.describe_self().await, client.identity()) {
        (Err(error), Some(identity)) if error.status() == Some(StatusCode::NOT_FOUND) => {
            return describe(client, identity.as_str()).await.map_err(|_| error);
        }
        (described, _) => described?,
    };
    Ok(Description {
        identity: described.identity,
        policy: described.policy.map(|policy| policy.name),
        admin: described.admin,
        created_at: described.created_at,
        created_by: described.created_by,
    })
}

fn print(description: &Description, out: &mut Out) -> io::Result<()> {
    let policy = description.policy.as_deref().map(|policy| out.paint(WARNING, printable(policy)).to_string());
    let created_by = description.created_by.as_deref().map(printable);
    let mut fields: Vec<(&str, &dyn Display)> = vec![("Identity", &description.identity)];
    if let Some(policy) = &policy {
        fields.push(("Policy", policy));
    }
    let created_at = moment(description.created_at);
    fields.push(("Created At", &created_at));
    fields.push(("Role", if description.admin { &"Admin" } else { &"User" }));
    if let Some(created_by) = &created_by {
        fields.push(("Created By", created_by));
    }
    out.fields(11, &fields)
}
