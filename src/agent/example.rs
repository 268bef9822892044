//! Snapshots for the tests of what is made of them.

use super::board::*;
use crate::model::{ClusterName, Lsn, RepoName, SegmentName, TimelineId, Timestamp};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub fn now() -> Timestamp {
    at("2026-11-21T14:00:00Z")
}

fn last_full() -> LastBackup {
    LastBackup {
        id: "20261121T020000Z-full-3f9a".into(),
        finished_at: at("2026-11-21T02:03:20Z"),
        bytes_raw: 24 << 30,
        bytes_stored: 11 << 30,
        took_seconds: 200,
        damaged: false,
        stop_lsn: Some(Lsn(0x10_0000_0000)),
    }
}

fn cluster() -> ClusterFacts {
    ClusterFacts {
        measured: Vec::new(),
        objectives: crate::agent::board::Objectives::default(),
        system: None,
        server: ServerFacts {
            asked_at: Some(at("2026-11-21T13:59:50Z")),
            major: Some(18),
            flush_lsn: Some(Lsn(0x10_5000_1200)),
            timeline: Some(TimelineId(1)),
            pg_wal_bytes: 640 << 20,
            wal_disk_bytes: 100 << 30,
            wal_disk_free_bytes: 60 << 30,
            data_bytes: Some(24 << 30),
            ..ServerFacts::default()
        },
        archive: ArchiveFacts {
            archived_to: Some(Lsn(0x10_5000_0000)),
            timeline: Some(TimelineId(1)),
            archived_at: Some(at("2026-11-21T13:58:40Z")),
            files_total: 812,
            plain_bytes_total: 812 << 24,
            stored_bytes_total: 812 << 22,
            scanned_at: Some(at("2026-11-21T13:59:55Z")),
            ..ArchiveFacts::default()
        },
        canary: CanaryFacts {
            enabled: true,
            number: Some(4_211),
            written_at: Some(at("2026-11-21T13:59:30Z")),
            rows_total: 4_100,
            ..CanaryFacts::default()
        },
        tail: TailFacts {
            enabled: true,
            shipped_to: Some(Lsn(0x10_5000_1000)),
            current_at: Some(at("2026-11-21T13:59:58Z")),
            heads_total: 9000,
            plain_bytes_total: 800 << 20,
            stored_bytes_total: 300 << 20,
            ..TailFacts::default()
        },
        backups: BackupFacts {
            seen_at: Some(at("2026-11-21T13:57:00Z")),
            last_full: Some(last_full()),
            last: [("full".to_owned(), last_full())].into(),
            ..BackupFacts::default()
        },
        verified: RepoName::parse("eu").map(|repo| (repo, verified())).into_iter().collect(),
    }
}

fn verified() -> VerifyFacts {
    VerifyFacts {
        at: at("2026-11-21T04:10:00Z"),
        findings: 0,
        healed: 0,
        unproved: 0,
        bytes: 40 << 30,
        left_bytes: 270 << 30,
        oldest_check_at: Some(at("2026-11-14T04:00:00Z")),
    }
}

fn store(required: bool) -> StoreFacts {
    let put = OperationFacts { requests_total: 9812, failures_total: 3, seconds_total: 412.5 };
    let get = OperationFacts { requests_total: 40, failures_total: 0, seconds_total: 0.75 };
    StoreFacts {
        required,
        answered_at: Some(at("2026-11-21T13:59:58Z")),
        operations: [("put".to_owned(), put), ("get".to_owned(), get)].into(),
        sent_bytes_total: 14 << 30,
        received_bytes_total: 2 << 20,
        used_bytes: Some(310 << 30),
        capacity_bytes: Some(1 << 40),
        ..StoreFacts::default()
    }
}

fn job() -> JobFacts {
    JobFacts {
        kind: "full".into(),
        cluster: ClusterName::parse("main").unwrap(),
        schedule: "0 2 * * * (UTC)".into(),
        next_at: Some(at("2026-11-22T02:00:00Z")),
        running: None,
        last: Some(JobRun {
            started_at: at("2026-11-21T02:00:00Z"),
            finished_at: at("2026-11-21T02:03:20Z"),
            outcome: RunOutcome::Done,
            text: "24.0 GiB in 3m 20s".into(),
            backup: Some("20261121T020000Z-full-3f9a".into()),
            bytes_raw: Some(24 << 30),
            bytes_stored: Some(11 << 30),
        }),
        last_success_at: Some(at("2026-11-21T02:03:20Z")),
        failures_in_a_row: 0,
        interval_seconds: Some(86_400),
        earlier_bytes: Vec::new(),
    }
}

/// A host on which nothing is wrong.
pub fn healthy() -> Snapshot {
    let task = TaskFacts { starts_total: 1, failure: None };
    let mut snapshot = Board::new(at("2026-11-18T09:30:00Z")).snapshot();
    "db1".clone_into(&mut snapshot.host);
    "0.1.0".clone_into(&mut snapshot.version);
    snapshot.clusters.insert(ClusterName::parse("main").unwrap(), cluster());
    snapshot.repositories.insert(RepoName::parse("eu").unwrap(), store(true));
    snapshot.repositories.insert(RepoName::parse("us").unwrap(), store(false));
    snapshot.jobs.insert("nightly-full".to_owned(), job());
    snapshot.tasks.insert("archiver main".to_owned(), task);
    snapshot
}

/// The same while a backup runs.
pub fn running() -> Snapshot {
    let mut snapshot = healthy();
    for job in snapshot.jobs.values_mut() {
        job.running = Some(RunningJob {
            started_at: at("2026-11-21T13:58:00Z"),
            phase: "copy".into(),
            done_bytes: 9 << 30,
            total_bytes: Some(24 << 30),
        });
    }
    snapshot
}

/// A required store has been down for three minutes, and more is wrong: every fact is there.
pub fn troubled() -> Snapshot {
    let mut snapshot = running();
    let since = at("2026-11-21T13:57:00Z");
    let failure = Failure { at: at("2026-11-21T13:59:58Z"), text: "the store did not answer".into() };
    let eu = snapshot.repositories.get_mut(&RepoName::parse("eu").unwrap()).unwrap();
    eu.failure = Some(failure.clone());
    eu.answered_at = Some(since);
    eu.credentials_expire_at = Some(at("2026-11-25T00:00:00Z"));
    for cluster in snapshot.clusters.values_mut() {
        let gone = SegmentName::parse("000000010000000F00000007").unwrap();
        cluster.server.wal_disk_full_in_seconds = Some(7200);
        cluster.archive.waiting_files = 12;
        cluster.archive.waiting_bytes = 12 << 24;
        cluster.archive.waiting_since = Some(since);
        cluster.archive.failure = Some(failure.clone());
        cluster.archive.failures_total = 4;
        cluster.archive.holes.push(HoleFacts { first: gone, last: gone });
        cluster.archive.damaged.push(gone);
        cluster.tail.current_at = Some(since);
        cluster.tail.failure = Some(failure.clone());
        cluster.backups.proved_at = Some(at("2026-11-19T04:00:00Z"));
    }
    for job in snapshot.jobs.values_mut() {
        job.failures_in_a_row = 2;
    }
    for task in snapshot.tasks.values_mut() {
        task.failure = Some(failure.clone());
    }
    snapshot.sinks.insert("pager".to_owned(), SinkFacts { delivered_total: 3, ..SinkFacts::default() });
    snapshot.alerts.push(OpenAlert {
        key: "store-unreachable:eu".into(),
        rule: "store-unreachable".into(),
        severity: Severity::Critical,
        labels: [("repository".to_owned(), "eu".to_owned())].into(),
        since: at("2026-11-21T13:58:00Z"),
        summary: "the required repository eu does not answer".into(),
        mend: "pgkeep check --repo eu".into(),
        runbook: Some("store-unreachable.md".into()),
    });
    snapshot
}
