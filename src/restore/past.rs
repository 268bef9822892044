//! What earlier drills, restore tests and restores have measured and proved: read from the repositories, and of this host's
//! own from its state directory. What no trusted host has signed counts for nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::join_all;
use serde::Deserialize;

use super::estimate::{Measured, NEWEST};
use crate::config::Config;
use crate::model::{ClusterName, Timestamp};
use crate::repository::reports::{self, StoredReport};
use crate::repository::signature::Trust;
use crate::repository::{Repository, documents};

/// How far back is looked.
const AGE: Duration = Duration::from_hours(400 * 24);
/// More than are ever counted, for some of them may be of runs that came to no end.
const READ: usize = NEWEST + 4;
/// A restore does not wait for what only helps to say how long it takes.
const WITHIN: Duration = Duration::from_secs(10);
/// What a report calls its result when everything was proved.
const PASSED: &str = "passed";
/// Drills, restore tests, and restores in place, which leave an incident report.
const KINDS: [&str; 3] = ["drill", "restore-test", "incident"];

/// What is of interest in a report, whoever wrote it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Seen {
    started_at: Timestamp,
    #[serde(default)]
    host: String,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    outcome: Option<String>,
    #[serde(default)]
    finished_at: Option<Timestamp>,
    #[serde(default)]
    measured: Option<Measured>,
}

/// What is known of a cluster's restores.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Past {
    /// The newest first.
    pub measured: Vec<Measured>,
    /// When a drill or a restore test last passed.
    pub proved_at: Option<Timestamp>,
    /// The newest drill or restore test: its kind, when it began, and what it came to.
    pub last: Option<(String, Timestamp, String)>,
}

/// From these repositories and this host's own directory. A repository that fails is told and left out.
pub async fn read(
    config: &Config,
    repositories: &[Repository],
    cluster: &ClusterName,
    trust: &Trust,
    now: Timestamp,
) -> (Past, Vec<String>) {
    let mut notes = Vec::new();
    let mut seen: BTreeMap<(Timestamp, String), Seen> = BTreeMap::new();
    let mut take = |one: Seen| _ = seen.insert((one.started_at, one.host.clone()), one);
    own(&directory(config, cluster), &mut take);
    let since = now.minus(AGE);
    let asked = repositories.iter().map(|repository| async move {
        let asked = reports::recent(repository, cluster, &KINDS, since, READ, trust);
        (repository, tokio::time::timeout(WITHIN, asked).await)
    });
    for (repository, answer) in join_all(asked).await {
        let left_out = |why: String| format!("earlier reports in {} are left out: {why}", repository.name);
        match answer {
            Ok(Ok(found)) => found.iter().filter_map(believed).for_each(&mut take),
            Ok(Err(e)) => notes.push(left_out(e.to_string())),
            Err(_) => notes.push(left_out(format!("no answer within {} s", WITHIN.as_secs()))),
        }
    }
    (summed_up(seen.into_values().rev()), notes)
}

fn believed(stored: &StoredReport) -> Option<Seen> {
    stored.trusted().ok()
}

/// Where this host keeps its own.
pub fn directory(config: &Config, cluster: &ClusterName) -> PathBuf {
    config.state_directory.join("reports").join(cluster.as_str())
}

/// What cannot be read is no report.
fn own(directory: &Path, take: &mut impl FnMut(Seen)) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let mut files: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "json"));
    files.sort();
    for path in files.iter().rev().take(READ) {
        if let Ok(bytes) = std::fs::read(path)
            && let Ok(seen) = documents::parse(&bytes, &path.display().to_string())
        {
            take(seen);
        }
    }
}

/// The newest first.
fn summed_up(seen: impl Iterator<Item = Seen>) -> Past {
    let mut past = Past::default();
    for one in seen {
        // Of a run that failed it says how long it took until then.
        if let Some(measured) = one.measured
            && past.measured.len() < NEWEST
        {
            past.measured.push(measured);
        }
        let (Some(kind), Some(outcome)) = (one.kind, one.outcome) else { continue };
        if outcome == PASSED {
            past.proved_at = past.proved_at.max(one.finished_at);
        }
        past.last.get_or_insert((kind, one.started_at, outcome));
    }
    past
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(hour: u32, outcome: Option<&str>, measured: bool) -> Seen {
        let at: Timestamp = format!("2026-11-21T{hour:02}:00:00Z").parse().unwrap();
        let measured = measured.then_some(Measured {
            backup_bytes: 1,
            wal_bytes: u64::from(hour),
            plan_seconds: 1.0,
            lay_out_seconds: 1.0,
            replay_seconds: 1.0,
            estimated_seconds: None,
        });
        Seen {
            started_at: at,
            host: "db1".to_owned(),
            kind: outcome.map(|_| "drill".to_owned()),
            outcome: outcome.map(str::to_owned),
            finished_at: Some(at.plus(Duration::from_mins(1))),
            measured,
        }
    }

    #[test]
    fn only_what_passed_is_a_proof_and_whatever_came_to_its_end_is_a_measurement() {
        let newest_first = [
            seen(9, None, true),
            seen(8, Some("failed"), true),
            seen(7, Some("unproved"), false),
            seen(6, Some("passed"), true),
        ];
        let past = summed_up(newest_first.into_iter());
        assert_eq!(past.proved_at, seen(6, None, false).finished_at);
        assert_eq!(past.measured.iter().map(|m| m.wal_bytes).collect::<Vec<_>>(), [9, 8, 6]);
        assert_eq!(past.last.unwrap().2, "failed");
        assert_eq!(summed_up(std::iter::empty()), Past::default());
    }
}
