//! The canary's table: one row after another, each with a number and its moment, and the number once more in WAL.
//!
//! `pgkeep.canary` is made by the role that writes it, in a schema of its own. The numbers follow each other without a gap:
//! the next one is made from the newest row, wherever that comes from, so they go on after a restart, a promotion and a
//! restore. Old rows are removed by number, from below, so what is kept has no gap either. A row and its message are one
//! transaction of one statement.
//!
//! It is never written into something that is not ours: another role's schema or table of this name could run its own code
//! with the rights of ours. Nor is it made in a database whose tables are all published: the subscriber lacks the table, and
//! its replication would stop.

use std::time::{Duration, SystemTime};

use tokio_postgres::types::Type;

use super::roles::quote_identifier;
use super::session::{Session, get};
use crate::error::{Code, Error, Result};
use crate::model::Timestamp;
use crate::wal::canary::PREFIX;

/// A row is a matter of milliseconds; who needs longer has other troubles, which the row shall not add to.
const WITHIN: Duration = Duration::from_secs(10);
/// Before that the server gives up by itself.
const LIMITS: &str = "SELECT pg_catalog.set_config('statement_timeout', '8s', false), \
                      pg_catalog.set_config('lock_timeout', '2s', false), \
                      pg_catalog.set_config('synchronous_commit', 'local', false)";

/// What stands in a database under the canary's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanaryPlace {
    pub in_recovery: bool,
    /// Whose schema `pgkeep` it is, if there is one.
    pub schema: Option<Keeper>,
    /// Whose table it is, if there is one.
    pub table: Option<Keeper>,
    /// It is an ordinary logged table with the two columns that we know, and no rules.
    pub plain: bool,
    /// The role may make the schema.
    pub may_create: bool,
    /// Publications of all tables of the database.
    pub published_by: Option<String>,
}

/// The owner of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keeper {
    pub role: String,
    /// It is the session's own role, or a superuser.
    pub trusted: bool,
}

/// A row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CanaryRow {
    pub number: u64,
    pub written: Timestamp,
}

/// All rows together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CanaryRows {
    pub newest: Option<CanaryRow>,
    pub oldest: u64,
    pub count: u64,
}

impl CanaryRows {
    /// Numbers that are missing between the oldest and the newest.
    pub fn missing(&self) -> u64 {
        self.newest.map_or(0, |newest| (newest.number + 1).saturating_sub(self.oldest + self.count))
    }
}

/// For a superuser, in the canary's database: the schema becomes that of the role which writes.
pub fn grant(role: &str, schema_exists: bool, table_exists: bool) -> Vec<String> {
    let role = quote_identifier(role);
    if !schema_exists {
        return vec![format!("CREATE SCHEMA pgkeep AUTHORIZATION {role}")];
    }
    let mut statements = vec![format!("ALTER SCHEMA pgkeep OWNER TO {role}")];
    if table_exists {
        statements.push(format!("ALTER TABLE pgkeep.canary OWNER TO {role}"));
    }
    statements
}

impl Session {
    pub async fn canary_place(&self) -> Result<CanaryPlace> {
        let sql = "WITH schema AS (SELECT oid, nspowner FROM pg_catalog.pg_namespace WHERE nspname = 'pgkeep'), \
             place AS (SELECT c.* FROM pg_catalog.pg_class c JOIN schema ON schema.oid = c.relnamespace \
               WHERE c.relname = 'canary'), \
             keeper AS (SELECT oid, rolname::pg_catalog.text AS name, rolsuper OR rolname = current_user AS trusted \
               FROM pg_catalog.pg_roles) \
             SELECT pg_catalog.pg_is_in_recovery(), \
               (SELECT name FROM keeper JOIN schema ON nspowner = keeper.oid), \
               (SELECT trusted FROM keeper JOIN schema ON nspowner = keeper.oid), \
               (SELECT name FROM keeper JOIN place ON relowner = keeper.oid), \
               (SELECT trusted FROM keeper JOIN place ON relowner = keeper.oid), \
               coalesce((SELECT relkind = 'r' AND relpersistence = 'p' AND NOT relhasrules AND 2 = (\
                 SELECT pg_catalog.count(*) FROM pg_catalog.pg_attribute a WHERE a.attrelid = place.oid AND NOT a.attisdropped \
                 AND (a.attname, a.atttypid::pg_catalog.int4) IN (('number', 20), ('written', 1184))) FROM place), false), \
               pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'), \
               (SELECT pg_catalog.string_agg(pubname::pg_catalog.text, ', ') FROM pg_catalog.pg_publication WHERE puballtables)";
        let row = self.row("look for the canary", WITHIN, sql, &[]).await?;
        let keeper = |name: usize| -> Result<Option<Keeper>> {
            let (role, trusted): (Option<String>, Option<bool>) = (get(&row, name)?, get(&row, name + 1)?);
            Ok(role.map(|role| Keeper { role, trusted: trusted == Some(true) }))
        };
        Ok(CanaryPlace {
            in_recovery: get(&row, 0)?,
            schema: keeper(1)?,
            table: keeper(3)?,
            plain: get(&row, 5)?,
            may_create: get(&row, 6)?,
            published_by: get(&row, 7)?,
        })
    }

    /// Limits under which the row is written: nothing waits for it, and it waits for no standby.
    pub async fn prepare_for_canary(&self) -> Result<()> {
        self.row("prepare the session", WITHIN, LIMITS, &[]).await.map(drop)
    }

    /// Makes what is missing of schema and table.
    pub async fn make_canary(&self, schema_exists: bool) -> Result<()> {
        let schema = if schema_exists {
            ""
        } else {
            "CREATE SCHEMA pgkeep; COMMENT ON SCHEMA pgkeep IS 'of the backup agent pgkeep; see [canary] in its configuration';"
        };
        let table = "CREATE TABLE pgkeep.canary (number pg_catalog.int8 PRIMARY KEY, written pg_catalog.timestamptz NOT NULL); \
             COMMENT ON TABLE pgkeep.canary IS 'a row a minute by which a restore to any moment is proved from inside'";
        self.batch("make the canary's table", WITHIN, &format!("{schema}{table}")).await
    }

    /// Writes the next row and removes those that are older than the newest `keep`. Where somebody has written one within
    /// `spare`, as an agent on another host may have, that one is the answer and nothing is written.
    pub async fn write_canary(&self, keep: u64, spare: Duration) -> Result<(CanaryRow, bool)> {
        let sql = "WITH moment AS MATERIALIZED (SELECT pg_catalog.clock_timestamp() AS at), \
             newest AS MATERIALIZED (SELECT number, written FROM ONLY pgkeep.canary ORDER BY number DESC LIMIT 1), \
             next AS MATERIALIZED (SELECT coalesce((SELECT number FROM newest), 0) + 1 AS number, at AS written FROM moment \
               WHERE NOT EXISTS (SELECT FROM newest WHERE written <= at AND written > at - $1 * '1 microsecond'::pg_catalog.interval)), \
             made AS (INSERT INTO pgkeep.canary (number, written) SELECT number, written FROM next RETURNING number, written), \
             old AS (DELETE FROM pgkeep.canary WHERE number <= (SELECT number FROM next) - $2), \
             said AS MATERIALIZED (SELECT pg_catalog.pg_logical_emit_message(true, $3, number::pg_catalog.text || ' ' \
               || (extract(epoch FROM written) * 1000000)::pg_catalog.int8::pg_catalog.text) FROM made) \
             SELECT number, written, true FROM made, said UNION ALL \
             SELECT number, written, false FROM newest WHERE NOT EXISTS (SELECT FROM next)";
        let (spare, keep) = (micros(spare), i64::try_from(keep).unwrap_or(i64::MAX));
        let given: [super::session::Parameter<'_>; 3] =
            [(&spare, Type::FLOAT8), (&keep, Type::INT8), (&PREFIX, Type::TEXT)];
        let row = self.row("write the canary", WITHIN, sql, &given).await?;
        let written: SystemTime = get(&row, 1)?;
        Ok((CanaryRow { number: number(get(&row, 0)?)?, written: Timestamp(written.into()) }, get(&row, 2)?))
    }

    /// What the table holds; only of one that was seen to be plain.
    pub async fn canary_rows(&self) -> Result<CanaryRows> {
        let sql = "SELECT pg_catalog.count(*), coalesce(pg_catalog.min(number), 0), pg_catalog.max(number), \
                   (SELECT written FROM ONLY pgkeep.canary ORDER BY number DESC LIMIT 1) FROM ONLY pgkeep.canary";
        let row = self.row("read the canary", Duration::from_mins(5), sql, &[]).await?;
        let (newest, written): (Option<i64>, Option<SystemTime>) = (get(&row, 2)?, get(&row, 3)?);
        let newest = match newest.zip(written) {
            Some((newest, written)) => {
                Some(CanaryRow { number: number(newest)?, written: Timestamp(written.into()) })
            }
            None => None,
        };
        Ok(CanaryRows { newest, oldest: number(get(&row, 1)?)?, count: number(get(&row, 0)?)? })
    }

    /// A database's name by its object id; none when there is no such one.
    pub async fn database_name(&self, oid: u32) -> Result<Option<String>> {
        let sql = "SELECT datname::pg_catalog.text FROM pg_catalog.pg_database WHERE oid = $1";
        let rows = self.rows("look for a database", WITHIN, sql, &[(&oid, Type::OID)]).await?;
        rows.first().map_or(Ok(None), |row| get(row, 0))
    }
}

fn number(value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|_| Error::new(Code::Sql, "a number of the canary is negative"))
}

fn micros(span: Duration) -> f64 {
    span.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(oldest: u64, newest: u64, count: u64) -> CanaryRows {
        let written = "2026-11-21T02:00:00Z".parse().unwrap();
        CanaryRows { newest: Some(CanaryRow { number: newest, written }), oldest, count }
    }

    #[test]
    fn missing_numbers_are_counted_between_the_oldest_and_the_newest() {
        assert_eq!(rows(1, 5, 5).missing(), 0);
        assert_eq!(rows(41, 50, 10).missing(), 0);
        assert_eq!(rows(41, 50, 8).missing(), 2);
        assert_eq!(CanaryRows { newest: None, oldest: 0, count: 0 }.missing(), 0);
    }

    #[test]
    fn the_statements_give_the_role_what_is_there_or_make_it() {
        assert_eq!(grant("a\"b", false, false), ["CREATE SCHEMA pgkeep AUTHORIZATION \"a\"\"b\""]);
        assert_eq!(grant("pgkeep", true, true).len(), 2);
    }
}
