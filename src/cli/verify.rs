//! `pgkeep verify [ID…] [--wal] [--deep] [--budget SIZE] [--heal]`.
//!
//! One line for each finding on standard output, with what it means for which restores; a summary for each repository.
//! Exit 4 with findings, 1 where something could not be looked at.

use serde_json::{Value, json};

use super::context::{Context, Outcome};
use super::report;
use crate::config::value;
use crate::error::{Code, Error, Result};
use crate::model::BackupId;
use crate::postgres::as_owner;
use crate::util::clock::Clock;
use crate::util::human;
use crate::verify::integrity::{Keys, Report, RepositoryReport, Request, Scope, verify};

/// Looks at everything that is stored: is it there, unchanged, signed, and enough to restore from?
#[derive(Debug, clap::Args)]
pub struct Args {
    /// These backups, with the WAL that they need to be consistent; without any, all backups and all WAL.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// All WAL: alone, or besides the named backups.
    #[arg(long)]
    wal: bool,
    /// Check every WAL record, too.
    #[arg(long)]
    deep: bool,
    /// Read at most so much, what was checked longest ago first; the next run goes on. Of all repositories together.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    budget: Option<u64>,
    /// Bring what is damaged or missing from another repository.
    #[arg(long)]
    heal: bool,
}

fn size(text: &str) -> Result<u64, String> {
    value::size(text).ok_or_else(|| "expected a size such as \"10GiB\"".to_owned())
}

impl Args {
    fn scope(&self) -> Result<Scope> {
        let ids = self.ids.iter().map(|id| id.parse::<BackupId>()).collect::<Result<Vec<_>>>()?;
        Ok(match (ids.is_empty(), self.wal) {
            (true, false) => Scope::All,
            (true, true) => Scope::Wal,
            (false, wal) => Scope::Backups { ids, wal },
        })
    }
}

pub fn run(ctx: &Context, args: &Args) -> Result<Outcome> {
    let config = ctx.load_config()?;
    let cluster = ctx.cluster(&config)?;
    let scope = args.scope()?;
    let keys = Keys::load(&config)?;
    // As root: what is written into a repository has the owner that everything there has. A host without the server
    // has no such owner.
    if let Err(error) = as_owner::become_owner(&cluster.connection, cluster.data_directory.as_deref()) {
        tracing::debug!(%error, "not as the server's owner");
    }
    let request = Request {
        config: &config,
        keys,
        cluster: &cluster.name,
        only: ctx.repo.as_ref(),
        scope,
        deep: args.deep,
        heal: args.heal,
        budget: args.budget,
        label: None,
        clock: Clock::system(),
        progress: ctx.progress(),
        cancel: ctx.cancel.clone(),
    };
    let runtime = ctx.runtime()?;
    let done = runtime.block_on(verify(&request));
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    drop(request);
    let done = done?;
    if ctx.json {
        ctx.print_json(&document(&done))?;
    } else {
        ctx.print(&text(&done))?;
    }
    conclude(done)
}

/// Findings come before what could not be looked at: they are what is known.
fn conclude(done: Report) -> Result<Outcome> {
    let findings = done.findings().count();
    if findings > 0 {
        let things = if findings == 1 {
            "1 thing is wrong".to_owned()
        } else {
            format!("{findings} things are wrong")
        };
        let keys = done.findings().all(|f| f.kind == crate::verify::integrity::Kind::WrongKey);
        let mut error = Error::new(Code::RepositoryDamaged, things);
        if keys {
            error = error.see("key-lost.md");
        } else if done.repositories.len() > 1 || !done.unavailable.is_empty() {
            error =
                error.hint("`pgkeep verify --heal` brings from another repository what that one has whole");
        }
        report::to_stderr(&report::error_text(&error));
    }
    for (name, required, error) in &done.unavailable {
        let kind = if *required { "required" } else { "optional" };
        report::to_stderr(&format!("WARNING: {kind} repository {name} was not looked at: {error}"));
    }
    let mut broken = done.repositories.into_iter().filter_map(|r| Some((r.name, r.interrupted?)));
    let down =
        done.unavailable.into_iter().filter(|(_, required, _)| *required).map(|(name, _, e)| (name, e));
    match broken.next().or_else(|| {
        let mut down = down;
        down.next()
    }) {
        Some((name, error)) if findings == 0 => {
            Err(error.while_doing(format!("the look at {name} did not come to its end")))
        }
        Some((name, error)) => {
            report::to_stderr(&format!("WARNING: the look at {name} did not come to its end: {error}"));
            Ok(Outcome::Finding)
        }
        None if findings > 0 => Ok(Outcome::Finding),
        None => Ok(Outcome::Done),
    }
}

fn text(done: &Report) -> String {
    let mut lines = Vec::new();
    for repository in &done.repositories {
        lines.extend(repository.findings.iter().map(|finding| format!("FINDING {finding}")));
        let name = &repository.name;
        for healed in &repository.healed {
            lines.push(format!("{name}: healed from {}: {}", healed.from, healed.replacement));
        }
        lines.extend(repository.unproved.iter().map(|what| format!("{name}: unproved: {what}")));
        lines.extend(repository.notes.iter().map(|note| format!("{name}: note: {note}")));
        lines.push(summary(repository));
    }
    lines.join("\n")
}

fn summary(repository: &RepositoryReport) -> String {
    let counts = &repository.counts;
    let mut line = format!(
        "{}: {} read: {} objects of backups ({} backups to their last object), {} WAL objects",
        repository.name,
        human::size(counts.bytes),
        counts.backup_objects,
        counts.backups,
        counts.wal_objects
    );
    if repository.left.0 > 0 {
        let (objects, bytes) = repository.left;
        line.push_str(&format!("; {objects} objects ({}) are left for the next time", human::size(bytes)));
    }
    match repository.expiring {
        0 => {}
        1 => line.push_str("; 1 backup is marked as expiring"),
        n => line.push_str(&format!("; {n} backups are marked as expiring")),
    }
    for id in &repository.absent {
        line.push_str(&format!("; {id} is not here"));
    }
    let healed = repository.healed.len();
    if healed > 0 {
        line.push_str(&format!("; {healed} healed"));
    }
    line.push_str(match (repository.findings.len(), &repository.interrupted) {
        (_, Some(_)) => "; ended early",
        (0, None) if healed > 0 => "; nothing else wrong",
        (0, None) if !repository.absent.is_empty() => "; nothing wrong with what was looked at",
        (0, None) => "; nothing wrong",
        (1, None) => "; 1 finding",
        _ => "; findings above",
    });
    line
}

fn document(done: &Report) -> Value {
    let repositories = done.repositories.iter().map(|r| {
        json!({
            "repository": r.name,
            "required": r.required,
            "checked": r.counts,
            "findings": r.findings,
            "healed": r.healed,
            "expiring": r.expiring,
            "absent": r.absent,
            "unproved": r.unproved,
            "left": { "objects": r.left.0, "bytes": r.left.1 },
            "oldest_check": r.oldest,
            "notes": r.notes,
            "interrupted": r.interrupted.as_ref().map(report::error_json),
        })
    });
    let unavailable = done.unavailable.iter().map(|(name, required, error)| {
        json!({ "repository": name, "required": required, "code": error.code().as_str(), "message": error.to_string() })
    });
    json!({
        "repositories": repositories.collect::<Vec<_>>(),
        "unavailable": unavailable.collect::<Vec<_>>(),
        "complete": done.is_complete(),
    })
}
