//! Tables of one database as CSV: several connections look through one snapshot, each sends one table at a time, the
//! largest first.
//!
//! Whatever may have to wait (locks, connections) comes before the first row is sent, so that it can be tried again; from
//! then on a failure fails the export. A table cannot be dropped meanwhile: every connection has it locked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use super::export::{self, Exported, Table};
use super::opened::{self, Opened};
use super::outgoing::Held;
use super::pace::{Lane, Queue};
use super::run::{DatabasePart, Run};
use super::{TablesWork, globals, selection};
use crate::error::{Code, Error, Result};
use crate::model::{TableFilter, Timestamp};
use crate::postgres::dump_tool::DumpScope;
use crate::postgres::user_tables::{Database, Relation};
use crate::postgres::{Session, TableName, snapshot};
use crate::repository::keys::backup;
use crate::repository::logical_index::IndexedDatabase;
use crate::util::failpoint;

/// None when the patterns choose nothing here.
pub(super) async fn database(
    run: &Run<'_>,
    database: &Database,
    work: &TablesWork,
) -> Result<Option<DatabasePart>> {
    let request = run.request;
    let doing = format!("export tables of database {}", database.name);
    let mut tries = run.tries(&doing);
    let prepared = loop {
        match prepare(run, database, work, &doing).await {
            Err(error) => tries.again(error).await?,
            Ok(done) => break done,
        }
    };
    let Some(mut prepared) = prepared else { return Ok(None) };
    failpoint::reach("tables-before-copy")?;
    request.progress.phase(&format!("exporting {}", database.name));
    request.progress.total(prepared.bytes);
    let sessions = std::mem::take(&mut prepared.sessions);
    let exported = copy_all(run, sessions, std::mem::take(&mut prepared.tables)).await?;

    let key = backup::schema(&database.name, run.destination.protection.suffix());
    let mut bytes_raw = prepared.schema.plain_bytes;
    let mut objects = globals::store(run, prepared.schema, key.clone()).await?;
    let mut tables = Vec::with_capacity(exported.len());
    for table in exported {
        bytes_raw += table.indexed.bytes;
        objects.extend(table.objects);
        tables.push(table.indexed);
    }
    tables.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    let indexed = IndexedDatabase {
        name: database.name.clone(),
        facts: opened::facts(database),
        snapshot_lsn: prepared.snapshot.0,
        snapshot_at: prepared.snapshot.1,
        dump: None,
        schema: key,
        archive_version: None,
        only_tables: work.tables.iter().map(ToString::to_string).collect(),
        large_objects: 0,
        tables,
    };
    let matched = prepared.matched;
    let (warnings, notes) = (prepared.warnings, prepared.notes);
    Ok(Some(DatabasePart { indexed, objects, bytes_raw, warnings, notes, matched }))
}

/// All that is needed to send rows, and nothing that has to wait any more.
struct Prepared {
    tables: VecDeque<Table>,
    /// A guess.
    bytes: u64,
    sessions: Vec<Session>,
    schema: Held,
    warnings: Vec<String>,
    notes: Vec<String>,
    snapshot: (crate::model::Lsn, Timestamp),
    matched: Vec<String>,
}

async fn prepare(
    run: &Run<'_>,
    database: &Database,
    work: &TablesWork,
    doing: &str,
) -> Result<Option<Prepared>> {
    let (request, ready) = (run.request, &run.ready);
    let choose = |all: &[Relation]| -> Result<Vec<Relation>> {
        Ok(selection::tables(all, &work.tables)?.into_iter().cloned().collect())
    };
    let opened = Opened::open(run, database, choose).await?;
    let chosen = selection::without_parts_of_chosen(choose(&opened.relations)?);
    if chosen.is_empty() {
        return Ok(None);
    }
    request.progress.phase(&format!("definitions of tables in {}", database.name));
    let references: Vec<&Relation> = chosen.iter().collect();
    let defined = selection::with_partitions(&opened.relations, &references);
    let names: Vec<TableName> = defined.iter().map(|r| r.table.clone()).collect();
    let patience = request.config.dump.lock_timeout;
    let scope = DumpScope { snapshot: &opened.snapshot.id, lock_timeout: patience, tables: &names };
    let (schema, warnings) = globals::text(run, ready.tool.schema(&opened.info, &scope), doing).await?;

    let mut tables = Vec::with_capacity(chosen.len());
    for relation in &chosen {
        let session = opened.snapshot.session();
        tables.push(Table {
            key: backup::csv(
                &database.name,
                &relation.table.schema,
                &relation.table.name,
                run.destination.protection.suffix(),
            ),
            columns: session.columns(relation.oid).await?,
            sequences: session.owned_sequences(relation.oid).await?,
            filter: filter_of(&work.filters, &relation.table),
            encoding: encoding_of(database),
            relation: relation.clone(),
        });
    }
    tables.sort_by_key(|t| std::cmp::Reverse(t.relation.bytes));
    let snapshot = (opened.snapshot.lsn, opened.snapshot.at);
    let wanted = work.connections.clamp(1, chosen.len());
    let (sessions, notes) = connections(opened, &opened::lockable(&chosen), patience, wanted).await?;
    Ok(Some(Prepared {
        bytes: chosen.iter().map(|r| r.bytes).sum(),
        tables: tables.into(),
        sessions,
        schema,
        warnings,
        notes,
        snapshot,
        matched: selection::matched(&references, &work.tables),
    }))
}

/// The session that holds the snapshot, and others that join it: as many as the server has.
async fn connections(
    opened: Opened,
    locks: &[TableName],
    patience: Duration,
    wanted: usize,
) -> Result<(Vec<Session>, Vec<String>)> {
    let (mut joined, mut notes) = (Vec::new(), Vec::new());
    for _ in 1..wanted {
        match snapshot::join(&opened.info, &opened.snapshot.id, locks, patience).await {
            Ok(session) => joined.push(session),
            Err(e) if e.code() == Code::ServerFull => {
                notes.push(format!("only {} of {wanted} connections: {e}", joined.len() + 1));
                break;
            }
            Err(e) => return Err(e),
        }
    }
    joined.push(opened.snapshot.into_session());
    Ok((joined, notes))
}

/// The first that fits.
fn filter_of(filters: &[TableFilter], table: &TableName) -> Option<String> {
    let fits = |f: &&TableFilter| f.tables.matches(&table.schema, &table.name);
    filters.iter().find(fits).map(|f| f.condition.clone())
}

/// The client's encoding is UTF-8, and PostgreSQL converts; but nobody can convert what has no encoding.
fn encoding_of(database: &Database) -> String {
    if database.encoding == "SQL_ASCII" { "SQL_ASCII" } else { "UTF8" }.to_owned()
}

/// Each session takes the next table until none is left. The first failure ends all.
async fn copy_all(run: &Run<'_>, sessions: Vec<Session>, tables: VecDeque<Table>) -> Result<Vec<Exported>> {
    let sized = tables.into_iter().map(|table| {
        let bytes = table.relation.bytes;
        (table, bytes)
    });
    let queue = Arc::new(Mutex::new(Queue::new(sized)));
    let mut workers = JoinSet::new();
    for session in sessions {
        let (queue, destination) = (queue.clone(), run.destination.clone());
        let (progress, cancel) = (run.request.progress.clone(), run.request.cancel.clone());
        workers.spawn(async move {
            let (mut done, mut lane) = (Vec::new(), Lane::default());
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).take(&mut lane);
                let Some((table, pace)) = next else { return Ok(done) };
                done.push(export::table(&session, table, &pace, &destination, &*progress, &cancel).await?);
            }
        });
    }
    let mut exported = Vec::new();
    while let Some(worker) = workers.join_next().await {
        let done: Result<Vec<Exported>> =
            worker.map_err(|e| Error::internal("a connection's task failed").because(e))?;
        exported.extend(done.map_err(not_to_be_repeated)?);
    }
    Ok(exported)
}

/// Rows were sent already: what may pass elsewhere fails the export here.
fn not_to_be_repeated(error: Error) -> Error {
    if error.code() == Code::Busy {
        Error::new(Code::BackupFailed, "the export was interrupted").because(error)
    } else {
        error
    }
}
