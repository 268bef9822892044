//! The diary of jobs: every run, written before it begins and after it ends, and per job the memory that the scheduler
//! decides with. A run that is begun and not ended when an agent starts died with the one before.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::State;
use crate::agent::board::{JobRun, RunOutcome};
use crate::agent::scheduler::{Memory, Retry};
use crate::error::Result;
use crate::model::{JobName, Timestamp};

pub(super) const TABLES: &str = "
    CREATE TABLE job_runs (
        id INTEGER PRIMARY KEY,
        job TEXT NOT NULL,
        cause TEXT NOT NULL,
        slot TEXT,
        attempt INTEGER NOT NULL,
        started_at TEXT NOT NULL,
        finished_at TEXT,
        outcome TEXT,
        text TEXT NOT NULL DEFAULT '',
        backup TEXT,
        bytes_raw INTEGER,
        bytes_stored INTEGER
    ) STRICT;
    CREATE INDEX job_runs_of_job ON job_runs (job, id);
    CREATE TABLE job_memory (
        job TEXT PRIMARY KEY,
        schedule TEXT NOT NULL,
        handled_to TEXT NOT NULL,
        retry_slot TEXT,
        retry_attempt INTEGER,
        retry_at TEXT,
        retry_after_ms INTEGER
    ) STRICT";

/// Of one job; older ones are forgotten.
const RUNS_KEPT: u32 = 1000;

/// Why a run was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    Schedule,
    /// A scheduled time that passed while no agent ran, or that the clock jumped over.
    CatchUp,
    Retry,
    /// `pgkeep jobs run`.
    Manual,
    /// WAL was lost or damaged.
    Damage,
}

impl Cause {
    const ALL: [Self; 5] = [Self::Schedule, Self::CatchUp, Self::Retry, Self::Manual, Self::Damage];
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::CatchUp => "catch-up",
            Self::Retry => "retry",
            Self::Manual => "manual",
            Self::Damage => "damage",
        }
    }
}

/// A run that begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRun {
    pub job: JobName,
    pub cause: Cause,
    /// The scheduled time that it is for.
    pub slot: Option<Timestamp>,
    /// 1 for the first try.
    pub attempt: u32,
    pub started_at: Timestamp,
}

/// A line of the diary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiaryRun {
    pub cause: Cause,
    pub scheduled_for: Option<Timestamp>,
    pub attempt: u32,
    #[serde(flatten)]
    pub run: JobRun,
}

/// A run that nobody ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abandoned {
    pub job: JobName,
    pub slot: Option<Timestamp>,
    pub attempt: u32,
}

/// What the board is told about a job's past.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Past {
    pub last: Option<JobRun>,
    pub last_success_at: Option<Timestamp>,
    pub failures_in_a_row: u32,
    pub earlier_bytes: Vec<u64>,
}

/// Writes that a run begins; its scheduled time is thereby handled.
pub fn begin(state: &State, run: &NewRun) -> Result<i64> {
    state.with(|connection| {
        let tx = connection.transaction()?;
        let sql = "INSERT INTO job_runs (job, cause, slot, attempt, started_at) VALUES (?1, ?2, ?3, ?4, ?5)";
        let slot = run.slot.map(text);
        tx.execute(
            sql,
            params![run.job.as_str(), run.cause.as_str(), slot, run.attempt, text(run.started_at)],
        )?;
        let id = tx.last_insert_rowid();
        if let Some(slot) = slot {
            let sql =
                "UPDATE job_memory SET handled_to = max(handled_to, ?2), retry_slot = NULL WHERE job = ?1";
            tx.execute(sql, params![run.job.as_str(), slot])?;
        }
        let sql = "DELETE FROM job_runs WHERE job = ?1 AND id <=
                   (SELECT id FROM job_runs WHERE job = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)";
        tx.execute(sql, params![run.job.as_str(), RUNS_KEPT])?;
        tx.commit()?;
        Ok(id)
    })
}

/// Writes how it ended, and when it is tried again.
pub fn end(state: &State, id: i64, job: &JobName, run: &JobRun, retry: Option<&Retry>) -> Result<()> {
    state.with(|connection| {
        let tx = connection.transaction()?;
        let sql =
            "UPDATE job_runs SET started_at = ?2, finished_at = ?3, outcome = ?4, text = ?5, backup = ?6,
                   bytes_raw = ?7, bytes_stored = ?8 WHERE id = ?1";
        tx.execute(
            sql,
            params![
                id,
                text(run.started_at),
                text(run.finished_at),
                outcome_text(run.outcome),
                run.text,
                run.backup,
                bytes(run.bytes_raw),
                bytes(run.bytes_stored)
            ],
        )?;
        match retry {
            Some(retry) => write_retry(&tx, job, retry)?,
            // What was done needs no other try, whoever asked for it.
            None if run.outcome == RunOutcome::Done => forget_retry(&tx, job)?,
            None => {}
        }
        tx.commit()
    })
}

/// The same for a line that stands already.
pub fn begin_again(state: &State, id: i64, run: &NewRun) -> Result<()> {
    state.with(|connection| {
        let tx = connection.transaction()?;
        let sql = "UPDATE job_runs SET cause = ?2, attempt = ?3, started_at = ?4, finished_at = NULL, outcome = NULL,
                   text = '' WHERE id = ?1";
        tx.execute(sql, params![id, run.cause.as_str(), run.attempt, text(run.started_at)])?;
        let sql = "UPDATE job_memory SET retry_slot = NULL WHERE job = ?1";
        tx.execute(sql, [run.job.as_str()])?;
        tx.commit()
    })
}

/// A line that needs no run.
pub fn note(state: &State, new: &NewRun, run: &JobRun) -> Result<()> {
    let id = begin(state, new)?;
    end(state, id, &new.job, run, None)
}

/// The last line of this scheduled time, if it says that another host is at it: it is written anew instead of adding a
/// line at each look.
pub fn elsewhere(state: &State, job: &JobName, slot: Timestamp) -> Result<Option<i64>> {
    state.with(|connection| {
        let sql = "SELECT id, slot, outcome FROM job_runs WHERE job = ?1 ORDER BY id DESC LIMIT 1";
        let last = connection.query_row(sql, [job.as_str()], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?, row.get::<_, Option<String>>(2)?))
        });
        let last = last.optional()?;
        let ours = |outcome: &str| outcome == outcome_text(RunOutcome::Elsewhere);
        Ok(last.and_then(|(id, of, outcome)| {
            (of == Some(text(slot)) && outcome.as_deref().is_some_and(ours)).then_some(id)
        }))
    })
}

/// Runs without an end, which are thereby failed.
pub fn abandon_open(state: &State, now: Timestamp, why: &str) -> Result<Vec<Abandoned>> {
    state.with(|connection| {
        let tx = connection.transaction()?;
        let open = {
            let mut statement =
                tx.prepare("SELECT job, slot, attempt FROM job_runs WHERE finished_at IS NULL ORDER BY id")?;
            let rows = statement.query_map([], |row| {
                Ok(Abandoned { job: name(row, 0)?, slot: moment(row, 1)?, attempt: row.get(2)? })
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()?
        };
        let sql =
            "UPDATE job_runs SET finished_at = ?1, outcome = 'failed', text = ?2 WHERE finished_at IS NULL";
        tx.execute(sql, params![text(now), why])?;
        tx.commit()?;
        Ok(open)
    })
}

/// What the scheduler remembers of a job whose schedule is this; None for one that it does not know so.
pub fn memory(state: &State, job: &JobName, schedule: &str) -> Result<Option<Memory>> {
    state.with(|connection| {
        let sql = "SELECT handled_to, retry_slot, retry_attempt, retry_at, retry_after_ms FROM job_memory
                   WHERE job = ?1 AND schedule = ?2";
        let read = connection.query_row(sql, [job.as_str(), schedule], |row| {
            let retry = match (moment(row, 1)?, moment(row, 3)?) {
                (Some(slot), Some(at)) => Some(Retry {
                    slot,
                    attempt: row.get(2)?,
                    at,
                    after: Duration::from_millis(u64::try_from(row.get::<_, i64>(4)?).unwrap_or(0)),
                }),
                _ => None,
            };
            let handled_to = moment(row, 0)?.ok_or_else(|| unreadable(0, "a time"))?;
            Ok(Memory { handled_to, retry })
        });
        read.optional()
    })
}

pub fn remember(state: &State, job: &JobName, schedule: &str, memory: &Memory) -> Result<()> {
    state.with(|connection| {
        let tx = connection.transaction()?;
        let sql = "INSERT INTO job_memory (job, schedule, handled_to) VALUES (?1, ?2, ?3)
                   ON CONFLICT (job) DO UPDATE SET schedule = ?2, handled_to = ?3, retry_slot = NULL";
        tx.execute(sql, params![job.as_str(), schedule, text(memory.handled_to)])?;
        if let Some(retry) = &memory.retry {
            write_retry(&tx, job, retry)?;
        }
        tx.commit()
    })
}

/// Plans another try.
pub fn plan_retry(state: &State, job: &JobName, retry: &Retry) -> Result<()> {
    state.with(|connection| write_retry(connection, job, retry))
}

/// A job's runs, the newest first.
pub fn history(state: &State, job: &JobName, count: u32) -> Result<Vec<DiaryRun>> {
    state.with(|connection| {
        let sql = "SELECT started_at, finished_at, outcome, text, backup, bytes_raw, bytes_stored, cause, slot, attempt
                   FROM job_runs WHERE job = ?1 AND finished_at IS NOT NULL ORDER BY id DESC LIMIT ?2";
        let mut statement = connection.prepare_cached(sql)?;
        let rows = statement.query_map(params![job.as_str(), count], |row| {
            let cause: String = row.get(7)?;
            let cause = Cause::ALL.into_iter().find(|known| known.as_str() == cause);
            Ok(DiaryRun {
                cause: cause.ok_or_else(|| unreadable(7, "a cause"))?,
                scheduled_for: moment(row, 8)?,
                attempt: row.get(9)?,
                run: job_run(row)?,
            })
        })?;
        rows.collect()
    })
}

/// What became of the newest runs.
pub fn past(state: &State, job: &JobName) -> Result<Past> {
    /// Sizes to compare the last one with.
    const SIZES: usize = 5;
    let runs = history(state, job, 50)?;
    let mut runs = runs.into_iter().map(|diary| diary.run).filter(|run| run.outcome != RunOutcome::Skipped);
    let last = runs.next();
    let rest: Vec<JobRun> = runs.collect();
    let all = || last.iter().chain(&rest);
    let failures = all().take_while(|run| run.outcome == RunOutcome::Failed).count();
    let done = |run: &&JobRun| matches!(run.outcome, RunOutcome::Done | RunOutcome::Finding);
    let earlier_bytes = rest.iter().filter(done).filter_map(|run| run.bytes_raw).take(SIZES).collect();
    Ok(Past {
        // Another host's success is the job's success.
        last_success_at: all().find(|run| run.outcome != RunOutcome::Failed).map(|run| run.finished_at),
        failures_in_a_row: u32::try_from(failures).unwrap_or(u32::MAX),
        earlier_bytes,
        last,
    })
}

fn write_retry(connection: &Connection, job: &JobName, retry: &Retry) -> rusqlite::Result<()> {
    let sql = "UPDATE job_memory SET retry_slot = ?2, retry_attempt = ?3, retry_at = ?4, retry_after_ms = ?5
               WHERE job = ?1";
    let after = i64::try_from(retry.after.as_millis()).unwrap_or(i64::MAX);
    let values = params![job.as_str(), text(retry.slot), retry.attempt, text(retry.at), after];
    connection.execute(sql, values).map(drop)
}

fn forget_retry(connection: &Connection, job: &JobName) -> rusqlite::Result<()> {
    connection.execute("UPDATE job_memory SET retry_slot = NULL WHERE job = ?1", [job.as_str()]).map(drop)
}

/// With microseconds always, so that texts sort as the moments do.
pub(super) fn text(at: Timestamp) -> String {
    at.0.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

fn bytes(count: Option<u64>) -> Option<i64> {
    count.and_then(|count| i64::try_from(count).ok())
}

fn job_run(row: &Row<'_>) -> rusqlite::Result<JobRun> {
    let outcome: String = row.get(2)?;
    let known = OUTCOMES.into_iter().find(|known| outcome_text(*known) == outcome);
    Ok(JobRun {
        started_at: moment(row, 0)?.ok_or_else(|| unreadable(0, "a time"))?,
        finished_at: moment(row, 1)?.ok_or_else(|| unreadable(1, "a time"))?,
        outcome: known.ok_or_else(|| unreadable(2, "an outcome"))?,
        text: row.get(3)?,
        backup: row.get(4)?,
        bytes_raw: row.get::<_, Option<i64>>(5)?.and_then(|bytes| u64::try_from(bytes).ok()),
        bytes_stored: row.get::<_, Option<i64>>(6)?.and_then(|bytes| u64::try_from(bytes).ok()),
    })
}

const OUTCOMES: [RunOutcome; 5] =
    [RunOutcome::Done, RunOutcome::Finding, RunOutcome::Failed, RunOutcome::Elsewhere, RunOutcome::Skipped];

const fn outcome_text(outcome: RunOutcome) -> &'static str {
    match outcome {
        RunOutcome::Done => "done",
        RunOutcome::Finding => "finding",
        RunOutcome::Failed => "failed",
        RunOutcome::Elsewhere => "elsewhere",
        RunOutcome::Skipped => "skipped",
    }
}

pub(super) fn moment(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| text.parse().map_err(|_| unreadable(column, "a time"))).transpose()
}

fn name(row: &Row<'_>, column: usize) -> rusqlite::Result<JobName> {
    let text: String = row.get(column)?;
    JobName::parse(&text).ok_or_else(|| unreadable(column, "a job's name"))
}

pub(super) fn unreadable(column: usize, what: &str) -> rusqlite::Error {
    let cause = format!("this is not {what}").into();
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, cause)
}

#[cfg(test)]
mod tests;
