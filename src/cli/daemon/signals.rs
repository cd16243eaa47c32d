//! Signals from a service manager or a terminal: reload, shut down, shut down at once.

use futures_util::future::select_all;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;

/// All signals that the server obeys.
pub(super) struct Signals {
    pub(super) hangup: Hangup,
    pub(super) stop: Stop,
}

impl Signals {
    /// Listens from now on. A development server has no config to read again: it ends with its terminal.
    pub(super) fn new(is_development: bool) -> std::io::Result<Self> {
        let mut stop = vec![signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
        let mut hangup = Some(signal(SignalKind::hangup())?);
        if is_development {
            stop.extend(hangup.take());
        }
        Ok(Self { hangup: Hangup(hangup), stop: Stop(Mutex::new(stop)) })
    }
}

/// The signal to read the config again, where there is one.
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

/// The signals that end the server. Shared: the second one may come while the first is being obeyed.
pub(super) struct Stop(Mutex<Vec<Signal>>);

impl Stop {
    /// Waits for the next one.
    pub(super) async fn requested(&self) {
        let mut signals = self.0.lock().await;
        select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
    }
}
