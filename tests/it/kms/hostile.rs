//! Users who mean harm: what they send is refused, and takes nothing from others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use claviger::auth::enclave::ApiKey;
use claviger::client::Client;
use claviger::client::kms::Commands;
use claviger::kms::Action;
use claviger::kms::wire::{
    AssignPolicyRequest, CreateIdentityRequest, CreateKeyRequest, CreatePolicyRequest, ImportKeyRequest, NameRequest,
    Rule, RuleSet, StoredVersion,
};

use super::{ENCLAVE, HSM, client, create_enclave, create_key, root};
use crate::support::client::Request;
use crate::support::{Protocol, TestServer, block_on};

/// A user of the enclave who may do this to all names, and nothing else.
async fn user(server: &TestServer, action: &str) -> Client {
    let (root, key) = (client(server, &root()), ApiKey::generate().expect("random bytes"));
    let rules = RuleSet { rules: [("*".to_owned(), Rule {})].into() };
    let allow = [(action.to_owned(), rules)].into();
    let policy = CreatePolicyRequest { name: "p".into(), allow, ..CreatePolicyRequest::default() };
    let identity = key.identity().to_string();
    let commands = Commands::one(Action::PolicyCreate, &policy)
        .and(Action::IdentityCreate, &CreateIdentityRequest { identity: identity.clone(), ..Default::default() })
        .and(Action::PolicyAssign, &AssignPolicyRequest { identity, policy: "p".into() });
    root.change(ENCLAVE, commands).await.expect("set up");
    client(server, &key)
}

fn status(refused: Result<(), claviger::client::Error>) -> Option<u16> {
    refused.err().and_then(|error| error.status()).map(|status| status.as_u16())
}

/// Stored keys that were made in the year -23, without and with an HMAC key.
const STRANGE: [&str; 2] = [
    "CiQKIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHEAEaCwiAg9vblf7///8B",
    "CiQKIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHEAESJAogBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcQARoLCICD29uV/v///wE=",
];

#[test]
fn a_key_of_a_year_that_there_is_not_stops_nobody() {
    let data = tempfile::tempdir().expect("a directory");
    let server = TestServer::key_manager(data.path(), HSM, &[]);
    block_on(async {
        let root = client(&server, &root());
        create_enclave(&root).await;
        let user = user(&server, "KEY:IMPORT").await;
        for (nth, key) in STRANGE.iter().enumerate() {
            let version = StoredVersion { number: 1, key: key.as_bytes().to_vec(), imported: false };
            let import = ImportKeyRequest::whole(format!("x-{nth}"), vec![version], 0);
            let refused = user.change(ENCLAVE, Commands::one(Action::KeyImport, &import)).await;
            assert_eq!(status(refused), Some(400), "{key}");
        }
        create_key(&root, "after", false).await.expect("others still write");
        root.backup().await.expect("and can have a backup");
        let anybody = crate::support::Client::new(server.address(), None, Protocol::H2);
        let ready = anybody.send(Request::new("GET", "/v1/health/ready?write")).await.expect("an answer");
        assert_eq!(ready.status, 200);
    });
    assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
}

#[test]
fn ninety_thousand_commands_in_one_request_are_refused_at_once() {
    let data = tempfile::tempdir().expect("a directory");
    let server = TestServer::key_manager(data.path(), HSM, &[]);
    block_on(async {
        let root = client(&server, &root());
        create_enclave(&root).await;
        create_key(&root, "k", false).await.expect("created");
        let user = user(&server, "KEY:CREATE").await;
        let rotate = CreateKeyRequest { name: "k".into(), add_version: true, ..CreateKeyRequest::default() };
        let many = vec![rotate; 90_000];
        let since = Instant::now();
        let refused = user.change(ENCLAVE, Commands::default().and_all(Action::KeyCreate, &many)).await;
        assert_eq!(status(refused), Some(400));
        // It was 43 seconds for the first and minutes for the next, in which nobody could write.
        assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
        let a_request = Commands::default().and_all(Action::KeyCreate, &many[..1_000]);
        user.change(ENCLAVE, a_request).await.expect("as many as a request may hold");
    });
}

#[test]
fn an_enclave_that_is_asked_for_much_does_not_keep_the_others_waiting() {
    const FLOOD: usize = 24;
    let data = tempfile::tempdir().expect("a directory");
    let server = TestServer::key_manager(data.path(), HSM, &[]);
    block_on(async {
        let root = Arc::new(client(&server, &root()));
        create_enclave(&root).await;
        let quiet = NameRequest { name: "quiet".into() };
        root.change("", Commands::one(Action::EnclaveCreate, &quiet)).await.expect("created");
        // Keys of which each change writes thousands of versions.
        let version = |number| StoredVersion { number, key: STORED.as_bytes().to_vec(), imported: false };
        let names: Vec<_> = (0..2).map(|n| format!("k-{n}")).collect();
        for name in &names {
            let import = ImportKeyRequest::whole(name.clone(), (1..=3_900).map(version).collect(), 0);
            root.change(ENCLAVE, Commands::one(Action::KeyImport, &import)).await.expect("imported");
        }
        let rotate = |name: &String| CreateKeyRequest { name: name.clone(), add_version: true, ..Default::default() };
        let all: Vec<_> = names.iter().map(rotate).collect();
        let done = Arc::new(AtomicUsize::new(0));
        let flood: Vec<_> = (0..FLOOD)
            .map(|_| {
                let (root, done, all) = (root.clone(), done.clone(), all.clone());
                tokio::spawn(async move {
                    // Some may be too late, as on a slow machine: they are done all the same.
                    let _ = root.change(ENCLAVE, Commands::default().and_all(Action::KeyCreate, &all)).await;
                    done.fetch_add(1, Ordering::Relaxed);
                })
            })
            .collect();
        while done.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let key = CreateKeyRequest { name: "mine".into(), ..CreateKeyRequest::default() };
        root.change("quiet", Commands::one(Action::KeyCreate, &key)).await.expect("created");
        let served_before = done.load(Ordering::Relaxed);
        assert!(served_before < FLOOD / 2, "{served_before} of {FLOOD} came first");
        for one in flood {
            one.await.expect("no panic");
        }
    });
}

/// A stored key.
const STORED: &str =
    "CiQKIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHEAESJAogBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcQARoGCIDiz6oG";
