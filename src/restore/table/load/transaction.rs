//! The one transaction in production.
//!
//! Lock → look again → take foreign keys away, switch triggers off, empty → make what is missing → copy → count →
//! sequences → indexes and constraints → foreign keys back → triggers on → statistics. The commit is the caller's; until
//! then nobody sees anything of it. The tables that are exchanged are locked for as long as it takes.

use super::{clear, sequences};
use crate::error::{Code, Error, Result};
use crate::model::TableName;
use crate::postgres::session::Session;
use crate::postgres::tables::Attachment;
use crate::restore::report::Phases;
use crate::restore::table::definitions::for_transaction;
use crate::restore::table::plan::TablePlan;
use crate::restore::table::report::RestoredTable;
use crate::restore::table::side::Side;
use crate::restore::table::take_out::{Taken, Tree};
use crate::restore::table::{Job, Way, foreign_keys, losses, rows};
use crate::util::{failpoint, human};

/// What stands ready to be committed.
pub struct Loaded {
    pub tables: Vec<RestoredTable>,
    pub findings: Vec<String>,
    pub notes: Vec<String>,
}

pub async fn load(
    job: &Job<'_>,
    side: &Side,
    session: &Session,
    taken: &Taken,
    plan: &TablePlan,
    phases: &mut Phases,
) -> Result<Loaded> {
    session.begin_table_load(job.request.lock_timeout).await?;
    failpoint::reach("table-after-begin")?;
    job.progress.phase("making room in production");
    let cleared = clear::run(job, session, taken, phases).await?;
    session.run_definitions(&for_transaction(&taken.before)).await.map_err(lacks_something)?;
    failpoint::reach("table-after-definitions")?;
    phases.done("make room");

    let mut tables = Vec::new();
    for tree in &taken.trees {
        let becomes = plan.tables.iter().find(|t| t.table == tree.asked).map(|t| t.becomes.clone());
        let streams = cleared.streams(tree)?;
        let (rows, bytes) = copy(job, session, taken, tree, &streams)
            .await
            .map_err(|e| does_not_fit(e, tree, &cleared.partitions_gone(tree)))?;
        let restored = RestoredTable {
            table: tree.asked.clone(),
            becomes: becomes.unwrap_or_else(|| tree.asked.clone()),
            way: tree.way,
            rows,
            bytes,
            rows_before: cleared.of(tree).map(|c| c.rows_before),
        };
        compare_counts(side, session, &restored).await?;
        tables.push(restored);
    }
    phases.done("copy rows");

    job.progress.phase("indexes, constraints, foreign keys");
    session.settle_constraints().await?;
    let mut notes = sequences::set(session, taken).await?;
    session.run_definitions(&for_transaction(&taken.after)).await.map_err(lacks_something)?;
    let mut findings = attach(session, taken).await?;
    foreign_keys::put_back(session, &cleared.keys, &*job.progress).await?;
    findings.extend(foreign_keys::bring_back(session, taken).await?);
    findings.extend(losses::findings(session, taken).await?);
    notes.extend(losses::stale_views(session, &cleared.oids()).await?);
    cleared.switch_on_again(session).await?;
    phases.done("indexes and constraints");
    job.progress.phase("statistics for the planner");
    analyze(session, taken, &cleared, &tables).await?;
    phases.done("statistics");
    failpoint::reach("table-before-commit")?;
    Ok(Loaded { tables, findings, notes })
}

async fn analyze(
    session: &Session,
    taken: &Taken,
    cleared: &clear::Cleared,
    tables: &[RestoredTable],
) -> Result<()> {
    for tree in &taken.trees {
        // The table itself and, where rows did not go through it, what is below it.
        let parts = cleared.streams(tree)?.into_iter().map(|s| s.to);
        let root = tables.iter().find(|t| t.table == tree.asked).map(|t| t.becomes.clone());
        let mut all: Vec<TableName> = parts.chain(root).collect();
        all.sort();
        all.dedup();
        session.analyze(&all).await?;
    }
    Ok(())
}

/// Partitions that were made by themselves go where they belong.
async fn attach(session: &Session, taken: &Taken) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for attachment in &taken.attachments {
        let Attachment { partition, parent, .. } = attachment;
        if session.table(parent).await?.is_none() {
            findings
                .push(format!("{partition} was a partition of {parent}, which is gone: it stands by itself"));
            continue;
        }
        session.attach_partition(attachment).await.map_err(|e| match e.code() {
            Code::Sql if e.hint_text().is_none() => {
                e.hint("restore it beside (without --replace), and take the rows that fit")
            }
            _ => e,
        })?;
    }
    Ok(findings)
}

/// The rows of a table with everything below it, and their bytes.
async fn copy(
    job: &Job<'_>,
    session: &Session,
    taken: &Taken,
    tree: &Tree,
    streams: &[rows::Stream],
) -> Result<(u64, u64)> {
    let (mut rows, mut bytes) = (0, 0);
    for stream in streams {
        job.progress.phase(&format!("copying rows of {}", stream.from));
        let copied = rows::copy(&taken.session, session, stream, &*job.progress).await?;
        rows += copied.written;
        bytes += copied.bytes;
        failpoint::reach("table-after-rows")?;
    }
    job.progress.note(&format!("{}: {rows} rows, {}", tree.asked, human::size(bytes)));
    Ok((rows, bytes))
}

/// What stands in the table now is what was read at that moment, and what the source says that there was.
async fn compare_counts(side: &Side, session: &Session, restored: &RestoredTable) -> Result<()> {
    let RestoredTable { table, becomes, rows, .. } = restored;
    let found = session.count_rows(becomes).await?;
    if found != *rows {
        let what = format!("{becomes} has {found} rows after the load, and {rows} were read");
        return Err(Error::new(Code::Sql, what).hint("restore beside the table (without --replace)"));
    }
    match side.recorded_rows.get(table) {
        Some(recorded) if recorded != rows => {
            let what =
                format!("{table} came out with {rows} rows, and {recorded} were recorded in the backup");
            Err(Error::new(Code::Sql, what).hint("the backup is damaged: take another one"))
        }
        _ => Ok(()),
    }
}

fn does_not_fit(error: Error, tree: &Tree, gone: &[TableName]) -> Error {
    if error.code() != Code::Sql || tree.way != Way::Rows || error.hint_text().is_some() {
        return error;
    }
    if gone.is_empty() {
        return error.hint(
            "rows of that moment do not fit into the table as it is now: restore beside it (without --replace), and \
             take the rows that fit",
        );
    }
    let names: Vec<String> = gone.iter().map(ToString::to_string).collect();
    error.hint(format!(
        "partitions of that moment are gone: {}; each comes back by its own name: pgkeep restore table {} --replace …",
        names.join(", "),
        names.join(" ")
    ))
}

fn lacks_something(error: Error) -> Error {
    match error.code() {
        Code::Sql | Code::NoTable if error.hint_text().is_none() => error.hint(
            "the table needs something that production does not have now (a role, a type, a function, an extension, a \
             tablespace): make that first, or leave owner and grants out with --no-owner",
        ),
        _ => error,
    }
}
