//! `pgkeep list`: the catalog.

use serde_json::json;

use super::catalogs::{self, Held, Holdings};
use super::context::{Context, Outcome};
use super::table::table;
use crate::error::Result;
use crate::util::human;

/// Lists the backups of a cluster, oldest first.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(ctx: &Context, _: &Args) -> Result<Outcome> {
    let config = ctx.load_config()?;
    let holdings = ctx.block_on_light(catalogs::load(ctx, &config))??;
    if ctx.json {
        ctx.print_json(&document(&holdings))?;
    } else {
        ctx.print(&text(&holdings))?;
    }
    for doubt in holdings.doubts() {
        super::report::to_stderr(&doubt);
    }
    Ok(holdings.outcome())
}

fn text(holdings: &Holdings) -> String {
    if holdings.backups.is_empty() && holdings.unfinished.is_empty() {
        return format!("no backups of cluster {} yet; `pgkeep backup` takes one", holdings.cluster);
    }
    let heads =
        ["ID", "STARTED", ">TOOK", ">SIZE", ">STORED", ">RATIO", "TL", "WAL", "REPOSITORIES", "STATE"];
    let finished = holdings.backups.iter().map(row);
    let unfinished = holdings.unfinished.iter().map(|(repo, id, bytes)| {
        let blank = String::new;
        vec![
            id.to_string(),
            blank(),
            blank(),
            blank(),
            human::size(*bytes),
            blank(),
            blank(),
            blank(),
            repo.to_string(),
            "running or unfinished".to_owned(),
        ]
    });
    table(&heads, finished.chain(unfinished))
}

fn row(held: &Held) -> Vec<String> {
    let record = &held.record;
    let base = record.base.as_ref();
    vec![
        record.id.to_string(),
        record.started_at.human(),
        human::span(record.finished_at.since(record.started_at)),
        human::size(record.bytes_raw),
        human::size(record.bytes_stored),
        ratio(record.bytes_raw, record.bytes_stored),
        base.map_or_else(String::new, |b| b.timeline.to_string()),
        match (base, &record.logical) {
            (Some(b), _) => format!("{}..{}", b.start_lsn, b.stop_lsn),
            (None, Some(logical)) => logical.snapshot_lsn.to_string(),
            (None, None) => String::new(),
        },
        held.repositories_text(),
        held.state(),
    ]
}

/// Raw to stored, as people say it.
pub fn ratio(raw: u64, stored: u64) -> String {
    if stored == 0 { String::new() } else { format!("{:.1}:1", raw as f64 / stored as f64) }
}

fn document(holdings: &Holdings) -> serde_json::Value {
    let backups = holdings.backups.iter().map(entry);
    let unfinished = holdings
        .unfinished
        .iter()
        .map(|(repo, id, bytes)| json!({ "id": id, "repository": repo, "bytes_stored": bytes }));
    json!({
        "cluster": holdings.cluster,
        "backups": backups.collect::<Vec<_>>(),
        "unfinished": unfinished.collect::<Vec<_>>(),
        "doubts": holdings.doubts_json(),
    })
}

/// One backup as `list --json` gives it; `show --json` gives the whole record.
fn entry(held: &Held) -> serde_json::Value {
    let record = &held.record;
    let base = record.base.as_ref();
    json!({
        "id": record.id,
        "kind": record.kind,
        "host": record.host,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "stop_time": base.map(|b| b.stop_time),
        "bytes_raw": record.bytes_raw,
        "bytes_stored": record.bytes_stored,
        "pg_version": record.pg_version,
        "system_identifier": record.system_identifier,
        "timeline": base.map(|b| b.timeline),
        "start_lsn": base.map(|b| b.start_lsn),
        "stop_lsn": base.map(|b| b.stop_lsn),
        "wal_first": base.map(|b| b.wal_first),
        "wal_last": base.map(|b| b.wal_last),
        "databases": record.logical.as_ref().map(|l| &l.databases),
        "snapshot_at": record.logical.as_ref().map(|l| l.snapshot_at),
        "rows": record.logical.as_ref().map(|l| l.rows),
        "warnings": record.logical.as_ref().map(|l| l.warnings),
        "repositories": held.repositories,
        "trusted": held.trust == crate::repository::signature::Verdict::Trusted,
        "damaged": record.is_damaged(),
        "marks": held.marks.iter().map(|m| json!({ "mark": m.mark, "at": m.at })).collect::<Vec<_>>(),
        "state": held.state(),
    })
}
