//! A server as a process: start, signals, changed files, reload, drain, end. Read [`Daemon::serve`] first.
//!
//! A process has one [`Daemon`] and any number of [`Listener`]s; a [`Program`] says what differs between them.

pub(super) mod certificate;
mod listener;
mod logging;
pub(super) mod message;
mod signals;

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::future::{join_all, select_all};
use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use self::signals::Signals;
use crate::server::tls::Tls;
use crate::server::{Budget, Gate, Limits, Server, Workers};
use crate::telemetry::{Reload, Telemetry, audit, log};
use crate::{clock, config, memory};

pub(super) use self::listener::{Listen, Listener, Program};
pub(super) use self::logging::Logging;
pub(super) use self::message::Message;

/// How often TLS files are checked for changes.
const WATCH: Duration = Duration::from_secs(1);

/// How long to wait for standard output to accept the last audit events.
const LAST_EVENTS: Duration = Duration::from_secs(5);

/// The process of a server, from start to end.
pub(super) struct Daemon {
    /// When the process began.
    pub(super) started: Instant,
    pub(super) telemetry: Arc<Telemetry>,
    /// Whether memory is locked.
    pub(super) lock: memory::Lock,
    signals: Signals,
    /// What its listeners share.
    budget: Budget,
}

/// How long the end waits for calls that block, such as those of a token's library that hangs.
const LAST_CALLS: Duration = Duration::from_secs(10);

/// Prepares the process, then runs `serve`.
pub(super) fn run(is_development: bool, serve: impl AsyncFnOnce(Daemon) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let started = Instant::now();
    std::panic::set_hook(Box::new(log::panicked));
    memory::forbid_core_dumps().context("failed to forbid core dumps")?;
    let lock = memory::lock();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        // From here on signals are queued until they can be handled.
        let signals = Signals::new(is_development)?;
        serve(Daemon { started, telemetry: telemetry()?, lock, signals, budget: Budget::default() }).await
    });
    runtime.shutdown_timeout(LAST_CALLS);
    served
}

/// Writes to standard output and error without the standard library's locks, so that a blocked thread blocks no other.
fn telemetry() -> anyhow::Result<Arc<Telemetry>> {
    let file = |stream: BorrowedFd<'_>| stream.try_clone_to_owned().map(std::fs::File::from);
    let log = log::Log::start(file(std::io::stderr().as_fd())?)?;
    log::Layer::install(log.clone())?;
    let audit = audit::Audit::start(file(std::io::stdout().as_fd())?)?;
    let started = clock::now();
    Ok(Arc::new(Telemetry { log, audit, started, reload: Reload::new(started) }))
}

/// Why a process has nothing more to do. It ends as if it had been told to.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Finished(pub(super) String);

impl Daemon {
    /// What closes all listeners, for a while.
    pub(super) fn gate(&self) -> Gate {
        self.budget.gate()
    }

    /// Waits for a signal to stop.
    pub(super) async fn stop_requested(&self) {
        self.signals.stop.requested().await;
    }

    /// Opens what the `log:` section of a config names.
    ///
    /// # Errors
    /// When the file for audit events cannot be written to.
    pub(super) fn open_log(&self, log: &config::Log) -> anyhow::Result<Logging> {
        Logging::open(&self.telemetry, log)
    }

    /// Listens on `address`. Requests are served from [`Daemon::serve`] on. `name` says what is served there, in errors
    /// and in the log.
    pub(super) async fn listen<P: Program>(
        &self,
        name: impl Into<String>,
        address: SocketAddr,
        limits: config::Limits,
        program: P,
        (state, tls): (Arc<P::Service>, Tls),
    ) -> anyhow::Result<Listener<P>> {
        let config::Limits { connections, shutdown } = limits;
        let limits = Limits { connections, shutdown };
        let files = tls.files.clone();
        let server = Server::bind(address, limits, &self.budget, self.telemetry.clone(), (state, tls)).await;
        let name = name.into();
        let failed = format!("failed to listen on {address}, for {name}");
        server.and_then(|server| Listener::new(name, server, program, files)).context(failed)
    }

    /// Serves until a signal or a failure ends it. Then finishes running requests and writes.
    ///
    /// # Errors
    /// When a server can no longer do its work, or when audit events are lost.
    pub(super) async fn serve(mut self, mut listeners: Vec<Box<dyn Listen>>) -> anyhow::Result<()> {
        let workers = Workers::start(memory::usable_cpus())?;
        let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
        let serving = join_all(listeners.iter_mut().map(|one| one.serve(workers.clone(), stop.clone(), hurry.clone())));
        notify(&[NotifyState::Ready]);
        let mut serving = std::pin::pin!(serving);
        let outcome = tokio::select! {
            _ = &mut serving => Ok(()),
            outcome = self.supervise(&mut listeners) => outcome,
        };
        notify(&[NotifyState::Stopping]);
        tracing::info!("stopping: no new connections, running requests are finished");
        stop.cancel();
        tokio::select! {
            _ = &mut serving => {}
            () = self.stop_requested() => {
                hurry.cancel();
                serving.await;
            }
        }
        for listener in &mut listeners {
            listener.finish().await;
        }
        self.flush().await.and(outcome)
    }

    /// Handles signals and reloads changed files, until the process must end.
    async fn supervise(&mut self, listeners: &mut [Box<dyn Listen>]) -> anyhow::Result<()> {
        let mut watch = tokio::time::interval(WATCH);
        loop {
            let failed = select_all(listeners.iter().map(|listener| listener.failed()));
            let Signals { hangup, stop } = &mut self.signals;
            tokio::select! {
                () = stop.requested() => return Ok(()),
                (error, ..) = failed => return match error.downcast::<Finished>() {
                    Ok(finished) => {
                        tracing::warn!("{finished}");
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
                () = hangup.heard() => tokio::select! {
                    // A reload that waits for a key store must not delay a stop.
                    () = stop.requested() => return Ok(()),
                    taken_up = reload(&self.telemetry, listeners) => self.telemetry.reload.note(taken_up, clock::now()),
                },
                _ = watch.tick() => listeners.iter_mut().for_each(|listener| listener.watch()),
            }
        }
    }

    /// Writes out all recorded events.
    async fn flush(&self) -> anyhow::Result<()> {
        let Telemetry { audit, log, .. } = &*self.telemetry;
        let flushed = tokio::time::timeout(LAST_EVENTS, audit.flush()).await;
        // If the log cannot be written, there is nowhere to report it.
        let _ = tokio::time::timeout(LAST_EVENTS, log.flush()).await;
        flushed.map_err(|_| {
            anyhow::anyhow!("standard output or the file takes no more; {} audit events are lost", audit.queued())
        })
    }
}

/// Returns whether all configs were loaded. The file of audit events is opened anew in any case, because it may have been
/// moved away.
async fn reload(telemetry: &Telemetry, listeners: &mut [Box<dyn Listen>]) -> bool {
    // `Type=notify-reload` requires the time at which the reload began.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "failed to read the clock for the service manager"),
    }
    let mut taken_up = true;
    if let Err(error) = telemetry.audit.reopen() {
        tracing::error!(%error, "the file of audit events cannot be opened again; events go on to the old one");
        taken_up = false;
    }
    for listener in listeners {
        taken_up &= listener.reload().await;
    }
    notify(&[NotifyState::Ready]);
    taken_up
}

/// Notifies systemd, if it started this process.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "failed to notify the service manager");
    }
}
