//! Starts the server on the restored directory and follows its recovery to the end, serving the WAL it asks for.
//!
//! How far replay is comes from its requests; whether it has ended from `pg_control` and `postmaster.pid`, which need no
//! connection. When this process dies, `wal fetch` obeys the plan file by itself and recovery goes on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::connect;
use super::plan::RestorePlan;
use super::prepare::{Prepared, Task};
use super::report::Phases;
use super::request::Action;
use crate::archive::serve::{FetchProgress, FetchServer, Settings};
use crate::archive::source::Source;
use crate::error::{Code, Error, Result};
use crate::model::{Lsn, SegmentSize, TimelineId, WalFileName};
use crate::postgres::control_file::{ClusterState, ControlFile};
use crate::postgres::history::History;
use crate::postgres::instance::{self, Instance, ServerState, StartOptions, last_words, log_tail};
use crate::postgres::service::Service;
use crate::util::clock::Deadline;
use crate::util::failpoint;

/// A side instance's log, in its directory.
pub const SIDE_LOG: &str = "pgkeep-side.log";
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A server that the host's manager starts may take this long to be seen.
const APPEARS_WITHIN: Duration = Duration::from_mins(1);
/// A request for WAL, with all its tries.
const REQUEST_WITHIN: Duration = Duration::from_mins(10);
const OPTIONAL_GRACE: Duration = Duration::from_secs(5);

/// How the recovery ended.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    NotStarted,
    /// Open for writing on a timeline of its own, which begins at `fork`.
    Promoted {
        timeline: TimelineId,
        fork: Lsn,
    },
    Paused,
    ShutDown,
    /// A standby: it follows its primary from now on.
    Following,
}

/// The server, however it was started.
enum Server {
    Side(Box<Instance>),
    Managed { service: Box<Service>, data_directory: PathBuf, appears: Deadline, seen: bool },
}

impl Server {
    fn start_side(task: &Task<'_>, prepared: &Prepared) -> Result<Self> {
        let options = StartOptions { settings: Vec::new(), log_file: task.data_directory.join(SIDE_LOG) };
        let instance = Instance::start(&prepared.tools, &task.data_directory, &task.owner, &options)?;
        Ok(Self::Side(Box::new(instance)))
    }
    async fn start_managed(task: &Task<'_>, service: &Service) -> Result<Self> {
        service.start().await?;
        Ok(Self::Managed {
            service: Box::new(service.clone()),
            data_directory: task.data_directory.clone(),
            appears: Deadline::after(APPEARS_WITHIN),
            seen: false,
        })
    }
    fn state(&mut self) -> Result<ServerState> {
        match self {
            Self::Side(instance) => instance.state(),
            Self::Managed { data_directory, appears, seen, .. } => {
                let state = instance::state_of(data_directory)?;
                *seen |= state != ServerState::Down;
                // Not seen yet is not yet gone.
                let waiting = state == ServerState::Down && !*seen && !appears.passed();
                Ok(if waiting { ServerState::Starting } else { state })
            }
        }
    }
    fn log(&self) -> Option<PathBuf> {
        match self {
            Self::Side(instance) => Some(instance.log_file.clone()),
            Self::Managed { service, .. } => service.log_file(),
        }
    }
    fn leave_running(&mut self) {
        if let Self::Side(instance) = self {
            instance.leave_running();
        }
    }
}

pub async fn run(task: &Task<'_>, prepared: &Prepared, phases: &mut Phases) -> Result<Ended> {
    let plan = &prepared.plan;
    let fetch = serve(task, prepared)?;
    task.progress.phase(if plan.server.standby { "starting the standby" } else { "replaying WAL" });
    task.progress.total(plan.wal.bytes);
    let mut server = match &prepared.service {
        Some(service) => Server::start_managed(task, service).await?,
        None => Server::start_side(task, prepared)?,
    };
    failpoint::reach("restore-after-start")?;
    let followed = follow(task, plan, &mut server, fetch.as_ref()).await;
    if followed.is_ok() {
        server.leave_running();
    }
    let failed = fetch.as_ref().and_then(|f| f.progress().borrow().failed.clone());
    let ended = followed.map_err(|e| match failed {
        Some(why) => e.hint(format!("the WAL could not be delivered: {why}")),
        None => e,
    })?;
    phases.done("replay WAL");
    if let Some(fetch) = fetch {
        fetch.stop().await?;
    }
    failpoint::reach("restore-after-promote")?;
    Ok(ended)
}

fn serve(task: &Task<'_>, prepared: &Prepared) -> Result<Option<FetchServer>> {
    let Some(recovery) = &prepared.plan.recovery else { return Ok(None) };
    let source = Source::opened(
        &prepared.archive.repositories,
        &task.cluster.name,
        prepared.plan.system_identifier,
        task.identities.clone(),
        OPTIONAL_GRACE,
    );
    let settings = Settings {
        plan: recovery.clone(),
        listing: prepared.wal.listing.clone(),
        source,
        data_directory: task.data_directory.clone(),
        look_ahead: task.config.restore.look_ahead,
        deadline: REQUEST_WITHIN,
    };
    FetchServer::start(settings).map(Some)
}

/// Until what the plan asks for has come, or the server has ended.
async fn follow(
    task: &Task<'_>,
    plan: &RestorePlan,
    server: &mut Server,
    fetch: Option<&FetchServer>,
) -> Result<Ended> {
    let data = &task.data_directory;
    let segment = plan.recovery.as_ref().map_or(SegmentSize::DEFAULT, |r| r.wal_segment_bytes);
    let mut served = 0;
    loop {
        if let Some(fetch) = fetch {
            let FetchProgress { segments_served, .. } = fetch.progress().borrow().clone();
            task.progress.advance((segments_served - served) * segment.bytes());
            served = segments_served;
        }
        match server.state()? {
            ServerState::Down => {
                let ended = ControlFile::read(data)?.state;
                if plan.server.action == Action::Shutdown
                    && !plan.server.standby
                    && ended == ClusterState::ShutDownInRecovery
                {
                    return Ok(Ended::ShutDown);
                }
                return Err(died(data, server));
            }
            ServerState::Open | ServerState::Recovering if plan.server.standby => {
                return Ok(Ended::Following);
            }
            ServerState::Open => {
                if let Some(ended) = open(task, plan, server).await? {
                    return Ok(ended);
                }
            }
            ServerState::Starting | ServerState::Recovering | ServerState::Stopping => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The server takes connections: has it come to its end?
async fn open(task: &Task<'_>, plan: &RestorePlan, server: &Server) -> Result<Option<Ended>> {
    let data = &task.data_directory;
    match plan.server.action {
        Action::Promote if !instance::in_recovery(data)? => {
            let (timeline, fork) = new_timeline(data)?;
            Ok(Some(Ended::Promoted { timeline, fork }))
        }
        Action::Pause => {
            let paused = match connect::any(task, plan).await {
                Some(session) => session.is_replay_paused().await?,
                None => server.log().is_some_and(|log| log_tail(&log).contains("recovery has paused")),
            };
            Ok(paused.then_some(Ended::Paused))
        }
        Action::Promote | Action::Shutdown => Ok(None),
    }
}

fn died(data: &Path, server: &Server) -> Error {
    let tail = server.log().map(|log| log_tail(&log)).unwrap_or_default();
    let log = server
        .log()
        .map_or_else(|| "the server's log says more".to_owned(), |l| format!("its log: {}", l.display()));
    Error::new(Code::RecoveryFailed, format!("recovery did not come to its end: {}", last_words(&tail)))
        .at(data.display())
        .hint(if tail.contains("could not access the server configuration file") {
            "the configuration lay outside the data directory (Debian: /etc/postgresql): copy it there from pgkeep-config/ in \
             the data directory, make the empty directory conf.d beside it, and run the same command again"
                .to_owned()
        } else {
            log
        })
}

/// The timeline that a promotion made, and where it begins: its history file says so.
pub fn new_timeline(data: &Path) -> Result<(TimelineId, Lsn)> {
    let directory = data.join("pg_wal");
    let failed = |e| Error::io("cannot list pg_wal", &directory, e);
    let mut newest: Option<TimelineId> = None;
    for entry in std::fs::read_dir(&directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if let Some(WalFileName::History(id)) = name.to_str().and_then(WalFileName::parse) {
            newest = newest.max(Some(id));
        }
    }
    let timeline = newest.ok_or_else(|| {
        Error::new(Code::RecoveryFailed, "the promoted server has no history file").at(directory.display())
    })?;
    let path = directory.join(WalFileName::History(timeline).to_string());
    let bytes =
        std::fs::read(&path).map_err(|e| Error::io("cannot read the new timeline's history", &path, e))?;
    let history = History::parse(timeline, &bytes)?;
    let fork = history.fork().map_or(Lsn::ZERO, |ancestor| ancestor.switch);
    Ok((timeline, fork))
}
