//! Bodies of requests and replies, as clients send and expect them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use crate::crypto::json::{Bytes, fields};
use crate::crypto::{DataKey, base64};
use crate::server::{IntoReply, Json, Reply};

/// Declares a request: its fields, and what it is told when it is malformed.
macro_rules! request {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $kind:ident $field:ident),* } $($json:tt)*) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $name { $($(#[$field_doc])* pub $field: request!(@type $kind)),* }

        fields!($name { $($kind $field),* });

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut object = serializer.serialize_map(None)?;
                $(request!(@serialize $kind object, stringify!($field), &self.$field);)*
                object.end()
            }
        }

        impl Json for $name { $($json)* }
    };
    (@type Bytes) => { Bytes };
    (@type Text) => { Option<String> };
    (@serialize Bytes $object:ident, $name:expr, $value:expr) => {
        if !$value.is_empty() {
            $object.serialize_entry($name, $value)?;
        }
    };
    (@serialize Text $object:ident, $name:expr, $value:expr) => {
        if let Some(text) = $value {
            $object.serialize_entry($name, text)?;
        }
    };
}

request! {
    /// `PUT /v1/key/import/`
    ImportRequest {
        /// The key.
        Bytes key,
        /// Its algorithm.
        Text cipher
    }
    const INVALID: &'static str = "invalid import key request body";
}

request! {
    /// `PUT /v1/key/generate/`
    GenerateRequest {
        /// Associated data.
        Bytes context,
        /// Of the key, which has only one.
        Text version
    }
    fn empty() -> Option<Self> {
        Some(Self::default())
    }
}

request! {
    /// `PUT /v1/key/encrypt/`
    EncryptRequest {
        /// What to encrypt.
        Bytes plaintext,
        /// Associated data.
        Bytes context,
        /// Of the key, which has only one.
        Text version
    }
}

request! {
    /// `PUT /v1/key/decrypt/`
    DecryptRequest {
        /// What to decrypt.
        Bytes ciphertext,
        /// Associated data.
        Bytes context,
        /// Of the key, which has only one.
        Text version
    }
}

request! {
    /// `PUT /v1/key/hmac/`
    HmacRequest {
        /// What to authenticate.
        Bytes message,
        /// Of the key, which has only one.
        Text version
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64::encode(self))
    }
}

/// A reply of texts in base64. They need no escaping, so each is written straight into a buffer of the
/// reply's size: for nothing else does a request spend so much time outside of cryptography.
fn base64_reply<const N: usize>(fields: [(&str, &[u8]); N]) -> Reply {
    let len = |(name, bytes): &(&str, &[u8])| r#","":"""#.len() + name.len() + base64::encoded_len(bytes);
    let mut json = Zeroizing::new(Vec::with_capacity(fields.iter().map(len).sum::<usize>() + "}".len()));
    let mut before = b'{';
    for (name, bytes) in fields {
        json.extend_from_slice(&[before, b'"']);
        json.extend_from_slice(name.as_bytes());
        json.extend_from_slice(b"\":\"");
        base64::append(bytes, &mut json);
        json.push(b'"');
        before = b',';
    }
    json.push(b'}');
    Reply::written_json(json)
}

/// `PUT /v1/key/generate/`
impl IntoReply for DataKey {
    fn into_reply(self) -> Reply {
        base64_reply([("plaintext", self.plaintext.expose()), ("ciphertext", &self.ciphertext)])
    }
}

/// `PUT /v1/key/encrypt/`
pub struct EncryptResponse {
    /// What was encrypted.
    pub ciphertext: Vec<u8>,
}

impl IntoReply for EncryptResponse {
    fn into_reply(self) -> Reply {
        base64_reply([("ciphertext", &self.ciphertext)])
    }
}

/// `PUT /v1/key/decrypt/`
pub struct DecryptResponse {
    /// What was decrypted.
    pub plaintext: Zeroizing<Vec<u8>>,
}

impl IntoReply for DecryptResponse {
    fn into_reply(self) -> Reply {
        base64_reply([("plaintext", &self.plaintext)])
    }
}

/// `PUT /v1/key/hmac/`
pub struct HmacResponse {
    /// HMAC-SHA-256.
    pub hmac: [u8; 32],
}

impl IntoReply for HmacResponse {
    fn into_reply(self) -> Reply {
        base64_reply([("hmac", &self.hmac)])
    }
}

/// The reply to `PUT /v1/key/encrypt/`, as clients read it.
#[derive(Debug, Deserialize)]
pub struct Encrypted {
    /// What was encrypted.
    pub ciphertext: Bytes,
}

/// The reply to `PUT /v1/key/decrypt/`, as clients read it.
#[derive(Debug, Deserialize)]
pub struct Decrypted {
    /// What was decrypted.
    #[serde(default)]
    pub plaintext: Bytes,
}

/// The reply to `PUT /v1/key/hmac/`, as clients read it.
#[derive(Debug, Deserialize)]
pub struct Hmac {
    /// HMAC-SHA-256.
    pub hmac: Bytes,
}

/// The reply to `PUT /v1/key/generate/`, as clients read it.
#[derive(Debug, Deserialize)]
pub struct Generated {
    /// The data key.
    pub plaintext: Bytes,
    /// The same, encrypted.
    pub ciphertext: Bytes,
}

/// Moments in RFC 3339 with up to nanoseconds, in the offset they have.
pub(crate) mod rfc3339 {
    use super::{Cow, Deserialize as _, Deserializer, OffsetDateTime, Rfc3339, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(time: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&time.format(&Rfc3339).unwrap_or_default())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        OffsetDateTime::parse(&text, &Rfc3339).map_err(de::Error::custom)
    }
}

/// Go writes `null` for a list without elements.
fn or_null<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Declares a reply that holds no secrets and is serialized as it stands.
macro_rules! plain_reply {
    ($($name:ident),*) => {
        $(impl IntoReply for $name {
            fn into_reply(self) -> Reply {
                Reply::json(&self, 256)
            }
        })*
    };
}

plain_reply!(
    VersionResponse,
    StatusResponse,
    ApiResponse,
    DescribeKeyResponse,
    ListKeysResponse,
    DescribePolicyResponse,
    ReadPolicyResponse,
    ListPoliciesResponse,
    DescribeIdentityResponse,
    ListIdentitiesResponse,
    SelfResponse
);

/// `GET /version`
#[derive(Debug, Serialize, Deserialize)]
pub struct VersionResponse {
    /// The server's version.
    pub version: Cow<'static, str>,
    /// What it was built from.
    #[serde(default)]
    pub commit: Cow<'static, str>,
}

/// `GET /v1/status`
#[derive(Debug, Serialize, Deserialize)]
pub struct StatusResponse {
    /// The server's version.
    pub version: Cow<'static, str>,
    /// As Go names it.
    pub os: Cow<'static, str>,
    /// As Go names it.
    pub arch: Cow<'static, str>,
    /// Seconds.
    pub uptime: u64,
    /// CPUs of the machine.
    pub num_cpu: usize,
    /// CPUs the server may use.
    pub num_cpu_used: usize,
    /// Bytes.
    pub mem_heap_used: u64,
    /// Bytes.
    pub mem_stack_used: u64,
    /// Nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keystore_latency: Option<u64>,
    /// Set when the key store does not answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keystore_unreachable: bool,
    /// Set when the key store is of no use, unreachable or not. The Go SDK takes an answer with the one above and
    /// without this one for malformed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keystore_unavailable: bool,
    /// A hash of the settings in force, without secrets; ours alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_hash: Option<String>,
}

/// `GET /v1/api`
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ApiResponse {
    /// One entry a route.
    pub routes: Vec<ApiRoute>,
}

/// A route as `/v1/api` lists it.
#[derive(Debug, Serialize, Deserialize)]
pub struct ApiRoute {
    /// The HTTP method.
    pub method: String,
    /// The path, with a final slash where a name follows.
    pub path: Cow<'static, str>,
    /// Bytes.
    #[serde(default)]
    pub max_body: u64,
    /// Seconds; 0: none.
    #[serde(default)]
    pub timeout: u64,
}

/// `GET /v1/key/describe/`
#[derive(Debug, Serialize, Deserialize)]
pub struct DescribeKeyResponse {
    /// The key's name.
    pub name: String,
    /// Its algorithm.
    pub algorithm: String,
    /// When it was made.
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
    /// By whom, where that is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
}

/// `GET /v1/key/list/`
#[derive(Debug, Serialize, Deserialize)]
pub struct ListKeysResponse {
    /// Sorted names.
    #[serde(default, deserialize_with = "or_null")]
    pub names: Vec<String>,
    /// The pattern of the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continue_at: Option<String>,
}

/// `GET /v1/policy/describe/`
#[derive(Debug, Serialize, Deserialize)]
pub struct DescribePolicyResponse {
    /// The policy's name.
    pub name: String,
    /// When it came into force.
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
    /// The admin.
    #[serde(default)]
    pub created_by: String,
}

/// An object without fields.
#[derive(Debug, Serialize, Deserialize)]
pub struct Empty {}

/// Path patterns, as the keys of an object.
pub type Patterns = BTreeMap<String, Empty>;

/// `GET /v1/policy/read/`
#[derive(Debug, Serialize, Deserialize)]
pub struct ReadPolicyResponse {
    /// The policy's name.
    #[serde(default)]
    pub name: String,
    /// What is allowed.
    #[serde(default, skip_serializing_if = "Patterns::is_empty")]
    pub allow: Patterns,
    /// What is not.
    #[serde(default, skip_serializing_if = "Patterns::is_empty")]
    pub deny: Patterns,
    /// When it came into force.
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
    /// The admin.
    #[serde(default)]
    pub created_by: String,
}

/// `GET /v1/policy/list/`
#[derive(Debug, Serialize, Deserialize)]
pub struct ListPoliciesResponse {
    /// Sorted names.
    #[serde(default, deserialize_with = "or_null")]
    pub names: Vec<String>,
    /// The pattern of the next page, or empty.
    #[serde(default)]
    pub continue_at: String,
}

/// `GET /v1/identity/describe/`
#[derive(Debug, Serialize, Deserialize)]
pub struct DescribeIdentityResponse {
    /// Set for the admin.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
    /// The policy of any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// When it became known.
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
    /// The admin; left out for the admin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
}

/// `GET /v1/identity/list/`
#[derive(Debug, Serialize, Deserialize)]
pub struct ListIdentitiesResponse {
    /// Sorted identities, the admin's included.
    #[serde(default, deserialize_with = "or_null")]
    pub identities: Vec<String>,
    /// The pattern of the next page, or empty.
    #[serde(default)]
    pub continue_at: String,
}

/// `GET /v1/identity/self/describe`
#[derive(Debug, Serialize, Deserialize)]
pub struct SelfResponse {
    /// The caller.
    pub identity: String,
    /// Set for the admin.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
    /// When it became known.
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
    /// The admin; left out for the admin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// The policy of any other than the admin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<ReadPolicyResponse>,
}
