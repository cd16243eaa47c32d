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

/// What statements ask the server about itself. Every answer says it, not only the first of a connection: a pooler may
/// send each statement to another server.
const WHO: &str = "who()";

/// The parts of the question that a role may have no right to ask.
const SYSTEM: &str = "(SELECT system_identifier FROM pg_control_system())";
const WAL_FILE: &str = "CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_lsn()) END";

/// Makes this one commit wait for the disk, which the settings of a role or a database may have switched off. More than
/// that is the operator's to set.
const DURABLE: &str = "CASE WHEN current_setting('synchronous_commit') IN ('off', 'local') \
    THEN left(set_config('synchronous_commit', 'on', true), 0) END";

/// How long it may take to connect and to log in.
const CONNECT: Duration = Duration::from_millis(2_500);

/// What every connection sets, so that little depends on settings of the role or the database. Behind a pooler it may
/// not be there for all statements; no promise depends on it.
const SESSION: &str = "SET statement_timeout = 0; SET lock_timeout = '5s'; \
    SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off";

/// A parameter of a statement, and its type.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// A connection. Closed when dropped; a statement that is under way is not cancelled.
#[derive(Debug)]
pub(super) struct Connection {
    client: tokio_postgres::Client,
    /// Whether the server has warned since that was last asked.
    warned: Arc<AtomicBool>,
    _task: AbortOnDropHandle<()>,
    /// What [`WHO`] stands for: as much as the role may ask.
    who: String,
    /// What the server said when the connection was opened.
    pub(super) facts: Facts,
    pub(super) host: String,
}

/// What a server says about itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) is_standby: bool,
    /// The id of the cluster, the same on its standbys; none: the role may not ask.
    pub(super) system: Option<String>,
    /// How often a standby of the cluster was promoted, as this server knows; none: the role may not ask.
    pub(super) timeline: Option<u32>,
}

impl Facts {
    /// What the first column of an answer says, which has one row at least.
    pub(super) fn of(rows: &[Row]) -> Result<Self, Error> {
        let said = rows.first().and_then(|row| row.try_get::<_, Option<&str>>(0).ok().flatten());
        said.and_then(Self::parse).ok_or_else(|| Error::Failed("the answer does not say which server it is of".into()))
    }

    /// Reads `f 7301234567890123456 000000010000000000000003`. A WAL file's name begins with the timeline; a standby
    /// writes no such file.
    fn parse(said: &str) -> Option<Self> {
        let mut parts = said.split(' ');
        let (is_standby, system, file) = (parts.next()?, parts.next()?, parts.next()?);
        let is_standby = match is_standby {
            "t" => true,
            "f" => false,
            _ => return None,
        };
        let timeline = match file {
            "" => None,
            file => Some(u32::from_str_radix(file.get(..8)?, 16).ok()?),
        };
        Some(Self { is_standby, system: Some(system.to_owned()).filter(|system| !system.is_empty()), timeline })
    }
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
        // Both are sent at once.
        let (session, asked) = tokio::join!(connection.client.batch_execute(SESSION), connection.ask());
        session.map_err(|error| refused(&error))?;
        let (who, rows) = asked.map_err(|error| refused(&error))?;
        (connection.who, connection.facts) = (who, Facts::of(&rows).map_err(|error| at(host, error))?);
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
        Self { client, warned, _task: task, who: String::new(), facts, host: host.to_string() }
    }

    /// Asks the server what it is. Returns the question, which is as much as the role may ask, and the answer.
    async fn ask(&self) -> Result<(String, Vec<Row>), tokio_postgres::Error> {
        let mut questions = [(SYSTEM, WAL_FILE), ("NULL", WAL_FILE), (SYSTEM, "NULL"), ("NULL", "NULL")].into_iter();
        loop {
            let (system, file) = questions.next().expect("the last one needs no right");
            let who = format!("(SELECT concat(pg_is_in_recovery(), ' ', {system}, ' ', {file}))");
            match self.client.query_typed(&format!("SELECT {who}"), &[]).await {
                Err(error) if may_not_ask(&error) && questions.len() > 0 => {}
                answer => return answer.map(|rows| (who, rows)),
            }
        }
    }

    /// Reads. The statement has `who()` as its first column. It is sent without a name, which poolers between here and
    /// the server understand.
    pub(super) async fn read(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        self.client.query_typed(&statement.replace(WHO, &self.who), parameters).await
    }

    /// Writes. The statement returns `who()` as its first column.
    pub(super) async fn write(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let who = format!("concat({}, {DURABLE})", self.who);
        self.client.query_typed(&statement.replace(WHO, &who), parameters).await
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Whether the server has warned since this was last asked.
    pub(super) fn has_warned(&self) -> bool {
        self.warned.swap(false, Ordering::AcqRel)
    }
}

/// Whether the role has no right to ask, or the server, as some clouds have them, does not answer that to anybody.
fn may_not_ask(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|state| matches!(state.code(), "42501" | "0A000"))
}

/// The same error, with the server's place.
fn at(host: &Host, error: Error) -> Error {
    match error {
        Error::Unreachable(cause) => Error::Unreachable(format!("{host}: {cause}").into()),
        Error::Failed(cause) => Error::Failed(format!("{host}: {cause}").into()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_what_it_is() {
        let facts = |is_standby, system: Option<&str>, timeline| {
            Some(Facts { is_standby, system: system.map(str::to_owned), timeline })
        };
        for (said, parsed) in [
            ("f 73 0000000A0000000000000003", facts(false, Some("73"), Some(10))),
            ("t 73 ", facts(true, Some("73"), None)),
            ("f  ", facts(false, None, None)),
            ("f  000000010000000000000003", facts(false, None, Some(1))),
            ("", None),
            ("f", None),
            ("f 73", None),
            ("x 73 ", None),
            ("f 73 0001", None),
            ("f 73 timeline1", None),
        ] {
            assert_eq!(Facts::parse(said), parsed, "{said:?}");
        }
    }
}
