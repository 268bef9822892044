//! `pgkeep alerts`: what is wrong now, as the agent knows it; `pgkeep alerts test`: do the receivers hear us?

use std::time::Duration;

use serde_json::json;

use super::context::{Context, Outcome};
use crate::agent::alerts::trial;
use crate::agent::board::OpenAlert;
use crate::agent::control::{Client, Request};
use crate::config::SinkConfig;
use crate::error::{Code, Error, Result};
use crate::util::{clock, host};

/// The agent has the answer at hand.
const PATIENCE: Duration = Duration::from_secs(10);

/// Shows what is wrong now, as the agent knows it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Sends a marked alert and its resolution to each receiver, and says who took them. Needs no agent.
    Test {
        /// Only this receiver.
        #[arg(long, value_name = "NAME")]
        sink: Option<String>,
    },
}

pub fn run(ctx: &Context, args: &Args) -> Result<Outcome> {
    match &args.command {
        None => show(ctx),
        Some(Command::Test { sink }) => test(ctx, sink.as_deref()),
    }
}

fn show(ctx: &Context) -> Result<Outcome> {
    let config = ctx.load_config()?;
    let mut answer = ctx.block_on_light(async {
        Client::connect(&config.agent.socket).await?.ask(&Request::Alerts, PATIENCE).await
    })??;
    let open: Vec<OpenAlert> = serde_json::from_value(answer["alerts"].take())
        .map_err(|e| Error::internal("the agent's list of alerts cannot be read").because(e))?;
    if ctx.json {
        ctx.print_json(&json!({ "alerts": open }))?;
    } else {
        ctx.print(&text(&open))?;
    }
    Ok(if open.is_empty() { Outcome::Done } else { Outcome::Finding })
}

fn text(open: &[OpenAlert]) -> String {
    if open.is_empty() {
        return "no alert is open".to_owned();
    }
    let each = open.iter().map(|alert| {
        let page =
            alert.runbook.as_ref().map_or_else(String::new, |page| format!("\n  see: runbooks/{page}"));
        format!(
            "{}  {}, since {}\n  {}\n  to do: {}{page}",
            alert.severity.as_str().to_uppercase(),
            alert.key,
            alert.since.human(),
            alert.summary,
            alert.mend
        )
    });
    each.collect::<Vec<_>>().join("\n\n")
}

fn test(ctx: &Context, only: Option<&str>) -> Result<Outcome> {
    let config = ctx.load_config()?;
    let chosen: Vec<&SinkConfig> =
        config.alert_sinks.iter().filter(|sink| only.is_none_or(|name| name == sink.name)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = config.alert_sinks.iter().map(|sink| sink.name.as_str()).collect();
        let (what, hint) = match only {
            Some(name) if !names.is_empty() => (
                format!("the configuration has no alert sink `{name}`"),
                format!("it has: {}", names.join(", ")),
            ),
            _ => (
                "the configuration has no alert sink: nobody is told anything".to_owned(),
                "add an [[alert_sink]]; `pgkeep config example` shows how".to_owned(),
            ),
        };
        return Err(Error::new(Code::Usage, what).at(config.path.display()).hint(hint));
    }
    let (host, now) = (host::name(), clock::now());
    let results = ctx.block_on_light(async {
        let all = chosen.iter().map(|sink| trial::run(sink, &host, now));
        futures::future::join_all(all).await
    })?;
    report(ctx, &chosen, &results)
}

fn report(ctx: &Context, chosen: &[&SinkConfig], results: &[Result<()>]) -> Result<Outcome> {
    let said = |result: &Result<()>| result.as_ref().err().map(ToString::to_string);
    if ctx.json {
        let each = chosen
            .iter()
            .zip(results)
            .map(|(sink, result)| json!({ "sink": sink.name, "ok": result.is_ok(), "error": said(result) }));
        ctx.print_json(&json!({ "sinks": each.collect::<Vec<_>>() }))?;
    } else {
        let each = chosen.iter().zip(results).map(|(sink, result)| match said(result) {
            None => format!("{}: took an alert and its resolution", sink.name),
            Some(error) => format!("{}: FAILED: {error}", sink.name),
        });
        ctx.print(&each.collect::<Vec<_>>().join("\n"))?;
    }
    let failed: Vec<&str> =
        chosen.iter().zip(results).filter(|(_, r)| r.is_err()).map(|(sink, _)| sink.name.as_str()).collect();
    if failed.is_empty() {
        return Ok(Outcome::Done);
    }
    let what = format!("{} of {} receivers of alerts did not take the test", failed.len(), chosen.len());
    Err(Error::new(Code::AlertUndelivered, what).at(failed.join(", ")))
}
