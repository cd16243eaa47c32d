//! Messages about the server.

use std::collections::BTreeMap;

use prost::Message;
use serde::Serialize;

use super::{Span, json};

/// The server's version.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct VersionResponse {
    /// The version number.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub version: String,
    /// The commit that it was built from.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub commit: String,
    /// The version of the API, "v1".
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub api_version: String,
    /// Where clients reach the server, as host:port.
    #[prost(string, tag = "4")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub host: String,
    /// Whether its cryptography is certified (FIPS).
    #[prost(bool, tag = "5")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub fips140: bool,
    /// The extensions of Claviger that it supports; other servers send none.
    #[prost(string, repeated, tag = "1000")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub extensions: Vec<String>,
    /// The most records that one request may change, where a cluster sets a limit; 0: none.
    #[prost(uint32, tag = "1001")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub most_changes: u32,
}

/// A seal to add or to remove.
#[derive(Clone, PartialEq, Message)]
pub struct HsmRequest {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Whether to replace an existing seal of this name.
    #[prost(bool, tag = "2")]
    pub overwrite: bool,
}

/// Members that are to leave a cluster.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct EditClusterRequest {
    /// The server that is asked, as `host:port`.
    #[prost(string, tag = "1")]
    pub host: String,
    /// Their numbers.
    #[prost(uint32, repeated, tag = "2")]
    pub remove: Vec<u32>,
}

/// The status of a server.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct ServerStatus {
    /// The version number.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub version: String,
    /// The version of the API, "v1".
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub api_version: String,
    /// Where clients reach the server, as host:port.
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub host: String,
    /// The time since its start.
    #[prost(message, optional, tag = "4")]
    #[serde(rename = "uptime", skip_serializing_if = "json::is_default")]
    pub up_time: Option<Span>,
    /// "Leader".
    #[prost(string, tag = "5")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub role: String,
    /// The commit that it was built from.
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
    /// Names of the providers that have sealed the root key.
    #[prost(string, repeated, tag = "19")]
    #[serde(rename = "hsm", skip_serializing_if = "json::is_default")]
    pub hsms: Vec<String>,
    /// Names of the providers that the server can unseal with.
    #[prost(string, repeated, tag = "20")]
    #[serde(rename = "hsm_active", skip_serializing_if = "json::is_default")]
    pub configured_hsms: Vec<String>,
}

/// The status of all servers.
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
