//! What the agent knows now, in one place. Each task writes its own part; metrics, alert rules and `status` take a
//! [`Snapshot`], a plain value, so that what they make of it is a pure function. Nothing here is a truth: it is
//! rebuilt from the server and the stores after a start.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use super::server_facts::forecast::Window;
use crate::error::Error;
pub use crate::model::Severity;
use crate::model::{ClusterName, Lsn, RepoName, SegmentName, SystemId, TimelineId, Timestamp};
use crate::restore::estimate::Measured;

/// The shared board. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Board(Arc<RwLock<Snapshot>>);

/// Everything that is known at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub version: String,
    pub host: String,
    pub started_at: Timestamp,
    /// Where metrics are served.
    #[serde(default)]
    pub http: Option<String>,
    #[serde(default)]
    pub clusters: BTreeMap<ClusterName, ClusterFacts>,
    #[serde(default)]
    pub repositories: BTreeMap<RepoName, StoreFacts>,
    /// By the job's name.
    #[serde(default)]
    pub jobs: BTreeMap<String, JobFacts>,
    #[serde(default)]
    pub alerts: Vec<OpenAlert>,
    /// When the rules were last looked at.
    #[serde(default)]
    pub alerts_checked_at: Option<Timestamp>,
    /// By the sink's name.
    #[serde(default)]
    pub sinks: BTreeMap<String, SinkFacts>,
    /// By the task's name.
    #[serde(default)]
    pub tasks: BTreeMap<String, TaskFacts>,
    /// The configuration that was to be loaded last and is wrong: the one before it is in use. None once one is right.
    #[serde(default)]
    pub reload_refused: Option<Failure>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterFacts {
    pub system: Option<SystemId>,
    pub server: ServerFacts,
    pub archive: ArchiveFacts,
    pub tail: TailFacts,
    #[serde(default)]
    pub canary: CanaryFacts,
    pub backups: BackupFacts,
    /// What the last `verify` job of this agent came to, in each repository.
    #[serde(default)]
    pub verified: BTreeMap<RepoName, VerifyFacts>,
    /// What restores took, the newest first: what the time to return is estimated from.
    #[serde(default)]
    pub measured: Vec<Measured>,
    #[serde(default)]
    pub objectives: Objectives,
}

/// A look at what one repository stores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyFacts {
    pub at: Timestamp,
    pub findings: u64,
    pub healed: u64,
    /// Sorts of things that could not be proved.
    pub unproved: u64,
    /// Stored bytes that were read.
    pub bytes: u64,
    /// And that the budget left.
    pub left_bytes: u64,
    /// When the object was checked whose check is the oldest; None while some never were.
    pub oldest_check_at: Option<Timestamp>,
}

/// As configured; None where nobody has said so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objectives {
    pub rpo_seconds: Option<u64>,
    pub rto_seconds: Option<u64>,
}

/// What the server and its disk say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerFacts {
    /// When it was asked last and answered; None until it did.
    pub asked_at: Option<Timestamp>,
    /// Why it does not answer; None while it does.
    pub error: Option<String>,
    pub in_recovery: bool,
    /// It was seen not to archive: `archive_mode` is off, or there is no command.
    #[serde(default)]
    pub archiving_off: bool,
    pub major: Option<u16>,
    /// Where WAL is flushed to; None in recovery.
    pub flush_lsn: Option<Lsn>,
    pub timeline: Option<TimelineId>,
    pub pg_wal_bytes: u64,
    /// Of the file system that holds pg_wal.
    pub wal_disk_bytes: u64,
    pub wal_disk_free_bytes: u64,
    /// When that disk is full if pg_wal goes on as it has; None while it does not grow.
    pub wal_disk_full_in_seconds: Option<u64>,
    /// Up to where PostgreSQL lets pg_wal grow by design; zero while unknown.
    #[serde(default)]
    pub wal_target_bytes: u64,
    /// What the forecast is made of. Here, so that it outlives a reload.
    #[serde(skip)]
    pub wal_growth: Window,
    /// Of all databases, asked once an hour.
    pub data_bytes: Option<u64>,
}

/// A failure and when it was last seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub at: Timestamp,
    /// What, where, what to do: without secrets.
    pub text: String,
}

impl Failure {
    pub fn of(error: &Error, at: Timestamp) -> Self {
        Self { at, text: error.with_hint() }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ArchiveFacts {
    /// Files with a `.ready` that no required repository was seen to lack nothing of: what waits.
    pub waiting_files: u64,
    pub waiting_bytes: u64,
    /// Since when the oldest of them waits.
    pub waiting_since: Option<Timestamp>,
    /// The end of the contiguous prefix that every required repository has, on `timeline`.
    pub archived_to: Option<Lsn>,
    pub timeline: Option<TimelineId>,
    /// When the last file was acknowledged.
    pub archived_at: Option<Timestamp>,
    /// Since the agent started.
    pub files_total: u64,
    pub plain_bytes_total: u64,
    pub stored_bytes_total: u64,
    pub failures_total: u64,
    /// Of the running series of failures; None after a success.
    pub failure: Option<Failure>,
    pub damaged: Vec<SegmentName>,
    /// Files of which the archive holds other content under the same name: two servers archive into one place.
    #[serde(default)]
    pub conflicts: Vec<SegmentName>,
    /// When what waits was last looked for; None before the first time.
    #[serde(default)]
    pub scanned_at: Option<Timestamp>,
    /// WAL that is lost between two archived files: `first` to `last`.
    pub holes: Vec<HoleFacts>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoleFacts {
    pub first: SegmentName,
    pub last: SegmentName,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TailFacts {
    /// It is turned on, and the server is a primary that archives.
    pub enabled: bool,
    /// The end of the bytes that every required repository has.
    pub shipped_to: Option<Lsn>,
    /// When all that was flushed at that moment was shipped: a host lost now loses what was committed since.
    pub current_at: Option<Timestamp>,
    pub heads_total: u64,
    pub plain_bytes_total: u64,
    pub stored_bytes_total: u64,
    pub failures_total: u64,
    pub failure: Option<Failure>,
}

/// The row a minute that the agent writes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CanaryFacts {
    /// The configuration asks for it.
    pub enabled: bool,
    /// The server is one: nothing is written there.
    pub standby: bool,
    /// The newest row, and when it was written, by the server's clock.
    pub number: Option<u64>,
    pub written_at: Option<Timestamp>,
    /// Written by this agent since its configuration was loaded.
    pub rows_total: u64,
    /// Why none is written; None after a success.
    pub failure: Option<Failure>,
}

/// A store as the agent's requests saw it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StoreFacts {
    pub required: bool,
    pub answered_at: Option<Timestamp>,
    /// Of the running series of failures; None after a success.
    pub failure: Option<Failure>,
    /// By operation: head, get, put, upload, list, delete.
    pub operations: BTreeMap<String, OperationFacts>,
    /// Bytes handed to it and arrived from it since the agent started.
    #[serde(default)]
    pub sent_bytes_total: u64,
    #[serde(default)]
    pub received_bytes_total: u64,
    /// Bytes as stored: counted once a day, and what this agent has sent since.
    pub used_bytes: Option<u64>,
    /// As configured; of a directory, what it holds and what is free.
    pub capacity_bytes: Option<u64>,
    /// When the credentials end, where they say so and do not renew themselves.
    pub credentials_expire_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct OperationFacts {
    pub requests_total: u64,
    pub failures_total: u64,
    /// Sum of the time that the answered ones took.
    pub seconds_total: f64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BackupFacts {
    /// When the catalogs of all required repositories were last read.
    pub seen_at: Option<Timestamp>,
    /// The newest that every required repository has, trusted and undamaged.
    pub last_full: Option<LastBackup>,
    /// Full backups before it, the newest first, a few: what its size is compared with.
    #[serde(default)]
    pub earlier_fulls: Vec<LastBackup>,
    /// By kind, `full` among them: the newest that is trusted, with its damage if it has any.
    #[serde(default)]
    pub last: BTreeMap<String, LastBackup>,
    /// Why the catalog could not be read; None after a success.
    #[serde(default)]
    pub failure: Option<Failure>,
    /// When the repositories were last proved by a restore.
    pub proved_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastBackup {
    pub id: String,
    pub finished_at: Timestamp,
    pub bytes_raw: u64,
    pub bytes_stored: u64,
    pub took_seconds: u64,
    pub damaged: bool,
    /// Where it is consistent; only of those that WAL is replayed onto.
    #[serde(default)]
    pub stop_lsn: Option<Lsn>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobFacts {
    pub kind: String,
    pub cluster: ClusterName,
    /// As configured, with the time zone.
    pub schedule: String,
    /// None: the schedule has no next date.
    pub next_at: Option<Timestamp>,
    pub running: Option<RunningJob>,
    pub last: Option<JobRun>,
    pub last_success_at: Option<Timestamp>,
    pub failures_in_a_row: u32,
    /// The longest span between two dates of the schedule; None where there are not two.
    #[serde(default)]
    pub interval_seconds: Option<u64>,
    /// `bytes_raw` of earlier successful runs, the newest first, a few, without `last`.
    #[serde(default)]
    pub earlier_bytes: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunningJob {
    pub started_at: Timestamp,
    pub phase: String,
    pub done_bytes: u64,
    pub total_bytes: Option<u64>,
}

/// A run that has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRun {
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub outcome: RunOutcome,
    /// What came of it, or why not.
    pub text: String,
    /// The backup that it made.
    pub backup: Option<String>,
    pub bytes_raw: Option<u64>,
    pub bytes_stored: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunOutcome {
    Done,
    /// The work is done, and it found something wrong.
    Finding,
    Failed,
    /// Another host of the cluster did it, or is doing it.
    Elsewhere,
    /// Its time came while it still ran; only in the history, never the last run.
    Skipped,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenAlert {
    /// Rule and subject: what makes two reports the same alert.
    pub key: String,
    pub rule: String,
    /// The worst since it is open.
    pub severity: Severity,
    /// What it is about: `cluster`, `repository`, `job`, `task` or `sink`, and its name.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    pub since: Timestamp,
    pub summary: String,
    /// The command that mends it, or shows more.
    pub mend: String,
    pub runbook: Option<String>,
}

/// Where alerts are sent to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SinkFacts {
    pub waiting: u64,
    pub delivered_total: u64,
    /// Given up: refused again and again, or too many waited.
    pub dropped_total: u64,
    /// Of the running series of failures; None after a success.
    pub failure: Option<Failure>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskFacts {
    pub starts_total: u64,
    pub failure: Option<Failure>,
}

impl Board {
    pub fn new(started_at: Timestamp) -> Self {
        Self(Arc::new(RwLock::new(Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: crate::util::host::name(),
            started_at,
            http: None,
            clusters: BTreeMap::new(),
            repositories: BTreeMap::new(),
            jobs: BTreeMap::new(),
            alerts: Vec::new(),
            alerts_checked_at: None,
            sinks: BTreeMap::new(),
            reload_refused: None,
            tasks: BTreeMap::new(),
        })))
    }
    pub fn snapshot(&self) -> Snapshot {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Looks at the board without copying it. Short work only: writers wait.
    pub fn read<T>(&self, look: impl FnOnce(&Snapshot) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
    /// Changes the board. Short work only: everybody waits.
    pub fn update<T>(&self, change: impl FnOnce(&mut Snapshot) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
    /// Changes what is known of one cluster.
    pub fn cluster<T>(&self, name: &ClusterName, change: impl FnOnce(&mut ClusterFacts) -> T) -> T {
        self.update(|all| change(all.clusters.entry(name.clone()).or_default()))
    }
    /// Changes what is known of one repository.
    pub fn repository<T>(&self, name: &RepoName, change: impl FnOnce(&mut StoreFacts) -> T) -> T {
        self.update(|all| change(all.repositories.entry(name.clone()).or_default()))
    }
}
