//! The lines of the screen. What is not known is said to be unknown, never shown as zero. Lines fit 80 columns as long
//! as names are short.

use std::time::Duration;

use super::Line;
use crate::agent::board::{ClusterFacts, JobFacts, RunOutcome, Snapshot, StoreFacts};
use crate::agent::exposure::{self, Loss};
use crate::model::Timestamp;
use crate::repository::open::NO_REPOSITORY;
use crate::util::human::{self, rough};

fn line(label: &str, text: impl Into<String>) -> Line {
    Line { label: label.to_owned(), text: text.into() }
}

fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ago", rough(now.since(at)))
}

/// The store answered with a repository at least, or nobody can tell.
pub(super) fn set_up(store: &StoreFacts) -> bool {
    store.failure.as_ref().is_none_or(|failure| !failure.text.contains(NO_REPOSITORY))
}

pub(super) fn title(facts: &ClusterFacts) -> String {
    let version = facts.server.major.map(|major| format!(" {major}")).unwrap_or_default();
    let role = match (&facts.server.error, facts.server.asked_at, facts.server.in_recovery) {
        (Some(_), _, _) => "does not answer",
        (None, None, _) => "not asked yet",
        (None, Some(_), true) => "standby",
        (None, Some(_), false) => "primary",
    };
    format!("PostgreSQL{version}, {role}")
}

pub(super) fn cluster(facts: &ClusterFacts, now: Timestamp) -> Vec<Line> {
    let proof = match facts.backups.proved_at {
        Some(at) => ago(at, now),
        None if facts.backups.last_full.is_none() => "none yet".to_owned(),
        None => "none yet; a drill is one:\npgkeep drill".to_owned(),
    };
    let mut lines = vec![
        line("would lose", lost(facts, now)),
        line("back in", back(facts)),
        line("last backup", backup(facts, now)),
        line("last proof", proof),
        line("archive", archive(facts, now)),
    ];
    if facts.server.wal_disk_bytes > 0 {
        lines.push(line("pg_wal", disk(facts)));
    }
    lines
}

fn lost(facts: &ClusterFacts, now: Timestamp) -> String {
    match exposure::loss(facts, now) {
        Loss::Unknown => "not known: nothing archived was seen yet (RPO)".to_owned(),
        Loss::Standby => "nothing: the primary has it (RPO 0)".to_owned(),
        Loss::Everything => "EVERYTHING: there is no backup (RPO)".to_owned(),
        Loss::Commits { bytes: Some(0), since, .. } => {
            format!("nothing as of {} (RPO)", since.human())
        }
        Loss::Commits { since, seconds, bytes } => {
            let span = rough(Duration::from_secs_f64(seconds));
            let bytes = bytes.map(|bytes| format!(", {} of WAL", human::size(bytes))).unwrap_or_default();
            format!("the last {span} of commits{bytes} (RPO)\nsafe up to {}", since.human())
        }
    }
}

fn back(facts: &ClusterFacts) -> String {
    let Some(back) = exposure::time_to_return(facts) else {
        return "not known without a backup (RTO)".to_owned();
    };
    let span = rough(Duration::from_secs(back.seconds));
    let late = match facts.objectives.rto_seconds {
        Some(objective) if back.seconds > objective => {
            format!(", LONGER THAN THE OBJECTIVE of {}", rough(Duration::from_secs(objective)))
        }
        _ => String::new(),
    };
    if back.measured > 0 {
        let restores =
            if back.measured == 1 { "one restore".to_owned() } else { format!("{} restores", back.measured) };
        let off =
            back.error_percent.map(|percent| format!(", off by {percent} % (median)")).unwrap_or_default();
        let (backup, wal) = (human::size(back.backup_bytes), human::size(back.wal_bytes));
        return format!("about {span} (RTO){late}\nmeasured by {restores}{off}; {backup} and {wal} of WAL");
    }
    let basis = format!(
        "{} at {}/s, then WAL of {} at {}/s",
        human::size(back.backup_bytes),
        human::size(exposure::RESTORE_BYTES_PER_SECOND),
        human::size(back.wal_bytes),
        human::size(exposure::REPLAY_BYTES_PER_SECOND),
    );
    format!("about {span}, estimated (RTO){late}\n{basis}")
}

fn backup(facts: &ClusterFacts, now: Timestamp) -> String {
    match (&facts.backups.last_full, facts.backups.seen_at) {
        (Some(last), _) => format!(
            "{}, {} in {}\n{}",
            ago(last.finished_at, now),
            human::size(last.bytes_raw),
            rough(Duration::from_secs(last.took_seconds)),
            last.id,
        ),
        (None, Some(_)) => "none".to_owned(),
        (None, None) => "not known: the repositories have not been read".to_owned(),
    }
}

/// Of WAL files.
pub(super) fn waiting(files: u64) -> String {
    if files == 1 { "1 WAL file waits".to_owned() } else { format!("{files} WAL files wait") }
}

fn archive(facts: &ClusterFacts, now: Timestamp) -> String {
    let (archive, tail) = (&facts.archive, &facts.tail);
    let waits = match archive.waiting_since {
        Some(since) => format!(
            "{} ({}), the oldest for {}",
            waiting(archive.waiting_files),
            human::size(archive.waiting_bytes),
            rough(now.since(since))
        ),
        None if archive.scanned_at.is_some() => "nothing waits".to_owned(),
        None => match archive.archived_at {
            Some(at) => format!("the last file was archived {}", ago(at, now)),
            None => "not known".to_owned(),
        },
    };
    let reach = archive.archived_to.map(|lsn| format!("without a gap up to {lsn}"));
    let tail = match (tail.enabled, tail.current_at) {
        (true, Some(at)) => Some(format!("live tail {} behind", rough(now.since(at)))),
        (true, None) => Some("live tail not shipped yet".to_owned()),
        (false, _) => None,
    };
    let more: Vec<String> = reach.into_iter().chain(tail).collect();
    if more.is_empty() { waits } else { format!("{waits}\n{}", more.join("; ")) }
}

fn disk(facts: &ClusterFacts) -> String {
    let server = &facts.server;
    let full = match server.wal_disk_full_in_seconds {
        Some(seconds) => format!(", FULL IN {}", rough(Duration::from_secs(seconds))),
        None => String::new(),
    };
    format!(
        "{}; {} of {} free{full}",
        human::size(server.pg_wal_bytes),
        human::size(server.wal_disk_free_bytes),
        human::size(server.wal_disk_bytes)
    )
}

pub(super) fn repositories(snapshot: &Snapshot, now: Timestamp) -> Vec<Line> {
    let all = snapshot.repositories.iter().map(|(name, store)| line(name.as_str(), repository(store, now)));
    all.collect()
}

fn repository(store: &StoreFacts, now: Timestamp) -> String {
    let answered = store.answered_at.map(|at| ago(at, now));
    let state = match (&store.failure, answered) {
        (Some(_), _) if !set_up(store) => "NOT SET UP: there is no repository".to_owned(),
        (Some(_), Some(ago)) => format!("FAILS; answered last {ago}"),
        (Some(_), None) => "FAILS; has not answered yet".to_owned(),
        (None, Some(_)) => "answers".to_owned(),
        (None, None) => "not asked yet".to_owned(),
    };
    let optional = if store.required { "" } else { " (optional)" };
    let used = match (store.used_bytes, store.capacity_bytes) {
        (Some(used), Some(all)) => format!("; holds {} of {}", human::size(used), human::size(all)),
        (Some(used), None) => format!("; holds {}", human::size(used)),
        (None, _) => String::new(),
    };
    format!("{state}{optional}{used}")
}

pub(super) fn jobs(snapshot: &Snapshot, now: Timestamp) -> Vec<Line> {
    snapshot.jobs.iter().map(|(name, facts)| line(name, job(facts, now))).collect()
}

fn job(job: &JobFacts, now: Timestamp) -> String {
    if let Some(running) = &job.running {
        let done = match running.total_bytes.filter(|total| *total > 0) {
            Some(total) => format!(
                "{} of {} ({} %)",
                human::size(running.done_bytes),
                human::size(total),
                u128::from(running.done_bytes) * 100 / u128::from(total)
            ),
            None => human::size(running.done_bytes),
        };
        return format!("RUNS for {}: {}, {done}", rough(now.since(running.started_at)), running.phase);
    }
    let next = match job.next_at {
        Some(next) => format!("next in {} ({})", rough(next.since(now)), next.human()),
        None => "NO NEXT DATE".to_owned(),
    };
    let last = match &job.last {
        None => "never ran".to_owned(),
        Some(run) => {
            let how = match run.outcome {
                RunOutcome::Done => "done",
                RunOutcome::Elsewhere => "done by another host",
                RunOutcome::Finding => "FOUND SOMETHING WRONG",
                RunOutcome::Failed => "FAILED",
                RunOutcome::Skipped => "skipped",
            };
            format!("{how} {}", ago(run.finished_at, now))
        }
    };
    format!("{next}; {last}")
}
