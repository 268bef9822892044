//! What the board says of jobs.

use crate::agent::Hub;
use crate::agent::board::JobFacts;
use crate::agent::state::State;
use crate::agent::state::runs;
use crate::config::JobConfig;
use crate::error::Result;
use crate::model::{JobName, Timestamp};

/// Everything about a job that does not run.
pub fn of(job: &JobConfig, state: &State, now: Timestamp) -> Result<JobFacts> {
    let past = runs::past(state, &job.name)?;
    Ok(JobFacts {
        kind: job.work.kind().to_owned(),
        cluster: job.cluster.clone(),
        schedule: job.schedule.to_string(),
        next_at: job.schedule.next_after(now),
        running: None,
        last: past.last,
        last_success_at: past.last_success_at,
        failures_in_a_row: past.failures_in_a_row,
        interval_seconds: job.schedule.longest_interval(now).map(|span| span.as_secs()),
        earlier_bytes: past.earlier_bytes,
    })
}

/// At the beginning of a generation: these jobs and no others. Runs that go on stay shown.
pub(in crate::agent) fn publish(hub: &Hub, jobs: &[JobConfig]) -> Result<()> {
    let now = hub.clock.now();
    let mut facts = Vec::with_capacity(jobs.len());
    for job in jobs {
        facts.push((job.name.to_string(), of(job, &hub.state, now)?));
    }
    hub.board.update(|all| {
        let mut before = std::mem::take(&mut all.jobs);
        for (name, mut facts) in facts {
            facts.running = before.remove(&name).and_then(|old| old.running);
            all.jobs.insert(name, facts);
        }
    });
    Ok(())
}

/// A run has ended and is written down.
pub(super) fn ended(hub: &Hub, job: &JobName) {
    hub.board.update(|all| {
        if let Some(facts) = all.jobs.get_mut(job.as_str()) {
            facts.running = None;
        }
    });
    noted(hub, job);
}

/// The diary has a new line.
pub(in crate::agent) fn noted(hub: &Hub, job: &JobName) {
    let past = runs::past(&hub.state, job).unwrap_or_else(|error| {
        tracing::error!(%job, %error, "the job's past cannot be read");
        runs::Past::default()
    });
    hub.board.update(|all| {
        if let Some(facts) = all.jobs.get_mut(job.as_str()) {
            facts.last = past.last;
            facts.last_success_at = past.last_success_at;
            facts.failures_in_a_row = past.failures_in_a_row;
            facts.earlier_bytes = past.earlier_bytes;
        }
    });
}
