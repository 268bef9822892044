//! Carries a plan out: stop → save WAL → move aside → lay out → make durable → complete → start and follow → prove.
//!
//! Killed at any step, the next run carries on: up to the move nothing has changed but that the server is down; from the
//! move on the old directories have their new names for good; from the marker on what lies there is a leftover that the
//! next run removes; `pg_control` comes last, so PostgreSQL never starts on half of it. After the start the plan file
//! lets recovery go on without us.

use std::path::PathBuf;
use std::time::Duration;

use super::estimate::Measured;
use super::fetch_packs::{self, Fetch, PartFetch};
use super::lay_out::{self, SideFiles};
use super::part::Part;
use super::place::DirectoryState;
use super::plan::{Commit, RestorePlan};
use super::prepare::{self, Prepared, Task};
use super::recover;
use super::report::{Phases, Report};
use super::wal_source::Files;
use super::{aside, config_files, finish, marker, save_wal, scan, settings, survey};
use crate::error::{Code, Error, Result};
use crate::model::{SegmentSize, Target};
use crate::repository::Repository;
use crate::repository::continuity;
use crate::repository::index::BackupIndex;
use crate::util::failpoint;
use crate::util::human;

/// How long PostgreSQL may take to stop.
const STOP_WITHIN: Duration = Duration::from_mins(30);
/// Somebody who starts it again does so within this (DESIGN: ten seconds).
const WATCH: Duration = Duration::from_secs(10);

/// What became of it.
pub struct Executed {
    pub plan: RestorePlan,
    pub report: Report,
    /// The report for people.
    pub written: PathBuf,
}

pub async fn run(task: &Task<'_>, mut prepared: Prepared) -> Result<Executed> {
    let mut phases = Phases::start();
    if prepared.plan.place.in_place {
        stop(task, &prepared).await?;
        phases.done("stop PostgreSQL");
        failpoint::reach("restore-after-stop")?;
        save(task, &mut prepared).await?;
        phases.done("save WAL");
        failpoint::reach("restore-after-save")?;
    }
    for step in &prepared.plan.place.moves {
        aside::carry_out(step).await?;
        failpoint::reach("restore-after-first-move")?;
    }
    failpoint::reach("restore-after-aside")?;
    let left = survey::state(&task.data_directory)?;
    if !matches!(left, DirectoryState::Absent | DirectoryState::Empty | DirectoryState::Leftover { .. }) {
        return Err(Error::new(Code::NotEmpty, "something has come into the data directory meanwhile")
            .at(task.data_directory.display())
            .hint("find out what writes there, then run the restore again"));
    }
    lay_out::prepare(&prepared.plan, &task.owner).await?;
    phases.done("move aside");

    task.progress.phase("fetching the base backup");
    let laid = fetch_packs::run(fetch(task, &prepared)?).await?;
    task.progress.note(&format!("{} files, {}", laid.files, human::size(laid.bytes)));
    failpoint::reach("restore-after-packs")?;
    phases.done("fetch the base backup");

    let notes = finish_directory(task, &prepared).await?;
    phases.done("make durable");
    let plan = prepared.plan.clone();
    let mut report = Report::new(&plan);
    report.notes.extend(notes);
    if plan.server.start {
        report.ended = recover::run(task, &prepared, &mut phases).await?;
    }
    let finished = finish::run(task, &prepared, &mut report).await;
    phases.done("prove");
    report.phases = phases.finish();
    // What a part takes says nothing of what the whole will take.
    let came_to_its_end = !matches!(report.ended, recover::Ended::NotStarted | recover::Ended::Following);
    if came_to_its_end && prepared.part.is_none() {
        let estimated = plan.estimate.map(|estimate| estimate.seconds);
        report.measured = Some(Measured::of(&plan, prepared.seconds, &report.phases, estimated));
    }
    if let Err(e) = &finished {
        report.notes.push(e.to_string());
    }
    let written = finish::write_report(task, &prepared, &mut report).await?;
    finished?;
    Ok(Executed { plan, report, written })
}

async fn stop(task: &Task<'_>, prepared: &Prepared) -> Result<()> {
    let Some(service) = &prepared.service else { return Ok(()) };
    service.refuse_other_managers()?;
    if service.running().await?.is_none() {
        return Ok(());
    }
    task.progress.phase("stopping PostgreSQL");
    service.stop(STOP_WITHIN).await?;
    task.progress.note("stopped; watching that nobody starts it again");
    service.watch_stays_down(WATCH).await
}

/// Saves WAL, and takes it into the plan: for `latest` it is what is recovered to, for other targets they may lie in it.
async fn save(task: &Task<'_>, prepared: &mut Prepared) -> Result<()> {
    let same = matches!(prepared.plan.place.found, DirectoryState::Cluster { .. });
    if !same || task.request.standby {
        return Ok(());
    }
    task.progress.phase("saving WAL that only this host has");
    let (system, size) = (prepared.plan.system_identifier, prepared.held.record.base()?.wal_segment_bytes);
    let (wal, saved) = save_wal::run(task, prepared, system, size).await?;
    let planned_local = !prepared.local.is_empty();
    prepared.wal = wal;
    if saved.is_empty() && !planned_local {
        return Ok(());
    }
    // The files have become objects, and the last one may have grown since the plan was made.
    let reach = continuity::reach(&prepared.wal.listing, size, &prepared.path, prepared.located.backup.start);
    if reach.end < prepared.located.needed_to {
        return Err(Error::internal("WAL that the plan needs was not saved"));
    }
    prepared.located.reach = reach;
    if task.request.target == Target::Latest {
        move_the_end(prepared, task, size).await?;
    }
    let patches = prepared.plan.recovery.take().map(|r| r.patches).unwrap_or_default();
    let mut recovery = prepare::recovery_plan(
        task,
        &prepared.archive,
        &prepared.wal,
        &prepared.chosen,
        &prepared.path,
        &prepared.located,
        system,
        size,
    );
    recovery.patches = patches;
    prepared.plan.recovery = Some(recovery);
    Ok(())
}

/// The latest is by now what the server wrote until it was down.
async fn move_the_end(prepared: &mut Prepared, task: &Task<'_>, size: SegmentSize) -> Result<()> {
    let source = Files { wal: &prepared.wal, local: &[], chosen: &prepared.chosen, size };
    let files = scan::way(&prepared.located.reach, size);
    let tail = scan::tail(&source, &files, size, prepared.plan.system_identifier).await?;
    let Some(tail) = tail else { return Ok(()) };
    let (located, plan) = (&mut prepared.located, &mut prepared.plan);
    located.end = tail.end.max(located.end);
    located.needed_to = located.end;
    located.archive_end = located.end;
    located.last_record = tail.last_record.or(located.last_record);
    located.last_kept = tail.last_commit.or(located.last_kept);
    plan.target.end = located.end;
    plan.target.last_kept = located.last_kept.map(Commit::from);
    plan.wal.to = located.end;
    (plan.lost.from, plan.lost.to) = (located.end, located.end);
    if let (Some(_), Some(record)) = (plan.server.settings.get("recovery_target_lsn"), located.last_record) {
        plan.server.settings.insert("recovery_target_lsn".to_owned(), record.to_string());
    }
    task.progress.note(&format!("the archive now reaches {}", located.end));
    Ok(())
}

fn fetch(task: &Task<'_>, prepared: &Prepared) -> Result<Fetch> {
    let repositories: Vec<Repository> = prepared
        .held
        .repositories
        .iter()
        .map(|name| prepared.archive.repository(name).cloned())
        .collect::<Result<_>>()?;
    Ok(Fetch {
        cluster: task.cluster.name.clone(),
        record: prepared.held.record.clone(),
        repositories,
        identities: task.identities.clone(),
        data_directory: task.data_directory.clone(),
        workers: task.config.restore.workers,
        part: prepared.part.as_ref().map(|part| part_fetch(part, &prepared.index)),
        progress: std::sync::Arc::clone(&task.progress),
    })
}

fn part_fetch(part: &Part, index: &BackupIndex) -> PartFetch {
    PartFetch { part: part.clone(), packs: part.packs(index), hollow: part.hollow(index) }
}

/// Everything between the last member and a directory that can be started.
async fn finish_directory(task: &Task<'_>, prepared: &Prepared) -> Result<Vec<String>> {
    let plan = &prepared.plan;
    let mut notes = Vec::new();
    let side = if plan.place.in_place { None } else { Some(side_files(task, prepared, &mut notes)) };
    lay_out::equip(plan, side.as_ref())?;
    if plan.place.in_place {
        notes.extend(config_files::restore(task, prepared).await?);
    }
    task.progress.phase("making it durable");
    let syncing = plan.clone();
    tokio::task::spawn_blocking(move || lay_out::make_durable(&syncing))
        .await
        .map_err(|e| Error::internal("a worker died").because(e))??;
    failpoint::reach("restore-before-control")?;
    lay_out::complete(&task.data_directory)?;
    Ok(notes)
}

fn side_files(task: &Task<'_>, prepared: &Prepared, notes: &mut Vec<String>) -> SideFiles {
    let setting = prepared.index.settings.get("shared_preload_libraries").cloned().unwrap_or_default();
    let tools = &prepared.tools;
    let (preload, left_out) = settings::preload(&setting, |name| tools.has_library(name));
    for library in left_out {
        notes.push(format!("shared_preload_libraries without {library}"));
    }
    let outside = super::tablespaces::directories(&prepared.plan.tablespaces)
        .map(|(_, path, _)| path.clone())
        .filter(|path| !path.starts_with(&task.data_directory))
        .collect();
    SideFiles {
        preload,
        asked: prepared.located.asked,
        kind: task.side,
        hollow: prepared.part.is_some(),
        marker: marker::Side {
            cluster: task.cluster.name.clone(),
            system_identifier: prepared.plan.system_identifier,
            pg_major: prepared.plan.pg_major,
            bin_directory: tools.bin_dir.clone(),
            log_file: task.data_directory.join(recover::SIDE_LOG),
            outside,
        },
    }
}
