//! A key manager with a Vault-compatible listener, its enclave, and users with policies.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use claviger::auth::enclave::ApiKey;
use claviger::client::Client;
use claviger::client::kms::Commands;
use claviger::kms::Action;
use claviger::kms::wire::{
    AssignPolicyRequest, CreateIdentityRequest, CreatePolicyRequest, IdentityRequest, NameRequest, Rule, RuleSet,
};

use crate::kms::{HSM, client, root};
use crate::support::openbao::Admin;
use crate::support::{TestServer, block_on, certs};

/// The enclave of requests that name none.
pub const ENCLAVE: &str = "tenant";

pub struct Door {
    pub server: TestServer,
    pub address: SocketAddr,
    data: tempfile::TempDir,
}

/// The settings with that enclave, unless they name another.
fn with_enclave(more: &str) -> String {
    if more.contains("enclave:") { more.to_owned() } else { format!(", enclave: {ENCLAVE}{more}") }
}

/// Everything that clients do with keys.
pub const ALL: &[&str] =
    &["KEY:CREATE", "KEY:DELETE", "KEY:STATUS", "KEY:LIST", "KEY:ENCRYPT", "KEY:DECRYPT", "KEY:GENERATE", "KEY:MAC"];

/// Everything that clients do with the key/value engine.
pub const SECRETS: &[&str] = &["SECRET:READ", "SECRET:WRITE", "SECRET:DELETE", "SECRET:LIST"];

impl Door {
    /// Starts one with an empty enclave. `more` are further settings of the section.
    pub fn start(more: &str) -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let this = Self::start_in(data, &with_enclave(more));
        let request = NameRequest { name: ENCLAVE.into() };
        block_on(this.root().change("", Commands::one(Action::EnclaveCreate, &request))).expect("created");
        this
    }

    /// The same where data may be.
    pub fn start_in(data: tempfile::TempDir, more: &str) -> Self {
        let (key, cert) = (certs("server.key"), certs("server.crt"));
        let config = format!(
            "version: v1\ntls: {{ certs: [ {{ key: {}, cert: {} }} ] }}\n\
             vault: {{ address: '127.0.0.1:0'{more} }}\n",
            key.display(),
            cert.display(),
        );
        let file = data.path().join("kms.yml");
        std::fs::write(&file, config).expect("the config is written");
        let server = TestServer::key_manager(data.path(), HSM, &["--config", file.to_str().expect("UTF-8")]);
        let said = server.stderr();
        let line = said.lines().find_map(|line| line.split_once("Vault API")).expect("where it listens").1;
        let address = line.trim().strip_prefix("https://").expect("an address").parse().expect("an address");
        Self { server, address, data }
    }

    /// Stops it and starts it again over the same data.
    pub fn restart(self, more: &str) -> Self {
        let Self { server, data, .. } = self;
        assert!(server.stop().success());
        Self::start_in(data, &with_enclave(more))
    }

    /// The directory of the data.
    pub fn data(&self) -> &std::path::Path {
        self.data.path()
    }

    /// The administrator, at the key manager's own listener.
    pub fn root(&self) -> Client {
        client(&self.server, &root())
    }

    /// Makes a user with a policy of these actions on names that match.
    pub fn user(&self, policy: &str, actions: &[&str], pattern: &str) -> ApiKey {
        let key = ApiKey::generate().expect("random bytes");
        self.admit(&key.identity().to_string(), policy, actions, pattern);
        key
    }

    /// The same for an identity that is there.
    pub fn admit(&self, identity: &str, policy: &str, actions: &[&str], pattern: &str) {
        let rules = || RuleSet { rules: [(pattern.to_owned(), Rule {})].into() };
        let allow: BTreeMap<_, _> = actions.iter().map(|action| ((*action).to_owned(), rules())).collect();
        let create = CreatePolicyRequest { name: policy.into(), allow, deny: BTreeMap::new() };
        let made = CreateIdentityRequest {
            identity: identity.into(),
            privilege: "User".into(),
            ..CreateIdentityRequest::default()
        };
        let assign = AssignPolicyRequest { identity: identity.into(), policy: policy.into() };
        let commands = Commands::one(Action::PolicyCreate, &create)
            .and(Action::IdentityCreate, &made)
            .and(Action::PolicyAssign, &assign);
        block_on(self.root().change(ENCLAVE, commands)).expect("made");
    }

    /// Removes a user.
    pub fn remove(&self, identity: &str) {
        let request = IdentityRequest { identity: identity.into() };
        block_on(self.root().change(ENCLAVE, Commands::one(Action::IdentityDelete, &request))).expect("removed");
    }

    /// A client of the listener with this token.
    pub fn with_token(&self, token: &str) -> Admin {
        Admin { endpoint: format!("https://{}", self.address), token: token.into() }
    }
}
