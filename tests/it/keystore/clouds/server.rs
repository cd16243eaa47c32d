//! The real server, and the doctor, on each of them.

use serde_json::{Value, json};

use super::super::{admin, ask};
use super::{VENDORS, Vendor};
use crate::support::block_on;
use crate::support::clouds::Clouds;
use crate::support::program::Program;

const OK: (u16, &str) = (200, "");

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn keys_live_and_die() {
    for vendor in VENDORS {
        let clouds = Clouds::start();
        let server = vendor.serve(&clouds, "{ expiry: { any: 1ms, unused: 1ms } }");
        block_on(async {
            let client = admin(&server);
            let session = client.session().await.expect("connects");
            let expect = async |method: &str, path: &str, (status, message): (u16, &str)| {
                let answer = ask(&session, method, path).await;
                assert_eq!((answer.0, answer.1.as_str()), (status, message), "{} {method} {path}", vendor.name);
            };
            expect("GET", "/v1/ready", OK).await;
            expect("GET", "/v1/key/describe/app-key", (404, "key does not exist")).await;
            expect("PUT", "/v1/key/create/app-key", OK).await;
            expect("PUT", "/v1/key/create/app-key", (400, "key already exists")).await;
            expect("GET", "/v1/key/describe/app-key", OK).await;
            let sealed = client.put_json("/v1/key/encrypt/app-key", &json!({ "plaintext": "aGVsbG8=" })).await.json();
            let opened = client.put_json("/v1/key/decrypt/app-key", &sealed).await.json();
            assert_eq!(opened, json!({ "plaintext": "aGVsbG8=" }));
            assert_eq!(client.get("/v1/key/list/*").await.json(), json!({ "names": ["app-key"] }));
            // Every token expires at once; the next request gets another one.
            clouds.advance(if vendor.expires { 4_000 } else { 3_000 });
            expect("GET", "/v1/key/describe/app-key", OK).await;
            expect("DELETE", "/v1/key/delete/app-key", OK).await;
            expect("GET", "/v1/key/describe/app-key", (404, "key does not exist")).await;
        });
        let said = format!("{}{}", server.stdout(), server.stderr());
        for secret in ["AZURE_CLIENT_SECRET", "SDKMS_KEY", "CIPHERTRUST_TOKEN", "KEYCONTROL_PASSWORD"] {
            assert!(!said.contains(clouds.fact(secret)), "{secret} is in the log");
        }
        assert!(!said.contains("PRIVATE KEY"));
    }
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn sealed_keys_are_not_readable_there() {
    for vendor in VENDORS {
        let clouds = Clouds::start();
        let mut section = vendor.section(&clouds);
        section["encrypt"] = json!({ "local": { "key": "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=" } });
        let server = super::serve(&section, &vendor.variables(&clouds), "{ expiry: { any: 1ms, unused: 1ms } }");
        block_on(async {
            let session = admin(&server).session().await.expect("connects");
            for (method, path) in [("PUT", "create"), ("PUT", "generate"), ("GET", "describe")] {
                let answer = ask(&session, method, &format!("/v1/key/{path}/app-key")).await;
                assert_eq!((answer.0, answer.1.as_str()), OK, "{} {path}", vendor.name);
            }
        });
        // The key that is not sealed has another form.
        let server = vendor.serve(&clouds, "{}");
        block_on(async {
            let session = admin(&server).session().await.expect("connects");
            let answer = ask(&session, "GET", "/v1/key/describe/app-key").await;
            assert_eq!((answer.0, answer.1.as_str()), (502, "failed to read key"), "{}", vendor.name);
        });
    }
}

/// What the doctor says of the key store: id, status, message.
pub fn examine(vendor: &Vendor, clouds: &Clouds, purpose: &str) -> Vec<(String, String, String)> {
    let directory = tempfile::tempdir().expect("a directory");
    let config = json!({ "keystore": vendor.section(clouds) });
    std::fs::write(directory.path().join("config.yml"), config.to_string()).expect("written");
    let variables = vendor.variables(clouds);
    let doctor = variables
        .into_iter()
        .fold(Program::named("claviger", directory.path()), |doctor, (name, value)| doctor.env(name, value));
    let said = doctor.run(&["doctor", "--config", "config.yml", "--json", "--for", purpose]).stdout;
    let checks: Vec<Value> = serde_json::from_str(&said).expect("a list");
    let text = |check: &Value, field: &str| check[field].as_str().expect("a text").to_owned();
    let all = checks.iter().map(|check| (text(check, "id"), text(check, "status"), text(check, "message")));
    all.filter(|(id, ..)| id.starts_with("keystore.")).collect()
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn the_doctor_is_content() {
    for vendor in VENDORS {
        let clouds = Clouds::start();
        for purpose in ["migrate-source", "migrate-target"] {
            let checks = examine(vendor, &clouds, purpose);
            let ids: Vec<_> = checks.iter().map(|(id, ..)| id.as_str()).collect();
            let all = ["keystore.reach", "keystore.rights", "keystore.latency", "keystore.clock"];
            assert_eq!(ids, all, "{}: {checks:?}", vendor.name);
            assert!(checks.iter().all(|(_, status, _)| status == "ok"), "{}: {checks:?}", vendor.name);
        }
        assert!(clouds.stored(vendor.name).is_empty(), "{}: it changes nothing", vendor.name);
    }
}
