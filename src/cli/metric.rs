//! `claviger metric`: shows the metrics of a server, refreshed at an interval.

mod exposition;
mod screen;

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use self::exposition::Samples;
use super::connection::Connection;
use super::out::Out;
use crate::duration;

/// Watch the metrics of a server
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How often to refresh
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = rate)]
    rate: Duration,
    #[command(flatten)]
    connection: Connection,
}

fn rate(text: &str) -> Result<Duration, String> {
    let rate = duration::parse(text).map_err(|error| error.to_string())?;
    if rate < Duration::from_millis(100) { Err("look at most ten times a second".to_owned()) } else { Ok(rate) }
}

/// Runs the command, until somebody ends it.
pub(super) async fn run(args: Args, out: &mut Out) -> anyhow::Result<()> {
    let client = args.connection.client()?;
    let watch = async {
        let mut ticks = tokio::time::interval(args.rate);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut screen = screen::Screen::default();
        loop {
            ticks.tick().await;
            let text = client.metrics().await.context("failed to get the metrics")?;
            let samples = Samples::parse(&text);
            if out.is_terminal() {
                screen.show(out, client.endpoint(), &samples, Instant::now())?;
            } else {
                out.json(&samples.summary())?;
            }
            out.flush()?;
        }
    };
    tokio::select! {
        ended = watch => ended,
        // Ctrl-C is the normal way to end this command, so it is no failure.
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}
