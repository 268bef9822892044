//! Definitions from an export's DDL, rows from its CSV.
//!
//! `pg_dump --table` writes tables alone, without schemas, types and functions. Those are taken from production as it is
//! now: everything there but tables and views, which needs no lock and no right on any of them. `psql` goes on behind
//! what cannot be made (a function whose body names a table); what matters shows at the asked tables themselves.

use std::io::Read;
use std::time::Duration;

use super::not_in;
use crate::codec::{Identities, from_io};
use crate::error::{Code, Error, Result};
use crate::model::TableName;
use crate::postgres::connect_to;
use crate::postgres::conninfo::ConnInfo;
use crate::postgres::dump_tool;
use crate::postgres::session::Session;
use crate::postgres::sql_text;
use crate::postgres::tables::{TableKind as Kind, copy_csv_in};
use crate::postgres::tools::Tools;
use crate::postgres::user_tables::SequenceValue;
use crate::repository::Repository;
use crate::repository::logical_index::{IndexedSequence, IndexedTable, TableKind};
use crate::restore::logical::StoredStream;
use crate::restore::logical::choose::ChosenBackup;
use crate::restore::production::Production;
use crate::restore::table::Job;

const DEFINITIONS_WITHIN: Duration = Duration::from_mins(30);
const LARGEST_DEFINITIONS: usize = 256 << 20;
const BEGIN: Duration = Duration::from_mins(1);

/// An export, by its objects.
pub struct Csv {
    schema: StoredStream,
    asked: Vec<TableName>,
    /// All of the export: a table comes with its children.
    tables: Vec<(IndexedTable, StoredStream)>,
    /// Where the rest of the definitions comes from.
    production: ConnInfo,
}

pub async fn open(
    job: &Job<'_>,
    repository: &Repository,
    chosen: &ChosenBackup,
    production: &Production,
    identities: Option<&Identities>,
) -> Result<(Csv, Vec<IndexedTable>)> {
    let record = &chosen.held.record;
    let cluster = &job.cluster.name;
    let stream = |relative: &str| StoredStream::new(repository, cluster, record, relative, identities);
    let schema = stream(&chosen.database.schema)?;
    schema.check_length().await?;
    let mut tables = Vec::new();
    for indexed in &chosen.database.tables {
        if let Some(csv) = &indexed.csv {
            tables.push((indexed.clone(), stream(&csv.object)?));
        }
    }
    let asked = job.request.tables.clone();
    let csv = Csv { schema, asked, tables, production: production.info.clone() };
    let mut all = Vec::new();
    for table in &csv.asked {
        let (indexed, rows) = csv.rows_of(table).ok_or_else(|| not_in(chosen, table))?;
        rows.check_length().await?;
        all.push(indexed.clone());
    }
    Ok((csv, all))
}

/// Rows of one export, its partitions' among them.
pub async fn count(session: &Session, indexed: &IndexedTable, table: &TableName) -> Result<u64> {
    match indexed.kind {
        TableKind::Partitioned => session.count_rows(table).await,
        _ => session.count_own_rows(table).await,
    }
}

impl Csv {
    fn rows_of(&self, table: &TableName) -> Option<&(IndexedTable, StoredStream)> {
        self.tables.iter().find(|(t, _)| t.schema == table.schema && t.name == table.name)
    }

    /// The asked tables, and those that inherit from them: each has a CSV of its own. Partitions have not.
    async fn with_children(&self, session: &Session, complaints: &[String]) -> Result<Vec<TableName>> {
        let mut all: Vec<TableName> = Vec::new();
        for asked in &self.asked {
            let gone = || Error::new(Code::NoTable, "the table could not be made").at(asked);
            let root = session.table(asked).await?.ok_or_else(|| explained(gone(), complaints))?;
            for part in session.table_tree(root.oid).await? {
                let own = part.name == *asked || (!part.is_partition && part.kind == Kind::Plain);
                if own && !all.contains(&part.name) {
                    all.push(part.name);
                }
            }
        }
        Ok(all)
    }

    /// What could not be made.
    pub async fn load(
        &self,
        job: &Job<'_>,
        into: &ConnInfo,
        asleep: &ConnInfo,
        tools: &Tools,
    ) -> Result<Vec<String>> {
        let around = dump_tool::definitions_without_tables(tools, &job.owner, &self.production);
        let around = around.limit(LARGEST_DEFINITIONS).run().await?.success().map_err(|e| {
            Error::new(Code::Tools, "pg_dump cannot read production's types and functions").because(e)
        })?;
        run_script(job, tools, into, around.stdout).await?;
        let schema = self.schema.clone();
        let script = tokio::task::spawn_blocking(move || whole(&schema));
        let script = script.await.map_err(|e| Error::internal("a reader died").because(e))??;
        let (fires, definitions): (Vec<String>, Vec<String>) =
            sql_text::statements(&script).into_iter().partition(|statement| is_of_trigger(statement));
        let complaints = run_script(job, tools, into, definitions.join("\n").into_bytes()).await?;
        let session = connect_to(asleep).await?;
        for table in self.with_children(&session, &complaints).await? {
            let (indexed, stream) = self.rows_of(&table).ok_or_else(|| without_child(&table))?;
            copy(job, &session, indexed, &table, stream).await.map_err(|e| explained(e, &complaints))?;
            for IndexedSequence { schema, name, last_value, is_called, .. } in &indexed.sequences {
                let value = SequenceValue { last: *last_value, called: *is_called };
                session.set_sequence(&TableName::new(schema, name), value).await?;
            }
        }
        run_script(job, tools, into, fires.join("\n").into_bytes()).await?;
        // Complaints that matter have shown by now: most are about tables that nobody asked for.
        Ok(Vec::new())
    }
}

fn without_child(table: &TableName) -> Error {
    Error::new(Code::Refused, format!("the export does not have {table}, which is a part of an asked table"))
        .hint("nothing in production has changed; restore from a dump, which has all tables")
}

/// What `psql` could not make is why a table is not there.
fn explained(error: Error, complaints: &[String]) -> Error {
    if error.code() != Code::NoTable || complaints.is_empty() {
        return error;
    }
    Error::new(Code::RestoreFailed, "the table could not be made from the export's definitions")
        .at(complaints.iter().take(5).cloned().collect::<Vec<_>>().join("; "))
        .hint("nothing in production has changed; restore from a dump, which has all definitions")
        .because(error)
}

/// Errors that it went on behind, a line each.
async fn run_script(job: &Job<'_>, tools: &Tools, into: &ConnInfo, script: Vec<u8>) -> Result<Vec<String>> {
    let run =
        dump_tool::psql(tools, &job.owner, into, DEFINITIONS_WITHIN).stdin(script).limit(LARGEST_DEFINITIONS);
    let said = run
        .run()
        .await?
        .success()
        .map_err(|e| Error::new(Code::Tools, "psql cannot make the definitions").because(e))?;
    let said = said.stderr_text();
    Ok(said.lines().filter(|line| line.contains("ERROR:")).map(str::to_owned).collect())
}

/// One that fires always would do so in this load too.
fn is_of_trigger(statement: &str) -> bool {
    let begins = ["CREATE TRIGGER ", "CREATE CONSTRAINT TRIGGER ", "COMMENT ON TRIGGER "];
    let states = [" ENABLE ALWAYS TRIGGER ", " ENABLE REPLICA TRIGGER ", " DISABLE TRIGGER "];
    begins.iter().any(|words| statement.starts_with(words))
        || (statement.starts_with("ALTER TABLE ") && states.iter().any(|words| statement.contains(words)))
}

fn whole(stream: &StoredStream) -> Result<String> {
    let mut text = String::new();
    let read = stream.open()?.take(LARGEST_DEFINITIONS as u64).read_to_string(&mut text);
    read.map_err(|e| from_io("the definitions cannot be read", &stream.place(), e))?;
    Ok(text)
}

async fn copy(
    job: &Job<'_>,
    session: &Session,
    indexed: &IndexedTable,
    table: &TableName,
    stream: &StoredStream,
) -> Result<()> {
    let csv = indexed.csv.as_ref().ok_or_else(|| not_exported(table))?;
    let columns: Vec<String> = csv.columns.iter().map(|c| c.name.clone()).collect();
    if columns.is_empty() {
        return session.insert_empty_rows(table, indexed.rows).await;
    }
    let mut pieces = stream.pieces();
    let sql = copy_csv_in(table, &columns, &csv.encoding);
    let mut rows = session.copy_in(&format!("load the rows of {table}"), &sql, BEGIN).await?;
    while let Some(piece) = pieces.recv().await {
        let piece = piece?;
        job.progress.advance(piece.len() as u64);
        rows.send(piece).await?;
    }
    let written = rows.finish().await?;
    if written == indexed.rows {
        return Ok(());
    }
    let what = format!("{table} has {written} rows, and the export says {}", indexed.rows);
    Err(Error::new(Code::RowsDiffer, what).hint("nothing in production has changed; try another backup"))
}

fn not_exported(table: &TableName) -> Error {
    Error::new(Code::Damaged, "the export's index names no CSV of it").at(table)
}
