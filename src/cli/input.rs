//! Input of commands other than arguments: files, standard input, and answers on a terminal.

use std::io::{self, Read as _};
use std::path::Path;

use anyhow::Context as _;
use rustls::pki_types::PrivateKeyDer;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::{environment, prompt, report};
use crate::crypto::buffer::Buffer;
use crate::crypto::{base64, pem};

/// The most that is read from a file or standard input, in bytes. No request may be that large.
const MAX: u64 = 4 * 1024 * 1024;

/// Reads a file, or standard input where the path is `-`. The content may be secret.
pub(super) fn read(path: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    if path.as_os_str() == "-" {
        return read_from(io::stdin().lock()).context("failed to read standard input");
    }
    let file = std::fs::File::open(path);
    file.and_then(read_from).with_context(|| format!("failed to read '{}'", path.display()))
}

fn read_from(reader: impl io::Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Buffer::with_capacity(64 * 1024);
    let mut reader = reader.take(MAX + 1);
    let mut chunk = Zeroizing::new([0; 16 * 1024]);
    loop {
        let len = match reader.read(&mut *chunk) {
            Ok(0) => break,
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        bytes.extend(&chunk[..len]);
    }
    if bytes.len() as u64 > MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {MAX} bytes")));
    }
    Ok(bytes.into_inner())
}

/// Reads text that is secret, without the line feed at its end.
pub(super) fn read_line(path: &Path) -> anyhow::Result<SecretString> {
    let bytes = read(path)?;
    let text = std::str::from_utf8(&bytes).ok().with_context(|| format!("'{}' holds no text", path.display()))?;
    Ok(SecretString::from(text.trim_end_matches(['\r', '\n'])))
}

/// Decodes base64 given as an argument, or read from standard input where that is `-`.
pub(super) fn base64(text: &str, what: &str) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let text = match text {
        "-" => read_line(Path::new("-"))?,
        text => SecretString::from(text),
    };
    base64::decode(text.expose_secret().as_bytes())
        .with_context(|| format!("the {what} is not base64; encode it with 'base64 -w0', padding included"))
}

/// Loads a private key; asks for its password where it is encrypted.
pub(super) fn private_key(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    private_key_in(&read(path)?, path)
}

/// The private key in a file that has been read.
pub(super) fn private_key_in(file: &[u8], path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    let place = || format!("failed to load the private key '{}'", path.display());
    match pem::private_key(file, None) {
        Err(pem::Error::PasswordNeeded) => {
            let password = password(&format!("Password of '{}': ", path.display())).with_context(place)?;
            pem::private_key(file, Some(&password)).with_context(place)
        }
        key => key.with_context(place),
    }
}

/// A new password for a private key, asked for twice.
pub(super) fn new_password(path: &Path) -> anyhow::Result<SecretString> {
    if let Some(password) = environment::key_password() {
        return Ok(password);
    }
    let first = password(&format!("Password for '{}': ", path.display()))?;
    let second = password("The same again: ")?;
    // No constant-time comparison needed: both come from the person who could measure it.
    anyhow::ensure!(first.expose_secret() == second.expose_secret(), "the passwords are not the same");
    Ok(first)
}

fn password(question: &str) -> anyhow::Result<SecretString> {
    match environment::key_password() {
        Some(password) => Ok(password),
        None => prompt::password(question).with_context(report::no_password),
    }
}
