use super::*;
use crate::model::Timestamp;

fn at(text: &str) -> Timestamp {
    format!("2026-11-21T{text}Z").parse().unwrap()
}

/// A drill with a bit of everything.
pub fn example() -> Report {
    let main = ClusterName::parse("main").unwrap();
    let eu = RepoName::parse("eu").unwrap();
    let mut report = Report::new(Kind::Drill, &main, Some(&eu), at("02:00:00"));
    report.host = "db1".to_owned();
    report.pgkeep = "0.5.0".to_owned();
    report.finished_at = at("02:20:00");
    let backup = BackupId::parse("20261120T020000Z-full-3f9a").unwrap();
    report.recovered = Some(Recovered {
        target: "2026-11-20 14:23:07+00".to_owned(),
        chosen: "a random second, seed 4711".to_owned(),
        seed: Some(4711),
        stretches: vec![Stretch {
            from: at("00:00:00"),
            until: at("01:59:58"),
            oldest_backup: backup.clone(),
            newest_backup_at: None,
        }],
        backup,
        backup_of: at("00:00:00"),
        repository: eu,
        backup_bytes: 2_400_000_000,
        stored_bytes: 800_000_000,
        wal_from: Lsn(0x1000_0000),
        wal_to: Lsn(0x5000_0000),
        wal_bytes: 1 << 30,
        timeline: TimelineId(1),
        ends_at: Lsn(0x4fff_f000),
        last_commit_kept: None,
        part: None,
    });
    report.objectives = objectives();
    report.checks = vec![
        Check::new("recovery", "end of recovery", "0/4FFFF000").found(true, "0/4FFFF000"),
        Check::new("assertions", "every <user> has a mail address", "true").found(false, "false"),
        Check::new("instance", "data checksums", "no page is wrong")
            .unproved("the cluster has no data checksums"),
        Check::new("instance", "pg_amcheck", "nothing is wrong")
            .found(false, "heap table \"a\", block 0:\n  xmin 7 & more"),
    ];
    report.steps = [
        ("plan", 12.0, true),
        ("fetch the base backup", 400.0, true),
        ("replay WAL", 288.5, true),
        ("pg_amcheck", 90.0, false),
    ]
    .map(|(name, seconds, counts)| Step { name: name.to_owned(), seconds, counts })
    .to_vec();
    report.measured = Some(Measured {
        backup_bytes: 2_400_000_000,
        wal_bytes: 1 << 30,
        plan_seconds: 12.0,
        lay_out_seconds: 400.0,
        replay_seconds: 288.5,
        estimated_seconds: Some(650.0),
    });
    report.estimate = Some(Estimate {
        seconds: 650.0,
        plan_seconds: 10.0,
        lay_out_seconds: 380.0,
        replay_seconds: 260.0,
        measured: 9,
        error: Some(0.08),
    });
    report.notes = vec!["shared_preload_libraries without pg_cron".to_owned()];
    report.judge();
    report
}

fn objectives() -> Vec<Objective> {
    vec![
        Objective {
            name: "RPO".to_owned(),
            objective_seconds: Some(60.0),
            achieved_seconds: Some(2.0),
            verdict: Some(Verdict::Holds),
            meaning: "so old was the newest commit in the repository".to_owned(),
        },
        Objective {
            name: "RTO".to_owned(),
            objective_seconds: Some(600.0),
            achieved_seconds: Some(700.5),
            verdict: Some(Verdict::Fails),
            meaning: "until the cluster was open".to_owned(),
        },
    ]
}

#[test]
fn one_failure_is_a_failure_and_what_was_not_made_is_not_passed() {
    let mut report = example();
    assert_eq!(report.outcome, Outcome::Failed);
    assert_eq!(report.findings().len(), 3, "{:#?}", report.findings());
    report.checks.retain(|check| check.verdict != Verdict::Fails);
    report.judge();
    assert_eq!(report.outcome, Outcome::Failed, "the objective is missed");
    report.objectives.clear();
    report.judge();
    assert_eq!((report.outcome, report.findings().len()), (Outcome::Passed, 0));
    report.checks.push(Check::new("dump", "rows", "").essential().unproved("the scratch space is too small"));
    report.judge();
    assert_eq!(report.outcome, Outcome::Unproved);
    assert!(report.findings()[0].contains("too small"));
    report.error = Some("the store is away".to_owned());
    report.judge();
    assert_eq!(report.outcome, Outcome::Failed);
    let mut nothing = Report::new(Kind::RestoreTest, &report.cluster, None, report.started_at);
    nothing.judge();
    assert_eq!(nothing.outcome, Outcome::Unproved);
}

#[test]
fn the_report_reads_back_from_its_json() {
    let report = example();
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
}

#[test]
fn the_pages_say_all_of_it() {
    let report = example();
    insta::assert_snapshot!(markdown(&report));
    let page = html(&report);
    for words in ["&lt;user&gt;", "&amp; more", "RTO", "seed 4711", "pg_cron", "MISSED"] {
        assert!(page.contains(words), "{words}");
    }
    assert!(!page.contains("<user>") && !page.contains("http") && !page.contains("<script"));
    if let Ok(path) = std::env::var("PGKEEP_TEST_HTML") {
        std::fs::write(path, page).unwrap();
    }
}
