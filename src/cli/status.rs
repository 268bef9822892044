//! `pgkeep status`: the one screen. Exit status 0 when nothing is wrong, 4 when something is.
//!
//! The agent is asked first. Where none answers the command asks the repositories itself, each for a few seconds, and
//! says so in its first line. `--watch` draws again until Ctrl-C, which ends it in order.

use std::io::IsTerminal;
use std::time::Duration;

use futures::future::join_all;
use serde_json::json;

use super::context::{Context, Outcome};
use super::table::facts;
use crate::agent::board::{Board, Failure, LastBackup, Snapshot};
use crate::agent::control::{Client, Request};
use crate::agent::status::{self, AgentState, Line, StatusView};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::ClusterName;
use crate::repository::catalog::Catalog;
use crate::repository::configured::{self, Patience};
use crate::repository::signature::Trust;
use crate::repository::{Repository, access};
use crate::util::clock;

/// For the agent's answer, and for each store without an agent.
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
    ctx.block_on_light(async {
        loop {
            let drawn = tokio::select! {
                () = ctx.cancel.cancelled() => return Ok(Outcome::Done),
                drawn = draw(ctx, &config, args.watch.is_some()) => drawn?,
            };
            let Some(seconds) = args.watch else { return Ok(drawn) };
            tokio::select! {
                () = ctx.cancel.cancelled() => return Ok(Outcome::Done),
                () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
            }
        }
    })?
}

async fn draw(ctx: &Context, config: &Config, again: bool) -> Result<Outcome> {
    let (snapshot, agent) = match ask(config).await {
        Ok(snapshot) => {
            let since = snapshot.started_at;
            (snapshot, AgentState::Running { since })
        }
        Err(error) => (find(config).await, AgentState::Down { why: error.to_string() }),
    };
    let view = status::view(&snapshot, agent, clock::now());
    if ctx.json {
        ctx.print_json(&json!({ "status": view, "snapshot": snapshot }))?;
    } else {
        let terminal = std::io::stdout().is_terminal();
        let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let clear = if again && terminal { "\x1b[H\x1b[2J" } else { "" };
        ctx.print(&format!("{clear}{}", text(&view, colours)))?;
    }
    Ok(if view.healthy { Outcome::Done } else { Outcome::Finding })
}

async fn ask(config: &Config) -> Result<Snapshot> {
    let asking = async { Client::connect(&config.agent.socket).await?.ask(&Request::Status, WITHIN).await };
    let mut answer = asking.await?;
    serde_json::from_value(answer["snapshot"].take())
        .map_err(|e| Error::internal("the agent and this command are of different versions").because(e))
}

/// What can be found without an agent: the repositories and the last backup in them.
async fn find(config: &Config) -> Snapshot {
    let board = Board::new(clock::now());
    let patience = Patience { operation: Some(WITHIN), attempt: Some(WITHIN) };
    let tries = config.repositories.iter().map(|repository| async move {
        let opening = configured::open_these(std::slice::from_ref(repository), patience);
        let opened = tokio::time::timeout(WITHIN, opening).await;
        (repository, opened.map(crate::repository::Repositories::into_parts))
    });
    let mut opened = Vec::new();
    for (repository, answer) in join_all(tries).await {
        let failure = match answer {
            Err(_) => Some(format!("no answer within {} s", WITHIN.as_secs())),
            Ok((found, failed)) => {
                opened.extend(found);
                failed.first().map(|(_, _, error)| error.to_string())
            }
        };
        board.repository(&repository.name, |facts| {
            facts.required = repository.required;
            facts.answered_at = failure.is_none().then(clock::now);
            facts.failure = failure.map(|text| Failure { at: clock::now(), text });
        });
    }
    let trust = access::trust(config);
    for cluster in &config.clusters {
        board.cluster(&cluster.name, |_| {});
        if let Ok(trust) = &trust {
            let required = config.repositories.iter().filter(|r| r.required).count();
            catalog(&board, &cluster.name, &opened, trust, required).await;
        }
    }
    board.snapshot()
}

/// The newest good backup that each required repository has; nothing is said unless all of them answer.
async fn catalog(
    board: &Board,
    cluster: &ClusterName,
    opened: &[Repository],
    trust: &Trust,
    required: usize,
) {
    let asked: Vec<&Repository> = opened.iter().filter(|repository| repository.required).collect();
    if asked.len() < required {
        return;
    }
    let reads = asked
        .iter()
        .map(|repository| tokio::time::timeout(WITHIN, Catalog::load(repository, cluster, trust)));
    let mut catalogs = Vec::new();
    for read in join_all(reads).await {
        let Ok(Ok(catalog)) = read else { return };
        catalogs.push(catalog);
    }
    let Some(first) = catalogs.first() else { return };
    let newest = first.newest_base(|record| catalogs.iter().all(|other| other.by_id(&record.id).is_some()));
    let last = newest.map(|entry| LastBackup {
        id: entry.record.id.to_string(),
        finished_at: entry.record.finished_at,
        bytes_raw: entry.record.bytes_raw,
        bytes_stored: entry.record.bytes_stored,
        took_seconds: entry.record.finished_at.since(entry.record.started_at).as_secs(),
        damaged: false,
        stop_lsn: entry.record.base.as_ref().map(|base| base.stop_lsn),
    });
    board.cluster(cluster, |facts| {
        facts.backups.seen_at = Some(clock::now());
        facts.backups.last_full = last;
    });
}

fn text(view: &StatusView, colours: bool) -> String {
    let paint = |code: &str, text: &str| {
        if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    };
    let verdict = match view.problems.len() {
        0 => paint("32", "healthy"),
        1 => paint("31", "1 problem"),
        n => paint("31", &format!("{n} problems")),
    };
    let agent = match &view.agent {
        AgentState::Running { since } => format!("agent up since {}", since.human()),
        AgentState::Down { .. } => "NO AGENT".to_owned(),
    };
    let mut out = format!("pgkeep on {}: {verdict}, {}, {agent}\n", view.host, view.at.human());
    for problem in &view.problems {
        let mark = if problem.critical { paint("31", "!!") } else { paint("33", " !") };
        out.push_str(&format!("{mark} {}\n     {}\n", problem.what, problem.mend));
    }
    for cluster in &view.clusters {
        out.push_str(&format!("\n{}\n{}\n", paint("1", &cluster.title), block(&cluster.lines)));
    }
    for (title, lines) in [("repositories", &view.stores), ("jobs", &view.jobs)] {
        if !lines.is_empty() {
            out.push_str(&format!("\n{}\n{}\n", paint("1", title), block(lines)));
        }
    }
    out
}

fn block(lines: &[Line]) -> String {
    let pairs: Vec<(&str, String)> = lines.iter().map(|l| (l.label.as_str(), l.text.clone())).collect();
    facts(&pairs).lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::example;

    #[test]
    fn colours_are_only_there_when_asked_for() {
        let snapshot = example::troubled();
        let view = status::view(&snapshot, AgentState::Down { why: "x".into() }, example::now());
        assert!(text(&view, true).contains("\x1b[31m") && !text(&view, false).contains('\x1b'));
    }
}
