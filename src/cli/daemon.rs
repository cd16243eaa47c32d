//! A server as a process: start, signals, changed files, reload, drain, end. Read [`Daemon::serve`] first.
//!
//! A process has one [`Daemon`] and any number of [`Listener`]s; a [`Program`] says what differs between them.

pub(super) mod certificate;
mod listener;
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

use self::listener::Listen;
use self::signals::Signals;
use crate::server::tls::Tls;
use crate::server::{Limits, Server, Workers};
use crate::telemetry::{Telemetry, audit, log, metrics};
use crate::{config, memory};

pub(super) use self::listener::{Listener, Program};
pub(super) use self::message::Message;

/// How often TLS files are looked at for changes.
const WATCH: Duration = Duration::from_secs(1);

/// How long standard output may take to take the last audit events.
const LAST_EVENTS: Duration = Duration::from_secs(5);

/// The process of a server, from its first moment to its last.
pub(super) struct Daemon {
    /// When the process began.
    pub(super) started: Instant,
    pub(super) telemetry: Arc<Telemetry>,
    /// Whether memory is locked.
    pub(super) lock: memory::Lock,
    signals: Signals,
}

/// Prepares the process, then does what `serve` says.
pub(super) fn run(is_development: bool, serve: impl AsyncFnOnce(Daemon) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let started = Instant::now();
    std::panic::set_hook(Box::new(log::panicked));
    memory::forbid_core_dumps().context("failed to forbid core dumps")?;
    let lock = memory::lock();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // From here on a signal waits until it can be obeyed.
        let signals = Signals::new(is_development)?;
        serve(Daemon { started, telemetry: telemetry()?, lock, signals }).await
    })
}

/// Writes to standard output and error past the library's locks: a thread that cannot write holds up no other.
fn telemetry() -> anyhow::Result<Arc<Telemetry>> {
    let file = |stream: BorrowedFd<'_>| stream.try_clone_to_owned().map(std::fs::File::from);
    let log = log::Log::start(file(std::io::stderr().as_fd())?)?;
    log::Layer::install(log.clone())?;
    let audit = audit::Audit::start(file(std::io::stdout().as_fd())?)?;
    Ok(Arc::new(Telemetry { log, audit, metrics: metrics::Metrics::default() }))
}

impl Daemon {
    /// Waits until somebody asks the process to stop.
    pub(super) async fn stop_requested(&self) {
        self.signals.stop.requested().await;
    }

    /// Applies the `log:` section of a config.
    pub(super) fn apply_log(&self, log: config::Log) {
        apply_log(&self.telemetry, log);
    }

    /// Listens on `address`; nobody is served before [`Daemon::serve`].
    pub(super) async fn listen<P: Program>(
        &self,
        address: SocketAddr,
        limits: config::Limits,
        program: P,
        (state, tls): (Arc<P::Service>, Tls),
    ) -> anyhow::Result<Listener<P>> {
        let config::Limits { connections, shutdown } = limits;
        let limits = Limits { connections, shutdown };
        let files = tls.files.clone();
        let server = Server::bind(address, limits, self.telemetry.clone(), state, tls).await;
        let listener = server.and_then(|server| Listener::new(server, program, files));
        listener.with_context(|| format!("failed to listen on {address}"))
    }

    /// Serves until a signal or a failure ends it, then lets what was begun reach its place.
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

    /// Obeys signals and takes up changed files, until the process is to end.
    async fn supervise(&mut self, listeners: &mut [Box<dyn Listen>]) -> anyhow::Result<()> {
        let mut watch = tokio::time::interval(WATCH);
        loop {
            let failed = select_all(listeners.iter().map(|listener| listener.failed()));
            let Signals { hangup, stop } = &mut self.signals;
            tokio::select! {
                () = stop.requested() => return Ok(()),
                (error, ..) = failed => return Err(error),
                () = hangup.heard() => tokio::select! {
                    // A key store that does not answer keeps nobody from stopping.
                    () = stop.requested() => return Ok(()),
                    () = reload(listeners) => {}
                },
                _ = watch.tick() => listeners.iter_mut().for_each(|listener| listener.watch()),
            }
        }
    }

    /// Lets recorded events reach their places.
    async fn flush(&self) -> anyhow::Result<()> {
        let Telemetry { audit, log, .. } = &*self.telemetry;
        let flushed = tokio::time::timeout(LAST_EVENTS, audit.flush()).await;
        // A log that cannot be written has no better place to say so.
        let _ = tokio::time::timeout(LAST_EVENTS, log.flush()).await;
        flushed.map_err(|_| anyhow::anyhow!("standard output takes no more; {} audit events are lost", audit.queued()))
    }
}

/// Applies the `log:` section of a config.
pub(super) fn apply_log(telemetry: &Telemetry, log: config::Log) {
    telemetry.log.set_level(log.error);
    telemetry.audit.set_on(log.audit.is_some_and(|level| level <= audit::LEVEL));
}

async fn reload(listeners: &mut [Box<dyn Listen>]) {
    // As `Type=notify-reload` wants it: with the time at which the reload began.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "failed to read the clock for the service manager"),
    }
    for listener in listeners {
        listener.reload().await;
    }
    notify(&[NotifyState::Ready]);
}

/// Tells systemd, if it started us.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "failed to notify the service manager");
    }
}
