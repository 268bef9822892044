//! `pgkeep window`: from when to when each timeline can be recovered, and every hole.
//!
//! Where WAL can be opened, a range ends with its last commit. A host without the identity sees positions and the
//! store's own times, and they are labelled as that: the time when a segment was stored is not the time of a commit.

use serde_json::json;

use super::catalogs::{self, Holdings};
use super::context::{Context, Outcome};
use super::window_read::{self, SystemWindow};
use crate::error::Result;
use crate::repository::window::{Range, TimelineWindow};

/// Shows from when to when each timeline can be recovered, and every hole.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(ctx: &Context, _: &Args) -> Result<Outcome> {
    let config = ctx.load_config()?;
    let (holdings, systems) = ctx.block_on_light(async {
        let holdings = catalogs::load(ctx, &config).await?;
        let systems = window_read::windows(&config, &holdings).await?;
        Ok::<_, crate::error::Error>((holdings, systems))
    })??;
    if ctx.json {
        ctx.print_json(&document(&holdings, &systems))?;
    } else {
        ctx.print(&text(&holdings, &systems))?;
    }
    for doubt in holdings.doubts() {
        super::report::to_stderr(&doubt);
    }
    Ok(holdings.outcome())
}

fn document(holdings: &Holdings, systems: &[SystemWindow]) -> serde_json::Value {
    let systems = systems.iter().map(|s| {
        json!({
            "system_identifier": s.system,
            "pg_major": s.major,
            "commit_times": s.commit_times,
            "timelines": s.window.timelines,
            "forks": s.window.forks,
            "notes": s.notes,
        })
    });
    json!({
        "cluster": holdings.cluster,
        "systems": systems.collect::<Vec<_>>(),
        "doubts": holdings.doubts_json(),
    })
}

fn text(holdings: &Holdings, systems: &[SystemWindow]) -> String {
    let mut lines = Vec::new();
    if systems.is_empty() {
        lines.push(format!(
            "cluster {}: no system identifier is listed; `pgkeep init` does that",
            holdings.cluster
        ));
    }
    for system in systems {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.push(format!(
            "cluster {}, PostgreSQL {}, system identifier {}",
            holdings.cluster, system.major, system.system
        ));
        if system.window.timelines.is_empty() {
            lines.push("  nothing archived yet".to_owned());
        }
        for timeline in &system.window.timelines {
            timeline_text(timeline, system.commit_times, &mut lines);
        }
        for fork in &system.window.forks {
            let digests: Vec<String> = fork.digests.iter().map(ToString::to_string).collect();
            lines.push(format!(
                "  FORK: {} has {} contents ({}): two servers archive into one place",
                fork.file,
                digests.len(),
                digests.join(", ")
            ));
        }
        lines.extend(system.notes.iter().map(|note| format!("  note: {note}")));
    }
    lines.join("\n")
}

fn timeline_text(timeline: &TimelineWindow, commit_times: bool, lines: &mut Vec<String>) {
    let from =
        timeline.parent.map_or_else(String::new, |(parent, at)| format!(", left timeline {parent} at {at}"));
    lines.push(format!("timeline {}{from}", timeline.timeline));
    if timeline.ranges.is_empty() {
        let why = if timeline.exact {
            "no backup leads to it"
        } else {
            "no backup was taken on it, and its history file cannot be opened without the identity"
        };
        lines.push(format!("  cannot be recovered: {why}"));
    }
    for range in &timeline.ranges {
        lines.push(format!(
            "  from {} ({}, backup {})",
            range.from_time.human(),
            range.from,
            range.from_backup
        ));
        lines.push(format!("  to   {}", end_text(range, commit_times)));
    }
    for hole in &timeline.holes {
        let to = hole.to.map_or_else(|| "the end".to_owned(), |to| to.to_string());
        let why = if hole.damaged { "damaged" } else { "missing" };
        lines.push(format!("  HOLE from {} to {to}: {} is {why}", hole.from, hole.first_missing));
    }
}

fn end_text(range: &Range, commit_times: bool) -> String {
    let place = format!("{} on timeline {}", range.until, range.until_timeline);
    match (range.last_commit, range.last_stored) {
        // What was committed before the backup was complete is in it.
        (Some(commit), _) if commit < range.from_time => {
            format!(
                "{place} (nothing was committed after the backup; the last commit was {})",
                commit.human()
            )
        }
        (Some(commit), _) => format!("{} (last commit; WAL ends at {place})", commit.human()),
        (None, _) if commit_times => format!("{place} (no commit in the last segments)"),
        (None, Some(stored)) => {
            format!(
                "{place} (last WAL stored {}, by the store's clock; commit times need the identity)",
                stored.human()
            )
        }
        (None, None) => format!("{place} (commit times need the identity)"),
    }
}
