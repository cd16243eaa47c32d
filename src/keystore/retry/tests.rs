//! Tests the retries with a store that fails by a script.

use std::collections::VecDeque;
use std::sync::Mutex;

use hyper::header::{HeaderMap, HeaderValue, RETRY_AFTER};

use super::patience::{LONGEST_PAUSE, PATIENCE, PATIENCE_OF_RUN};
use super::*;
use crate::keystore::{conformance, fs, mem};

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
    /// The store wants to be asked again in so many seconds.
    Later(u32),
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
            Step::Later(seconds) => {
                Err(later("busy".into(), &HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from(seconds))])))
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
    fn behind(&self) -> Option<&dyn KeyStore> {
        None
    }
    fn about(&self) -> About<'_> {
        About::new(Box::pin(self.act("identity", async { self.inner.about().identity.await })))
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

/// Asks for a missing key; returns how often the store was asked, for how long, and whether it answered.
async fn ask(retry: Retry, store: &Scripted) -> (usize, Duration, bool) {
    let started = Instant::now();
    let is_answered = matches!(retry.get(&name()).await, Err(Error::NotFound));
    (store.calls().len(), started.elapsed(), is_answered)
}

#[tokio::test(start_paused = true)]
async fn a_store_is_not_asked_before_the_time_that_it_names() {
    let seconds = Duration::from_secs;
    let store = Scripted::new(&[Step::Later(3), Step::LoseRequest, Step::Later(0)]);
    let took = seconds(3) + Duration::from_millis(200 + 400);
    assert_eq!(ask(Retry::new(store.clone()), &store).await, (4, took, true));
    // The time of a request does not grow.
    let store = Scripted::new(&[Step::Later(4); 9]);
    assert_eq!(ask(Retry::new(store.clone()), &store).await, (3, seconds(8), false));
    let store = Scripted::new(&[Step::Later(60)]);
    assert_eq!(ask(Retry::new(store.clone()), &store).await, (1, seconds(0), false));
    // A run has more.
    let for_a_run = |store: &Arc<Scripted>| Retry::for_a_run(store.clone(), Waits::default());
    let store = Scripted::new(&[Step::Later(45)]);
    assert_eq!(ask(for_a_run(&store), &store).await, (2, seconds(45), true));
    let store = Scripted::new(&[Step::Later(u32::MAX)]);
    assert_eq!(ask(for_a_run(&store), &store).await, (1, seconds(0), false));
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
    assert_eq!(Retry::new(store.clone()).about().identity.await.expect("answers"), "mem");
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
    let got = Retry::for_a_run(Scripted::new(&[Step::LoseRequest; 1_000]), Waits::default()).get(&name()).await;
    assert!(matches!(got, Err(Error::Unreachable(_))));
    let took = began.elapsed();
    assert!((PATIENCE_OF_RUN - LONGEST_PAUSE..=PATIENCE_OF_RUN).contains(&took), "{took:?}");
    // More than a request would wait for.
    let store = Scripted::holding(&blob("ours"), &[Step::LoseRequest; 20]).await;
    let value = Retry::for_a_run(store, Waits::default()).get(&name()).await.expect("answers at last");
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

#[tokio::test(start_paused = true)]
async fn an_attempt_of_a_run_is_made_again_for_a_minute() {
    let name = name();
    let store = Scripted::holding(&blob("ours"), &[Step::LoseRequest; 20]).await;
    let value = patiently(&Waits::default(), || store.get(&name)).await.expect("answers at last");
    assert!(value.is_same(&blob("ours")));
    let (began, store) = (Instant::now(), Scripted::new(&[Step::LoseRequest; 1_000]));
    assert!(matches!(patiently(&Waits::default(), || store.get(&name)).await, Err(Error::Unreachable(_))));
    let took = began.elapsed();
    assert!((PATIENCE_OF_RUN - LONGEST_PAUSE..=PATIENCE_OF_RUN).contains(&took), "{took:?}");
    let store = Scripted::new(&[Step::Refuse]);
    assert!(matches!(patiently(&Waits::default(), || store.get(&name)).await, Err(Error::Failed(_))));
    assert_eq!(store.calls(), ["get"]);
}
