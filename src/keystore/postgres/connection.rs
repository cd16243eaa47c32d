//! One connection to one server, and what that server is.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use secrecy::ExposeSecret as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::config::SslMode;
use tokio_postgres::error::Severity;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, NoTls, Row};
use tokio_util::task::AbortOnDropHandle;

use super::config::{Config, Host};
use super::error::judge;
use super::tls::Connector;
use crate::http;
use crate::keystore::Error;

/// How long it may take to connect and to log in.
const CONNECT: Duration = Duration::from_millis(2_500);

/// What every connection sets, so that nothing depends on settings of the role or the database. A commit is
/// acknowledged when it is on the disk at least; more than that is the operator's to set.
const SESSION: &str = "SET statement_timeout = 0; SET lock_timeout = '5s'; \
    SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off; \
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')";

/// A parameter of a statement, and its type.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// A connection. Closed when dropped; a statement that is under way is not cancelled.
#[derive(Debug)]
pub(super) struct Connection {
    client: tokio_postgres::Client,
    /// Whether the server has warned since that was last asked.
    warned: Arc<AtomicBool>,
    _task: AbortOnDropHandle<()>,
    pub(super) facts: Facts,
    pub(super) host: String,
}

/// What a server says about itself.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) is_standby: bool,
    /// The id of the cluster, the same on its standbys; none: the role may not ask.
    pub(super) system: Option<String>,
    /// How often a standby of the cluster was promoted, as this server knows; none: the role may not ask.
    pub(super) timeline: Option<u32>,
}

impl Connection {
    /// Connects, logs in, and asks the server what it is.
    pub(super) async fn open(config: &Config, tls: &http::Tls, host: &Host) -> Result<Self, Error> {
        let opened = tokio::time::timeout(CONNECT, Self::connect(config, tls, host)).await;
        let text = || format!("{host}: no answer within {CONNECT:?}");
        opened.unwrap_or_else(|_| Err(Error::Unreachable(text().into())))
    }

    async fn connect(config: &Config, tls: &http::Tls, host: &Host) -> Result<Self, Error> {
        let mut login = tokio_postgres::Config::new();
        login.user(&config.user).dbname(&config.database).application_name("claviger");
        if let Some(password) = &config.password {
            login.password(password.expose_secret());
        }
        let refused = |error: &tokio_postgres::Error| at(host, judge(error, &config.table, &config.user));
        let unreachable = |error: std::io::Error| Error::Unreachable(format!("{host}: {error}").into());
        let mut connection = match host {
            Host::Tcp { host: name, port } => {
                let stream = TcpStream::connect((name.as_str(), *port)).await.map_err(unreachable)?;
                stream.set_nodelay(true).map_err(unreachable)?;
                let server = ServerName::try_from(name.clone()).map_err(|error| Error::Failed(error.into()))?;
                // Read each time, since certificates are renewed while we run.
                let settings = tls.load().map_err(|error| Error::Failed(error.into()))?;
                let connector = Connector { config: Arc::new(settings), server };
                let connected = login.ssl_mode(SslMode::Require).connect_raw(stream, connector).await;
                let (client, connection) = connected.map_err(|error| refused(&error))?;
                Self::run(client, connection, host)
            }
            Host::Unix(socket) => {
                let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
                let connected = login.ssl_mode(SslMode::Disable).connect_raw(stream, NoTls).await;
                let (client, connection) = connected.map_err(|error| refused(&error))?;
                Self::run(client, connection, host)
            }
        };
        connection.client.batch_execute(SESSION).await.map_err(|error| refused(&error))?;
        connection.facts = connection.ask().await.map_err(|error| refused(&error))?;
        Ok(connection)
    }

    fn run<S, T>(client: tokio_postgres::Client, mut connection: tokio_postgres::Connection<S, T>, host: &Host) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let warned = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn({
            let warned = warned.clone();
            async move {
                // Its end, and why it ended, are seen by those who use the client.
                while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                    if let AsyncMessage::Notice(notice) = message
                        && notice.parsed_severity() == Some(Severity::Warning)
                    {
                        warned.store(true, Ordering::Release);
                    }
                }
            }
        });
        let (facts, task) = (Facts::default(), AbortOnDropHandle::new(task));
        Self { client, warned, _task: task, facts, host: host.to_string() }
    }

    /// Asks the server what it is. Its WAL file's name begins with the timeline; a standby writes no such file.
    async fn ask(&self) -> Result<Facts, tokio_postgres::Error> {
        let is_standby = self.query("SELECT pg_is_in_recovery()", &[]).await?[0].try_get(0)?;
        let control = self.query("SELECT system_identifier::text FROM pg_control_system()", &[]).await;
        let system = may_ask(control)?.map(|rows| rows[0].try_get(0)).transpose()?;
        let file = match is_standby {
            true => None,
            false => may_ask(self.query("SELECT pg_walfile_name(pg_current_wal_lsn())", &[]).await)?,
        };
        let file: Option<String> = file.map(|rows| rows[0].try_get(0)).transpose()?;
        let timeline = file.and_then(|file| u32::from_str_radix(file.get(..8)?, 16).ok());
        Ok(Facts { is_standby, system, timeline })
    }

    /// Sends a statement without a name, which poolers between here and the server understand.
    pub(super) async fn query(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        self.client.query_typed(statement, parameters).await
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Whether the server has warned since this was last asked.
    pub(super) fn has_warned(&self) -> bool {
        self.warned.swap(false, Ordering::AcqRel)
    }
}

/// The answer; none: the role has no right to ask.
fn may_ask(answer: Result<Vec<Row>, tokio_postgres::Error>) -> Result<Option<Vec<Row>>, tokio_postgres::Error> {
    match answer {
        Err(error) if error.code().is_some_and(|state| state.code() == "42501") => Ok(None),
        answer => answer.map(Some),
    }
}

/// The same error, with the server's place.
fn at(host: &Host, error: Error) -> Error {
    match error {
        Error::Unreachable(cause) => Error::Unreachable(format!("{host}: {cause}").into()),
        Error::Failed(cause) => Error::Failed(format!("{host}: {cause}").into()),
        other => other,
    }
}
