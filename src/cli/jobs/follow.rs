//! `pgkeep jobs run`: begins a run in the agent and shows how far it is.
//!
//! The run is the agent's. Ctrl-C, a closed terminal or a lost connection end the watching alone; a reload of the agent
//! is passed over by asking again for the run that began at that moment.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::agent::board::{JobRun, RunOutcome, RunningJob};
use crate::agent::control::{Client, Request};
use crate::agent::jobs::ask::Step;
use crate::cli::context::{Context, Outcome};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::model::{JobName, Timestamp};
use crate::util::human;
use crate::util::progress::Progress;

/// The agent says something every few seconds.
const SILENCE: Duration = Duration::from_mins(1);
/// How long an agent that reloads, or is started again, is knocked at.
const KNOCKING: Duration = Duration::from_secs(30);
const KNOCK: Duration = Duration::from_millis(300);

pub(super) fn run(ctx: &Context, config: &Config, name: &JobName, attach: bool) -> Result<Outcome> {
    let progress = ctx.progress();
    let run = ctx.block_on_light(async {
        let watching = watch(config, name, attach, &*progress);
        tokio::select! {
            run = watching => run,
            () = ctx.cancel.cancelled() => Err(Error::new(
                Code::Cancelled,
                format!("the job `{name}` is no longer watched; what has begun goes on in the agent"),
            )
            .hint(format!("`pgkeep jobs` shows how far it is, `pgkeep jobs run {name} --attach` watches it again"))),
        }
    })?;
    drop(progress);
    conclude(ctx, name, &run?)
}

fn conclude(ctx: &Context, name: &JobName, run: &JobRun) -> Result<Outcome> {
    let took = human::span(run.finished_at.since(run.started_at));
    let ended = match run.outcome {
        RunOutcome::Done => Outcome::Done,
        RunOutcome::Finding => Outcome::Finding,
        RunOutcome::Failed | RunOutcome::Skipped | RunOutcome::Elsewhere => {
            return Err(Error::new(
                Code::JobFailed,
                format!("the job `{name}` did not succeed: {}", run.text),
            )
            .hint(format!("`pgkeep jobs {name}` shows its history")));
        }
    };
    if ctx.json {
        ctx.print_json(&json!({ "job": name, "run": run }))?;
    } else {
        let backup = run.backup.as_ref().map_or_else(String::new, |id| format!("{id}: "));
        ctx.print(&format!("{backup}{} in {took}", run.text))?;
    }
    Ok(ended)
}

async fn watch(config: &Config, name: &JobName, attach: bool, progress: &dyn Progress) -> Result<JobRun> {
    let mut client = Client::connect(&config.agent.socket).await?;
    let mut shown = Shown::default();
    let mut request = if attach {
        Request::WatchJob { job: name.clone(), started_at: None }
    } else {
        Request::RunJob { job: name.clone() }
    };
    loop {
        let answered = client.ask_long(&request, SILENCE, |step| shown.take(step, progress)).await;
        // Lost in the middle, the run is asked for again; never begun again.
        let lost = match answered {
            Ok(mut answer) if answer["reload"] != true => {
                return serde_json::from_value(answer["run"].take()).map_err(|e| {
                    Error::internal("the agent's answer about the run is not understood").because(e)
                });
            }
            Ok(_) => Error::new(Code::NoAgent, "the agent did not come back"),
            Err(error) if error.code() == Code::NoAgent => error,
            Err(error) => return Err(error),
        };
        let Some(started_at) = shown.started_at else { return Err(lost) };
        client = connect_again(config, lost).await?;
        request = Request::WatchJob { job: name.clone(), started_at: Some(started_at) };
    }
}

async fn connect_again(config: &Config, lost: Error) -> Result<Client> {
    let until = Instant::now() + KNOCKING;
    loop {
        tokio::time::sleep(KNOCK).await;
        match Client::connect(&config.agent.socket).await {
            Ok(client) => return Ok(client),
            Err(_) if Instant::now() < until => {}
            Err(_) => return Err(lost),
        }
    }
}

/// What has been told of the run.
#[derive(Default)]
struct Shown {
    started_at: Option<Timestamp>,
    last: Option<RunningJob>,
}

impl Shown {
    fn take(&mut self, step: Value, progress: &dyn Progress) {
        // What another version says in other words is not shown; its end is.
        let Ok(step) = serde_json::from_value::<Step>(step) else { return };
        self.started_at = Some(step.started_at);
        let Some(now) = step.running else { return };
        let before = self.last.take().filter(|last| last.phase == now.phase);
        if before.is_none() {
            progress.phase(&now.phase);
        }
        if let Some(total) = now.total_bytes
            && before.as_ref().is_none_or(|last| last.total_bytes != now.total_bytes)
        {
            progress.total(total);
        }
        let done = now.done_bytes.saturating_sub(before.map_or(0, |last| last.done_bytes));
        if done > 0 {
            progress.advance(done);
        }
        self.last = Some(now);
    }
}
