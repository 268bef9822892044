//! The backups that the repositories hold.

use std::time::Duration;

use super::Finding;
use crate::agent::board::BackupFacts;
use crate::config::AlertsConfig;
use crate::model::{ClusterName, Timestamp};
use crate::util::human;

/// A new cluster is given the time for its first backup.
const MISSING_HOLD: Duration = Duration::from_hours(1);
/// The catalog is read every few minutes.
const UNREAD: Duration = Duration::from_hours(6);

pub(super) fn findings(
    name: &ClusterName,
    facts: &BackupFacts,
    config: &AlertsConfig,
    now: Timestamp,
) -> Vec<Finding> {
    let of = |rule| Finding::new(rule, "cluster", name);
    let backup = format!("pgkeep backup --cluster {name}");
    let mut found = Vec::new();
    match &facts.last_full {
        None if facts.seen_at.is_some() => {
            let summary = format!("cluster {name}: no repository has a full backup");
            found.push(of("backup-missing").critical().says(summary).mend(&backup).hold(MISSING_HOLD));
        }
        None => {}
        Some(last) => {
            let earlier = facts.earlier_fulls.iter().map(|backup| backup.bytes_raw);
            if let Some(what) = unusual(last.bytes_raw, earlier, config) {
                let summary = format!("cluster {name}: the full backup {} {what}", last.id);
                found.push(of("backup-size").says(summary).mend(format!("pgkeep list --cluster {name}")));
            }
        }
    }
    // The last full one that counts is never damaged; a newer one may be.
    if let Some(bad) = facts.last.values().chain(&facts.last_full).find(|backup| backup.damaged) {
        let summary = format!("cluster {name}: the last backup of its kind, {}, has damaged pages", bad.id);
        let show = format!("pgkeep show {} --cluster {name}", bad.id);
        found.push(of("backup-damaged").critical().says(summary).mend(show));
    }
    if let Some(at) = facts.seen_at
        && now.since(at) > UNREAD
    {
        let summary =
            format!("cluster {name}: what backups there are has not been read since {}", at.human());
        found.push(of("backups-unread").says(summary).mend(format!("pgkeep list --cluster {name}")));
    }
    if let Some(at) = facts.proved_at
        && now.since(at) > config.proof_age
    {
        let summary = format!("cluster {name}: the last proof by a restore is of {}", at.human());
        found.push(of("proof-stale").says(summary).mend(format!("pgkeep drill --cluster {name}")));
    }
    found
}

/// What is remarkable about a backup's size beside the average of earlier ones.
pub(super) fn unusual(
    bytes: u64,
    earlier: impl Iterator<Item = u64>,
    config: &AlertsConfig,
) -> Option<String> {
    let (mut sum, mut count) = (0u128, 0u128);
    for size in earlier {
        sum += u128::from(size);
        count += 1;
    }
    let average = sum.checked_div(count).filter(|average| *average > 0)?;
    let percent = u128::from(bytes) * 100;
    let (low, high) =
        (average * u128::from(config.backup_size_low), average * u128::from(config.backup_size_high));
    if (low..=high).contains(&percent) {
        return None;
    }
    let usual = human::size(u64::try_from(average).unwrap_or(u64::MAX));
    Some(format!("has {}, {} % of the usual {usual}", human::size(bytes), percent / average))
}
