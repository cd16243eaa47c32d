//! Commands that manage the keys of an enclave, and encrypt and decrypt with them.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use prost::Message as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use super::connection::{InEnclave, prefix};
use super::json::Always;
use crate::cli::input;
use crate::cli::out::{Out, moment, printable};
use crate::cli::prompt::Consent;
use crate::client::Client;
use crate::client::kms::Commands;
use crate::crypto::base64;
use crate::crypto::handover::{Handed, Recipient};
use crate::kms::Action;
use crate::kms::transit::backup;
use crate::kms::wire::{
    CreateKeyRequest, DecryptRequest, DecryptResponse, DeleteKeyRequest, EncryptRequest, EncryptResponse,
    ExportKeysRequest, ExportKeysResponse, ExportedKeys, GenerateKeyRequest, GenerateKeyResponse, ImportKeyRequest,
    KeyStatus, KeyVersionRequest, ListKeysResponse, ListRequest, MacRequest, MacResponse,
};

/// Create, rotate or import a key
#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// The name of the key
    name: String,
    /// The key's algorithm: AES256 or ChaCha20 [default: the server chooses]
    #[arg(long = "type", value_name = "TYPE", default_value = "", hide_default_value = true)]
    kind: String,
    /// Add a version to an existing key: the new version encrypts, all versions decrypt
    #[arg(long, conflicts_with_all = ["import", "import_vault"])]
    version: bool,
    /// Import this key: base64 of 32 bytes, or '-' to read that from standard input
    #[arg(long, value_name = "BASE64")]
    import: Option<SecretString>,
    /// A transit key of a Vault, for the Vault-compatible API: what 'GET transit/backup/KEY' answers, or '-' to read that
    /// from standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["import", "kind"])]
    import_vault: Option<PathBuf>,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    connection: InEnclave,
}

/// Write a transit key in plain text, as a Vault takes it: only for system administrators
#[derive(Debug, clap::Args)]
pub(super) struct Export {
    /// The name of the key
    name: String,
    /// For whom: 'vault' writes the backup that 'POST transit/restore/KEY' of a Vault or an OpenBao takes
    #[arg(long = "as", value_name = "FORMAT", value_parser = ["vault"])]
    format: String,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    connection: InEnclave,
}

/// List keys
#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// List only names that begin with this text, a '*' at the end is optional; with '--versions' the name of a key
    #[arg(default_value = "", hide_default_value = true, value_parser = prefix)]
    prefix: String,
    /// List the versions of one key
    #[arg(long)]
    versions: bool,
    /// Write one JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: InEnclave,
}

/// Show the details of a key
#[derive(Debug, clap::Args)]
pub(super) struct Stat {
    /// The name of the key
    name: String,
    /// The version [default: the latest]
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    version: u32,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: InEnclave,
}

/// Delete versions of a key; what they encrypted can then never be decrypted
#[derive(Debug, clap::Args)]
pub(super) struct Remove {
    /// The name of the key
    name: String,
    /// The version; without it and '--all', a terminal is asked whether to delete the one in use
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,
    /// All versions
    #[arg(long, conflicts_with = "version")]
    all: bool,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    connection: InEnclave,
}

/// Make a data key: random bytes, in plaintext and encrypted
#[derive(Debug, clap::Args)]
pub(super) struct Keygen {
    /// The key that encrypts it
    name: String,
    /// Associated data that the ciphertext is bound to
    #[arg(default_value = "", hide_default_value = true)]
    associated_data: String,
    /// Its length in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 32)]
    length: u32,
    #[command(flatten)]
    _json: Always,
    #[command(flatten)]
    connection: InEnclave,
}

/// Encrypt a message
#[derive(Debug, clap::Args)]
pub(super) struct Encrypt {
    /// The key
    name: String,
    /// The message, or '-' to read it from standard input
    message: SecretString,
    /// Associated data that the ciphertext is bound to
    #[arg(default_value = "", hide_default_value = true)]
    associated_data: String,
    #[command(flatten)]
    _json: Always,
    #[command(flatten)]
    connection: InEnclave,
}

/// Decrypt a ciphertext
#[derive(Debug, clap::Args)]
pub(super) struct Decrypt {
    /// The key
    name: String,
    /// The ciphertext in base64, or '-' to read that from standard input
    ciphertext: String,
    /// Associated data that the ciphertext is bound to
    #[arg(default_value = "", hide_default_value = true)]
    associated_data: String,
    #[command(flatten)]
    _json: Always,
    #[command(flatten)]
    connection: InEnclave,
}

/// Compute the HMAC of a message
#[derive(Debug, clap::Args)]
pub(super) struct Mac {
    /// The key
    name: String,
    /// The message, or '-' to read it from standard input
    message: SecretString,
    #[command(flatten)]
    _json: Always,
    #[command(flatten)]
    connection: InEnclave,
}

pub(super) async fn add(args: Add) -> anyhow::Result<()> {
    let (client, enclave) = args.connection.client()?;
    let Add { name, kind, version: add_version, import, import_vault, consent, .. } = args;
    let failed = |what| format!("failed to {what} key \"{}\"", printable(&name));
    if let Some(file) = import_vault {
        let (_, key) = backup::parse(&input::read(&file)?).with_context(|| failed("import"))?;
        let done =
            client.change(&enclave, Commands::one(Action::KeyImport, &ImportKeyRequest::transit(name.clone(), key)));
        return done.await.with_context(|| failed("import"));
    }
    if let Some(key) = import {
        let key = input::base64(key.expose_secret(), "key")?.to_vec();
        let request = ImportKeyRequest::bare(name.clone(), kind, key);
        let done = client.change(&enclave, Commands::one(Action::KeyImport, &request)).await;
        return done.with_context(|| failed("import"));
    }
    if add_version {
        agree_to_leave_kes(&client, &enclave, &name, &consent).await?;
    }
    let request = CreateKeyRequest { name: name.clone(), kind, add_version };
    let done = client.change(&enclave, Commands::one(Action::KeyCreate, &request)).await;
    done.with_context(|| failed(if add_version { "rotate" } else { "create" }))
}

/// Until its first rotation a KES could serve a key as it is; afterwards it opens nothing that the new version encrypts.
/// Who rotates a key that clients of the KES API use is asked for its name.
async fn agree_to_leave_kes(client: &Client, enclave: &str, name: &str, consent: &Consent) -> anyhow::Result<()> {
    let request = KeyVersionRequest { name: name.to_owned(), version: 0 };
    // Who may rotate a key and not read its status is not asked. The rotation itself says what else is wrong.
    let status: Result<KeyStatus, _> = client.ask(enclave, Action::KeyStatus, &request).await;
    if !status.is_ok_and(|status| status.fits_a_kes) {
        return Ok(());
    }
    consent.insist_on(
        &format!(
            "Clients of the KES API use key \"{0}\", and this is its first rotation. A KES that takes this server's place \
             later cannot decrypt what the new version encrypts: there is no way back to a KES then.\n\
             To rotate it, type its name: ",
            printable(name)
        ),
        name,
    )
}

pub(super) async fn list(args: List, out: &mut Out) -> anyhow::Result<()> {
    ensure!(!args.versions || !args.prefix.is_empty(), "name the key whose versions to list");
    let (client, enclave) = args.connection.client()?;
    let action = if args.versions { Action::KeyListVersions } else { Action::KeyList };
    let mut keys = Vec::new();
    let mut request = ListRequest { prefix: args.prefix, ..ListRequest::default() };
    loop {
        let page: ListKeysResponse = client.ask(&enclave, action, &request).await.context("failed to list keys")?;
        keys.extend(page.keys);
        if page.continue_at.is_empty() {
            break;
        }
        request.continue_at = page.continue_at;
    }
    if args.versions {
        let numbers: Vec<_> = keys.iter().map(|key| key.version.to_string()).collect();
        return Ok(out.names("Version", "versions", &numbers, args.json)?);
    }
    let names: Vec<_> = keys.into_iter().map(|key| key.name).collect();
    Ok(out.names("Key", "keys", &names, args.json)?)
}

pub(super) async fn stat(args: Stat, out: &mut Out) -> anyhow::Result<()> {
    let (client, enclave) = args.connection.client()?;
    let request = KeyVersionRequest { name: args.name.clone(), version: args.version };
    let status = client.ask(&enclave, Action::KeyStatus, &request).await;
    let key: KeyStatus = status.with_context(|| format!("failed to get key \"{}\"", printable(&args.name)))?;
    if args.json {
        return Ok(out.json(&key)?);
    }
    let created_at = moment(key.created_at.unwrap_or_default().to_time());
    Ok(out.fields(
        10,
        &[
            ("Name", &printable(&key.name)),
            ("Version", &key.version),
            ("Type", &printable(&key.kind)),
            ("Created At", &created_at),
            ("Created By", &printable(&key.created_by)),
        ],
    )?)
}

pub(super) async fn remove(args: Remove, out: &mut Out) -> anyhow::Result<()> {
    let (client, enclave) = args.connection.client()?;
    let name = printable(&args.name);
    let failed = || format!("failed to remove key \"{name}\"");
    let (version, what) = match (args.all, args.version) {
        (true, _) => (0, format!("key \"{name}\" with all its versions")),
        (false, Some(version)) => (version, format!("version {version} of key \"{name}\"")),
        // The latest version is in use, so it is never the default.
        (false, None) => {
            ensure!(
                args.consent.must_be_asked_for(),
                "name what to delete: '--version NUMBER', or '--all' for the whole key"
            );
            let request = KeyVersionRequest { name: args.name.clone(), version: 0 };
            let latest: KeyStatus = client.ask(&enclave, Action::KeyStatus, &request).await.with_context(failed)?;
            (latest.version, format!("version {} of key \"{name}\", the one that is in use", latest.version))
        }
    };
    args.consent.ask(&format!("Delete {what}? What was encrypted with it can never be decrypted again."))?;
    let request = DeleteKeyRequest { name: args.name.clone(), version, all_versions: args.all };
    client.change(&enclave, Commands::one(Action::KeyDelete, &request)).await.with_context(failed)?;
    Ok(out.done(format_args!("Deleted {what}."))?)
}

/// The key arrives sealed to a key pair of this process, so that only its output holds it in plain text.
pub(super) async fn export(args: Export, out: &mut Out) -> anyhow::Result<()> {
    let (client, enclave) = args.connection.client()?;
    let name = printable(&args.name);
    args.consent
        .insist(&format!("Write key \"{name}\" in plain text? Whoever reads it can decrypt all that it encrypts."))?;
    let recipient = Recipient::generate()?;
    let request = ExportKeysRequest { names: vec![args.name.clone()], recipient: recipient.public().to_vec() };
    let exported = client.ask(&enclave, Action::KeyExport, &request).await;
    let ExportKeysResponse { encapsulated, sealed } =
        exported.with_context(|| format!("failed to export key \"{name}\""))?;
    let opened = recipient.open(Handed { encapsulated, sealed }, enclave.as_bytes()).ok();
    let keys =
        opened.and_then(|bytes| ExportedKeys::decode(bytes.as_slice()).ok()).context("the export cannot be read")?;
    let transit = keys.keys.first().and_then(|key| key.transit.as_ref());
    let transit = transit.with_context(|| format!("key \"{name}\" is not a transit key: no Vault can take it"))?;
    Ok(writeln!(out, "{}", *backup::write(&args.name, transit))?)
}

pub(super) async fn keygen(args: Keygen, out: &mut Out) -> anyhow::Result<()> {
    let (client, enclave) = args.connection.client()?;
    let request = GenerateKeyRequest {
        name: args.name.clone(),
        version: 0,
        associated_data: args.associated_data.into_bytes(),
        length: args.length,
    };
    let made = client.ask(&enclave, Action::KeyGenerate, &request).await;
    let made: GenerateKeyResponse =
        made.with_context(|| format!("failed to make a data key with \"{}\"", printable(&args.name)))?;
    Ok(out.json(&made)?)
}

pub(super) async fn encrypt(args: Encrypt, out: &mut Out) -> anyhow::Result<()> {
    let (client, enclave) = args.connection.client()?;
    let (plaintext, associated_data) = (message(&args.message)?, args.associated_data.into_bytes());
    let request = EncryptRequest { name: args.name.clone(), version: 0, plaintext, associated_data };
    let encrypted = client.ask(&enclave, Action::KeyEncrypt, &request).await;
    let encrypted: EncryptResponse =
        encrypted.with_context(|| format!("failed to encrypt with \"{}\"", printable(&args.name)))?;
    Ok(out.json(&encrypted)?)
}

pub(super) async fn decrypt(args: Decrypt, out: &mut Out) -> anyhow::Result<()> {
    let (client, enclave) = args.connection.client()?;
    let ciphertext = input::base64(&args.ciphertext, "ciphertext")?.to_vec();
    let associated_data = args.associated_data.into_bytes();
    let request = DecryptRequest { name: args.name.clone(), version: 0, ciphertext, associated_data };
    let decrypted = client.ask(&enclave, Action::KeyDecrypt, &request).await;
    let decrypted: DecryptResponse =
        decrypted.with_context(|| format!("failed to decrypt with \"{}\"", printable(&args.name)))?;
    Ok(out.json(&decrypted)?)
}

pub(super) async fn mac(args: Mac, out: &mut Out) -> anyhow::Result<()> {
    let (client, enclave) = args.connection.client()?;
    let request = MacRequest { name: args.name.clone(), version: 0, message: message(&args.message)? };
    let signed = client.ask(&enclave, Action::KeyMac, &request).await;
    let signed: MacResponse = signed.with_context(|| format!("failed to sign with \"{}\"", printable(&args.name)))?;
    Ok(out.json(&json!({ "version": signed.version, "mac": base64::encode(&signed.mac).as_str() }))?)
}

fn message(text: &SecretString) -> anyhow::Result<Vec<u8>> {
    match text.expose_secret() {
        "-" => Ok(input::read(std::path::Path::new("-"))?.to_vec()),
        text => Ok(text.as_bytes().to_vec()),
    }
}
