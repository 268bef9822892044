//! Production gets its tables: tries of one transaction, each of which lets go of everything before the next.
//!
//! A lock that somebody holds must not cost the hours that the side instance took, and must not make production queue
//! behind us either: a try waits for a lock for `lock_timeout` and no longer, then the connection is closed, production
//! has four times as long to itself, and the whole transaction is tried again.
//!
//! Cancellation: up to the commit a signal ends the server's work at once and closes the connection, which rolls back.
//! The commit itself is not interrupted, or nobody would know whether it was done.

mod clear;
mod sequences;
mod transaction;

pub use clear::locked_with;

use std::time::Duration;

use super::plan::{TablePlan, rights_hint};
use super::report::{Counts, TableReport};
use super::side::Side;
use super::take_out::Taken;
use super::{Job, ended_by_signal, foreign_keys};
use crate::error::{Code, Error, Result};
use crate::model::TableName;
use crate::restore::production::Production;
use crate::restore::report::Phases;
use crate::util::human;
use transaction::Loaded;

const UNCHANGED: &str = "the tables were not restored, and nothing in production has changed";

pub async fn run(
    job: &Job<'_>,
    side: &Side,
    mut production: Production,
    taken: Taken,
    plan: TablePlan,
) -> Result<TableReport> {
    let mut left = job.request.lock_retries;
    let (loaded, mut phases) = loop {
        let mut phases = Phases::start();
        match attempt(job, side, &production, &taken, &plan, &mut phases).await {
            Ok(loaded) => break (loaded, phases),
            Err(error) if error.code() == Code::Busy && left > 0 => {
                left -= 1;
                production = pause(job, production, &taken, error).await?;
            }
            Err(error) => return Err(explained(job, &production, &taken, error).await),
        }
    };
    if let Err(error) = production.session.commit_table_load().await {
        return Err(commit_failed(error));
    }
    phases.done("commit");
    let Loaded { tables, mut findings, mut notes } = loaded;
    findings.sort();
    notes.extend(taken.notes);
    let altogether = side.phases.iter().filter(|p| p.name != "altogether").cloned();
    let phases = altogether.chain(phases.finish().into_iter().filter(|p| p.name != "altogether")).collect();
    Ok(TableReport {
        host: plan.host,
        production: plan.production,
        system_identifier: plan.system_identifier,
        stands_at: side.stands_at.clone(),
        database: plan.into,
        counts: Counts { tables: tables.len(), rows: tables.iter().map(|t| t.rows).sum() },
        tables,
        notes,
        findings,
        phases,
    })
}

async fn attempt(
    job: &Job<'_>,
    side: &Side,
    production: &Production,
    taken: &Taken,
    plan: &TablePlan,
    phases: &mut Phases,
) -> Result<Loaded> {
    tokio::select! {
        loaded = Box::pin(transaction::load(job, side, &production.session, taken, plan, phases)) => loaded,
        () = job.cancel.cancelled() => Err(ended_by_signal()),
    }
}

/// Lets go of everything, says who is in the way, and leaves production to itself for a while.
async fn pause(job: &Job<'_>, production: Production, taken: &Taken, error: Error) -> Result<Production> {
    let span = job.request.lock_timeout.saturating_mul(4).max(Duration::from_millis(100));
    let error = explain_lock(&production, taken, error).await;
    production.session.give_up().await;
    let Production { info, session, system, major } = production;
    drop(session);
    let why = error.with_hint();
    job.progress.note(&format!("{why}; everything is let go of, and tried again in {}", human::span(span)));
    tokio::select! {
        () = tokio::time::sleep(span) => {}
        () = job.cancel.cancelled() => return Err(ended_by_signal()),
    }
    Production::known(info, system, major).await.map_err(|e| e.while_doing(UNCHANGED))
}

async fn explain_lock(production: &Production, taken: &Taken, error: Error) -> Error {
    let mut tables: Vec<TableName> = taken.trees.iter().map(|t| t.asked.clone()).collect();
    tables.extend(taken.foreign_keys.iter().flat_map(|k| [k.table.clone(), k.references.clone()]));
    tables.sort();
    tables.dedup();
    let ours = production.session.backend_pid();
    foreign_keys::explain_lock(error, production.another().await.ok(), ours, &tables).await
}

/// An error before the commit, with what it means for production.
async fn explained(job: &Job<'_>, production: &Production, taken: &Taken, error: Error) -> Error {
    let session = &production.session;
    let error = match error.code() {
        Code::NotReady => error.hint(rights_hint(session)),
        Code::Busy => explain_lock(production, taken, error).await,
        Code::Cancelled => return error,
        _ => error,
    };
    // The server would notice by itself; like this the locks are free at once.
    session.give_up().await;
    job.progress.note("rolled back");
    error.while_doing(UNCHANGED).see("table-dropped-or-damaged.md")
}

fn commit_failed(error: Error) -> Error {
    if error.code() != Code::Connect {
        return error.while_doing(UNCHANGED);
    }
    error
        .while_doing("the connection was lost while the commit was under way: it was done or it was not")
        .hint("look whether the rows are there; if they are not, run the same command again")
}
