//! The nightly restore test: what integrity cannot find, found before anybody needs the backup.
//!
//! Three parts, each for itself, so that one that fails or has no room does not keep the others from being made:
//! 1. the latest base backup to a random second since the last proof, as a drill does it (`verify::drill`);
//! 2. the latest dump, database by database, into a fresh cluster of its own: rows counted and held against those that were
//!    counted in the dump's own stream, and the user's assertions asked ([`dumps`]);
//! 3. every table of the day's exports, loaded into that cluster and counted ([`exports`]).
//!
//! Where the scratch directory has no room for a part, that part is unproved, and so is the whole test: never passed.
//! What is not there at all (no dump was ever taken) is no part of the test, and a note says so.

mod cluster;
mod dumps;
mod exports;

use super::drill::{self, Drill};
use super::report::{Check, Report};
use super::room;
use crate::codec::Identities;
use crate::error::{Code, Error, Result};
use crate::model::{BackupKind, PgMajor};
use crate::repository::access;
use crate::repository::logical_index::LogicalIndex;
use crate::repository::signature::Verdict;
use crate::restore::gather::{Archive, Held};
use crate::restore::scratch;
use crate::util::clock::Stopwatch;
use crate::util::failpoint;
use crate::util::human;

/// What `initdb` writes, with the WAL of a load.
const FRESH_CLUSTER: u64 = 300 << 20;

/// The report; an error only where nothing can be said of any backup.
pub async fn run(test: &Drill<'_>) -> Result<Report> {
    let mut report = match drill::run(test).await {
        Ok(report) => report,
        Err(e) if e.code() == Code::NoSpace => {
            let mut report = Report::new(test.kind, &test.cluster.name, test.only, test.clock.now());
            report.checks.push(
                Check::new("base backup", "restored to a random second", "").essential().unproved(said(&e)),
            );
            report
        }
        Err(e) => return Err(e),
    };
    let work = async {
        match find(test, &mut report).await? {
            Some(found) => Box::pin(restore(test, found, &mut report)).await,
            None => Ok(()),
        }
    };
    let done = tokio::select! {
        done = work => done,
        () = test.cancel.cancelled() => {
            Err(drill::ended_by_signal(test.kind))
        }
    };
    // Ended in the middle, its place is a leftover.
    scratch::remove_leftovers(&test.scratch).await?;
    match done {
        Ok(()) => {}
        Err(e) if e.code() == Code::Cancelled => return Err(e),
        Err(e) => {
            let check = Check::new("dumps and exports", "restored", "").essential();
            let room = e.code() == Code::NoSpace;
            report.checks.push(if room { check.unproved(said(&e)) } else { check.found(false, said(&e)) });
        }
    }
    report.finished_at = test.clock.now().max(report.started_at);
    report.judge();
    Ok(report)
}

fn said(error: &Error) -> String {
    error.with_hint()
}

/// What is restored into the fresh cluster.
struct Found {
    archive: Archive,
    dump: Option<Held>,
    exports: Vec<Held>,
    identities: Option<Identities>,
    major: PgMajor,
}

/// The latest dump and the day's exports; none where there are none, or where there is no room for any.
async fn find(test: &Drill<'_>, report: &mut Report) -> Result<Option<Found>> {
    test.progress.phase("looking at the dumps and exports");
    let wanted = |kind: BackupKind| matches!(kind, BackupKind::Dump | BackupKind::Tables);
    let (config, name) = (test.config, &test.cluster.name);
    let archive = Archive::load_kinds(config, name, test.only, &test.trusted, wanted).await?;
    let identities = access::metadata_identities(config, test.identities.as_ref())?;
    let dump = newest(&archive, BackupKind::Dump).last().cloned();
    let exports = exports::of_the_day(newest(&archive, BackupKind::Tables));
    if dump.is_none() {
        report.notes.push("there is no dump to restore".to_owned());
    }
    let major = dump.iter().chain(&exports).find_map(|held| held.record.major());
    let Some(major) = major else { return Ok(None) };
    let free = room::available(&test.scratch)?;
    if free >= test.config.proof.reserve.saturating_add(FRESH_CLUSTER) {
        return Ok(Some(Found { archive, dump, exports, identities, major }));
    }
    for held in dump.iter().chain(&exports) {
        let kind = if held.record.kind == BackupKind::Dump { "dump" } else { "export" };
        let check = Check::new(&format!("{kind} {}", held.record.id), "restored and counted", "");
        let free = human::size(free);
        let why = format!("the scratch directory has {free} left, and the reserve is to be left free");
        report.checks.push(check.essential().unproved(why));
    }
    Ok(None)
}

async fn restore(test: &Drill<'_>, found: Found, report: &mut Report) -> Result<()> {
    let Found { archive, dump, exports, identities, major } = found;
    let watch = Stopwatch::start();
    let cluster = cluster::make(test, major).await?;
    report.step("make a fresh cluster", watch, false);
    failpoint::reach("test-after-cluster")?;
    let work = async {
        if let Some(dump) = &dump {
            let watch = Stopwatch::start();
            dumps::restore(test, &archive, dump, identities.as_ref(), &cluster, report).await?;
            report.step("restore the dump", watch, false);
            failpoint::reach("test-after-dump")?;
        }
        let watch = Stopwatch::start();
        for export in &exports {
            exports::load(test, &archive, export, identities.as_ref(), &cluster, report).await?;
        }
        if !exports.is_empty() {
            report.step("load the exports", watch, false);
            failpoint::reach("test-after-exports")?;
        }
        Ok(())
    };
    let done = tokio::select! {
        done = Box::pin(work) => done,
        short = room::watch(vec![test.scratch.clone()], test.config.proof.reserve) => Err(short),
    };
    let removed = cluster.remove().await;
    done.and(removed)
}

/// The index of a backup; one that cannot be read is a failed check, and None.
async fn index_of(
    archive: &Archive,
    held: &Held,
    identities: Option<&Identities>,
    of: &str,
    report: &mut Report,
) -> Option<LogicalIndex> {
    let read = archive.index(held, identities, LogicalIndex::read).await;
    let check = |e: &Error| Check::new(of, "its index can be read", "").essential().found(false, said(e));
    read.map_err(|e| report.checks.push(check(&e))).ok()
}

/// Those that are trusted, the oldest first, by the database's clock.
fn newest(archive: &Archive, kind: BackupKind) -> Vec<Held> {
    let fits = |held: &&Held| held.record.kind == kind && held.trust == Verdict::Trusted;
    let mut found: Vec<Held> = archive.backups.values().filter(fits).cloned().collect();
    found.sort_by_key(|held| held.record.logical.as_ref().map(|logical| logical.snapshot_at));
    found
}
