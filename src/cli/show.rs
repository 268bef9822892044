//! `pgkeep show ID`: one backup.

use serde_json::json;

use super::catalogs::{self, Held};
use super::context::{Context, Outcome};
use super::list::ratio;
use super::table::facts;
use crate::error::{Code, Error, Result};
use crate::model::BackupId;
use crate::util::human;

/// Shows one backup: what it is, what it needs, what it holds.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// As `pgkeep list` shows it.
    #[arg(value_name = "ID")]
    id: String,
}

pub fn run(ctx: &Context, args: &Args) -> Result<Outcome> {
    let id: BackupId = args.id.parse()?;
    let config = ctx.load_config()?;
    let holdings = ctx.block_on_light(catalogs::load(ctx, &config))??;
    for doubt in holdings.doubts() {
        super::report::to_stderr(&doubt);
    }
    let Some(held) = holdings.backups.iter().find(|held| held.record.id == id) else {
        let unfinished = holdings.unfinished.iter().any(|(_, other, _)| *other == id);
        let what = if unfinished {
            "this backup is running or was never finished"
        } else {
            "there is no such backup"
        };
        return Err(Error::new(Code::NoBackup, what).at(&id).hint("`pgkeep list` shows them"));
    };
    if ctx.json {
        ctx.print_json(&json!({
            "record": held.record,
            "repositories": held.repositories,
            "state": held.state(),
            "marks": held.marks.iter().map(|m| json!({ "mark": m.mark, "at": m.at })).collect::<Vec<_>>(),
        }))?;
    } else {
        ctx.print(&text(held))?;
    }
    Ok(holdings.outcome())
}

fn text(held: &Held) -> String {
    let record = &held.record;
    let took = human::span(record.finished_at.since(record.started_at));
    let mut lines = vec![
        ("id", record.id.to_string()),
        ("kind", record.kind.to_string()),
        ("state", held.state()),
        ("cluster", format!("{}, system identifier {}", record.cluster, record.system_identifier)),
        (
            "host",
            format!("{}, pgkeep {}, PostgreSQL {}", record.host, record.pgkeep_version, record.pg_version),
        ),
        ("started", record.started_at.human()),
        ("finished", format!("{} ({took})", record.finished_at.human())),
        (
            "size",
            format!(
                "{}, stored {} ({}) in {} objects",
                human::size(record.bytes_raw),
                human::size(record.bytes_stored),
                ratio(record.bytes_raw, record.bytes_stored),
                record.objects.len()
            ),
        ),
        ("repositories", held.repositories_text()),
        ("codec", record.codec.clone()),
        ("recipients", record.recipients.join("\n")),
        ("label", record.label.clone().unwrap_or_default()),
    ];
    if let Some(base) = &record.base {
        let from = if base.from_standby { "a standby" } else { "the primary" };
        let checksums = if base.data_checksums { "on" } else { "off" };
        lines.extend([
            ("taken from", from.to_owned()),
            ("timeline", base.timeline.to_string()),
            ("consistent at", format!("{} ({})", base.stop_lsn, base.stop_time.human())),
            (
                "WAL needed",
                format!("{}..{}, {} to {}", base.start_lsn, base.stop_lsn, base.wal_first, base.wal_last),
            ),
            ("checksums", checksums.to_owned()),
            ("bad pages", each(&base.page_errors, |e| format!("{}: blocks {:?}", e.file, e.blocks))),
            ("tablespaces", each(&base.tablespaces, |t| format!("{} {}", t.oid, t.location))),
            ("needs", each(&base.requires, ToString::to_string)),
        ]);
    }
    if let Some(logical) = &record.logical {
        lines.extend([
            ("databases", logical.databases.join(", ")),
            ("tables", format!("{} with {} rows", logical.tables, logical.rows)),
            ("snapshot", format!("{} ({})", logical.snapshot_at.human(), logical.snapshot_lsn)),
            ("made by", logical.tool_version.clone()),
            ("warnings", logical.warnings.to_string()),
        ]);
    }
    lines.push(("marks", each(&held.marks, |mark| format!("{} {}", mark.at.human(), mark.mark))));
    facts(&lines)
}

fn each<T>(items: &[T], line: impl Fn(&T) -> String) -> String {
    items.iter().map(line).collect::<Vec<_>>().join("\n")
}
