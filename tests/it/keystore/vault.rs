//! Vault as key store: the real OpenBao, with the logins and the rights that operators have.

mod suite;

use std::sync::Arc;

use serde_json::{Value, json};

use claviger::config::Config;
use claviger::keystore::{self, KeyStore};

use crate::support::openbao::OpenBao;

/// A place for keys in an OpenBao, and a role that has the rights to it.
struct Place {
    namespace: Option<String>,
    engine: String,
    version: u8,
    prefix: &'static str,
    /// The id and the secret.
    role: (String, String),
}

/// What the policy of a role is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rights {
    /// What the documentation says that a server needs.
    Server,
    /// Replacing keys, too.
    Replace,
}

impl Place {
    /// A place in the root namespace for a server.
    fn new(bao: &OpenBao, version: u8) -> Self {
        Self::within(bao, None, version, Rights::Server, "", json!({}))
    }

    /// `more` is more of the role's policy, `settings` are those of the role.
    fn within(
        bao: &OpenBao,
        namespace: Option<&str>,
        version: u8,
        rights: Rights,
        more: &str,
        settings: Value,
    ) -> Self {
        let (engine, prefix) = (bao.kv(namespace, version), "team/keys");
        let policy = format!("{}\n{more}", policy(&engine, prefix, version, rights));
        let role = bao.role(namespace, &policy, settings);
        Self { namespace: namespace.map(Into::into), engine, version, prefix, role }
    }

    /// The section of the key store without a login.
    fn section(&self, endpoint: &str) -> Value {
        json!({
            "endpoint": endpoint,
            "engine": self.engine,
            "version": format!("v{}", self.version),
            "namespace": self.namespace.as_deref().unwrap_or_default(),
            "prefix": self.prefix,
        })
    }

    /// The section with a login by the role.
    fn by_role(&self, endpoint: &str) -> Value {
        let mut section = self.section(endpoint);
        section["approle"] = json!({ "id": self.role.0, "secret": self.role.1 });
        section
    }
}

/// The policy that gives these rights and no other.
fn policy(engine: &str, prefix: &str, version: u8, rights: Rights) -> String {
    let update = if rights == Rights::Replace { "\"update\", " } else { "" };
    match version {
        1 => format!(r#"path "{engine}/{prefix}/*" {{ capabilities = ["create", "read", {update}"delete", "list"] }}"#),
        // Replacing needs nothing more: the name is freed, and used again.
        _ => format!(
            r#"path "{engine}/data/{prefix}/*" {{ capabilities = ["create", "read"] }}
path "{engine}/metadata/{prefix}/*" {{ capabilities = ["delete", "list"] }}"#
        ),
    }
}

/// The key store that such a section of a config file makes.
async fn connect(section: &Value) -> Result<Arc<dyn KeyStore>, keystore::Error> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("config.yml");
    // JSON is YAML.
    std::fs::write(&file, json!({ "keystore": { "vault": section } }).to_string()).expect("the file is written");
    let (config, warnings) = Config::load_keystore(&file).unwrap_or_else(|error| panic!("{error}"));
    assert!(warnings.is_empty(), "{warnings:?}");
    keystore::connect(&config).await
}
