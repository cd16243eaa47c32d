//! What lies in the engine: what the archived server put there is read, and what we put there it can read.

use futures_util::future::join_all;
use serde_json::{Value, json};

use claviger::crypto::Blob;
use claviger::keystore::Error;
use claviger::name::KeyName;

use super::{COLD, NO_CACHE, OK, Place, REFUSED, Rights};
use super::{connect, expect, serve, session};
use crate::support::client::Request;
use crate::support::openbao::{OpenBao, unique};
use crate::support::{block_on, testdata};

/// A key as the archived server stored it.
fn archived() -> String {
    std::fs::read_to_string(testdata("http/fixture/keys/my-key")).expect("the fixture's key")
}

/// Where the entry of a key lies.
fn entry(place: &Place, name: &str) -> String {
    let part = if place.version == 1 { "" } else { "data/" };
    format!("{}/{part}{}/{name}", place.engine, place.prefix)
}

/// Puts a value where the archived server would.
fn put(bao: &OpenBao, place: &Place, name: &str, value: &str) {
    let body = match place.version {
        1 => json!({ name: value }),
        _ => json!({ "options": { "cas": 0 }, "data": { name: value } }),
    };
    bao.ask("PUT", &entry(place, name), body);
}

/// The fields of an entry.
fn fields(bao: &OpenBao, place: &Place, name: &str) -> Value {
    let answer = bao.ask("GET", &entry(place, name), Value::Null);
    if place.version == 1 { answer["data"].clone() } else { answer["data"]["data"].clone() }
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn keys_of_the_archived_server_are_read_where_it_put_them() {
    let bao = OpenBao::shared();
    for version in [1, 2] {
        let place = Place::new(&bao, version);
        put(&bao, &place, "cold", &archived());
        let server = serve(&place.by_role(&bao.endpoint()), NO_CACHE);
        block_on(async {
            let session = session(&server).await;
            let described = session.another().send(Request::new("GET", COLD)).await.expect("an answer").json();
            assert_eq!(described["created_at"], "2023-11-14T22:13:20Z", "{described}");
        });
    }
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn keys_lie_where_the_archived_server_looks_for_them() {
    let bao = OpenBao::shared();
    for version in [1, 2] {
        let place = Place::new(&bao, version);
        let server = serve(&place.by_role(&bao.endpoint()), NO_CACHE);
        block_on(async { expect(&session(&server).await, "PUT", "/v1/key/create/new", OK).await });
        let fields = fields(&bao, &place, "new");
        let value = fields["new"].as_str().expect("a text");
        assert_eq!(fields, json!({ "new": value }), "one field, of the key's name");
        let stored = value.as_bytes().to_vec().into();
        let key = claviger::crypto::Key::parse(&stored).expect("a key");
        assert!(key.encode().is_same(&stored), "nothing but the key");
        if version == 2 {
            let metadata = bao.ask("GET", &entry(&place, "new").replace("/data/", "/metadata/"), Value::Null);
            assert_eq!(metadata["data"]["current_version"], 1, "the version that every server reads");
        }
    }
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn only_the_first_version_counts() {
    let bao = OpenBao::shared();
    let place = Place::new(&bao, 2);
    put(&bao, &place, "cold", &archived());
    bao.ask("PUT", &entry(&place, "cold"), json!({ "data": { "cold": "something else" } }));
    let server = serve(&place.by_role(&bao.endpoint()), NO_CACHE);
    block_on(async {
        let session = session(&server).await;
        expect(&session, "GET", COLD, OK).await;
        // A deleted version is no missing key: nobody may take its name.
        bao.ask("POST", &entry(&place, "cold").replace("/data/", "/delete/"), json!({ "versions": [1] }));
        expect(&session, "GET", COLD, REFUSED).await;
        expect(&session, "PUT", "/v1/key/create/cold", (502, "failed to create key")).await;
    });
    super::super::wait_for_log(&server, &["version 1 of this entry was deleted or destroyed", "undelete"]);
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn other_fields_of_an_entry_are_nobodys_business() {
    let bao = OpenBao::shared();
    for version in [1, 2] {
        let place = Place::new(&bao, version);
        let fields = json!({ "cold": archived(), "ttl": 3600, "note": null, "more": { "a": [1] } });
        let body = if version == 1 { fields } else { json!({ "data": fields }) };
        bao.ask("PUT", &entry(&place, "cold"), body);
        let body = json!({ "number": 5 });
        bao.ask("PUT", &entry(&place, "number"), if version == 1 { body } else { json!({ "data": body }) });
        let server = serve(&place.by_role(&bao.endpoint()), NO_CACHE);
        block_on(async {
            let session = session(&server).await;
            expect(&session, "GET", COLD, OK).await;
            expect(&session, "GET", "/v1/key/describe/number", REFUSED).await;
        });
        super::super::wait_for_log(&server, &["the entry has no field 'number' with a key in it"]);
    }
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn folders_are_no_keys() {
    let bao = OpenBao::shared();
    for version in [1, 2] {
        let place = Place::new(&bao, version);
        put(&bao, &place, "cold", &archived());
        put(&bao, &place, "folder/inside", &archived());
        block_on(async {
            let store = connect(&place.by_role(&bao.endpoint())).await.expect("connects");
            let listing = store.list("").await.expect("lists");
            assert_eq!(listing.names.iter().map(ToString::to_string).collect::<Vec<_>>(), ["cold"]);
            assert_eq!(listing.foreign, []);
        });
    }
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_rotated_transit_key_reads_what_its_older_versions_wrapped() {
    let bao = OpenBao::shared();
    let engine = unique("transit");
    bao.ask("POST", &format!("sys/mounts/{engine}"), json!({ "type": "transit" }));
    bao.ask("POST", &format!("{engine}/keys/keys"), Value::Null);
    let more = format!("path \"{engine}/+/keys\" {{ capabilities = [\"update\"] }}");
    let place = Place::within(&bao, None, 2, Rights::Server, &more, json!({}));
    let mut section = place.by_role(&bao.endpoint());
    let plain = section.clone();
    section["transit"] = json!({ "engine": engine, "key": "keys" });
    let server = serve(&section, NO_CACHE);
    block_on(async {
        let session = session(&server).await;
        expect(&session, "PUT", "/v1/key/create/cold", OK).await;
        bao.ask("POST", &format!("{engine}/keys/keys/rotate"), Value::Null);
        expect(&session, "PUT", "/v1/key/create/second", OK).await;
        expect(&session, "GET", COLD, OK).await;
        expect(&session, "GET", "/v1/key/describe/second", OK).await;
    });
    for (name, mark) in [("cold", "vault:v1:"), ("second", "vault:v2:")] {
        let stored = fields(&bao, &place, name);
        assert!(stored[name].as_str().is_some_and(|value| value.starts_with(mark)), "{name}: {stored}");
    }
    // Without the section nobody takes a wrapped value for a key, and with it nobody a plain one.
    put(&bao, &place, "plain", &archived());
    block_on(async {
        let name = |name| KeyName::parse(name).expect("a name");
        let store = connect(&plain).await.expect("connects");
        let error = store.get(&name("cold")).await.expect_err("wrapped");
        assert!(format!("{error:?}").contains("add the section 'transit'"), "{error:?}");
        let store = connect(&section).await.expect("connects");
        let error = store.get(&name("plain")).await.expect_err("not wrapped");
        assert!(format!("{error:?}").contains("not wrapped by a transit key"), "{error:?}");
    });
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn of_two_servers_that_create_a_key_one_does() {
    let bao = OpenBao::shared();
    let place = Place::new(&bao, 2);
    let servers = [(); 2].map(|()| serve(&place.by_role(&bao.endpoint()), NO_CACHE));
    block_on(async {
        let sessions = [session(&servers[0]).await, session(&servers[1]).await];
        for round in 0..25 {
            let target = format!("/v1/key/create/race-{round}");
            let asked = sessions.iter().map(|session| super::super::ask(session, "PUT", &target));
            let mut answers = join_all(asked).await;
            answers.sort();
            assert_eq!(answers, [(200, String::new()), (400, "key already exists".into())], "{target}");
        }
    });
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn an_engine_of_another_version_is_refused_before_anything_is_written() {
    let bao = OpenBao::shared();
    for (is, says) in [(1, "v2"), (2, "v1")] {
        let place = Place::new(&bao, is);
        let mut section = place.by_role(&bao.endpoint());
        section["version"] = json!(says);
        let error = block_on(connect(&section)).err().expect("refused");
        assert!(format!("{error:?}").contains(&format!("is K/V version {is}; write 'version: v{is}'")), "{error:?}");
    }
}

/// There is nothing in version 1 that lets one of them win. With the same rights, 8 that race had two winners in one of 300
/// rounds when nobody waited.
#[test]
#[ignore = "runs OpenBao: tests/run"]
fn of_many_that_create_a_key_in_version_1_one_does() {
    const RACERS: usize = 8;
    let bao = OpenBao::shared();
    for rights in [Rights::Server, Rights::Replace] {
        let place = Place::within(&bao, None, 1, rights, "", json!({}));
        block_on(async {
            let store = connect(&place.by_role(&bao.endpoint())).await.expect("connects");
            let race = async |round: usize| {
                let name = KeyName::parse(&format!("race-{round}")).expect("a name");
                let values = (0..RACERS).map(|racer| Blob::from(format!("value-{racer}").into_bytes()));
                let values: Vec<_> = values.collect();
                let created = join_all(values.iter().map(|value| store.create(&name, value))).await;
                let won: Vec<_> = (0..RACERS).filter(|racer| created[*racer].is_ok()).collect();
                let lost = created.iter().filter(|created| matches!(created, Err(Error::Exists))).count();
                assert_eq!((won.len(), lost), (1, RACERS - 1), "{rights:?}, round {round}: {created:?}");
                assert!(store.get(&name).await.expect("it is there").is_same(&values[won[0]]));
            };
            join_all((0..10).map(race)).await;
        });
    }
}
