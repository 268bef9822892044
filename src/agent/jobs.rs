//! Runs of jobs: begun by the scheduler or by hand, watched, ended, written down.
//!
//! A run outlives a reload: it keeps the configuration that it began with, and only the end of the agent stops it. Then,
//! and at its deadline, its token is cancelled and it ends in order; what does not end within [`ENDING`] is dropped.
//! What it leaves unfinished in a repository has no record, so it is no backup.
//!
//! Order of a run: has another host done it already? → the diary → the work → the diary. Killed before the first entry,
//! its time is not handled and comes again; killed before the second, the next start of the agent finds an open entry,
//! calls it failed and plans another try. A panic is a failure like others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::Hub;
use super::board::JobRun;
use super::scheduler::{Class, Occupied, Retry, Running};
use super::state::runs::{self, Cause};
use super::stores::Stores;
use crate::config::{Config, JobConfig};
use crate::error::{Code, Error, Result};
use crate::model::{JobName, Timestamp};

pub mod ask;
mod claim;
pub mod damage;
mod drill;
pub mod facts;
mod full;
pub mod kind;
mod logical;
mod progress;
mod run;
mod verify;

pub use kind::{JobContext, JobKind, JobReport};

/// After its token was cancelled, for a run to end.
const ENDING: Duration = Duration::from_secs(15);

/// What is to be run, and why.
#[derive(Debug, Clone)]
pub struct Order {
    pub job: JobConfig,
    pub cause: Cause,
    /// The scheduled time; None by hand.
    pub slot: Option<Timestamp>,
    pub attempt: u32,
}

/// The runs of this process. Cheap to clone; one for all generations.
#[derive(Clone, Default)]
pub struct Jobs(Arc<Inner>);

#[derive(Default)]
struct Inner {
    running: Mutex<BTreeMap<JobName, Entry>>,
    /// Jobs that are due and wait, with the one that they wait for.
    waiting: Mutex<BTreeMap<JobName, JobName>>,
    changed: Notify,
}

struct Entry {
    occupied: Occupied,
    started_at: Timestamp,
    ended: Ended,
}

/// Some once the run has ended and is written down.
pub type Ended = watch::Receiver<Option<JobRun>>;

impl Jobs {
    /// Runs that died with the agent before this one are failed, and tried again as failed ones are. Once, before
    /// anything is begun.
    pub fn bury(hub: &Hub) -> Result<()> {
        let now = hub.clock.now();
        let open = runs::abandon_open(&hub.state, now, "the agent died while it ran")?;
        for run in open {
            tracing::warn!(job = %run.job, "the agent died while this job ran");
            let job = hub.config.jobs.iter().find(|job| job.name == run.job);
            if let (Some(job), Some(slot)) = (job, run.slot)
                && let Some(retry) = Retry::after_failure(job, slot, run.attempt, now)
            {
                runs::plan_retry(&hub.state, &run.job, &retry)?;
            }
        }
        Ok(())
    }

    /// What runs now.
    pub fn running(&self) -> Running {
        self.lock().iter().map(|(name, entry)| (name.clone(), entry.occupied.clone())).collect()
    }

    /// When the run that is under way began, and its end.
    pub fn ended(&self, job: &JobName) -> Option<(Timestamp, Ended)> {
        self.lock().get(job).map(|entry| (entry.started_at, entry.ended.clone()))
    }

    pub fn waiting(&self) -> BTreeMap<JobName, JobName> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    pub(super) fn set_waiting(&self, waiting: BTreeMap<JobName, JobName>) {
        *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner) = waiting;
    }

    /// A run has ended.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Begins a run and gives the moment that names it. [`Code::Busy`] while the job, or another of its class on this
    /// cluster, runs.
    pub fn start(&self, hub: &Hub, stores: &Stores, order: Order) -> Result<Timestamp> {
        if hub.end.is_cancelled() {
            return Err(Error::new(Code::Cancelled, "the agent is ending"));
        }
        let started_at = hub.clock.now();
        let occupied = Occupied {
            cluster: order.job.cluster.clone(),
            class: Class::of(&order.job.work),
            slot: order.slot,
        };
        let (tell, ended) = watch::channel(None);
        {
            let mut running = self.lock();
            refuse_beside(&running, &order.job)?;
            running.insert(order.job.name.clone(), Entry { occupied, started_at, ended });
        }
        let entry = Registered { jobs: self.clone(), job: order.job.name.clone() };
        let run = run::Run {
            hub: hub.clone(),
            stores: stores.clone(),
            order,
            started_at,
            cancel: hub.end.child_token(),
        };
        hub.lasting.spawn(async move {
            let ended = run.carry_out().await;
            // Off the list before it is told: who hears of the end may begin the next.
            drop(entry);
            let _ = tell.send(Some(ended));
        });
        Ok(started_at)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<JobName, Entry>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whatever becomes of the run, it leaves the list.
struct Registered {
    jobs: Jobs,
    job: JobName,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.jobs.lock().remove(&self.job);
        self.jobs.0.changed.notify_one();
    }
}

fn refuse_beside(running: &BTreeMap<JobName, Entry>, job: &JobConfig) -> Result<()> {
    let hint = "`pgkeep jobs` shows how far it is, `pgkeep jobs run NAME --attach` watches it";
    if let Some(own) = running.get(&job.name) {
        let what = format!("the job `{}` is running already, since {}", job.name, own.started_at.human());
        return Err(Error::new(Code::Busy, what).hint(hint));
    }
    let class = Class::of(&job.work);
    let met = running
        .iter()
        .find(|(_, entry)| entry.occupied.cluster == job.cluster && entry.occupied.class == class);
    match met {
        None => Ok(()),
        Some((other, _)) => {
            let kind = match class {
                Class::Base => "base backup",
                Class::Logical => "logical backup",
                Class::Proof => "verification, restore test or drill",
            };
            let what = format!("the job `{other}` is running, and a cluster has one {kind} at a time");
            Err(Error::new(Code::Busy, what).hint(hint))
        }
    }
}

/// The job of this name.
pub fn find<'c>(config: &'c Config, name: &JobName) -> Result<&'c JobConfig> {
    config.jobs.iter().find(|job| job.name == *name).ok_or_else(|| {
        let names: Vec<&str> = config.jobs.iter().map(|job| job.name.as_str()).collect();
        let hint = match names.as_slice() {
            [] => "it has none; [[job]] makes one".to_owned(),
            names => format!("it has: {}", names.join(", ")),
        };
        Error::new(Code::Usage, format!("the configuration has no job `{name}`"))
            .at(config.path.display())
            .hint(hint)
    })
}
