//! The server itself: version, health, metrics, routes.

use std::time::Duration;

use super::State;
use super::error::not_ready;
use super::wire::{ApiResponse, ApiRoute, StatusResponse, VersionResponse};
use crate::name::PolicyName;
use crate::server::{Call, Error, Reply};
use crate::telemetry::metrics::Text;
use crate::telemetry::process;
use crate::{keystore, memory};

/// The server's version.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, where the build said so.
pub(crate) const COMMIT: &str = match option_env!("CLAVIGER_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

pub(super) async fn version(_: Call<State>) -> Result<VersionResponse, Error> {
    Ok(VersionResponse { version: VERSION.into(), commit: COMMIT.into() })
}

pub(super) async fn ready(call: Call<State>) -> Result<(), Error> {
    call.state().keys.status().await.map(drop).map_err(not_ready)
}

pub(super) async fn status(call: Call<State>) -> Result<StatusResponse, Error> {
    let latency = call.state().keys.status().await;
    let memory = memory::usage();
    Ok(StatusResponse {
        version: VERSION.into(),
        os: go_os().into(),
        arch: go_arch().into(),
        uptime: call.state().started.elapsed().as_secs(),
        num_cpu: memory::cpus(),
        num_cpu_used: memory::usable_cpus(),
        mem_heap_used: memory.heap,
        mem_stack_used: memory.stack,
        // At least a millisecond: older clients take anything less for "not measured".
        keystore_latency: latency.as_ref().ok().map(|latency| nanoseconds(latency.max(&Duration::from_millis(1)))),
        keystore_unreachable: matches!(latency, Err(keystore::Error::Unreachable(_))),
        keystore_unavailable: latency.is_err(),
        // Clients of the archived server get its answer, field by field.
        config_hash: call
            .state()
            .config_hash
            .filter(|_| call.asks_for("application/json"))
            .map(|hash| hash.to_string()),
    })
}

pub(super) async fn api(call: Call<State>) -> Result<ApiResponse, Error> {
    let routes = call.state().router.iter().map(|route| {
        let (method, path, max_body, timeout) = route.describe();
        let timeout = timeout.map_or(0, |timeout| timeout.as_secs().max(1));
        ApiRoute { method: method.to_string(), path: path.into(), max_body, timeout }
    });
    Ok(ApiResponse { routes: routes.collect() })
}

pub(super) async fn metrics(call: Call<State>) -> Result<Reply, Error> {
    let mut text = Text::default();
    call.state().telemetry.write_metrics(&mut text);
    process::write_metrics(&mut text, call.state().started);
    write_keystore(call.state(), &mut text);
    if let Some(hash) = call.state().config_hash {
        let help = "A hash of the settings in force, without secrets: replicas with the same settings have the same.";
        text.gauge("claviger_config_hash", help, hash.number());
    }
    if let Some(server) = call.state().server.get() {
        server.write_metrics(&mut text);
    }
    // The official Go SDK, which names no content type, refuses a metric with more than one sample unless it is one of
    // the archived server's. Prometheus asks for its text format by name.
    if call.asks_for("text/plain") {
        process::write_build_info(&mut text, VERSION, COMMIT);
        if let Some(server) = call.state().server.get() {
            server.write_operations(&mut text);
        }
        if let Some(calls) = call.state().keys.calls() {
            calls.write(&mut text);
        }
        write_policies(call.state(), &mut text);
    }
    Ok(Reply::text(Text::CONTENT_TYPE, text.finish()))
}

fn write_keystore(state: &State, text: &mut Text) {
    let stats = state.keys.stats();
    text.gauge("claviger_cache_entries", "Keys in the cache.", stats.entries);
    text.counter("claviger_cache_hits_total", "Requests whose key was in the cache.", stats.hits);
    text.counter("claviger_cache_misses_total", "Requests whose key was not in the cache.", stats.misses);
    text.gauge(
        "claviger_keystore_reachable",
        "1 if the key store answered when last asked.",
        u8::from(stats.reachable),
    );
    text.gauge(
        "claviger_keystore_last_answer_age_seconds",
        "Seconds since the key store's last good answer.",
        stats.last_answer.as_secs_f64(),
    );
    // Stores without tokens have no such metric, and others none while they have no token.
    if let Some(age) = state.keys.token_age() {
        let help = "Seconds since the key store gave us the token in use.";
        text.gauge("claviger_keystore_token_age_seconds", help, age.as_secs_f64());
    }
}

fn write_policies(state: &State, text: &mut Text) {
    let Some(server) = state.server.get() else { return };
    text.family("claviger_policy_denials_total", "counter", "Requests denied, by the policy of the identity.");
    let mut denials = server.denials();
    for policy in state.access.policies().map(PolicyName::as_str).chain([""]) {
        denials.entry(policy.to_owned()).or_default();
    }
    for (policy, count) in denials {
        text.labelled("claviger_policy_denials_total", "policy", &policy, count);
    }
}

fn nanoseconds(time: &Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn go_os() -> &'static str {
    match std::env::consts::OS {
        "macos" => "darwin",
        os => os,
    }
}

fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        arch => arch,
    }
}
