//! Settings of a config file that the archived server does not know.

use super::Finding;
use super::finding::Weight;
use super::path::Path;
use super::read::Problem;
use super::source::Source;
use super::yaml::{self, Node, Value};

/// Every setting that it knows. `*` is any key.
const KNOWN: &str = "
version: x
address: x
admin: { identity: x }
tls: { key: x, cert: x, password: x, auth: x, ca: x, proxy: { identities: [], header: { cert: x } } }
cache: { expiry: { any: x, unused: x, offline: x } }
api: { '*': { skip_auth: x, timeout: x } }
policy: { '*': { allow: [], deny: [], identities: [] } }
log: { error: x, audit: x }
keys: [ { name: x } ]
keystore:
  fs: { path: x }
  vault:
    endpoint: x
    engine: x
    version: x
    namespace: x
    prefix: x
    transit: { engine: x, key: x }
    approle: { namespace: x, engine: x, id: x, secret: x }
    kubernetes: { namespace: x, engine: x, role: x, jwt: x }
    tls: { key: x, cert: x, ca: x }
    status: { ping: x }
  fortanix: { sdkms: { endpoint: x, group_id: x, credentials: { key: x }, tls: { ca: x } } }
  aws:
    secretsmanager: { endpoint: x, region: x, kmskey: x, credentials: { accesskey: x, secretkey: x, token: x } }
  gemalto: { keysecure: { endpoint: x, credentials: { token: x, domain: x, retry: x }, tls: { ca: x } } }
  gcp:
    secretmanager:
      project_id: x
      endpoint: x
      scopes: []
      credentials: { client_email: x, client_id: x, private_key_id: x, private_key: x }
  azure:
    keyvault:
      endpoint: x
      credentials: { tenant_id: x, client_id: x, client_secret: x }
      managed_identity: { client_id: x }
  entrust:
    keycontrol: { endpoint: x, vault_id: x, box_id: x, credentials: { username: x, password: x }, tls: { ca: x } }
";

/// What it does without a setting that keys depend on.
const LOST: [(&str, &str); 7] = [
    ("keystore.encrypt", "KES does not know this setting and cannot read keys that are sealed"),
    ("keystore.openbao", "KES knows this key store as 'vault' only; write that, which means the same"),
    ("keystore.vault.token", LOGIN),
    ("keystore.vault.userpass", LOGIN),
    ("keystore.vault.jwt", LOGIN),
    ("keystore.vault.cert", LOGIN),
    ("keystore.vault.approle.wrapped", "KES logs in with a secret id that is not wrapped, and does not start"),
];

const LOGIN: &str = "KES logs in to Vault by 'approle' or 'kubernetes' only, and does not start";
const PREFIX: &str = "KES does not know this setting and looks for every key without the prefix";
const STORE: &str = "KES does not have this key store, and does not start";
const IGNORED: &str = "KES does not know this setting and ignores it";

/// Where it takes a variable for a text, and the text for what it says.
const NO_VARIABLES: [&str; 4] = ["version", "api.*.skip_auth", "policy.*.allow", "policy.*.deny"];
const VARIABLE: &str = "KES does not replace variables here; write the value itself";

/// What is an identity for a key manager only.
const SPELLING: &str = "KES knows no identity that is written like this; write the 64 hex digits of the same";

/// What the archived server does not know in a file: a danger where it would not start, or not find keys.
pub(super) fn unknown(source: &Source<'_>) -> Vec<Finding> {
    let known = yaml::parse(KNOWN).expect("it is YAML").0;
    let mut found = Vec::new();
    compare(&source.document.root, &known, &Way::default(), &mut found);
    found.into_iter().map(|problem| source.finding(problem)).collect()
}

/// A path to a value, and the same as it stands in the tables here.
#[derive(Debug, Clone, Default)]
struct Way {
    path: Path,
    general: String,
}

impl Way {
    fn key(&self, key: &str, general: &str) -> Self {
        let dot = if self.general.is_empty() { "" } else { "." };
        Self { path: self.path.clone().key(key), general: format!("{}{dot}{general}", self.general) }
    }

    fn index(&self, index: usize) -> Self {
        Self { path: self.path.clone().index(index), general: self.general.clone() }
    }
}

fn compare(node: &Node, known: &Node, way: &Way, found: &mut Vec<Problem>) {
    let is_variable = node.text().is_some_and(|text| text.starts_with("${"));
    if is_variable && NO_VARIABLES.contains(&way.general.as_str()) {
        found.push(Problem { weight: Weight::Danger, ..Problem::at(way.path.clone(), VARIABLE) });
    }
    if node.text().is_some_and(|text| text.starts_with("h1:")) {
        found.push(Problem { weight: Weight::Danger, ..Problem::at(way.path.clone(), SPELLING) });
    }
    for entry in node.entries() {
        let known = [entry.key.as_str(), "*"].into_iter().find_map(|key| known.entry(key));
        match known {
            Some(known) => compare(&entry.value, &known.value, &way.key(&entry.key, &known.key), found),
            None if says_nothing(&entry.value) => {}
            None => found.push(without(&way.key(&entry.key, &entry.key))),
        }
    }
    for (index, item) in node.items().iter().enumerate() {
        let known = known.items().first().unwrap_or(known);
        compare(item, known, &way.index(index), found);
    }
}

/// Whether it makes no difference that something stands there.
fn says_nothing(node: &Node) -> bool {
    match &node.value {
        Value::Null | Value::Struck => true,
        Value::Scalar(scalar) => scalar.text.is_empty(),
        Value::List(items) => items.iter().all(says_nothing),
        Value::Map(entries) => entries.iter().all(|entry| says_nothing(&entry.value)),
    }
}

fn without(way: &Way) -> Problem {
    let lost = LOST.iter().find(|(key, _)| *key == way.general).map(|(_, message)| *message);
    let below = way.general.strip_prefix("keystore.");
    let store = below.filter(|below| !below.contains('.')).map(|_| STORE);
    let prefix = below.filter(|below| below.ends_with(".prefix")).map(|_| PREFIX);
    let (message, weight) = match lost.or(store).or(prefix) {
        Some(message) => (message, Weight::Danger),
        None => (IGNORED, Weight::Plain),
    };
    Problem { weight, ..Problem::at_key(way.path.clone(), message) }
}
