//! One table as CSV, from a connection into every repository.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::outgoing::{self, Outgoing};
use super::pace::Pace;
use super::run::blocking;
use crate::backup::copy::Destination;
use crate::backup::full::cancelled;
use crate::codec::{FRAME_BYTES, from_io};
use crate::error::{Code, Error, Result};
use crate::postgres::Session;
use crate::postgres::session::Piece;
use crate::postgres::user_tables::{Column, Relation, RelationKind, SequenceState, copy_csv};
use crate::repository::logical_index::{IndexedColumn, IndexedCsv, IndexedSequence, IndexedTable, TableKind};
use crate::repository::record::ObjectEntry;
use crate::util::progress::Progress;

/// Rows are handed on in pieces of this size: a frame, which is then compressed where it lies.
const PIECE: usize = FRAME_BYTES;
/// Pieces that wait to be sealed.
const WAITING: usize = 2;
/// Until the first row may be sent; the lock is held already.
const BEGIN: Duration = Duration::from_mins(10);

/// What is exported.
pub(super) struct Table {
    pub(super) relation: Relation,
    /// In the backup's directory.
    pub(super) key: String,
    pub(super) columns: Vec<Column>,
    pub(super) sequences: Vec<SequenceState>,
    pub(super) filter: Option<String>,
    pub(super) encoding: String,
}

/// What became of it; its objects are durable.
pub(super) struct Exported {
    pub(super) indexed: IndexedTable,
    pub(super) objects: Vec<ObjectEntry>,
}

pub(super) async fn table(
    session: &Session,
    table: Table,
    pace: &Pace,
    destination: &Arc<Destination>,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Exported> {
    let out = outgoing::open(destination, &table.key, true)?;
    let (pieces, mailbox) = mpsc::channel(WAITING);
    let key = table.key.clone();
    let writer = tokio::task::spawn_blocking(move || seal(out, mailbox, &key));
    let sent = tokio::select! {
        sent = send(session, &table, pace, pieces, progress) => sent,
        () = cancel.cancelled() => Err(cancelled()),
    };
    // A store that hangs is not waited for.
    let sealed = tokio::select! {
        sealed = writer => sealed.map_err(|e| Error::internal("a thread of the export panicked").because(e))?,
        () = cancel.cancelled() => return Err(cancelled()),
    };
    // A writer that failed stops the sending; its reason is the better one.
    let out = sealed?;
    let rows = sent?;
    let stored = blocking(cancel, move || outgoing::finish(out)).await?;
    let csv = IndexedCsv {
        object: table.key,
        sha256: stored.plain_sha256,
        encoding: table.encoding,
        filter: table.filter,
        columns: table.columns.into_iter().filter(|c| !c.generated).map(indexed_column).collect(),
    };
    let indexed = IndexedTable {
        schema: table.relation.table.schema,
        name: table.relation.table.name,
        kind: kind(table.relation.kind),
        rows,
        bytes: stored.plain_bytes,
        dump_id: None,
        csv: Some(csv),
        sequences: table.sequences.into_iter().map(indexed_sequence).collect(),
    };
    Ok(Exported { indexed, objects: stored.objects })
}

/// Sends all rows, and says how many; without an error at the end of them all only when PostgreSQL said that they were
/// all. The rows are counted by the server's messages, of which the first is the header: so nobody need look for the line
/// ends that are no values.
async fn send(
    session: &Session,
    table: &Table,
    pace: &Pace,
    pieces: mpsc::Sender<Bytes>,
    progress: &dyn Progress,
) -> Result<u64> {
    let relation = &table.relation;
    let sql =
        copy_csv(&relation.table, relation.kind, &table.columns, table.filter.as_deref(), &table.encoding);
    let doing = format!("export {}", relation.table);
    let mut out = session.copy_out(&doing, &sql, PIECE, BEGIN).await?;
    let mut lines: u64 = 0;
    while let Some(piece) = out.next().await? {
        lines += piece.rows;
        let bytes = piece.bytes.len() as u64;
        progress.advance(bytes);
        pace.keep(worth(table, &piece)).await;
        if pieces.send(piece.bytes).await.is_err() {
            // The writer has failed and says why.
            return Ok(0);
        }
    }
    let odd = |what: String| Error::new(Code::BackupFailed, what).at(&relation.table);
    let rows = lines.checked_sub(1).ok_or_else(|| odd("PostgreSQL's CSV has no header".to_owned()))?;
    match out.said() {
        Some(said) if said != rows => {
            Err(odd(format!("PostgreSQL says that it has sent {said} rows, and {rows} have come")))
        }
        _ => Ok(rows),
    }
}

/// How much of the table's size is sent with this. Rows say it better than bytes: a CSV's are not the table's own.
fn worth(table: &Table, piece: &Piece) -> u64 {
    let Relation { bytes, rows, .. } = table.relation;
    if rows == 0 || table.filter.is_some() {
        return piece.bytes.len() as u64;
    }
    u64::try_from(u128::from(piece.rows) * u128::from(bytes) / u128::from(rows)).unwrap_or(u64::MAX)
}

/// On a blocking thread, up to the end of the pieces; that they are complete is for the caller to know.
fn seal(mut out: Outgoing, mut pieces: mpsc::Receiver<Bytes>, key: &str) -> Result<Outgoing> {
    while let Some(piece) = pieces.blocking_recv() {
        out.write_all(&piece).map_err(|e| from_io("cannot write the object", key, e))?;
    }
    Ok(out)
}

fn kind(kind: RelationKind) -> TableKind {
    match kind {
        RelationKind::Partitioned => TableKind::Partitioned,
        RelationKind::MaterializedView => TableKind::MaterializedView,
        _ => TableKind::Table,
    }
}

fn indexed_column(column: Column) -> IndexedColumn {
    IndexedColumn { name: column.name, type_name: column.type_name, identity: column.identity }
}

fn indexed_sequence(state: SequenceState) -> IndexedSequence {
    IndexedSequence {
        schema: state.sequence.schema,
        name: state.sequence.name,
        column: state.column,
        last_value: state.value.last,
        is_called: state.value.called,
    }
}
