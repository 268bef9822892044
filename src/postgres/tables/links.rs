//! What hangs on tables and comes and goes with them: foreign keys in both directions, triggers, rules, indexes.

use tokio_postgres::types::Type;

use crate::error::Result;
use crate::model::TableName;
use crate::postgres::session::{QUICK, Session, get};

/// Catalogs with very many constraints take their time.
const LOOK: std::time::Duration = QUICK;

/// A foreign key that somebody declared (none of those that partitions inherit).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    pub name: String,
    /// Whose rows refer.
    pub table: TableName,
    /// Whose rows are referred to.
    pub references: TableName,
    /// `FOREIGN KEY (…) REFERENCES …`, as `pg_get_constraintdef` writes it.
    pub definition: String,
    pub comment: Option<String>,
}

/// Where a partition belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    pub partition: TableName,
    pub parent: TableName,
    /// `FOR VALUES …` or `DEFAULT`, as `pg_get_expr` writes it.
    pub bound: String,
}

/// A trigger of the user's that fires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    pub table: TableName,
    pub name: String,
    /// `pg_trigger.tgenabled`: `O`, `R` or `A`.
    pub fires: String,
}

pub(super) fn name(row: &tokio_postgres::Row, column: usize) -> Result<TableName> {
    Ok(TableName { schema: get(row, column)?, name: get(row, column + 1)? })
}

impl Session {
    /// Foreign keys from or to any of these tables.
    pub async fn foreign_keys(&self, tables: &[u32]) -> Result<Vec<ForeignKey>> {
        let sql = "SELECT k.conname::pg_catalog.text, fn.nspname::pg_catalog.text, f.relname::pg_catalog.text, \
                   tn.nspname::pg_catalog.text, t.relname::pg_catalog.text, pg_catalog.pg_get_constraintdef(k.oid), \
                   pg_catalog.obj_description(k.oid, 'pg_constraint') FROM pg_catalog.pg_constraint k \
                   JOIN pg_catalog.pg_class f ON f.oid = k.conrelid JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace \
                   JOIN pg_catalog.pg_class t ON t.oid = k.confrelid JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace \
                   WHERE k.contype = 'f' AND k.conparentid = 0 AND (k.conrelid = ANY ($1) OR k.confrelid = ANY ($1)) \
                   ORDER BY 2, 3, 1";
        let rows = self.rows("list the foreign keys", LOOK, sql, &[(&tables, Type::OID_ARRAY)]).await?;
        let key = |row| -> Result<ForeignKey> {
            Ok(ForeignKey {
                name: get(row, 0)?,
                table: name(row, 1)?,
                references: name(row, 3)?,
                definition: get(row, 5)?,
                comment: get(row, 6)?,
            })
        };
        rows.iter().map(key).collect()
    }

    pub async fn has_constraint(&self, table: &TableName, constraint: &str) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid \
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                   WHERE n.nspname = $1 AND c.relname = $2 AND k.conname = $3)";
        let arguments = [
            (&table.schema as _, Type::TEXT),
            (&table.name as _, Type::TEXT),
            (&constraint as _, Type::TEXT),
        ];
        get(&self.row("look for the constraint", LOOK, sql, &arguments).await?, 0)
    }

    /// The users' triggers that fire at all; those that partitions have from their parents too, when `cloned`.
    pub async fn triggers(&self, tables: &[u32], cloned: bool) -> Result<Vec<Trigger>> {
        let sql = "SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text, t.tgname::pg_catalog.text, \
                   t.tgenabled::pg_catalog.text FROM pg_catalog.pg_trigger t \
                   JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                   WHERE t.tgrelid = ANY ($1) AND NOT t.tgisinternal AND t.tgenabled <> 'D' \
                   AND (t.tgparentid = 0 OR $2) ORDER BY 1, 2, 3";
        let arguments = [(&tables as _, Type::OID_ARRAY), (&cloned as _, Type::BOOL)];
        let rows = self.rows("list the triggers", LOOK, sql, &arguments).await?;
        let trigger = |row| -> Result<Trigger> {
            Ok(Trigger { table: name(row, 0)?, name: get(row, 2)?, fires: get(row, 3)? })
        };
        rows.iter().map(trigger).collect()
    }

    /// Rules of tables: table and name.
    pub async fn rules(&self, tables: &[u32]) -> Result<Vec<(TableName, String)>> {
        let sql = "SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text, r.rulename::pg_catalog.text \
                   FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class \
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE r.ev_class = ANY ($1) ORDER BY 1, 2, 3";
        let rows = self.rows("list the rules", LOOK, sql, &[(&tables, Type::OID_ARRAY)]).await?;
        rows.iter().map(|row| Ok((name(row, 0)?, get(row, 2)?))).collect()
    }

    /// Indexes of these tables: constraints' indexes share their constraints' names.
    pub async fn indexes(&self, tables: &[u32]) -> Result<Vec<TableName>> {
        let sql = "SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text FROM pg_catalog.pg_index i \
                   JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                   WHERE i.indrelid = ANY ($1) ORDER BY 1, 2";
        let rows = self.rows("list the indexes", LOOK, sql, &[(&tables, Type::OID_ARRAY)]).await?;
        rows.iter().map(|row| name(row, 0)).collect()
    }

    /// Extended statistics of these tables.
    pub async fn extended_statistics(&self, tables: &[u32]) -> Result<Vec<TableName>> {
        let sql = "SELECT n.nspname::pg_catalog.text, s.stxname::pg_catalog.text FROM pg_catalog.pg_statistic_ext s \
                   JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace WHERE s.stxrelid = ANY ($1) ORDER BY 1, 2";
        let rows = self.rows("list the statistics", LOOK, sql, &[(&tables, Type::OID_ARRAY)]).await?;
        rows.iter().map(|row| name(row, 0)).collect()
    }

    pub async fn statistics_exist(&self, statistics: &TableName) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n \
                   ON n.oid = s.stxnamespace WHERE n.nspname = $1 AND s.stxname = $2)";
        let arguments = [(&statistics.schema as _, Type::TEXT), (&statistics.name as _, Type::TEXT)];
        get(&self.row("look for the statistics", LOOK, sql, &arguments).await?, 0)
    }

    /// None for a table that is no partition.
    pub async fn attachment(&self, table: u32) -> Result<Option<Attachment>> {
        let sql = "SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text, pn.nspname::pg_catalog.text, \
                   p.relname::pg_catalog.text, pg_catalog.pg_get_expr(c.relpartbound, c.oid) \
                   FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                   JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid JOIN pg_catalog.pg_class p ON p.oid = i.inhparent \
                   JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace WHERE c.oid = $1 AND c.relispartition";
        let rows = self.rows("look at the partition", LOOK, sql, &[(&table, Type::OID)]).await?;
        let attachment = |row| -> Result<Attachment> {
            Ok(Attachment { partition: name(row, 0)?, parent: name(row, 2)?, bound: get(row, 4)? })
        };
        rows.first().map(attachment).transpose()
    }

    /// Who else than process `but` and this one holds locks on the table, for a message: process, role, what it does.
    pub async fn lock_holders(&self, table: &TableName, but: i32) -> Result<Vec<String>> {
        let sql = "SELECT pg_catalog.format('process %s (%s, %s)', l.pid, coalesce(a.usename, '?'), coalesce(a.state, '?')) \
                   FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation \
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                   JOIN pg_catalog.pg_database b ON b.oid = l.database AND b.datname = pg_catalog.current_database() \
                   LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
                   WHERE l.granted AND n.nspname = $1 AND c.relname = $2 \
                   AND l.pid NOT IN (pg_catalog.pg_backend_pid(), $3) LIMIT 5";
        let arguments =
            [(&table.schema as _, Type::TEXT), (&table.name as _, Type::TEXT), (&but as _, Type::INT4)];
        let rows = self.rows("look for locks", LOOK, sql, &arguments).await?;
        rows.iter().map(|row| get(row, 0)).collect()
    }
}
