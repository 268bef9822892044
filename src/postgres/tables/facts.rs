//! What a table is: its kind, owner and columns, and who is below it.

use serde::{Deserialize, Serialize};
use tokio_postgres::types::Type;

use crate::error::{Code, Error, Result};
use crate::model::TableName;
use crate::postgres::session::{QUICK, Session, get};
use crate::postgres::user_tables::Column;

/// `pg_class.relkind`, as far as rows can be restored into it or through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    Plain,
    Partitioned,
    Foreign,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFacts {
    pub oid: u32,
    pub name: TableName,
    pub kind: TableKind,
    pub unlogged: bool,
    pub owner: String,
    pub columns: Vec<Column>,
    /// Of partitions and inheritance alike, those that are the direct parents.
    pub parents: Vec<u32>,
    pub is_partition: bool,
    /// Its policies hold for its owner too.
    pub forces_row_security: bool,
}

impl TableFacts {
    /// Columns whose values are stored by who writes the row.
    pub fn copied(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|c| !c.generated)
    }
}

/// The class's facts by a condition on `c`; `$1` is the condition's argument.
const FACTS: &str = "SELECT c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.relkind::pg_catalog.text, \
    c.relpersistence = 'u', pg_catalog.pg_get_userbyid(c.relowner)::pg_catalog.text, c.relispartition, c.relforcerowsecurity, \
    ARRAY(SELECT i.inhparent FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid ORDER BY i.inhseqno) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE ";

impl Session {
    /// None where there is no such relation; one that has no rows of its own (a view, a sequence) is an error.
    pub async fn table(&self, name: &TableName) -> Result<Option<TableFacts>> {
        let sql = format!("{FACTS} n.nspname = $1 AND c.relname = $2");
        let arguments = [(&name.schema as _, Type::TEXT), (&name.name as _, Type::TEXT)];
        let rows = self.rows("look at the table", QUICK, &sql, &arguments).await?;
        match rows.first() {
            None => Ok(None),
            Some(row) => self.table_facts(row).await.map(Some),
        }
    }

    /// The table and everything below it: partitions of partitions, children of children; parents first.
    pub async fn table_tree(&self, oid: u32) -> Result<Vec<TableFacts>> {
        let sql = format!(
            "WITH RECURSIVE tree (oid, depth) AS (SELECT $1::pg_catalog.oid, 0 UNION ALL \
             SELECT i.inhrelid, t.depth + 1 FROM pg_catalog.pg_inherits i JOIN tree t ON i.inhparent = t.oid) \
             {FACTS} c.oid IN (SELECT oid FROM tree) \
             ORDER BY (SELECT pg_catalog.max(depth) FROM tree t WHERE t.oid = c.oid), 2, 3"
        );
        let rows = self.rows("list the partitions and children", QUICK, &sql, &[(&oid, Type::OID)]).await?;
        let mut tree = Vec::with_capacity(rows.len());
        for row in &rows {
            tree.push(self.table_facts(row).await?);
        }
        Ok(tree)
    }

    async fn table_facts(&self, row: &tokio_postgres::Row) -> Result<TableFacts> {
        let (oid, schema, name, kind): (u32, String, String, String) =
            (get(row, 0)?, get(row, 1)?, get(row, 2)?, get(row, 3)?);
        let name = TableName { schema, name };
        let kind = match kind.as_str() {
            "r" => TableKind::Plain,
            "p" => TableKind::Partitioned,
            "f" => TableKind::Foreign,
            other => {
                let what = match other {
                    "v" => "a view",
                    "m" => "a materialised view",
                    "S" => "a sequence",
                    "i" | "I" => "an index",
                    _ => "no table",
                };
                return Err(Error::new(Code::Refused, format!("{name} is {what}, not a table"))
                    .at(self.place())
                    .hint("only tables have rows of their own: name the table that it is made of"));
            }
        };
        Ok(TableFacts {
            oid,
            name,
            kind,
            unlogged: get(row, 4)?,
            owner: get(row, 5)?,
            columns: self.columns(oid).await?,
            is_partition: get(row, 6)?,
            forces_row_security: get(row, 7)?,
            parents: get(row, 8)?,
        })
    }

    /// True when something of this name is there that a new table, index or sequence could not be beside.
    pub async fn relation_exists(&self, name: &TableName) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n \
                   ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2) OR EXISTS (SELECT FROM \
                   pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
                   WHERE n.nspname = $1 AND t.typname = $2)";
        let arguments = [(&name.schema as _, Type::TEXT), (&name.name as _, Type::TEXT)];
        get(&self.row("look for the name", QUICK, sql, &arguments).await?, 0)
    }

    /// None where there is no such schema; else whether tables may be made in it.
    pub async fn may_create_in(&self, schema: &str) -> Result<Option<bool>> {
        let sql = "SELECT pg_catalog.has_schema_privilege(oid, 'CREATE') FROM pg_catalog.pg_namespace WHERE nspname = $1";
        let rows = self.rows("look at the schema", QUICK, sql, &[(&schema, Type::TEXT)]).await?;
        rows.first().map(|row| get(row, 0)).transpose()
    }

    /// None where there is no such role; else whether this one may act as it.
    pub async fn acts_as(&self, role: &str) -> Result<Option<bool>> {
        let sql = "SELECT pg_catalog.pg_has_role(oid, 'USAGE') FROM pg_catalog.pg_roles WHERE rolname = $1";
        let rows = self.rows("look at the role", QUICK, sql, &[(&role, Type::TEXT)]).await?;
        rows.first().map(|row| get(row, 0)).transpose()
    }

    /// A role with all rights that may log in.
    pub async fn some_superuser(&self) -> Result<Option<String>> {
        let sql = "SELECT rolname::pg_catalog.text FROM pg_catalog.pg_roles WHERE rolsuper AND rolcanlogin \
                   AND rolname !~ '^pg_' ORDER BY rolname <> current_user, oid LIMIT 1";
        let rows = self.rows("look for a superuser", QUICK, sql, &[]).await?;
        rows.first().map(|row| get(row, 0)).transpose()
    }
}
