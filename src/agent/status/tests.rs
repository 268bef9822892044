use std::time::Duration;

use super::*;
use crate::agent::board::{OpenAlert, Severity};
use crate::agent::{example, readiness};

fn shown_at(snapshot: &Snapshot, now: Timestamp) -> StatusView {
    view(snapshot, AgentState::Running { since: snapshot.started_at }, &AlertsConfig::default(), now)
}

fn shown(snapshot: &Snapshot) -> StatusView {
    shown_at(snapshot, example::now())
}

fn keys(view: &StatusView) -> Vec<&str> {
    view.troubles.iter().map(|trouble| trouble.key.as_str()).collect()
}

#[test]
fn a_healthy_host_has_no_troubles_and_a_troubled_one_says_each_with_its_command() {
    assert_eq!(keys(&shown(&example::healthy())), Vec::<&str>::new());
    assert!(shown(&example::running()).healthy);
    let troubled = shown(&example::troubled());
    assert!(!troubled.healthy && troubled.troubles.iter().all(|t| t.mend.contains(' ')));
    let store = troubled.troubles.iter().find(|t| t.key == "store-unreachable:eu").unwrap();
    assert_eq!((store.mend.as_str(), store.critical), ("pgkeep check --repo eu", true));
    assert!(keys(&troubled).contains(&"wal-hole:main"));
    let urgent: Vec<bool> = troubled.troubles.iter().map(|t| t.critical).collect();
    assert!(urgent.is_sorted_by(|a, b| a >= b), "the critical ones come first");
}

#[test]
fn nothing_is_healthy_that_readiness_doubts() {
    let mut cases = vec![example::healthy(), example::running(), example::troubled()];
    let mut silent = example::healthy();
    silent.clusters.clear();
    cases.push(silent);
    for change in 0..3 {
        let mut snapshot = example::healthy();
        for cluster in snapshot.clusters.values_mut() {
            match change {
                0 => cluster.archive.scanned_at = None,
                1 => cluster.archive.waiting_since = Some(example::now().minus(Duration::from_mins(9))),
                _ => cluster.server.error = Some("no".into()),
            }
        }
        cases.push(snapshot);
    }
    for snapshot in cases {
        for later in [0, 10, 400] {
            let now = example::now().plus(Duration::from_secs(later));
            let doubts = readiness::doubts(&snapshot, now);
            let view = shown_at(&snapshot, now);
            assert!(doubts.is_empty() || !view.healthy, "{doubts:?}: {view:?}");
        }
    }
}

#[test]
fn an_alert_is_told_once_with_what_is_seen_now_and_alone_when_nothing_is() {
    let mut snapshot = example::troubled();
    let alert = |key: &str, rule: &str| OpenAlert {
        key: key.to_owned(),
        rule: rule.to_owned(),
        severity: Severity::Warning,
        since: example::now().minus(Duration::from_mins(7)),
        summary: "told before".into(),
        mend: "pgkeep list --cluster main".into(),
        runbook: Some("backups-failing.md".into()),
        labels: std::collections::BTreeMap::new(),
    };
    snapshot.alerts =
        vec![alert("store-unreachable:eu", "store-unreachable"), alert("backup-size:main", "backup-size")];
    let view = shown(&snapshot);
    let of = |key: &str| view.troubles.iter().filter(|t| t.key == key).collect::<Vec<_>>();
    let (store, size) = (of("store-unreachable:eu"), of("backup-size:main"));
    assert_eq!((store.len(), size.len()), (1, 1));
    assert_eq!(store[0].since, Some(snapshot.alerts[0].since));
    assert!(store[0].what.contains("did not answer") && store[0].critical);
    assert_eq!((size[0].what.as_str(), size[0].critical), ("told before", false));
}

#[test]
fn what_follows_from_archiving_that_fails_is_not_told_beside_it() {
    let mut snapshot = example::troubled();
    let mut alert = snapshot.alerts[0].clone();
    for (key, minutes) in [("archive-failing:main", 9), ("archive-lag:main", 4), ("tail-behind:main", 12)] {
        alert.key = key.into();
        alert.since = example::now().minus(Duration::from_mins(minutes));
        snapshot.alerts.push(alert.clone());
    }
    let view = shown(&snapshot);
    let told = keys(&view);
    assert!(!told.contains(&"archive-lag:main") && !told.contains(&"tail-behind:main"), "{told:?}");
    let failing = view.troubles.iter().find(|t| t.key == "archive-failing:main").unwrap();
    assert_eq!(failing.since, Some(alert.since), "of the oldest");
    // Without the failure each is told.
    for cluster in snapshot.clusters.values_mut() {
        cluster.archive.failure = None;
    }
    snapshot.alerts.retain(|alert| alert.key != "archive-failing:main");
    assert!(keys(&shown(&snapshot)).contains(&"tail-behind:main"));
}

#[test]
fn what_the_user_calls_little_is_little() {
    let mut snapshot = example::healthy();
    for cluster in snapshot.clusters.values_mut() {
        cluster.server.wal_disk_free_bytes = 5 << 30;
    }
    assert_eq!(keys(&shown(&snapshot)), ["disk-low:main"]);
    let agent = AgentState::Running { since: snapshot.started_at };
    let less = AlertsConfig { disk_free: 5, ..AlertsConfig::default() };
    assert!(view(&snapshot, agent, &less, example::now()).healthy);
}

#[test]
fn an_agent_that_is_down_is_said_first() {
    let down = AgentState::Down { why: "no agent answers".into() };
    let view = view(&example::troubled(), down, &AlertsConfig::default(), example::now());
    assert_eq!(view.troubles[0].mend, "systemctl restart pgkeep");
}

#[test]
fn a_cluster_without_a_backup_says_that_everything_would_be_lost() {
    let mut snapshot = example::healthy();
    for cluster in snapshot.clusters.values_mut() {
        cluster.backups.last_full = None;
    }
    let view = shown(&snapshot);
    assert_eq!(view.troubles[0].mend, "pgkeep backup full --cluster main");
    assert!(view.clusters[0].lines[0].text.contains("EVERYTHING"));
    assert_eq!(view.clusters[0].loss, Loss::Everything);
    // It is being mended.
    for job in snapshot.jobs.values_mut() {
        job.running = example::running().jobs["nightly-full"].running.clone();
    }
    assert_eq!(shown(&snapshot).troubles[0].mend, "pgkeep status --watch");
}

#[test]
fn a_failed_job_is_run_again_by_its_name() {
    let mut snapshot = example::healthy();
    for job in snapshot.jobs.values_mut() {
        job.last.as_mut().unwrap().outcome = crate::agent::board::RunOutcome::Failed;
        job.last.as_mut().unwrap().text = "the disk is full".into();
    }
    let view = shown(&snapshot);
    assert_eq!(keys(&view), ["job-failed:nightly-full"]);
    assert_eq!(view.troubles[0].mend, "pgkeep jobs run nightly-full");
    assert!(view.troubles[0].what.contains("the disk is full"));
}
