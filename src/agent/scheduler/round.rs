//! All jobs together: one look at the clock, and what follows from it. No clock, no state, no tasks in here: the loop
//! gives what is remembered and what runs, and carries out what it is told.

use std::collections::BTreeMap;
use std::time::Duration;

use super::due::{Around, Due, Memory, Next, Pass, next};
use super::{Class, LOOK, Occupied, Role, Running};
use crate::agent::state::runs::Cause;
use crate::config::{JobConfig, JobWork};
use crate::model::{ClusterName, JobName, Timestamp};

/// A pause between two looks that is longer than this was none of ours: the host slept, or the clock was set.
const STEP: Duration = Duration::from_mins(2);

impl Class {
    pub fn of(work: &JobWork) -> Self {
        match work.backup_kind() {
            Some(kind) if kind.is_base() => Self::Base,
            Some(_) => Self::Logical,
            None => Self::Proof,
        }
    }
}

/// What the loop is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Start {
        job: JobConfig,
        cause: Cause,
        slot: Timestamp,
        attempt: u32,
    },
    /// Handled without a run.
    PassOver {
        job: JobConfig,
        slot: Timestamp,
        why: PassedOver,
    },
    /// Remember that everything up to now is handled.
    Forget {
        job: JobConfig,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PassedOver {
    /// The job still runs.
    Overlap,
    Missed,
    NotHere(Role),
}

/// What one look comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    pub actions: Vec<Action>,
    /// When to look again, at the latest.
    pub wake: Timestamp,
    /// Jobs that are due and wait for one of their class, with its name.
    pub waiting: BTreeMap<JobName, JobName>,
}

/// The jobs of one configuration.
#[derive(Debug)]
pub struct Scheduler {
    jobs: Vec<JobConfig>,
    host: String,
    since: Timestamp,
    looked: Timestamp,
}

impl Scheduler {
    pub fn new(jobs: Vec<JobConfig>, host: String, now: Timestamp) -> Self {
        Self { jobs, host, since: now, looked: now }
    }
    pub fn jobs(&self) -> &[JobConfig] {
        &self.jobs
    }

    /// One look. `memories` knows every job.
    pub fn look(
        &mut self,
        now: Timestamp,
        memories: &BTreeMap<JobName, Memory>,
        running: &Running,
        role: impl Fn(&ClusterName) -> Role,
    ) -> Round {
        if now < self.looked || now.since(self.looked) > STEP {
            self.since = now;
        }
        self.looked = now;
        let mut round = Round { actions: Vec::new(), wake: now.plus(LOOK), waiting: BTreeMap::new() };
        let mut due: Vec<(&JobConfig, Due)> = Vec::new();
        for job in &self.jobs {
            let Some(memory) = memories.get(&job.name) else { continue };
            let around = Around { now, since: self.since, role: role(&job.cluster), host: &self.host };
            match next(job, memory, &around) {
                Next::Never => {}
                Next::Wait(at) => round.wake = round.wake.min(at),
                Next::Due(work) => due.push((job, work)),
                Next::PassOver { slot, why } => {
                    let why = match why {
                        Pass::Missed => PassedOver::Missed,
                        Pass::NotHere(role) => PassedOver::NotHere(role),
                    };
                    round.actions.push(Action::PassOver { job: job.clone(), slot, why });
                }
                Next::ClockWasWrong => round.actions.push(Action::Forget { job: job.clone() }),
            }
        }
        // Whose time came first goes first; of one moment, a base backup, then by name.
        due.sort_by_key(|(job, due)| (due.slot, Class::of(&job.work), job.name.clone()));
        let mut running = running.clone();
        for (job, due) in due {
            round.take(job, due, &mut running);
        }
        round
    }
}

impl Round {
    fn take(&mut self, job: &JobConfig, due: Due, running: &mut Running) {
        if let Some(own) = running.get(&job.name) {
            // The run of this very time has begun and not yet been written down.
            if due.attempt == 1 && own.slot != Some(due.slot) {
                let (job, slot) = (job.clone(), due.slot);
                self.actions.push(Action::PassOver { job, slot, why: PassedOver::Overlap });
            }
            return;
        }
        let class = Class::of(&job.work);
        let met = running.iter().find(|(_, other)| other.cluster == job.cluster && other.class == class);
        if let Some((other, _)) = met {
            self.waiting.insert(job.name.clone(), other.clone());
            return;
        }
        let occupied = Occupied { cluster: job.cluster.clone(), class, slot: Some(due.slot) };
        running.insert(job.name.clone(), occupied);
        let cause = match (due.attempt, due.missed) {
            (1, false) => Cause::Schedule,
            (1, true) => Cause::CatchUp,
            _ => Cause::Retry,
        };
        let (slot, attempt) = (due.slot, due.attempt);
        self.actions.push(Action::Start { job: job.clone(), cause, slot, attempt });
    }
}
