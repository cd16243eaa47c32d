//! What a service manager tells the server.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;

/// All signals that the server obeys.
pub(in crate::cli) struct Signals {
    /// Read the config again.
    pub(in crate::cli) hangup: Signal,
    /// End.
    pub(in crate::cli) stop: Stop,
}

impl Signals {
    /// Listens from now on.
    pub(in crate::cli) fn new() -> std::io::Result<Self> {
        Ok(Self { hangup: signal(SignalKind::hangup())?, stop: Stop::new()? })
    }
}

/// The signals that end the server. Shared: the second one may come while the first is being obeyed.
pub(in crate::cli) struct Stop(Mutex<[Signal; 2]>);

impl Stop {
    pub(in crate::cli) fn new() -> std::io::Result<Self> {
        Ok(Self(Mutex::new([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?])))
    }

    /// Waits for the next one.
    pub(in crate::cli) async fn requested(&self) {
        let mut signals = self.0.lock().await;
        let [terminate, interrupt] = &mut *signals;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}
