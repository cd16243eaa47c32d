//! What goes over the wire: paths, methods, encodings, lengths, errors.

use claviger::auth::enclave::ApiKey;
use claviger::kms::Action;
use claviger::kms::wire::{
    CreateKeyRequest, ErrResponse, GenerateKeyRequest, GenerateKeyResponse, KeyStatus, KeyVersionRequest, NameRequest,
    VersionResponse, append, frames,
};
use prost::Message;

use super::{ENCLAVE, HSM, client, create_enclave, create_key, root};
use crate::support::client::Request;
use crate::support::{Client, Identity, Protocol, Response, TestServer, block_on, eventually};

const BINARY: &str = "application/octet-stream";

struct Fixture {
    server: TestServer,
    _data: tempfile::TempDir,
}

impl Fixture {
    fn start() -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let server = TestServer::key_manager(data.path(), HSM, &[]);
        block_on(async {
            let client = client(&server, &root());
            create_enclave(&client).await;
            create_key(&client, "my-key", false).await.expect("created");
        });
        Self { server, _data: data }
    }

    fn as_key(&self, key: &ApiKey, protocol: Protocol) -> Client {
        Client::new(self.server.address(), Some(Identity::enclave(key)), protocol)
    }

    fn root(&self) -> Client {
        self.as_key(&root(), Protocol::H2)
    }

    fn stranger(&self) -> Client {
        self.as_key(&ApiKey::generate().expect("random bytes"), Protocol::H2)
    }

    fn anonymous(&self) -> Client {
        Client::new(self.server.address(), None, Protocol::H2)
    }
}

fn body(commands: &[(Action, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    commands.iter().for_each(|(action, message)| append(action.number(), message, &mut body));
    body
}

fn post(path: &str, body: Vec<u8>) -> Request {
    Request::new("POST", path).header("Accept", BINARY).body(body)
}

async fn send(client: &Client, request: Request) -> Response {
    let response = client.send(request).await.expect("an answer");
    let length = response.headers.get("content-length").map(|length| length.parse().expect("a number"));
    assert_eq!(length, Some(response.body.len()), "{:?}", response.headers);
    response
}

fn error(response: &Response) -> String {
    assert_eq!(response.headers["content-type"], BINARY);
    ErrResponse::decode(response.body.clone()).expect("an error").message
}

fn generate() -> Vec<u8> {
    GenerateKeyRequest { name: "my-key".into(), ..GenerateKeyRequest::default() }.encode_to_vec()
}

#[test]
fn a_version_is_told_to_everybody_in_the_encoding_that_they_name() {
    let fixture = Fixture::start();
    block_on(async {
        let json = send(&fixture.anonymous(), Request::new("GET", "/version")).await;
        assert_eq!((json.status, json.headers["content-type"].as_str()), (200, "application/json"));
        assert_eq!(json.json()["host"], fixture.server.address().to_string());
        assert_eq!(json.json()["api_version"], "v1");
        let any = send(&fixture.anonymous(), Request::new("GET", "/version").header("Accept", "*/*")).await;
        assert_eq!(any.headers["content-type"], "application/json");
        for accept in [BINARY, "application/*"] {
            let binary = send(&fixture.anonymous(), Request::new("GET", "/version").header("Accept", accept)).await;
            assert_eq!(binary.headers["content-type"], BINARY);
            let version = VersionResponse::decode(binary.body).expect("a version");
            assert_eq!(version.host, fixture.server.address().to_string());
        }
    });
}

#[test]
fn replies_come_in_the_order_of_the_commands_over_either_protocol() {
    let fixture = Fixture::start();
    let status = KeyVersionRequest { name: "my-key".into(), version: 1 }.encode_to_vec();
    let commands =
        body(&[(Action::KeyStatus, &status), (Action::KeyGenerate, &generate()), (Action::KeyStatus, &status)]);
    block_on(async {
        for protocol in Protocol::ALL {
            let client = fixture.as_key(&root(), protocol);
            let response = send(&client, post("/v1/kms/tenant", commands.clone())).await;
            assert_eq!((response.status, response.headers["content-type"].as_str()), (200, BINARY));
            let replies: Vec<_> = frames(&response.body).map(|frame| frame.expect("whole")).collect();
            assert_eq!(replies.iter().map(|reply| reply.command).collect::<Vec<_>>(), [204, 207, 204]);
            assert_eq!(KeyStatus::decode(replies[0].message).expect("a status").name, "my-key");
            assert_eq!(GenerateKeyResponse::decode(replies[1].message).expect("a key").plaintext.len(), 32);
        }
    });
}

#[test]
fn messages_are_json_for_who_does_not_name_protobuf() {
    let fixture = Fixture::start();
    let status = KeyVersionRequest { name: "my-key".into(), version: 1 }.encode_to_vec();
    block_on(async {
        let request = Request::new("POST", "/v1/kms/tenant").body(body(&[(Action::KeyStatus, &status)]));
        let response = send(&fixture.root(), request).await;
        assert_eq!(response.headers["content-type"], "application/json");
        let reply = frames(&response.body).next().expect("a reply").expect("whole");
        let status: serde_json::Value = serde_json::from_slice(reply.message).expect("JSON");
        assert_eq!(
            (status["name"].as_str(), status["version"].as_u64(), status["type"].is_string()),
            (Some("my-key"), Some(1), true)
        );
        assert!(status["created_at"].as_str().is_some_and(|time| time.ends_with('Z')));
        let refused =
            send(&fixture.root(), Request::new("POST", "/v1/kms/nowhere").body(body(&[(Action::KeyStatus, b"")])))
                .await;
        assert_eq!((refused.status, refused.text()), (404, r#"{"message":"enclave does not exist"}"#));
        assert_eq!(refused.headers["content-type"], "application/json");
    });
}

#[test]
fn a_write_is_answered_with_nothing() {
    let fixture = Fixture::start();
    let request = CreateKeyRequest { name: "another".into(), ..CreateKeyRequest::default() }.encode_to_vec();
    block_on(async {
        let response = send(&fixture.root(), post("/v1/kms/tenant", body(&[(Action::KeyCreate, &request)]))).await;
        assert_eq!((response.status, response.body.len()), (200, 0));
        let again = send(&fixture.root(), post("/v1/kms/tenant", body(&[(Action::KeyCreate, &request)]))).await;
        assert_eq!((again.status, error(&again).as_str()), (409, "key already exists"));
    });
}

#[test]
fn requests_that_make_no_sense_are_refused_and_nothing_is_applied() {
    let fixture = Fixture::start();
    let create = CreateKeyRequest { name: "made".into(), ..CreateKeyRequest::default() }.encode_to_vec();
    let made = body(&[(Action::KeyCreate, &create)]);
    let mut unknown = made.clone();
    append(999, b"", &mut unknown);
    block_on(async {
        for (bad, text) in [
            (Vec::new(), "the request holds no command"),
            (made[..made.len() - 1].to_vec(), "the request ends within a command"),
            (unknown, "there is no command 999"),
            (
                body(&[(Action::KeyCreate, &create), (Action::KeyList, b"")]),
                "a request holds either reads or writes, not both",
            ),
            (body(&[(Action::KeyCreate, b"\xff")]), "invalid message"),
        ] {
            let response = send(&fixture.root(), post("/v1/kms/tenant", bad)).await;
            assert_eq!((response.status, error(&response).as_str()), (400, text));
        }
        let status = body(&[(Action::KeyStatus, &NameRequest { name: "made".into() }.encode_to_vec())]);
        let response = send(&fixture.root(), post("/v1/kms/tenant", status)).await;
        assert_eq!((response.status, error(&response).as_str()), (404, "key does not exist"));
        let large = send(&fixture.root(), post("/v1/kms/tenant", vec![0; 1_000_001])).await;
        assert_eq!(large.status, 413);
    });
}

#[test]
fn whoever_may_not_is_told_nothing_else() {
    let fixture = Fixture::start();
    block_on(async {
        for path in ["/v1/kms/tenant", "/v1/kms/nowhere", "/v1/kms/"] {
            let response = send(&fixture.stranger(), post(path, body(&[(Action::KeyGenerate, &generate())]))).await;
            assert_eq!((response.status, error(&response).as_str()), (403, "access denied: insufficient permissions"));
        }
        for (method, path) in [
            ("GET", "/v1/db"),
            ("PUT", "/v1/db"),
            ("POST", "/v1/debug/log"),
            ("POST", "/v1/debug/restart"),
            ("GET", "/v1/debug/pprof"),
            ("GET", "/v1/health/metrics"),
        ] {
            let refused = send(&fixture.stranger(), Request::new(method, path).header("Accept", BINARY)).await;
            assert_eq!(
                (refused.status, error(&refused).as_str()),
                (403, "access denied: insufficient permissions"),
                "{path}"
            );
            let nobody = send(&fixture.anonymous(), Request::new(method, path).header("Accept", BINARY)).await;
            assert_eq!(
                (nobody.status, error(&nobody).as_str()),
                (400, "tls: client certificate is required"),
                "{path}"
            );
        }
    });
}

#[test]
fn audit_events_and_the_log_name_identities_as_clients_do() {
    let fixture = Fixture::start();
    let stranger = ApiKey::generate().expect("random bytes");
    block_on(async {
        send(&fixture.as_key(&stranger, Protocol::H2), Request::new("GET", "/v1/db")).await;
    });
    let identity = stranger.identity();
    eventually("the audit event", || fixture.server.stdout().contains(&format!("\"identity\":\"{identity}\"}}")));
    eventually("the denial in the log", || fixture.server.stderr().contains(&format!("\"identity\":\"{identity}\"")));
}

#[test]
fn the_server_says_how_it_is() {
    let fixture = Fixture::start();
    block_on(async {
        for path in ["/v1/health/live", "/v1/health/ready", "/v1/health/ready?write"] {
            assert_eq!(send(&fixture.anonymous(), Request::new("GET", path)).await.status, 200, "{path}");
        }
        let metrics = send(&fixture.root(), Request::new("GET", "/v1/health/metrics")).await;
        assert!(
            metrics.text().contains("claviger_kms_commit 2\n") && metrics.text().contains("claviger_kms_writable 1\n")
        );
        for (method, path) in [
            ("POST", "/v1/debug/restart"),
            ("GET", "/v1/debug/pprof"),
            ("POST", "/v1/debug/pprof"),
            ("DELETE", "/v1/debug/pprof"),
        ] {
            let response = send(&fixture.root(), Request::new(method, path).header("Accept", BINARY)).await;
            assert_eq!(response.status, 501, "{method} {path}: {}", error(&response));
        }
        let wrong = send(&fixture.root(), Request::new("GET", "/v1/kms/tenant")).await;
        assert_eq!((wrong.status, wrong.headers["accept"].as_str()), (405, "POST"));
        let wrong = send(&fixture.root(), Request::new("DELETE", "/v1/db")).await;
        assert_eq!(wrong.status, 405);
    });
}

#[test]
fn the_path_of_no_enclave_may_lack_its_slash() {
    let fixture = Fixture::start();
    block_on(async {
        for path in ["/v1/kms/", "/v1/kms"] {
            let response = send(&fixture.root(), post(path, body(&[(Action::EnclaveList, b"")]))).await;
            assert_eq!(response.status, 200, "{path}");
        }
        let status = body(&[(Action::EnclaveStatus, &NameRequest { name: ENCLAVE.into() }.encode_to_vec())]);
        assert_eq!(send(&fixture.root(), post("/v1/kms/", status)).await.status, 200);
    });
}
