//! Roles and tables that do not suffice: what is missing is named, with the statements to paste.

use claviger::keystore::{Access, Error};

use super::{RIGHTS, connect, name, refused, value};
use crate::support::block_on;
use crate::support::postgres::Postgres;

#[test]
#[ignore = "runs PostgreSQL: tests/run"]
fn a_missing_right_is_named_and_what_is_pasted_grants_it() {
    let postgres = Postgres::shared();
    let table = postgres.table("SELECT");
    block_on(async {
        let store = connect(&postgres.section(&table)).await.expect("connects");
        store.check(Access::Read).await.expect("it may read");
        assert!(matches!(store.get(&name("key")).await, Err(Error::NotFound)), "it says what is not there");
        let said = refused(store.create(&name("key"), &value("value")).await);
        assert!(said.contains("42501") && said.contains("GRANT SELECT, INSERT, DELETE"), "{said}");
        refused(store.delete(&name("key")).await);
        for access in [Access::Create, Access::Serve, Access::Replace] {
            let said = refused(store.check(access).await);
            let (_, grant) = said.split_once("as its owner: ").expect(&said);
            postgres.psql(0, "keys", grant);
            store.check(access).await.expect("granted");
        }
        store.create(&name("key"), &value("value")).await.expect("created");
        store.replace(&name("key"), &value("value"), &value("new")).await.expect("replaced");
        // Of one who may not read, nothing is ever said to be missing.
        postgres.psql(0, "keys", &format!("REVOKE SELECT ON {table} FROM claviger"));
        refused(store.get(&name("missing")).await);
        refused(store.list("").await);
        refused(store.check(Access::Read).await);
    });
}

#[test]
#[ignore = "runs PostgreSQL: tests/run"]
fn a_table_that_cannot_hold_keys_is_refused_and_what_is_pasted_makes_one() {
    let postgres = Postgres::shared();
    block_on(async {
        let said = refused(connect(&postgres.section("made_by_paste")).await.map(drop));
        let (_, statements) = said.split_once("make it: ").expect(&said);
        postgres.psql(0, "keys", statements);
        let store = connect(&postgres.section("made_by_paste")).await.expect("connects");
        store.check(Access::Serve).await.expect("it may do what a server does");

        for (make, says) in [
            ("CREATE UNLOGGED TABLE odd (name text PRIMARY KEY, value bytea)", "unlogged"),
            ("CREATE TABLE odd (name text, value bytea)", "no unique index"),
            ("CREATE TABLE odd (name text, value bytea, UNIQUE (name, value))", "no unique index"),
            ("CREATE VIEW odd AS SELECT * FROM made_by_paste", "is no table"),
            (
                "CREATE TABLE odd (name text PRIMARY KEY, value bytea); ALTER TABLE odd ENABLE ROW LEVEL SECURITY",
                "row-level security",
            ),
        ] {
            postgres.psql(0, "keys", &format!("{make}; GRANT ALL ON odd TO claviger"));
            let said = refused(connect(&postgres.section("odd")).await.map(drop));
            assert!(said.contains(says), "{make}: {said}");
            let kind = if make.contains("VIEW") { "VIEW" } else { "TABLE" };
            postgres.psql(0, "keys", &format!("DROP {kind} odd"));
        }
    });
}

#[test]
#[ignore = "runs PostgreSQL: tests/run"]
fn a_login_that_is_refused_says_what_to_correct() {
    let postgres = Postgres::shared();
    let good = postgres.section(&postgres.table(RIGHTS));
    block_on(async {
        for (key, wrong, says) in [
            ("password", "wrong", "correct 'user' and 'password'"),
            ("user", "nobody", "correct 'user' and 'password'"),
            ("database", "nothing", "correct 'database'"),
        ] {
            let mut section = good.clone();
            section[key] = wrong.into();
            let said = refused(connect(&section).await.map(drop));
            assert!(said.contains(says), "{key}: {said}");
        }
        let mut section = good;
        section.as_object_mut().expect("a section").remove("tls");
        let Err(Error::Unreachable(cause)) = connect(&section).await.map(drop) else { panic!("nobody vouches for it") };
        assert!(cause.to_string().contains("name the CA that issued it under tls.ca"), "{cause}");
    });
}
