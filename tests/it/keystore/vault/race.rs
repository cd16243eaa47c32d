//! Creates of a key that is being replaced, where K/V version 2 can compare nothing before it deletes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use claviger::crypto::Blob;
use claviger::keystore::{Error, KeyStore, Waits};
use claviger::name::KeyName;

use super::{Place, connect};
use crate::support::block_on;
use crate::support::gate::{Gate, Rule};
use crate::support::openbao::OpenBao;

fn blob(text: &str) -> Blob {
    text.as_bytes().to_vec().into()
}

fn name() -> KeyName {
    KeyName::parse("my-key").expect("a name")
}

/// A place, and three processes that use it: one creates, one replaces, one is nobody's way.
struct Race {
    bao: Arc<OpenBao>,
    place: Place,
    creator: Gate,
    replacer: Gate,
}

impl Race {
    fn new() -> Self {
        let bao = OpenBao::shared();
        let (place, creator, replacer) = (Place::new(&bao, 2), Gate::new(bao.address()), Gate::new(bao.address()));
        Self { bao, place, creator, replacer }
    }

    async fn store(&self, endpoint: &str) -> Arc<dyn KeyStore> {
        connect(&self.place.by_role(endpoint)).await.expect("connects")
    }

    async fn direct(&self) -> Arc<dyn KeyStore> {
        self.store(&self.bao.endpoint()).await
    }

    /// The line of the request that writes the key.
    fn write(&self) -> String {
        format!("PUT /v1/{}/data/team/keys/my-key", self.place.engine)
    }

    /// The line of the request that reads the copy.
    fn look_for_copy(&self) -> String {
        format!("GET /v1/{}/data/team/keys/claviger-old-", self.place.engine)
    }

    /// The entries that there are.
    fn entries(&self) -> Vec<String> {
        let listed = self.bao.ask("LIST", &format!("{}/metadata/team/keys", self.place.engine), Value::Null);
        let names = listed["data"]["keys"].as_array().expect("a list").iter();
        names.map(|name| name.as_str().expect("a name").to_owned()).collect()
    }

    /// A create that has seen the name free, and whose write is held up.
    async fn begin_create(&self) -> tokio::task::JoinHandle<Result<(), Error>> {
        let store = self.store(&self.creator.endpoint()).await;
        self.creator.rule(&self.write(), Rule::Hold);
        let create = tokio::spawn(async move { store.create(&name(), &blob("another")).await });
        arrived(&self.creator, &self.write(), 1).await;
        create
    }

    /// A replacement that has deleted the key, and whose write is held up.
    async fn begin_replace(&self) -> tokio::task::JoinHandle<Result<(), Error>> {
        let store = self.store(&self.replacer.endpoint()).await;
        self.replacer.rule(&self.write(), Rule::Hold);
        let replace = tokio::spawn(async move { store.replace(&name(), &blob("old"), &blob("new")).await });
        arrived(&self.replacer, &self.write(), 1).await;
        replace
    }
}

async fn arrived(gate: &Gate, line: &str, times: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while gate.count(line) < times {
        assert!(Instant::now() < deadline, "the request does not arrive");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn assert_reads(store: &dyn KeyStore, value: &str) {
    assert!(store.get(&name()).await.expect("it is there").is_same(&blob(value)));
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_key_that_is_being_replaced_cannot_be_created() {
    let race = Race::new();
    block_on(async {
        let direct = race.direct().await;
        direct.create(&name(), &blob("old")).await.expect("created");
        let replace = race.begin_replace().await;
        let created = direct.create(&name(), &blob("another")).await;
        assert!(matches!(created, Err(Error::Exists)), "{created:?}");
        assert_reads(&*direct, "old").await;
        race.replacer.lift(&race.write());
        replace.await.expect("no panic").expect("replaced");
        assert_reads(&*direct, "new").await;
    });
    assert_eq!(race.entries(), ["my-key"]);
}

/// Its write arrives while somebody replaces the key that somebody else has created since it looked.
#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_create_that_comes_late_takes_its_value_back() {
    let race = Race::new();
    block_on(async {
        let direct = race.direct().await;
        let create = race.begin_create().await;
        direct.create(&name(), &blob("old")).await.expect("created");
        let replace = race.begin_replace().await;
        race.creator.lift(&race.write());
        let created = create.await.expect("no panic");
        assert!(matches!(created, Err(Error::Exists)), "{created:?}");
        assert_reads(&*direct, "old").await;
        race.replacer.lift(&race.write());
        replace.await.expect("no panic").expect("replaced");
        assert_reads(&*direct, "new").await;
    });
    assert_eq!(race.entries(), ["my-key"]);
}

/// When the creator dies before it can take its value back, nobody is given it, and nobody removes the copy.
#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_create_that_comes_late_and_dies_leaves_the_old_value() {
    let race = Race::new();
    block_on(async {
        let direct = race.direct().await;
        let create = race.begin_create().await;
        direct.create(&name(), &blob("old")).await.expect("created");
        let replace = race.begin_replace().await;
        race.creator.rule(&race.look_for_copy(), Rule::Hang);
        let looks = race.creator.count(&race.look_for_copy());
        race.creator.lift(&race.write());
        arrived(&race.creator, &race.look_for_copy(), looks + 1).await;
        create.abort();
        race.replacer.lift(&race.write());
        let replaced = replace.await.expect("no panic").expect_err("another value is in the way");
        let cause = claviger::telemetry::log::causes(&replaced);
        assert!(cause.contains("keeps the old value") && cause.contains("'my-key'"), "{cause}");
        for store in [&direct, &race.direct().await] {
            assert_reads(&**store, "old").await;
            let created = store.create(&name(), &blob("another")).await;
            assert!(matches!(created, Err(Error::Exists)), "{created:?}");
        }

        // A later run watches it for two minutes, and keeps it.
        let error = direct.settle(&Waits::default()).await.expect_err("it is for an operator");
        assert!(claviger::telemetry::log::causes(&error).contains("keeps the old value"), "{error:?}");
        assert_reads(&*direct, "old").await;
        assert_eq!(race.entries().len(), 2, "the key's entry and the copy");
    });
}
