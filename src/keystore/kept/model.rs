//! All orders in which a creator, a replacer and a finisher can take their steps, each of which may be the last of its
//! process, or lose its answer.
//!
//! A step is one request to the store, whenever it arrives: a request that is delayed is one that is taken late.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex as Locked};
use std::task::{Context, Poll, Waker};

use super::*;
use crate::keystore::mem;

const OLD: &str = "old";
const NEW: &str = "new";
const ANOTHER: &str = "another";

/// A second creator, whose value is the old one.
const OTHER: &str = "other";

fn name() -> KeyName {
    KeyName::parse("my-key").expect("valid")
}

fn blob(text: &str) -> Blob {
    text.as_bytes().to_vec().into()
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    AnswerLost,
    Lost,
    /// The process ends before it sends the request.
    Crash,
}

/// The store as one process reaches it: each request waits until it is its turn.
#[derive(Clone)]
struct Handle {
    store: Arc<mem::Store>,
    /// What becomes of the next request; none: it waits.
    fate: Arc<Locked<Option<Fate>>>,
    /// Whether a request waits.
    waits: Arc<Locked<bool>>,
}

impl Handle {
    async fn act<T>(&self, request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        *self.waits.lock().expect("no panic") = true;
        let fate = std::future::poll_fn(|_| match self.fate.lock().expect("no panic").take() {
            Some(fate) => Poll::Ready(fate),
            None => Poll::Pending,
        })
        .await;
        *self.waits.lock().expect("no panic") = false;
        match fate {
            Fate::Answered => request.await,
            Fate::AnswerLost => {
                let _ = request.await;
                Err(Error::Unreachable("lost".into()))
            }
            Fate::Lost => Err(Error::Unreachable("lost".into())),
            Fate::Crash => unreachable!("it was dropped"),
        }
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
impl KeyStore for Handle {
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        self.act(self.store.create(name, value)).await
    }
    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        self.act(self.store.get(name)).await
    }
    async fn replace(&self, _: &KeyName, _: &Blob, _: &Blob) -> Result<(), Error> {
        unreachable!("such stores cannot")
    }
    async fn delete(&self, name: &KeyName) -> Result<(), Error> {
        self.act(self.store.delete(name)).await
    }
    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        self.store.list(prefix).await
    }
    async fn status(&self) -> Result<Duration, Error> {
        self.store.status().await
    }
    fn behind(&self) -> Option<&dyn KeyStore> {
        None
    }
}

type Work = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// A process.
struct Actor {
    who: &'static str,
    handle: Handle,
    /// None: it has ended.
    work: Option<Work>,
    /// None: it crashed.
    answer: Option<Result<(), Error>>,
}

impl Actor {
    fn new<F>(who: &'static str, store: &Arc<mem::Store>, work: impl FnOnce(Kept<Handle>) -> F) -> Self
    where
        F: Future<Output = Result<(), Error>> + 'static,
    {
        let handle = Handle { store: store.clone(), fate: Arc::default(), waits: Arc::default() };
        // Unconstrained: the runtime would interrupt it now and then.
        let work = tokio::task::unconstrained(work(Kept::new(handle.clone())));
        let work = Some(Box::pin(work) as Work);
        let mut actor = Self { who, handle, work, answer: None };
        actor.poll();
        actor
    }

    fn poll(&mut self) {
        let Some(work) = &mut self.work else { return };
        if let Poll::Ready(answer) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            (self.answer, self.work) = (Some(answer), None);
        }
    }

    fn sleeps(&self) -> bool {
        !*self.handle.waits.lock().expect("no panic")
    }

    async fn step(&mut self, fate: Fate) {
        if fate == Fate::Crash {
            self.work = None;
            return;
        }
        if self.sleeps() {
            // Long enough that it loses its patience if it has to sleep again.
            tokio::time::advance(TAKEN_BACK + TAKING_BACK).await;
        } else {
            *self.handle.fate.lock().expect("no panic") = Some(fate);
        }
        self.poll();
    }
}

/// As whoever may not know what became of a create: it looks, and asks again.
async fn create(store: Kept<Handle>, value: Blob) -> Result<(), Error> {
    for _ in 0..3 {
        match store.create(&name(), &value).await {
            Err(Error::Unreachable(_)) => {}
            answer => return answer,
        }
        match store.get(&name()).await {
            Ok(stored) if stored.is_same(&value) => return Ok(()),
            Ok(_) => return Err(Error::Exists),
            Err(_) => {}
        }
    }
    Err(Error::Unreachable("it gives up".into()))
}

async fn replace(store: Kept<Handle>) -> Result<(), Error> {
    let (old, new) = (blob(OLD), blob(NEW));
    for _ in 0..3 {
        match store.replace(&name(), &old, &new).await {
            Err(Error::Unreachable(_)) => {}
            answer => return answer,
        }
        if store.get(&name()).await.is_ok_and(|stored| stored.is_same(&new)) {
            return Ok(());
        }
    }
    Err(Error::Unreachable("it gives up".into()))
}

/// As [`Kept::settle`], when it has watched the copy for long enough.
async fn finish(store: Kept<Handle>) -> Result<(), Error> {
    let kept = KeyName::kept(&name());
    match store.stored(&kept).await? {
        Some(copy) => store.end(&kept, &copy).await,
        None => Ok(()),
    }
}

/// Which choice is made at each turn, and how many there were.
#[derive(Default)]
struct Choices {
    made: Vec<(usize, usize)>,
    next: usize,
}

impl Choices {
    fn choose(&mut self, among: usize) -> usize {
        if self.next == self.made.len() {
            self.made.push((0, among));
        }
        let (choice, before) = self.made[self.next];
        assert_eq!(before, among, "the same choices lead to the same place");
        self.next += 1;
        choice
    }

    /// The next order that was not tried yet.
    fn advance(&mut self) -> bool {
        self.next = 0;
        while let Some((choice, among)) = self.made.pop() {
            if choice + 1 < among {
                self.made.push((choice + 1, among));
                return true;
            }
        }
        false
    }
}

/// Lets the actors take their steps in the order that is chosen, with at most so many faults. The finisher begins when
/// the replacer has ended.
async fn run(choices: &mut Choices, store: &Arc<mem::Store>, actors: &mut Vec<Actor>, mut faults: usize) -> String {
    let mut story = Vec::new();
    let mut finisher = VecDeque::from([()]);
    loop {
        let replaces = actors.iter().any(|actor| actor.who == "replacer" && actor.work.is_some());
        if !replaces && finisher.pop_front().is_some() {
            actors.push(Actor::new("finisher", store, finish));
        }
        let mut options = Vec::new();
        for (at, actor) in actors.iter().enumerate().filter(|(_, actor)| actor.work.is_some()) {
            options.push((at, Fate::Answered));
            if faults > 0 && !actor.sleeps() {
                options.extend([Fate::AnswerLost, Fate::Lost, Fate::Crash].map(|fate| (at, fate)));
            }
        }
        if options.is_empty() {
            return story.join(", ");
        }
        let (at, fate) = options[choices.choose(options.len())];
        if fate != Fate::Answered {
            faults -= 1;
        }
        story.push(format!("{} {fate:?}", actors[at].who));
        actors[at].step(fate).await;
    }
}

/// Nothing is lost, and nobody has created what was there.
async fn assert_whole(store: &Arc<mem::Store>, actors: &[Actor], story: &str) {
    let read = Kept::new(store.clone()).get(&name()).await;
    let answer = |who| actors.iter().find(|actor| actor.who == who).and_then(|actor| actor.answer.as_ref());
    if matches!(answer(OTHER), Some(Err(Error::Exists))) {
        // The creator was first, and its key is nobody's to replace.
        assert!(read.is_ok_and(|read| read.is_same(&blob(ANOTHER))), "{story}");
        assert!(!matches!(answer("replacer"), Some(Ok(()))), "{story}");
        return;
    }
    let read = read.unwrap_or_else(|error| panic!("the key is gone ({error:?}): {story}"));
    assert!(!matches!(answer("creator"), Some(Ok(()))), "an existing key was created: {story}");
    match answer("replacer") {
        Some(Ok(())) => assert!(read.is_same(&blob(NEW)), "it was replaced: {story}"),
        _ => assert!([OLD, NEW].iter().any(|value| read.is_same(&blob(value))), "{story}"),
    }
    let copy = store.get(&KeyName::kept(&name())).await;
    if let Some(Err(Error::Failed(cause))) = answer("finisher") {
        assert!(copy.is_ok(), "it fails loudly and keeps the copy: {cause}: {story}");
    }
}

#[async_trait]
impl KeyStore for Arc<mem::Store> {
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        (**self).create(name, value).await
    }
    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        (**self).get(name).await
    }
    async fn replace(&self, name: &KeyName, expected: &Blob, value: &Blob) -> Result<(), Error> {
        (**self).replace(name, expected, value).await
    }
    async fn delete(&self, name: &KeyName) -> Result<(), Error> {
        (**self).delete(name).await
    }
    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        (**self).list(prefix).await
    }
    async fn status(&self) -> Result<Duration, Error> {
        (**self).status().await
    }
    fn behind(&self) -> Option<&dyn KeyStore> {
        Some(&**self)
    }
}

/// Tries every order of the steps of these actors; returns how many there are.
async fn try_all(faults: usize, actors: impl AsyncFn(&Arc<mem::Store>) -> Vec<Actor>) -> usize {
    let mut choices = Choices::default();
    for orders in 1.. {
        let store = Arc::new(mem::Store::default());
        let mut actors = actors(&store).await;
        let story = run(&mut choices, &store, &mut actors, faults).await;
        assert_whole(&store, &actors, &story).await;
        if !choices.advance() {
            return orders;
        }
    }
    unreachable!("it ends")
}

fn creator(store: &Arc<mem::Store>) -> Actor {
    Actor::new("creator", store, |kept| create(kept, blob(ANOTHER)))
}

fn replacer(store: &Arc<mem::Store>) -> Actor {
    Actor::new("replacer", store, replace)
}

/// A key that is there is replaced while somebody creates it.
#[tokio::test(start_paused = true)]
async fn an_existing_key_survives_every_order_of_steps() {
    let orders = try_all(1, async |store| {
        store.create(&name(), &blob(OLD)).await.expect("created");
        vec![creator(store), replacer(store)]
    });
    assert!(orders.await > 2_000);
}

/// The creator has seen the name free: then another one creates the key, and a third replaces it.
#[tokio::test(start_paused = true)]
async fn a_create_that_comes_late_destroys_nothing() {
    let orders = try_all(1, async |store| {
        let mut creator = creator(store);
        // The name, and the copy: it sees neither.
        creator.step(Fate::Answered).await;
        creator.step(Fate::Answered).await;
        store.create(&name(), &blob(OLD)).await.expect("created");
        vec![creator, replacer(store)]
    });
    assert!(orders.await > 20_000);
}

/// Nothing is there at first, and two create it; one of them knows of no copies, as the archived server.
#[tokio::test(start_paused = true)]
async fn of_two_creators_one_has_created_the_key_that_is_then_replaced() {
    let orders = try_all(0, async |store| {
        let other = Actor::new(OTHER, store, |kept| async move { kept.store.create(&name(), &blob(OLD)).await });
        vec![creator(store), other, replacer(store)]
    });
    assert!(orders.await > 5_000);
}
