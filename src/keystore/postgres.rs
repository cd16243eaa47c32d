//! PostgreSQL as key store: each key is a row of one table.
//!
//! Only a primary says that a key is missing. Where standbys may lag behind, a fail-over can lose keys that were
//! acknowledged: those that this process created are then looked for, and a lost one is never called missing.

mod acknowledged;
mod config;
mod connection;
mod error;
mod primary;
mod table;
mod tls;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

pub use self::config::{Config, Host, Table};

use self::acknowledged::Acknowledged;
use self::connection::Parameter;
use self::primary::Primary;
use super::{About, Access, Error, KeyStore, Listing};
use crate::crypto::Blob;
use crate::name::KeyName;
use crate::text::counted;

/// The most rows in a page of a listing.
const PAGE: usize = 10_000;

/// The best number of keys for one statement.
const BATCH: usize = 500;

/// The largest value that is a key, in bytes.
const MAX_VALUE: usize = 1 << 20;

/// The rows of one table.
#[derive(Debug)]
pub struct Store {
    primary: Primary,
    keys: Acknowledged,
    warnings: Vec<String>,
}

impl Store {
    /// Finds the primary, and checks the table.
    ///
    /// # Errors
    /// Why there is no primary, or what is wrong with the table.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let tls = config.tls.for_http("keystore.postgres.tls.ca");
        let primary = Primary::new(Arc::new(config.clone()), tls);
        let warnings = table::examine(&primary).await?;
        let store = Self { primary, keys: Acknowledged::default(), warnings };
        store.look_for_lost().await?;
        Ok(store)
    }

    fn table(&self) -> &str {
        self.primary.config.table.as_str()
    }

    /// Reads; the statement's first column is `who()`.
    async fn read(&self, statement: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Error> {
        self.primary.read(statement, parameters).await
    }

    /// Changes the row of a key. Returns whether there was one to change.
    async fn change(&self, name: &KeyName, statement: &str, parameters: &[Parameter<'_>]) -> Result<bool, Error> {
        // First, since a new connection may be the one that finds another primary.
        let writer = self.primary.writer().await?;
        self.look_for_lost().await?;
        self.refuse_lost(name)?;
        let changed = writer.run(statement, parameters).await;
        if let Err(Error::Unreachable(_)) = changed {
            self.keys.doubt(name);
        }
        Ok(!changed?.is_empty())
    }

    /// Waits until all that was committed before is as safe as any commit. What a read sees may still be on its way to
    /// a replica, when the writer got no answer.
    async fn settle_doubt(&self, name: &KeyName) -> Result<(), Error> {
        if self.keys.is_in_doubt(name) {
            let writer = self.primary.writer().await?;
            writer.run("SELECT who(), pg_logical_emit_message(true, 'claviger', '')::text", &[]).await?;
            self.keys.is_settled(name);
        }
        Ok(())
    }

    /// After a standby has become the primary: looks for the keys that this process was told are stored.
    async fn look_for_lost(&self) -> Result<(), Error> {
        let timeline = self.primary.timeline();
        if self.keys.is_on(timeline) {
            return Ok(());
        }
        let names = self.keys.to_look_for(timeline);
        let found = self.find(&names, "NULL::bytea").await?;
        let lost: Vec<_> = names.into_iter().filter(|name| !found.contains_key(name.as_str())).collect();
        if !lost.is_empty() {
            let named: Vec<_> = lost.iter().map(KeyName::as_str).take(100).collect();
            tracing::error!(
                keys = named.join(","),
                "a fail-over of PostgreSQL has lost {} that it had acknowledged; restore them from a cache, a backup or \
                 the old primary, and set synchronous_standby_names",
                counted(lost.len(), "key")
            );
        }
        self.keys.found_lost(timeline, lost);
        Ok(())
    }

    async fn clock(&self) -> Result<Option<OffsetDateTime>, Error> {
        let rows = self.read("SELECT who(), extract(epoch FROM clock_timestamp())::bigint", &[]).await?;
        Ok(OffsetDateTime::from_unix_timestamp(column(&rows[0], 1)?).ok())
    }

    fn refuse_lost(&self, name: &KeyName) -> Result<(), Error> {
        if !self.keys.is_lost(name) {
            return Ok(());
        }
        Err(Error::Failed(
            format!(
                "the key '{name}' was stored, and a fail-over of PostgreSQL has lost it; restore it with 'claviger \
                 migrate' from a backup or from the old primary, or restart the server to give it up"
            )
            .into(),
        ))
    }

    /// The rows of these names, with a second column of this expression.
    async fn find(&self, names: &[KeyName], what: &str) -> Result<HashMap<String, Option<Blob>>, Error> {
        let names: Vec<_> = names.iter().map(KeyName::as_str).collect();
        let table = self.table();
        // One row at least, so that the server always says what it is.
        let statement = format!(
            "SELECT who(), k.name, k.value FROM (SELECT 1) AS one \
             LEFT JOIN (SELECT name, {what} AS value FROM {table} WHERE name = ANY($1)) AS k ON true"
        );
        let rows = self.read(&statement, &[(&names, Type::TEXT_ARRAY)]).await?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in &rows {
            if let Some(name) = column::<Option<String>>(row, 1)? {
                found.insert(name, column::<Option<Vec<u8>>>(row, 2)?.map(Blob::from));
            }
        }
        Ok(found)
    }

    /// What a read says about a key.
    fn judge(&self, name: &KeyName, value: Option<Blob>) -> Result<Blob, Error> {
        match value {
            Some(value) if value.expose().len() > MAX_VALUE => {
                Err(Error::Failed(format!("the value of '{name}' is larger than {MAX_VALUE} bytes").into()))
            }
            Some(value) => Ok(value),
            None => {
                self.refuse_lost(name)?;
                Err(Error::NotFound)
            }
        }
    }
}

/// The value of a stored key, cut where it can be none.
fn value() -> String {
    format!("substr(value, 1, {})", MAX_VALUE + 1)
}

fn column<'r, T: FromSql<'r>>(row: &'r Row, index: usize) -> Result<T, Error> {
    row.try_get(index).map_err(|error| Error::Failed(format!("the answer is not about a key: {error}").into()))
}

/// The same failure for each key.
fn for_each<T>(error: &Error, count: usize) -> Vec<Result<T, Error>> {
    let text = crate::telemetry::log::causes(error);
    let same = || match error {
        Error::Unreachable(_) => Error::Unreachable(text.clone().into()),
        _ => Error::Failed(text.clone().into()),
    };
    (0..count).map(|_| Err(same())).collect()
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { hosts, database, table, .. } = &*self.primary.config;
        let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
        write!(f, "postgres: {}, database '{database}', table '{}'", hosts.join(","), table.as_str())
    }
}

#[async_trait]
impl KeyStore for Store {
    /// One statement; the unique index lets one creator win.
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        let statement = format!(
            "INSERT INTO {} (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING RETURNING who()",
            self.table()
        );
        let parameters: [Parameter<'_>; 2] = [(&name.as_str(), Type::TEXT), (&value.expose(), Type::BYTEA)];
        match self.change(name, &statement, &parameters).await? {
            true => {
                self.keys.created(name);
                Ok(())
            }
            false => Err(Error::Exists),
        }
    }

    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        self.settle_doubt(name).await?;
        let (value, table) = (value(), self.table());
        let statement = format!("SELECT who(), (SELECT {value} FROM {table} WHERE name = $1)");
        let rows = self.read(&statement, &[(&name.as_str(), Type::TEXT)]).await?;
        let value = column::<Option<Vec<u8>>>(&rows[0], 1)?;
        self.look_for_lost().await?;
        self.judge(name, value.map(Blob::from))
    }

    /// One statement, on the condition that the value is the expected one.
    async fn replace(&self, name: &KeyName, expected: &Blob, value: &Blob) -> Result<(), Error> {
        let statement =
            format!("UPDATE {} SET value = $3 WHERE name = $1 AND value = $2 RETURNING who()", self.table());
        let (expected, value) = (expected.expose(), value.expose());
        let parameters: [Parameter<'_>; 3] =
            [(&name.as_str(), Type::TEXT), (&expected, Type::BYTEA), (&value, Type::BYTEA)];
        if self.change(name, &statement, &parameters).await? {
            return Ok(());
        }
        self.get(name).await?;
        Err(Error::Failed("the key has another value than expected".into()))
    }

    async fn delete(&self, name: &KeyName) -> Result<(), Error> {
        let statement = format!("DELETE FROM {} WHERE name = $1 RETURNING who()", self.table());
        if !self.change(name, &statement, &[(&name.as_str(), Type::TEXT)]).await? {
            self.get(name).await?;
            return Err(Error::Unreachable("the key was created while it was to be deleted".into()));
        }
        self.keys.deleted(name);
        Ok(())
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        // Compared byte by byte, whatever the collation of the column is.
        let statement = format!(
            "SELECT who(), k.name FROM (SELECT 1) AS one LEFT JOIN (SELECT name FROM {} \
             WHERE name COLLATE \"C\" >= $1 AND starts_with(name, $1) AND name COLLATE \"C\" > $2 \
             ORDER BY name COLLATE \"C\" LIMIT {PAGE}) AS k ON true ORDER BY k.name COLLATE \"C\"",
            self.table()
        );
        let (mut listing, mut last) = (Listing::default(), String::new());
        loop {
            let parameters: [Parameter<'_>; 2] = [(&prefix, Type::TEXT), (&last, Type::TEXT)];
            let rows = self.read(&statement, &parameters).await?;
            for row in &rows {
                if let Some(name) = column::<Option<String>>(row, 1)? {
                    listing.insert(&name);
                    last = name;
                }
            }
            if rows.len() < PAGE {
                return Ok(listing.sorted());
            }
        }
    }

    async fn status(&self) -> Result<Duration, Error> {
        let asked = Instant::now();
        self.read("SELECT who()", &[]).await?;
        Ok(asked.elapsed())
    }

    fn behind(&self) -> Option<&dyn KeyStore> {
        None
    }

    fn about(&self) -> About<'_> {
        let Config { database, table, .. } = &*self.primary.config;
        let identity = match self.primary.system() {
            Some(system) => format!("postgres: cluster {system}, {database}/{}", table.as_str()),
            None => self.to_string(),
        };
        About { clock: Box::pin(self.clock()), warnings: &self.warnings, ..About::named(identity) }
    }

    async fn check(&self, access: Access) -> Result<(), Error> {
        table::check(&self.primary, access).await
    }

    fn batch(&self) -> usize {
        BATCH
    }

    async fn get_batch(&self, names: &[KeyName]) -> Vec<Result<Blob, Error>> {
        if names.iter().any(|name| self.keys.is_in_doubt(name)) {
            let mut answers = Vec::with_capacity(names.len());
            for name in names {
                answers.push(self.get(name).await);
            }
            return answers;
        }
        let found = async {
            let found = self.find(names, &value()).await?;
            self.look_for_lost().await?;
            Ok(found)
        };
        match found.await {
            Ok(found) => {
                let value = |name: &KeyName| found.get(name.as_str())?.as_ref().map(Blob::copy);
                names.iter().map(|name| self.judge(name, value(name))).collect()
            }
            Err(error) => for_each(&error, names.len()),
        }
    }

    async fn create_batch(&self, keys: &[(&KeyName, &Blob)]) -> Vec<Result<(), Error>> {
        let writer = async {
            let writer = self.primary.writer().await?;
            self.look_for_lost().await?;
            Ok(writer)
        };
        let writer = match writer.await {
            Ok(writer) => writer,
            Err(error) => return for_each(&error, keys.len()),
        };
        if keys.iter().any(|(name, _)| self.keys.is_lost(name)) {
            drop(writer);
            let mut answers = Vec::with_capacity(keys.len());
            for (name, value) in keys {
                answers.push(self.create(name, value).await);
            }
            return answers;
        }
        let statement = format!(
            "INSERT INTO {} (name, value) SELECT * FROM unnest($1::text[], $2::bytea[]) \
             ON CONFLICT (name) DO NOTHING RETURNING who(), name",
            self.table()
        );
        let names: Vec<_> = keys.iter().map(|(name, _)| name.as_str()).collect();
        let values: Vec<_> = keys.iter().map(|(_, value)| value.expose()).collect();
        let created = writer.run(&statement, &[(&names, Type::TEXT_ARRAY), (&values, Type::BYTEA_ARRAY)]).await;
        let created = created.and_then(|rows| rows.iter().map(|row| column::<String>(row, 1)).collect());
        let mut created: HashSet<_> = match created {
            Ok(created) => created,
            Err(error) => {
                if matches!(error, Error::Unreachable(_)) {
                    keys.iter().for_each(|(name, _)| self.keys.doubt(name));
                }
                return for_each(&error, keys.len());
            }
        };
        let answers = keys.iter().map(|(name, _)| match created.remove(name.as_str()) {
            true => {
                self.keys.created(name);
                Ok(())
            }
            false => Err(Error::Exists),
        });
        answers.collect()
    }
}
