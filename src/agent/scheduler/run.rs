//! The loop: looks, carries out, sleeps until the next look is due, a run ends, or the generation does.

use std::collections::BTreeMap;
use std::time::Duration;

use super::due::Memory;
use super::round::{Action, PassedOver, Scheduler};
use super::{LOOK, Role};
use crate::agent::board::{JobRun, RunOutcome, Snapshot};
use crate::agent::jobs::{Order, facts};
use crate::agent::services::Services;
use crate::agent::state::runs::{self, Cause, NewRun};
use crate::agent::supervisor::Task;
use crate::config::JobConfig;
use crate::error::Result;
use crate::model::{ClusterName, JobName, Timestamp};
use crate::util::host;

/// The shortest sleep: a look takes a few milliseconds.
const SHORTEST: Duration = Duration::from_millis(50);
/// For the watchdog: far longer than a look and the sleep after it.
const LATE: Duration = Duration::from_mins(5);

pub fn task(services: &Services) -> Task {
    let services = services.clone();
    Task::new("scheduler", move || schedule(services.clone()))
}

async fn schedule(services: Services) -> Result<()> {
    let hub = &services.hub;
    let mut scheduler = Scheduler::new(hub.config.jobs.clone(), host::name(), hub.clock.now());
    facts::publish(hub, scheduler.jobs())?;
    loop {
        hub.pulse.beat("scheduler", LATE);
        let sleep = look(&services, &mut scheduler)?;
        tokio::select! {
            () = tokio::time::sleep(sleep) => {}
            () = services.jobs.changed() => {}
            () = hub.shutdown.cancelled() => break,
        }
    }
    hub.pulse.rest("scheduler");
    Ok(())
}

/// One look; how long to sleep after it.
fn look(services: &Services, scheduler: &mut Scheduler) -> Result<Duration> {
    let hub = &services.hub;
    let now = hub.clock.now();
    let memories = memories(services, scheduler.jobs(), now)?;
    let snapshot = hub.board.snapshot();
    let round = scheduler.look(now, &memories, &services.jobs.running(), |cluster| role(&snapshot, cluster));
    for (job, other) in &round.waiting {
        tracing::debug!(%job, "due, and waits for the job {other}");
    }
    services.jobs.set_waiting(round.waiting);
    for action in round.actions {
        carry_out(services, action, &memories, now)?;
    }
    let jobs = scheduler.jobs();
    hub.board.update(|all| {
        for job in jobs {
            if let Some(facts) = all.jobs.get_mut(job.name.as_str()) {
                facts.next_at = job.schedule.next_after(now);
            }
        }
    });
    Ok(round.wake.since(now).clamp(SHORTEST, LOOK))
}

/// What is remembered; a job that is new, or has another schedule than before, has missed nothing.
fn memories(services: &Services, jobs: &[JobConfig], now: Timestamp) -> Result<BTreeMap<JobName, Memory>> {
    let state = &services.hub.state;
    let mut all = BTreeMap::new();
    for job in jobs {
        let schedule = job.schedule.to_string();
        let memory = if let Some(memory) = runs::memory(state, &job.name, &schedule)? {
            memory
        } else {
            let fresh = Memory { handled_to: now, retry: None };
            runs::remember(state, &job.name, &schedule, &fresh)?;
            fresh
        };
        all.insert(job.name.clone(), memory);
    }
    Ok(all)
}

fn role(snapshot: &Snapshot, cluster: &ClusterName) -> Role {
    match snapshot.clusters.get(cluster).map(|facts| &facts.server) {
        Some(server) if server.asked_at.is_some() && server.error.is_none() => {
            if server.in_recovery {
                Role::Standby
            } else {
                Role::Primary
            }
        }
        _ => Role::Unknown,
    }
}

fn carry_out(
    services: &Services,
    action: Action,
    memories: &BTreeMap<JobName, Memory>,
    now: Timestamp,
) -> Result<()> {
    let state = &services.hub.state;
    let remember = |job: &JobConfig, to: Timestamp| {
        let retry = memories.get(&job.name).and_then(|memory| memory.retry.clone());
        let retry = retry.filter(|retry| retry.slot > to);
        let memory = Memory { handled_to: to, retry };
        runs::remember(state, &job.name, &job.schedule.to_string(), &memory)
    };
    match action {
        Action::Start { job, cause, slot, attempt } => {
            let name = job.name.clone();
            let order = Order { job, cause, slot: Some(slot), attempt };
            if let Err(error) = services.jobs.start(&services.hub, &services.stores, order) {
                // Begun by hand in this instant, or the agent ends: its time is not handled, and is seen again.
                tracing::debug!(job = %name, %error, "not begun");
            }
            Ok(())
        }
        Action::Forget { job } => {
            tracing::warn!(job = %job.name, "the clock was set back far: the job's memory of the future is dropped");
            remember(&job, now)
        }
        Action::PassOver { job, slot, why } => {
            let (outcome, text) = match why {
                PassedOver::Overlap => (RunOutcome::Skipped, "the run before it was still going on"),
                PassedOver::Missed => (RunOutcome::Skipped, "no agent ran at that time, and catch_up is off"),
                PassedOver::NotHere(_) => {
                    (RunOutcome::Elsewhere, "this host is a standby, and the job is the primary's")
                }
            };
            tracing::info!(job = %job.name, "{} is passed over: {text}", slot.human());
            pass_over(services, &job, slot, outcome, text, now)?;
            remember(&job, slot)
        }
    }
}

fn pass_over(
    services: &Services,
    job: &JobConfig,
    slot: Timestamp,
    outcome: RunOutcome,
    text: &str,
    now: Timestamp,
) -> Result<()> {
    let state = &services.hub.state;
    let new = NewRun {
        job: job.name.clone(),
        cause: Cause::Schedule,
        slot: Some(slot),
        attempt: 1,
        started_at: now,
    };
    let run = JobRun {
        started_at: now,
        finished_at: now,
        outcome,
        text: text.to_owned(),
        backup: None,
        bytes_raw: None,
        bytes_stored: None,
    };
    runs::note(state, &new, &run)?;
    facts::noted(&services.hub, &job.name);
    Ok(())
}
