//! `wal fetch`: one WAL file out of the archive, or a true "does not exist".
//!
//! Promise kept here (2): never lets a recovery end where the archive does not. PostgreSQL takes every exit from 1 to 125
//! for "not available", and ends the recovery; so 1 is the answer of a proof ([`answer`]), and everything else is 200.
//!
//! Order: configuration and identity (a missing key must never look like a missing file) → the plan, where
//! `recovery.signal` and a plan are there → the running restore's spool, where it answers → the archive itself. Without a
//! plan: what a running agent has prefetched ([`super::ahead`]), else the archive, with the proof of [`free`].
//!
//! The file is written under a temporary name beside its destination and renamed. A signal ends the process at once and
//! leaves at most that temporary, which a later fetch removes.

use std::path::Path;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::ahead::Spooled;
use super::source::{self, Source};
use super::{serve, spool};
use crate::config::{ClusterConfig, Config};
use crate::error::{Code, Error, Result};
use crate::model::{RepoName, SegmentName, SystemId, Timestamp, WalFileName};
use crate::postgres::control_file::ControlFile;
use crate::repository::configured::Patience;
use crate::repository::recovery_plan::{Decision, FILE_NAME, IN_FORCE_WHILE, RecoveryPlan};
use crate::util::failpoint;

pub mod answer;
mod free;
pub(super) mod planned;

pub use answer::{Absence, FAILED, Fetched, exit_status};
use planned::Wanted;

/// Its presence makes the server a standby, whatever else is there.
const STANDBY_SIGNAL: &str = "standby.signal";
/// A standby does not wait longer for a silent store.
const STANDBY_PATIENCE: Duration = Duration::from_secs(5);

/// One call of `restore_command`.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub config: &'a Config,
    pub cluster: &'a ClusterConfig,
    /// `--repo`: only this one.
    pub only: Option<&'a RepoName>,
    /// PostgreSQL's working directory.
    pub data_directory: &'a Path,
    /// `%f`
    pub name: &'a str,
    /// `%p`, relative to the data directory.
    pub destination: &'a Path,
    pub now: Timestamp,
}

/// What a running agent says of a segment.
#[derive(Debug)]
pub enum Told {
    /// It has received it.
    Spooled(Spooled),
    /// Its stores do not answer.
    Failed(Error),
    /// Nobody answers, or there is nothing to say: the archive itself is asked.
    Nothing,
}

/// A runtime whose transfers end when it is shut down, which lets the thread that waits for them remove its unfinished
/// file: a single-threaded one would keep them until it is dropped.
pub fn runtime() -> Result<Runtime> {
    let built = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    built.map_err(|e| Error::new(Code::Io, "cannot start the asynchronous runtime").because(e))
}

/// Fetches one file. Blocks; bounded by the configured deadline. `agent` asks a running agent for a segment.
pub fn run(
    request: &Request<'_>,
    runtime: &Runtime,
    agent: impl FnOnce(SegmentName) -> Told,
) -> Result<Fetched> {
    failpoint::reach("fetch-panic")?;
    let identities = source::identities(request.config)?;
    let file = WalFileName::parse(request.name).ok_or_else(|| {
        Error::new(Code::Usage, format!("`{}` is no WAL file", request.name)).hint(
            "restore_command is `pgkeep wal fetch %f \"%p\"`; PostgreSQL puts a file's name in place of %f",
        )
    })?;
    let control = ControlFile::read(request.data_directory)?;
    let exists = |name: &str| request.data_directory.join(name).exists();
    let standby = exists(STANDBY_SIGNAL);
    let plan = if exists(IN_FORCE_WHILE) && !standby { read_plan(request.data_directory)? } else { None };
    let deadline = request.config.archive.fetch_deadline;
    let patience = if standby {
        Patience { operation: Some(STANDBY_PATIENCE), attempt: Some(STANDBY_PATIENCE) }
    } else {
        // Leaves time to say what the store answered last.
        Patience { operation: Some(deadline.mul_f32(0.8)), attempt: None }
    };
    let cluster = plan.as_ref().map_or_else(|| request.cluster.name.clone(), |p| p.cluster.clone());
    let open = move || {
        Source::configured(request.config, request.only, &cluster, control.system, identities, patience)
    };
    spool::sweep(&request.data_directory.join(request.destination), request.now)?;
    if let Some(plan) = plan {
        if plan.system_identifier != control.system || plan.wal_segment_bytes != control.wal_segment_size {
            return Err(Error::new(Code::ForeignCluster, "the plan belongs to another cluster")
                .at(FILE_NAME)
                .hint("run `pgkeep restore` again: it writes a new plan"));
        }
        return match plan.decide(file) {
            Decision::DoesNotExist { why } => Ok(Fetched::outside_plan(why)),
            Decision::OutsidePlan { why } => {
                Err(Error::new(Code::Refused, format!("{file} is not part of this recovery: {why}")))
            }
            decision => fetch_planned(request, runtime, &plan, file, decision, open),
        };
    }
    if !standby && from_ending_restore(request, file, control.system) {
        return Ok(Fetched::Delivered);
    }
    let cluster = free::Cluster { size: control.wal_segment_size, system: control.system, standby };
    if let Some(fetched) = from_agent(request, file, cluster, agent) {
        return Ok(fetched);
    }
    let source = open()?;
    let work = free::fetch(request, &source, file, cluster);
    match runtime.block_on(within(deadline, file, work)) {
        Err(e) if standby && answer::is_of_store(&e) => Ok(Fetched::standby_waits(&e.to_string())),
        done => done,
    }
}

/// What the agent's answer is worth. It never ends a recovery: only a standby, which asks again, is told that a store
/// fails; everything else is proved here.
fn from_agent(
    request: &Request<'_>,
    file: WalFileName,
    cluster: free::Cluster,
    agent: impl FnOnce(SegmentName) -> Told,
) -> Option<Fetched> {
    let WalFileName::Segment(segment) = file else { return None };
    if request.only.is_some() {
        return None;
    }
    match agent(segment) {
        Told::Spooled(spooled) => {
            let destination = request.data_directory.join(request.destination);
            let mode = spool::file_mode(request.data_directory);
            let taken = spooled.take_over(segment, cluster.size, cluster.system, &destination, mode);
            taken.then_some(Fetched::Delivered)
        }
        Told::Failed(e) if cluster.standby && answer::is_unreachable(&e) => {
            Some(Fetched::standby_waits(&e.to_string()))
        }
        Told::Failed(_) | Told::Nothing => None,
    }
}

/// PostgreSQL removes the signal before it writes the history of its new timeline, for which it asks once more for the history
/// that it came from. The restore still serves then, and has it, also where this process could not open it.
fn from_ending_restore(request: &Request<'_>, file: WalFileName, system: SystemId) -> bool {
    let WalFileName::History(_) = file else { return false };
    let plan = read_plan(request.data_directory).ok().flatten().filter(|p| p.system_identifier == system);
    if !plan.is_some_and(|plan| matches!(plan.decide(file), Decision::History { .. })) {
        return false;
    }
    let deadline = request.config.archive.fetch_deadline;
    let Ok(Some(spooled)) = serve::ask(request.data_directory, file, deadline) else { return false };
    let destination = request.data_directory.join(request.destination);
    spool::take_over(&spooled, &destination, spool::file_mode(request.data_directory)).is_ok()
}

/// The plan, if there is one.
fn read_plan(data_directory: &Path) -> Result<Option<RecoveryPlan>> {
    let path = data_directory.join(FILE_NAME);
    match std::fs::read(&path) {
        Ok(bytes) => RecoveryPlan::parse(&bytes).map(Some),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("cannot read the plan of this recovery", &path, e)),
    }
}

fn fetch_planned(
    request: &Request<'_>,
    runtime: &Runtime,
    plan: &RecoveryPlan,
    file: WalFileName,
    decision: Decision,
    open: impl FnOnce() -> Result<Source>,
) -> Result<Fetched> {
    let Some(wanted) = Wanted::of(decision) else {
        return Err(Error::internal("a decision that is neither delivered nor refused"));
    };
    let destination = request.data_directory.join(request.destination);
    let mode = spool::file_mode(request.data_directory);
    let deadline = request.config.archive.fetch_deadline;
    if wanted.file().is_some()
        && let Some(spooled) = serve::ask(request.data_directory, file, deadline)?
    {
        spool::take_over(&spooled, &destination, mode)?;
        return Ok(Fetched::Delivered);
    }
    runtime.block_on(within(deadline, file, async {
        let source = open()?;
        let found = match wanted.file() {
            Some(needed) => source.find(needed).await,
            None => source::Found::default(),
        };
        let received = planned::receive(&source, plan, &found.listing, &wanted, &destination, mode).await;
        match (received, found.silent.into_iter().next()) {
            (Ok(incoming), _) => incoming.hand_over()?,
            // A repository that did not answer may be the one that has it: that is what there is to say.
            (Err(e), Some((name, silent))) if e.code() == Code::ObjectMissing => {
                return Err(
                    silent.while_doing(format!("{file}: the required repository {name} does not answer"))
                );
            }
            (Err(e), _) => return Err(e),
        }
        Ok(Fetched::Delivered)
    }))
}

async fn within<T>(
    deadline: Duration,
    file: WalFileName,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::time::timeout(deadline, work).await.unwrap_or_else(|_| {
        let span = humantime::format_duration(deadline);
        Err(Error::new(Code::StoreUnavailable, format!("{file} was not fetched within {span}"))
            .hint("look at the network and at the store, or set a longer fetch_deadline in [archive]"))
    })
}
