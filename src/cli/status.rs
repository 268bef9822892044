//! `pgkeep status`: the one screen. Exit status 0 when nothing is wrong, 4 when something is.
//!
//! The agent is asked first. Where none runs the command asks the servers and the repositories itself ([`find`]), each for
//! a few seconds, and says so first. An agent that runs and does not let this user ask is an error, not a trouble.
//! `--watch` draws again until Ctrl-C, which ends it in order.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{AccessFlags, access};
use serde_json::json;

use super::context::{Context, Outcome};
use crate::agent::board::Snapshot;
use crate::agent::control::{Client, Request};
use crate::agent::status::{self, AgentState};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::util::clock;

mod draw;
mod find;

/// For the agent's answer, and for each server and store without an agent.
const WITHIN: Duration = Duration::from_secs(5);

/// Shows on one screen what would be lost now, how long until back, and what is wrong. Ends with 4 when something is.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Draw again every so many seconds until Ctrl-C.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
}

pub fn run(ctx: &Context, args: &Args) -> Result<Outcome> {
    let config = ctx.load_config()?;
    let runtime = ctx.light_runtime()?;
    let ended = runtime.block_on(show(ctx, &config, args.watch.map(Duration::from_secs)));
    // A store that hangs must not hold the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    ended
}

async fn show(ctx: &Context, config: &Config, again: Option<Duration>) -> Result<Outcome> {
    loop {
        let drawn = tokio::select! {
            () = ctx.cancel.cancelled() => return Ok(Outcome::Done),
            drawn = once(ctx, config, again.is_some()) => drawn?,
        };
        let Some(pause) = again else { return Ok(drawn) };
        tokio::select! {
            () = ctx.cancel.cancelled() => return Ok(Outcome::Done),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn once(ctx: &Context, config: &Config, again: bool) -> Result<Outcome> {
    let (snapshot, agent) = match ask(&config.agent.socket).await {
        Ok(snapshot) => {
            let since = snapshot.started_at;
            (snapshot, AgentState::Running { since })
        }
        Err(error) if error.code() == Code::NoAgent => {
            (find::snapshot(config).await, AgentState::Down { why: error.to_string() })
        }
        Err(error) => return Err(error),
    };
    let view = status::view(&snapshot, agent, &config.alerts, clock::now());
    if ctx.json {
        ctx.print_json(&json!({ "status": view, "snapshot": snapshot }))?;
    } else {
        let terminal = std::io::stdout().is_terminal();
        let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let text = draw::screen(&view, colours);
        ctx.print(&if again && terminal { draw::over(&text) } else { text })?;
    }
    Ok(if view.healthy { Outcome::Done } else { Outcome::Finding })
}

async fn ask(socket: &Path) -> Result<Snapshot> {
    let asking = async { Client::connect(socket).await?.ask(&Request::Status, WITHIN).await };
    let mut answer = asking.await.map_err(|error| {
        let denied = access(socket, AccessFlags::W_OK) == Err(nix::Error::EACCES);
        if denied { not_for_this_user(socket, error) } else { error }
    })?;
    serde_json::from_value(answer["snapshot"].take()).map_err(|e| {
        Error::new(Code::Usage, "the agent and this command are of different versions")
            .because(e)
            .hint("restart the agent after an upgrade: systemctl restart pgkeep")
    })
}

/// That it does not answer us does not mean that it does not run.
fn not_for_this_user(socket: &Path, cause: Error) -> Error {
    Error::new(Code::Refused, "this user may not ask the agent")
        .at(socket.display())
        .because(cause)
        .hint("run this as the owner of the data directory or as root: sudo -u postgres pgkeep status")
}
