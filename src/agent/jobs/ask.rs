//! The control requests `jobs`, `run-job` and `watch-job`.
//!
//! A run belongs to the agent and not to who asked for it: when the asker goes, the run goes on. A reload ends the
//! connection in order (`{"reload": true}`), and the asker watches again; what has ended meanwhile is in the diary.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Ended, Order, facts, find};
use crate::agent::board::{JobFacts, JobRun, RunningJob};
use crate::agent::control::Replies;
use crate::agent::services::Services;
use crate::agent::state::State;
use crate::agent::state::runs::{self, Cause, DiaryRun};
use crate::config::JobConfig;
use crate::error::{Code, Error, Result};
use crate::model::{JobName, Timestamp};

/// Between two looks at how far the run is.
const STEP: Duration = Duration::from_millis(300);
/// The asker hears something at least so often, so that silence means that the agent is gone.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How far back a run that has ended is looked for.
const RECENT: u32 = 50;

/// A job as `pgkeep jobs` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    pub name: JobName,
    #[serde(flatten)]
    pub facts: JobFacts,
    /// When what failed is tried again.
    pub retry_at: Option<Timestamp>,
    /// It is due, and this job of its kind runs first.
    pub waiting_for: Option<JobName>,
    /// The newest first, as many as were asked for.
    pub history: Vec<DiaryRun>,
}

/// What is said while a run goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Names the run.
    pub started_at: Timestamp,
    /// None before the first and after the last word of it.
    pub running: Option<RunningJob>,
}

/// A job from the configuration and the diary alone.
pub fn view(job: &JobConfig, state: &State, now: Timestamp, history: u32) -> Result<JobView> {
    let memory = runs::memory(state, &job.name, &job.schedule.to_string())?;
    Ok(JobView {
        name: job.name.clone(),
        facts: facts::of(job, state, now)?,
        retry_at: memory.and_then(|memory| memory.retry).map(|retry| retry.at),
        waiting_for: None,
        history: if history == 0 { Vec::new() } else { runs::history(state, &job.name, history)? },
    })
}

/// All jobs, or the named one.
pub fn list(services: &Services, only: Option<&JobName>, history: u32) -> Result<Value> {
    let hub = &services.hub;
    let chosen: Vec<&JobConfig> = match only {
        Some(name) => vec![find(&hub.config, name)?],
        None => hub.config.jobs.iter().collect(),
    };
    let (now, snapshot) = (hub.clock.now(), hub.board.snapshot());
    let waiting = services.jobs.waiting();
    let mut views = Vec::with_capacity(chosen.len());
    for job in chosen {
        let mut view = view(job, &hub.state, now, history)?;
        view.facts.running = snapshot.jobs.get(job.name.as_str()).and_then(|facts| facts.running.clone());
        view.waiting_for = waiting.get(&job.name).cloned();
        views.push(view);
    }
    Ok(json!({ "jobs": views }))
}

/// Begins a run and says how far it is until it has ended.
pub async fn run(services: &Services, name: &JobName, replies: &mut Replies) -> Result<Value> {
    let job = find(&services.hub.config, name)?.clone();
    let order = Order { job, cause: Cause::Manual, slot: None, attempt: 1 };
    services.jobs.start(&services.hub, &services.stores, order)?;
    watch(services, name, None, replies).await
}

/// Says how far a run is: the one that began at this moment, or else the one under way.
pub async fn watch(
    services: &Services,
    name: &JobName,
    started_at: Option<Timestamp>,
    replies: &mut Replies,
) -> Result<Value> {
    if let Some((began, ended)) = services.jobs.ended(name)
        && started_at.is_none_or(|at| at == began)
    {
        return follow(services, name, began, ended, replies).await;
    }
    let Some(started_at) = started_at else {
        return Err(Error::new(Code::Usage, format!("the job `{name}` does not run"))
            .hint("without --attach `pgkeep jobs run` begins it"));
    };
    let past = runs::history(&services.hub.state, name, RECENT)?;
    match past.into_iter().find(|diary| diary.run.started_at == started_at) {
        Some(diary) => Ok(ended_as(&diary.run)),
        None => Err(Error::new(
            Code::Usage,
            format!("no run of the job `{name}` began at {}", started_at.human()),
        )),
    }
}

async fn follow(
    services: &Services,
    name: &JobName,
    started_at: Timestamp,
    mut ended: Ended,
    replies: &mut Replies,
) -> Result<Value> {
    let hub = &services.hub;
    let mut said: Option<(Step, Instant)> = None;
    loop {
        let running = hub.board.snapshot().jobs.get(name.as_str()).and_then(|facts| facts.running.clone());
        let step = Step { started_at, running };
        if said.as_ref().is_none_or(|(last, at)| *last != step || at.elapsed() >= HEARTBEAT) {
            replies.progress(&step).await?;
            said = Some((step, Instant::now()));
        }
        let end = async { ended.wait_for(Option::is_some).await.map(|run| run.clone()) };
        tokio::select! {
            end = end => {
                return match end {
                    Ok(Some(run)) => Ok(ended_as(&run)),
                    _ => Err(Error::internal("the run ended without a word")),
                };
            }
            // At the end of the agent the run's own end is near.
            () = hub.shutdown.cancelled(), if !hub.end.is_cancelled() => {
                if !hub.end.is_cancelled() {
                    return Ok(json!({ "reload": true }));
                }
            }
            () = tokio::time::sleep(STEP) => {}
        }
    }
}

fn ended_as(run: &JobRun) -> Value {
    json!({ "run": run })
}
