//! Users whose rights do not suffice: what is missing is named, with the commands to paste.

use claviger::crypto::Blob;
use claviger::keystore::{Access, Error};
use claviger::telemetry::log::causes;

use super::{connect, name};
use crate::support::block_on;
use crate::support::etcd::Etcd;

fn refused<T: std::fmt::Debug>(answer: Result<T, Error>) -> String {
    match answer {
        Err(error @ Error::Failed(_)) => causes(&error),
        other => panic!("a refusal, not {other:?}"),
    }
}

/// The arguments of the `etcdctl` commands that a message gives.
fn pasted(message: &str) -> Vec<Vec<&str>> {
    let (_, commands) = message.split_once("as root of etcd: ").expect(message);
    commands.split("; ").map(|command| command.split(' ').skip(1).collect()).collect()
}

#[test]
#[ignore = "runs etcd: tests/run"]
fn a_missing_right_is_named_and_what_is_pasted_grants_it() {
    let mut etcd = Etcd::start(1, &[]);
    etcd.enable_users();
    etcd.user("reader", "password", Some(("read", "claviger/")));
    etcd.user("nobody", "password", None);
    etcd.user("elsewhere", "password", Some(("readwrite", "claviger/team/")));
    let value = Blob::from(b"value".to_vec());
    block_on(async {
        let reader = connect(&etcd.section_of("reader", "password", "claviger/")).await.expect("connects");
        reader.check(Access::Read).await.expect("a reader may read");
        assert!(matches!(reader.get(&name("key")).await, Err(Error::NotFound)), "it says what is not there");
        for access in [Access::Create, Access::Serve, Access::Replace] {
            assert!(refused(reader.check(access).await).contains("permission denied"));
        }
        refused(reader.create(&name("key"), &value).await);
        refused(reader.delete(&name("key")).await);
        assert!(matches!(reader.get(&name("key")).await, Err(Error::NotFound)), "the check stored nothing");

        // Of one who may not read, nothing is ever said to be missing.
        let said = refused(connect(&etcd.section_of("nobody", "password", "claviger/")).await.map(drop));
        refused(connect(&etcd.section_of("elsewhere", "password", "claviger/")).await.map(drop));
        for args in pasted(&said) {
            etcd.ctl(&args);
        }
        let granted = connect(&etcd.section_of("nobody", "password", "claviger/")).await.expect("connects");
        granted.check(Access::Replace).await.expect("it may do everything");
        granted.create(&name("key"), &value).await.expect("created");

        let said = refused(connect(&etcd.section_of("reader", "wrong", "claviger/")).await.map(drop));
        assert!(said.contains("correct 'credentials'"), "{said}");
        let said = refused(connect(&etcd.section("claviger/")).await.map(drop));
        assert!(said.contains("permission denied") || said.contains("set 'credentials'"), "{said}");
    });
}

#[test]
#[ignore = "runs etcd: tests/run"]
fn a_token_that_etcd_forgot_costs_one_login() {
    let mut etcd = Etcd::start(1, &[]);
    etcd.enable_users();
    etcd.user("claviger", "password", Some(("readwrite", "claviger/")));
    block_on(async {
        let store = connect(&etcd.section_of("claviger", "password", "claviger/")).await.expect("connects");
        store.create(&name("key"), &Blob::from(b"value".to_vec())).await.expect("created");
        // Tokens do not survive a restart.
        etcd.kill(0);
        etcd.run(0);
        etcd.elected();
        let key = name("key");
        let reads = (0..20).map(|_| store.get(&key));
        let mut read = futures_util::future::join_all(reads).await;
        // The connection of before may be found broken by the first read.
        if read.iter().any(Result::is_err) {
            assert!(read.iter().all(|read| matches!(read, Ok(_) | Err(Error::Unreachable(_)))), "{read:?}");
            read = vec![store.get(&name("key")).await];
        }
        assert!(read.iter().all(Result::is_ok), "{read:?}");
        store.create(&name("later"), &Blob::from(b"value".to_vec())).await.expect("created");
    });
}
