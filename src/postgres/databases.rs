//! Databases as a whole: made, renamed, dropped, asked who is connected; roles and tablespaces by name.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_postgres::types::Type;

use super::roles::quote_identifier;
use super::session::{QUICK, Session, get};
use super::snapshot::quote_literal;
use crate::error::Result;
use crate::model::{PgMajor, TableName};

/// Copying a template, or removing a large database's files.
const FILES: Duration = Duration::from_hours(1);
/// Reading a table to its end.
const COUNT: Duration = Duration::from_hours(24);
/// What a rename waits for: PostgreSQL itself gives others five seconds to leave.
const RENAME: Duration = Duration::from_mins(1);

/// How a database is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDatabase<'a> {
    pub name: &'a str,
    pub encoding: &'a str,
    pub collate: &'a str,
    pub ctype: &'a str,
    /// `c`, `i` or `b`.
    pub locale_provider: &'a str,
    pub locale: Option<&'a str>,
    pub icu_rules: Option<&'a str>,
    /// None for the usual one.
    pub tablespace: Option<&'a str>,
}

/// Somebody who is connected.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct OtherSession {
    pub pid: i32,
    pub user: String,
    pub application: String,
    pub client: String,
}

impl std::fmt::Display for OtherSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pid, user, application, client } = self;
        write!(f, "{user} from {client}")?;
        if !application.is_empty() {
            write!(f, " ({application})")?;
        }
        write!(f, ", process {pid}")
    }
}

impl NewDatabase<'_> {
    /// From `template0`, which fits every encoding and locale.
    fn statement(&self, major: PgMajor) -> String {
        let literal = quote_literal;
        let mut sql = format!(
            "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
            quote_identifier(self.name),
            literal(self.encoding),
            literal(self.collate),
            literal(self.ctype)
        );
        // Before 15 there is libc alone.
        if major.0 >= 15 {
            match (self.locale_provider, self.locale) {
                ("i", Some(locale)) => {
                    sql += &format!(" LOCALE_PROVIDER icu ICU_LOCALE {}", literal(locale));
                    let rules = self.icu_rules.map(|rules| format!(" ICU_RULES {}", literal(rules)));
                    sql += &rules.unwrap_or_default();
                }
                ("b", Some(locale)) => {
                    sql += &format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {}", literal(locale));
                }
                _ => sql += " LOCALE_PROVIDER libc",
            }
        }
        let tablespace = self.tablespace.map(|t| format!(" TABLESPACE {}", quote_identifier(t)));
        sql + &tablespace.unwrap_or_default()
    }
}

impl Session {
    pub async fn create_database(&self, new: &NewDatabase<'_>) -> Result<()> {
        self.batch(&format!("make database {}", new.name), FILES, &new.statement(self.major())).await
    }

    /// Whether this session's role may make databases.
    pub async fn may_create_databases(&self) -> Result<bool> {
        let sql = "SELECT rolcreatedb OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user";
        self.value("look at the role's rights", sql).await
    }

    /// Ends whoever is connected. One that is not there is no error.
    pub async fn drop_database(&self, name: &str) -> Result<()> {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote_identifier(name));
        self.batch(&format!("drop database {name}"), FILES, &sql).await
    }

    /// Databases whose name begins so, with their comments.
    pub async fn databases_called(&self, prefix: &str) -> Result<Vec<(String, Option<String>)>> {
        let sql = "SELECT d.datname::pg_catalog.text, pg_catalog.shobj_description(d.oid, 'pg_database') \
                   FROM pg_catalog.pg_database d WHERE pg_catalog.starts_with(d.datname::pg_catalog.text, $1) \
                   ORDER BY 1";
        let rows = self.rows("list the databases", QUICK, sql, &[(&prefix, Type::TEXT)]).await?;
        rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect()
    }

    /// Subscriptions of a database: with one it cannot be dropped.
    pub async fn subscriptions_of(&self, database: &str) -> Result<Vec<String>> {
        let sql = "SELECT s.subname::pg_catalog.text FROM pg_catalog.pg_subscription s \
                   JOIN pg_catalog.pg_database d ON d.oid = s.subdbid WHERE d.datname::pg_catalog.text = $1";
        let rows = self.rows("list the subscriptions", QUICK, sql, &[(&database, Type::TEXT)]).await?;
        rows.iter().map(|row| get(row, 0)).collect()
    }

    /// Drops one of this database without a word to its publisher, whose slot is not ours.
    pub async fn forget_subscription(&self, name: &str) -> Result<()> {
        let name = quote_identifier(name);
        for sql in [
            format!("ALTER SUBSCRIPTION {name} DISABLE"),
            format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE)"),
            format!("DROP SUBSCRIPTION {name}"),
        ] {
            self.batch("drop a subscription", RENAME, &sql).await?;
        }
        Ok(())
    }

    /// Everybody who is connected to a database.
    pub async fn sessions_in(&self, database: &str) -> Result<Vec<OtherSession>> {
        let sql = "SELECT pid, coalesce(usename::pg_catalog.text, backend_type), coalesce(application_name, ''), \
                   coalesce(client_addr::pg_catalog.text, 'this host') FROM pg_catalog.pg_stat_activity \
                   WHERE datname::pg_catalog.text = $1 AND backend_type = 'client backend' \
                   AND pid <> pg_catalog.pg_backend_pid() ORDER BY backend_start, pid";
        let rows = self.rows("look who is connected", QUICK, sql, &[(&database, Type::TEXT)]).await?;
        rows.iter()
            .map(|row| {
                Ok(OtherSession {
                    pid: get(row, 0)?,
                    user: get(row, 1)?,
                    application: get(row, 2)?,
                    client: get(row, 3)?,
                })
            })
            .collect()
    }

    /// Ends all of them; those who come again are for the caller to see.
    pub async fn end_sessions_in(&self, database: &str) -> Result<()> {
        let sql = "SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity \
                   WHERE datname::pg_catalog.text = $1 AND backend_type = 'client backend' \
                   AND pid <> pg_catalog.pg_backend_pid()";
        self.row("end the sessions", QUICK, sql, &[(&database, Type::TEXT)]).await.map(|_| ())
    }

    /// Runs these statements as one transaction: all of them count or none.
    pub async fn all_or_nothing(&self, doing: &str, statements: &[String]) -> Result<()> {
        self.batch(doing, RENAME, &statements.join(";\n")).await
    }

    /// One statement that no transaction may hold (`CREATE TABLESPACE`).
    pub async fn alone(&self, doing: &str, statement: &str) -> Result<()> {
        self.batch(doing, RENAME, statement).await
    }

    pub async fn role_names(&self) -> Result<BTreeSet<String>> {
        self.names("list the roles", "SELECT rolname::pg_catalog.text FROM pg_catalog.pg_roles").await
    }
    pub async fn tablespace_names(&self) -> Result<BTreeSet<String>> {
        self.names("list the tablespaces", "SELECT spcname::pg_catalog.text FROM pg_catalog.pg_tablespace")
            .await
    }
    async fn names(&self, doing: &str, sql: &str) -> Result<BTreeSet<String>> {
        self.rows(doing, QUICK, sql, &[]).await?.iter().map(|row| get(row, 0)).collect()
    }

    /// Rows of the table itself, without those of its children.
    pub async fn count_own_rows(&self, table: &TableName) -> Result<u64> {
        let sql = format!("SELECT pg_catalog.count(*) FROM ONLY {}", table.quoted());
        let row = self.row(&format!("count the rows of {table}"), COUNT, &sql, &[]).await?;
        Ok(u64::try_from(get::<i64>(&row, 0)?).unwrap_or(0))
    }
}

pub fn rename_database(from: &str, to: &str) -> String {
    format!("ALTER DATABASE {} RENAME TO {}", quote_identifier(from), quote_identifier(to))
}

pub fn give_database(name: &str, owner: &str) -> String {
    format!("ALTER DATABASE {} OWNER TO {}", quote_identifier(name), quote_identifier(owner))
}

pub fn comment_on_database(name: &str, comment: Option<&str>) -> String {
    let comment = comment.map_or_else(|| "NULL".to_owned(), quote_literal);
    format!("COMMENT ON DATABASE {} IS {comment}", quote_identifier(name))
}

/// A name for owners and grants, without any right.
pub fn new_role(name: &str) -> String {
    format!("CREATE ROLE {}", quote_identifier(name))
}

pub fn drop_role(name: &str) -> String {
    format!("DROP ROLE IF EXISTS {}", quote_identifier(name))
}

pub fn drop_tablespace(name: &str) -> String {
    format!("DROP TABLESPACE IF EXISTS {}", quote_identifier(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_made_as_the_old_one_was() {
        let libc = NewDatabase {
            name: "new",
            encoding: "LATIN1",
            collate: "de_DE",
            ctype: "C",
            locale_provider: "c",
            locale: None,
            icu_rules: None,
            tablespace: Some("Fast 1"),
        };
        let head =
            "CREATE DATABASE \"new\" TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'de_DE' LC_CTYPE 'C'";
        assert_eq!(libc.statement(PgMajor(14)), format!("{head} TABLESPACE \"Fast 1\""));
        assert_eq!(libc.statement(PgMajor(18)), format!("{head} LOCALE_PROVIDER libc TABLESPACE \"Fast 1\""));
        let icu = NewDatabase {
            locale_provider: "i",
            locale: Some("de-u"),
            icu_rules: Some("&a<b"),
            tablespace: None,
            ..libc.clone()
        };
        let expected = format!("{head} LOCALE_PROVIDER icu ICU_LOCALE 'de-u' ICU_RULES '&a<b'");
        assert_eq!(icu.statement(PgMajor(16)), expected);
        let builtin = NewDatabase { locale_provider: "b", icu_rules: None, locale: Some("C.UTF-8"), ..icu };
        let expected = format!("{head} LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'");
        assert_eq!(builtin.statement(PgMajor(17)), expected);
    }
}
