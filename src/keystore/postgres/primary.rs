//! The primary of a cluster: which of the servers it is, and the connections to it.
//!
//! Only a primary's word counts, because a standby lags behind. A primary whose timeline is older than one that was seen
//! is one that came back after a standby took its place: its word counts no more than a standby's.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::Row;

use super::config::Config;
use super::connection::{Connection, Facts, Parameter};
use super::error::judge;
use crate::http;
use crate::keystore::Error;

/// How long a read may take, so that another server can be asked within the 10 seconds of a request.
const READ: Duration = Duration::from_secs(3);

/// How long a write may take. It may wait for a lock, or for a replica.
const WRITE: Duration = Duration::from_secs(8);

/// The most connections that write at a time.
const WRITERS: usize = 8;

/// The connections to the primary. One is for all reads; each write has one to itself, because a write may have to wait
/// for a replica, and reads and other writes must not wait with it.
#[derive(Debug)]
pub(super) struct Primary {
    pub(super) config: Arc<Config>,
    tls: http::Tls,
    /// The highest timeline that was seen; 0: none.
    highest: AtomicU32,
    system: OnceLock<String>,
    reader: Mutex<Option<Arc<Connection>>>,
    writers: Mutex<Vec<Connection>>,
    turns: Semaphore,
    /// Held by whoever connects for reads.
    connecting: Semaphore,
}

impl Primary {
    pub(super) fn new(config: Arc<Config>, tls: http::Tls) -> Self {
        Self {
            config,
            tls,
            highest: AtomicU32::new(0),
            system: OnceLock::new(),
            reader: Mutex::default(),
            writers: Mutex::default(),
            turns: Semaphore::new(WRITERS),
            connecting: Semaphore::new(1),
        }
    }

    /// The id of the cluster; none: nobody may ask.
    pub(super) fn system(&self) -> Option<&str> {
        self.system.get().map(String::as_str)
    }

    /// The highest timeline that was seen; 0: none.
    pub(super) fn timeline(&self) -> u32 {
        self.highest.load(Ordering::Acquire)
    }

    /// Runs a statement that reads, and answers with its rows, of which there is one at least. The first column of the
    /// statement is `who()`.
    pub(super) async fn read(&self, statement: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Error> {
        let connection = self.reader().await?;
        let rows = match tokio::time::timeout(READ, connection.read(statement, parameters)).await {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => {
                let error = self.judged(&error);
                if matches!(error, Error::Unreachable(_)) {
                    self.forget(&connection);
                }
                return Err(error);
            }
            Err(_) => {
                self.forget(&connection);
                return Err(Error::Unreachable(format!("{}: no answer within {READ:?}", connection.host).into()));
            }
        };
        // Behind a pooler it may be another server than before, or another one has taken its place.
        let believed = Facts::of(&rows).and_then(|facts| self.believe(&connection.host, &facts));
        if let Err(error) = believed {
            self.forget(&connection);
            return Err(error);
        }
        Ok(rows)
    }

    /// A connection that one write has to itself, when it is its turn.
    pub(super) async fn writer(&self) -> Result<Writer<'_>, Error> {
        let turn = self.turns.acquire().await.expect("it is never closed");
        let idle = lock(&self.writers).pop();
        let connection = match idle.filter(|connection| !connection.is_closed() && self.is_current(connection)) {
            Some(connection) => connection,
            None => self.open().await?,
        };
        Ok(Writer { primary: self, connection, _turn: turn })
    }

    pub(super) fn judged(&self, error: &tokio_postgres::Error) -> Error {
        judge(error, &self.config.table, &self.config.user)
    }

    async fn reader(&self) -> Result<Arc<Connection>, Error> {
        if let Some(connection) = self.usable_reader() {
            return Ok(connection);
        }
        let _turn = self.connecting.acquire().await.expect("it is never closed");
        // Meanwhile somebody else may have connected.
        if let Some(connection) = self.usable_reader() {
            return Ok(connection);
        }
        let connection = Arc::new(self.open().await?);
        *lock(&self.reader) = Some(connection.clone());
        Ok(connection)
    }

    fn usable_reader(&self) -> Option<Arc<Connection>> {
        let connection = lock(&self.reader).clone()?;
        (!connection.is_closed() && self.is_current(&connection)).then_some(connection)
    }

    fn forget(&self, connection: &Arc<Connection>) {
        let mut reader = lock(&self.reader);
        if reader.as_ref().is_some_and(|current| Arc::ptr_eq(current, connection)) {
            *reader = None;
        }
    }

    /// Whether no newer primary was seen than this one.
    fn is_current(&self, connection: &Connection) -> bool {
        connection.facts.timeline.is_none_or(|timeline| timeline >= self.timeline())
    }

    /// Connects to the primary.
    async fn open(&self) -> Result<Connection, Error> {
        let hosts = &self.config.hosts;
        let connect = |host| Connection::open(&self.config, &self.tls, host);
        // At first nothing is known of timelines: all servers are asked, so that the newest primary is found.
        if self.timeline() == 0 {
            return self.choose(join_all(hosts.iter().map(connect)).await);
        }
        let mut refusals = Vec::new();
        for host in hosts {
            match self.choose(vec![connect(host).await]) {
                Ok(connection) => return Ok(connection),
                Err(error) => refusals.push(error),
            }
        }
        Err(join(refusals))
    }

    /// The primary among these, with the newest timeline.
    fn choose(&self, connections: Vec<Result<Connection, Error>>) -> Result<Connection, Error> {
        let (mut newest, mut refusals): (Option<Connection>, _) = (None, Vec::new());
        for connection in connections {
            let judged = connection.and_then(|connection| {
                self.judge(&connection.host, &connection.facts)?;
                Ok(connection)
            });
            match judged {
                Ok(connection) => {
                    if newest.as_ref().is_none_or(|newest| newest.facts.timeline < connection.facts.timeline) {
                        newest = Some(connection);
                    }
                }
                Err(error) => refusals.push(error),
            }
        }
        let Some(connection) = newest else { return Err(join(refusals)) };
        self.believe(&connection.host, &connection.facts)?;
        Ok(connection)
    }

    /// Remembers what a server says about itself, if its word counts.
    fn believe(&self, host: &str, facts: &Facts) -> Result<(), Error> {
        self.judge(host, facts)?;
        if let Some(system) = &facts.system {
            self.system.get_or_init(|| system.clone());
        }
        self.highest.fetch_max(facts.timeline.unwrap_or(0), Ordering::AcqRel);
        Ok(())
    }

    /// Whether a server's word counts.
    fn judge(&self, host: &str, facts: &Facts) -> Result<(), Error> {
        if let (Some(pinned), Some(system)) = (self.system.get(), &facts.system)
            && pinned != system
        {
            return Err(Error::Failed(
                format!(
                    "{host}: another database cluster answers ({system} in place of {pinned}); correct 'hosts', and \
                     restart this program if the database was set up anew"
                )
                .into(),
            ));
        }
        if facts.is_standby {
            return Err(Error::Unreachable(format!("{host}: it is a standby").into()));
        }
        match facts.timeline {
            Some(timeline) if timeline < self.timeline() => Err(Error::Unreachable(
                format!(
                    "{host}: it is an old primary that came back (timeline {timeline}, and {} was seen); make it a \
                     standby of the new one",
                    self.timeline()
                )
                .into(),
            )),
            _ => Ok(()),
        }
    }
}

/// A connection for one write.
pub(super) struct Writer<'a> {
    primary: &'a Primary,
    connection: Connection,
    _turn: SemaphorePermit<'a>,
}

impl Writer<'_> {
    /// Runs a statement that writes, once. It returns `who()` as its first column, so that it is known who did it.
    pub(super) async fn run(self, statement: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Error> {
        let Self { primary, connection, _turn } = self;
        let unproven = |what: &str| Error::Unreachable(format!("{}: {what}", connection.host).into());
        connection.has_warned();
        // A connection that is not put back is closed: the server goes on with a statement that is under way.
        let rows = match tokio::time::timeout(WRITE, connection.write(statement, parameters)).await {
            Err(_) => return Err(unproven("the write has not ended in time; it may wait for a lock or a replica")),
            Ok(Err(error)) => match primary.judged(&error) {
                Error::Unreachable(cause) => return Err(unproven(&cause.to_string())),
                error => Err(error),
            },
            // Such as a wait for a replica that somebody has cancelled: the server calls the write done nevertheless.
            Ok(Ok(_)) if connection.has_warned() => {
                return Err(unproven("the server does not prove that the write is replicated"));
            }
            Ok(Ok(_)) if !primary.is_current(&connection) => {
                return Err(unproven("another server has taken its place meanwhile"));
            }
            Ok(Ok(rows)) => {
                if !rows.is_empty() {
                    let believed = Facts::of(&rows).and_then(|facts| primary.believe(&connection.host, &facts));
                    believed.map_err(|error| Error::Unreachable(cause_of(error).into()))?;
                }
                Ok(rows)
            }
        };
        lock(&primary.writers).push(connection);
        rows
    }
}

/// One error that names all. It may pass if any of them may.
fn join(errors: Vec<Error>) -> Error {
    let is_passing = errors.iter().any(|error| matches!(error, Error::Unreachable(_)));
    let causes = errors.into_iter().map(cause_of);
    let text = format!("no primary: {}", causes.collect::<Vec<_>>().join("; "));
    if is_passing { Error::Unreachable(text.into()) } else { Error::Failed(text.into()) }
}

fn cause_of(error: Error) -> String {
    match error {
        Error::Unreachable(cause) | Error::Failed(cause) => cause.to_string(),
        other => other.to_string(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
