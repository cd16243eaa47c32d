//! A standby takes over, in time or too late, and the old primary comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use claviger::keystore::{Error, KeyStore, Retry};

use super::{RIGHTS, connect, name, refused, unanswered, value};
use crate::support::postgres::Postgres;
use crate::support::{block_on, eventually};

#[test]
#[ignore = "runs PostgreSQL: tests/run"]
fn a_synchronous_standby_takes_over_and_nothing_is_lost() {
    let mut postgres = Postgres::start();
    postgres.set_synchronous(0, "*");
    let section = postgres.section(&postgres.table(RIGHTS));
    block_on(async {
        let store = Arc::new(Retry::new(connect(&section).await.expect("connects")));
        let done = Arc::new(AtomicBool::new(false));
        let writers = (0..4).map(|writer| tokio::spawn(write(store.clone(), done.clone(), writer)));
        let writers: Vec<_> = writers.collect();
        tokio::time::sleep(Duration::from_millis(500)).await;
        postgres.kill(0);
        postgres.promote();
        // The new one has no standby yet; it must not wait for one.
        postgres.set_synchronous(1, "");
        tokio::time::sleep(Duration::from_secs(2)).await;
        done.store(true, Ordering::Relaxed);
        let mut written = Vec::new();
        for writer in writers {
            written.extend(writer.await.expect("no panic"));
        }
        assert!(written.len() > 4, "the writers did work");
        for key in &written {
            let stored = store.get(key).await.unwrap_or_else(|error| panic!("{key}: {error:?}"));
            assert!(stored.is_same(&value(key.as_str())), "{key}");
        }

        // The old primary is started again as it was, and takes writes. Nobody must hear it.
        postgres.run(0);
        store.create(&name("since-then"), &value("value")).await.expect("created at the new one");
        let newcomer = connect(&section).await.expect("connects");
        for store in [&*store as &dyn KeyStore, &*newcomer] {
            assert!(store.get(&name("since-then")).await.expect("there").is_same(&value("value")));
        }
        // A connection to the new one breaks: the old one, first in the list, is found and refused.
        postgres.psql(
            1,
            "postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'claviger'",
        );
        for _ in 0..3 {
            assert!(store.get(&name("since-then")).await.expect("there").is_same(&value("value")));
            assert!(matches!(store.get(&name("missing")).await, Err(Error::NotFound)));
        }
        // Who knew the new one never takes the old one's word.
        postgres.kill(1);
        unanswered(newcomer.get(&name("since-then")).await);
        let said = unanswered(newcomer.get(&name("since-then")).await);
        assert!(said.contains("old primary that came back"), "{said}");
    });
}

/// Creates keys whose values are their names until it is told that it is done; returns those that were acknowledged.
async fn write(store: Arc<Retry>, done: Arc<AtomicBool>, writer: usize) -> Vec<claviger::name::KeyName> {
    let mut written = Vec::new();
    for n in 0.. {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let key = name(&format!("w{writer}-{n}"));
        match store.create(&key, &value(key.as_str())).await {
            Ok(()) => written.push(key),
            Err(Error::Unreachable(_)) => {}
            other => panic!("{key}: {other:?}"),
        }
    }
    written
}

#[test]
#[ignore = "runs PostgreSQL: tests/run"]
fn a_key_that_an_asynchronous_standby_has_lost_is_never_missing() {
    let mut postgres = Postgres::start();
    let section = postgres.section(&postgres.table(RIGHTS));
    block_on(async {
        let store = Retry::new(connect(&section).await.expect("connects"));
        store.create(&name("kept"), &value("value")).await.expect("created");
        eventually("the standby has it", || {
            let lag = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()";
            postgres.psql(0, "postgres", lag) == "1"
        });
        // The standby hears nothing more.
        postgres.psql(1, "postgres", "ALTER SYSTEM SET primary_conninfo = ''");
        postgres.psql(1, "postgres", "SELECT pg_reload_conf()");
        eventually("nothing is streamed", || {
            postgres.psql(0, "postgres", "SELECT count(*) FROM pg_stat_replication") == "0"
        });
        store.create(&name("lost"), &value("value")).await.expect("acknowledged");
        let keys = [(&name("lost-too"), &value("value"))];
        assert!(matches!(store.create_batch(&keys).await[..], [Ok(())]));
        postgres.kill(0);
        postgres.promote();
        assert!(store.get(&name("kept")).await.expect("there").is_same(&value("value")));
        assert!(matches!(store.get(&name("never")).await, Err(Error::NotFound)));
        for key in ["lost", "lost-too"] {
            let said = refused(store.get(&name(key)).await);
            assert!(said.contains("a fail-over of PostgreSQL has lost it"), "{said}");
            refused(store.create(&name(key), &value("another")).await);
            let answers = store.create_batch(&[(&name(key), &value("another"))]).await;
            assert!(matches!(answers[..], [Err(Error::Failed(_))]), "{answers:?}");
            let answers = store.get_batch(&[name(key), name("kept")]).await;
            assert!(matches!(answers[..], [Err(Error::Failed(_)), Ok(_)]), "{answers:?}");
        }
        // An operator restores it by another process.
        let other = connect(&section).await.expect("connects");
        other.create(&name("lost"), &value("value")).await.expect("restored");
        assert!(store.get(&name("lost")).await.expect("there").is_same(&value("value")));
    });
}

#[test]
#[ignore = "runs PostgreSQL: tests/run"]
fn a_standby_says_nothing_about_keys() {
    let postgres = Postgres::shared();
    let mut section = postgres.section(&postgres.table(RIGHTS));
    section["hosts"] = json!([postgres.address(1).to_string()]);
    block_on(async {
        let said = unanswered(connect(&section).await.map(drop));
        assert!(said.contains("it is a standby"), "{said}");
    });
}
