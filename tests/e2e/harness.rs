//! The harness itself: were it wrong, every other test would prove nothing.

use std::time::Duration;

use pgkeep::model::{Inclusion, Target};

use crate::support::{Build, Ledger, Pg, PgOptions, Pgkeep, Root, S3, Stop};

fn a_ledger_of_ten_rows_is_known_to_the_last_detail(build: Build) {
    let root = Root::new();
    let pg = PgOptions::new(build).segment_mib(1).create(&root);
    pg.start();
    let mut ledger = Ledger::create(&pg);
    let fifth = ledger.write(&pg, 5);
    ledger.restore_point(&pg, "half");
    ledger.write(&pg, 5);
    ledger.assert_ends_at(&pg, 10);
    for (target, after, before) in [
        (Target::Xid(fifth.xid), 5, 4),
        (Target::Time(fifth.at), 5, 4),
        (Target::Lsn(fifth.end), 5, 5),
        (Target::Lsn(fifth.before_commit), 5, 4),
        (Target::Name("half".to_owned()), 5, 5),
        (Target::Latest, 10, 10),
    ] {
        assert_eq!(ledger.expect_last(&target, Inclusion::After), after, "{target} after");
        assert_eq!(ledger.expect_last(&target, Inclusion::Before), before, "{target} before");
    }
    pg.kill9();
    pg.start();
    ledger.assert_ends_at(&pg, 10);
    pg.stop(Stop::Fast);
    assert!(!pg.is_running());
}

#[test]
fn postgres_14_runs_and_the_ledger_is_known() {
    a_ledger_of_ten_rows_is_known_to_the_last_detail(Build::of(14));
}
#[test]
fn postgres_15_runs_and_the_ledger_is_known() {
    a_ledger_of_ten_rows_is_known_to_the_last_detail(Build::of(15));
}
#[test]
fn postgres_16_runs_and_the_ledger_is_known() {
    a_ledger_of_ten_rows_is_known_to_the_last_detail(Build::of(16));
}
#[test]
fn postgres_17_runs_and_the_ledger_is_known() {
    a_ledger_of_ten_rows_is_known_to_the_last_detail(Build::of(17));
}
#[test]
fn postgres_18_runs_and_the_ledger_is_known() {
    a_ledger_of_ten_rows_is_known_to_the_last_detail(Build::of(18));
}
#[test]
fn debians_postgres_15_runs_and_the_ledger_is_known() {
    a_ledger_of_ten_rows_is_known_to_the_last_detail(Build::debian());
}

#[test]
fn a_standby_follows_and_promotes() {
    let root = Root::new();
    let primary = PgOptions::new(Build::of(17)).create(&root);
    primary.start();
    let ledger = Ledger::create(&primary).write_in_background(&primary, Duration::from_millis(5));
    let standby = Pg::standby_of(&primary, "standby");
    standby.start();
    let ledger = ledger.stop();
    primary.stop(Stop::Fast);
    assert_eq!(standby.one("select pg_is_in_recovery()"), "t");
    standby.promote();
    ledger.assert_ends_at(&standby, ledger.last_id());
}

#[test]
fn a_server_started_by_somebody_else_ends_with_its_root() {
    let root = Root::new();
    let pg = PgOptions::new(Build::of(16)).create(&root);
    let data = pg.data.clone();
    pg.build.run_tool("pg_ctl", ["-D", data.to_str().unwrap(), "-l", "/dev/null", "-w", "start"]);
    assert!(pg.is_running());
    let pid = std::fs::read_to_string(data.join("postmaster.pid")).unwrap();
    let proc = format!("/proc/{}", pid.lines().next().unwrap());
    drop(pg);
    drop(root);
    crate::support::eventually("the server is gone", Duration::from_secs(10), || {
        !std::path::Path::new(&proc).exists()
    });
}

#[test]
fn the_program_is_run_as_the_user_of_the_servers() {
    let ran = Pgkeep::bare().run(["--no-such-argument"]);
    assert!(ran.signal.is_none(), "{ran}");
}

#[test]
fn a_bucket_holds_what_was_put() {
    let bucket = S3::fresh_bucket();
    bucket.put("a/b", b"bytes");
    assert_eq!((bucket.list("a/"), bucket.get("a/b")), (vec!["a/b".to_owned()], b"bytes".to_vec()));
    bucket.delete("a/b");
    assert!(bucket.list("").is_empty());
}
