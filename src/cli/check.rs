//! `pgkeep check`: proves the whole path, from the configuration to a segment that went through the archive and came
//! back. A line per check; it goes on after a failure as far as that makes sense, so that one run shows everything.
//!
//! Writes: a few probe objects in each repository (removed again) and one WAL segment, forced. Nothing else changes.

use serde_json::json;

use super::context::{Context, Outcome};
use super::report;
use crate::config::{ClusterConfig, Config};
use crate::error::{Code, Error, Result};
use crate::postgres::as_owner;
use crate::postgres::facts::ServerFacts;
use crate::postgres::session::Session;

mod archive;
mod canary;
mod dumps;
mod findings;
mod host;
mod kit;
mod server;
mod store;

use findings::Findings;

/// Proves the whole path: configuration, keys, stores, PostgreSQL, and a segment through the archive and back.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do not force a segment through the archive.
    #[arg(long)]
    no_segment: bool,
}

/// What the checks look at.
struct Subject<'a> {
    ctx: &'a Context,
    config: &'a Config,
    cluster: &'a ClusterConfig,
}

pub fn run(ctx: &Context, args: &Args) -> Result<Outcome> {
    let config = ctx.load_config()?;
    // The probes are written into the stores.
    config.require_encryption()?;
    let cluster = ctx.cluster(&config)?;
    as_owner::become_owner(&cluster.connection, cluster.data_directory.as_deref())?;
    let subject = Subject { ctx, config: &config, cluster };
    let findings = ctx.block_on_light(subject.all(args))?;
    let failed = findings.failed();
    if ctx.json {
        ctx.print_json(&json!({ "checks": findings.list, "failed": failed, "warnings": findings.warned() }))?;
    } else {
        let lines: Vec<String> = findings.list.iter().map(findings::Finding::text).collect();
        ctx.print(&lines.join("\n"))?;
    }
    if failed == 0 {
        ctx.say(&format!("all checks passed, {} warnings", findings.warned()));
        return Ok(Outcome::Done);
    }
    let what = format!("{failed} of {} checks failed", findings.list.len());
    report::to_stderr(&report::error_text(&Error::new(Code::CheckFailed, what)));
    Ok(Outcome::Finding)
}

impl Subject<'_> {
    async fn all(&self, args: &Args) -> Findings {
        let mut findings = Findings::default();
        findings.ok("configuration", format!("{} has no faults", self.config.path.display()));
        host::keys(self.config, &mut findings);
        let connected = self.connect(&mut findings).await;
        if let Some((session, facts)) = &connected {
            let pending = session.pending_restart().await.unwrap_or_default();
            server::settings(self, facts, &pending, &mut findings);
            server::rights(session, &mut findings).await;
            server::archiver(session, &mut findings).await;
            host::data_directory(self.config, self.cluster, facts, &mut findings);
            host::tools(self.cluster, facts, &mut findings).await;
            dumps::all(self, &mut findings).await;
            canary::all(self, &mut findings).await;
        }
        let facts = connected.as_ref().map(|(_, facts)| facts);
        let repositories = store::all(self, facts, &mut findings).await;
        kit::all(self, &repositories, &mut findings).await;
        match &connected {
            Some((session, facts)) if !args.no_segment => {
                archive::round_trip(self, session, facts, &repositories, &mut findings).await;
            }
            _ => {}
        }
        findings
    }

    async fn connect(&self, findings: &mut Findings) -> Option<(Session, ServerFacts)> {
        let connected = async {
            let session = crate::postgres::connect::connect(&self.cluster.connection).await?;
            let facts = session.facts().await?;
            Ok::<_, Error>((session, facts))
        };
        match connected.await {
            Ok((session, facts)) => {
                let role = if facts.in_recovery { "a standby" } else { "a primary" };
                findings.ok(
                    "connection",
                    format!(
                        "{} as {}: PostgreSQL {}, {role}, system identifier {}",
                        session.place(),
                        facts.user,
                        facts.version_text,
                        facts.system_identifier
                    ),
                );
                Some((session, facts))
            }
            Err(error) => {
                findings.error("connection", &error);
                None
            }
        }
    }
}
