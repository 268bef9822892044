//! What databases there are, and what tables, columns and sequences a database has: for dumps and exports.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::roles::quote_identifier;
use super::session::{QUICK, Session, get};
use crate::error::Result;
use crate::model::TableName;

/// Reading a large catalog takes a while.
const CATALOG: Duration = Duration::from_mins(5);

/// A database that a dump could be made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    pub name: String,
    pub encoding: String,
    pub collate: String,
    pub ctype: String,
    /// `c`, `i` or `b`.
    pub locale_provider: String,
    pub locale: Option<String>,
    pub icu_rules: Option<String>,
    pub owner: String,
    pub tablespace: String,
    pub is_template: bool,
    pub allows_connections: bool,
}

/// A relation that holds rows or looks like one that does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    pub oid: u32,
    pub table: TableName,
    pub kind: RelationKind,
    /// Of a partition: the table at the top.
    pub root: Option<u32>,
    /// A guess, for the order of work.
    pub bytes: u64,
    /// Of the same moment as `bytes`; 0 where PostgreSQL has never counted.
    pub rows: u64,
    /// It belongs to an extension, whose script makes it.
    pub of_extension: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    Table,
    Partitioned,
    View,
    MaterializedView,
    Foreign,
}

// Each is a column's of the catalog.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub type_name: String,
    pub identity: bool,
    /// Computed by the server: never copied.
    pub generated: bool,
    pub not_null: bool,
    /// A default or an identity fills it where nothing is given.
    pub filled: bool,
}

/// A sequence owned by a column, as it stands now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceState {
    pub sequence: TableName,
    pub column: String,
    pub increment: i64,
    pub value: SequenceValue,
}

/// Where a sequence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceValue {
    pub last: i64,
    /// `last` has been given out.
    pub called: bool,
}

impl Session {
    /// All databases, templates included, by name.
    pub async fn all_databases(&self) -> Result<Vec<Database>> {
        // A column that this major does not have is a key that the JSON does not have.
        let sql = "SELECT d.datname::pg_catalog.text, pg_catalog.pg_encoding_to_char(d.encoding)::pg_catalog.text, \
                   d.datcollate::pg_catalog.text, d.datctype::pg_catalog.text, \
                   coalesce(j ->> 'datlocprovider', 'c'), coalesce(j ->> 'datlocale', j ->> 'daticulocale'), \
                   j ->> 'daticurules', pg_catalog.pg_get_userbyid(d.datdba)::pg_catalog.text, \
                   coalesce(t.spcname::pg_catalog.text, ''), d.datistemplate, \
                   d.datallowconn AND d.datconnlimit <> -2 \
                   FROM pg_catalog.pg_database d CROSS JOIN LATERAL (SELECT pg_catalog.to_jsonb(d) AS j) x \
                   LEFT JOIN pg_catalog.pg_tablespace t ON t.oid = d.dattablespace ORDER BY d.datname";
        let rows = self.rows("list the databases", QUICK, sql, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(Database {
                    name: get(row, 0)?,
                    encoding: get(row, 1)?,
                    collate: get(row, 2)?,
                    ctype: get(row, 3)?,
                    locale_provider: get(row, 4)?,
                    locale: get(row, 5)?,
                    icu_rules: get(row, 6)?,
                    owner: get(row, 7)?,
                    tablespace: get(row, 8)?,
                    is_template: get(row, 9)?,
                    allows_connections: get(row, 10)?,
                })
            })
            .collect()
    }

    /// The tables, views and their like that users made, by name. Temporary ones are left out.
    pub async fn user_relations(&self) -> Result<Vec<Relation>> {
        let sql = "SELECT c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.relkind::pg_catalog.text, \
                   CASE WHEN c.relispartition THEN pg_catalog.pg_partition_root(c.oid)::pg_catalog.oid END, \
                   greatest(c.relpages, 0)::pg_catalog.int8 \
                     * pg_catalog.current_setting('block_size')::pg_catalog.int8, \
                   EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 1259 AND d.objid = c.oid \
                     AND d.objsubid = 0 AND d.deptype = 'e'), \
                   greatest(c.reltuples, 0)::pg_catalog.int8 \
                   FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                   WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't' \
                   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') \
                   AND n.nspname !~ '^pg_(toast_)?temp_' ORDER BY n.nspname, c.relname";
        let rows = self.rows("list the tables", CATALOG, sql, &[]).await?;
        rows.iter()
            .map(|row| {
                let kind: String = get(row, 3)?;
                Ok(Relation {
                    oid: get(row, 0)?,
                    table: TableName { schema: get(row, 1)?, name: get(row, 2)? },
                    kind: match kind.as_str() {
                        "p" => RelationKind::Partitioned,
                        "v" => RelationKind::View,
                        "m" => RelationKind::MaterializedView,
                        "f" => RelationKind::Foreign,
                        _ => RelationKind::Table,
                    },
                    root: get(row, 4)?,
                    bytes: u64::try_from(get::<i64>(row, 5)?).unwrap_or(0),
                    rows: u64::try_from(get::<i64>(row, 7)?).unwrap_or(0),
                    of_extension: get(row, 6)?,
                })
            })
            .collect()
    }

    /// The columns of a relation, in their order.
    pub async fn columns(&self, relation: u32) -> Result<Vec<Column>> {
        let sql = "SELECT attname::pg_catalog.text, pg_catalog.format_type(atttypid, atttypmod), \
                   attidentity <> '', attgenerated <> '', attnotnull, atthasdef OR attidentity <> '' \
                   FROM pg_catalog.pg_attribute \
                   WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
        let rows = self.rows("list the columns", QUICK, sql, &[(&relation, Type::OID)]).await?;
        rows.iter()
            .map(|row| {
                Ok(Column {
                    name: get(row, 0)?,
                    type_name: get(row, 1)?,
                    identity: get(row, 2)?,
                    generated: get(row, 3)?,
                    not_null: get(row, 4)?,
                    filled: get(row, 5)?,
                })
            })
            .collect()
    }

    /// The sequences that belong to columns of a relation (`serial`, identity), as they stand now.
    pub async fn owned_sequences(&self, relation: u32) -> Result<Vec<SequenceState>> {
        let sql = "SELECT n.nspname::pg_catalog.text, s.relname::pg_catalog.text, a.attname::pg_catalog.text, \
                   q.seqincrement FROM pg_catalog.pg_depend d \
                   JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S' \
                   JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace \
                   JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid \
                   JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid \
                   WHERE d.classid = 1259 AND d.refclassid = 1259 AND d.refobjid = $1 \
                   AND d.deptype IN ('a', 'i') ORDER BY 1, 2";
        let mut found = Vec::new();
        for row in self.rows("list the sequences", QUICK, sql, &[(&relation, Type::OID)]).await? {
            let sequence = TableName { schema: get(&row, 0)?, name: get(&row, 1)? };
            let value = self.sequence_value(&sequence).await?;
            found.push(SequenceState { sequence, column: get(&row, 2)?, increment: get(&row, 3)?, value });
        }
        Ok(found)
    }

    pub async fn sequence_value(&self, sequence: &TableName) -> Result<SequenceValue> {
        let sql = format!("SELECT last_value, is_called FROM {}", sequence.quoted());
        let row = self.row("read a sequence", QUICK, &sql, &[]).await?;
        Ok(SequenceValue { last: get(&row, 0)?, called: get(&row, 1)? })
    }
}

/// The statement that sends a relation's rows as CSV. Without a filter a plain table is copied as it is; partitioned
/// tables, materialised views and chosen rows go through a query.
/// `encoding` is that of the file: `SQL_ASCII` for a database whose bytes nobody can convert.
pub fn copy_csv(
    table: &TableName,
    kind: RelationKind,
    columns: &[Column],
    filter: Option<&str>,
    encoding: &str,
) -> String {
    let stored: Vec<String> =
        columns.iter().filter(|c| !c.generated).map(|c| quote_identifier(&c.name)).collect();
    let list = stored.join(", ");
    let what = match (kind, filter) {
        // Rows of a child that inherits are the child's.
        (RelationKind::Table, None) if list.is_empty() => table.quoted(),
        (RelationKind::Table, None) => format!("{} ({list})", table.quoted()),
        (_, filter) => {
            let only = if kind == RelationKind::Table { "ONLY " } else { "" };
            // On a line of its own, so that a comment in it ends there.
            let rows = filter.map(|f| format!(" WHERE (\n{f}\n)")).unwrap_or_default();
            format!("(SELECT {list} FROM {only}{}{rows})", table.quoted())
        }
    };
    format!("COPY {what} TO STDOUT (FORMAT csv, HEADER, ENCODING '{encoding}')")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, generated: bool) -> Column {
        Column {
            name: name.into(),
            type_name: "text".into(),
            identity: false,
            generated,
            not_null: false,
            filled: false,
        }
    }

    #[test]
    fn generated_columns_are_left_out_and_everything_is_quoted() {
        let table = TableName { schema: "public".into(), name: "T\"x".into() };
        let columns = [column("a b", false), column("sum", true), column("select", false)];
        let sql = |kind, filter| copy_csv(&table, kind, &columns, filter, "UTF8");
        assert_eq!(
            sql(RelationKind::Table, None),
            r#"COPY "public"."T""x" ("a b", "select") TO STDOUT (FORMAT csv, HEADER, ENCODING 'UTF8')"#
        );
        assert_eq!(
            sql(RelationKind::Partitioned, None),
            r#"COPY (SELECT "a b", "select" FROM "public"."T""x") TO STDOUT (FORMAT csv, HEADER, ENCODING 'UTF8')"#
        );
        assert_eq!(
            sql(RelationKind::Table, Some("id > 7 -- new")),
            "COPY (SELECT \"a b\", \"select\" FROM ONLY \"public\".\"T\"\"x\" WHERE (\nid > 7 -- new\n)) TO STDOUT \
             (FORMAT csv, HEADER, ENCODING 'UTF8')"
        );
        let none = copy_csv(&table, RelationKind::Table, &[column("g", true)], None, "SQL_ASCII");
        assert_eq!(none, r#"COPY "public"."T""x" TO STDOUT (FORMAT csv, HEADER, ENCODING 'SQL_ASCII')"#);
    }
}
