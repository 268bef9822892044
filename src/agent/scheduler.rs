//! When jobs run: pure decisions from configuration, memory and `now`, and the loop that carries them out.
//!
//! * Every scheduled time is handled once. What is handled is remembered by the **scheduled** time, not by when it ran:
//!   a clock that is set back comes to the same times again, and they are done.
//! * Times that passed while nobody watched (no agent, a host that slept, a clock set forward) are made up for by one
//!   run. A job that is new, or whose schedule has changed, has missed nothing.
//! * A memory that lies further in the future than a period of the schedule (at least [`CORRECTION`], as cron(8) has
//!   it) was written by a clock that was wrong; it is dropped, or the job would be silent until then.
//! * A failed run is tried again, each time later, until its tries are used up or its next time comes.
//! * One run of a job at a time. A time that comes while the job still runs is passed over and written down.
//!
//! Who yields: on one cluster, base backups exclude each other, and logical backups (dumps, schemas, tables) exclude
//! each other; a logical one may run beside a base backup, for they compete for nothing but bandwidth. Jobs that prove
//! backups exclude each other and delay none that makes one. A job that meets one of its own class waits, the one whose
//! time came first goes first, and however many of its times pass meanwhile, it runs once. So a long nightly run delays
//! an hourly one, and neither starves the other.
//!
//! The loop looks at the clock at least every [`LOOK`], so a step of the clock is seen soon, and wakes when a run ends.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{ClusterName, JobName, Timestamp};

pub mod due;
pub mod round;
pub mod run;

pub use due::{Memory, Retry};
pub use round::Scheduler;
pub use run::task;

/// At most so long between two looks at the clock.
pub const LOOK: Duration = Duration::from_secs(30);
/// cron(8): a clock that moves by less than this has been put back, by more it has been corrected.
pub const CORRECTION: Duration = Duration::from_hours(3);

/// What excludes each other on a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Base,
    Logical,
    /// What makes no backup: it reads the repositories, and may need this host's disk.
    Proof,
}

/// What runs now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupied {
    pub cluster: ClusterName,
    pub class: Class,
    /// The scheduled time that it is for; None by hand.
    pub slot: Option<Timestamp>,
}

pub type Running = BTreeMap<JobName, Occupied>;

/// What this host's server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Primary,
    Standby,
    /// It has not answered.
    Unknown,
}

#[cfg(test)]
mod tests;
