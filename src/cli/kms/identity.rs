//! Commands about the identities of an enclave, and the identity of a given API key or certificate.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::connection::{InEnclave, prefix};
use crate::auth::certificate::Certificate;
use crate::auth::enclave::{ApiKey, Identity};
use crate::cli::environment::{self, KMS_HSM_KEY};
use crate::cli::identity::files::{self, OnConflict};
use crate::cli::input;
use crate::cli::out::{Out, moment, printable};
use crate::cli::prompt::Consent;
use crate::client::Client;
use crate::client::kms::Commands;
use crate::clock;
use crate::config::kms::Config;
use crate::crypto::pem;
use crate::kms::Action;
use crate::kms::seal::HsmKey;
use crate::kms::wire::{CreateIdentityRequest, IdentityRequest, IdentityResponse, ListIdentitiesResponse, ListRequest};

/// Make an API key, or show the identity of an existing key
///
/// For an HSM key it shows the administrator's API key, which is derived from it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An HSM key, an API key, or a file with a certificate; without it, a new API key is made
    #[arg(value_name = "HSM-KEY|KEY|FILE")]
    subject: Option<SecretString>,
    /// Write JSON
    #[arg(long)]
    json: bool,
    /// Write the private key to this file, as PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Write a certificate to this file
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Show the administrator, and the API key where it is derived from the HSM key in MINIO_KMS_HSM_KEY
    #[arg(long, conflicts_with_all = ["subject", "key"])]
    admin: bool,
    /// The config file of the server whose administrator is shown
    #[arg(long, value_name = "FILE", conflicts_with_all = ["subject", "key"])]
    config: Option<PathBuf>,
}

/// Add identities to an enclave
#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// The identities; without any, a new API key is made and printed
    #[arg(value_name = "IDENTITY")]
    identities: Vec<String>,
    /// Make them administrators of the enclave
    #[arg(long, conflicts_with = "service")]
    admin: bool,
    /// Make them service accounts of your identity: they have its rights, and are removed with it
    #[arg(long)]
    service: bool,
    /// Labels
    #[arg(long, value_name = "NAME=VALUE", value_parser = tag)]
    tag: Vec<(String, String)>,
    /// Write the new API key as JSON
    #[arg(long, conflicts_with = "identities")]
    json: bool,
    #[command(flatten)]
    connection: InEnclave,
}

/// List identities
#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// List only identities that begin with this text; a '*' at the end is optional
    #[arg(default_value = "", hide_default_value = true, value_parser = prefix)]
    prefix: String,
    /// Write one JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: InEnclave,
}

/// Show the details of an identity
#[derive(Debug, clap::Args)]
pub(super) struct Get {
    /// The identity [default: that of the API key]
    identity: Option<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: InEnclave,
}

/// Remove identities, and their service accounts
#[derive(Debug, clap::Args)]
pub(super) struct Remove {
    /// The identities
    #[arg(required = true, value_name = "IDENTITY")]
    identities: Vec<String>,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    connection: InEnclave,
}

fn tag(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write a tag as name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// An identity, and its API key where that is known.
#[derive(Serialize)]
struct Shown<'a> {
    identity: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<&'a str>,
}

pub(super) fn run(args: &Args, out: &mut Out) -> anyhow::Result<()> {
    if args.admin || args.config.is_some() {
        return show_admin(args.config.as_deref(), args.json, out);
    }
    let key = match &args.subject {
        None => ApiKey::generate()?,
        Some(subject) => match key_of(subject.expose_secret())? {
            Ok(key) => key,
            Err(identity) => return show(identity, None, args.json, out),
        },
    };
    if let Some((key_file, cert_file)) = args.key.as_deref().zip(args.cert.as_deref()) {
        write_files(&key, key_file, cert_file)?;
    }
    show(key.identity(), Some(key.expose()), args.json, out)
}

/// The key that a text is, or the identity of the certificate in the file that it names.
fn key_of(text: &str) -> anyhow::Result<Result<ApiKey, Identity>> {
    if text.starts_with("hsm:") {
        return Ok(Ok(HsmKey::parse(text)?.root_api_key()));
    }
    if text.starts_with("k1:") || text.starts_with("k2:") {
        return Ok(Ok(ApiKey::parse(text)?));
    }
    let path = Path::new(text);
    let place = || format!("failed to load the certificate '{}'", path.display());
    let certificates = pem::certificates(&input::read(path)?).with_context(place)?;
    let leaf = certificates.first().context("there is no certificate").with_context(place)?;
    Ok(Err(Identity::of_public_key(Certificate::parse(leaf).with_context(place)?.public_key_info())))
}

fn show_admin(config: Option<&Path>, json: bool, out: &mut Out) -> anyhow::Result<()> {
    if let Some(identity) = config.map(Config::load).transpose()?.and_then(|(config, _)| config.admin.identity) {
        return show(identity, None, json, out);
    }
    let Some(key) = environment::secret(KMS_HSM_KEY) else {
        bail!("{KMS_HSM_KEY} is not set, and no config names an 'admin.identity': there is no administrator to show");
    };
    let key = HsmKey::parse(key.expose_secret())?.root_api_key();
    show(key.identity(), Some(key.expose()), json, out)
}

fn show(identity: Identity, api_key: Option<&str>, json: bool, out: &mut Out) -> anyhow::Result<()> {
    let identity = identity.to_string();
    if json {
        return Ok(out.json(&Shown { identity, api_key })?);
    }
    let mut fields: Vec<(&str, &dyn std::fmt::Display)> = Vec::new();
    if let Some(key) = &api_key {
        fields.push(("API key", key));
    }
    fields.push(("Identity", &identity));
    Ok(out.fields(8, &fields)?)
}

fn write_files(key: &ApiKey, key_file: &Path, cert_file: &Path) -> anyhow::Result<()> {
    let certificate = key.certificate(clock::now()).context("failed to make the certificate")?;
    let certificate = ::pem::Pem::new("CERTIFICATE", certificate.to_vec());
    let config = ::pem::EncodeConfig::new().set_line_ending(::pem::LineEnding::LF);
    let private = pem::pkcs8(key.private_key().secret_der());
    files::write(key_file, 0o600, private.as_bytes(), OnConflict::Fail)?;
    files::write(cert_file, 0o644, ::pem::encode_config(&certificate, config).as_bytes(), OnConflict::Fail)
}

pub(super) async fn add(args: Add, out: &mut Out) -> anyhow::Result<()> {
    let (client, enclave) = args.connection.client()?;
    let made = if args.identities.is_empty() { Some(ApiKey::generate()?) } else { None };
    let new = made.iter().map(|key| key.identity().to_string());
    let privilege = if args.admin { "Admin" } else { "User" };
    let tags: BTreeMap<_, _> = args.tag.into_iter().collect();
    let mut commands = Commands::default();
    for identity in args.identities.into_iter().chain(new) {
        let (privilege, tags) = (privilege.to_owned(), tags.clone());
        let request = CreateIdentityRequest { identity, privilege, is_service_account: args.service, tags };
        commands = commands.and(Action::IdentityCreate, &request);
    }
    client.change(&enclave, commands).await.context("failed to add the identity")?;
    made.map_or(Ok(()), |key| show(key.identity(), Some(key.expose()), args.json, out))
}

pub(super) async fn list(args: List, out: &mut Out) -> anyhow::Result<()> {
    let (client, enclave) = args.connection.client()?;
    let mut names = Vec::new();
    let mut request = ListRequest { prefix: args.prefix, ..ListRequest::default() };
    loop {
        let page: ListIdentitiesResponse =
            client.ask(&enclave, Action::IdentityList, &request).await.context("failed to list identities")?;
        names.extend(page.identities.into_iter().map(|identity| identity.identity));
        if page.continue_at.is_empty() {
            return Ok(out.names("Identity", "identities", &names, args.json)?);
        }
        request.continue_at = page.continue_at;
    }
}

pub(super) async fn get(args: Get, out: &mut Out) -> anyhow::Result<()> {
    let (client, enclave) = args.connection.client()?;
    let identity = args.identity.or_else(|| own(&client)).unwrap_or_default();
    let known = client.ask(&enclave, Action::IdentityStatus, &IdentityRequest { identity: identity.clone() }).await;
    let known: IdentityResponse = known.with_context(|| format!("failed to get identity {}", printable(&identity)))?;
    if args.json { Ok(out.json(&known)?) } else { Ok(print(&known, out)?) }
}

/// The identity that a client acts as.
fn own(client: &Client) -> Option<String> {
    client.identity().and_then(Identity::of).map(|identity| identity.to_string())
}

fn print(known: &IdentityResponse, out: &mut Out) -> std::io::Result<()> {
    let privilege = ["", "SysAdmin", "Admin", "User"].get(known.privilege as usize).copied().unwrap_or_default();
    out.fields(10, &[("Identity", &printable(&known.identity)), ("Privilege", &privilege)])?;
    if !known.policy.is_empty() {
        out.fields(10, &[("Policy", &printable(&known.policy))])?;
    }
    if let Some(created_at) = known.created_at {
        out.fields(
            10,
            &[("Created At", &moment(created_at.to_time())), ("Created By", &printable(&known.created_by))],
        )?;
    }
    for account in &known.service_accounts {
        out.fields(10, &[("Service", &printable(account))])?;
    }
    known
        .tags
        .iter()
        .try_for_each(|(name, value)| writeln!(out, "{:<10} {}={}", "Tag", printable(name), printable(value)))
}

pub(super) async fn remove(args: Remove, out: &mut Out) -> anyhow::Result<()> {
    let (client, enclave) = args.connection.client()?;
    if let Some(own) = own(&client).filter(|own| args.identities.contains(own)) {
        args.consent
            .ask(&format!("Remove {own}? This command acts as that identity, which then has no rights here."))?;
    }
    for identity in args.identities {
        let request = IdentityRequest { identity: identity.clone() };
        let done = client.change(&enclave, Commands::one(Action::IdentityDelete, &request)).await;
        done.with_context(|| format!("failed to remove identity {}", printable(&identity)))?;
        out.done(format_args!("Removed identity {} and its service accounts.", printable(&identity)))?;
    }
    Ok(())
}
