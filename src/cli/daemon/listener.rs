//! A listener: one address of a process, what is served there, and how a reload replaces it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::server::tls::{Fingerprint, Tls};
use crate::server::{Handle, Server, Service, Workers};

/// What differs between the servers of a process.
#[async_trait(?Send)]
pub(in crate::cli) trait Program: 'static {
    /// The service that is served.
    type Service: Service;

    /// A fingerprint of the TLS files. They are loaded again when it changes.
    fn tls_files(&self) -> Fingerprint;

    /// Loads the TLS files.
    ///
    /// # Errors
    /// When one of them cannot be used.
    fn load_tls(&self) -> anyhow::Result<Tls>;

    /// Reads the config again, and returns what to serve from now on.
    ///
    /// # Errors
    /// When the config is invalid. Then nothing has changed.
    async fn reload(&mut self) -> anyhow::Result<(Arc<Self::Service>, Tls)>;

    /// Waits until the program can no longer do its work, and says why. The process then ends.
    fn failed(&self) -> Pin<Box<dyn Future<Output = anyhow::Error>>> {
        Box::pin(std::future::pending())
    }

    /// Finishes running work after the last request.
    async fn finish(&mut self);
}

/// A [`Program`] at an address.
pub(in crate::cli) struct Listener<P: Program> {
    /// What is served, for the log.
    name: String,
    /// Until it runs.
    server: Option<Server<P::Service>>,
    address: SocketAddr,
    handle: Handle<P::Service>,
    program: P,
    /// The TLS files that were loaded last, or could not be.
    loaded: Fingerprint,
    /// The TLS files as they were seen last.
    seen: Fingerprint,
}

/// A [`Listener`] with any program.
#[async_trait(?Send)]
pub(in crate::cli) trait Listen {
    /// Serves until `stop` is cancelled, then lets requests finish until `hurry` is cancelled.
    fn serve(
        &mut self,
        workers: Arc<Workers>,
        stop: CancellationToken,
        hurry: CancellationToken,
    ) -> Pin<Box<dyn Future<Output = ()>>>;

    /// Loads changed TLS files. Called about once a second.
    fn watch(&mut self);

    /// Reloads the config; returns whether that succeeded. The log has the result.
    async fn reload(&mut self) -> bool;

    /// See [`Program::failed`].
    fn failed(&self) -> Pin<Box<dyn Future<Output = anyhow::Error>>>;

    /// See [`Program::finish`].
    async fn finish(&mut self);
}

impl<P: Program> Listener<P> {
    /// # Errors
    /// When the socket has no address.
    pub(super) fn new(
        name: String,
        server: Server<P::Service>,
        program: P,
        files: Fingerprint,
    ) -> std::io::Result<Self> {
        let (address, handle) = (server.address()?, server.handle());
        Ok(Self { name, server: Some(server), address, handle, program, loaded: files.clone(), seen: files })
    }

    /// The address, with the port that the system chose where the config said 0.
    pub(in crate::cli) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(in crate::cli) fn program(&self) -> &P {
        &self.program
    }

    /// What is served now.
    pub(in crate::cli) fn state(&self) -> Arc<P::Service> {
        self.handle.state()
    }
}

#[async_trait(?Send)]
impl<P: Program> Listen for Listener<P> {
    fn serve(
        &mut self,
        workers: Arc<Workers>,
        stop: CancellationToken,
        hurry: CancellationToken,
    ) -> Pin<Box<dyn Future<Output = ()>>> {
        let server = self.server.take();
        Box::pin(async move {
            if let Some(server) = server {
                server.run(workers, stop.cancelled(), hurry.cancelled()).await;
            }
        })
    }

    /// Loads the files when they have changed, and have then been the same for two looks: a key and its certificate
    /// are seldom replaced in one go. As long as they are unusable, the old ones stay.
    fn watch(&mut self) {
        let files = self.program.tls_files();
        let settled = files == self.seen;
        self.seen = files;
        if !settled || self.seen == self.loaded {
            return;
        }
        self.loaded = self.seen.clone();
        match self.program.load_tls() {
            Ok(tls) => {
                let expires = tls.not_after;
                self.handle.replace(self.handle.state(), tls);
                tracing::info!(listener = self.name, %expires, "TLS files changed and were loaded");
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(
                    listener = self.name,
                    error,
                    "TLS files changed and cannot be used; the old ones stay in force"
                );
            }
        }
    }

    async fn reload(&mut self) -> bool {
        match self.program.reload().await {
            Ok((state, tls)) => {
                self.loaded = tls.files.clone();
                self.seen = tls.files.clone();
                self.handle.replace(state, tls);
                tracing::info!(listener = self.name, "config reloaded");
                true
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(listener = self.name, error, "the config was not reloaded; the old one stays in force");
                false
            }
        }
    }

    fn failed(&self) -> Pin<Box<dyn Future<Output = anyhow::Error>>> {
        self.program.failed()
    }

    async fn finish(&mut self) {
        self.program.finish().await;
    }
}
