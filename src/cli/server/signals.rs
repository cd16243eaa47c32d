//! What a service manager tells the server.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;

/// All signals that the server obeys.
pub(super) struct Signals {
    /// Read the config again.
    pub(super) hangup: Signal,
    /// End.
    pub(super) stop: Stop,
}

impl Signals {
    /// Listens from now on.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { hangup: signal(SignalKind::hangup())?, stop: Stop::new()? })
    }
}

/// The signals that end the server. Shared: the second one may come while the first is being obeyed.
pub(super) struct Stop(Mutex<[Signal; 2]>);

impl Stop {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self(Mutex::new([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?])))
    }

    /// Waits for the next one.
    pub(super) async fn requested(&self) {
        let mut signals = self.0.lock().await;
        let [terminate, interrupt] = &mut *signals;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}
