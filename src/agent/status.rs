//! What `pgkeep status` says, as a value: pure, from a snapshot, whether it came from the agent or was found without
//! one. The most urgent first: what is wrong, each with the command that mends it; then, by cluster, what would be lost
//! now, how long until back, and the rest.

use std::time::Duration;

use serde::Serialize;

use super::board::{ClusterFacts, Severity, Snapshot};
use super::exposure::{self, Loss};
use super::readiness;
use crate::model::{ClusterName, Timestamp};
use crate::util::human;

/// Who knew what is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum AgentState {
    Running {
        since: Timestamp,
    },
    /// Nobody answers; server and stores were asked by the command itself.
    Down {
        why: String,
    },
}

/// Something wrong and what mends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub critical: bool,
    pub what: String,
    /// A command.
    pub mend: String,
}

/// A line of the screen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    pub label: String,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterView {
    pub name: ClusterName,
    pub title: String,
    pub lines: Vec<Line>,
}

/// The screen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusView {
    pub host: String,
    pub at: Timestamp,
    pub agent: AgentState,
    /// Nothing is wrong.
    pub healthy: bool,
    pub problems: Vec<Problem>,
    pub clusters: Vec<ClusterView>,
    pub stores: Vec<Line>,
    pub jobs: Vec<Line>,
}

pub fn view(snapshot: &Snapshot, agent: AgentState, now: Timestamp) -> StatusView {
    let problems = problems(snapshot, &agent, now);
    StatusView {
        host: snapshot.host.clone(),
        at: now,
        healthy: problems.is_empty(),
        problems,
        clusters: snapshot.clusters.iter().map(|(name, facts)| cluster(name, facts, now)).collect(),
        stores: stores(snapshot, now),
        jobs: jobs(snapshot, now),
        agent,
    }
}

fn problem(critical: bool, what: impl Into<String>, mend: impl Into<String>) -> Problem {
    Problem { critical, what: what.into(), mend: mend.into() }
}

fn problems(snapshot: &Snapshot, agent: &AgentState, now: Timestamp) -> Vec<Problem> {
    let mut found = Vec::new();
    if let AgentState::Down { why } = agent {
        found.push(problem(true, format!("the agent is down: {why}"), "systemctl start pgkeep"));
    }
    if let Some(refused) = &snapshot.reload_refused {
        found.push(problem(
            false,
            format!("the configuration is wrong: {}", refused.text),
            "pgkeep config check",
        ));
    }
    for (name, store) in &snapshot.repositories {
        if let Some(failure) = &store.failure {
            let kind = if store.required { "required" } else { "optional" };
            let what = format!("the {kind} repository {name} fails: {}", failure.text);
            found.push(problem(store.required, what, format!("pgkeep check --repo {name}")));
        }
    }
    for (name, facts) in &snapshot.clusters {
        found.extend(cluster_problems(name, facts));
    }
    // Without an agent nobody has looked at pg_wal; that it is down is said already.
    if matches!(agent, AgentState::Running { .. }) {
        let doubts = readiness::doubts(snapshot, now).into_iter();
        found.extend(doubts.map(|doubt| problem(true, doubt, "pgkeep check")));
    }
    for alert in &snapshot.alerts {
        let critical = alert.severity == Severity::Critical;
        let since = human::span(now.since(alert.since));
        found.push(problem(critical, format!("alert since {since}: {}", alert.summary), alert.mend.clone()));
    }
    found.sort_by_key(|problem| !problem.critical);
    found
}

fn cluster_problems(name: &ClusterName, facts: &ClusterFacts) -> Vec<Problem> {
    let mut found = Vec::new();
    if let Some(error) = &facts.server.error {
        let what = format!("PostgreSQL of {name} does not answer: {error}");
        found.push(problem(true, what, format!("pgkeep check --cluster {name}")));
    }
    if facts.backups.seen_at.is_some() && facts.backups.last_full.is_none() {
        let what = format!("{name} has no backup: everything would be lost");
        found.push(problem(true, what, format!("pgkeep backup full --cluster {name}")));
    }
    for hole in &facts.archive.holes {
        let what = format!("WAL of {name} is lost between {} and {}", hole.first, hole.last);
        found.push(problem(true, what, format!("pgkeep backup full --cluster {name}")));
    }
    found
}

fn line(label: &str, text: impl Into<String>) -> Line {
    Line { label: label.to_owned(), text: text.into() }
}

fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ago", human::span(now.since(at)))
}

fn cluster(name: &ClusterName, facts: &ClusterFacts, now: Timestamp) -> ClusterView {
    let version = facts.server.major.map(|major| format!(" {major}")).unwrap_or_default();
    let role = match (&facts.server.error, facts.server.asked_at, facts.server.in_recovery) {
        (Some(_), _, _) => "does not answer",
        (None, None, _) => "not asked yet",
        (None, Some(_), true) => "standby",
        (None, Some(_), false) => "primary",
    };
    let mut lines = vec![line("if this host died now", lost(facts, now)), line("back in", back(facts))];
    lines.push(line("last backup", backup(facts, now)));
    lines.push(line(
        "last proof",
        match facts.backups.proved_at {
            Some(at) => ago(at, now),
            None => "none yet: pgkeep restore --to latest --target-dir /srv/proof".to_owned(),
        },
    ));
    lines.push(line("archive", archive(facts, now)));
    if facts.server.wal_disk_bytes > 0 {
        lines.push(line("pg_wal", disk(facts)));
    }
    ClusterView { name: name.clone(), title: format!("{name}: PostgreSQL{version}, {role}"), lines }
}

fn lost(facts: &ClusterFacts, now: Timestamp) -> String {
    match exposure::loss(facts, now) {
        Loss::Unknown => "not known yet".to_owned(),
        Loss::Standby => "nothing: the primary has it".to_owned(),
        Loss::Everything => "EVERYTHING: there is no backup".to_owned(),
        Loss::Commits { bytes: Some(0), since, .. } => format!("nothing as of {}", since.human()),
        Loss::Commits { since, seconds, bytes } => {
            let span = human::span(Duration::from_secs_f64(seconds));
            let bytes = bytes.map(|bytes| format!(", {} of WAL", human::size(bytes))).unwrap_or_default();
            format!("the last {span} would be lost (since {}{bytes})", since.human())
        }
    }
}

fn back(facts: &ClusterFacts) -> String {
    let Some(back) = exposure::time_to_return(facts) else {
        return "not known: there is no backup".to_owned();
    };
    let span = human::span(Duration::from_secs(back.seconds));
    format!(
        "about {span} (computed, not measured: {} at {}/s, {} of WAL at {}/s)",
        human::size(back.backup_bytes),
        human::size(exposure::RESTORE_BYTES_PER_SECOND),
        human::size(back.wal_bytes),
        human::size(exposure::REPLAY_BYTES_PER_SECOND),
    )
}

fn backup(facts: &ClusterFacts, now: Timestamp) -> String {
    match (&facts.backups.last_full, facts.backups.seen_at) {
        (Some(last), _) => format!(
            "{}, {}, {} in {}",
            last.id,
            ago(last.finished_at, now),
            human::size(last.bytes_raw),
            human::span(Duration::from_secs(last.took_seconds))
        ),
        (None, Some(_)) => "none".to_owned(),
        (None, None) => "the repositories have not been read".to_owned(),
    }
}

fn archive(facts: &ClusterFacts, now: Timestamp) -> String {
    let archive = &facts.archive;
    let to = archive.archived_to.map(|lsn| format!(", complete to {lsn}")).unwrap_or_default();
    match archive.waiting_since {
        Some(since) => format!(
            "{} files wait ({}), the oldest for {}{to}",
            archive.waiting_files,
            human::size(archive.waiting_bytes),
            human::span(now.since(since))
        ),
        None if archive.scanned_at.is_none() => "not looked at yet".to_owned(),
        None => format!("nothing waits{to}"),
    }
}

fn disk(facts: &ClusterFacts) -> String {
    let server = &facts.server;
    let full = match server.wal_disk_full_in_seconds {
        Some(seconds) => format!(", full in {}", human::span(Duration::from_secs(seconds))),
        None => String::new(),
    };
    format!("{}, {} free{full}", human::size(server.pg_wal_bytes), human::size(server.wal_disk_free_bytes))
}

fn stores(snapshot: &Snapshot, now: Timestamp) -> Vec<Line> {
    let all = snapshot.repositories.iter().map(|(name, store)| {
        let answered =
            store.answered_at.map_or("not asked yet".to_owned(), |at| format!("answered {}", ago(at, now)));
        let state = if store.failure.is_some() { format!("FAILS, {answered}") } else { answered };
        let used = store.used_bytes.map(|used| format!(", {} used", human::size(used))).unwrap_or_default();
        line(name.as_str(), format!("{state}{used}"))
    });
    all.collect()
}

fn jobs(snapshot: &Snapshot, now: Timestamp) -> Vec<Line> {
    let all = snapshot.jobs.iter().map(|(name, job)| {
        let text = match (&job.running, job.next_at) {
            (Some(running), _) => {
                let of =
                    running.total_bytes.map_or(String::new(), |total| format!(" of {}", human::size(total)));
                let done = human::size(running.done_bytes);
                let span = human::span(now.since(running.started_at));
                format!("running for {span}: {}, {done}{of}", running.phase)
            }
            (None, Some(next)) => format!("next in {} ({})", human::span(next.since(now)), next.human()),
            (None, None) => "has no next date".to_owned(),
        };
        line(name, text)
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::example;

    fn shown(snapshot: &Snapshot) -> StatusView {
        view(snapshot, AgentState::Running { since: snapshot.started_at }, example::now())
    }

    #[test]
    fn a_healthy_host_has_no_problems_and_a_troubled_one_says_each_with_its_command() {
        assert_eq!(shown(&example::healthy()).problems, []);
        assert!(shown(&example::running()).healthy);
        let troubled = shown(&example::troubled());
        assert!(!troubled.healthy && troubled.problems.iter().all(|problem| !problem.mend.is_empty()));
        assert!(troubled.problems.iter().any(|problem| problem.mend == "pgkeep check --repo eu"));
    }

    #[test]
    fn an_agent_that_is_down_is_said_first() {
        let down = AgentState::Down { why: "no agent answers".into() };
        let view = view(&example::troubled(), down, example::now());
        assert_eq!(view.problems[0].mend, "systemctl start pgkeep");
    }

    #[test]
    fn a_cluster_without_a_backup_says_that_everything_would_be_lost() {
        let mut snapshot = example::healthy();
        for cluster in snapshot.clusters.values_mut() {
            cluster.backups.last_full = None;
        }
        let view = shown(&snapshot);
        assert_eq!(view.problems[0].mend, "pgkeep backup full --cluster main");
        assert!(view.clusters[0].lines[0].text.contains("EVERYTHING"));
    }
}
