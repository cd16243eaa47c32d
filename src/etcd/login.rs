//! The token of a user: one login at a time, however many calls wait for it.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Credentials;
use super::error::{Error, Trouble};
use super::message::AuthenticateRequest;

/// A token; none inside: etcd knows no users, so nobody needs one.
#[derive(Debug)]
pub(super) struct Token(Option<SecretString>);

impl Token {
    pub(super) fn text(&self) -> Option<&SecretString> {
        self.0.as_ref()
    }
}

/// Logs a user in, again when the token is refused. Tokens end when they are not used, and with the member that gave them.
#[derive(Debug)]
pub(super) struct Login {
    credentials: Credentials,
    token: ArcSwapOption<Token>,
    /// Held by whoever logs in.
    turn: Semaphore,
    /// When the last login failed, and how. Those who waited for it share the failure.
    failed: Mutex<Option<(Instant, Arc<Error>)>>,
}

impl Login {
    pub(super) fn new(credentials: Credentials) -> Self {
        Self { credentials, token: ArcSwapOption::empty(), turn: Semaphore::new(1), failed: Mutex::default() }
    }

    /// The token in use; a new one when there is none, or when it is the `refused` one.
    pub(super) async fn token<F>(
        &self,
        refused: Option<&Arc<Token>>,
        authenticate: impl FnOnce(AuthenticateRequest) -> F,
    ) -> Result<Arc<Token>, Error>
    where
        F: Future<Output = Result<Option<SecretString>, Error>>,
    {
        if let Some(token) = self.usable(refused) {
            return Ok(token);
        }
        let asked = Instant::now();
        let _turn = self.turn.acquire().await.expect("it is never closed");
        // Meanwhile somebody else may have tried.
        if let Some(token) = self.usable(refused) {
            return Ok(token);
        }
        if let Some((when, error)) = &*self.failed.lock().unwrap_or_else(PoisonError::into_inner)
            && *when >= asked
        {
            return Err(same(error));
        }
        let Credentials { username, password } = &self.credentials;
        let request = AuthenticateRequest { name: username.clone(), password: password.expose_secret().to_owned() };
        match authenticate(request).await {
            Ok(secret) => {
                let token = Arc::new(Token(secret));
                self.token.store(Some(token.clone()));
                Ok(token)
            }
            Err(error) => {
                let error = Arc::new(error);
                let failed = Some((Instant::now(), error.clone()));
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed;
                Err(same(&error))
            }
        }
    }

    fn usable(&self, refused: Option<&Arc<Token>>) -> Option<Arc<Token>> {
        let token = self.token.load_full()?;
        (!refused.is_some_and(|refused| Arc::ptr_eq(refused, &token))).then_some(token)
    }
}

/// The same failure for everybody who waits for a login.
fn same(error: &Error) -> Error {
    let copy = |trouble: &Trouble| Trouble {
        call: trouble.call,
        endpoint: trouble.endpoint.clone(),
        what: trouble.what.clone(),
    };
    match error {
        Error::Unreachable(trouble) => Error::Unreachable(copy(trouble)),
        Error::Denied(trouble)
        | Error::Compacted(trouble)
        | Error::Future(trouble)
        | Error::NoLease(trouble)
        | Error::Failed(trouble) => Error::Failed(copy(trouble)),
    }
}
