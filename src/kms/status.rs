//! The server itself: version, health, metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::StatusCode;

use super::node::Node;
use super::snapshot::Snapshot;
use super::wire::{ClusterStatusResponse, EXPORT, Encoding, ServerStatus, TRANSIT_KEYS, VersionResponse, WHOLE_KEYS};
use super::{Error, State};
use crate::memory;
use crate::server::{self, Call, Reply};
use crate::telemetry::metrics::Text;
use crate::telemetry::process;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, where the build said so.
const COMMIT: &str = match option_env!("CLAVIGER_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// The version of the API.
const API: &str = "v1";

pub(super) async fn version(call: Call<State>) -> Result<Reply, Error> {
    let response = VersionResponse {
        version: VERSION.into(),
        commit: COMMIT.into(),
        api_version: API.into(),
        host: call.state().host(),
        fips140: false,
        extensions: [WHOLE_KEYS, EXPORT, TRANSIT_KEYS].map(String::from).to_vec(),
        most_changes: call.state().writer.node().map_or(0, |node| count(node.journal.most_changes())),
    };
    let encoding = Encoding::of(call.accept());
    Ok(Reply::bytes(encoding.content_type(), encoding.encode(&response)))
}

pub(super) async fn live(_: Call<State>) -> Result<(), Error> {
    Ok(())
}

/// Succeeds for reads as long as the process answers. For writes it fails when the last change could not be written.
pub(super) async fn ready(call: Call<State>) -> Result<(), server::Error> {
    let asks_for_writes = call.query().split('&').any(|part| part == "write" || part.starts_with("write="));
    if asks_for_writes && !call.state().writer.works() {
        return Err(server::Error::new(StatusCode::SERVICE_UNAVAILABLE, "writes cannot be served"));
    }
    Ok(())
}

pub(super) async fn unsupported(_: Call<State>) -> Result<(), Error> {
    Err(Error::Unsupported("this server does not do that; use its service manager, or a profiler on its machine"))
}

/// What the others of a cluster say of themselves, by the numbers of the members.
#[derive(Default)]
pub(super) struct Others(BTreeMap<u32, ServerStatus>);

/// Asks what the others say; of those that say nothing, nothing is known.
pub(super) async fn others(state: &State) -> Others {
    let Some(node) = state.writer.node() else { return Others::default() };
    let live = node.live().await.unwrap_or_default();
    Others(live.iter().filter_map(|(number, live)| Some((*number, live.status.clone()?))).collect())
}

/// The status of all servers.
pub(super) fn cluster(state: &State, snapshot: &Snapshot, others: &Others) -> ClusterStatusResponse {
    let this = server(state, snapshot);
    let Some(node) = state.writer.node() else {
        return ClusterStatusResponse { nodes_up: BTreeMap::from([(0, this)]), nodes_down: BTreeMap::new() };
    };
    let (mut nodes_up, mut nodes_down) = (BTreeMap::from([(node.number, this)]), BTreeMap::new());
    for member in snapshot.members.iter().filter(|member| member.number != node.number) {
        match others.0.get(&member.number) {
            Some(status) => drop(nodes_up.insert(member.number, status.clone())),
            None => drop(nodes_down.insert(member.number, member.host.clone())),
        }
    }
    ClusterStatusResponse { nodes_up, nodes_down }
}

/// The status of this server.
pub(super) fn server(state: &State, snapshot: &Snapshot) -> ServerStatus {
    let memory = memory::usage();
    let second = Duration::from_secs(1);
    let node = state.writer.node();
    let hosts = |node: &Node| {
        let known = snapshot.members.iter().map(|member| (member.number, member.host.clone()));
        known.chain([(node.number, state.host())]).collect()
    };
    ServerStatus {
        version: VERSION.into(),
        api_version: API.into(),
        host: state.host(),
        up_time: Some(state.started.elapsed().into()),
        role: node.map_or("Leader", |node| if node.is_fresh() { "Follower" } else { "Candidate" }).into(),
        commit: snapshot.commit,
        nodes: node.map_or_else(|| BTreeMap::from([(0, state.host())]), |node| hosts(node)),
        id: node.map_or(0, |node| node.number),
        leader_id: node.map_or(0, |_| -1),
        last_heartbeat: Some(node.and_then(|node| node.age()).unwrap_or_default().into()),
        heartbeat_interval: Some(second.into()),
        election_timeout: Some(second.into()),
        os: std::env::consts::OS.into(),
        arch: std::env::consts::ARCH.into(),
        cpus: count(memory::cpus()),
        usable_cpus: count(memory::usable_cpus()),
        heap: memory.heap,
        stack: memory.stack,
        hsms: snapshot.seals.clone(),
        configured_hsms: state.writer.providers().to_vec(),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(super) async fn metrics(call: Call<State>) -> Result<Reply, Error> {
    let state = call.state();
    let mut text = Text::default();
    state.telemetry.write_metrics(&mut text);
    process::write_metrics(&mut text, state.started);
    text.gauge("claviger_kms_commit", "Changes of the state so far.", state.writer.snapshot().commit);
    text.gauge("claviger_kms_writable", "Whether the last change could be written.", u8::from(state.writer.works()));
    state.rotated.write(&mut text);
    if let Some(node) = state.writer.node() {
        node.write_metrics(&mut text, call.asks_for("text/plain"));
    }
    if let Some(server) = state.server.get() {
        server.write_metrics(&mut text);
    }
    // As in the KES API: what has labels is for who asks for the format by name.
    if call.asks_for("text/plain") {
        process::write_build_info(&mut text, VERSION, COMMIT);
        if let Some(server) = state.server.get() {
            server.write_operations(&mut text);
        }
        if let Some(write) = state.beside.get() {
            write(&mut text);
        }
    }
    Ok(Reply::text(Text::CONTENT_TYPE, text.finish()))
}
