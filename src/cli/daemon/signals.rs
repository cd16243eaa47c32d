//! Signals from a service manager or a terminal: reload, shut down, shut down at once.

use futures_util::future::select_all;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;

/// All signals that the server handles.
pub(super) struct Signals {
    pub(super) hangup: Hangup,
    pub(super) stop: Stop,
}

impl Signals {
    /// Starts to listen for signals. A development server has no config to reload, so it ends on SIGHUP, when its
    /// terminal closes.
    pub(super) fn new(is_development: bool) -> std::io::Result<Self> {
        let mut stop = vec![signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
        let mut hangup = Some(signal(SignalKind::hangup())?);
        if is_development {
            stop.extend(hangup.take());
        }
        Ok(Self { hangup: Hangup(hangup), stop: Stop(Mutex::new(stop)) })
    }
}

/// The signal to reload the config, if the server has one.
pub(super) struct Hangup(Option<Signal>);

impl Hangup {
    /// Waits for the next one.
    pub(super) async fn heard(&mut self) {
        match &mut self.0 {
            Some(hangup) => drop(hangup.recv().await),
            None => std::future::pending().await,
        }
    }
}

/// The signals that end the server. Shared, because a second one may come while the first is being handled.
pub(super) struct Stop(Mutex<Vec<Signal>>);

impl Stop {
    /// Waits for the next one.
    pub(super) async fn requested(&self) {
        let mut signals = self.0.lock().await;
        select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
    }
}
