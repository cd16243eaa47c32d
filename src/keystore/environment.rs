//! What clouds give their programs to log in with: environment variables, and files that those name. No other file of
//! `keystore` reads variables.

use std::path::PathBuf;

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::Error;

/// The value of a variable, unless it is unset or empty. Tests bring variables of their own.
pub type Variables<'a> = &'a (dyn Fn(&str) -> Option<String> + Sync);

/// A variable of this process.
#[expect(clippy::disallowed_methods, reason = "this is the keeper of what clouds put into the environment")]
pub fn of_process(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The text of a file that holds credentials. It is read at every login, because its owner renews it.
pub(super) async fn read(path: PathBuf) -> Result<SecretString, Error> {
    let read = tokio::task::spawn_blocking(move || {
        let text = std::fs::read_to_string(&path).map(Zeroizing::new);
        text.map(|text| SecretString::from(text.trim()))
            .map_err(|error| Error::Failed(format!("failed to read '{}': {error}", path.display()).into()))
    });
    read.await.unwrap_or_else(|error| Err(Error::Failed(error.into())))
}
