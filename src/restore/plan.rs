//! The plan of a restore: a pure function of what was found, and the value that is shown, confirmed and executed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::choose::PassedOver;
use super::estimate::Estimate;
use super::locate::Located;
use super::place::{DirectoryState, PlaceFacts};
use super::request::{Action, Place, Request};
use super::{settings, space, tablespaces};
use crate::error::Result;
use crate::model::{
    BackupId, ClusterName, Inclusion, Lsn, PgMajor, RepoName, SystemId, Target, TimelineId, Timestamp,
};
use crate::repository::record::{BackupRecord, BaseBackup};
use crate::repository::recovery_plan::RecoveryPlan;
use crate::wal::TransactionMark;

/// Everything that will happen, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestorePlan {
    /// Names the leftovers of this run.
    pub id: String,
    pub made_at: Timestamp,
    pub host: String,
    pub cluster: ClusterName,
    pub system_identifier: SystemId,
    pub pg_major: PgMajor,
    /// To be read first.
    pub warnings: Vec<String>,
    pub target: PlannedTarget,
    pub backup: PlannedBackup,
    pub wal: PlannedWal,
    pub lost: Lost,
    pub place: PlannedPlace,
    pub tablespaces: Vec<PlannedTablespace>,
    pub space: Vec<space::Need>,
    pub server: PlannedServer,
    /// None for a standby.
    pub recovery: Option<RecoveryPlan>,
    /// How long it will take; None before any was measured.
    #[serde(default)]
    pub estimate: Option<Estimate>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedTarget {
    pub target: Target,
    pub zone_assumed: bool,
    /// Only where it means something.
    pub inclusion: Option<Inclusion>,
    pub timeline: TimelineId,
    /// The record that ends the recovery; none for `latest` and a standby.
    pub stops_at: Option<Lsn>,
    /// The end of the recovered cluster's WAL.
    pub end: Lsn,
    /// The last commit that will be there. None: none after the backup began.
    pub last_kept: Option<Commit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    pub xid: u32,
    pub at: Timestamp,
    pub lsn: Lsn,
}

impl From<TransactionMark> for Commit {
    fn from(mark: TransactionMark) -> Self {
        Self { xid: mark.xid.0, at: mark.at, lsn: mark.lsn }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedBackup {
    pub id: BackupId,
    pub why: String,
    /// Where it is read from.
    pub repository: RepoName,
    pub stop_time: Timestamp,
    pub start_lsn: Lsn,
    pub stop_lsn: Lsn,
    pub bytes_raw: u64,
    pub bytes_stored: u64,
    pub passed_over: Vec<PassedOver>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedWal {
    pub from: Lsn,
    pub to: Lsn,
    pub segments: u64,
    pub bytes: u64,
    /// Timelines on the way, with where each was left.
    pub timelines: Vec<(TimelineId, Option<Lsn>)>,
    /// Bytes that only this host's pg_wal holds; they are archived before anything is moved.
    pub only_in_pg_wal: u64,
}

/// What the recovered cluster will not have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lost {
    pub from: Lsn,
    pub to: Lsn,
    pub first: Option<Commit>,
    pub last: Option<Commit>,
}

impl Lost {
    pub fn bytes(&self) -> u64 {
        self.to.since(self.from)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedPlace {
    pub in_place: bool,
    pub data_directory: PathBuf,
    pub found: DirectoryState,
    /// The server that is stopped first.
    pub stops: Option<String>,
    pub moves: Vec<Move>,
    /// A separate pg_wal: the link is made again.
    pub wal_directory: Option<PathBuf>,
}

/// A directory that makes way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub from: PathBuf,
    /// None: it is deleted (`--overwrite`).
    pub to: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedTablespace {
    pub oid: u32,
    /// Where it was on the server that was backed up; relative when it was in place.
    pub was: String,
    pub becomes: TablespacePlace,
    /// Made by WAL after the backup began.
    pub from_wal: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TablespacePlace {
    /// A directory, linked from `pg_tblspc`.
    Directory(PathBuf),
    /// A directory below `pg_tblspc` itself.
    InPlace,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedServer {
    pub start: bool,
    pub standby: bool,
    pub action: Action,
    /// How it is started; `a side instance` for those of pgkeep's own.
    pub manager: String,
    pub port: Option<u16>,
    pub socket_dir: Option<PathBuf>,
    /// Written to `postgresql.auto.conf` until recovery has ended.
    pub settings: BTreeMap<String, String>,
}

/// What the plan is made of, besides the request.
pub struct Found<'a> {
    pub id: String,
    pub now: Timestamp,
    pub cluster: ClusterName,
    pub located: &'a Located,
    pub record: &'a BackupRecord,
    pub repository: RepoName,
    pub passed_over: Vec<PassedOver>,
    pub place: &'a PlaceFacts,
    pub recovery: RecoveryPlan,
    /// Bytes of WAL that only the local pg_wal holds.
    pub only_in_pg_wal: u64,
    /// `restore_command`.
    pub fetch_command: String,
    pub primary_conninfo: Option<String>,
    pub warnings: Vec<String>,
}

/// The plan, or why there is none. Nothing is read or written here.
pub fn make(request: &Request, found: &Found<'_>) -> Result<RestorePlan> {
    let base = found.record.base()?;
    let in_place = request.place == Place::InPlace;
    let spread = tablespaces::plan(request, base, &found.located.created, found.place)?;
    let mut recovery = found.recovery.clone();
    recovery.patches = spread.patches;
    let space = space::check(request, found.record, &spread.tablespaces, found.place)?;
    Ok(RestorePlan {
        id: found.id.clone(),
        made_at: found.now,
        host: found.place.host.clone(),
        cluster: found.cluster.clone(),
        system_identifier: found.record.system_identifier,
        pg_major: found.record.major().unwrap_or(PgMajor(0)),
        warnings: found.warnings.clone(),
        target: target(request, found.located, &recovery),
        backup: backup(request, found, base),
        wal: wal(found, base, &recovery),
        lost: Lost {
            from: found.located.end,
            to: found.located.archive_end.max(found.located.end),
            first: found.located.first_left_out.map(Commit::from),
            last: found.located.last_left_out.map(Commit::from),
        },
        place: PlannedPlace {
            in_place,
            data_directory: found.place.data_directory.clone(),
            found: found.place.state.clone(),
            stops: found.place.running.clone().filter(|_| in_place),
            moves: super::aside::moves(request, found.place, found.now),
            wal_directory: found.place.wal_directory.clone().filter(|_| in_place),
        },
        tablespaces: spread.tablespaces,
        space,
        server: server(request, found, &recovery)?,
        recovery: (!request.standby).then_some(recovery),
        estimate: None,
    })
}

fn target(request: &Request, located: &Located, recovery: &RecoveryPlan) -> PlannedTarget {
    PlannedTarget {
        target: request.target.clone(),
        zone_assumed: request.zone_assumed,
        inclusion: request.target.has_inclusion().then_some(request.inclusion),
        timeline: recovery.target_timeline(),
        stops_at: located.stop.as_ref().map(|s| s.record),
        end: located.end,
        last_kept: located.last_kept.map(Commit::from),
    }
}

fn backup(request: &Request, found: &Found<'_>, base: &BaseBackup) -> PlannedBackup {
    PlannedBackup {
        id: found.record.id.clone(),
        why: why(request, found.passed_over.len()),
        repository: found.repository.clone(),
        stop_time: base.stop_time,
        start_lsn: base.start_lsn,
        stop_lsn: base.stop_lsn,
        bytes_raw: found.record.bytes_raw,
        bytes_stored: found.record.bytes_stored,
        passed_over: found.passed_over.clone(),
    }
}

fn wal(found: &Found<'_>, base: &BaseBackup, recovery: &RecoveryPlan) -> PlannedWal {
    let segments = recovery.segments();
    PlannedWal {
        from: base.start_lsn,
        to: found.located.needed_to,
        segments,
        bytes: segments * base.wal_segment_bytes.bytes(),
        timelines: recovery.timelines.iter().map(|t| (t.timeline, t.switch)).collect(),
        only_in_pg_wal: found.only_in_pg_wal,
    }
}

fn server(request: &Request, found: &Found<'_>, recovery: &RecoveryPlan) -> Result<PlannedServer> {
    let side = settings::SideAddress::of(request, found.place)?;
    let primary = found.primary_conninfo.clone();
    Ok(PlannedServer {
        start: !request.no_start,
        standby: request.standby,
        action: request.action,
        manager: match request.place {
            Place::InPlace => found.place.service.clone(),
            Place::Directory(_) => "a side instance of pgkeep".to_owned(),
        },
        port: side.as_ref().map(|s| s.port),
        socket_dir: side.map(|s| s.socket_dir),
        settings: settings::recovery(request, found.located, recovery, &found.fetch_command, primary),
    })
}

fn why(request: &Request, passed_over: usize) -> String {
    if request.backup.is_some() {
        return "it was asked for".to_owned();
    }
    let before = match request.target {
        Target::Latest | Target::Backup => "",
        _ => " that ends before the target",
    };
    let others = if passed_over == 0 { "" } else { "; others do not fit" };
    format!("the newest undamaged one on the path{before}{others}")
}

#[cfg(test)]
mod tests;
