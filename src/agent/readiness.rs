//! Does archiving work, and is the server there whose WAL it is? What `/readyz` answers. Pure.

use std::time::Duration;

use super::board::{ArchiveFacts, ClusterFacts, ServerFacts, Snapshot};
use crate::model::Timestamp;
use crate::util::human;

/// A finished file that waits for longer is not archived as it should be; an archiver that has not looked for longer
/// hangs.
pub const PATIENCE: Duration = Duration::from_mins(5);

/// Files wait for about this long where all is well.
const MOMENT: Duration = Duration::from_mins(1);

/// Why archiving does not work, a line each; empty when it does.
pub fn doubts(snapshot: &Snapshot, now: Timestamp) -> Vec<String> {
    if snapshot.clusters.is_empty() {
        return vec!["no cluster has been looked at yet".to_owned()];
    }
    let mut doubts = Vec::new();
    for (name, cluster) in &snapshot.clusters {
        doubts.extend(of_cluster(cluster, now).into_iter().map(|doubt| format!("cluster {name}: {doubt}")));
    }
    doubts
}

/// Archiving keeps PostgreSQL from removing files: it fails, or has been behind for more than a moment.
pub fn archiving_holds(archive: &ArchiveFacts, now: Timestamp) -> bool {
    archive.failure.is_some() || archive.waiting_since.is_some_and(|since| now.since(since) > MOMENT)
}

fn of_cluster(cluster: &ClusterFacts, now: Timestamp) -> Vec<String> {
    let archive = &cluster.archive;
    let mut doubts = Vec::new();
    doubts.extend(of_server(&cluster.server, now));
    if let Some(failure) = &archive.failure {
        doubts.push(format!("archiving fails: {}", failure.text));
    }
    if let Some(since) = archive.waiting_since.filter(|since| now.since(*since) > PATIENCE) {
        let span = human::span(now.since(since));
        doubts.push(format!("{} files wait to be archived, the oldest for {span}", archive.waiting_files));
    }
    match archive.scanned_at {
        // A standby hands nothing over.
        _ if cluster.server.in_recovery => {}
        None => doubts.push("pg_wal has not been looked at yet".to_owned()),
        Some(at) if now.since(at) > PATIENCE => {
            doubts.push(format!("pg_wal was last looked at {} ago", human::span(now.since(at))));
        }
        Some(_) => {}
    }
    doubts
}

fn of_server(server: &ServerFacts, now: Timestamp) -> Option<String> {
    match (&server.error, server.asked_at) {
        (Some(error), _) => Some(format!("PostgreSQL does not answer: {error}")),
        (None, None) => Some("PostgreSQL has not been asked yet".to_owned()),
        (None, Some(at)) if now.since(at) > PATIENCE => {
            Some(format!("PostgreSQL was last asked {} ago", human::span(now.since(at))))
        }
        (None, Some(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::example;

    #[test]
    fn archiving_works_until_it_fails_waits_or_hangs() {
        let now = example::now();
        let mut snapshot = example::healthy();
        assert_eq!(doubts(&snapshot, now), Vec::<String>::new());
        assert_eq!(
            doubts(&snapshot, now.plus(Duration::from_mins(6))),
            [
                "cluster main: PostgreSQL was last asked 6m 10s ago",
                "cluster main: pg_wal was last looked at 6m 5s ago"
            ]
        );
        assert_eq!(
            doubts(&example::troubled(), now),
            ["cluster main: archiving fails: the store did not answer"]
        );
        for cluster in snapshot.clusters.values_mut() {
            cluster.archive.scanned_at = None;
            cluster.archive.waiting_files = 3;
            cluster.archive.waiting_since = Some(now.minus(Duration::from_mins(7)));
        }
        assert_eq!(
            doubts(&snapshot, now),
            [
                "cluster main: 3 files wait to be archived, the oldest for 7m",
                "cluster main: pg_wal has not been looked at yet"
            ]
        );
        for cluster in snapshot.clusters.values_mut() {
            (cluster.server.in_recovery, cluster.archive) = (true, ArchiveFacts::default());
        }
        assert_eq!(doubts(&snapshot, now), Vec::<String>::new(), "a standby archives nothing");
        for cluster in snapshot.clusters.values_mut() {
            cluster.server.error = Some("no such socket".into());
        }
        assert_eq!(doubts(&snapshot, now), ["cluster main: PostgreSQL does not answer: no such socket"]);
        for cluster in snapshot.clusters.values_mut() {
            (cluster.server.error, cluster.server.asked_at) = (None, None);
        }
        assert_eq!(doubts(&snapshot, now), ["cluster main: PostgreSQL has not been asked yet"]);
        snapshot.clusters.clear();
        assert_eq!(doubts(&snapshot, now), ["no cluster has been looked at yet"]);
    }
}
