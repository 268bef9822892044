//! WAL: what waits, what fails, what is lost.

use std::time::Duration;

use super::Finding;
use crate::agent::board::{ArchiveFacts, ClusterFacts, HoleFacts};
use crate::config::AlertsConfig;
use crate::model::{ClusterName, SegmentName, Timestamp};
use crate::util::human;

const TAIL_HOLD: Duration = Duration::from_secs(30);
/// Names in one message.
const NAMED: usize = 3;

pub(super) fn findings(
    name: &ClusterName,
    facts: &ClusterFacts,
    started_at: Timestamp,
    config: &AlertsConfig,
    now: Timestamp,
) -> Vec<Finding> {
    let mut found = Vec::new();
    let archive = &facts.archive;
    let check = format!("pgkeep check --cluster {name}");
    found.extend(lag(name, archive, config, now).map(|f| f.mend(&check)));
    if let Some(at) = archive.scanned_at
        && now.since(at) > config.archive_lag
    {
        let summary = format!("cluster {name}: nobody has looked for WAL to archive since {}", at.human());
        found.push(of("archiver-silent", name).critical().says(summary).mend("systemctl restart pgkeep"));
    }
    if let Some(failure) = &archive.failure {
        let summary = format!("cluster {name}: archiving fails: {}", failure.text);
        found.push(of("archive-failing", name).says(summary).mend(&check).hold(config.archive_failing));
    }
    found.extend(tail(name, facts, started_at, config, now).map(|f| f.mend(&check)));
    found.extend(lost(name, archive));
    found
}

fn of(rule: &'static str, name: &ClusterName) -> Finding {
    Finding::new(rule, "cluster", name)
}

fn lag(name: &ClusterName, archive: &ArchiveFacts, config: &AlertsConfig, now: Timestamp) -> Option<Finding> {
    let since = archive.waiting_since.filter(|since| now.since(*since) > config.archive_lag)?;
    let mut summary = format!(
        "cluster {name}: {} WAL files ({}) wait to be archived, the oldest since {}",
        archive.waiting_files,
        human::size(archive.waiting_bytes),
        since.human()
    );
    if let Some(failure) = &archive.failure {
        summary.push_str(&format!("; last failure: {}", failure.text));
    }
    Some(of("archive-lag", name).critical().says(summary))
}

fn tail(
    name: &ClusterName,
    facts: &ClusterFacts,
    started_at: Timestamp,
    config: &AlertsConfig,
    now: Timestamp,
) -> Option<Finding> {
    // A server that is down writes nothing that could be lost, and a standby's WAL is its primary's to ship.
    if !facts.tail.enabled || facts.server.in_recovery || facts.server.error.is_some() {
        return None;
    }
    let since = facts.tail.current_at.unwrap_or(started_at);
    if now.since(since) <= config.tail_lag {
        return None;
    }
    let why = facts.tail.failure.as_ref().map_or_else(String::new, |f| format!("; last failure: {}", f.text));
    let summary =
        format!("cluster {name}: a host lost now loses what was committed since {}{why}", since.human());
    Some(of("tail-behind", name).says(summary).hold(TAIL_HOLD))
}

fn lost(name: &ClusterName, archive: &ArchiveFacts) -> Vec<Finding> {
    let mut found = Vec::new();
    let window = format!("pgkeep window --cluster {name}");
    if !archive.holes.is_empty() {
        let hole = |h: &HoleFacts| {
            if h.first == h.last { h.first.to_string() } else { format!("{} to {}", h.first, h.last) }
        };
        let summary = format!(
            "cluster {name}: WAL is lost from the archive: {}; no recovery passes it",
            listed(&archive.holes, hole)
        );
        found.push(
            of("wal-hole", name).critical().says(summary).mend(format!("pgkeep backup --cluster {name}")),
        );
    }
    if !archive.damaged.is_empty() {
        let summary = format!(
            "cluster {name}: damaged WAL was archived: {}; recovery ends there",
            listed(&archive.damaged, SegmentName::to_string)
        );
        found.push(
            of("wal-damaged", name).critical().says(summary).mend(format!("pgkeep backup --cluster {name}")),
        );
    }
    if !archive.conflicts.is_empty() {
        let summary = format!(
            "cluster {name}: the archive holds other content under the name {}: two servers archive into one place",
            listed(&archive.conflicts, SegmentName::to_string)
        );
        found.push(of("wal-conflict", name).critical().says(summary).mend(window));
    }
    found
}

fn listed<T>(all: &[T], text: impl Fn(&T) -> String) -> String {
    let mut names: Vec<String> = all.iter().take(NAMED).map(text).collect();
    if all.len() > NAMED {
        names.push(format!("{} more", all.len() - NAMED));
    }
    names.join(", ")
}
