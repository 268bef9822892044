//! A healthy board has no findings; then one thing at a time is made wrong, just below and just above its threshold.

use std::collections::BTreeSet;

use super::*;
use crate::agent::board::{
    ArchiveFacts, BackupFacts, ClusterFacts, Failure, HoleFacts, JobFacts, JobRun, LastBackup, RunOutcome,
    RunningJob, ServerFacts, SinkFacts, StoreFacts, TailFacts, TaskFacts,
};
use crate::agent::status::{self, AgentState};
use crate::model::{ClusterName, RepoName, SegmentName, TimelineId};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn ago(seconds: u64) -> Timestamp {
    now().minus(Duration::from_secs(seconds))
}

fn segment(number: u32) -> SegmentName {
    SegmentName { timeline: TimelineId(1), log: 0, seg: number }
}

fn failure(text: &str) -> Failure {
    Failure { at: now(), text: text.to_owned() }
}

fn backup(bytes: u64) -> LastBackup {
    LastBackup {
        id: "20261121T020000Z-full-3f9a".to_owned(),
        finished_at: ago(10 * HOUR),
        bytes_raw: bytes,
        bytes_stored: bytes / 3,
        took_seconds: 60,
        damaged: false,
        stop_lsn: None,
    }
}

fn run(outcome: RunOutcome) -> JobRun {
    JobRun {
        started_at: ago(10 * HOUR),
        finished_at: ago(9 * HOUR),
        outcome,
        text: "what came of it".to_owned(),
        backup: None,
        bytes_raw: Some(1000),
        bytes_stored: Some(300),
    }
}

/// Everything is well at `now`.
pub(in crate::agent::alerts) fn facts(now: Timestamp) -> Snapshot {
    let before = |seconds| now.minus(Duration::from_secs(seconds));
    let cluster = ClusterFacts {
        server: ServerFacts {
            asked_at: Some(before(5)),
            wal_disk_bytes: 1000 << 30,
            wal_disk_free_bytes: 400 << 30,
            ..ServerFacts::default()
        },
        archive: ArchiveFacts { scanned_at: Some(before(5)), ..ArchiveFacts::default() },
        tail: TailFacts { enabled: true, current_at: Some(before(3)), ..TailFacts::default() },
        verified: std::collections::BTreeMap::new(),
        backups: BackupFacts {
            seen_at: Some(before(60)),
            last_full: Some(backup(1000)),
            earlier_fulls: vec![backup(900), backup(1100)],
            proved_at: Some(before(DAY)),
            ..BackupFacts::default()
        },
        ..ClusterFacts::default()
    };
    let store = StoreFacts {
        required: true,
        answered_at: Some(before(5)),
        used_bytes: Some(400),
        capacity_bytes: Some(1000),
        ..StoreFacts::default()
    };
    let job = JobFacts {
        kind: "full".to_owned(),
        cluster: ClusterName::parse("main").unwrap(),
        schedule: "0 2 * * * UTC".to_owned(),
        next_at: Some(now.plus(Duration::from_secs(14 * HOUR))),
        running: None,
        last: Some(run(RunOutcome::Done)),
        last_success_at: Some(before(9 * HOUR)),
        failures_in_a_row: 0,
        interval_seconds: Some(DAY),
        earlier_bytes: vec![900, 1100],
    };
    Snapshot {
        version: "0".to_owned(),
        host: "db1".to_owned(),
        started_at: before(30 * DAY),
        http: None,
        clusters: BTreeMap::from([(ClusterName::parse("main").unwrap(), cluster)]),
        repositories: BTreeMap::from([(RepoName::parse("eu").unwrap(), store)]),
        jobs: BTreeMap::from([("nightly".to_owned(), job)]),
        alerts: Vec::new(),
        alerts_checked_at: None,
        sinks: BTreeMap::from([("on-call".to_owned(), SinkFacts::default())]),
        tasks: BTreeMap::from([("archiver".to_owned(), TaskFacts { starts_total: 1, failure: None })]),
        reload_refused: None,
    }
}

fn cluster(facts: &mut Snapshot) -> &mut ClusterFacts {
    facts.clusters.values_mut().next().unwrap()
}
fn store(facts: &mut Snapshot) -> &mut StoreFacts {
    facts.repositories.values_mut().next().unwrap()
}
fn job(facts: &mut Snapshot) -> &mut JobFacts {
    facts.jobs.values_mut().next().unwrap()
}

fn found(change: impl Fn(&mut Snapshot)) -> Vec<Finding> {
    let mut facts = facts(now());
    change(&mut facts);
    evaluate(&facts, &AlertsConfig::default(), now())
}

use Severity::{Critical, Warning};

/// What is changed, and which rule then speaks how loudly: None means that nothing is said at all.
type Case = (&'static str, fn(&mut Snapshot), Option<(&'static str, Severity)>);

const CASES: &[Case] = &[
    ("all is well", |_| {}, None),
    ("waits for 10 minutes", |f| cluster(f).archive.waiting_since = Some(ago(10 * MINUTE)), None),
    (
        "waits longer",
        |f| cluster(f).archive.waiting_since = Some(ago(10 * MINUTE + 1)),
        Some(("archive-lag", Critical)),
    ),
    (
        "archiving fails",
        |f| cluster(f).archive.failure = Some(failure("no")),
        Some(("archive-failing", Warning)),
    ),
    (
        "nobody looks",
        |f| cluster(f).archive.scanned_at = Some(ago(10 * MINUTE + 1)),
        Some(("archiver-silent", Critical)),
    ),
    ("no archiver yet", |f| cluster(f).archive.scanned_at = None, None),
    ("tail a minute behind", |f| cluster(f).tail.current_at = Some(ago(MINUTE)), None),
    (
        "tail further behind",
        |f| cluster(f).tail.current_at = Some(ago(MINUTE + 1)),
        Some(("tail-behind", Warning)),
    ),
    ("tail never current", |f| cluster(f).tail.current_at = None, Some(("tail-behind", Warning))),
    ("tail off", |f| cluster(f).tail = TailFacts::default(), None),
    (
        "tail of a standby",
        |f| {
            cluster(f).tail.current_at = None;
            cluster(f).server.in_recovery = true;
        },
        None,
    ),
    (
        "hole",
        |f| cluster(f).archive.holes = vec![HoleFacts { first: segment(3), last: segment(4) }],
        Some(("wal-hole", Critical)),
    ),
    ("damage", |f| cluster(f).archive.damaged = vec![segment(3)], Some(("wal-damaged", Critical))),
    ("two contents", |f| cluster(f).archive.conflicts = vec![segment(3)], Some(("wal-conflict", Critical))),
    ("full in a day", |f| cluster(f).server.wal_disk_full_in_seconds = Some(DAY), None),
    (
        "full in less",
        |f| cluster(f).server.wal_disk_full_in_seconds = Some(DAY - 1),
        Some(("disk-full-soon", Warning)),
    ),
    (
        "full in 4 hours",
        |f| cluster(f).server.wal_disk_full_in_seconds = Some(4 * HOUR),
        Some(("disk-full-soon", Warning)),
    ),
    (
        "full sooner",
        |f| cluster(f).server.wal_disk_full_in_seconds = Some(4 * HOUR - 1),
        Some(("disk-full-soon", Critical)),
    ),
    ("a tenth free", |f| cluster(f).server.wal_disk_free_bytes = 100 << 30, None),
    ("less free", |f| cluster(f).server.wal_disk_free_bytes = (100 << 30) - 1, Some(("disk-low", Warning))),
    (
        "half of that",
        |f| cluster(f).server.wal_disk_free_bytes = (50 << 30) - 1,
        Some(("disk-low", Critical)),
    ),
    ("disk unknown", |f| cluster(f).server.wal_disk_bytes = 0, None),
    (
        "no answer",
        |f| cluster(f).server.error = Some("refused".into()),
        Some(("server-unreachable", Critical)),
    ),
    (
        "not asked",
        |f| cluster(f).server.asked_at = Some(ago(5 * MINUTE + 1)),
        Some(("server-unreachable", Critical)),
    ),
    ("archiving off", |f| cluster(f).server.archiving_off = true, Some(("archiving-off", Critical))),
    ("never asked yet", |f| cluster(f).server.asked_at = None, None),
    ("store fails", |f| store(f).failure = Some(failure("503")), Some(("store-unreachable", Critical))),
    (
        "optional store fails",
        |f| {
            store(f).failure = Some(failure("503"));
            store(f).required = false;
        },
        Some(("store-unreachable", Warning)),
    ),
    ("80 % used", |f| store(f).used_bytes = Some(800), None),
    ("more used", |f| store(f).used_bytes = Some(801), Some(("repository-usage", Warning))),
    ("capacity unknown", |f| store(f).capacity_bytes = None, None),
    (
        "end in 2 days",
        |f| store(f).credentials_expire_at = Some(now().plus(Duration::from_secs(2 * DAY))),
        None,
    ),
    (
        "end in a day",
        |f| store(f).credentials_expire_at = Some(now().plus(Duration::from_secs(DAY))),
        Some(("credentials-expiring", Warning)),
    ),
    ("ended", |f| store(f).credentials_expire_at = Some(now()), Some(("credentials-expiring", Critical))),
    ("run failed", |f| job(f).last = Some(run(RunOutcome::Failed)), Some(("job-failed", Critical))),
    (
        "run found something",
        |f| job(f).last = Some(run(RunOutcome::Finding)),
        Some(("job-finding", Critical)),
    ),
    (
        "damage in the repository",
        |f| {
            job(f).kind = "verify".into();
            job(f).last = Some(run(RunOutcome::Finding));
        },
        Some(("repository-damaged", Critical)),
    ),
    (
        "a restore test found something",
        |f| {
            job(f).kind = "restore-test".into();
            job(f).last = Some(run(RunOutcome::Finding));
        },
        Some(("proof-failed", Critical)),
    ),
    ("another host ran", |f| job(f).last = Some(run(RunOutcome::Elsewhere)), None),
    ("due an hour ago", |f| job(f).next_at = Some(ago(HOUR)), None),
    ("due longer ago", |f| job(f).next_at = Some(ago(HOUR + 1)), Some(("job-overdue", Critical))),
    (
        "due longer ago, and runs",
        |f| {
            job(f).next_at = Some(ago(3 * HOUR));
            job(f).running = Some(RunningJob {
                started_at: ago(HOUR),
                phase: "copy".into(),
                done_bytes: 0,
                total_bytes: None,
            });
        },
        None,
    ),
    (
        "49 hours of a daily job",
        |f| {
            job(f).last_success_at = Some(ago(49 * HOUR));
            job(f).last = None;
        },
        None,
    ),
    (
        "silent for longer",
        |f| {
            job(f).last_success_at = Some(ago(49 * HOUR + 1));
            job(f).last = None;
        },
        Some(("job-silent", Critical)),
    ),
    (
        "silent, but another host ran",
        |f| {
            job(f).last_success_at = None;
            job(f).last = Some(run(RunOutcome::Elsewhere));
        },
        None,
    ),
    (
        "never succeeded in a month",
        |f| {
            job(f).last_success_at = None;
            job(f).last = None;
        },
        Some(("job-silent", Critical)),
    ),
    (
        "schedule without a next date",
        |f| {
            job(f).interval_seconds = None;
            job(f).next_at = None;
            job(f).last_success_at = None;
        },
        None,
    ),
    ("no backup", |f| cluster(f).backups.last_full = None, Some(("backup-missing", Critical))),
    ("catalog not read yet", |f| cluster(f).backups = BackupFacts::default(), None),
    (
        "damaged pages",
        |f| {
            let damaged = LastBackup { damaged: true, ..backup(1000) };
            cluster(f).backups.last.insert("full".into(), damaged);
        },
        Some(("backup-damaged", Critical)),
    ),
    ("half the size", |f| cluster(f).backups.last_full = Some(backup(500)), None),
    ("smaller", |f| cluster(f).backups.last_full = Some(backup(499)), Some(("backup-size", Warning))),
    ("twice the size", |f| cluster(f).backups.last_full = Some(backup(2000)), None),
    ("larger", |f| cluster(f).backups.last_full = Some(backup(2001)), Some(("backup-size", Warning))),
    (
        "nothing to compare with",
        |f| {
            cluster(f).backups.last_full = Some(backup(1));
            cluster(f).backups.earlier_fulls.clear();
        },
        None,
    ),
    (
        "a small dump",
        |f| {
            job(f).kind = "dump".into();
            job(f).last.as_mut().unwrap().bytes_raw = Some(499);
        },
        Some(("backup-size", Warning)),
    ),
    (
        "catalog unread",
        |f| cluster(f).backups.seen_at = Some(ago(6 * HOUR + 1)),
        Some(("backups-unread", Warning)),
    ),
    ("proved 35 days ago", |f| cluster(f).backups.proved_at = Some(ago(35 * DAY)), None),
    (
        "proved longer ago",
        |f| cluster(f).backups.proved_at = Some(ago(35 * DAY + 1)),
        Some(("proof-stale", Warning)),
    ),
    (
        "no canary",
        |f| {
            cluster(f).canary.failure = Some(failure("permission denied"));
            cluster(f).canary.enabled = true;
        },
        Some(("canary-silent", Warning)),
    ),
    (
        "a canary that was switched off",
        |f| cluster(f).canary.failure = Some(failure("permission denied")),
        None,
    ),
    ("never proved", |f| cluster(f).backups.proved_at = None, None),
    ("back within the objective", |f| cluster(f).objectives.rto_seconds = Some(30), None),
    ("back too late", |f| cluster(f).objectives.rto_seconds = Some(29), Some(("rto-missed", Warning))),
    ("no more lost than allowed", |f| cluster(f).objectives.rpo_seconds = Some(3), None),
    (
        "more lost than allowed",
        |f| cluster(f).objectives.rpo_seconds = Some(2),
        Some(("rpo-missed", Critical)),
    ),
    (
        "task fails",
        |f| f.tasks.values_mut().next().unwrap().failure = Some(failure("panicked")),
        Some(("task-failing", Warning)),
    ),
    (
        "task failed once, long ago",
        |f| {
            let long_ago = Failure { at: ago(3 * MINUTE), ..failure("panicked") };
            f.tasks.values_mut().next().unwrap().failure = Some(long_ago);
        },
        None,
    ),
    (
        "reload refused",
        |f| f.reload_refused = Some(failure("line 3")),
        Some(("configuration-refused", Warning)),
    ),
    (
        "sink fails",
        |f| f.sinks.values_mut().next().unwrap().failure = Some(failure("401")),
        Some(("sink-failing", Warning)),
    ),
];

/// The commands of all findings.
pub fn every_mend() -> Vec<String> {
    CASES.iter().flat_map(|(_, change, _)| found(change)).map(|finding| finding.mend).collect()
}

#[test]
fn each_rule_speaks_when_its_threshold_is_passed_and_not_before() {
    for (what, change, expected) in CASES {
        let seen: Vec<_> = found(change).iter().map(|f| (f.rule, f.severity)).collect();
        assert_eq!(seen, expected.iter().copied().collect::<Vec<_>>(), "{what}");
    }
}

#[test]
fn every_rule_of_the_list_is_in_the_table_and_the_reverse() {
    let listed: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).collect();
    let tried: BTreeSet<&str> =
        CASES.iter().filter_map(|(_, _, expected)| expected.map(|(rule, _)| rule)).collect();
    assert_eq!(listed, tried);
    assert_eq!(listed.len(), RULES.len(), "a name is there twice");
}

#[test]
fn a_finding_says_what_where_since_and_which_command_mends_it() {
    for (what, change, _) in CASES {
        for finding in found(change) {
            let name = finding.labels.values().next().unwrap();
            assert!(
                finding.summary.contains(name.as_str()) || finding.rule == "configuration-refused",
                "{what}: {finding:?}"
            );
            assert!(!finding.mend.is_empty(), "{what}");
            assert_eq!(finding.key(), format!("{}:{name}", finding.rule));
        }
    }
    let lag = found(|f| {
        let archive = &mut cluster(f).archive;
        archive.waiting_since = Some(ago(11 * MINUTE));
        (archive.waiting_files, archive.waiting_bytes) = (7, 7 << 24);
        archive.failure = Some(failure("the store answers 503, eu"));
    });
    assert_eq!(
        lag[0].summary,
        "cluster main: 7 WAL files (112.0 MiB) wait to be archived, the oldest since 2026-11-21 11:49:00 UTC; last \
         failure: the store answers 503, eu"
    );
    assert_eq!(lag[0].mend, "pgkeep check --cluster main");
}

#[test]
fn a_server_that_does_not_archive_is_told_after_a_minute_as_the_trouble_of_the_screen() {
    let mut facts = facts(now());
    cluster(&mut facts).server.archiving_off = true;
    let found = evaluate(&facts, &AlertsConfig::default(), now());
    assert_eq!((found[0].key().as_str(), found[0].hold), ("archiving-off:main", Duration::from_mins(1)));
    let running = AgentState::Running { since: facts.started_at };
    let troubles = status::view(&facts, running, &AlertsConfig::default(), now()).troubles;
    assert!(troubles.iter().any(|t| t.key == found[0].key() && t.mend == found[0].mend && t.critical));
}

#[test]
fn many_damaged_files_are_one_alert_of_bounded_length() {
    let many = found(|f| cluster(f).archive.damaged = (1..500).map(segment).collect());
    assert_eq!(many.len(), 1);
    assert!(many[0].summary.contains("496 more") && many[0].summary.len() < 300, "{}", many[0].summary);
}

#[test]
fn what_the_user_sets_counts() {
    let mut facts = facts(now());
    cluster(&mut facts).archive.waiting_since = Some(ago(11));
    let config = AlertsConfig { archive_lag: Duration::from_secs(10), ..AlertsConfig::default() };
    assert_eq!(evaluate(&facts, &config, now())[0].rule, "archive-lag");
    cluster(&mut facts).server.error = Some("refused".into());
    let config = AlertsConfig { server_unreachable: Duration::from_secs(7), ..AlertsConfig::default() };
    assert_eq!(evaluate(&facts, &config, now())[0].hold, Duration::from_secs(7));
}

#[test]
fn a_clock_that_was_set_back_raises_nothing() {
    let mut facts = facts(now());
    cluster(&mut facts).archive.waiting_since = Some(now());
    assert_eq!(evaluate(&facts, &AlertsConfig::default(), ago(DAY)), vec![]);
}
