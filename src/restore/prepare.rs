//! From the request to the plan: asks the repositories and looks at the place, then lets the pure parts decide. Nothing
//! is written (promise 8).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::before_fork::Cut;
use super::choose::{self, Candidate};
use super::estimate::Estimate;
use super::gather::{Archive, Held, Wal};
use super::local_wal::{self, LocalFile};
use super::locate::{Located, Search};
use super::part::{self, Part, Parts};
use super::place::{self, DirectoryState, PlaceFacts};
use super::plan::{Found, RestorePlan};
use super::request::{Place, Request};
use super::scan::{self, WayFile};
use super::settings::SideKind;
use super::wal_source::Files;
use super::{estimate, index, past, survey, tablespaces};
use crate::archive::fork::{self, Chosen};
use crate::archive::source::Source;
use crate::codec::Identities;
use crate::config::{ClusterConfig, Config};
use crate::error::{Code, Error, Result};
use crate::model::{PgMajor, RepoName, SegmentSize, SystemId, Target, TargetTimeline, TimelineId, Timestamp};
use crate::postgres::history::TimelinePath;
use crate::postgres::privilege::Owner;
use crate::postgres::service::Service;
use crate::postgres::tools::Tools;
use crate::repository::access;
use crate::repository::continuity::Reach;
use crate::repository::index::BackupIndex;
use crate::repository::record::BackupRecord;
use crate::repository::recovery_plan::RecoveryPlan;
use crate::repository::signature::PublicHostKey;
use crate::util::clock::Stopwatch;
use crate::util::priority::Priority;
use crate::util::progress::Progress;

/// What a restore is given.
pub struct Task<'a> {
    pub config: &'a Config,
    pub cluster: &'a ClusterConfig,
    pub only: Option<&'a RepoName>,
    pub request: &'a Request,
    /// Signers that are believed for this once (`--trust`).
    pub trusted: Vec<PublicHostKey>,
    /// Opens data; loaded before root was given up.
    pub identities: Option<Identities>,
    /// `restore_command`.
    pub fetch_command: String,
    pub owner: Owner,
    pub data_directory: PathBuf,
    pub now: Timestamp,
    pub progress: Arc<dyn Progress>,
    /// Of PostgreSQL's programs, the restored server among them.
    pub priority: Priority,
    /// Of the server, where it is a side instance.
    pub side: SideKind,
    /// Where a part will do, if there is no room for the whole.
    pub parts: Option<Parts>,
}

/// The plan, and what its execution goes on with.
pub struct Prepared {
    pub plan: RestorePlan,
    /// Where there was no room for the whole; then the plan is of this part.
    pub part: Option<Part>,
    pub archive: Archive,
    pub wal: Wal,
    pub local: Vec<LocalFile>,
    pub chosen: Chosen,
    pub path: TimelinePath,
    pub located: Located,
    pub held: Held,
    pub index: BackupIndex,
    pub tools: Tools,
    /// For a restore in place.
    pub service: Option<Service>,
    /// How long it took to get here.
    pub seconds: f64,
}

pub async fn run(task: &Task<'_>) -> Result<Prepared> {
    if task.request.place == Place::InPlace {
        // It archives what pg_wal alone holds: whoever has not said to whom is told before the server is stopped.
        task.config.require_encryption()?;
    }
    let watch = Stopwatch::start();
    task.progress.phase("looking at the archive");
    let archive = Archive::load(task.config, &task.cluster.name, task.only, &task.trusted).await?;
    let state = survey::state(&task.data_directory)?;
    let system = which_system(task, &archive, &state)?;
    let size = segment_size(&archive, system)?;
    let mut wal = archive.wal(system, task.identities.clone()).await?;
    let local = local(task, &mut wal, &state, system, size)?;
    let candidates = archive.candidates();
    let mut warnings = archive.notes.clone();

    task.progress.phase("finding the target in WAL");
    let sought = seek(task, &archive, &wal, &local, &candidates, system, size).await?;
    let Sought { path, asked, chosen, mut located, passed_over } = sought;
    warnings.extend(later_elsewhere(&wal, &local, &chosen, &asked, &located, system, size).await?);
    if task.request.zone_assumed {
        warnings.push("the target time carried no zone and was read as UTC".to_owned());
    }

    let held = chosen_backup(&archive, &located, &mut warnings)?;
    let index = archive.index(&held, task.identities.as_ref(), BackupIndex::read).await?;
    located.asked = index::more_than_had(located.asked, &index);
    let major = held.record.major().unwrap_or(PgMajor(0));
    let tools = Tools::find(major, task.cluster.bin_directory.as_deref(), running_program(task).as_deref())
        .await?
        .at(task.priority);
    let (place, service) = look(task, &state, &held, &located, &index, &tools).await?;
    refuse(task, system, &held.record, &place, service.as_ref())?;
    let recovery = recovery_plan(task, &archive, &wal, &chosen, &path, &located, system, size);
    let repository = held.repositories.first().cloned();
    let found = Found {
        id: format!("{}-{}", task.now.compact_seconds(), std::process::id()),
        now: task.now,
        cluster: task.cluster.name.clone(),
        located: &located,
        record: &held.record,
        repository: repository.ok_or_else(|| Error::internal("a backup without a repository"))?,
        passed_over,
        place: &place,
        recovery,
        only_in_pg_wal: local.iter().map(|f| f.bytes).sum(),
        fetch_command: task.fetch_command.clone(),
        primary_conninfo: task.cluster.primary.clone(),
        warnings,
    };
    let (mut plan, part) = part::plan(task.request, task.parts, &index, found)?;
    let seconds = watch.elapsed().as_secs_f64();
    if part.is_none() {
        plan.estimate = expected(task, &archive, &plan, seconds).await?;
    }
    Ok(Prepared {
        plan,
        part,
        archive,
        wal,
        local,
        chosen,
        path,
        located,
        held,
        index,
        tools,
        service,
        seconds,
    })
}

fn refuse(
    task: &Task<'_>,
    system: SystemId,
    record: &BackupRecord,
    place: &PlaceFacts,
    service: Option<&Service>,
) -> Result<()> {
    place::refuse(task.request, system, record.major().unwrap_or(PgMajor(0)), place)?;
    let Some(service) = service else { return Ok(()) };
    service.refuse_other_managers()?;
    survey::refuse_stale_targets(service)
}

fn chosen_backup(archive: &Archive, located: &Located, warnings: &mut Vec<String>) -> Result<Held> {
    let held = archive.backups.get(&located.backup.id).cloned();
    let held = held.ok_or_else(|| Error::internal("the chosen backup is not in the catalog"))?;
    if held.record.is_damaged() {
        warnings.push(format!("backup {} has damaged pages: what they held is lost", held.record.id));
    }
    Ok(held)
}

/// How long it will take, from how long earlier ones took.
async fn expected(
    task: &Task<'_>,
    archive: &Archive,
    plan: &RestorePlan,
    planned: f64,
) -> Result<Option<Estimate>> {
    let trust = access::trust_with(task.config, &task.trusted)?;
    let repositories = &archive.repositories;
    let (past, notes) = past::read(task.config, repositories, &task.cluster.name, &trust, task.now).await;
    for note in notes {
        tracing::warn!("{note}");
    }
    Ok(estimate::estimate(&past.measured, plan.backup.bytes_raw, plan.wal.bytes, Some(planned)))
}

/// Of the backup that was named, of the data directory that is replaced, else of the newest backup.
pub(super) fn which_system(task: &Task<'_>, archive: &Archive, state: &DirectoryState) -> Result<SystemId> {
    if let Some(id) = &task.request.backup {
        let held = archive.backups.get(id).ok_or_else(|| {
            Error::new(Code::NoBackup, "there is no such base backup").at(id).hint("`pgkeep list` shows them")
        })?;
        return Ok(held.record.system_identifier);
    }
    if let (Place::InPlace, DirectoryState::Cluster { system, .. }) = (&task.request.place, state)
        && archive.backups.values().any(|h| h.record.system_identifier == *system)
    {
        return Ok(*system);
    }
    archive.newest_system().ok_or_else(|| Error::new(Code::NoBackup, "there is no base backup"))
}

pub(super) fn segment_size(archive: &Archive, system: SystemId) -> Result<SegmentSize> {
    let mut of_system = archive.backups.values().filter(|h| h.record.system_identifier == system);
    let base = of_system.find_map(|h| h.record.base.as_ref());
    base.map(|b| b.wal_segment_bytes).ok_or_else(|| Error::new(Code::NoBackup, "there is no base backup"))
}

/// Adds what only this host's pg_wal holds to the listing, for a restore in place of the same cluster.
fn local(
    task: &Task<'_>,
    wal: &mut Wal,
    state: &DirectoryState,
    system: SystemId,
    size: SegmentSize,
) -> Result<Vec<LocalFile>> {
    let same = matches!(state, DirectoryState::Cluster { system: found, .. } if *found == system);
    if task.request.place != Place::InPlace || !same || task.request.standby {
        return Ok(Vec::new());
    }
    let files = local_wal::missing_from(&wal.listing, &task.data_directory.join("pg_wal"), size, system)?;
    wal.listing.merge(local_wal::as_listing(&files, &wal.root)?);
    local_wal::read_histories(wal, &files)?;
    Ok(files)
}

struct Sought {
    path: TimelinePath,
    /// The path that was asked for; the same, but where the recovery ends before its last timeline begins.
    asked: TimelinePath,
    chosen: Chosen,
    located: Located,
    passed_over: Vec<choose::PassedOver>,
}

async fn seek(
    task: &Task<'_>,
    archive: &Archive,
    wal: &Wal,
    local: &[LocalFile],
    candidates: &[Candidate],
    system: SystemId,
    size: SegmentSize,
) -> Result<Sought> {
    let request = task.request;
    let of_system: Vec<Candidate> = candidates.iter().filter(|c| c.system == system).cloned().collect();
    let timeline = immediate_timeline(request, &of_system).unwrap_or(request.timeline);
    let asked = choose::path(timeline, &wal.histories, &wal.listing, &of_system)?;
    let (mut path, mut cut, mut first) = (asked.clone(), None::<Cut>, None::<Located>);
    loop {
        let (mut fitting, passed_over) = fitting(request, candidates, system, &path, wal, size)?;
        if let Some(cut) = &cut {
            for (_, reach) in &mut fitting {
                *reach = cut.lengthen(reach.clone(), &wal.listing, size);
            }
        }
        let chosen = choose_contents(task, archive, wal, &path, &fitting, system, size).await?;
        let source = Files { wal, local, chosen: &chosen, size };
        let search = Search {
            // A standby goes on from its backup; where the archive ends is of no matter.
            target: if request.standby { &Target::Backup } else { &request.target },
            inclusion: request.inclusion,
            fitting: &fitting,
            named: request.backup.is_some(),
            system,
            size,
            source: &source,
            progress: &*task.progress,
        };
        let mut located = search.run().await?;
        match Cut::at(&path, located.end) {
            Some(found) if first.is_none() => {
                path = found.path(&wal.histories)?;
                (cut, first) = (Some(found), Some(located));
            }
            Some(_) => return Err(Error::internal("a path was cut twice")),
            None => {
                if let Some(first) = first {
                    // What is lost is what the path that was asked for holds.
                    located.first_left_out = first.first_left_out;
                    located.last_left_out = first.last_left_out;
                    located.archive_end = first.archive_end;
                }
                return Ok(Sought { path, asked, chosen, located, passed_over });
            }
        }
    }
}

/// `backup` ends with the backup's own WAL, on its own timeline.
fn immediate_timeline(request: &Request, of_system: &[Candidate]) -> Option<TargetTimeline> {
    if request.target != Target::Backup || request.timeline != TargetTimeline::Highest {
        return None;
    }
    let named = request.backup.as_ref().and_then(|id| of_system.iter().find(|c| c.id == *id));
    let good = |c: &&Candidate| c.untrusted.is_none() && c.page_errors == 0;
    let newest = || of_system.iter().filter(good).max_by_key(|c| (c.stop_time, c.stop));
    named.or_else(newest).map(|c| TargetTimeline::Id(c.timeline))
}

type Fitting = (Vec<(Candidate, Reach)>, Vec<choose::PassedOver>);

fn fitting(
    request: &Request,
    candidates: &[Candidate],
    system: SystemId,
    path: &TimelinePath,
    wal: &Wal,
    size: SegmentSize,
) -> Result<Fitting> {
    if let Some(id) = &request.backup {
        let one = choose::named(id, candidates, system, path, &wal.listing, size)?;
        return Ok((vec![one], Vec::new()));
    }
    let usable = choose::usable(candidates, system, path, &wal.listing, size);
    if usable.fitting.is_empty() {
        let reasons: Vec<String> =
            usable.passed_over.iter().map(|p| format!("{}: {}", p.id, p.reason)).collect();
        if usable.passed_over.iter().all(|p| p.reason.starts_with("untrusted")) {
            return Err(Error::new(Code::Untrusted, "no base backup is signed by a host that is trusted here")
                .at(reasons.join("; "))
                .hint("if you know the host that made them: --trust RW… for once, `[trust] hosts` in the configuration for good"));
        }
        return Err(Error::new(
            Code::NoBackup,
            format!("no base backup can be recovered along timeline {}", path.target()),
        )
        .at(reasons.join("; "))
        .hint(
            "`pgkeep window` shows what can be recovered on each timeline; `--timeline N` chooses another",
        ));
    }
    Ok((usable.fitting, usable.passed_over))
}

/// Decides between several contents of one name, on the longest way that is looked at.
pub(super) async fn choose_contents(
    task: &Task<'_>,
    archive: &Archive,
    wal: &Wal,
    path: &TimelinePath,
    fitting: &[(Candidate, Reach)],
    system: SystemId,
    size: SegmentSize,
) -> Result<Chosen> {
    let Some((_, longest)) = fitting.last().filter(|(_, reach)| !reach.forks.is_empty()) else {
        return Ok(Chosen::new());
    };
    let grace = Duration::from_secs(5);
    let source =
        Source::opened(&archive.repositories, &task.cluster.name, system, task.identities.clone(), grace);
    fork::choose_all(&source, &wal.listing, path, size, &longest.forks).await
}

/// Timelines that are not on the path and hold a later commit: the first thing that a person must know.
async fn later_elsewhere(
    wal: &Wal,
    local: &[LocalFile],
    chosen: &Chosen,
    path: &TimelinePath,
    located: &Located,
    system: SystemId,
    size: SegmentSize,
) -> Result<Vec<String>> {
    let source = Files { wal, local, chosen, size };
    let here = scan::tail(&source, &scan::way(&located.reach, size), size, system).await?;
    let last_here = here.and_then(|t| t.last_commit).map(|c| c.at);
    let mut warnings = Vec::new();
    let others: Vec<TimelineId> = wal.listing.timelines().into_iter().collect();
    for timeline in others {
        let beyond = path.leg(timeline).and_then(|leg| leg.end);
        if path.leg(timeline).is_some() && beyond.is_none() {
            continue;
        }
        let Some((last, _)) =
            wal.listing.segments(timeline).filter(|(s, _)| wal.listing.has_segment(*s)).last()
        else {
            continue;
        };
        if beyond.is_some_and(|end| last.end(size) <= end) {
            continue;
        }
        let file = WayFile { segment: last, ending: None };
        // A warning is not worth the restore: what cannot be read here is of another timeline.
        let Ok(Some(tail)) = scan::tail(&source, &[file], size, system).await else { continue };
        if let Some(commit) = tail.last_commit
            && last_here.is_none_or(|here| commit.at > here)
            && beyond.is_none_or(|end| commit.lsn >= end)
        {
            warnings.push(format!(
                "timeline {timeline} holds a later commit ({}, lsn {}) that is not on the path of this restore; \
                 `--timeline {timeline}` would keep it",
                commit.at.postgres(),
                commit.lsn
            ));
        }
    }
    Ok(warnings)
}

fn running_program(task: &Task<'_>) -> Option<PathBuf> {
    crate::postgres::service::server_program(&task.data_directory)
}

async fn look(
    task: &Task<'_>,
    state: &DirectoryState,
    held: &Held,
    located: &Located,
    index: &BackupIndex,
    tools: &Tools,
) -> Result<(PlaceFacts, Option<Service>)> {
    let in_place = task.request.place == Place::InPlace;
    let base = held.record.base()?;
    let blank = survey::facts(&task.data_directory, state.clone(), &task.owner, &[], None, in_place)?;
    let spread = tablespaces::plan(task.request, base, &located.created, &blank)?;
    let homes: Vec<PathBuf> =
        tablespaces::directories(&spread.tablespaces).map(|(_, path, _)| path.clone()).collect();
    let version = index::version_directory(index);
    let mut facts = survey::facts(
        &task.data_directory,
        state.clone(),
        &task.owner,
        &homes,
        version.as_deref(),
        in_place,
    )?;
    facts.member_bytes = index::bytes_by_tablespace(index);
    survey::refuse_used_homes(task.request, &homes, &facts)?;
    if !in_place {
        facts.running = crate::postgres::service::running_server(&task.data_directory)?
            .map(|s| s.label(&task.data_directory));
        return Ok((facts, None));
    }
    let service = survey::service(task.cluster, &task.data_directory, &task.owner, tools).await?;
    facts.running =
        service.running().await?.map(|s| format!("PostgreSQL in {}", s.label(&task.data_directory)));
    facts.service = service.describe();
    Ok((facts, Some(service)))
}

/// The plan that `wal fetch` obeys: the way of the chosen backup, up to what the target needs.
#[allow(clippy::too_many_arguments)] // each is one of the facts that make a plan
pub fn recovery_plan(
    task: &Task<'_>,
    archive: &Archive,
    wal: &Wal,
    chosen: &Chosen,
    path: &TimelinePath,
    located: &Located,
    system: SystemId,
    size: SegmentSize,
) -> RecoveryPlan {
    let mut plan = RecoveryPlan::new(
        task.cluster.name.clone(),
        system,
        size,
        task.now,
        task.request.target.to_string(),
        path,
        &located.reach,
        wal.history_digests.clone(),
        &wal.listing,
        chosen,
        archive.repositories.iter().map(|r| r.name.clone()).collect(),
    );
    if located.stop.is_some() {
        plan.end_at(located.needed_to);
    }
    plan
}
