//! Draws the metrics on a terminal, each time in the same place.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use super::exposition::Samples;
use crate::cli::out::{BAD, GOOD, LABEL, Out, STRONG, WARNING};
use crate::cli::units::{bytes, span};
use crate::client::Endpoint;
use crate::text::{counted, counted_as};

/// Moves the cursor up some lines, and clears what is below.
fn rewind(lines: usize) -> String {
    format!("\x1b[{lines}A\x1b[J")
}

/// Remembers what was drawn last.
#[derive(Default)]
pub(super) struct Screen {
    lines: usize,
    before: Option<Before>,
}

/// The counters of the last scrape, to compute rates.
struct Before {
    at: Instant,
    answers: f64,
}

impl Screen {
    /// Draws the metrics over the last ones.
    pub(super) fn show(
        &mut self,
        out: &mut Out,
        endpoint: &Endpoint,
        samples: &Samples,
        now: Instant,
    ) -> io::Result<()> {
        let rate = self.rate(samples, now);
        let text = lines(out, endpoint, samples, rate);
        if self.lines > 0 {
            out.write_all(rewind(self.lines).as_bytes())?;
        }
        self.lines = text.len();
        self.before = Some(Before { at: now, answers: samples.answers() });
        text.iter().try_for_each(|line| writeln!(out, "{line}"))
    }

    /// Requests a second, since the last time.
    fn rate(&self, samples: &Samples, now: Instant) -> Option<f64> {
        let before = self.before.as_ref()?;
        let passed = now.saturating_duration_since(before.at).as_secs_f64();
        // A server that was restarted counts from zero.
        (passed > 0.0).then(|| (samples.answers() - before.answers).max(0.0) / passed)
    }
}

fn lines(out: &Out, endpoint: &Endpoint, samples: &Samples, rate: Option<f64>) -> Vec<String> {
    let get = |name| samples.get(name);
    let row = |label: &str, value: String| format!("  {} {value}", out.paint(LABEL, format!("{label:<12}")));
    let requests = format!(
        "{} ok   {}   {}   {} running",
        out.paint(GOOD, get("kes_http_request_success")),
        out.paint(WARNING, counted(get("kes_http_request_error"), "error")),
        out.paint(BAD, counted(get("kes_http_request_failure"), "failure")),
        get("kes_http_request_active")
    );
    let mut lines = vec![
        format!("{} {}", out.paint(GOOD, "●"), out.paint(STRONG, endpoint.authority())),
        row("Uptime", span(Duration::try_from_secs_f64(get("kes_system_up_time").max(0.0)).unwrap_or(Duration::MAX))),
        row("Requests", requests),
        row("Rate", rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}/s"))),
        row("Latency", latency(samples)),
        row("Events", format!("{} audit   {} error", get("kes_log_audit_events"), get("kes_log_error_events"))),
        row("CPUs", format!("{} of {}", get("kes_system_num_cpu_used"), get("kes_system_num_cpu"))),
        row("Threads", get("kes_system_num_threads").to_string()),
        row("Heap", bytes(get("kes_system_mem_heap_used") as u64)),
        row("Stack", bytes(get("kes_system_mem_stack_used") as u64)),
    ];
    if let (Some(entries), Some(hits), Some(misses)) = (
        samples.find("claviger_cache_entries"),
        samples.find("claviger_cache_hits_total"),
        samples.find("claviger_cache_misses_total"),
    ) {
        lines.push(row(
            "Cache",
            format!(
                "{}   {}   {}",
                counted(entries, "key"),
                counted(hits, "hit"),
                counted_as(misses, "miss", "misses")
            ),
        ));
    }
    if samples.find("claviger_keystore_reachable") == Some(0.0) {
        lines.push(row("Key store", out.paint(BAD, "does not answer").to_string()));
    }
    lines
}

/// The median and the 99th percentile of response times.
fn latency(samples: &Samples) -> String {
    let within = |share: f64| {
        let bound = samples.response_time().iter().find(|(_, count)| *count as f64 >= share * samples.answers());
        bound.map_or_else(|| "more than 10s".to_owned(), |(bound, _)| span(Duration::from_nanos(*bound)))
    };
    match samples.answers() {
        0.0 => "-".to_owned(),
        _ => format!("50% within {}   99% within {}", within(0.5), within(0.99)),
    }
}
