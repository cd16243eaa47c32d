//! What the archived servers wrote, read through the API of the real program: its key store holds every
//! key file of `testdata/stored-keys`.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::client::{Request, Session};
use crate::support::server::{copy_fixture, fixture_config};
use crate::support::{Client, Identity, Protocol, Response, TestServer, block_on, testdata};

const NOT_AUTHENTIC: &str = "decryption failed: ciphertext is not authentic";

/// The versions that wrote `ciphertexts/<version>.json`.
const VERSIONS: [&str; 13] = [
    "v0.10.1",
    "v0.11.0",
    "v0.13.6",
    "v0.17.6",
    "v0.18.0",
    "v0.19.4",
    "v0.20.0",
    "v0.22.3",
    "2023-05-02T22-48-10Z",
    "2024-01-11T13-09-29Z",
    "2024-02-29T08-12-28Z",
    "2024-03-28T12-56-37Z",
    "HEAD",
];

#[derive(Deserialize)]
struct KeyFile {
    file: String,
    name: String,
    head_describe: Value,
}

#[derive(Deserialize)]
struct Ciphertext {
    id: String,
    key: String,
    context: Option<String>,
    plaintext: String,
    ciphertext: String,
    head_decrypts: bool,
}

#[derive(Deserialize)]
struct Cases<T> {
    cases: Vec<T>,
}

fn load<T: DeserializeOwned>(path: &str) -> T {
    let text = std::fs::read(testdata(path)).expect("readable");
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn by_version() -> Vec<Ciphertext> {
    VERSIONS.iter().flat_map(|version| load::<Vec<_>>(&format!("ciphertexts/{version}.json"))).collect()
}

fn server() -> TestServer {
    let directory = tempfile::tempdir().expect("a temporary directory");
    copy_fixture(directory.path());
    for key in load::<Vec<KeyFile>>("stored-keys/manifest.json") {
        let target = directory.path().join("keys").join(key.name);
        std::fs::copy(testdata("stored-keys").join(key.file), target).expect("the key's file");
    }
    TestServer::start_in(directory, &fixture_config(|config| config))
}

async fn session(server: &TestServer, protocol: Protocol) -> Session {
    let client = Client::new(server.address(), Some(Identity::fixture("admin")), protocol);
    client.session().await.expect("a connection")
}

async fn decrypt(session: &mut Session, key: &str, ciphertext: &str, context: Option<&str>) -> Response {
    let mut body = json!({ "ciphertext": ciphertext });
    if let Some(context) = context {
        body["context"] = context.into();
    }
    let request = Request::new("PUT", &format!("/v1/key/decrypt/{key}"));
    session.send(request.body(body.to_string())).await.expect("an answer")
}

async fn assert_decrypts(session: &mut Session, case: &Ciphertext) {
    let response = decrypt(session, &case.key, &case.ciphertext, case.context.as_deref()).await;
    assert_eq!(response.status, 200, "{}: {}", case.id, response.text());
    assert_eq!(response.json(), json!({ "plaintext": case.plaintext }), "{}", case.id);
}

#[test]
fn every_ciphertext_decrypts() {
    let (server, cases) = (server(), by_version());
    assert_eq!(cases.len(), 341);
    // Not only what the last archived server can still read.
    assert_eq!(cases.iter().filter(|case| !case.head_decrypts).count(), 70);
    for protocol in Protocol::ALL {
        block_on(async {
            let mut session = session(&server, protocol).await;
            for case in &cases {
                assert_decrypts(&mut session, case).await;
            }
        });
    }
}

#[test]
fn odd_ciphertexts_are_read_as_the_archived_server_reads_them() {
    let server = server();
    let Cases { cases } = load::<Cases<Ciphertext>>("ciphertexts/cross-version.json");
    assert_eq!(cases.len(), 18);
    let first_byte: Vec<Ciphertext> = load("ciphertexts/first-byte.json");
    assert_eq!(first_byte.len(), 24);
    let variants: Vec<Ciphertext> = load("ciphertexts/variants.json");
    assert_eq!(variants.len(), 61);
    block_on(async {
        let mut session = session(&server, Protocol::H2).await;
        for case in cases.iter().chain(&first_byte) {
            assert_decrypts(&mut session, case).await;
        }
        for case in &variants {
            if case.head_decrypts {
                assert_decrypts(&mut session, case).await;
            } else {
                let response = decrypt(&mut session, &case.key, &case.ciphertext, case.context.as_deref()).await;
                assert_eq!((response.status, response.message().as_str()), (400, NOT_AUTHENTIC), "{}", case.id);
            }
        }
    });
}

#[test]
fn a_large_ciphertext_decrypts() {
    let server = server();
    let ciphertext = STANDARD.encode(std::fs::read(testdata("ciphertexts/large.bin")).expect("readable"));
    let plaintext: Vec<u8> = (0..251).cycle().take(740_000).collect();
    for protocol in Protocol::ALL {
        block_on(async {
            let mut session = session(&server, protocol).await;
            let response = decrypt(&mut session, "head-create", &ciphertext, Some("bGFyZ2U=")).await;
            assert_eq!(response.status, 200, "{protocol:?}");
            assert_eq!(response.json()["plaintext"], STANDARD.encode(&plaintext), "{protocol:?}");
        });
    }
}

/// A change to a ciphertext, as `negative.json` describes it.
#[derive(Deserialize)]
struct Negative {
    base: String,
    #[serde(flatten)]
    change: Change,
    status: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Change {
    Flip { bit: usize },
    Truncate { keep: usize },
    DropFirst { n: usize },
    Append { hex: String },
    Prepend { hex: String },
    Context { context: Option<String> },
}

impl Change {
    /// The changed ciphertext and its context.
    fn apply(&self, case: &Ciphertext) -> (String, Option<String>) {
        let mut bytes = STANDARD.decode(&case.ciphertext).expect("base64");
        let mut context = case.context.clone();
        match self {
            Self::Flip { bit } => bytes[bit >> 3] ^= 0x80 >> (bit & 7),
            Self::Truncate { keep } => bytes.truncate(*keep),
            Self::DropFirst { n } => drop(bytes.drain(..n)),
            Self::Append { hex } => bytes.extend(unhex(hex)),
            Self::Prepend { hex } => drop(bytes.splice(..0, unhex(hex))),
            Self::Context { context: other } => context.clone_from(other),
        }
        (STANDARD.encode(bytes), context)
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |i| u8::from_str_radix(&text[i..i + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(digit).collect()
}

/// Where no tag covers the change (an id, letter case, white space) both answers are fine, but no change
/// ever gives another plaintext.
#[test]
fn no_changed_ciphertext_gives_another_plaintext() {
    let (server, bases) = (server(), by_version());
    let bases: HashMap<&str, &Ciphertext> = bases.iter().map(|case| (case.id.as_str(), case)).collect();
    let Cases { cases } = load::<Cases<Negative>>("ciphertexts/negative.json");
    assert_eq!(cases.len(), 2_864);
    block_on(async {
        let mut sessions = [session(&server, Protocol::H1).await, session(&server, Protocol::H2).await];
        for (n, Negative { base, change, status }) in cases.iter().enumerate() {
            let case = bases[base.as_str()];
            let (ciphertext, context) = change.apply(case);
            let session = &mut sessions[n % 2];
            let response = decrypt(session, &case.key, &ciphertext, context.as_deref()).await;
            match response.status {
                200 => {
                    assert_eq!(*status, Some(200), "{base}: {change:?} was accepted");
                    assert_eq!(response.json(), json!({ "plaintext": case.plaintext }), "{base}: {change:?}");
                }
                status => {
                    assert_eq!((status, response.message().as_str()), (400, NOT_AUTHENTIC), "{base}: {change:?}");
                }
            }
        }
    });
}

#[test]
fn hmacs_are_those_of_the_archived_server() {
    #[derive(Deserialize)]
    struct Hmac {
        key: String,
        message: String,
        hmac: Option<String>,
        status: u16,
        message_text: Option<String>,
    }
    let (server, cases) = (server(), load::<Vec<Hmac>>("hmac/hmac.json"));
    assert_eq!(cases.len(), 112);
    block_on(async {
        let mut session = session(&server, Protocol::H2).await;
        for case in &cases {
            let request = Request::new("PUT", &format!("/v1/key/hmac/{}", case.key));
            let body = json!({ "message": case.message }).to_string();
            let response = session.send(request.body(body)).await.expect("an answer");
            assert_eq!(response.status, case.status, "{}", case.key);
            match (&case.hmac, &case.message_text) {
                (Some(hmac), None) => assert_eq!(response.json()["hmac"], STANDARD.encode(unhex(hmac)), "{}", case.key),
                (None, Some(message)) => assert_eq!(response.message(), *message, "{}", case.key),
                _ => panic!("{}: neither an HMAC nor a message", case.key),
            }
        }
    });
}

#[test]
fn keys_are_described_as_by_the_archived_server() {
    let (server, files) = (server(), load::<Vec<KeyFile>>("stored-keys/manifest.json"));
    assert_eq!(files.len(), 52);
    block_on(async {
        let mut session = session(&server, Protocol::H1).await;
        for KeyFile { name, head_describe, .. } in &files {
            let request = Request::new("GET", &format!("/v1/key/describe/{name}"));
            let response = session.send(request).await.expect("an answer");
            let mut expected = head_describe.clone();
            let expected = expected.as_object_mut().expect("an object");
            assert_eq!(expected.remove("status"), Some(response.status.into()), "{name}");
            expected.insert("name".into(), name.as_str().into());
            expected.retain(|_, value| !value.is_null());
            assert_eq!(response.json(), Value::Object(expected.clone()), "{name}");
        }
    });
}

/// Values made by hand, good and bad ones. What made the archived server panic is an answer of ours.
#[test]
fn odd_stored_keys_are_read_as_by_the_archived_server() {
    #[derive(Deserialize)]
    struct Variant {
        name: String,
        value: Option<String>,
        value_b64: Option<String>,
        status: Option<u16>,
        body: Option<Value>,
        hmac_status: Option<u16>,
    }
    let Cases { cases } = load::<Cases<Variant>>("stored-keys/variants.json");
    assert_eq!(cases.len(), 55);
    let server = server();
    for case in &cases {
        let value = case.value_b64.as_ref().map(|text| STANDARD.decode(text).expect("base64"));
        let value = value.or(case.value.clone().map(String::into_bytes)).expect("a value");
        std::fs::write(server.keys().join(&case.name), value).expect("the key is written");
    }
    block_on(async {
        let mut session = session(&server, Protocol::H2).await;
        for case in &cases {
            let request = Request::new("GET", &format!("/v1/key/describe/{}", case.name));
            let response = session.send(request).await.expect("an answer");
            let Some(status) = case.status else {
                // Empty, or without HMAC key: no panic, but an error or a key without HMAC.
                assert!(matches!(response.status, 200 | 502), "{}: {}", case.name, response.status);
                continue;
            };
            assert_eq!(response.status, status, "{}: {}", case.name, response.text());
            if let (200, Some(body)) = (status, &case.body) {
                assert_eq!(response.json(), *body, "{}", case.name);
            }
            if let Some(status) = case.hmac_status {
                let request = Request::new("PUT", &format!("/v1/key/hmac/{}", case.name)).body("{}");
                assert_eq!(session.send(request).await.expect("an answer").status, status, "{}", case.name);
            }
        }
    });
}
