//! What an error of PostgreSQL means, by its SQLSTATE.

use std::error::Error as StdError;

use tokio_postgres::error::SqlState;

use super::config::Table;
use crate::foreign::{cut, printable};
use crate::http::untrusted;
use crate::keystore::Error;

/// How much of a text of the server is shown, in bytes.
const MOST: usize = 600;

/// The statements that make the table and give the rights to it.
pub(super) fn statements(table: &Table, user: &str) -> String {
    let table = table.as_str();
    format!(
        "CREATE TABLE {table} (name text COLLATE \"C\" PRIMARY KEY, value bytea NOT NULL, created timestamptz NOT NULL \
         DEFAULT now()); {}",
        grant(table, user, "SELECT, INSERT, DELETE")
    )
}

/// The statement that gives these rights.
pub(super) fn grant(table: &str, user: &str, rights: &str) -> String {
    format!("GRANT {rights} ON {table} TO {user};")
}

/// What a failed statement means, or a failed attempt to connect.
pub(super) fn judge(error: &tokio_postgres::Error, table: &Table, user: &str) -> Error {
    let text = describe(error);
    let Some(state) = error.code() else { return Error::Unreachable(text.into()) };
    let code = state.code();
    let text = format!("SQLSTATE {code}: {text}");
    match code {
        _ if is_passing(state) => Error::Unreachable(text.into()),
        "42501" => {
            let grant = grant(table.as_str(), user, "SELECT, INSERT, DELETE");
            Error::Failed(
                format!("{text}; as the owner of the table: {grant} 'migrate --force' needs UPDATE, too").into(),
            )
        }
        "42P01" | "42P10" | "42703" | "3F000" => {
            Error::Failed(format!("{text}; make the table: {}", statements(table, user)).into())
        }
        "3D000" => Error::Failed(format!("{text}; correct 'database', or make it, with the table in it").into()),
        _ if code.starts_with("28") => {
            Error::Failed(format!("{text}; correct 'user' and 'password', or tls.cert").into())
        }
        "53100" => Error::Failed(format!("{text}; the disk of the database is full").into()),
        _ => Error::Failed(text.into()),
    }
}

/// Whether it may pass by itself. Nothing is known of a write then.
fn is_passing(state: &SqlState) -> bool {
    state.code().starts_with("08")
        || matches!(
            state.code(),
            "57P01" | "57P02" | "57P03" | "53300" | "57014" | "55P03" | "40001" | "40P01" | "25006"
        )
}

/// An error with its causes, and with what to do about a certificate that is not trusted. The server's details are left
/// out, because they may quote values.
fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return cut(&printable(error.message()), MOST).into_owned();
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    if untrusted(error as &(dyn StdError + 'static)).is_some() {
        text.push_str("; the server's certificate is not trusted: name the CA that issued it under tls.ca");
    }
    cut(&printable(&text), MOST).into_owned()
}
