//! The environment variables of the command line. No other file of `cli` reads any.

use std::ffi::OsString;
use std::path::PathBuf;

use secrecy::SecretString;

/// Servers.
pub(super) const SERVER: [&str; 3] = ["MINIO_KES_SERVER", "KES_SERVER", "MINIO_KMS_KES_ENDPOINT"];
/// An API key.
pub(super) const API_KEY: [&str; 3] = ["MINIO_KES_API_KEY", "KES_API_KEY", "MINIO_KMS_KES_API_KEY"];
/// A file with a private key.
pub(super) const KEY_FILE: [&str; 3] = ["MINIO_KES_KEY_FILE", "KES_CLIENT_KEY", "MINIO_KES_CLIENT_KEY"];
/// A file with a certificate.
pub(super) const CERT_FILE: [&str; 3] = ["MINIO_KES_CERT_FILE", "KES_CLIENT_CERT", "MINIO_KES_CLIENT_CERT"];
/// The password of an encrypted private key, where there is no terminal to ask on.
pub(super) const KEY_PASSWORD: &str = "CLAVIGER_KEY_PASSWORD";
/// A file with more authorities, beside the system's.
const SSL_CERT_FILE: &str = "SSL_CERT_FILE";

/// The key managers.
pub(super) const KMS_SERVER: &str = "MINIO_KMS_SERVER";
/// An enclave of theirs.
pub(super) const KMS_ENCLAVE: &str = "MINIO_KMS_ENCLAVE";
/// An API key of theirs.
pub(super) const KMS_API_KEY: &str = "MINIO_KMS_API_KEY";
/// The HSM key.
pub(super) const KMS_HSM_KEY: &str = "MINIO_KMS_HSM_KEY";

/// The value of a variable that is not secret, if it is set.
pub(super) fn text(name: &str) -> Option<String> {
    variable(name)?.into_string().ok()
}

/// The value of a secret variable, unless it is empty.
pub(super) fn secret(name: &str) -> Option<SecretString> {
    text(name).filter(|text| !text.is_empty()).map(SecretString::from)
}

/// The first of these variables that is set, with its name. An empty variable counts as set, and hides those after it.
pub(super) fn first(names: &[&'static str]) -> Option<(&'static str, OsString)> {
    names.iter().find_map(|name| variable(name).map(|value| (*name, value)))
}

/// The path in the first of these variables that is set, unless it is empty.
pub(super) fn path(names: &[&'static str]) -> Option<PathBuf> {
    first(names).map(|(_, value)| value).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The password of an encrypted private key.
pub(super) fn key_password() -> Option<SecretString> {
    variable(KEY_PASSWORD)?.into_string().ok().map(SecretString::from)
}

/// The file with authorities beside the system's.
pub(super) fn ssl_cert_file() -> Option<PathBuf> {
    path(&[SSL_CERT_FILE])
}

/// Whether a server may have an administrator whose private key everybody knows: for tests.
pub(super) fn allows_published_admin() -> bool {
    variable("CLAVIGER_ALLOW_PUBLISHED_ADMIN").is_some_and(|value| value == "1")
}

/// The line that a shell wants completed, and where its cursor is: set when the shell calls the program itself
/// (`complete -C`), as older versions of KES wrote into shell profiles.
pub(super) fn completion() -> Option<(String, usize)> {
    Some((text("COMP_LINE")?, text("COMP_POINT")?.parse().ok()?))
}

/// Whether the user, or the terminal, wants no colours.
pub(super) fn forbids_color() -> bool {
    variable("NO_COLOR").is_some_and(|value| !value.is_empty()) || variable("TERM").is_some_and(|term| term == "dumb")
}

#[expect(clippy::disallowed_methods, reason = "this is the keeper of the command line's environment")]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}
