//! `claviger key encrypt`, `decrypt` and `dek`.

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use crate::api::wire::{DecryptRequest, EncryptRequest, GenerateRequest};
use crate::cli::connection::Connection;
use crate::cli::input;
use crate::cli::out::Out;
use crate::crypto::base64;
use crate::crypto::json::Bytes;

#[derive(Debug, clap::Args)]
pub(super) struct Encrypt {
    /// The key's name
    name: String,
    /// What to encrypt
    #[arg(required_unless_present = "message_file")]
    message: Option<SecretString>,
    /// Read what to encrypt from a file, '-' for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "message")]
    message_file: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, clap::Args)]
pub(super) struct Decrypt {
    /// The key's name
    name: String,
    /// The ciphertext in base64, or '-' to read that from standard input
    ciphertext: String,
    /// The context it was made with, in base64
    context: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, clap::Args)]
pub(super) struct Dek {
    /// The key's name
    name: String,
    /// The context that must be given again to decrypt, in base64
    context: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn encrypt(args: Encrypt, out: &mut Out) -> anyhow::Result<()> {
    let plaintext = match (args.message, args.message_file) {
        (_, Some(file)) => input::read(&file)?,
        (message, None) => Zeroizing::new(message.unwrap_or_default().expose_secret().as_bytes().to_vec()),
    };
    let client = args.connection.client()?;
    let request = EncryptRequest { plaintext: plaintext.into(), ..EncryptRequest::default() };
    let encrypted = client.encrypt(&args.name, &request).await.context("failed to encrypt message")?;
    Ok(print(out, &[("ciphertext", &encrypted.ciphertext)])?)
}

pub(super) async fn decrypt(args: Decrypt, out: &mut Out) -> anyhow::Result<()> {
    let ciphertext = input::base64(&args.ciphertext, "ciphertext")?.into();
    let request = DecryptRequest { ciphertext, context: context(args.context)?, version: None };
    let client = args.connection.client()?;
    let decrypted = client.decrypt(&args.name, &request).await.context("failed to decrypt ciphertext")?;
    Ok(print(out, &[("plaintext", &decrypted.plaintext)])?)
}

pub(super) async fn dek(args: Dek, out: &mut Out) -> anyhow::Result<()> {
    let request = GenerateRequest { context: context(args.context)?, version: None };
    let client = args.connection.client()?;
    let generated = client.generate(&args.name, &request).await.context("failed to derive key")?;
    Ok(print(out, &[("plaintext", &generated.plaintext), ("ciphertext", &generated.ciphertext)])?)
}

fn context(text: Option<String>) -> anyhow::Result<Bytes> {
    text.map_or_else(|| Ok(Bytes::default()), |text| Ok(input::base64(&text, "context")?.into()))
}

/// A JSON object for scripts, labelled lines for people. It may be secret, so nothing copies it.
fn print(out: &mut Out, fields: &[(&str, &Bytes)]) -> io::Result<()> {
    if out.is_terminal() {
        writeln!(out)?;
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
        return fields.iter().try_for_each(|(name, bytes)| {
            writeln!(out, "{:<width$} {}", format!("{name}:"), base64::encode(bytes).as_str())
        });
    }
    let mut separator = "{";
    for (name, bytes) in fields {
        write!(out, "{separator}\"{name}\":\"{}\"", base64::encode(bytes).as_str())?;
        separator = ",";
    }
    write!(out, "}}")
}
