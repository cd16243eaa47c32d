//! PgBouncer between us and the database, and Unix sockets.

use claviger::keystore::{Error, conformance};

use super::{RIGHTS, connect, name, unanswered, value};
use crate::support::postgres::{Pooler, Postgres};
use crate::support::{block_on, eventually};

#[test]
#[ignore = "runs PostgreSQL: tests/run"]
fn passes_the_suite_by_unix_socket() {
    let postgres = Postgres::shared();
    let section = postgres.section_by_socket(0, &postgres.table(RIGHTS));
    block_on(async {
        let store = connect(&section).await.expect("connects");
        assert!(store.to_string().contains("/.s.PGSQL."), "{store}");
        conformance::run(&*store).await;
    });
}

#[test]
#[ignore = "runs PostgreSQL and PgBouncer: tests/run"]
fn passes_the_suite_behind_a_pooler() {
    let postgres = Postgres::shared();
    // With few connections of the server for many of ours, and with one for each.
    for (mode, connections) in [("transaction", 3), ("session", 20)] {
        let (pooler, table) = (Pooler::start(&postgres, mode, connections), postgres.table(RIGHTS));
        block_on(async {
            conformance::run(&*connect(&pooler.section(&postgres, &table)).await.expect("connects")).await;
            conformance::run(&*connect(&pooler.section_by_socket(&table)).await.expect("connects")).await;
        });
    }
}

/// The connection to the pooler stays, and another server answers behind it.
#[test]
#[ignore = "runs PostgreSQL and PgBouncer: tests/run"]
fn behind_a_pooler_an_old_primary_that_came_back_is_not_believed() {
    let mut postgres = Postgres::start();
    let table = postgres.table(RIGHTS);
    let pooler = Pooler::start(&postgres, "transaction", 3);
    block_on(async {
        let store = connect(&pooler.section(&postgres, &table)).await.expect("connects");
        store.create(&name("before"), &value("before")).await.expect("created");
        eventually("the standby has it", || postgres.psql(1, "keys", &format!("SELECT count(*) FROM {table}")) == "1");
        postgres.kill(0);
        postgres.promote();
        pooler.lead_to(&postgres, 1);
        let mut created = Err(Error::NotFound);
        for _ in 0..100 {
            created = store.create(&name("after"), &value("after")).await;
            if created.is_ok() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        created.expect("the new primary takes writes");
        assert!(store.get(&name("after")).await.expect("there").is_same(&value("after")));

        postgres.run(0);
        pooler.lead_to(&postgres, 0);
        // For a moment the pooler may still ask the new one.
        let mut said = String::new();
        for _ in 0..100 {
            match store.get(&name("after")).await {
                Ok(_) => {}
                Err(error) => {
                    said = unanswered::<()>(Err(error));
                    if said.contains("old primary that came back") {
                        break;
                    }
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert!(said.contains("old primary that came back"), "{said}");
        unanswered(store.get(&name("missing")).await);
        unanswered(store.create(&name("another"), &value("another")).await);
    });
}
