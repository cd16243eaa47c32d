//! A keystore that is asked again while a failure may pass.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Access, BoxError, Charged, Error, KeyStore, Listing};
use crate::crypto::Blob;
use crate::name::KeyName;

/// How long a store is asked again for a request: of the 15 s that it has, so that its client is told.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a store is asked again for a run of many keys, from the moment when it fails: it may be restarted meanwhile,
/// and one that throttles takes its time.
const PATIENCE_OF_RUN: Duration = Duration::from_secs(60);

/// When a question of a run is given up: a listing of very many keys takes a while.
const LONGEST_QUESTION: Duration = Duration::from_secs(600);

/// The pause before the second attempt; every further one is twice as long, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Asks a store again after [`Error::Unreachable`], for a limited time.
///
/// Reads are also given up when they take too long. A write never is, since nobody could
/// tell any more whether it happens; nor is one sent again before the store has said that it has
/// not happened.
pub struct Retry {
    store: Arc<dyn KeyStore>,
    purpose: Purpose,
}

/// What a store is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Request,
    Run,
}

impl Retry {
    /// For requests, whose clients wait: reads take 10 s at most, and nothing is asked again after that.
    pub fn new(store: Arc<dyn KeyStore>) -> Self {
        Self { store, purpose: Purpose::Request }
    }

    /// For a run of many keys, which had better not end because of one: a store may fail for 60 s.
    pub fn for_a_run(store: Arc<dyn KeyStore>) -> Self {
        Self { store, purpose: Purpose::Run }
    }

    fn patience(&self) -> Patience {
        Patience::new(self.purpose)
    }

    async fn get_within(&self, patience: &mut Patience, name: &KeyName) -> Result<Blob, Error> {
        patience.ask(|| self.store.get(name)).await
    }

    /// Finds out what became of a create that was answered like this.
    async fn settle(
        &self,
        patience: &mut Patience,
        name: &KeyName,
        value: &Blob,
        mut answer: Result<(), Error>,
    ) -> Result<(), Error> {
        let mut outcome_unknown = false;
        loop {
            match answer {
                Err(Error::Unreachable(cause)) => patience.pause(cause).await?,
                // Maybe it is ours that exists: an earlier attempt may have arrived late.
                Err(Error::Exists) if outcome_unknown => {}
                answer => return answer,
            }
            outcome_unknown = true;
            match self.get_within(patience, name).await {
                Ok(stored) if stored.is_same(value) => return Ok(()),
                Ok(_) => return Err(Error::Exists),
                Err(Error::NotFound) => {}
                Err(error) => return Err(error),
            }
            answer = self.store.create(name, value).await;
        }
    }

    /// What deleting `name` would destroy; `None` when the store has nothing that it could show.
    async fn before_delete(&self, patience: &mut Patience, name: &KeyName) -> Result<Option<Blob>, Error> {
        match self.get_within(patience, name).await {
            Ok(value) => Ok(Some(value)),
            Err(Error::Unreachable(cause)) => Err(Error::Unreachable(cause)),
            // It may be a broken key, or the rest of one; to delete that is the store's business.
            Err(_) => Ok(None),
        }
    }
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl KeyStore for Retry {
    /// Sends the create once. When its outcome is unknown, the name is read: our bytes are success,
    /// others mean that it exists, and with none it is sent again.
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        let mut patience = self.patience();
        let answer = self.store.create(name, value).await;
        self.settle(&mut patience, name, value, answer).await
    }

    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        self.get_within(&mut self.patience(), name).await
    }

    /// Sends it again only while `expected` is what is stored.
    async fn replace(&self, name: &KeyName, expected: &Blob, value: &Blob) -> Result<(), Error> {
        let mut patience = self.patience();
        let mut outcome_unknown = false;
        loop {
            let refused = match self.store.replace(name, expected, value).await {
                Err(Error::Unreachable(cause)) => {
                    patience.pause(cause).await?;
                    None
                }
                // Maybe it is ours that is not as expected: an earlier attempt may have arrived late.
                Err(error) if outcome_unknown => Some(error),
                answer => return answer,
            };
            outcome_unknown = true;
            if self.get_within(&mut patience, name).await?.is_same(value) {
                return Ok(());
            }
            if let Some(error) = refused {
                return Err(error);
            }
        }
    }

    /// Asks once: it waits, and may be asked again.
    async fn settle(&self) -> Result<(), Error> {
        self.store.settle().await
    }

    /// Reads the key first. When the outcome is unknown and the key then is missing, or is another
    /// one, it was deleted, and what somebody created since must not be.
    async fn delete(&self, name: &KeyName) -> Result<(), Error> {
        let mut patience = self.patience();
        let before = self.before_delete(&mut patience, name).await?;
        loop {
            let cause = match self.store.delete(name).await {
                Err(Error::Unreachable(cause)) => cause,
                answer => return answer,
            };
            let Some(before) = &before else { return Err(Error::Unreachable(cause)) };
            patience.pause(cause).await?;
            match self.get_within(&mut patience, name).await {
                Ok(stored) if stored.is_same(before) => {}
                Ok(_) | Err(Error::NotFound) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        self.patience().ask(|| self.store.list(prefix)).await
    }

    /// Asks once: it is a question about this very moment.
    async fn status(&self) -> Result<Duration, Error> {
        self.store.status().await
    }

    async fn check(&self, access: Access) -> Result<(), Error> {
        self.patience().ask(|| self.store.check(access)).await
    }

    async fn rehearse(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        self.patience().ask(|| self.store.rehearse(name, value)).await
    }

    fn batch(&self) -> usize {
        self.store.batch()
    }

    /// Asks again for those alone that the store did not answer.
    async fn get_batch(&self, names: &[KeyName]) -> Vec<Result<Blob, Error>> {
        let (asked, mut patience) = (Instant::now(), self.patience());
        let Ok(mut answers) = timeout_at(patience.deadline, self.store.get_batch(names)).await else {
            return names.iter().map(|_| Err(no_answer(asked))).collect();
        };
        for (name, answer) in names.iter().zip(&mut answers) {
            if matches!(answer, Err(Error::Unreachable(_))) {
                *answer = self.get_within(&mut patience, name).await;
            }
        }
        answers
    }

    async fn create_batch(&self, keys: &[(&KeyName, &Blob)]) -> Vec<Result<(), Error>> {
        let mut patience = self.patience();
        let mut settled = Vec::with_capacity(keys.len());
        for ((name, value), answer) in keys.iter().zip(self.store.create_batch(keys).await) {
            settled.push(self.settle(&mut patience, name, value, answer).await);
        }
        settled
    }

    fn charges(&self) -> Vec<Charged> {
        self.store.charges()
    }

    async fn identity(&self) -> Result<String, Error> {
        self.patience().ask(|| self.store.identity()).await
    }

    fn token_age(&self) -> Option<Duration> {
        self.store.token_age()
    }

    async fn clock(&self) -> Result<Option<OffsetDateTime>, Error> {
        self.patience().ask(|| self.store.clock()).await
    }

    fn warnings(&self) -> &[String] {
        self.store.warnings()
    }
}

/// What is left of the time, and the next pause.
struct Patience {
    /// When it ends; none: it begins with the first failure.
    end: Option<Instant>,
    /// When a question is given up.
    deadline: Instant,
    pause: Duration,
}

impl Patience {
    fn new(purpose: Purpose) -> Self {
        let now = Instant::now();
        match purpose {
            Purpose::Request => Self { end: Some(now + PATIENCE), deadline: now + PATIENCE, pause: FIRST_PAUSE },
            Purpose::Run => Self { end: None, deadline: now + LONGEST_QUESTION, pause: FIRST_PAUSE },
        }
    }

    /// Waits before the next attempt; when there is no time for one, returns the `cause` of the last.
    async fn pause(&mut self, cause: BoxError) -> Result<(), Error> {
        if self.has_paused().await { Ok(()) } else { Err(Error::Unreachable(cause)) }
    }

    /// Waits before the next attempt, if there is time for one.
    async fn has_paused(&mut self) -> bool {
        let now = Instant::now();
        let end = *self.end.get_or_insert(now + PATIENCE_OF_RUN);
        if now + self.pause >= end {
            return false;
        }
        sleep_until(now + self.pause).await;
        self.pause = LONGEST_PAUSE.min(2 * self.pause);
        true
    }

    /// Repeats a question until it is answered. Gives the last attempt up at the end of the time.
    async fn ask<T, F>(&mut self, question: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let (asked, mut last) = (Instant::now(), None);
        loop {
            match timeout_at(self.deadline, question()).await {
                Ok(Err(Error::Unreachable(cause))) if self.has_paused().await => last = Some(cause),
                Ok(answer) => return answer,
                // What it said before tells more than its silence now.
                Err(_) => return Err(last.map_or_else(|| no_answer(asked), Error::Unreachable)),
            }
        }
    }
}

fn no_answer(asked: Instant) -> Error {
    Error::Unreachable(format!("no answer within {} s", asked.elapsed().as_secs()).into())
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::super::{conformance, fs, mem};
    use super::*;

    /// What a store does with the next call.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// Does it and says so.
        Answer,
        /// Does it and says so, and then a write that seemed lost stores "ours".
        AnswerAndArrive,
        /// Does nothing, and the caller cannot know.
        LoseRequest,
        /// Does it, and the caller cannot know.
        LoseAnswer,
        /// Somebody deletes the key and creates it anew just after it was done; the caller cannot know.
        LoseAnswerAndRecreate,
        /// It will not work.
        Refuse,
        /// Never answers.
        Hang,
    }

    /// A store in memory that behaves as told and notes what it was asked.
    struct Scripted {
        inner: mem::Store,
        script: Mutex<VecDeque<Step>>,
        calls: Mutex<Vec<&'static str>>,
    }

    impl Scripted {
        /// Answers everything after the steps of `script`.
        fn new(script: &[Step]) -> Arc<Self> {
            let script = script.iter().copied().collect::<VecDeque<_>>().into();
            Arc::new(Self { inner: mem::Store::default(), script, calls: Mutex::default() })
        }

        async fn holding(value: &Blob, script: &[Step]) -> Arc<Self> {
            let store = Self::new(script);
            store.inner.create(&name(), value).await.expect("empty");
            store
        }

        fn calls(&self) -> Vec<&'static str> {
            self.calls.lock().expect("no test panicked").clone()
        }

        async fn put(&self, value: &str) {
            let _ = self.inner.delete(&name()).await;
            self.inner.create(&name(), &blob(value)).await.expect("deleted");
        }

        async fn act<T>(&self, call: &'static str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
            self.calls.lock().expect("no test panicked").push(call);
            let step = self.script.lock().expect("no test panicked").pop_front().unwrap_or(Step::Answer);
            let lost = || Err(Error::Unreachable("lost".into()));
            match step {
                Step::Answer => work.await,
                Step::AnswerAndArrive => {
                    let answer = work.await;
                    self.put("ours").await;
                    answer
                }
                Step::LoseRequest => lost(),
                Step::LoseAnswer => {
                    let _ = work.await;
                    lost()
                }
                Step::LoseAnswerAndRecreate => {
                    let _ = work.await;
                    self.put("another's").await;
                    lost()
                }
                Step::Refuse => Err(Error::Failed("no".into())),
                Step::Hang => std::future::pending().await,
            }
        }
    }

    impl fmt::Display for Scripted {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("scripted")
        }
    }

    #[async_trait]
    impl KeyStore for Scripted {
        async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
            self.act("create", self.inner.create(name, value)).await
        }
        async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
            self.act("get", self.inner.get(name)).await
        }
        async fn replace(&self, name: &KeyName, expected: &Blob, value: &Blob) -> Result<(), Error> {
            self.act("replace", self.inner.replace(name, expected, value)).await
        }
        async fn delete(&self, name: &KeyName) -> Result<(), Error> {
            self.act("delete", self.inner.delete(name)).await
        }
        async fn list(&self, prefix: &str) -> Result<Listing, Error> {
            self.act("list", self.inner.list(prefix)).await
        }
        async fn status(&self) -> Result<Duration, Error> {
            self.act("status", self.inner.status()).await
        }
        async fn check(&self, access: Access) -> Result<(), Error> {
            self.act("check", self.inner.check(access)).await
        }
        async fn identity(&self) -> Result<String, Error> {
            self.act("identity", self.inner.identity()).await
        }
    }

    fn name() -> KeyName {
        KeyName::parse("my-key").expect("valid")
    }

    fn blob(text: &str) -> Blob {
        text.as_bytes().to_vec().into()
    }

    async fn holds(store: &Scripted, value: &str) -> bool {
        store.inner.get(&name()).await.is_ok_and(|stored| stored.is_same(&blob(value)))
    }

    /// Creates `ours` in a store with this script; returns the answer, the calls, and what is stored then.
    async fn create(script: &[Step]) -> (Result<(), Error>, Vec<&'static str>, Arc<Scripted>) {
        let store = Scripted::new(script);
        let created = Retry::new(store.clone()).create(&name(), &blob("ours")).await;
        (created, store.calls(), store)
    }

    #[tokio::test]
    async fn passes_the_suite() {
        conformance::run(&Retry::new(Arc::new(mem::Store::default()))).await;
        let directory = tempfile::tempdir().expect("a directory");
        let config = fs::Config { path: directory.path().into() };
        let store = fs::Store::open(&config).await.expect("opens");
        conformance::run(&Retry::new(Arc::new(store))).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_is_sent_again_with_growing_pauses() {
        let store = Scripted::holding(&blob("a"), &[Step::LoseRequest, Step::LoseAnswer, Step::LoseRequest]).await;
        let started = Instant::now();
        let value = Retry::new(store.clone()).get(&name()).await.expect("answers at last");
        assert!(value.is_same(&blob("a")));
        assert_eq!(store.calls(), ["get"; 4]);
        assert_eq!(started.elapsed(), Duration::from_millis(100 + 200 + 400));
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_after_ten_seconds() {
        let store = Scripted::new(&[Step::LoseRequest; 100]);
        let started = Instant::now();
        let listed = Retry::new(store.clone()).list("").await;
        assert!(matches!(listed, Err(Error::Unreachable(_))));
        // 0.1 + 0.2 + 0.4 + 0.8 + 1.6 + 2 + 2 + 2 = 9.1 s
        assert_eq!(store.calls().len(), 9);
        assert!(started.elapsed() <= PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_batch_leaves_open_is_settled_key_by_key() {
        let others = ["a", "b"].map(|name| KeyName::parse(name).expect("valid"));
        let values = ["ours", "ours", "ours"].map(blob);
        let keys = [(&others[0], &values[0]), (&name(), &values[1]), (&others[1], &values[2])];
        let store = Scripted::new(&[Step::Answer, Step::LoseAnswer, Step::LoseRequest]);
        let created = Retry::new(store.clone()).create_batch(&keys).await;
        assert!(created.iter().all(Result::is_ok), "{created:?}");
        assert_eq!(store.calls(), ["create", "create", "create", "get", "get", "create"]);

        let names = keys.map(|(name, _)| name.clone());
        let store = Scripted::holding(&blob("ours"), &[Step::Answer, Step::LoseRequest, Step::Answer]).await;
        let found = Retry::new(store.clone()).get_batch(&names).await;
        assert!(matches!(found[..], [Err(Error::NotFound), Ok(_), Err(Error::NotFound)]), "{found:?}");
        assert_eq!(store.calls(), ["get"; 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_has_the_patience_of_one_call() {
        let names = vec![name(); 32];
        let started = Instant::now();
        let found = Retry::new(Scripted::new(&[Step::LoseRequest; 1_000])).get_batch(&names).await;
        assert!(found.iter().all(|answer| matches!(answer, Err(Error::Unreachable(_)))));
        let hanging = Retry::new(Scripted::new(&[Step::Hang])).get_batch(&names).await;
        assert!(hanging.iter().all(|answer| matches!(answer, Err(Error::Unreachable(_)))));
        assert!(started.elapsed() <= 2 * PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_hangs_is_given_up() {
        let store = Scripted::new(&[Step::LoseRequest, Step::Hang]);
        let started = Instant::now();
        let got = Retry::new(store).get(&name()).await;
        assert!(matches!(got, Err(Error::Unreachable(_))));
        assert_eq!(started.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_hangs_is_not_given_up() {
        let store = Retry::new(Scripted::new(&[Step::Hang]));
        let (name, value) = (name(), blob("ours"));
        let create = store.create(&name, &value);
        assert!(tokio::time::timeout(Duration::from_secs(3600), create).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_will_not_pass_is_returned_at_once() {
        for call in ["get", "list", "create", "replace"] {
            let store = Scripted::new(&[Step::Refuse]);
            let retry = Retry::new(store.clone());
            let started = Instant::now();
            let error = match call {
                "get" => retry.get(&name()).await.err(),
                "list" => retry.list("").await.err(),
                "create" => retry.create(&name(), &blob("ours")).await.err(),
                _ => retry.replace(&name(), &blob("old"), &blob("ours")).await.err(),
            };
            assert!(matches!(error, Some(Error::Failed(_))), "{call}");
            assert_eq!((store.calls(), started.elapsed()), (vec![call], Duration::ZERO));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_create_is_sent_once_when_it_is_answered() {
        let (created, calls, store) = create(&[]).await;
        assert!(created.is_ok() && holds(&store, "ours").await);
        assert_eq!(calls, ["create"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_create_whose_answer_was_lost_is_found_by_reading() {
        let (created, calls, _) = create(&[Step::LoseAnswer]).await;
        assert!(created.is_ok());
        assert_eq!(calls, ["create", "get"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_create_that_was_lost_is_sent_again() {
        let (created, calls, store) = create(&[Step::LoseRequest, Step::LoseRequest]).await;
        assert!(created.is_ok() && holds(&store, "ours").await);
        assert_eq!(calls, ["create", "get", "get", "create"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_create_of_unknown_outcome_does_not_take_anothers_key_for_its_own() {
        let (created, calls, store) = create(&[Step::LoseAnswerAndRecreate]).await;
        assert!(matches!(created, Err(Error::Exists)));
        assert!(holds(&store, "another's").await);
        assert_eq!(calls, ["create", "get"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_create_that_arrived_late_is_still_ours() {
        let (created, calls, store) = create(&[Step::LoseRequest, Step::AnswerAndArrive]).await;
        assert!(created.is_ok() && holds(&store, "ours").await);
        assert_eq!(calls, ["create", "get", "create", "get"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_replacement_that_arrived_late_is_still_ours() {
        let store = Scripted::holding(&blob("old"), &[Step::LoseRequest, Step::AnswerAndArrive]).await;
        assert!(Retry::new(store.clone()).replace(&name(), &blob("old"), &blob("ours")).await.is_ok());
        assert_eq!(store.calls(), ["replace", "get", "replace", "get"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_is_taken_is_taken() {
        let store = Scripted::holding(&blob("another's"), &[]).await;
        let created = Retry::new(store.clone()).create(&name(), &blob("ours")).await;
        assert!(matches!(created, Err(Error::Exists)));
        assert_eq!(store.calls(), ["create"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_replacement_is_sent_again_only_while_the_old_value_is_there() {
        for (step, calls) in
            [(Step::LoseAnswer, vec!["replace", "get"]), (Step::LoseRequest, vec!["replace", "get", "replace"])]
        {
            let store = Scripted::holding(&blob("old"), &[step]).await;
            let replaced = Retry::new(store.clone()).replace(&name(), &blob("old"), &blob("ours")).await;
            assert!(replaced.is_ok() && holds(&store, "ours").await, "{step:?}");
            assert_eq!(store.calls(), calls);
        }
        let store = Scripted::holding(&blob("old"), &[Step::LoseAnswerAndRecreate]).await;
        let replaced = Retry::new(store.clone()).replace(&name(), &blob("old"), &blob("ours")).await;
        assert!(matches!(replaced, Err(Error::Failed(_))) && holds(&store, "another's").await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delete_whose_answer_was_lost_is_no_missing_key() {
        let store = Scripted::holding(&blob("a"), &[Step::Answer, Step::LoseAnswer]).await;
        assert!(Retry::new(store.clone()).delete(&name()).await.is_ok());
        assert_eq!(store.calls(), ["get", "delete", "get"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delete_that_was_lost_is_sent_again() {
        let store = Scripted::holding(&blob("a"), &[Step::LoseRequest, Step::Answer, Step::LoseRequest]).await;
        assert!(Retry::new(store.clone()).delete(&name()).await.is_ok());
        assert_eq!(store.calls(), ["get", "get", "delete", "get", "delete"]);
        assert!(matches!(store.inner.get(&name()).await, Err(Error::NotFound)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_created_after_a_delete_of_unknown_outcome_stays() {
        let store = Scripted::holding(&blob("a"), &[Step::Answer, Step::LoseAnswerAndRecreate]).await;
        assert!(Retry::new(store.clone()).delete(&name()).await.is_ok());
        assert_eq!(store.calls(), ["get", "delete", "get"]);
        assert!(holds(&store, "another's").await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_read_is_deleted_once() {
        let store = Scripted::holding(&blob("a"), &[Step::Refuse]).await;
        assert!(Retry::new(store.clone()).delete(&name()).await.is_ok());
        let store = Scripted::holding(&blob("a"), &[Step::Refuse, Step::LoseRequest]).await;
        assert!(matches!(Retry::new(store.clone()).delete(&name()).await, Err(Error::Unreachable(_))));
        assert_eq!(store.calls(), ["get", "delete"]);
    }

    #[tokio::test(start_paused = true)]
    async fn to_delete_a_missing_key_says_so() {
        let store = Scripted::new(&[]);
        assert!(matches!(Retry::new(store).delete(&name()).await, Err(Error::NotFound)));
    }

    #[tokio::test(start_paused = true)]
    async fn every_question_of_a_migration_is_sent_again() {
        let store = Scripted::new(&[Step::LoseRequest, Step::Answer, Step::LoseRequest]);
        assert!(Retry::new(store.clone()).check(Access::Replace).await.is_ok());
        assert_eq!(Retry::new(store.clone()).identity().await.expect("answers"), "mem");
        assert_eq!(store.calls(), ["check", "check", "identity", "identity"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sign_of_life_is_asked_for_once() {
        let store = Scripted::new(&[Step::LoseRequest]);
        assert!(matches!(Retry::new(store.clone()).status().await, Err(Error::Unreachable(_))));
        assert_eq!(store.calls(), ["status"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_waits_a_minute_from_the_first_failure() {
        let began = Instant::now();
        let got = Retry::for_a_run(Scripted::new(&[Step::LoseRequest; 1_000])).get(&name()).await;
        assert!(matches!(got, Err(Error::Unreachable(_))));
        let took = began.elapsed();
        assert!((PATIENCE_OF_RUN - LONGEST_PAUSE..=PATIENCE_OF_RUN).contains(&took), "{took:?}");
        // More than a request would wait for.
        let store = Scripted::holding(&blob("ours"), &[Step::LoseRequest; 20]).await;
        let value = Retry::for_a_run(store).get(&name()).await.expect("answers at last");
        assert!(value.is_same(&blob("ours")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_is_given_up_ends_with_what_was_said_before() {
        let said = |got: Result<Blob, Error>| match got {
            Err(Error::Unreachable(cause)) => cause.to_string(),
            other => panic!("unreachable, not {other:?}"),
        };
        let store = Scripted::new(&[Step::LoseRequest, Step::Hang]);
        assert_eq!(said(Retry::new(store).get(&name()).await), "lost");
        assert_eq!(said(Retry::new(Scripted::new(&[Step::Hang])).get(&name()).await), "no answer within 10 s");
    }
}
