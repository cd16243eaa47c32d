//! Shows the progress of a run: a bar on a terminal, otherwise one line a second.

use std::fmt;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::cli::out::{self, printable};
use crate::keystore::Wait;
use crate::migrate::{Progress, Step};

/// How often the bar is drawn.
const REDRAW: Duration = Duration::from_millis(100);

/// How often a line is written where there is no terminal.
const LINE: Duration = Duration::from_secs(1);

/// Shows a run's progress on standard error until it is dropped.
pub(in crate::cli) struct Meter(Option<JoinHandle<()>>);

impl Meter {
    /// Follows `progress`; shows nothing when `quiet`.
    pub(in crate::cli) fn start(progress: Arc<Progress>, quiet: bool) -> Self {
        let task = if quiet {
            None
        } else if std::io::stderr().is_terminal() {
            Some(tokio::spawn(draw(progress)))
        } else {
            Some(tokio::spawn(print(progress)))
        };
        Self(task)
    }

    /// Stops, and removes the bar, so that the next output begins on a new line.
    pub(in crate::cli) async fn stop(mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
            let _ = task.await;
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

async fn draw(progress: Arc<Progress>) {
    let text = ProgressStyle::with_template("{wide_msg}").expect("the template is valid");
    let bar = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} keys, {rate}, {eta} left")
        .expect("the template is valid")
        .with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = write!(out, "{:.0}/s", state.per_sec()); // a text takes everything
        })
        .progress_chars("=> ");
    let mut shown = None;
    loop {
        let (step, wait) = (progress.step(), progress.waits().first());
        let (done, total) = progress.keys();
        let now = (step, wait.is_some());
        if shown.as_ref().is_none_or(|(drawn, _)| *drawn != now) {
            let style = if wait.is_some() || !has_count(step) { &text } else { &bar };
            shown = Some((now, Cleared(ProgressBar::new(total).with_style(style.clone()))));
        }
        if let Some((_, Cleared(bar))) = &shown {
            bar.set_message(wait.map_or_else(|| verb(step).into(), |wait| waiting(&wait)));
            bar.set_length(total);
            bar.set_position(done);
            bar.tick();
        }
        tokio::time::sleep(REDRAW).await;
    }
}

/// A bar that clears itself on drop.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

async fn print(progress: Arc<Progress>) {
    let mut began = (progress.step(), Instant::now());
    let mut ticks = tokio::time::interval(LINE);
    ticks.tick().await;
    loop {
        let now = ticks.tick().await;
        let step = progress.step();
        if step != began.0 {
            began = (step, now - LINE);
        }
        let text = match progress.waits().first() {
            Some(wait) => waiting(&wait),
            None => line(step, progress.keys(), now - began.1),
        };
        out::note(text);
    }
}

fn line(step: Step, (done, total): (u64, u64), elapsed: Duration) -> String {
    if !has_count(step) {
        return verb(step).into();
    }
    let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
    let left = total.saturating_sub(done) as f64 / rate;
    let left = if left.is_finite() { format!("{left:.0}s left") } else { "unknown time left".into() };
    format!("{}: {done}/{total} keys, {rate:.0}/s, {left}", verb(step))
}

/// Says what the run waits for, and for how long.
fn waiting(wait: &Wait) -> String {
    let left = wait.until.saturating_duration_since(Instant::now()).as_secs();
    format!("Waiting for up to {left} s: {}", printable(&wait.why))
}

fn has_count(step: Step) -> bool {
    !matches!(step, Step::Connecting | Step::Listing)
}

fn verb(step: Step) -> &'static str {
    match step {
        Step::Connecting => "Connecting",
        Step::Listing => "Listing",
        Step::Reading => "Reading",
        Step::Comparing => "Comparing",
        Step::Rehearsing => "Rehearsing",
        Step::Writing => "Writing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_rate_and_time_left() {
        let line = |done| line(Step::Writing, (done, 1_000), Duration::from_secs(2));
        assert_eq!(line(500), "Writing: 500/1000 keys, 250/s, 2s left");
        assert_eq!(line(0), "Writing: 0/1000 keys, 0/s, unknown time left");
    }
}
