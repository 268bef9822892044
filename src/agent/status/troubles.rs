//! What is wrong now, each with the command that mends it or shows more.
//!
//! Keys are those of the alerts about the same thing (`rule:subject`), so that both are told as one.

use std::time::Duration;

use serde::Serialize;

use super::AgentState;
use super::lines::{set_up, waiting};
use crate::agent::board::{ClusterFacts, JobFacts, RunOutcome, ServerFacts, Severity, Snapshot, StoreFacts};
use crate::agent::readiness::PATIENCE;
use crate::config::AlertsConfig;
use crate::model::{ClusterName, RepoName, Timestamp};
use crate::util::human::{self, rough};

/// An agent that has just started has not looked at everything.
const BEGINNING: Duration = Duration::from_mins(1);
/// A failing task is started again after a minute at the latest.
const RECENT: Duration = Duration::from_mins(3);

/// Something wrong and what mends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// As in alerts: rule and subject.
    pub key: String,
    pub critical: bool,
    pub what: String,
    /// A command.
    pub mend: String,
    /// Since when an alert about it is open.
    pub since: Option<Timestamp>,
    /// A page in `runbooks/`.
    pub runbook: Option<String>,
}

fn trouble(key: String, critical: bool, what: impl Into<String>, mend: impl Into<String>) -> Trouble {
    Trouble { key, critical, what: what.into(), mend: mend.into(), since: None, runbook: None }
}

pub(super) fn all(
    snapshot: &Snapshot,
    agent: &AgentState,
    thresholds: &AlertsConfig,
    now: Timestamp,
) -> Vec<Trouble> {
    let mut found = Vec::new();
    if let AgentState::Down { why } = agent {
        let what = format!("the agent does not run: {why}");
        found.push(trouble("agent-down".into(), true, what, "systemctl restart pgkeep"));
    }
    let watched = matches!(agent, AgentState::Running { .. });
    found.extend(own(snapshot, now));
    for (name, store) in &snapshot.repositories {
        found.extend(of_store(name, store));
    }
    if snapshot.clusters.is_empty() {
        let what = "no cluster has been looked at yet";
        found.push(trouble("clusters".into(), true, what, "journalctl -u pgkeep -e"));
    }
    let settled = watched && now.since(snapshot.started_at) > BEGINNING;
    for (name, facts) in &snapshot.clusters {
        found.extend(of_server(name, &facts.server, settled, now));
        found.extend(of_disk(name, &facts.server, thresholds));
        found.extend(of_archive(name, facts, snapshot, settled, now));
        found.extend(of_backups(name, facts, snapshot));
    }
    for (name, job) in &snapshot.jobs {
        found.extend(of_job(name, job));
    }
    join_alerts(&mut found, snapshot);
    found.sort_by_key(|trouble| !trouble.critical);
    found
}

/// What follows from archiving that fails is not told beside it.
const OF_FAILING: [&str; 2] = ["archive-lag", "tail-behind"];

fn join_alerts(found: &mut Vec<Trouble>, snapshot: &Snapshot) {
    for alert in &snapshot.alerts {
        let told = |key: &str| found.iter().position(|trouble| trouble.key == key);
        let cause = alert.key.split_once(':').filter(|(rule, _)| OF_FAILING.contains(rule));
        let cause = cause.and_then(|(_, cluster)| told(&format!("archive-failing:{cluster}")));
        if let Some(same) = told(&alert.key).or(cause) {
            let same = &mut found[same];
            same.since = Some(same.since.map_or(alert.since, |since| since.min(alert.since)));
            same.runbook.clone_from(&alert.runbook);
            continue;
        }
        found.push(Trouble {
            key: alert.key.clone(),
            critical: alert.severity == Severity::Critical,
            what: alert.summary.clone(),
            mend: alert.mend.clone(),
            since: Some(alert.since),
            runbook: alert.runbook.clone(),
        });
    }
}

fn own(snapshot: &Snapshot, now: Timestamp) -> Vec<Trouble> {
    let mut found = Vec::new();
    if let Some(refused) = &snapshot.reload_refused {
        let key = format!("configuration-refused:{}", snapshot.host);
        let what = format!("the configuration is wrong, the one before it is in use: {}", refused.text);
        found.push(trouble(key, false, what, "pgkeep config check"));
    }
    for (name, task) in &snapshot.tasks {
        if let Some(failure) = task.failure.as_ref().filter(|failure| now.since(failure.at) < RECENT) {
            let what = format!("a part of the agent fails ({name}): {}", failure.text);
            found.push(trouble(format!("task-failing:{name}"), false, what, "journalctl -u pgkeep -e"));
        }
    }
    for (name, sink) in &snapshot.sinks {
        if let Some(failure) = &sink.failure {
            let what = format!("alerts cannot be sent to {name}: {}", failure.text);
            let mend = format!("pgkeep alerts test --sink {name}");
            found.push(trouble(format!("sink-failing:{name}"), false, what, mend));
        }
    }
    found
}

fn of_store(name: &RepoName, store: &StoreFacts) -> Option<Trouble> {
    let failure = store.failure.as_ref()?;
    let key = format!("store-unreachable:{name}");
    let kind = if store.required { "required" } else { "optional" };
    let what = format!("the {kind} repository {name} fails: {}", failure.text);
    let mend =
        if set_up(store) { format!("pgkeep check --repo {name}") } else { "pgkeep init --apply".to_owned() };
    Some(trouble(key, store.required, what, mend))
}

fn of_server(name: &ClusterName, server: &ServerFacts, settled: bool, now: Timestamp) -> Vec<Trouble> {
    let mut found = Vec::new();
    let check = format!("pgkeep check --cluster {name}");
    let unreachable = match (&server.error, server.asked_at) {
        (Some(error), _) => Some(format!("PostgreSQL of {name} does not answer: {error}")),
        (None, None) if settled => Some(format!("PostgreSQL of {name} has not been asked yet")),
        (None, Some(at)) if now.since(at) > PATIENCE => {
            Some(format!("PostgreSQL of {name} was last asked {} ago", rough(now.since(at))))
        }
        _ => None,
    };
    if let Some(what) = unreachable {
        found.push(trouble(format!("server-unreachable:{name}"), true, what, &check));
    }
    if server.archiving_off {
        let what = format!("PostgreSQL of {name} does not archive its WAL (archive_mode, archive_command)");
        found.push(trouble(format!("archiving-off:{name}"), true, what, "pgkeep init --apply"));
    }
    found
}

fn of_disk(name: &ClusterName, server: &ServerFacts, thresholds: &AlertsConfig) -> Option<Trouble> {
    let check = format!("pgkeep check --cluster {name}");
    let left = server.wal_disk_full_in_seconds.map(Duration::from_secs);
    let (free, all) = (server.wal_disk_free_bytes, server.wal_disk_bytes);
    if let Some(left) = left.filter(|left| *left < thresholds.disk_full_warning) {
        let what = format!(
            "the disk of pg_wal of {name} is full in {} as pg_wal grows now ({} free)",
            rough(left),
            human::size(free)
        );
        return Some(trouble(format!("disk-full-soon:{name}"), true, what, check));
    }
    let little = u128::from(free) * 100 < u128::from(all) * u128::from(thresholds.disk_free);
    little.then(|| {
        let what =
            format!("the disk of pg_wal of {name} has {} of {} free", human::size(free), human::size(all));
        trouble(format!("disk-low:{name}"), false, what, check)
    })
}

fn of_archive(
    name: &ClusterName,
    facts: &ClusterFacts,
    snapshot: &Snapshot,
    settled: bool,
    now: Timestamp,
) -> Vec<Trouble> {
    let mut found = Vec::new();
    let archive = &facts.archive;
    let check = format!("pgkeep check --cluster {name}");
    let waits = archive.waiting_since.map(|since| {
        let span = rough(now.since(since));
        format!("{}, the oldest for {span}", waiting(archive.waiting_files))
    });
    if let Some(failure) = &archive.failure {
        // What the store says is said already.
        let said = snapshot.repositories.values().filter_map(|s| s.failure.as_ref());
        let mut said = said.map(|of_store| of_store.text.as_str());
        let known = said.any(|text| text.contains(&failure.text) || failure.text.contains(text));
        let why = if known { waits.clone().unwrap_or_default() } else { failure.text.clone() };
        let what = format!("archiving of {name} fails: {why}");
        let what = what.trim_end_matches(": ");
        found.push(trouble(format!("archive-failing:{name}"), true, what, &check));
    } else if archive.waiting_since.is_some_and(|since| now.since(since) > PATIENCE) {
        let what = format!("archiving of {name} is behind: {}", waits.unwrap_or_default());
        found.push(trouble(format!("archive-lag:{name}"), true, what, &check));
    }
    if let Some(failure) = &facts.tail.failure
        && archive.failure.is_none()
    {
        let what = format!("the live tail of {name} fails: {}", failure.text);
        found.push(trouble(format!("tail-behind:{name}"), false, what, &check));
    }
    let silent = match archive.scanned_at {
        _ if facts.server.in_recovery => false,
        None => settled && archive.failure.is_none(),
        Some(at) => now.since(at) > PATIENCE,
    };
    if silent {
        let what = format!("nobody looks for the WAL of {name}");
        found.push(trouble(format!("archiver-silent:{name}"), true, what, "systemctl restart pgkeep"));
    }
    found.extend(lost(name, facts));
    found
}

fn lost(name: &ClusterName, facts: &ClusterFacts) -> Vec<Trouble> {
    let archive = &facts.archive;
    let backup = format!("pgkeep backup full --cluster {name}");
    let mut found = Vec::new();
    if let [first, ..] = archive.holes.as_slice() {
        let span = if first.first == first.last {
            first.first.to_string()
        } else {
            format!("{} to {}", first.first, first.last)
        };
        let what = format!("WAL of {name} is lost, no recovery passes it: {span}");
        found.push(trouble(format!("wal-hole:{name}"), true, what, &backup));
    }
    if let [first, ..] = archive.damaged.as_slice() {
        let what = format!("WAL of {name} was damaged when it came, recovery ends there: {first}");
        found.push(trouble(format!("wal-damaged:{name}"), true, what, &backup));
    }
    if let [first, ..] = archive.conflicts.as_slice() {
        let what =
            format!("the archive of {name} holds other content as {first}: two servers archive into it");
        found.push(trouble(
            format!("wal-conflict:{name}"),
            true,
            what,
            format!("pgkeep window --cluster {name}"),
        ));
    }
    found
}

fn of_backups(name: &ClusterName, facts: &ClusterFacts, snapshot: &Snapshot) -> Option<Trouble> {
    let backups = &facts.backups;
    let key = format!("backup-missing:{name}");
    if backups.seen_at.is_some() && backups.last_full.is_none() {
        let mine = |job: &&JobFacts| job.cluster == *name && job.kind == "full" && job.running.is_some();
        if snapshot.jobs.values().any(|job| mine(&job)) {
            let what =
                format!("{name} has no backup yet: everything would be lost until the running one ends");
            return Some(trouble(key, true, what, "pgkeep status --watch"));
        }
        let what = format!("{name} has no backup: everything would be lost");
        return Some(trouble(key, true, what, format!("pgkeep backup full --cluster {name}")));
    }
    let failure = backups.failure.as_ref()?;
    // What the store says is said already.
    let said = snapshot.repositories.values().any(|store| store.required && store.failure.is_some());
    let what = format!("the list of backups of {name} cannot be read: {}", failure.text);
    (!said).then(|| {
        trouble(format!("backups-unread:{name}"), false, what, format!("pgkeep list --cluster {name}"))
    })
}

fn of_job(name: &str, job: &JobFacts) -> Option<Trouble> {
    let last = job.last.as_ref().filter(|_| job.running.is_none())?;
    let mend = format!("pgkeep jobs run {name}");
    match last.outcome {
        RunOutcome::Failed => {
            let what = format!("the job {name} failed: {}", last.text);
            Some(trouble(format!("job-failed:{name}"), true, what, mend))
        }
        RunOutcome::Finding => {
            let what = format!("the job {name} found something wrong: {}", last.text);
            Some(trouble(format!("job-finding:{name}"), true, what, mend))
        }
        RunOutcome::Done | RunOutcome::Elsewhere | RunOutcome::Skipped => None,
    }
}
