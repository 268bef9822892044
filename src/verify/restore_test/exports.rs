//! The exports of a day: PostgreSQL itself reads each CSV to its end, each value as what its column is, and says how many rows
//! it took. Types of the user, and those whose text depends on locale or encoding, are read as text.
//!
//! A copy that cannot be read is told, and the next repository's is loaded.

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::cluster::Cluster;
use super::said;
use crate::codec::{Identities, from_io};
use crate::error::{Code, Error, Result};
use crate::postgres::session::Session;
use crate::repository::Repository;
use crate::repository::logical_index::{IndexedCsv, IndexedTable, LogicalIndex};
use crate::restore::gather::{Archive, Held};
use crate::restore::logical::StoredStream;
use crate::util::human;
use crate::verify::drill::Drill;
use crate::verify::report::{Check, Report};
use crate::verify::room;

const DAY: Duration = Duration::from_hours(24);
const PIECE: usize = 256 << 10;
/// Pieces on their way.
const WAITING: usize = 4;
/// Text in a table, beside the bytes of the file.
const ROOM_FACTOR: u64 = 2;

/// Those of the last day that there was one, by the database's clock. The oldest first.
pub(super) fn of_the_day(all: Vec<Held>) -> Vec<Held> {
    let at = |held: &Held| held.record.logical.as_ref().map(|logical| logical.snapshot_at);
    let Some(newest) = all.last().and_then(at) else { return Vec::new() };
    all.into_iter().filter(|held| at(held).is_some_and(|at| newest.since(at) < DAY)).collect()
}

pub(super) async fn load(
    test: &Drill<'_>,
    archive: &Archive,
    export: &Held,
    identities: Option<&Identities>,
    cluster: &Cluster,
    report: &mut Report,
) -> Result<()> {
    let of = format!("export {}", export.record.id);
    let index = match archive.index(export, identities, LogicalIndex::read).await {
        Ok(index) => index,
        Err(e) => {
            report
                .checks
                .push(Check::new(&of, "its index can be read", "").essential().found(false, said(&e)));
            return Ok(());
        }
    };
    test.progress.phase("loading the exports");
    let session = cluster.for_exports().await?;
    for database in &index.databases {
        let mut found = (0, 0);
        for table in &database.tables {
            let Some(csv) = &table.csv else { continue };
            let name = format!("{}.{}.{}", database.name, table.schema, table.name);
            let check = Check::new(&of, name, format!("{} rows", table.rows)).essential();
            let needed = (table.bytes * ROOM_FACTOR).saturating_add(test.config.proof.reserve);
            if needed > room::available(&test.scratch)? {
                let why = format!("the scratch directory has no room for its {}", human::size(table.bytes));
                report.checks.push(check.unproved(why));
                continue;
            }
            match any(test, archive, export, (table, csv), &session, &mut report.notes).await {
                Ok(rows) if rows == table.rows => found = (found.0 + 1, found.1 + rows),
                Ok(rows) => report.checks.push(check.found(false, format!("{rows} rows"))),
                Err(e) => report.checks.push(check.found(false, said(&e))),
            }
        }
        if found.0 > 0 {
            let words = format!("{} rows in {} tables, as exported", found.1, found.0);
            let check = Check::new(&of, format!("tables of database {}", database.name), words.clone());
            report.checks.push(check.essential().found(true, words));
        }
    }
    Ok(())
}

/// From the first repository that gives it. A value that does not fit is the same in all of them.
async fn any(
    test: &Drill<'_>,
    archive: &Archive,
    export: &Held,
    (table, csv): (&IndexedTable, &IndexedCsv),
    session: &Session,
    notes: &mut Vec<String>,
) -> Result<u64> {
    let mut last = Error::internal("a backup without a repository");
    for (number, name) in export.repositories.iter().enumerate() {
        let done = match archive.repository(name) {
            Ok(repository) => one(test, repository, export, table, csv, session).await,
            Err(e) => Err(e),
        };
        match done {
            Err(e) if e.code() != Code::Sql && number + 1 < export.repositories.len() => {
                notes.push(format!("{}.{} of {} in {name}: {e}", table.schema, table.name, export.record.id));
                last = e;
            }
            done => return done,
        }
    }
    Err(last)
}

async fn one(
    test: &Drill<'_>,
    repository: &Repository,
    export: &Held,
    table: &IndexedTable,
    csv: &IndexedCsv,
    session: &Session,
) -> Result<u64> {
    let identities = test.identities.as_ref();
    let stream = StoredStream::new(repository, &test.cluster.name, &export.record, &csv.object, identities)?;
    let columns: Vec<(&str, &str)> =
        csv.columns.iter().map(|column| (column.name.as_str(), column.type_name.as_str())).collect();
    if columns.is_empty() {
        // Each row is an empty line.
        return Ok(tokio::task::spawn_blocking(move || lines(&stream))
            .await
            .map_err(|e| Error::internal("a reader died").because(e))??
            .saturating_sub(1));
    }
    let mut rows = session.copy_of_columns(&columns, &csv.encoding).await?;
    let (pieces, mut mailbox) = mpsc::channel::<Result<Bytes>>(WAITING);
    let reader = tokio::task::spawn_blocking(move || send(&stream, &pieces));
    while let Some(piece) = mailbox.recv().await {
        rows.send(piece?).await?;
    }
    reader.await.map_err(|e| Error::internal("a reader died").because(e))?;
    let taken = rows.finish().await?;
    tracing::debug!(table = %table.name, taken, "loaded");
    Ok(taken)
}

fn lines(stream: &StoredStream) -> Result<u64> {
    let mut text = Vec::new();
    stream
        .open()?
        .read_to_end(&mut text)
        .map_err(|e| from_io("the export cannot be read to its end", &stream.place(), e))?;
    Ok(text.split(|byte| *byte == b'\n').count().saturating_sub(1) as u64)
}

/// On a blocking thread; its error is the last piece.
fn send(stream: &StoredStream, pieces: &mpsc::Sender<Result<Bytes>>) {
    let mut open = match stream.open() {
        Ok(open) => open,
        Err(error) => {
            let _ = pieces.blocking_send(Err(error));
            return;
        }
    };
    loop {
        let mut piece = vec![0; PIECE];
        let sent = match open.read(&mut piece) {
            Ok(0) => return,
            Ok(n) => {
                piece.truncate(n);
                pieces.blocking_send(Ok(piece.into()))
            }
            Err(e) => {
                let error = from_io("the export cannot be read to its end", &stream.place(), e);
                let _ = pieces.blocking_send(Err(error));
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}
