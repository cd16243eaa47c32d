//! `claviger bench compare`: compares two measurements.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use super::mix::Op;
use super::report::{Operation, Report};
use crate::cli::out::{BAD, GOOD, HEADING, LABEL, Out, WARNING};
use crate::cli::units::span;

/// Changes smaller than this are noise.
const NOISE: f64 = 0.05;

/// Hold two measurements against each other
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The JSON of the first, such as before a migration
    before: PathBuf,
    /// The JSON of the second
    after: PathBuf,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// How a figure has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Better,
    Same,
    Worse,
    /// One of both has no such figure.
    Missing,
}

/// One figure of one kind of request.
#[derive(Debug, Serialize)]
struct Line {
    op: Op,
    figure: &'static str,
    before: Option<f64>,
    after: Option<f64>,
    verdict: Verdict,
}

/// Runs the command.
pub(super) fn run(args: &Args, out: &mut Out) -> anyhow::Result<()> {
    let (before, after) = (load(&args.before)?, load(&args.after)?);
    let lines: Vec<_> = Op::ALL.into_iter().flat_map(|op| compare(op, &before, &after)).collect();
    if args.json {
        return Ok(out.json(&lines)?);
    }
    if (before.http, before.connections, before.streams, before.size)
        != (after.http, after.connections, after.streams, after.size)
    {
        let warning = out.paint(WARNING, "The two were measured in different ways; compare with care.");
        writeln!(out, "{warning}")?;
    }
    Ok(print(out, &lines)?)
}

fn load(path: &Path) -> anyhow::Result<Report> {
    let file = std::fs::read(path).with_context(|| format!("failed to read '{}'", path.display()))?;
    serde_json::from_slice(&file)
        .with_context(|| format!("'{}' is not what 'bench --json' has written", path.display()))
}

fn compare(op: Op, before: &Report, after: &Report) -> Vec<Line> {
    let find = |report: &Report| report.operations.iter().position(|operation| operation.op == op);
    let (old, new) = (find(before).map(|at| &before.operations[at]), find(after).map(|at| &after.operations[at]));
    if old.is_none() && new.is_none() {
        return Vec::new();
    }
    /// A figure's name, where it stands, and whether more of it is better.
    type Figure = (&'static str, fn(&Operation) -> f64, bool);
    const FIGURES: [Figure; 5] = [
        ("throughput", |operation| operation.throughput, true),
        ("mean", |operation| operation.mean_ns, false),
        ("95th%", |operation| operation.p95_ns as f64, false),
        ("99th%", |operation| operation.p99_ns as f64, false),
        ("successRatio", |operation| operation.success_ratio, true),
    ];
    let line = |(figure, value, more_is_better): Figure| {
        let (before, after) = (old.map(value), new.map(value));
        let noise = if figure == "successRatio" { 0.0 } else { NOISE };
        Line { op, figure, before, after, verdict: judge(before, after, more_is_better, noise) }
    };
    FIGURES.map(line).into()
}

fn judge(before: Option<f64>, after: Option<f64>, more_is_better: bool, noise: f64) -> Verdict {
    let (Some(before), Some(after)) = (before, after) else { return Verdict::Missing };
    let change = if before == 0.0 { after } else { (after - before) / before };
    match change {
        change if change.abs() <= noise => Verdict::Same,
        change if (change > 0.0) == more_is_better => Verdict::Better,
        _ => Verdict::Worse,
    }
}

fn print(out: &mut Out, lines: &[Line]) -> io::Result<()> {
    let heading = format!("{:<10}{:<14}{:>12}{:>12}{:>10}  {}", "op", "figure", "before", "after", "change", "verdict");
    let heading = out.paint(HEADING, heading);
    writeln!(out, "{heading}")?;
    for line in lines {
        let change = match (line.before, line.after) {
            (Some(before), Some(after)) if before != 0.0 => format!("{:+.1}%", (after / before - 1.0) * 100.0),
            _ => "-".into(),
        };
        let (style, verdict) = match line.verdict {
            Verdict::Better => (GOOD, "better"),
            Verdict::Same => (LABEL, "same"),
            Verdict::Worse => (BAD, "worse"),
            Verdict::Missing => (WARNING, "missing"),
        };
        let verdict = out.paint(style, verdict);
        let shown = |value: Option<f64>| value.map_or_else(|| "-".into(), |value| show(line.figure, value));
        let (before, after) = (shown(line.before), shown(line.after));
        writeln!(out, "{:<10}{:<14}{before:>12}{after:>12}{change:>10}  {verdict}", line.op, line.figure)?;
    }
    Ok(())
}

fn show(figure: &str, value: f64) -> String {
    match figure {
        "throughput" => format!("{value:.1}/s"),
        "successRatio" => format!("{:.2}%", value * 100.0),
        _ => span(Duration::from_nanos(value as u64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_time_and_more_throughput_are_better() {
        let judge = |before, after, more| judge(Some(before), Some(after), more, NOISE);
        assert_eq!(judge(100.0, 120.0, true), Verdict::Better);
        assert_eq!(judge(100.0, 120.0, false), Verdict::Worse);
        assert_eq!(judge(100.0, 104.0, false), Verdict::Same);
        assert_eq!(judge(100.0, 90.0, false), Verdict::Better);
    }

    #[test]
    fn every_failed_request_counts() {
        assert_eq!(judge(Some(1.0), Some(0.9999), true, 0.0), Verdict::Worse);
        assert_eq!(judge(Some(1.0), Some(1.0), true, 0.0), Verdict::Same);
        assert_eq!(judge(Some(1.0), None, true, 0.0), Verdict::Missing);
    }
}
