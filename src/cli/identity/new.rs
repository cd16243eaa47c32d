//! `claviger identity new`: makes an API key, and where asked files with its private key and certificate.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustls::pki_types::CertificateDer;
use serde::Serialize;

use super::files::{self, OnConflict};
use crate::auth::api_key::{ApiKey, Subject};
use crate::cli::input;
use crate::cli::out::{Out, STRONG};
use crate::crypto::pem;
use crate::{clock, duration};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The name in the certificate; the identity, when left out
    subject: Option<String>,
    /// Write the private key to this file
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Write the certificate to this file
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// An address of the server that is to have the certificate
    #[arg(long, value_delimiter = ',', requires = "key")]
    ip: Vec<IpAddr>,
    /// A DNS name of the server that is to have the certificate
    #[arg(long, value_name = "NAME", value_delimiter = ',', requires = "key")]
    dns: Vec<String>,
    /// How long the certificate is valid, such as 720h, 30d or 1y [default: 30d; with --ip or --dns 1y]
    #[arg(long, value_name = "TIME", value_parser = expiry, requires = "key")]
    expiry: Option<time::Duration>,
    /// Encrypt the private key with a password
    #[arg(long, requires = "key")]
    encrypt: bool,
    /// Replace files that exist
    #[arg(short, long, requires = "key")]
    force: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// How long a client's certificate is valid, unless somebody says otherwise.
const CLIENT: time::Duration = time::Duration::days(30);
/// The same of a server's, which is renewed less easily.
const SERVER: time::Duration = time::Duration::days(365);

fn expiry(text: &str) -> Result<time::Duration, String> {
    let expiry = match days(text) {
        Some(expiry) => expiry,
        None => {
            let expiry = duration::parse(text).map_err(|error| match error {
                duration::Error::Malformed | duration::Error::NoUnit => {
                    "write a time like '1y', '30d' or '720h'".to_owned()
                }
                error => error.to_string(),
            })?;
            time::Duration::try_from(expiry).map_err(|_| "the duration is too long".to_owned())?
        }
    };
    // Certificates count seconds, and end in the year 9999.
    match expiry.whole_seconds() {
        1..=100_000_000_000 => Ok(expiry),
        _ => Err("a certificate is valid for at least a second and at most 3,000 years".to_owned()),
    }
}

/// A whole number of days or years. A year has 365 days.
fn days(text: &str) -> Option<time::Duration> {
    let (number, days) = match text.strip_suffix('d') {
        Some(number) => (number, 1),
        None => (text.strip_suffix('y')?, 365),
    };
    Some(time::Duration::days(i64::from(number.parse::<u32>().ok()?) * days))
}

pub(super) fn run(args: Args, out: &mut Out) -> anyhow::Result<()> {
    let key = ApiKey::generate()?;
    let files = args.key.as_deref().zip(args.cert.as_deref());
    if let Some((key_file, cert_file)) = files {
        write_files(&args, &key, key_file, cert_file)?;
    }
    // With an encrypted key file, do not print the key either.
    let text = (!args.encrypt).then(|| key.expose());
    let text = text.as_ref().map(|text| text.as_str());
    let identity = key.identity();
    if args.json {
        return Ok(out.json(&Made { identity: identity.as_str(), api_key: text, key: args.key, cert: args.cert })?);
    }
    print(out, text, identity.as_str(), files)
}

#[derive(Serialize)]
struct Made<'a> {
    identity: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cert: Option<PathBuf>,
}

fn write_files(args: &Args, key: &ApiKey, key_file: &Path, cert_file: &Path) -> anyhow::Result<()> {
    let on_conflict = if args.force { OnConflict::Replace } else { OnConflict::Fail };
    for (what, file) in [("private key", key_file), ("certificate", cert_file)] {
        if on_conflict == OnConflict::Fail && file.symlink_metadata().is_ok() {
            bail!("the {what} '{}' exists already; use --force to replace it", file.display());
        }
    }
    let subject = Subject {
        common_name: args.subject.clone().unwrap_or_default(),
        dns: args.dns.clone(),
        ip: args.ip.clone(),
        valid: args.expiry.unwrap_or(if args.ip.is_empty() && args.dns.is_empty() { CLIENT } else { SERVER }),
    };
    let certificate = key.certificate_for(&subject, clock::now()).context("failed to make the certificate")?;
    let certificate = pem(&certificate);
    let der = key.private_key();
    let private = match args.encrypt {
        true => pem::encrypted_pkcs8(der.secret_der(), &input::new_password(key_file)?)?,
        false => pem::pkcs8(der.secret_der()),
    };
    files::write(key_file, 0o600, private.as_bytes(), on_conflict)?;
    files::write(cert_file, 0o644, certificate.as_bytes(), on_conflict)
}

/// A certificate as PEM.
pub(in crate::cli) fn pem(certificate: &CertificateDer<'_>) -> String {
    let certificate = ::pem::Pem::new("CERTIFICATE", certificate.to_vec());
    ::pem::encode_config(&certificate, ::pem::EncodeConfig::new().set_line_ending(::pem::LineEnding::LF))
}

fn print(out: &mut Out, key: Option<&str>, identity: &str, files: Option<(&Path, &Path)>) -> anyhow::Result<()> {
    let program = out.program();
    if let Some(key) = key {
        let key = out.paint(STRONG, key);
        write!(
            out,
            "Your API key:\n\n   {key}\n\nThis is the only time it is shown. Keep it secret, and keep it.\n\n"
        )?;
    }
    let shown = out.paint(STRONG, identity);
    write!(
        out,
        "Your Identity:\n\n   {shown}\n\nThe identity is no secret: give it to the policies\nof a server that is to know you.\n\n"
    )?;
    if let Some((key, cert)) = files {
        writeln!(out, "The generated TLS private key is stored at: {}", key.display())?;
        writeln!(out, "The generated TLS certificate is stored at: {}\n", cert.display())?;
    }
    write!(out, "To see the identity again:\n\n")?;
    if let Some(key) = key {
        writeln!(out, "    {program} identity of {key}")?;
    }
    match files {
        Some((_, cert)) => writeln!(out, "    {program} identity of {}", cert.display())?,
        None => writeln!(out)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_years_are_understood() {
        for (text, hours) in [("720h", 720), ("30d", 720), ("1y", 8_760), ("2h30m", 2), ("0001d", 24)] {
            assert_eq!(expiry(text).map(|expiry| expiry.whole_hours()), Ok(hours), "{text}");
        }
        for text in ["", "5", "d", "-1d", "1.5y", "0d", "4294967295y", "99999999999d", "1w", "1d2h"] {
            assert!(expiry(text).is_err(), "{text}");
        }
    }
}
