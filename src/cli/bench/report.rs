//! The result of a measurement, as text and as JSON.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::load::{Load, Plan, Tally};
use super::mix::Op;
use crate::cli::out::{BAD, HEADING, LABEL, Out, STRONG, printable};
use crate::cli::units::span;
use crate::client::link::Protocol;
use crate::text::counted;

/// A measurement, as people and `bench compare` read it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) server: String,
    pub(super) version: String,
    pub(super) http: u8,
    pub(super) connections: usize,
    pub(super) streams: usize,
    /// Bytes that were encrypted.
    pub(super) size: usize,
    pub(super) seconds: f64,
    pub(super) operations: Vec<Operation>,
    /// What the measurement itself costs; a server that carries more than one core of this can send is not measured.
    pub(super) client_cpu_us_per_request: f64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) failures: BTreeMap<String, u64>,
}

/// One kind of request. Times are in nanoseconds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Operation {
    pub(super) op: Op,
    pub(super) count: u64,
    /// Requests a second.
    pub(super) rate: f64,
    /// Successful requests a second.
    pub(super) throughput: f64,
    pub(super) mean_ns: f64,
    pub(super) p50_ns: u64,
    pub(super) p95_ns: u64,
    pub(super) p99_ns: u64,
    pub(super) max_ns: u64,
    /// From 0 to 1.
    pub(super) success_ratio: f64,
}

impl Report {
    pub(super) fn new(server: String, version: String, plan: &Plan, load: Load) -> Self {
        let seconds = load.took.as_secs_f64();
        let operations: Vec<_> = load.tallies.values().map(|tally| Operation::new(tally, seconds)).collect();
        let count: u64 = operations.iter().map(|operation| operation.count).sum();
        Self {
            server,
            version,
            http: if plan.protocol == Protocol::H1 { 1 } else { 2 },
            connections: plan.connections,
            streams: plan.streams,
            size: plan.size,
            seconds,
            operations,
            client_cpu_us_per_request: load.cpu.as_secs_f64() * 1e6 / count.max(1) as f64,
            failures: load.failures,
        }
    }

    pub(super) fn print(&self, out: &mut Out) -> io::Result<()> {
        let server = out.paint(STRONG, &self.server);
        writeln!(
            out,
            "{server}  version {}, HTTP/{}, {} x {}, {:.1} s\n",
            printable(&self.version),
            self.http,
            counted(self.connections, "connection"),
            counted(self.streams, "stream"),
            self.seconds
        )?;
        let heading = format!(
            "{:<10}{:>10}{:>14}{:>14}{:>12}{:>12}{:>12}{:>14}",
            "op", "count", "rate", "throughput", "mean", "95th%", "99th%", "successRatio"
        );
        let heading = out.paint(HEADING, heading);
        writeln!(out, "{heading}")?;
        for operation in &self.operations {
            operation.print(out)?;
        }
        let label = out.paint(LABEL, "own CPU per request");
        writeln!(out, "\n{label}  {:.1}µs", self.client_cpu_us_per_request)?;
        for (failure, count) in &self.failures {
            let failed = out.paint(BAD, format!("{count} failed"));
            writeln!(out, "{failed}  {failure}")?;
        }
        Ok(())
    }
}

impl Operation {
    fn new(tally: &Tally, seconds: f64) -> Self {
        let times = &tally.times;
        let (count, seconds) = (times.len(), seconds.max(f64::MIN_POSITIVE));
        Self {
            op: tally.op,
            count,
            rate: count as f64 / seconds,
            throughput: tally.succeeded as f64 / seconds,
            mean_ns: times.mean(),
            p50_ns: times.value_at_quantile(0.5),
            p95_ns: times.value_at_quantile(0.95),
            p99_ns: times.value_at_quantile(0.99),
            max_ns: times.max(),
            success_ratio: if count == 0 { 0.0 } else { tally.succeeded as f64 / count as f64 },
        }
    }

    fn print(&self, out: &mut Out) -> io::Result<()> {
        let time = |nanoseconds: f64| span(Duration::from_nanos(nanoseconds as u64));
        let ratio = format!("{:>13.2}%", self.success_ratio * 100.0);
        let ratio = out.paint(if self.success_ratio < 1.0 { BAD } else { anstyle::Style::new() }, ratio);
        writeln!(
            out,
            "{:<10}{:>10}{:>14.1}{:>14.1}{:>12}{:>12}{:>12}{ratio}",
            self.op,
            self.count,
            self.rate,
            self.throughput,
            time(self.mean_ns),
            time(self.p95_ns as f64),
            time(self.p99_ns as f64),
        )
    }
}
