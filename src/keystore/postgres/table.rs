//! The table of the keys: whether it can hold keys, what is dangerous about its database, and which rights there are.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::column;
use super::error::{grant, statements};
use super::primary::Primary;
use crate::keystore::{Access, Error};

/// Checks the table. Returns what works, and is dangerous.
pub(super) async fn examine(primary: &Primary) -> Result<Vec<String>, Error> {
    let rows = primary
        .read(
            "SELECT who(), c.relkind::text, c.relpersistence::text, row_security_active(c.oid), \
             EXISTS (SELECT 1 FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
             WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indnkeyatts = 1 AND i.indpred IS NULL \
             AND i.indexprs IS NULL AND a.attname = 'name'), \
             (SELECT count(*) FROM pg_stat_replication), current_setting('synchronous_standby_names'), \
             current_setting('fsync') = 'off', \
             (current_setting('log_statement') IN ('mod', 'all') OR \
             current_setting('log_min_duration_statement') <> '-1') AND \
             coalesce(current_setting('log_parameter_max_length', true), '-1') <> '0' \
             FROM (SELECT 1) AS one LEFT JOIN pg_class c ON c.oid = to_regclass($1)",
            &[(&primary.config.table.as_str(), Type::TEXT)],
        )
        .await?;
    let row = &rows[0];
    can_hold_keys(primary, row)?;
    let mut risks = Vec::new();
    let mut risk = |is_there: bool, text: String| {
        if is_there {
            risks.push(text);
        }
    };
    let user = &primary.config.user;
    let (standbys, synchronous) = (column::<i64>(row, 5)?, column::<&str>(row, 6)?);
    risk(
        standbys > 0 && synchronous.is_empty(),
        "the standbys of PostgreSQL are asynchronous: a fail-over can lose keys that were acknowledged; set \
         synchronous_standby_names"
            .into(),
    );
    risk(
        standbys == 0,
        "no standby is connected to PostgreSQL: the disk of one server is the only copy of the keys; add standbys, and \
         set synchronous_standby_names"
            .into(),
    );
    risk(column(row, 7)?, "fsync is off in PostgreSQL: a power cut can destroy all keys; set fsync = on".into());
    risk(
        column(row, 8)?,
        format!(
            "PostgreSQL writes the values of statements, which are the keys, to its log; as a superuser: ALTER ROLE {user} \
             SET log_parameter_max_length = 0; or seal the keys with keystore.encrypt"
        ),
    );
    risk(
        primary.system().is_none() || primary.timeline() == 0,
        format!(
            "the role may not ask for the id and the timeline of the database: an old primary that comes back is not \
             noticed; GRANT EXECUTE ON FUNCTION pg_control_system() TO {user};"
        ),
    );
    Ok(risks)
}

fn can_hold_keys(primary: &Primary, row: &Row) -> Result<(), Error> {
    let (table, user) = (&primary.config.table, &primary.config.user);
    let wrong = |what: &str| {
        let text = format!("the table '{}' {what}: {}", table.as_str(), statements(table, user));
        Error::Failed(text.into())
    };
    let Some(kind) = column::<Option<&str>>(row, 1)? else {
        return Err(wrong("does not exist, or the role may not see its schema; make it"));
    };
    if !matches!(kind, "r" | "p") {
        return Err(wrong("is no table; make one"));
    }
    if column::<&str>(row, 2)? != "p" {
        return Err(wrong("is unlogged or temporary, and loses its rows in a crash; make another"));
    }
    if column(row, 3)? {
        return Err(wrong("has row-level security, which hides rows; make one without"));
    }
    if !column::<bool>(row, 4)? {
        return Err(wrong("has no unique index on 'name' alone, so two servers could create one key; make it so"));
    }
    Ok(())
}

/// Checks the rights that `access` needs.
pub(super) async fn check(primary: &Primary, access: Access) -> Result<(), Error> {
    let needed: &[&str] = match access {
        Access::Read => &["SELECT"],
        Access::Create => &["SELECT", "INSERT"],
        Access::Serve => &["SELECT", "INSERT", "DELETE"],
        Access::Replace => &["SELECT", "INSERT", "UPDATE"],
    };
    let (table, user) = (primary.config.table.as_str(), &primary.config.user);
    let columns: Vec<_> = needed.iter().map(|right| format!("has_table_privilege($1, '{right}')")).collect();
    let statement = format!("SELECT who(), {}", columns.join(", "));
    let rows = primary.read(&statement, &[(&table, Type::TEXT)]).await?;
    let mut missing = Vec::new();
    for (index, right) in needed.iter().enumerate() {
        if !column::<bool>(&rows[0], index + 1)? {
            missing.push(*right);
        }
    }
    match missing[..] {
        [] => Ok(()),
        _ => {
            let missing = missing.join(", ");
            let grant = grant(table, user, &missing);
            Err(Error::Failed(format!("missing rights: {missing} on {table}; as its owner: {grant}").into()))
        }
    }
}
