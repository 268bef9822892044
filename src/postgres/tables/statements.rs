//! The statements of a table's restore, one function each.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::links::{Attachment, ForeignKey, Trigger};
use crate::error::Result;
use crate::model::TableName;
use crate::postgres::roles::quote_identifier;
use crate::postgres::session::{QUICK, Session};
use crate::postgres::snapshot::quote_literal;
use crate::postgres::user_tables::SequenceValue;

/// Building an index or checking a foreign key reads the whole table.
const LONG: Duration = Duration::from_hours(24);

impl Session {
    /// Waits for locks no longer than `lock_timeout` from now on, and begins. Rows that a policy would hide are an
    /// error instead of silence; when we are gone the server notices and ends what it does for us.
    pub async fn begin_table_load(&self, lock_timeout: Duration) -> Result<()> {
        let millis = lock_timeout.as_millis().clamp(1, 2_147_483_647);
        let sql = format!(
            "BEGIN; SET lock_timeout = '{millis}ms'; SET row_security = off; \
             SET client_connection_check_interval = '5s'"
        );
        self.batch("begin", QUICK, &sql).await
    }
    pub async fn commit_table_load(&self) -> Result<()> {
        self.batch("commit", LONG, "COMMIT").await
    }
    /// Nobody else reads or writes these until the transaction ends.
    pub async fn lock_exclusively(&self, table: &TableName) -> Result<()> {
        let sql = format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", table.quoted());
        self.batch(&format!("lock {table}"), LONG, &sql).await
    }
    /// Statements as `pg_dump` wrote them.
    pub async fn run_definitions(&self, sql: &str) -> Result<()> {
        self.batch("make the table", LONG, sql).await
    }
    /// All of them in one statement, so that they may refer to each other; those of `with_parts` with everything below
    /// them, of the others only the table itself.
    pub async fn truncate(&self, tables: &[TableName], with_parts: &[TableName]) -> Result<()> {
        let name = |t: &TableName| {
            let only = if with_parts.contains(t) { "" } else { "ONLY " };
            format!("{only}{}", t.quoted())
        };
        let names: Vec<String> = tables.iter().map(name).collect();
        self.batch("empty the table", LONG, &format!("TRUNCATE {}", names.join(", "))).await
    }
    /// Checks what was deferred: an `ALTER TABLE` is refused while something waits.
    pub async fn settle_constraints(&self) -> Result<()> {
        self.batch("check the constraints", LONG, "SET CONSTRAINTS ALL IMMEDIATE").await
    }
    /// Rows of a table without columns.
    pub async fn insert_empty_rows(&self, table: &TableName, rows: u64) -> Result<()> {
        let sql = format!("INSERT INTO {} SELECT FROM pg_catalog.generate_series(1, {rows})", table.quoted());
        self.batch("write rows", LONG, &sql).await
    }
    pub async fn drop_constraint(&self, table: &TableName, constraint: &str) -> Result<()> {
        let sql = format!("ALTER TABLE {} DROP CONSTRAINT {}", table.quoted(), quote_identifier(constraint));
        self.batch(&format!("take foreign key {constraint} of {table} away"), LONG, &sql).await
    }
    pub async fn add_foreign_key(&self, key: &ForeignKey) -> Result<()> {
        self.batch(&format!("add foreign key {} of {}", key.name, key.table), LONG, &key.statement()).await
    }
    /// Inside a transaction: what fails is undone alone.
    pub async fn try_statement(&self, doing: &str, sql: &str) -> Result<()> {
        self.batch("set a savepoint", QUICK, "SAVEPOINT pgkeep_try").await?;
        match self.batch(doing, LONG, sql).await {
            Ok(()) => self.batch("release the savepoint", QUICK, "RELEASE SAVEPOINT pgkeep_try").await,
            Err(e) => {
                self.batch("go back to the savepoint", QUICK, "ROLLBACK TO SAVEPOINT pgkeep_try").await?;
                Err(e)
            }
        }
    }
    pub async fn disable_trigger(&self, trigger: &Trigger) -> Result<()> {
        let (table, name) = (trigger.table.quoted(), quote_identifier(&trigger.name));
        self.batch("switch a trigger off", LONG, &format!("ALTER TABLE ONLY {table} DISABLE TRIGGER {name}"))
            .await
    }
    /// As it was before.
    pub async fn enable_trigger(&self, trigger: &Trigger) -> Result<()> {
        let (table, name) = (trigger.table.quoted(), quote_identifier(&trigger.name));
        let how = match trigger.fires.as_str() {
            "R" => "ENABLE REPLICA TRIGGER",
            "A" => "ENABLE ALWAYS TRIGGER",
            _ => "ENABLE TRIGGER",
        };
        self.batch("switch a trigger on", LONG, &format!("ALTER TABLE ONLY {table} {how} {name}")).await
    }
    /// Whether policies hold for the owner too.
    pub async fn force_row_security(&self, table: &TableName, force: bool) -> Result<()> {
        let how = if force { "FORCE" } else { "NO FORCE" };
        let sql = format!("ALTER TABLE {} {how} ROW LEVEL SECURITY", table.quoted());
        self.batch("switch forced row security", LONG, &sql).await
    }
    /// Statistics for the planner, which a table that was just filled does not have.
    pub async fn analyze(&self, tables: &[TableName]) -> Result<()> {
        let names: Vec<String> = tables.iter().map(TableName::quoted).collect();
        self.batch("collect statistics", LONG, &format!("ANALYZE {}", names.join(", "))).await
    }
    pub async fn drop_trigger(&self, trigger: &Trigger) -> Result<()> {
        let sql = format!("DROP TRIGGER {} ON {}", quote_identifier(&trigger.name), trigger.table.quoted());
        self.batch("drop a trigger", LONG, &sql).await
    }
    pub async fn drop_rule(&self, table: &TableName, rule: &str) -> Result<()> {
        let sql = format!("DROP RULE {} ON {}", quote_identifier(rule), table.quoted());
        self.batch("drop a rule", LONG, &sql).await
    }
    pub async fn rename_relation(&self, kind: &str, from: &TableName, to: &str) -> Result<()> {
        let sql = format!("ALTER {kind} {} RENAME TO {}", from.quoted(), quote_identifier(to));
        self.batch(&format!("rename {from}"), LONG, &sql).await
    }
    pub async fn detach_from_parent(
        &self,
        table: &TableName,
        parent: &TableName,
        partition: bool,
    ) -> Result<()> {
        let (table, parent) = (table.quoted(), parent.quoted());
        let sql = if partition {
            format!("ALTER TABLE {parent} DETACH PARTITION {table}")
        } else {
            format!("ALTER TABLE {table} NO INHERIT {parent}")
        };
        self.batch("part the table from its parent", LONG, &sql).await
    }
    pub async fn attach_partition(&self, attachment: &Attachment) -> Result<()> {
        let Attachment { partition, parent, bound } = attachment;
        let sql = format!("ALTER TABLE {} ATTACH PARTITION {} {bound}", parent.quoted(), partition.quoted());
        self.batch(&format!("attach {partition} to {parent}"), LONG, &sql).await
    }
    pub async fn set_sequence(&self, sequence: &TableName, value: SequenceValue) -> Result<()> {
        let sql = "SELECT pg_catalog.setval($1::pg_catalog.text::pg_catalog.regclass, $2, $3)";
        let name = sequence.quoted();
        let arguments =
            [(&name as _, Type::TEXT), (&value.last as _, Type::INT8), (&value.called as _, Type::BOOL)];
        self.row(&format!("set sequence {sequence}"), QUICK, sql, &arguments).await.map(drop)
    }
    pub async fn count_rows(&self, table: &TableName) -> Result<u64> {
        let sql = format!("SELECT pg_catalog.count(*) FROM {}", table.quoted());
        let row = self.row(&format!("count the rows of {table}"), LONG, &sql, &[]).await?;
        let count: i64 = crate::postgres::session::get(&row, 0)?;
        Ok(count.unsigned_abs())
    }
}

impl ForeignKey {
    /// The statement that makes it (again).
    pub fn statement(&self) -> String {
        let name = quote_identifier(&self.name);
        let mut sql =
            format!("ALTER TABLE {} ADD CONSTRAINT {name} {}", self.table.quoted(), self.definition);
        if let Some(comment) = &self.comment {
            let (table, text) = (self.table.quoted(), quote_literal(comment));
            sql.push_str(&format!("; COMMENT ON CONSTRAINT {name} ON {table} IS {text}"));
        }
        sql
    }
    /// The same, for rows to come alone.
    pub fn statement_for_new_rows(&self) -> String {
        let definition = self.definition.trim_end_matches(" NOT VALID");
        Self { definition: format!("{definition} NOT VALID"), ..self.clone() }.statement()
    }
}
