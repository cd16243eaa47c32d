//! `cluster.…`: whether the etcd of a cluster of key managers answers and is fit for it.

use std::time::Duration;

use super::{Report, count};
use crate::cli::units::{bytes, span};
use crate::config::Finding;
use crate::config::kms::{Config, Hsm};
use crate::kms::etcd::{Etcd, Member, Refusal};
use crate::kms::seal::Providers;

const ETCD: &str = "cluster.etcd";

/// Every write takes at least this long then.
const SLOW: Duration = Duration::from_millis(100);

/// What etcd allows its file, unless it is told otherwise.
const QUOTA: u64 = 2 << 30;

/// Looks at the etcd that the config names; `providers` are those that this machine has keys of.
pub(super) async fn check(config: &Config, providers: &Providers, report: &mut Report) {
    let Some(cluster) = &config.cluster else { return };
    for finding in config.check_cluster_files() {
        report.failed(ETCD, finding.to_string(), "correct the path, or make the file readable");
    }
    if !report.is_clean(ETCD) {
        return;
    }
    let (etcd, warnings) = match Etcd::connect(&cluster.etcd).await {
        Ok(connected) => connected,
        Err(refusal) => {
            let fix = match refusal {
                Refusal::Unreachable(_) => "start etcd, or correct 'endpoints'",
                Refusal::Wrong(_) => "do as the message says",
            };
            let finding = Finding::new(config.cluster_place(), refusal.to_string());
            return report.failed(ETCD, finding.to_string(), fix);
        }
    };
    let members = etcd.answering().await;
    report.ok(ETCD, format!("{} of one cluster, and the user may read and write", answering(members.len())));
    for warning in warnings {
        report.warning("cluster.risk", warning, "do as the message says");
    }
    members.iter().for_each(|member| space(member, report));
    requests(&etcd, report).await;
    latency(&etcd, report).await;
    let all = !providers.is_empty() && config.hsm.values().all(|hsm| matches!(hsm, Hsm::File(_)));
    head(&etcd, providers, all, report).await;
}

fn answering(members: usize) -> String {
    if members == 1 { "1 member answers, as one".to_owned() } else { format!("{members} members answer, all") }
}

fn space(member: &Member, report: &mut Report) {
    const ID: &str = "cluster.space";
    let quota = if member.quota == 0 { QUOTA } else { member.quota };
    let message = format!("{}: etcd uses {} of {}", member.endpoint, bytes(member.bytes), bytes(quota));
    if member.bytes / 4 < quota / 5 {
        report.ok(ID, message);
    } else {
        let fix = "compact and defragment it, or raise --quota-backend-bytes: an etcd that is full takes no writes";
        report.warning(ID, message, fix);
    }
}

async fn requests(etcd: &Etcd, report: &mut Report) {
    const ID: &str = "cluster.requests";
    match etcd.takes_large().await {
        Ok(()) => report.ok(ID, "etcd takes transactions as large as a server sends"),
        Err(refusal) => {
            report.failed(ID, refusal.to_string(), "start etcd with --max-request-bytes=1572864, its default")
        }
    }
}

async fn latency(etcd: &Etcd, report: &mut Report) {
    const ID: &str = "cluster.latency";
    match etcd.latency().await {
        Ok(latency) => {
            let message = format!("half of all commits take {} or less", span(latency));
            if latency < SLOW {
                report.ok(ID, message);
            } else {
                let fix = "give etcd a fast disk of its own, and a network close to the servers";
                report.warning(ID, message, fix);
            }
        }
        Err(refusal) => report.failed(ID, refusal.to_string(), "run this again; etcd answered before"),
    }
}

/// Opens the head; `all` says whether these are all the providers that the server has.
async fn head(etcd: &Etcd, providers: &Providers, all: bool, report: &mut Report) {
    const ID: &str = "cluster.data";
    let live = match etcd.count_live().await {
        Ok(live) => live,
        Err(refusal) => return report.failed(ID, refusal.to_string(), "run this again; etcd answered before"),
    };
    let live = format!("{} running", count(live, "server"));
    match etcd.open_head(providers).await {
        Ok(None) => report.ok(ID, format!("the prefix is empty, {live}")),
        Ok(Some((commits, records))) => {
            report.ok(ID, format!("{} after {}, {live}", count(records, "record"), count(commits, "commit")));
        }
        Err(refusal) if !all => {
            let fix = "run this with the server's environment; an HSM on another machine is not tried, and may open it";
            report.warning(ID, refusal.to_string(), fix);
        }
        Err(refusal) => report.failed(ID, refusal.to_string(), "give this machine an HSM key that opens the data"),
    }
}
