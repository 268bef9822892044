//! One job: what is to be done about it now, and when to look again.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::{CORRECTION, Role};
use crate::config::{JobConfig, RunOn, Schedule};
use crate::model::Timestamp;

/// Longer pauses between tries help nobody, unless the configuration begins with one.
const LONGEST_RETRY: Duration = Duration::from_hours(1);
/// A job that must know whether this is the primary waits so long for the server's answer, then runs and fails loudly.
const ROLE_PATIENCE: Duration = Duration::from_mins(5);
/// Meanwhile it is looked again so often, for the answer is mostly there within a second of the agent's start.
const ROLE_LOOK: Duration = Duration::from_secs(1);

/// What is remembered of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Scheduled times up to this one have been handled.
    pub handled_to: Timestamp,
    pub retry: Option<Retry>,
}

/// A try that is planned after one that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// The scheduled time that it is for.
    pub slot: Timestamp,
    /// 2 for the first of them.
    pub attempt: u32,
    pub at: Timestamp,
    /// How long the pause is.
    pub after: Duration,
}

impl Retry {
    /// After try `attempt` has failed at `now`; None when the tries are used up.
    pub fn after_failure(job: &JobConfig, slot: Timestamp, attempt: u32, now: Timestamp) -> Option<Self> {
        if attempt > job.retries {
            return None;
        }
        let doublings = attempt.saturating_sub(1).min(20);
        let longest = LONGEST_RETRY.max(job.retry_after);
        let after = job.retry_after.saturating_mul(1 << doublings).min(longest);
        Some(Self { slot, attempt: attempt + 1, at: now.plus(after), after })
    }
    /// The same try once more, later: what stood in its way was no failure of ours.
    pub fn again(job: &JobConfig, slot: Timestamp, attempt: u32, now: Timestamp) -> Self {
        Self { slot, attempt, at: now.plus(job.retry_after), after: job.retry_after }
    }
}

/// What to do about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The schedule has no further date.
    Never,
    /// Nothing before this moment.
    Wait(Timestamp),
    Due(Due),
    /// This time is handled without a run.
    PassOver {
        slot: Timestamp,
        why: Pass,
    },
    /// The memory was written by a clock that was wrong.
    ClockWasWrong,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub slot: Timestamp,
    pub attempt: u32,
    pub missed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// It passed while nobody watched, and `catch_up` is off.
    Missed,
    /// It is the work of another host's agent.
    NotHere(Role),
}

/// What surrounds the decision.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    pub now: Timestamp,
    /// Since when somebody has watched the clock without a break.
    pub since: Timestamp,
    pub role: Role,
    pub host: &'a str,
}

/// The decision. Pure.
pub fn next(job: &JobConfig, memory: &Memory, around: &Around<'_>) -> Next {
    let now = around.now;
    let handled = memory.handled_to;
    if handled > now.plus(tolerance(&job.schedule, handled)) {
        return Next::ClockWasWrong;
    }
    if let Some(slot) = job.schedule.last_between(handled, now) {
        return scheduled(job, slot, around);
    }
    let coming = job.schedule.next_after(handled.max(now)).map(|slot| begin(job, slot, around));
    match (&memory.retry, coming) {
        (Some(retry), coming) => {
            // Further away than it ever was: the clock went back, and what is left of the pause cannot be told.
            if retry.at <= now || retry.at > now.plus(retry.after) {
                return Next::Due(Due { slot: retry.slot, attempt: retry.attempt, missed: false });
            }
            Next::Wait(coming.map_or(retry.at, |at| at.min(retry.at)))
        }
        (None, Some(at)) => Next::Wait(at),
        (None, None) => Next::Never,
    }
}

/// A scheduled time has come.
fn scheduled(job: &JobConfig, slot: Timestamp, around: &Around<'_>) -> Next {
    let missed = slot < around.since;
    if missed && !job.catch_up {
        return Next::PassOver { slot, why: Pass::Missed };
    }
    match (job.run_on, around.role) {
        (RunOn::Primary, Role::Standby) => {
            return Next::PassOver { slot, why: Pass::NotHere(Role::Standby) };
        }
        (RunOn::Primary | RunOn::Standby, Role::Unknown) => {
            let patience = slot.max(around.since).plus(ROLE_PATIENCE);
            if around.now < patience {
                return Next::Wait(patience.min(around.now.plus(ROLE_LOOK)));
            }
        }
        _ => {}
    }
    let at = begin(job, slot, around);
    if around.now < at { Next::Wait(at) } else { Next::Due(Due { slot, attempt: 1, missed }) }
}

/// When the run of a scheduled time begins: never before it, with its jitter, after the grace that a standby has.
fn begin(job: &JobConfig, slot: Timestamp, around: &Around<'_>) -> Timestamp {
    let grace = match (job.run_on, around.role) {
        (RunOn::Standby, Role::Primary) => job.standby_grace,
        _ => Duration::ZERO,
    };
    slot.max(around.since.min(around.now)).plus(jitter(job, slot, around.host)).plus(grace)
}

/// Always the same for one host and scheduled time: a restart does not throw the dice again.
fn jitter(job: &JobConfig, slot: Timestamp, host: &str) -> Duration {
    let half_way = job.schedule.next_after(slot).map_or(job.jitter, |next| next.since(slot) / 2);
    let longest = u64::try_from(job.jitter.min(half_way).as_millis()).unwrap_or(u64::MAX);
    let digest = Sha256::digest(format!("{host}\n{}\n{slot}", job.name));
    let number = digest.iter().take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    Duration::from_millis(number % longest.max(1))
}

/// How far in the future a memory may lie: one period, for the same times must not come twice.
fn tolerance(schedule: &Schedule, handled: Timestamp) -> Duration {
    schedule.next_after(handled).map_or(CORRECTION, |next| next.since(handled)).max(CORRECTION)
}
