//! Tokens of services that want one with every request.
//!
//! However many requests need a token, there is one login at a time. A token is renewed after two thirds of its life,
//! while requests go on with the old one. After a failed login, and after a token that was refused as soon as it was
//! there, the next login waits.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The first and the longest pause before the next login.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// A token that is refused sooner than this counts as a failed login.
const TOO_SOON: Duration = Duration::from_secs(5);

/// The longest life that is believed: what is longer cannot be added to a moment.
const LONGEST_LIFE: Duration = Duration::from_secs(365 * 24 * 3_600);

/// A way to get tokens.
#[async_trait]
pub trait Login: Send + Sync + 'static {
    /// Gets a token. `old` is the one in use, if it is still valid: some services extend it.
    async fn log_in(&self, old: Option<&SecretString>) -> Result<Grant, Failure>;
}

/// What a login gives.
#[derive(Debug)]
pub struct Grant {
    /// The token.
    pub secret: SecretString,
    /// How long it is valid.
    pub life: Duration,
}

/// Why there is no token. Every request that waits for it gets the same answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no token: {cause}")]
pub struct Failure {
    /// Whether it may pass by itself.
    pub may_pass: bool,
    /// What happened, without secrets.
    pub cause: String,
}

/// A token in use.
pub struct Token {
    /// What requests show.
    pub secret: SecretString,
    number: u64,
    since: Instant,
    renew: Instant,
    end: Instant,
}

/// The token of one service, for all requests. Cheap to clone.
#[derive(Clone)]
pub struct Session(Arc<Shared>);

struct Shared {
    login: Box<dyn Login>,
    state: watch::Sender<State>,
    longest_pause: Duration,
}

struct State {
    token: Option<Arc<Token>>,
    /// How many tokens there were.
    count: u64,
    /// Whether a login is under way.
    is_running: bool,
    /// Why the last login gave nothing.
    failure: Option<Failure>,
    /// When the next login may begin.
    next: Instant,
    /// How long the login after a failure waits.
    pause: Duration,
    /// Whether the last token was refused too soon.
    is_doubted: bool,
}

impl Session {
    /// A session that logs in when it is first asked for a token.
    pub fn new(login: impl Login) -> Self {
        Self::with_pause(login, PAUSE.1)
    }

    /// The same, with another longest pause after failed logins.
    pub fn with_pause(login: impl Login, longest_pause: Duration) -> Self {
        let state = State {
            token: None,
            count: 0,
            is_running: false,
            failure: None,
            next: Instant::now(),
            pause: PAUSE.0.min(longest_pause),
            is_doubted: false,
        };
        Self(Arc::new(Shared { login: Box::new(login), state: watch::Sender::new(state), longest_pause }))
    }

    /// The token to use now.
    pub async fn token(&self) -> Result<Arc<Token>, Failure> {
        let mut state = self.0.state.subscribe();
        let begins = self.0.state.send_if_modified(|state| {
            let begins = state.wants_login(Instant::now());
            state.is_running |= begins;
            begins
        });
        if begins {
            tokio::spawn(self.0.clone().log_in());
        }
        let has_answer = |state: &State| state.valid(Instant::now()).is_some() || !state.is_running;
        let state = state.wait_for(has_answer).await.expect("this session holds the sender");
        match (state.valid(Instant::now()), &state.failure) {
            (Some(token), _) => Ok(token.clone()),
            (None, Some(failure)) => Err(failure.clone()),
            (None, None) => Err(Failure { may_pass: true, cause: "the login has ended without a token".into() }),
        }
    }

    /// A token to use instead of `token`, which the service refuses.
    pub async fn replace(&self, token: &Token) -> Result<Arc<Token>, Failure> {
        let longest = self.0.longest_pause;
        self.0.state.send_if_modified(|state| state.refuse(token, Instant::now(), longest));
        self.token().await
    }

    /// The age of the token in use.
    pub fn age(&self) -> Option<Duration> {
        self.0.state.borrow().token.as_ref().map(|token| token.since.elapsed())
    }
}

impl Shared {
    async fn log_in(self: Arc<Self>) {
        // Also when this task is dropped half-way: nobody must wait for it then.
        let _running = Running(&self.state);
        let (next, old) = {
            let state = self.state.borrow();
            (state.next, state.valid(Instant::now()).cloned())
        };
        sleep_until(next).await;
        let began = Instant::now();
        let granted = self.login.log_in(old.as_deref().map(|token| &token.secret)).await;
        if let (Some(_), Err(failure)) = (&old, &granted) {
            // No request fails yet that would say it.
            tracing::warn!(cause = failure.cause, "a token was not renewed; the old one is still valid");
        }
        self.state.send_modify(|state| state.end(granted, began, self.longest_pause));
    }
}

struct Running<'a>(&'a watch::Sender<State>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|state| state.is_running = false);
    }
}

impl State {
    /// The token, if it can be used.
    fn valid(&self, now: Instant) -> Option<&Arc<Token>> {
        self.token.as_ref().filter(|token| now < token.end)
    }

    fn wants_login(&self, now: Instant) -> bool {
        let is_due = self.valid(now).is_none_or(|token| token.renew <= now);
        let may_begin = self.failure.is_none() || self.next <= now;
        is_due && may_begin && !self.is_running
    }

    /// Takes a token out of use; whether that changes anything.
    fn refuse(&mut self, refused: &Token, now: Instant, longest: Duration) -> bool {
        if self.token.as_ref().is_none_or(|token| token.number != refused.number) {
            return false;
        }
        self.token = None;
        self.is_doubted = now.duration_since(refused.since) < TOO_SOON;
        if self.is_doubted {
            self.wait(now, longest);
        }
        true
    }

    fn end(&mut self, granted: Result<Grant, Failure>, began: Instant, longest: Duration) {
        self.is_running = false;
        match granted {
            Ok(Grant { secret, life }) => {
                self.count += 1;
                let life = life.min(LONGEST_LIFE);
                let (renew, end) = (began + life * 2 / 3, began + life);
                self.token = Some(Arc::new(Token { secret, number: self.count, since: Instant::now(), renew, end }));
                self.failure = None;
                if !self.is_doubted {
                    self.pause = PAUSE.0.min(longest);
                }
            }
            Err(failure) => {
                self.failure = Some(failure);
                self.wait(Instant::now(), longest);
            }
        }
    }

    /// Puts the next login off.
    fn wait(&mut self, now: Instant, longest: Duration) {
        self.next = now + self.pause;
        self.pause = (2 * self.pause).min(longest);
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, redacted)", self.number)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::future::join_all;
    use secrecy::ExposeSecret as _;
    use tokio::time::advance;

    use super::*;

    /// Takes a second, gives tokens of a minute with a number, and fails when it is told to.
    #[derive(Clone, Default)]
    struct Service(Arc<Mutex<Facts>>);

    #[derive(Default)]
    struct Facts {
        logins: u32,
        extended: u32,
        is_down: bool,
    }

    impl Service {
        fn logins(&self) -> u32 {
            self.0.lock().unwrap().logins
        }

        fn is_down(&self, is_down: bool) {
            self.0.lock().unwrap().is_down = is_down;
        }
    }

    #[async_trait]
    impl Login for Service {
        async fn log_in(&self, old: Option<&SecretString>) -> Result<Grant, Failure> {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut facts = self.0.lock().unwrap();
            facts.logins += 1;
            facts.extended += u32::from(old.is_some());
            if facts.is_down {
                return Err(Failure { may_pass: true, cause: "down".into() });
            }
            Ok(Grant { secret: facts.logins.to_string().into(), life: Duration::from_secs(60) })
        }
    }

    async fn token(session: &Session) -> Result<String, Failure> {
        session.token().await.map(|token| token.secret.expose_secret().to_owned())
    }

    fn session() -> (Service, Session) {
        let service = Service::default();
        (service.clone(), Session::new(service))
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_requests_log_in_once() {
        let (service, session) = session();
        assert_eq!(session.age(), None);
        let tokens = join_all((0..100).map(|_| token(&session))).await;
        assert!(tokens.iter().all(|token| token.as_deref() == Ok("1")), "{tokens:?}");
        assert_eq!(service.logins(), 1);
        // All of them find it invalid, some of them late.
        advance(TOO_SOON).await;
        let first = session.token().await.expect("valid");
        let replaced = join_all((0..100).map(|_| session.replace(&first))).await;
        assert!(replaced.iter().all(|token| token.as_ref().is_ok_and(|token| token.number == 2)));
        assert_eq!(session.replace(&first).await.expect("valid").number, 2);
        assert_eq!(service.logins(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_while_the_old_one_is_used() {
        let (service, session) = session();
        assert_eq!(token(&session).await.as_deref(), Ok("1"));
        advance(Duration::from_secs(38)).await;
        assert_eq!((token(&session).await.as_deref(), service.logins()), (Ok("1"), 1));
        advance(Duration::from_secs(2)).await;
        let asked = Instant::now();
        assert_eq!(token(&session).await.as_deref(), Ok("1"));
        assert_eq!(asked.elapsed(), Duration::ZERO, "nobody waits for the next one");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(token(&session).await.as_deref(), Ok("2"));
        assert_eq!(service.0.lock().unwrap().extended, 1);
        // Nobody asks for a day.
        advance(Duration::from_secs(86_400)).await;
        assert_eq!(token(&session).await.as_deref(), Ok("3"));
        assert_eq!(service.0.lock().unwrap().extended, 1, "an expired token is not extended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_renewal_harms_nobody_before_the_end() {
        let (service, session) = session();
        token(&session).await.expect("valid");
        service.is_down(true);
        for _ in 0..11 {
            advance(Duration::from_secs(5)).await;
            assert_eq!(token(&session).await.as_deref(), Ok("1"));
        }
        advance(Duration::from_secs(5)).await;
        let failure = token(&session).await.expect_err("it has expired");
        assert_eq!((failure.may_pass, failure.cause.as_str()), (true, "down"));
        service.is_down(false);
        advance(PAUSE.1).await;
        token(&session).await.expect("back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_everybodys_and_pauses_grow() {
        let (service, session) = session();
        service.is_down(true);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(120) {
            let answers = join_all((0..50).map(|_| token(&session))).await;
            assert!(answers.iter().all(Result::is_err));
            advance(Duration::from_millis(10)).await;
        }
        assert!((15..30).contains(&service.logins()), "{} logins in two minutes", service.logins());
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_that_are_refused_at_once_cause_no_storm() {
        let (service, session) = session();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(120) {
            let token = session.token().await.expect("given");
            session.replace(&token).await.expect("given");
        }
        assert!((15..40).contains(&service.logins()), "{} logins in two minutes", service.logins());
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_that_is_cut_off_keeps_nobody_waiting() {
        let (_, session) = session();
        let other = session.clone();
        let runtime = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { tokio::time::timeout(Duration::from_millis(10), other.token()).await.is_err() })
        });
        assert!(runtime.join().unwrap(), "the runtime ends before the login");
        assert_eq!(token(&session).await.as_deref(), Ok("1"));
    }

    #[test]
    fn debug_shows_nothing() {
        let now = Instant::now();
        let token = Token { secret: "hunter2".into(), number: 1, since: now, renew: now, end: now };
        assert_eq!(format!("{token:?}"), "Token(1, redacted)");
    }
}
