//! Answers that are lost, commits that wait for a standby, and another database.

use std::time::Duration;

use serde_json::json;

use claviger::keystore::{Error, KeyStore as _, Retry};

use super::{RIGHTS, connect, name, refused, unanswered, value};
use crate::support::postgres::Postgres;
use crate::support::wire::Wire;
use crate::support::{block_on, eventually};

#[test]
#[ignore = "runs PostgreSQL: tests/run"]
fn a_write_whose_answer_is_lost_is_done_once() {
    let postgres = Postgres::shared();
    let wire = Wire::new(postgres.address(0));
    let table = postgres.table(RIGHTS);
    let mut section = postgres.section(&table);
    section["hosts"] = json!([wire.address().to_string()]);
    block_on(async {
        let store = Retry::new(connect(&section).await.expect("connects"));
        store.create(&name("first"), &value("first")).await.expect("connected for writes, too");
        wire.lose_answer(store.create(&name("key"), &value("mine"))).await.expect("it was created");
        assert!(store.get(&name("key")).await.expect("there").is_same(&value("mine")));
        let replaced = wire.lose_answer(store.replace(&name("key"), &value("mine"), &value("new"))).await;
        replaced.expect("it was replaced");
        let another = store.create(&name("key"), &value("another")).await;
        assert!(matches!(another, Err(Error::Exists)), "{another:?}");
        assert!(store.get(&name("key")).await.expect("there").is_same(&value("new")));
        wire.lose_answer(store.delete(&name("key"))).await.expect("it was deleted");
        assert!(matches!(store.get(&name("key")).await, Err(Error::NotFound)));
        wire.go_deaf();
        unanswered(store.get(&name("first")).await);
        unanswered(store.list("").await);
        wire.cut();
        unanswered(store.get(&name("missing")).await);
        wire.open();
        assert!(store.get(&name("first")).await.expect("there").is_same(&value("first")));
    });
}

#[test]
#[ignore = "runs PostgreSQL: tests/run"]
fn another_database_is_no_answer_about_a_key() {
    let (postgres, other) = (Postgres::shared(), Postgres::start());
    let table = postgres.table(RIGHTS);
    let create = format!("CREATE TABLE {table} (name text PRIMARY KEY, value bytea); GRANT ALL ON {table} TO claviger");
    other.psql(0, "keys", &create);
    let wire = Wire::new(postgres.address(0));
    let mut section = postgres.section(&table);
    section["hosts"] = json!([wire.address().to_string()]);
    block_on(async {
        let store = Retry::new(connect(&section).await.expect("connects"));
        store.create(&name("key"), &value("value")).await.expect("created");
        wire.lead_to(other.address(0)).await;
        for key in ["key", "missing"] {
            let said = refused(store.get(&name(key)).await);
            assert!(said.contains("another database cluster answers"), "{said}");
        }
        refused(store.create(&name("another"), &value("value")).await);
        assert_eq!(other.psql(0, "keys", &format!("SELECT count(*) FROM {table}")), "0");
        wire.lead_to(postgres.address(0)).await;
        assert!(store.get(&name("key")).await.expect("there").is_same(&value("value")));
    });
}

#[test]
#[ignore = "runs PostgreSQL: tests/run"]
fn a_commit_that_waits_for_a_standby_is_no_commit_yet() {
    let mut postgres = Postgres::start();
    let table = postgres.table(RIGHTS);
    let section = postgres.section(&table);
    block_on(async {
        let store = connect(&section).await.expect("connects");
        store.create(&name("before"), &value("before")).await.expect("created");
        postgres.set_synchronous(0, "*");
        postgres.kill(1);
        let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        // Somebody cancels the wait: the server says that it is done, with a warning.
        let (cancelled, waits, some) = (name("cancelled"), name("waits"), value("value"));
        let (created, ()) = tokio::join!(store.create(&cancelled, &some), async {
            eventually_async(|| postgres.psql(0, "postgres", cancel) == "t").await;
        });
        let said = unanswered(created);
        assert!(said.contains("does not prove that the write is replicated"), "{said}");
        // Nobody cancels it. Reads go on meanwhile, and show nothing of it.
        let (created, got, read) = tokio::join!(
            store.create(&waits, &some),
            async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                store.get(&name("before")).await
            },
            async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                store.get(&name("another")).await
            },
        );
        unanswered(created);
        assert!(got.expect("there").is_same(&value("before")));
        assert!(matches!(read, Err(Error::NotFound)), "{read:?}");
        // What is in doubt waits with it, rather than be told to exist or to be missing.
        unanswered(store.get(&name("waits")).await);
        postgres.run(1);
        let patient = Retry::new(store);
        patient.create(&name("waits"), &value("value")).await.expect_err("it exists");
        for key in ["waits", "cancelled"] {
            assert!(patient.get(&name(key)).await.expect("there").is_same(&value("value")), "{key}");
        }
    });
    eventually("nothing waits any more", || {
        postgres.psql(0, "postgres", "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == "0"
    });
}

async fn eventually_async(mut ready: impl FnMut() -> bool) {
    for _ in 0..600 {
        if ready() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within seconds");
}

#[test]
#[ignore = "runs PostgreSQL: tests/run"]
fn what_was_acknowledged_outlives_a_crash_whatever_the_role_is_set_to() {
    let mut postgres = Postgres::start();
    let (table, other) = (postgres.table(RIGHTS), postgres.table(RIGHTS));
    // Commits are acknowledged at once, and the log is written ten seconds later.
    postgres.psql(0, "postgres", "ALTER SYSTEM SET wal_writer_delay = '10s'");
    postgres.psql(0, "postgres", "ALTER ROLE claviger SET synchronous_commit = off");
    postgres.psql(0, "postgres", "ALTER ROLE postgres SET synchronous_commit = off");
    postgres.kill(0);
    postgres.run(0);
    let section = postgres.section(&table);
    block_on(async {
        let store = connect(&section).await.expect("connects");
        store.create(&name("created"), &value("value")).await.expect("created");
        let batch = [(&name("one"), &value("value")), (&name("two"), &value("value"))];
        assert!(store.create_batch(&batch).await.iter().all(Result::is_ok));
        store.replace(&name("created"), &value("value"), &value("newer")).await.expect("replaced");
        // As it is for others.
        postgres.psql(0, "keys", &format!("INSERT INTO {other} VALUES ('lost', 'value')"));
    });
    postgres.kill(0);
    postgres.run(0);
    block_on(async {
        let store = connect(&section).await.expect("connects");
        assert!(store.get(&name("created")).await.expect("there").is_same(&value("newer")));
        for key in ["one", "two"] {
            assert!(store.get(&name(key)).await.expect("there").is_same(&value("value")));
        }
    });
    let left = postgres.psql(0, "keys", &format!("SELECT count(*) FROM {other}"));
    assert_eq!(left, "0", "the crash loses what is acknowledged like that");
}
