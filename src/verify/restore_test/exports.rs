//! The exports of a day: PostgreSQL itself reads each CSV to its end, each value as what its column is, and says how many rows
//! it took. Types of the user and of extensions, and those whose text depends on a locale, are read as text: an export has the
//! definitions of its tables alone, and production is not asked. A note names their columns.
//!
//! A copy that cannot be read is told, and the next repository's is loaded.

use std::time::Duration;

use super::cluster::Cluster;
use super::{index_of, said};
use crate::codec::Identities;
use crate::error::{Code, Error, Result};
use crate::postgres::proof;
use crate::postgres::session::Session;
use crate::repository::Repository;
use crate::repository::logical_index::{IndexedCsv, IndexedTable};
use crate::restore::gather::{Archive, Held};
use crate::restore::logical::StoredStream;
use crate::util::human;
use crate::verify::drill::Drill;
use crate::verify::report::{Check, Report};
use crate::verify::room;

const DAY: Duration = Duration::from_hours(24);
/// Text in a table, beside the bytes of the file.
const ROOM_FACTOR: u64 = 2;
/// Columns that a note names.
const NAMED: usize = 8;

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
    let Some(index) = index_of(archive, export, identities, &of, report).await else { return Ok(()) };
    test.progress.phase("loading the exports");
    for database in &index.databases {
        let session = match cluster.for_exports(&database.facts.encoding).await {
            Ok(session) => session,
            Err(e) => {
                let check = Check::new(&of, format!("tables of database {}", database.name), "");
                report.checks.push(check.essential().found(false, said(&e)));
                continue;
            }
        };
        let (mut found, mut as_text) = ((0, 0), Vec::new());
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
                Ok(rows) if rows == table.rows => {
                    found = (found.0 + 1, found.1 + rows);
                    as_text.extend(read_as_text(table, csv));
                }
                Ok(rows) => report.checks.push(check.found(false, format!("{rows} rows"))),
                Err(e) => report.checks.push(check.found(false, said(&e))),
            }
        }
        if found.0 > 0 {
            let words = format!("{} rows in {} tables, as exported", found.1, found.0);
            let check = Check::new(&of, format!("tables of database {}", database.name), words.clone());
            report.checks.push(check.essential().found(true, words));
        }
        report.notes.extend(text_note(&of, &as_text));
    }
    Ok(())
}

/// Columns whose values were only counted.
fn read_as_text<'i>(table: &'i IndexedTable, csv: &'i IndexedCsv) -> impl Iterator<Item = String> + 'i {
    let others = csv.columns.iter().filter(|column| !proof::checkable(&column.type_name));
    others.map(|column| format!("{}.{}.{} ({})", table.schema, table.name, column.name, column.type_name))
}

/// What was not proved of them is said.
fn text_note(of: &str, columns: &[String]) -> Option<String> {
    let named = columns.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let more = match columns.len().saturating_sub(NAMED) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    (!columns.is_empty()).then(|| {
        format!("{of}: read as text, for their types are not PostgreSQL's own or depend on a locale: {named}{more}")
    })
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
    let mut pieces = stream.pieces();
    if columns.is_empty() {
        // Each row is an empty line, as is the header.
        let mut lines = 0_u64;
        while let Some(piece) = pieces.recv().await {
            lines += memchr::memchr_iter(b'\n', &piece?).count() as u64;
        }
        return Ok(lines.saturating_sub(1));
    }
    let mut rows = session.copy_of_columns(&columns, &csv.encoding).await?;
    while let Some(piece) = pieces.recv().await {
        rows.send(piece?).await?;
    }
    let taken = rows.finish().await?;
    tracing::debug!(table = %table.name, taken, "loaded");
    Ok(taken)
}
