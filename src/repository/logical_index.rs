//! `index.json` of a dump or of exported tables: databases, tables, rows, and where each one's bytes lie.
//!
//! Names are PostgreSQL's own, never escaped; keys are relative to the backup's directory. Rows and bytes are
//! counted in the very stream that was stored, so that a restore can be compared with them.

use std::io::{BufReader, Read};

use serde::{Deserialize, Serialize};

use super::documents::FORMAT;
use crate::error::{Code, Error, Result};
use crate::model::{BackupKind, Digest, Lsn, Timestamp};

/// `index.json` of kinds `dump` and `tables`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogicalIndex {
    pub format: u32,
    pub kind: BackupKind,
    /// `pg_dump (PostgreSQL) 18.6`
    pub tool_version: String,
    /// The key of roles and tablespaces; none in `tables`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub globals: Option<IndexedGlobals>,
    pub databases: Vec<IndexedDatabase>,
    /// What PostgreSQL's tools warned of, and what was left out; a line each.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// The output of `pg_dumpall --globals-only`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedGlobals {
    pub object: String,
    /// False when the role could not read `pg_authid`: the roles come back without their passwords.
    pub passwords: bool,
}

/// How a database was made, so that another like it can be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseFacts {
    /// As `pg_encoding_to_char` says it: `UTF8`, `LATIN1`, `SQL_ASCII` …
    pub encoding: String,
    pub collate: String,
    pub ctype: String,
    /// `c` (libc), `i` (ICU), `b` (builtin, 17+).
    pub locale_provider: String,
    /// The locale of ICU or of the built-in provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icu_rules: Option<String>,
    pub owner: String,
    pub tablespace: String,
}

/// One database of the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedDatabase {
    pub name: String,
    #[serde(flatten)]
    pub facts: DatabaseFacts,
    /// Every transaction that committed before it is in; all parts of this database share the snapshot.
    pub snapshot_lsn: Lsn,
    /// The database's clock when the snapshot was taken.
    pub snapshot_at: Timestamp,
    /// The key of the custom format archive; none in `tables`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dump: Option<String>,
    /// The key of the plain DDL: of the whole database in `dump`, of the exported tables in `tables`.
    pub schema: String,
    /// The version of the archive's format, `1.16`; none in `tables`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_version: Option<String>,
    /// The dump was asked for these tables only (patterns as given); empty for the whole database.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only_tables: Vec<String>,
    /// Large objects with their contents.
    #[serde(default)]
    pub large_objects: u64,
    pub tables: Vec<IndexedTable>,
}

/// What a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableKind {
    Table,
    /// In `tables` one CSV with the rows of all its partitions; in `dump` it has no rows of its own.
    Partitioned,
    MaterializedView,
}

/// One table with data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedTable {
    pub schema: String,
    pub name: String,
    pub kind: TableKind,
    /// Counted in the stream.
    pub rows: u64,
    /// Plain bytes of its data in the archive, or of its CSV.
    pub bytes: u64,
    /// `dump`: the id of its TABLE DATA entry in the archive, as `pg_restore -l` begins the line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dump_id: Option<u32>,
    /// `tables`: its CSV.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csv: Option<IndexedCsv>,
    /// `tables`: sequences owned by its columns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sequences: Vec<IndexedSequence>,
}

/// A file as `COPY … TO STDOUT (FORMAT csv, HEADER)` wrote it, in UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedCsv {
    pub object: String,
    /// Of the plain file.
    pub sha256: Digest,
    /// `UTF8`, but for databases in SQL_ASCII, whose bytes nobody can convert.
    pub encoding: String,
    /// The `WHERE` that chose the rows; none for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// In the order of the file; generated columns are not in it.
    pub columns: Vec<IndexedColumn>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedColumn {
    pub name: String,
    /// As `format_type` says it, schema-qualified where needed.
    #[serde(rename = "type")]
    pub type_name: String,
    /// `GENERATED ALWAYS AS IDENTITY`: loading needs no `OVERRIDING`, for COPY ignores it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub identity: bool,
}

/// A sequence that a column takes its default from, as it stood when the table was exported. (Sequences are not part
/// of a snapshot: it may be ahead of the rows, never behind them.)
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedSequence {
    pub schema: String,
    pub name: String,
    pub column: String,
    pub last_value: i64,
    pub is_called: bool,
}

impl LogicalIndex {
    /// Reads an index; `place` is for messages.
    pub fn read(source: impl Read, place: &str) -> Result<Self> {
        let index: Self = serde_json::from_reader(BufReader::new(source))
            .map_err(|e| Error::new(Code::Damaged, "the index cannot be read").at(place).because(e))?;
        if index.format > FORMAT {
            return Err(Error::new(Code::FormatTooNew, "the index was written by a newer pgkeep").at(place));
        }
        Ok(index)
    }

    pub fn database(&self, name: &str) -> Option<&IndexedDatabase> {
        self.databases.iter().find(|d| d.name == name)
    }
}

impl IndexedDatabase {
    pub fn table(&self, schema: &str, name: &str) -> Option<&IndexedTable> {
        self.tables.iter().find(|t| t.schema == schema && t.name == name)
    }
    /// Rows of all tables.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|t| t.rows).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> LogicalIndex {
        let facts = DatabaseFacts {
            encoding: "UTF8".into(),
            collate: "C".into(),
            ctype: "C".into(),
            locale_provider: "c".into(),
            locale: None,
            icu_rules: None,
            owner: "app".into(),
            tablespace: "pg_default".into(),
        };
        let column = |name: &str, type_name: &str, identity| IndexedColumn {
            name: name.into(),
            type_name: type_name.into(),
            identity,
        };
        let table = IndexedTable {
            schema: "public".into(),
            name: "Größe \"x\".y".into(),
            kind: TableKind::Partitioned,
            rows: 3,
            bytes: 40,
            dump_id: None,
            csv: Some(IndexedCsv {
                object: "csv/app/public/x.csv.zst.age".into(),
                sha256: Digest([7; 32]),
                encoding: "UTF8".into(),
                filter: Some("id > 7".into()),
                columns: vec![column("id", "bigint", true), column("note", "text", false)],
            }),
            sequences: vec![IndexedSequence {
                schema: "public".into(),
                name: "s".into(),
                column: "id".into(),
                last_value: i64::MAX,
                is_called: true,
            }],
        };
        let database = IndexedDatabase {
            name: "app".into(),
            facts,
            snapshot_lsn: Lsn(0x1_0000_0028),
            snapshot_at: "2026-11-21T02:00:00Z".parse().unwrap(),
            dump: None,
            schema: "schema/app.sql.zst.age".into(),
            archive_version: None,
            only_tables: Vec::new(),
            large_objects: 0,
            tables: vec![table],
        };
        LogicalIndex {
            format: 1,
            kind: BackupKind::Tables,
            tool_version: "pg_dump (PostgreSQL) 18.6".into(),
            globals: None,
            databases: vec![database],
            warnings: Vec::new(),
        }
    }

    #[test]
    fn an_index_keeps_its_form() {
        let text = serde_json::to_string(&index()).unwrap();
        let golden = r#"{"format":1,"kind":"tables","tool_version":"pg_dump (PostgreSQL) 18.6","databases":[{"name":"app","encoding":"UTF8","collate":"C","ctype":"C","locale_provider":"c","owner":"app","tablespace":"pg_default","snapshot_lsn":"1/28","snapshot_at":"2026-11-21T02:00:00Z","schema":"schema/app.sql.zst.age","large_objects":0,"tables":[{"schema":"public","name":"Größe \"x\".y","kind":"partitioned","rows":3,"bytes":40,"csv":{"object":"csv/app/public/x.csv.zst.age","sha256":"0707070707070707070707070707070707070707070707070707070707070707","encoding":"UTF8","filter":"id > 7","columns":[{"name":"id","type":"bigint","identity":true},{"name":"note","type":"text"}]},"sequences":[{"schema":"public","name":"s","column":"id","last_value":9223372036854775807,"is_called":true}]}]}],"warnings":[]}"#;
        assert_eq!(text, golden);
        assert_eq!(LogicalIndex::read(golden.as_bytes(), "x").unwrap(), index());
    }

    #[test]
    fn a_newer_index_is_refused() {
        let text = serde_json::to_string(&LogicalIndex { format: 2, ..index() }).unwrap();
        assert_eq!(LogicalIndex::read(text.as_bytes(), "x").unwrap_err().code(), Code::FormatTooNew);
    }
}
