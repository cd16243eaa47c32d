//! Administrators whose private keys are public.

use anyhow::bail;

use super::environment;
use crate::auth::published::is_published;

/// Why a server must not start with this administrator (lower-case hex), if everybody knows the private key.
pub(super) fn refusal(admin: &str) -> Option<&'static str> {
    (is_published(admin) && !environment::allows_published_admin()).then_some(
        "everybody knows the private key of this identity: it is an example of a documentation, or of a test; \
         make a key with 'claviger identity new', and write its identity",
    )
}

/// Refuses an administrator (lower-case hex) whose private key everybody knows; `place` says who names it.
///
/// # Errors
/// When it is one.
pub(super) fn refuse(admin: &str, place: impl std::fmt::Display) -> anyhow::Result<()> {
    match refusal(admin) {
        Some(why) => bail!("{place}: {why}"),
        None => Ok(()),
    }
}
