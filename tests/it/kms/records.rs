//! Who did what, and who was not allowed to: the log names every change, audit events name every command.

use claviger::auth::enclave::ApiKey;
use claviger::client::Client;
use claviger::client::kms::Commands;
use claviger::kms::Action;
use claviger::kms::wire::{
    AssignPolicyRequest, CreateIdentityRequest, CreateKeyRequest, CreatePolicyRequest, DeleteKeyRequest,
    GenerateKeyRequest, GenerateKeyResponse, KeyStatus, KeyVersionRequest, Rule, RuleSet,
};
use serde_json::{Value, json};

use super::{ENCLAVE, HSM, client, create_enclave, create_key, root};
use crate::support::{TestServer, block_on, eventually};

struct Fixture {
    server: TestServer,
    root: Client,
    _data: tempfile::TempDir,
}

impl Fixture {
    fn start() -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let server = TestServer::key_manager(data.path(), HSM, &[]);
        let root = client(&server, &root());
        Self { server, root, _data: data }
    }

    /// A user who may ask for the status of keys.
    async fn user(&self) -> (ApiKey, Client) {
        let key = ApiKey::generate().expect("random bytes");
        let identity = key.identity().to_string();
        let allow = RuleSet { rules: [("*".to_owned(), Rule {})].into() };
        let allow = [(Action::KeyStatus.to_string(), allow)].into();
        let commands = Commands::default()
            .and(Action::PolicyCreate, &CreatePolicyRequest { name: "status".into(), allow, ..Default::default() })
            .and(
                Action::IdentityCreate,
                &CreateIdentityRequest { identity: identity.clone(), ..CreateIdentityRequest::default() },
            )
            .and(Action::PolicyAssign, &AssignPolicyRequest { identity, policy: "status".into() });
        self.root.change(ENCLAVE, commands).await.expect("set up");
        let client = client(&self.server, &key);
        (key, client)
    }

    /// The audit events that `wanted` wants, once there are that many.
    fn events(&self, count: usize, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let all = || {
            let stdout = self.server.stdout();
            let lines = stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.filter(&wanted).collect::<Vec<_>>()
        };
        eventually("the audit events", || all().len() >= count);
        all()
    }
}

fn create(name: &str) -> CreateKeyRequest {
    CreateKeyRequest { name: name.into(), ..CreateKeyRequest::default() }
}

fn delete(name: &str) -> DeleteKeyRequest {
    DeleteKeyRequest { name: name.into(), all_versions: true, version: 0 }
}

fn status(name: &str) -> KeyVersionRequest {
    KeyVersionRequest { name: name.into(), version: 0 }
}

#[test]
fn no_change_hides_behind_others_of_its_request() {
    let fixture = Fixture::start();
    block_on(async {
        create_enclave(&fixture.root).await;
        create_key(&fixture.root, "victim", false).await.expect("created");
        let harmless: Vec<_> = (0..400).map(|n| create(&format!("harmless-{n}"))).collect();
        let commands = Commands::default()
            .and_all(Action::KeyCreate, &harmless)
            .and(Action::KeyDelete, &delete("victim"))
            .and_all(Action::KeyDelete, &(0..400).map(|n| delete(&format!("harmless-{n}"))).collect::<Vec<_>>());
        fixture.root.change(ENCLAVE, commands).await.expect("done");
    });
    eventually("the last change is in the log", || fixture.server.stderr().contains("KEY:DELETE harmless-399 "));
    let log = fixture.server.stderr();
    assert_eq!(log.matches("KEY:DELETE victim (all versions)").count(), 1);
    for n in 0..400 {
        assert_eq!(log.matches(&format!("KEY:DELETE harmless-{n} (all versions)")).count(), 1, "{n}");
    }
    assert!(log.lines().all(|line| line.len() < 4_096), "a record of the log is at most 4 KiB");

    let of_batch = |event: &Value| event["parts"].is_number();
    let parts = fixture.events(1, of_batch)[0]["parts"].as_u64().and_then(|n| usize::try_from(n).ok());
    let events = fixture.events(parts.expect("a number"), of_batch);
    let commands: Vec<_> = events.iter().flat_map(|event| event["commands"].as_array().expect("commands")).collect();
    assert_eq!(commands.len(), 801);
    let victim = json!({ "action": "KEY:DELETE", "name": "victim", "detail": "all versions" });
    assert_eq!(*commands[400], victim);
}

#[test]
fn an_audit_event_says_who_used_which_key() {
    let fixture = Fixture::start();
    block_on(async {
        create_enclave(&fixture.root).await;
        create_key(&fixture.root, "k", false).await.expect("created");
        let generate = GenerateKeyRequest { name: "k".into(), ..GenerateKeyRequest::default() };
        let three = vec![generate; 3];
        let made: Vec<GenerateKeyResponse> =
            fixture.root.ask_all(ENCLAVE, Action::KeyGenerate, &three).await.expect("made");
        assert_eq!(made.len(), 3);
    });
    let by_root = |event: &Value| event["request"]["identity"] == root().identity().to_string().as_str();
    let events = fixture.events(3, by_root);
    let told: Vec<_> = events.iter().map(|event| (&event["enclave"], &event["commands"])).collect();
    let (none, enclave) = (&Value::Null, &json!(ENCLAVE));
    assert_eq!(told[0], (none, &json!([{ "action": "ENCLAVE:CREATE", "name": ENCLAVE }])));
    assert_eq!(told[1], (enclave, &json!([{ "action": "KEY:CREATE", "name": "k" }])));
    assert_eq!(told[2], (enclave, &json!([{ "action": "KEY:GENERATE", "name": "k", "times": 3 }])));
}

#[test]
fn what_is_denied_is_in_the_log_and_in_an_audit_event() {
    let fixture = Fixture::start();
    let (key, stranger) = block_on(async {
        create_enclave(&fixture.root).await;
        create_key(&fixture.root, "k", false).await.expect("created");
        let (key, user) = fixture.user().await;
        let allowed: KeyStatus = user.ask(ENCLAVE, Action::KeyStatus, &status("k")).await.expect("allowed");
        assert_eq!(allowed.name, "k");
        let refused = user.change(ENCLAVE, Commands::one(Action::KeyDelete, &delete("k"))).await;
        assert_eq!(refused.expect_err("denied").status().map(|status| status.as_u16()), Some(403));
        let generate = GenerateKeyRequest { name: "k".into(), ..GenerateKeyRequest::default() };
        let refused = user.ask::<GenerateKeyResponse>(ENCLAVE, Action::KeyGenerate, &generate).await;
        assert!(refused.is_err());
        let stranger = ApiKey::generate().expect("random bytes");
        let ask = client(&fixture.server, &stranger).ask::<KeyStatus>(ENCLAVE, Action::KeyStatus, &status("k")).await;
        assert!(ask.is_err());
        (key, stranger)
    });
    let lines = |key: &ApiKey| {
        let identity = format!("\"identity\":\"{}\"", key.identity());
        let denied = |line: &&str| line.contains("denied\"") && line.contains(&identity);
        fixture.server.stderr().lines().filter(denied).map(str::to_owned).collect::<Vec<_>>()
    };
    eventually("the denials are in the log", || lines(&key).len() == 2 && lines(&stranger).len() == 1);
    let denied = lines(&key);
    let command = |command: &str| format!("\"command\":\"{command}\"");
    assert!(denied[0].contains(&command("KEY:DELETE k")) && denied[1].contains(&command("KEY:GENERATE k")));
    assert!(denied.iter().all(|line| line.contains(&format!("\"path\":\"/v1/kms/{ENCLAVE}\""))), "{denied:?}");

    let events = fixture.events(3, |event| event["request"]["identity"] == key.identity().to_string().as_str());
    let told: Vec<_> =
        events.iter().map(|event| (event["response"]["code"].as_u64(), &event["commands"][0]["action"])).collect();
    assert_eq!(told[0], (Some(200), &json!("KEY:STATUS")));
    assert_eq!(told[1], (Some(403), &json!("KEY:DELETE")));
    assert_eq!(told[2], (Some(403), &json!("KEY:GENERATE")));
}
