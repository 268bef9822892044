//! `pgkeep jobs`: what the agent runs, when, and what came of it; `jobs run` begins one and watches it.
//!
//! The agent is asked. When none answers, the configuration and the agent's diary say what they can, and that it is so:
//! next times are then only what the schedule says, for nobody would run them.

use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use super::context::{Context, Outcome};
use super::report;
use crate::agent::State;
use crate::agent::control::{Client, Request};
use crate::agent::jobs::ask::{self, JobView};
use crate::agent::jobs::find;
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::model::JobName;
use crate::util::clock;

mod follow;
mod screen;

/// The agent answers from memory.
const ANSWER: Duration = Duration::from_secs(15);
/// Runs of one job that are shown when nobody says how many.
const RUNS: u32 = 20;

/// Shows the agent's jobs, their last runs and next times, or one job's history.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Only this job, with its history.
    #[arg(value_name = "NAME", value_parser = job_name)]
    name: Option<JobName>,
    /// Show so many past runs of each job.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    history: Option<u32>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a job now, in the agent, and watches it: ends as the run ends. Ctrl-C ends the watching, not the run.
    Run {
        #[arg(value_name = "NAME", value_parser = job_name)]
        name: JobName,
        /// Begin nothing, but watch the run that is under way.
        #[arg(long)]
        attach: bool,
    },
}

fn job_name(text: &str) -> Result<JobName, String> {
    JobName::parse(text).ok_or_else(|| super::args::NAME_RULE.to_owned())
}

pub fn run(ctx: &Context, args: &Args) -> Result<Outcome> {
    let config = ctx.load_config()?;
    match &args.command {
        Some(Command::Run { name, attach }) => follow::run(ctx, &config, name, *attach),
        None => show(ctx, &config, args),
    }
}

fn show(ctx: &Context, config: &Config, args: &Args) -> Result<Outcome> {
    let history = args.history.unwrap_or(if args.name.is_some() { RUNS } else { 0 });
    let asked = ctx.block_on_light(ask_agent(config, args.name.as_ref(), history))?;
    let (mut views, silent) = match asked {
        Ok(views) => (views, None),
        Err(error) if error.code() == Code::NoAgent => {
            (without_agent(config, args.name.as_ref(), history)?, Some(error))
        }
        Err(error) => return Err(error),
    };
    if let Some(cluster) = &ctx.cluster {
        views.retain(|view| view.facts.cluster == *cluster);
    }
    if ctx.json {
        ctx.print_json(&json!({ "agent": silent.is_none(), "jobs": views }))?;
    } else {
        let now = clock::now();
        ctx.print(&match (&args.name, views.as_slice()) {
            (Some(_), [view]) => screen::one(view, now),
            _ => screen::all(&views, now),
        })?;
    }
    match silent {
        None => Ok(Outcome::Done),
        Some(error) => {
            let what =
                error.while_doing("nothing runs by itself; this is what the configuration and the diary say");
            report::to_stderr(&report::error_text(&what));
            Ok(Outcome::Finding)
        }
    }
}

async fn ask_agent(config: &Config, name: Option<&JobName>, history: u32) -> Result<Vec<JobView>> {
    let mut client = Client::connect(&config.agent.socket).await?;
    let mut answer = client.ask(&Request::Jobs { job: name.cloned(), history }, ANSWER).await?;
    serde_json::from_value(answer["jobs"].take())
        .map_err(|e| Error::internal("the agent's answer about its jobs is not understood").because(e))
}

fn without_agent(config: &Config, name: Option<&JobName>, history: u32) -> Result<Vec<JobView>> {
    let state = match State::look(&config.state_directory.join("agent.db"))? {
        Some(state) => state,
        None => State::in_memory()?,
    };
    let now = clock::now();
    let chosen = match name {
        Some(name) => std::slice::from_ref(find(config, name)?),
        None => config.jobs.as_slice(),
    };
    chosen.iter().map(|job| ask::view(job, &state, now, history)).collect()
}
