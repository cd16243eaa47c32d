//! The messages of the protocol, field by field. Those that hold secrets are wiped when dropped, and show nothing.

use std::collections::BTreeMap;

use prost::Message;
use serde::Serialize;
use time::OffsetDateTime;

use super::json;

/// Why a request was not answered.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct ErrResponse {
    /// The text.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub message: String,
}

/// What the server is.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct VersionResponse {
    /// Its number.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub version: String,
    /// The commit.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub commit: String,
    /// "v1".
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub api_version: String,
    /// Where clients reach the server, as host:port.
    #[prost(string, tag = "4")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub host: String,
    /// Whether its cryptography is certified.
    #[prost(bool, tag = "5")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub fips140: bool,
    /// Which of our extensions it understands; a server that is not ours names none.
    #[prost(string, repeated, tag = "1000")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub extensions: Vec<String>,
}

/// Which elements to list.
#[derive(Clone, PartialEq, Message)]
pub struct ListRequest {
    /// What names begin with.
    #[prost(string, tag = "1")]
    pub prefix: String,
    /// The name of the first element of the (next) page; empty: none.
    #[prost(string, tag = "2")]
    pub continue_at: String,
    /// The most elements; 0: as many as fit.
    #[prost(uint32, tag = "3")]
    pub limit: u32,
}

/// What a command is about, where it is one name: an enclave, or a policy.
#[derive(Clone, PartialEq, Message)]
pub struct NameRequest {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// What is known of an enclave.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct EnclaveStatus {
    /// The name.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub name: String,
    /// When it was made.
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub created_at: Option<Timestamp>,
    /// The identity that made it, or nobody.
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub created_by: String,
}

/// A page of enclaves.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct ListEnclavesResponse {
    /// Sorted.
    #[prost(message, repeated, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub enclaves: Vec<EnclaveStatus>,
    /// The name of the first element of the (next) page; empty: none.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub continue_at: String,
}

/// A key, or a version of one, to make.
#[derive(Clone, PartialEq, Message)]
pub struct CreateKeyRequest {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// `AES256` or `ChaCha20`; empty: the server's choice.
    #[prost(string, tag = "2")]
    pub kind: String,
    /// Whether this is a version of a key that exists.
    #[prost(bool, tag = "3")]
    pub add_version: bool,
}

/// Which versions of a key to delete.
#[derive(Clone, PartialEq, Message)]
pub struct DeleteKeyRequest {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its number.
    #[prost(uint32, tag = "2")]
    pub version: u32,
    /// All of them.
    #[prost(bool, tag = "3")]
    pub all_versions: bool,
}

/// One version of a key; 0 is the latest.
#[derive(Clone, PartialEq, Message)]
pub struct KeyVersionRequest {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its number.
    #[prost(uint32, tag = "2")]
    pub version: u32,
}

/// What is known of a version of a key.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct KeyStatus {
    /// The name.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub name: String,
    /// Its number.
    #[prost(uint32, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub version: u32,
    /// `AES256` or `ChaCha20`; empty: the server's choice.
    #[prost(string, tag = "3")]
    #[serde(rename = "type", skip_serializing_if = "json::is_default")]
    pub kind: String,
    /// When it was made.
    #[prost(message, optional, tag = "4")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub created_at: Option<Timestamp>,
    /// The identity that made it, or nobody.
    #[prost(string, tag = "5")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub created_by: String,
}

/// A page of keys, or of the versions of one.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct ListKeysResponse {
    /// Sorted.
    #[prost(message, repeated, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub keys: Vec<KeyStatus>,
    /// The name of the first element of the (next) page; empty: none.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub continue_at: String,
}

/// A message to encrypt.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct EncryptRequest {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its number.
    #[prost(uint32, tag = "2")]
    pub version: u32,
    /// In plain.
    #[prost(bytes = "vec", tag = "3")]
    pub plaintext: Vec<u8>,
    /// What the ciphertext is bound to.
    #[prost(bytes = "vec", tag = "4")]
    pub associated_data: Vec<u8>,
}

secret!(EncryptRequest, plaintext);

/// An encrypted message.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct EncryptResponse {
    /// Its number.
    #[prost(uint32, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub version: u32,
    /// Encrypted.
    #[prost(bytes = "vec", tag = "2")]
    #[serde(skip_serializing_if = "json::is_default", serialize_with = "json::bytes")]
    pub ciphertext: Vec<u8>,
}

/// A message to decrypt.
#[derive(Clone, PartialEq, Message)]
pub struct DecryptRequest {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its number.
    #[prost(uint32, tag = "2")]
    pub version: u32,
    /// Encrypted.
    #[prost(bytes = "vec", tag = "3")]
    pub ciphertext: Vec<u8>,
    /// What the ciphertext is bound to.
    #[prost(bytes = "vec", tag = "4")]
    pub associated_data: Vec<u8>,
}

/// A decrypted message.
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
pub struct DecryptResponse {
    /// In plain.
    #[prost(bytes = "vec", tag = "1")]
    #[serde(skip_serializing_if = "json::is_default", serialize_with = "json::bytes")]
    pub plaintext: Vec<u8>,
}

secret!(DecryptResponse, plaintext);

/// A data key to make; 32 bytes where the length is 0.
#[derive(Clone, PartialEq, Message)]
pub struct GenerateKeyRequest {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its number.
    #[prost(uint32, tag = "2")]
    pub version: u32,
    /// What the ciphertext is bound to.
    #[prost(bytes = "vec", tag = "3")]
    pub associated_data: Vec<u8>,
    /// In bytes.
    #[prost(uint32, tag = "4")]
    pub length: u32,
}

/// A data key, and the same encrypted.
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
pub struct GenerateKeyResponse {
    /// Its number.
    #[prost(uint32, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub version: u32,
    /// In plain.
    #[prost(bytes = "vec", tag = "2")]
    #[serde(skip_serializing_if = "json::is_default", serialize_with = "json::bytes")]
    pub plaintext: Vec<u8>,
    /// Encrypted.
    #[prost(bytes = "vec", tag = "3")]
    #[serde(skip_serializing_if = "json::is_default", serialize_with = "json::bytes")]
    pub ciphertext: Vec<u8>,
}

secret!(GenerateKeyResponse, plaintext);

/// A message to sign.
#[derive(Clone, PartialEq, Message)]
pub struct MacRequest {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its number.
    #[prost(uint32, tag = "2")]
    pub version: u32,
    /// The text.
    #[prost(bytes = "vec", tag = "3")]
    pub message: Vec<u8>,
}

/// The HMAC of a message.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct MacResponse {
    /// Its number.
    #[prost(uint32, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub version: u32,
    /// 32 bytes.
    #[prost(bytes = "vec", tag = "2")]
    #[serde(skip_serializing_if = "json::is_default", serialize_with = "json::bytes")]
    pub mac: Vec<u8>,
}

/// A policy to set, by names of commands.
#[derive(Clone, PartialEq, Message)]
pub struct CreatePolicyRequest {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What is allowed, by command.
    #[prost(btree_map = "string, message", tag = "2")]
    pub allow: BTreeMap<String, RuleSet>,
    /// What is refused; it wins.
    #[prost(btree_map = "string, message", tag = "3")]
    pub deny: BTreeMap<String, RuleSet>,
}

/// Whose policy to set.
#[derive(Clone, PartialEq, Message)]
pub struct AssignPolicyRequest {
    /// The identity.
    #[prost(string, tag = "1")]
    pub identity: String,
    /// The name of its policy; empty: none.
    #[prost(string, tag = "2")]
    pub policy: String,
}

/// A policy.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct PolicyResponse {
    /// The name.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub name: String,
    /// What is allowed, by command.
    #[prost(btree_map = "string, message", tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub allow: BTreeMap<String, RuleSet>,
    /// What is refused; it wins.
    #[prost(btree_map = "string, message", tag = "3")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub deny: BTreeMap<String, RuleSet>,
    /// When it was made.
    #[prost(message, optional, tag = "4")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub created_at: Option<Timestamp>,
    /// The identity that made it, or nobody.
    #[prost(string, tag = "5")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub created_by: String,
}

/// What is known of a policy.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct PolicyStatus {
    /// The name.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub name: String,
    /// When it was made.
    #[prost(message, optional, tag = "4")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub created_at: Option<Timestamp>,
    /// The identity that made it, or nobody.
    #[prost(string, tag = "5")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub created_by: String,
}

/// A page of policies.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct ListPoliciesResponse {
    /// Sorted.
    #[prost(message, repeated, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub policies: Vec<PolicyStatus>,
    /// The name of the first element of the (next) page; empty: none.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub continue_at: String,
}

/// Patterns of names.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct RuleSet {
    /// By pattern.
    #[prost(btree_map = "string, message", tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub rules: BTreeMap<String, Rule>,
}

/// What a pattern says beside itself: nothing.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct Rule {}

/// An identity to set.
#[derive(Clone, PartialEq, Message)]
pub struct CreateIdentityRequest {
    /// The identity.
    #[prost(string, tag = "1")]
    pub identity: String,
    /// What it may do at all.
    #[prost(string, tag = "2")]
    pub privilege: String,
    /// Whether it lives on behalf of another.
    #[prost(bool, tag = "3")]
    pub is_service_account: bool,
    /// Labels.
    #[prost(btree_map = "string, string", tag = "4")]
    pub tags: BTreeMap<String, String>,
}

/// The identity that a command is about.
#[derive(Clone, PartialEq, Message)]
pub struct IdentityRequest {
    /// The identity.
    #[prost(string, tag = "1")]
    pub identity: String,
}

/// What is known of an identity.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct IdentityResponse {
    /// The identity.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub identity: String,
    /// What it may do at all.
    #[prost(uint32, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub privilege: u32,
    /// The name of its policy; empty: none.
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub policy: String,
    /// When it was made.
    #[prost(message, optional, tag = "4")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub created_at: Option<Timestamp>,
    /// The identity that made it, or nobody.
    #[prost(string, tag = "5")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub created_by: String,
    /// Whether it lives on behalf of another.
    #[prost(bool, tag = "6")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub is_service_account: bool,
    /// Those that live on its behalf.
    #[prost(string, repeated, tag = "7")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub service_accounts: Vec<String>,
    /// Labels.
    #[prost(btree_map = "string, string", tag = "8")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub tags: BTreeMap<String, String>,
}

/// A page of identities.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct ListIdentitiesResponse {
    /// Sorted.
    #[prost(message, repeated, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub identities: Vec<IdentityResponse>,
    /// The name of the first element of the (next) page; empty: none.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub continue_at: String,
}

/// A seal to add or to remove.
#[derive(Clone, PartialEq, Message)]
pub struct HsmRequest {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Replace the seal if there is one.
    #[prost(bool, tag = "2")]
    pub overwrite: bool,
}

/// How a server is.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct ServerStatus {
    /// Its number.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub version: String,
    /// "v1".
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub api_version: String,
    /// Where clients reach the server, as host:port.
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub host: String,
    /// Since the start.
    #[prost(message, optional, tag = "4")]
    #[serde(rename = "uptime", skip_serializing_if = "json::is_default")]
    pub up_time: Option<Span>,
    /// "Leader".
    #[prost(string, tag = "5")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub role: String,
    /// The commit.
    #[prost(uint64, tag = "6")]
    #[serde(skip_serializing_if = "json::is_default", serialize_with = "json::large")]
    pub commit: u64,
    /// All servers.
    #[prost(btree_map = "uint32, string", tag = "7")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub nodes: BTreeMap<u32, String>,
    /// Which of them this is.
    #[prost(uint32, tag = "8")]
    #[serde(rename = "node_id", skip_serializing_if = "json::is_default")]
    pub id: u32,
    /// Which of them leads.
    #[prost(sint64, tag = "9")]
    #[serde(skip_serializing_if = "json::is_default", serialize_with = "json::large")]
    pub leader_id: i64,
    /// Since then.
    #[prost(message, optional, tag = "10")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub last_heartbeat: Option<Span>,
    /// Between two.
    #[prost(message, optional, tag = "11")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub heartbeat_interval: Option<Span>,
    /// Until a new leader is looked for.
    #[prost(message, optional, tag = "12")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub election_timeout: Option<Span>,
    /// The operating system.
    #[prost(string, tag = "13")]
    #[serde(rename = "sys_os", skip_serializing_if = "json::is_default")]
    pub os: String,
    /// The CPU's kind.
    #[prost(string, tag = "14")]
    #[serde(rename = "sys_cpu_arch", skip_serializing_if = "json::is_default")]
    pub arch: String,
    /// CPUs of the machine.
    #[prost(uint32, tag = "15")]
    #[serde(rename = "sys_cpu_num", skip_serializing_if = "json::is_default")]
    pub cpus: u32,
    /// CPUs the server may use.
    #[prost(uint32, tag = "16")]
    #[serde(rename = "sys_cpu_used", skip_serializing_if = "json::is_default")]
    pub usable_cpus: u32,
    /// Bytes of heap in use.
    #[prost(uint64, tag = "17")]
    #[serde(rename = "sys_mem_heap_used", skip_serializing_if = "json::is_default", serialize_with = "json::large")]
    pub heap: u64,
    /// Bytes of stack in use.
    #[prost(uint64, tag = "18")]
    #[serde(rename = "sys_mem_stack_used", skip_serializing_if = "json::is_default", serialize_with = "json::large")]
    pub stack: u64,
    /// What the root key is sealed with.
    #[prost(string, repeated, tag = "19")]
    #[serde(rename = "hsm", skip_serializing_if = "json::is_default")]
    pub hsms: Vec<String>,
    /// What the server can unseal with.
    #[prost(string, repeated, tag = "20")]
    #[serde(rename = "hsm_active", skip_serializing_if = "json::is_default")]
    pub configured_hsms: Vec<String>,
}

/// How the servers are.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct ClusterStatusResponse {
    /// Those that answer.
    #[prost(btree_map = "uint32, message", tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub nodes_up: BTreeMap<u32, ServerStatus>,
    /// Those that do not.
    #[prost(btree_map = "uint32, string", tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub nodes_down: BTreeMap<u32, String>,
}

/// A moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Message)]
pub struct Timestamp {
    /// Since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// And so many billionths.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Timestamp {
    /// The moment; 1970 where that is beyond the years that can be shown.
    pub fn to_time(self) -> OffsetDateTime {
        let nanos = i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanos);
        OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

impl From<OffsetDateTime> for Timestamp {
    fn from(time: OffsetDateTime) -> Self {
        let nanos = i32::try_from(time.nanosecond()).expect("less than a billion");
        Self { seconds: time.unix_timestamp(), nanos }
    }
}

/// A length of time.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Span {
    /// Whole seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// And so many billionths.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl From<std::time::Duration> for Span {
    fn from(span: std::time::Duration) -> Self {
        let nanos = i32::try_from(span.subsec_nanos()).expect("less than a billion");
        Self { seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX), nanos }
    }
}
