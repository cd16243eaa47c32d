//! Health and system.

use std::collections::BTreeMap;

use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::body::{self, Batch, Text};
use super::reply::{self, bad};
use super::target::{Operation, SecretUse, Target, Use, query_value};
use super::{State, is_allowed};
use crate::clock;
use crate::kms::Entry;
use crate::server::{Call, Error, Reply};

/// The version of this server.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What clients read as the name of a cluster.
const CLUSTER: &str = "claviger";

#[derive(Serialize)]
struct Health {
    initialized: bool,
    sealed: bool,
    standby: bool,
    performance_standby: bool,
    replication_performance_mode: &'static str,
    replication_dr_mode: &'static str,
    server_time_utc: i64,
    version: &'static str,
    cluster_name: &'static str,
    cluster_id: &'static str,
}

#[derive(Serialize)]
struct SealStatus {
    #[serde(rename = "type")]
    kind: &'static str,
    initialized: bool,
    sealed: bool,
    t: u32,
    n: u32,
    progress: u32,
    nonce: &'static str,
    version: &'static str,
    commit_date: &'static str,
    migration: bool,
    cluster_name: &'static str,
    cluster_id: &'static str,
    recovery_seal: bool,
    storage_type: &'static str,
}

#[derive(Serialize)]
struct Leader {
    ha_enabled: bool,
}

#[derive(Serialize)]
struct Initialized {
    initialized: bool,
}

/// Answers what anybody may ask. A server that cannot open its root key does not start, so it is never sealed.
pub(super) fn open(call: &Call<State>, operation: &Operation) -> Result<Reply, Error> {
    match operation {
        Operation::Health => Ok(health(call.query())),
        Operation::SealStatus => Ok(reply::plain(&seal_status(), 512)),
        Operation::Leader => Ok(reply::plain(&Leader { ha_enabled: false }, 32)),
        Operation::Initialized => Ok(reply::plain(&Initialized { initialized: true }, 32)),
        _ => Err(reply::denied()),
    }
}

fn health(query: &str) -> Reply {
    let health = Health {
        initialized: true,
        sealed: false,
        standby: false,
        performance_standby: false,
        replication_performance_mode: "disabled",
        replication_dr_mode: "disabled",
        server_time_utc: clock::now().unix_timestamp(),
        version: VERSION,
        cluster_name: CLUSTER,
        cluster_id: CLUSTER,
    };
    let wanted = query_value(query, "activecode").and_then(|code| code.parse().ok());
    let status = wanted.and_then(|code: u16| StatusCode::from_u16(code).ok()).filter(|code| code.as_u16() >= 200);
    reply::plain(&health, 512).with_status(status.unwrap_or(StatusCode::OK))
}

fn seal_status() -> SealStatus {
    SealStatus {
        kind: "claviger",
        initialized: true,
        sealed: false,
        t: 1,
        n: 1,
        progress: 0,
        nonce: "",
        version: VERSION,
        commit_date: "",
        migration: false,
        cluster_name: CLUSTER,
        cluster_id: CLUSTER,
        recovery_seal: false,
        storage_type: "claviger",
    }
}

#[derive(Debug, Deserialize)]
struct Paths<'b> {
    #[serde(borrow)]
    paths: Option<Batch<Text<'b>>>,
    #[serde(borrow)]
    path: Option<Text<'b>>,
}

/// Says what the caller may do with paths, in the words of Vault.
pub(super) fn capabilities(state: &State, entry: &Entry, body: &[u8]) -> Result<Reply, Error> {
    let Paths { paths, path } = body::parse(body)?;
    let paths = match (paths, path) {
        (Some(Batch::Items(paths)), _) if !paths.is_empty() => paths,
        (Some(Batch::TooMany), _) => return Err(bad("too many paths; send several requests")),
        (_, Some(path)) => vec![path],
        _ => return Err(bad("paths must be supplied")),
    };
    let of_path = |path: &Text<'_>| (path.to_string(), words(state, entry, path));
    let of_paths: Vec<_> = paths.iter().map(of_path).collect();
    let mut all: BTreeMap<String, Vec<&str>> = of_paths.iter().cloned().collect();
    if let [(_, words)] = of_paths.as_slice() {
        all.insert("capabilities".into(), words.clone());
    }
    let size = all.keys().map(|path| path.len() + 64).sum();
    Ok(reply::data_twice(&all, size))
}

fn words(state: &State, entry: &Entry, path: &str) -> Vec<&'static str> {
    let path = format!("/v1/{}", path.trim_start_matches('/'));
    let list = Method::from_bytes(b"LIST").unwrap_or(Method::GET);
    let mut words = Vec::new();
    for (method, word) in [(Method::DELETE, "delete"), (list, "list"), (Method::GET, "read"), (Method::POST, "update")]
    {
        let operation = Target::parse(&state.mounts, &method, &path, "").operation;
        let is_there = !matches!(
            operation,
            Operation::WrongMethod(_) | Operation::Unsupported | Operation::NoRoute(_) | Operation::Forbidden
        );
        if is_there && is_allowed(entry, &operation.right()) {
            if matches!(operation, Operation::Key(Use::Create, _) | Operation::Secret(SecretUse::Write, _)) {
                words.push("create");
            }
            words.push(word);
        }
    }
    words.sort_unstable();
    if words.is_empty() { vec!["deny"] } else { words }
}

#[derive(Serialize)]
struct MountConfig {
    default_lease_ttl: u64,
    force_no_cache: bool,
    max_lease_ttl: u64,
}

#[derive(Serialize)]
struct Mount {
    accessor: &'static str,
    config: MountConfig,
    deprecation_status: &'static str,
    description: &'static str,
    external_entropy_access: bool,
    local: bool,
    options: BTreeMap<&'static str, &'static str>,
    path: String,
    plugin_version: &'static str,
    running_plugin_version: &'static str,
    running_sha256: &'static str,
    seal_wrap: bool,
    #[serde(rename = "type")]
    kind: &'static str,
    uuid: &'static str,
}

/// Describes the engine that a path is below.
pub(super) fn mount(state: &State, path: &str) -> Result<Reply, Error> {
    let name = path.split('/').next().unwrap_or_default();
    let (kind, options) = if name == state.mounts.transit {
        ("transit", BTreeMap::new())
    } else if state.mounts.kv.as_deref() == Some(name) {
        ("kv", BTreeMap::from([("version", "2")]))
    } else {
        let text = "preflight capability check returned 403, please ensure client's policies grant access to path";
        return Err(Error::new(StatusCode::FORBIDDEN, format!("{text} \"{}/\"", crate::foreign::cut(path, 256))));
    };
    let mount = Mount {
        accessor: "",
        config: MountConfig { default_lease_ttl: 0, force_no_cache: false, max_lease_ttl: 0 },
        deprecation_status: "supported",
        description: "",
        external_entropy_access: false,
        local: false,
        options,
        path: format!("{name}/"),
        plugin_version: "",
        running_plugin_version: "",
        running_sha256: "",
        seal_wrap: false,
        kind,
        uuid: "",
    };
    Ok(reply::data(mount, 512))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::target::Right;

    #[test]
    fn only_what_shows_no_secret_is_open() {
        for operation in [Operation::Health, Operation::SealStatus, Operation::Leader, Operation::Initialized] {
            assert_eq!(operation.right(), Right::Open);
        }
        assert_eq!(Operation::Capabilities.right(), Right::Known);
    }
}
