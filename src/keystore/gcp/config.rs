//! The `keystore.gcp` section of the config file.

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, de};
use zeroize::Zeroizing;

use crate::crypto::pem;
use crate::setting::{self, Prefix, ServerTls, Url};

/// Where Secret Manager answers.
const GOOGLE: &str = "https://secretmanager.googleapis.com";

/// The scope that Secret Manager needs.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// The longest prefix, in bytes: 255 for the name of a secret, less 80 for that of a key.
const MAX_PREFIX: usize = 175;

/// The `keystore.gcp:` section of the config file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Google Secret Manager.
    pub secretmanager: SecretManager,
    /// Certificates.
    #[serde(default)]
    pub tls: ServerTls,
}

/// The `keystore.gcp.secretmanager:` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretManager {
    /// The project's id.
    #[serde(deserialize_with = "setting::text")]
    pub project_id: String,
    /// Where Secret Manager answers.
    #[serde(default = "google", deserialize_with = "endpoint")]
    pub endpoint: Url,
    /// The scopes to ask for.
    #[serde(default = "usual_scopes", deserialize_with = "scopes")]
    pub scopes: Vec<String>,
    /// The prefix of the names of all secrets that are keys.
    #[serde(default, deserialize_with = "prefix")]
    pub prefix: Prefix,
    /// How to log in; none: Google's standard chain finds credentials: environment, well-known file, metadata server.
    #[serde(default, deserialize_with = "credentials")]
    pub credentials: Option<Credentials>,
}

/// The `keystore.gcp.secretmanager.credentials:` section, filled in: a service account.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The service account's address.
    pub client_email: String,
    /// The id of its key.
    pub private_key_id: String,
    /// Its key, in PEM.
    pub private_key: SecretString,
}

impl SecretManager {
    /// Whether the endpoint is Google's own.
    pub(super) fn is_google(&self) -> bool {
        self.endpoint.as_str() == GOOGLE
    }
}

fn google() -> Url {
    Url::parse(GOOGLE).expect("a constant that is an address")
}

fn usual_scopes() -> Vec<String> {
    vec![SCOPE.into()]
}

fn endpoint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    Ok(setting::address(deserializer)?.unwrap_or_else(google))
}

/// Reads a list in which empty texts count for nothing.
fn scopes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let mut scopes = Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default();
    scopes.retain(|scope| !scope.is_empty());
    Ok(if scopes.is_empty() { usual_scopes() } else { scopes })
}

fn prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Prefix, D::Error> {
    Prefix::deserialize_with(deserializer, MAX_PREFIX, b"-_")
}

/// Reads credentials: all four, or nothing at all.
fn credentials<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Credentials>, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Section {
        client_email: Option<String>,
        client_id: Option<String>,
        private_key_id: Option<String>,
        #[serde(default, deserialize_with = "private_key")]
        private_key: Option<SecretString>,
    }
    let section = Option::<Section>::deserialize(deserializer)?.unwrap_or_default();
    match (section.client_email, section.client_id, section.private_key_id, section.private_key) {
        (None, None, None, None) => Ok(None),
        (Some(client_email), Some(_), Some(private_key_id), Some(private_key)) => {
            Ok(Some(Credentials { client_email, private_key_id, private_key }))
        }
        _ => Err(de::Error::custom(
            "needs 'client_email', 'client_id', 'private_key_id' and 'private_key', or none of them for Google's \
             standard chain",
        )),
    }
}

fn private_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    let Some(key) = Option::<SecretString>::deserialize(deserializer)? else { return Ok(None) };
    let advice =
        "not a private key in PEM; copy 'private_key' of the service account's JSON file, line breaks included";
    lines(&key).map(Some).ok_or_else(|| de::Error::custom(advice))
}

/// A private key in PEM, in which the two characters `\n` stand for a line break, as they do in a file of JSON; none if
/// it is no key.
pub(super) fn lines(key: &SecretString) -> Option<SecretString> {
    let text = Zeroizing::new(key.expose_secret().replace("\\n", "\n"));
    pem::private_key(text.as_bytes(), None).ok()?;
    Some(SecretString::from(text.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(more: &str) -> Result<SecretManager, String> {
        serde_yaml::from_str(&format!("{{ project_id: p, {more} }}")).map_err(|error| error.to_string())
    }

    #[test]
    fn an_endpoint_is_googles_or_an_address() {
        for (written, url) in
            [("null", GOOGLE), ("'127.0.0.1:1'", "https://127.0.0.1:1"), ("'http://[::1]:5/'", "http://[::1]:5")]
        {
            assert_eq!(section(&format!("endpoint: {written}")).expect(written).endpoint.as_str(), url);
        }
        assert!(section("").expect("valid").is_google());
        assert_eq!(section("scopes: [ '' ]").expect("valid").scopes, [SCOPE]);
    }

    #[test]
    fn a_prefix_is_the_beginning_of_a_name() {
        assert_eq!(section("prefix: kes_-1").expect("valid").prefix.as_str(), "kes_-1");
        for bad in ["kes/", "a b", &"x".repeat(176)] {
            assert!(section(&format!("prefix: '{bad}'")).is_err(), "{bad}");
        }
    }

    #[test]
    fn half_a_service_account_is_none() {
        for bad in ["client_email: a", "client_id: '1'", "client_email: a, client_id: '1', private_key_id: k"] {
            let error = section(&format!("credentials: {{ {bad} }}")).expect_err(bad);
            assert!(error.contains("or none of them"), "{error}");
        }
        assert!(section("credentials: {}").expect("valid").credentials.is_none());
        let error = section("credentials: { private_key: hunter2 }").expect_err("no key");
        assert!(error.contains("not a private key in PEM") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn line_breaks_of_a_key_may_be_two_characters() {
        let pem = pem::pkcs8(&rcgen::KeyPair::generate().expect("a key").serialize_der());
        let one_line = SecretString::from(pem.replace('\n', "\\n"));
        assert_eq!(lines(&one_line).expect("a key").expose_secret(), pem.as_str());
        assert_eq!(lines(&SecretString::from(pem.as_str())).expect("a key").expose_secret(), pem.as_str());
    }
}
