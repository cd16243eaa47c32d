//! The token: one task gets, renews and replaces it; requests borrow it.
//!
//! When many requests find that the token is no longer valid, there is still only one login. After a failed login the
//! task waits before it tries again, so that there are no login storms.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::api::Auth;
use super::login::Login;
use crate::keystore::Error;
use crate::telemetry::log;

/// The shortest and the longest wait after a failed login.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// How often a lasting failure is logged.
const SILENCE: Duration = Duration::from_secs(60);

/// A token that is refused sooner than this after the login counts as a failed login.
const TOO_SOON: Duration = Duration::from_secs(5);

/// The longest lease that is believed: what is longer cannot be added to a moment. It is more than any token lasts.
const LONGEST_LEASE: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// A token, and its number.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) secret: SecretString,
    number: u64,
    since: Instant,
}

#[derive(Debug, Clone)]
enum State {
    /// The first login is under way.
    Pending,
    Valid(Arc<Token>),
    /// The last login failed; the next one will come.
    Failed(Arc<Error>),
}

/// A session with the server.
#[derive(Debug)]
pub(super) struct Session {
    state: watch::Receiver<State>,
    /// The number of the latest token that was found invalid.
    stale: watch::Sender<u64>,
    _keeper: AbortOnDropHandle<()>,
}

impl Session {
    /// Starts a session: logs in, and keeps a valid token as long as the session exists.
    pub(super) fn begin(login: Login) -> Self {
        let (publish, state) = watch::channel(State::Pending);
        let (stale, told) = watch::channel(0);
        let keeper = Keeper { login, publish, stale: told, number: 0, good_until: None, said: None };
        Self { state, stale, _keeper: AbortOnDropHandle::new(tokio::spawn(keeper.keep())) }
    }

    /// The token to use now.
    pub(super) async fn token(&self) -> Result<Arc<Token>, Error> {
        self.wait(0).await
    }

    /// A token to use instead of `token`, which the server refuses.
    pub(super) async fn replace(&self, token: &Token) -> Result<Arc<Token>, Error> {
        self.stale.send_if_modified(|stale| {
            let newer = *stale < token.number;
            *stale = token.number.max(*stale);
            newer
        });
        self.wait(token.number).await
    }

    /// The age of the token in use.
    pub(super) fn age(&self) -> Option<Duration> {
        match &*self.state.borrow() {
            State::Valid(token) => Some(token.since.elapsed()),
            _ => None,
        }
    }

    async fn wait(&self, after: u64) -> Result<Arc<Token>, Error> {
        let mut state = self.state.clone();
        let decided = state.wait_for(|state| match state {
            State::Pending => false,
            State::Valid(token) => token.number > after,
            State::Failed(_) => true,
        });
        match decided.await.as_deref() {
            Ok(State::Valid(token)) => Ok(token.clone()),
            Ok(State::Failed(error)) => Err(shared(error)),
            Ok(State::Pending) | Err(_) => Err(Error::Failed("the session with the key store has ended".into())),
        }
    }
}

/// The same failure for everybody who waits for a login.
fn shared(error: &Arc<Error>) -> Error {
    let cause = format!("no token: {}", log::causes(&**error)).into();
    match &**error {
        Error::Unreachable(_) => Error::Unreachable(cause),
        _ => Error::Failed(cause),
    }
}

/// Why a token must be replaced.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// The server refuses it.
    Refused,
    /// It expires soon.
    Due,
}

struct Keeper {
    login: Login,
    publish: watch::Sender<State>,
    stale: watch::Receiver<u64>,
    /// The token in use.
    number: u64,
    /// When it expires, as far as the server has said.
    good_until: Option<Instant>,
    /// The last failure that was logged, and when.
    said: Option<(String, Instant)>,
}

impl Keeper {
    async fn keep(mut self) {
        let mut pause = BACKOFF.0;
        loop {
            match self.login.login().await {
                Ok(auth) => {
                    let began = Instant::now();
                    if self.hold(auth).await == Ended::Due || began.elapsed() > TOO_SOON {
                        (pause, self.said) = (BACKOFF.0, None);
                        continue;
                    }
                    // A single failure is not worth a log line.
                    if pause > BACKOFF.0 {
                        self.fail(self.login.refused());
                    }
                }
                Err(error) => self.fail(error),
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(BACKOFF.1);
        }
    }

    fn fail(&mut self, error: Error) {
        let cause = log::causes(&error);
        if self.said.as_ref().is_none_or(|(said, when)| *said != cause || when.elapsed() > SILENCE) {
            tracing::warn!(cause, endpoint = self.login.api.endpoint(), "login to the key store failed");
            self.said = Some((cause, Instant::now()));
        }
        if !self.has_good_token() {
            self.publish.send_replace(State::Failed(Arc::new(error)));
        }
    }

    /// Whether the previous token is still valid. Then a failed login does no harm yet.
    fn has_good_token(&self) -> bool {
        self.number > *self.stale.borrow() && self.good_until.is_some_and(|until| Instant::now() < until)
    }

    /// Publishes a token, and renews it as long as the server extends it.
    async fn hold(&mut self, auth: Auth) -> Ended {
        self.number += 1;
        let token = Arc::new(Token { secret: auth.client_token, number: self.number, since: Instant::now() });
        self.publish.send_replace(State::Valid(token.clone()));
        let granted = lease_of(auth.lease_duration);
        let (mut lease, mut renewable) = (granted, auth.renewable);
        loop {
            self.good_until = (!lease.is_zero()).then(|| Instant::now() + lease);
            if self.is_stale_within(renew_after(lease)).await {
                return Ended::Refused;
            }
            if !renewable {
                return Ended::Due;
            }
            match self.login.renew(&token.secret).await {
                // Close to its maximum lifetime a renewal grants less and less: then get a new token.
                Ok(auth) if lease_of(auth.lease_duration) * 2 >= granted => {
                    lease = lease_of(auth.lease_duration);
                    renewable = auth.renewable;
                }
                _ => return Ended::Due,
            }
        }
    }

    /// Waits until the token must be renewed (false) or was found invalid (true).
    async fn is_stale_within(&mut self, time: Option<Duration>) -> bool {
        let number = self.number;
        let told = self.stale.wait_for(|stale| *stale >= number);
        match time {
            Some(time) => tokio::time::timeout(time, told).await.is_ok(),
            None => told.await.is_ok(),
        }
    }
}

/// How long a token lasts, as the server says.
fn lease_of(seconds: u64) -> Duration {
    Duration::from_secs(seconds).min(LONGEST_LEASE)
}

/// When to renew a token that lasts for `lease`; none: never, because it does not expire.
fn renew_after(lease: Duration) -> Option<Duration> {
    (!lease.is_zero()).then(|| (lease * 2 / 3).max(BACKOFF.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_of_any_length_can_be_counted_with() {
        for (seconds, lease) in [(0, 0), (3_600, 3_600), (u64::MAX, LONGEST_LEASE.as_secs())] {
            let lease = Duration::from_secs(lease);
            assert_eq!(lease_of(seconds), lease);
            assert!(Instant::now().checked_add(lease).is_some() && lease.checked_mul(2).is_some());
            assert_eq!(renew_after(lease).is_none(), lease.is_zero());
        }
    }
}
