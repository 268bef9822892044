//! The server and the disk that WAL is written to.

use std::time::Duration;

use super::Finding;
use crate::agent::board::{ClusterFacts, ServerFacts, Severity};
use crate::config::AlertsConfig;
use crate::model::{ClusterName, Timestamp};
use crate::util::human;

/// A forecast from a short burst is not worth a call.
const FORECAST_HOLD: Duration = Duration::from_mins(2);
const LOW_HOLD: Duration = Duration::from_mins(1);
/// Somebody may be between two settings.
const OFF_HOLD: Duration = Duration::from_mins(1);
/// It is asked every few seconds; who has not been for so long is not asked any more.
const UNASKED: Duration = Duration::from_mins(5);

pub(super) fn findings(
    name: &ClusterName,
    facts: &ClusterFacts,
    config: &AlertsConfig,
    now: Timestamp,
) -> Vec<Finding> {
    let server = &facts.server;
    let disk = format!("df -h; pgkeep check --cluster {name}");
    let mut found = Vec::new();
    found.extend(
        unreachable(name, server, config, now).map(|f| f.mend(format!("pgkeep check --cluster {name}"))),
    );
    found.extend(archiving_off(name, server));
    found.extend(full_soon(name, server, config).map(|f| f.mend(&disk)));
    found.extend(low(name, server, config).map(|f| f.mend(&disk)));
    found
}

fn of(rule: &'static str, name: &ClusterName) -> Finding {
    Finding::new(rule, "cluster", name)
}

fn unreachable(
    name: &ClusterName,
    server: &ServerFacts,
    config: &AlertsConfig,
    now: Timestamp,
) -> Option<Finding> {
    let unasked = server.asked_at.filter(|at| now.since(*at) > UNASKED.max(config.server_unreachable));
    let (summary, hold) = match (&server.error, unasked) {
        (Some(error), _) => {
            (format!("cluster {name}: PostgreSQL does not answer: {error}"), config.server_unreachable)
        }
        (None, Some(at)) => {
            (format!("cluster {name}: PostgreSQL has not been asked since {}", at.human()), Duration::ZERO)
        }
        (None, None) => return None,
    };
    Some(of("server-unreachable", name).critical().says(summary).hold(hold))
}

/// No file waits then, so that nothing else says it.
fn archiving_off(name: &ClusterName, server: &ServerFacts) -> Option<Finding> {
    let summary =
        format!("PostgreSQL of cluster {name} does not archive its WAL (archive_mode, archive_command)");
    let finding =
        of("archiving-off", name).critical().says(summary).mend("pgkeep init --apply").hold(OFF_HOLD);
    server.archiving_off.then_some(finding)
}

fn full_soon(name: &ClusterName, server: &ServerFacts, config: &AlertsConfig) -> Option<Finding> {
    let left = Duration::from_secs(server.wal_disk_full_in_seconds?);
    let severity = if left < config.disk_full_critical {
        Severity::Critical
    } else if left < config.disk_full_warning {
        Severity::Warning
    } else {
        return None;
    };
    let summary = format!(
        "cluster {name}: the disk of pg_wal is full in {} as it grows now ({} free)",
        human::span(left),
        human::size(server.wal_disk_free_bytes)
    );
    Some(of("disk-full-soon", name).severity(severity).says(summary).hold(FORECAST_HOLD))
}

fn low(name: &ClusterName, server: &ServerFacts, config: &AlertsConfig) -> Option<Finding> {
    let (free, all) = (u128::from(server.wal_disk_free_bytes), u128::from(server.wal_disk_bytes));
    // Thousandths, so that half of a percentage is exact.
    let (free, bound) = (free * 1000, all * u128::from(config.disk_free) * 10);
    if all == 0 || free >= bound {
        return None;
    }
    let severity = if free * 2 < bound { Severity::Critical } else { Severity::Warning };
    let summary = format!(
        "cluster {name}: only {} of {} are free on the disk of pg_wal",
        human::size(server.wal_disk_free_bytes),
        human::size(server.wal_disk_bytes)
    );
    Some(of("disk-low", name).severity(severity).says(summary).hold(LOW_HOLD))
}
