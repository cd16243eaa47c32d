//! Google Secret Manager.

use futures_util::future::join_all;
use serde_json::{Value, json};

use claviger::keystore::{Access, Error, conformance};
use claviger::telemetry::log::causes;

use super::race::race;
use super::{Vendor, connect, name};
use crate::support::block_on;
use crate::support::clouds::Clouds;

pub const VENDOR: Vendor = Vendor {
    name: "gcp",
    section: |clouds, endpoint| section(clouds, endpoint, ""),
    variables: |_| Vec::new(),
    create: ("POST", ":addVersion"),
    read: ("GET", ":access"),
    list: ("GET", "/secrets?pageSize"),
    delete: ("DELETE", "/secrets/"),
    bare: &[("list", "{}"), ("delete", "{}")],
    charges: Some(("Google Secret Manager", 7)),
    longest: 65_536,
    // It is signed here, by our time.
    expires: false,
};

const RIGHTS: [&str; 5] = [
    "secretmanager.secrets.list",
    "secretmanager.versions.access",
    "secretmanager.secrets.create",
    "secretmanager.versions.add",
    "secretmanager.secrets.delete",
];

/// With the service account in the config.
fn section(clouds: &Clouds, endpoint: &str, prefix: &str) -> Value {
    let file = std::fs::read(clouds.fact("GOOGLE_SERVICE_ACCOUNT")).expect("readable");
    let account: Value = serde_json::from_slice(&file).expect("JSON");
    let fields = ["client_email", "client_id", "private_key_id", "private_key"];
    let credentials: serde_json::Map<_, _> =
        fields.into_iter().map(|field| (field.to_owned(), account[field].clone())).collect();
    let mut section = bare(clouds, endpoint);
    section["gcp"]["secretmanager"]["prefix"] = prefix.into();
    section["gcp"]["secretmanager"]["credentials"] = credentials.into();
    section
}

/// Without credentials.
fn bare(clouds: &Clouds, endpoint: &str) -> Value {
    let secretmanager = json!({ "project_id": clouds.fact("GOOGLE_PROJECT"), "endpoint": endpoint });
    json!({ "gcp": { "secretmanager": secretmanager, "tls": { "ca": clouds.ca() } } })
}

fn path(clouds: &Clouds, rest: &str) -> String {
    format!("/v1/projects/{}/secrets{rest}", clouds.fact("GOOGLE_PROJECT"))
}

/// A secret without a version, as a creator leaves it that is killed.
fn leave_half(clouds: &Clouds, id: &str) {
    let body = json!({ "replication": { "automatic": {} } });
    let made = clouds.as_google("POST", &path(clouds, &format!("?secretId={id}")), &body);
    assert_eq!(made.status, 200, "{made:?}");
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn a_part_of_a_project_passes_the_suite_and_sees_nothing_else() {
    let clouds = Clouds::start();
    block_on(async {
        let whole = VENDOR.connect(&clouds).await;
        whole.create(&name("password"), &b"hunter2".to_vec().into()).await.expect("created");
        let store = connect(&section(&clouds, clouds.secure(), "kes-"), &[]).await.expect("connects");
        conformance::run(&*store).await;
        assert_eq!(store.list("").await.expect("listed").names, []);
        store.create(&name("key"), &b"value".to_vec().into()).await.expect("created");
        assert_eq!(store.list("k").await.expect("listed").names, [name("key")]);
        assert!(clouds.stored("gcp").contains_key("kes-key"));
        assert!(store.to_string().contains("prefix 'kes-'"));
    });
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn long_listings_are_complete() {
    let clouds = Clouds::start();
    block_on(async {
        let store = VENDOR.connect(&clouds).await;
        let names: Vec<_> = (0..250).map(|n| name(&format!("key-{n:03}"))).collect();
        let value = b"value".to_vec().into();
        join_all(names.iter().map(|name| store.create(name, &value)))
            .await
            .into_iter()
            .for_each(|c| c.expect("created"));
        assert_eq!(store.list("").await.expect("listed").names, names);
        assert_eq!(store.list("key-1").await.expect("listed").names, names[100..200]);
        // What names itself as the next page has no end.
        let page = json!({ "secrets": [], "nextPageToken": "x" }).to_string();
        clouds.fault("GET", "pageSize", 100, &json!({ "status": 200, "body": page }));
        let listed = store.list("").await;
        assert!(matches!(listed, Err(Error::Failed(_))), "{listed:?}");
    });
}

/// As the archived server leaves it when it is killed between two steps; there, the name is lost for ever.
#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn a_secret_without_a_version_is_no_key_and_can_be_created() {
    let clouds = Clouds::start();
    leave_half(&clouds, "half");
    block_on(async {
        let store = VENDOR.connect(&clouds).await;
        assert!(matches!(store.get(&name("half")).await, Err(Error::NotFound)));
        store.create(&name("half"), &b"value".to_vec().into()).await.expect("created");
        assert!(store.get(&name("half")).await.expect("there").is_same(&b"value".to_vec().into()));
    });
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn one_of_eight_wins_a_secret_that_was_left_without_a_version() {
    let clouds = Clouds::start();
    let keys: Vec<_> = (0..60).map(|n| format!("half-{n}")).collect();
    keys.iter().for_each(|key| leave_half(&clouds, key));
    block_on(async {
        let stores = [VENDOR.connect(&clouds).await, VENDOR.connect(&clouds).await];
        join_all(keys.iter().map(|key| race([&*stores[0], &*stores[1]], key))).await;
    });
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn only_the_first_version_counts_and_one_that_is_disabled_is_not_missing() {
    let clouds = Clouds::start();
    block_on(async {
        let store = VENDOR.connect(&clouds).await;
        store.create(&name("key"), &b"first".to_vec().into()).await.expect("created");
        let version = json!({ "payload": { "data": "c2Vjb25k" } });
        assert_eq!(clouds.as_google("POST", &path(&clouds, "/key:addVersion"), &version).status, 200);
        assert!(store.get(&name("key")).await.expect("there").is_same(&b"first".to_vec().into()));
        for (state, says) in [("disable", "gcloud secrets versions enable 1"), ("destroy", "is gone")] {
            let changed = clouds.as_google("POST", &path(&clouds, &format!("/key/versions/1:{state}")), &json!({}));
            assert_eq!(changed.status, 200, "{changed:?}");
            let error = store.get(&name("key")).await.expect_err("it cannot be read");
            assert!(matches!(error, Error::Failed(_)) && causes(&error).contains(says), "{error:?}");
            let created = store.create(&name("key"), &b"value".to_vec().into()).await;
            assert!(matches!(created, Err(Error::Exists)), "{created:?}");
        }
    });
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn a_value_that_was_damaged_on_its_way_is_asked_for_again() {
    let clouds = Clouds::start();
    block_on(async {
        let store = VENDOR.connect(&clouds).await;
        store.create(&name("key"), &b"value".to_vec().into()).await.expect("created");
        let body = json!({
            "name": "projects/105926461700/secrets/key/versions/1",
            "payload": { "data": "dmFsdWU=", "dataCrc32c": "1" },
        });
        clouds.fault("GET", "key/versions/1:access", 1, &json!({ "status": 200, "body": body.to_string() }));
        let got = store.get(&name("key")).await;
        assert!(matches!(got, Err(Error::Unreachable(_))), "{got:?}");
        // The version of another secret is nobody's answer.
        let other = body.to_string().replace("secrets/key", "secrets/other").replace("\"1\"", "null");
        clouds.fault("GET", "key/versions/1:access", 1, &json!({ "status": 200, "body": other }));
        let got = store.get(&name("key")).await;
        assert!(matches!(got, Err(Error::Failed(_))), "{got:?}");
    });
}

/// All but reading a version by its number is consistent only in the end.
#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn what_lags_behind_is_no_lost_key() {
    let clouds = Clouds::start();
    block_on(async {
        let store = VENDOR.connect(&clouds).await;
        let (first, second) = (b"first".to_vec().into(), b"second".to_vec().into());
        clouds.set("google_lag", "2s");
        store.create(&name("key"), &first).await.expect("created");
        assert!(store.get(&name("key")).await.expect("at once").is_same(&first));
        // While the deleted value comes back, the copy stays, and the key is never missing.
        for _ in 0..40 {
            match store.replace(&name("key"), &first, &second).await {
                Ok(()) => break,
                Err(Error::Unreachable(_)) => {}
                Err(error) => panic!("{error:?}"),
            }
            let stored = store.get(&name("key")).await.expect("never missing");
            assert!(stored.is_same(&first) || stored.is_same(&second));
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        assert!(store.get(&name("key")).await.expect("there").is_same(&second));
    });
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn every_missing_right_is_named_with_what_gives_it() {
    let clouds = Clouds::start();
    block_on(async {
        let store = VENDOR.connect(&clouds).await;
        for (access, needed) in [(Access::Read, 2), (Access::Create, 4), (Access::Serve, 5), (Access::Replace, 5)] {
            for (n, right) in RIGHTS.iter().enumerate() {
                clouds.deny(right);
                let checked = store.check(access).await;
                if n < needed {
                    let error = causes(&checked.expect_err("a right is missing"));
                    assert!(error.contains(&format!("missing rights: {right};")), "{error}");
                    let names = RIGHTS[..needed].join(",");
                    let project = clouds.fact("GOOGLE_PROJECT");
                    let role = format!("gcloud iam roles create claviger --project={project} --permissions={names}\n");
                    let member = "--member=serviceAccount:kes@kes-test-264617.iam.gserviceaccount.com";
                    assert!(error.contains(&role) && error.contains(member), "{error}");
                } else {
                    checked.unwrap_or_else(|error| panic!("{right} is not needed: {error:?}"));
                }
                clouds.reset();
            }
            store.check(access).await.expect("all rights are there");
        }
        assert!(clouds.stored("gcp").is_empty(), "checks change nothing");

        // And each call names its own, also for a secret that is not there.
        let (key, value) = (name("key"), b"value".to_vec().into());
        for right in RIGHTS {
            clouds.deny(right);
            let refused = match right.rsplit_once('.').expect("a dot").1 {
                "list" => store.list("").await.map(drop),
                "access" => store.get(&key).await.map(drop),
                "delete" => store.delete(&key).await,
                _ => store.create(&key, &value).await,
            };
            let error = refused.expect_err("a right is missing");
            let (is_failed, says) = (matches!(error, Error::Failed(_)), causes(&error));
            assert!(is_failed && says.contains(&format!("the right '{right}' is missing")), "{says}");
            clouds.reset();
        }
    });
}

/// In the order of Google's own programs: a file of a service account, one of a workload that a cluster vouches for, the
/// metadata service; and a token that the service no longer takes.
#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn logs_in_in_every_way() {
    let clouds = Clouds::start();
    let section = bare(&clouds, clouds.secure());
    let plain = clouds.plain();
    let host = plain.trim_start_matches("http://").to_owned();
    let file = |fact: &str| vec![("GOOGLE_APPLICATION_CREDENTIALS", clouds.fact(fact).to_owned())];
    let ways = [
        ("file", file("GOOGLE_SERVICE_ACCOUNT")),
        ("external", file("GOOGLE_EXTERNAL_ACCOUNT")),
        ("metadata", vec![("GCE_METADATA_HOST", host)]),
    ];
    for (key, variables) in &ways {
        block_on(async {
            let store = connect(&section, variables).await.unwrap_or_else(|error| panic!("{key}: {}", causes(&error)));
            store.create(&name(key), &b"value".to_vec().into()).await.expect("created");
            // What we sign ourselves is signed with our time.
            clouds.advance(if *key == "file" { 3_000 } else { 4_000 });
            store.get(&name(key)).await.unwrap_or_else(|error| panic!("{key}: {}", causes(&error)));
            clouds.reset();
        });
    }
    // Google's other clouds exchange what the account has signed; and a token of a cluster may be in a file of JSON.
    let read = |path: &str| -> Value { serde_json::from_slice(&std::fs::read(path).expect("readable")).expect("JSON") };
    let mut elsewhere = read(clouds.fact("GOOGLE_SERVICE_ACCOUNT"));
    elsewhere["universe_domain"] = "example.cloud".into();
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name).to_str().expect("UTF-8").to_owned();
    let token = std::fs::read_to_string(clouds.file("cluster-token")).expect("readable");
    std::fs::write(at("token.json"), json!({ "id_token": token, "other": "x" }).to_string()).expect("written");
    let mut external = read(clouds.fact("GOOGLE_EXTERNAL_ACCOUNT"));
    let format = json!({ "type": "json", "subject_token_field_name": "id_token" });
    external["credential_source"] = json!({ "file": at("token.json"), "format": format });
    for (key, credentials, exchange) in [("elsewhere", elsewhere, "/token"), ("json", external, "/v1/token")] {
        std::fs::write(at(key), credentials.to_string()).expect("written");
        clouds.forget();
        block_on(async {
            let variables = [("GOOGLE_APPLICATION_CREDENTIALS", at(key))];
            let store = connect(&section, &variables).await.unwrap_or_else(|error| panic!("{key}: {}", causes(&error)));
            store.create(&name(key), &b"value".to_vec().into()).await.expect("created");
        });
        assert_eq!(clouds.count("POST", exchange), 1, "{key}");
    }
    // Of 50 that find the token expired, one logs in.
    block_on(async {
        let store = connect(&section, &ways[1].1).await.expect("connects");
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        clouds.advance(4_000);
        clouds.forget();
        let key = name("file");
        let got = join_all((0..50).map(|_| store.get(&key))).await;
        assert!(got.iter().all(Result::is_ok), "{got:?}");
        assert_eq!(clouds.count("POST", "/v1/token"), 1);
    });
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn credentials_that_cannot_work_are_said_to_be_so() {
    let clouds = Clouds::start();
    let section = bare(&clouds, clouds.secure());
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("credentials.json");
    let refused = |text: &str| {
        std::fs::write(&file, text).expect("written");
        let variables = [("GOOGLE_APPLICATION_CREDENTIALS", file.to_str().expect("UTF-8").to_owned())];
        let error = block_on(connect(&section, &variables)).map(drop).expect_err("no login");
        assert!(matches!(error, Error::Failed(_)), "{error:?}");
        causes(&error)
    };
    let external = std::fs::read_to_string(clouds.fact("GOOGLE_EXTERNAL_ACCOUNT")).expect("readable");
    let elsewhere = external.replace(clouds.secure(), "http://sts.example.com");
    let by_program = json!({
        "type": "external_account", "audience": "a", "subject_token_type": "t", "token_url": "https://h",
        "credential_source": { "executable": { "command": "/bin/true" } },
    });
    for (text, says) in [
        ("hunter2", "no file of credentials"),
        (r#"{"type":"authorized_user"}"#, "credentials of a person"),
        (r#"{"type":"service_account","private_key":"hunter2"}"#, "without all that they need"),
        (&elsewhere, "no https:// address"),
        (&by_program.to_string(), "must be a 'file'"),
    ] {
        let error = refused(text);
        assert!(error.contains(says) && !error.contains("hunter2"), "{error}");
    }
    // A token of the cluster that Google does not know.
    let unknown = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(unknown.path(), "no.good.token").expect("written");
    let error = refused(&external.replace(&clouds.file("cluster-token"), unknown.path().to_str().expect("UTF-8")));
    assert!(error.contains("login refused") && error.contains("invalid_grant"), "{error}");
}
