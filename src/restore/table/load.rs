//! The one transaction in production.
//!
//! Lock → look again → take foreign keys away, switch triggers off, empty → make what is missing → copy → sequences →
//! indexes and constraints → foreign keys back → triggers on → commit. Until the commit nobody sees anything of it; the
//! tables that are exchanged are locked for as long as it takes.

use std::collections::BTreeSet;

use super::definitions::for_transaction;
use super::plan::{TablePlan, rights_hint};
use super::report::{RestoredTable, TableReport};
use super::rows::{self, Stream};
use super::side::Side;
use super::take_out::{Taken, Tree};
use super::{Job, Way, foreign_keys};
use crate::error::{Code, Error, Result};
use crate::model::TableName;
use crate::postgres::session::Session;
use crate::postgres::tables::{ForeignKey, TableFacts, Trigger};
use crate::postgres::user_tables::{SequenceState, SequenceValue};
use crate::restore::production::Production;
use crate::restore::report::Phases;
use crate::util::failpoint;

pub async fn run(
    job: &Job<'_>,
    _side: &Side,
    production: Production,
    taken: Taken,
    plan: TablePlan,
) -> Result<TableReport> {
    let session = &production.session;
    let mut phases = Phases::start();
    let loaded = load(job, session, &taken, &plan, &mut phases).await;
    let (tables, mut findings, notes) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return Err(explained(job, &production, &taken, error).await),
    };
    if let Err(error) = session.commit_table_load().await {
        return Err(commit_failed(error));
    }
    phases.done("commit");
    findings.sort();
    let mut report = TableReport { database: plan.into, tables, notes, findings, phases: phases.finish() };
    report.notes.extend(taken.notes);
    Ok(report)
}

type Loaded = (Vec<RestoredTable>, Vec<String>, Vec<String>);

async fn load(
    job: &Job<'_>,
    session: &Session,
    taken: &Taken,
    plan: &TablePlan,
    phases: &mut Phases,
) -> Result<Loaded> {
    session.begin_table_load(job.request.lock_timeout).await?;
    failpoint::reach("table-after-begin")?;
    job.progress.phase("making room in production");
    let cleared = clear(job, session, taken, phases).await?;
    session.run_definitions(&for_transaction(&taken.before)).await?;
    failpoint::reach("table-after-definitions")?;
    phases.done("make room");

    job.progress.phase("copying rows");
    let mut tables = Vec::new();
    let mut counted = Vec::new();
    for tree in &taken.trees {
        let streams = cleared.streams(tree)?;
        let mut rows = 0;
        for stream in &streams {
            rows += rows::copy(&taken.session, session, stream, &*job.progress).await?;
            failpoint::reach("table-after-rows")?;
        }
        job.progress.note(&format!("{}: {rows} rows", tree.asked));
        let becomes = plan.tables.iter().find(|t| t.table == tree.asked).map(|t| t.becomes.clone());
        let becomes = becomes.unwrap_or_else(|| tree.asked.clone());
        counted.push((becomes.clone(), rows));
        let before = cleared.of(tree).map(|c| c.rows_before);
        tables.push(RestoredTable {
            table: tree.asked.clone(),
            becomes,
            way: tree.way,
            rows,
            rows_before: before,
        });
    }
    phases.done("copy rows");

    job.progress.phase("indexes, constraints, foreign keys");
    session.settle_constraints().await?;
    let mut notes = set_sequences(session, taken).await?;
    session.run_definitions(&for_transaction(&taken.after)).await?;
    foreign_keys::put_back(session, &cleared.keys, &*job.progress).await?;
    let mut findings = foreign_keys::bring_back(session, taken).await?;
    findings.extend(foreign_keys::lost_views(session, taken).await?);
    notes.extend(stale_views(session, &cleared).await?);
    for trigger in &cleared.triggers {
        session.enable_trigger(trigger).await?;
    }
    phases.done("indexes and constraints");
    count_again(session, &counted).await?;
    failpoint::reach("table-before-commit")?;
    Ok((tables, findings, notes))
}

/// What production had of the tables that are exchanged.
struct Cleared {
    tables: Vec<Exchanged>,
    keys: Vec<ForeignKey>,
    triggers: Vec<Trigger>,
}

struct Exchanged {
    asked: TableName,
    parts: Vec<TableFacts>,
    streams: Vec<Stream>,
    rows_before: u64,
}

impl Cleared {
    fn of(&self, tree: &Tree) -> Option<&Exchanged> {
        self.tables.iter().find(|e| e.asked == tree.asked)
    }
    fn streams(&self, tree: &Tree) -> Result<Vec<Stream>> {
        match (tree.way, self.of(tree)) {
            (Way::Rows, Some(exchanged)) => Ok(exchanged.streams.clone()),
            (Way::Rows, None) => Err(Error::internal("a table that was not looked at")),
            _ => Ok(rows::into_new(tree)),
        }
    }
    fn oids(&self) -> Vec<u32> {
        self.tables.iter().flat_map(|t| t.parts.iter().map(|p| p.oid)).collect()
    }
}

async fn clear(job: &Job<'_>, session: &Session, taken: &Taken, phases: &mut Phases) -> Result<Cleared> {
    let asked: Vec<&Tree> = taken.trees.iter().filter(|t| t.way == Way::Rows).collect();
    let mut cleared = Cleared { tables: Vec::new(), keys: Vec::new(), triggers: Vec::new() };
    if asked.is_empty() {
        return Ok(cleared);
    }
    // In one order, so that two restores do not wait for each other.
    for table in to_lock(session, &asked).await? {
        session.lock_exclusively(&table).await?;
    }
    phases.done("lock");
    for tree in asked {
        let now = session.table(&tree.asked).await?.ok_or_else(|| {
            Error::new(Code::Refused, "the table was dropped meanwhile")
                .at(&tree.asked)
                .hint("run the restore again")
        })?;
        let parts = session.table_tree(now.oid).await?;
        let streams = rows::into_existing(tree, &parts, job.request.keep_new_columns)?;
        let rows_before = session.count_rows(&tree.asked).await?;
        cleared.tables.push(Exchanged { asked: tree.asked.clone(), parts, streams, rows_before });
    }
    let oids = cleared.oids();
    cleared.keys = foreign_keys::take_away(session, &oids).await?;
    cleared.triggers = session.triggers(&oids, true).await?;
    for trigger in &cleared.triggers {
        session.disable_trigger(trigger).await?;
    }
    let targets: BTreeSet<TableName> =
        cleared.tables.iter().flat_map(|t| t.streams.iter().map(|s| s.to.clone())).collect();
    session.truncate(&targets.into_iter().collect::<Vec<_>>(), &partitioned(&cleared)).await?;
    Ok(cleared)
}

/// Roots that are emptied with everything below them; of all others only the table itself is.
fn partitioned(cleared: &Cleared) -> Vec<TableName> {
    let all = cleared.tables.iter().flat_map(|t| &t.parts);
    all.filter(|p| p.kind == crate::postgres::tables::TableKind::Partitioned)
        .map(|p| p.name.clone())
        .collect()
}

/// The tables themselves and those that refer to them or belong to them, by name.
async fn to_lock(session: &Session, asked: &[&Tree]) -> Result<BTreeSet<TableName>> {
    let mut names = BTreeSet::new();
    for tree in asked {
        names.insert(tree.asked.clone());
        if let Some(table) = session.table(&tree.asked).await? {
            let oids: Vec<u32> = session.table_tree(table.oid).await?.iter().map(|p| p.oid).collect();
            names.extend(session.foreign_keys(&oids).await?.into_iter().map(|k| k.table));
        }
    }
    Ok(names)
}

/// A sequence never goes back: numbers that were given out since then may be known elsewhere.
async fn set_sequences(session: &Session, taken: &Taken) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for then in &taken.sequences {
        let SequenceState { sequence, column, .. } = then;
        if !session.relation_exists(sequence).await? {
            notes.push(format!("sequence {sequence} of column {column} is gone in production"));
            continue;
        }
        let now = session.sequence_value(sequence).await?;
        if is_ahead(then, now) {
            session.set_sequence(sequence, then.value).await?;
        }
    }
    Ok(notes)
}

fn is_ahead(state: &SequenceState, now: SequenceValue) -> bool {
    let then = state.value;
    let further = if state.increment < 0 { then.last < now.last } else { then.last > now.last };
    further || then.last == now.last && then.called && !now.called
}

/// Materialised views still show the rows that were there.
async fn stale_views(session: &Session, cleared: &Cleared) -> Result<Vec<String>> {
    let views = session.dependent_views(&cleared.oids()).await?;
    let stale = views.into_iter().filter(|v| v.materialised);
    Ok(stale
        .map(|v| {
            format!("{} shows the old rows until: REFRESH MATERIALIZED VIEW {}", v.name, v.name.quoted())
        })
        .collect())
}

/// What stands in the tables now is what was read at that moment.
async fn count_again(session: &Session, counted: &[(TableName, u64)]) -> Result<()> {
    for (table, rows) in counted {
        let found = session.count_rows(table).await?;
        if found != *rows {
            let what = format!("{table} has {found} rows after the load, and {rows} were read");
            return Err(Error::new(Code::Sql, what).hint("rules or row security of the table are in the way"));
        }
    }
    Ok(())
}

/// An error before the commit, with what it means for production.
async fn explained(job: &Job<'_>, production: &Production, taken: &Taken, error: Error) -> Error {
    let session = &production.session;
    let error = match error.code() {
        Code::NotReady => error.hint(rights_hint(session)),
        Code::Busy => {
            let tables: Vec<TableName> = taken.trees.iter().map(|t| t.asked.clone()).collect();
            foreign_keys::explain_lock(error, production.another().await.ok(), &tables).await
        }
        _ => error,
    };
    // The server would notice by itself; like this the locks are free at once.
    session.give_up().await;
    job.progress.note("rolled back");
    error.while_doing("the tables were not restored, and nothing in production has changed")
}

fn commit_failed(error: Error) -> Error {
    if error.code() != Code::Connect {
        return error.while_doing("the tables were not restored, and nothing in production has changed");
    }
    error
        .while_doing("the connection was lost while the commit was under way: it was done or it was not")
        .hint("look whether the rows are there; if they are not, run the same command again")
}
