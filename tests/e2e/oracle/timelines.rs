//! One recovery after another on the same host, with new commits between: each ends on its own timeline, and every
//! timeline that was left can still be gone back to, up to its last commit.

use std::path::Path;

use pgkeep::model::{Inclusion, Target};

use super::{ends_exactly, ends_exactly_with, holds_exactly, in_place, is_the_commit};
use crate::support::{EnvOptions, Ledger, TestEnv};

use Inclusion::After;

/// Restores in place; the ledger goes back to where it ended.
fn recovers_in_place(env: &TestEnv, ledger: &mut Ledger, args: &[&str], last: u32, timeline: u32) {
    let report = in_place(&env.pgkeep, args);
    ledger.rewind_to(last);
    holds_exactly(ledger, &env.pg, &report, last);
    assert_eq!(report["ended"]["promoted"]["timeline"], timeline, "{report:#}");
    assert_eq!(env.pg.one("select count(*) from far"), "10");
    for step in report["kept_aside"].as_array().unwrap() {
        assert!(Path::new(step["to"].as_str().unwrap()).is_dir(), "{report:#}");
    }
    assert_eq!(
        report["kept_aside"].as_array().unwrap().len(),
        2,
        "data directory and tablespace: {report:#}"
    );
}

fn one_recovery_after_another(major: u32) {
    let env = EnvOptions::new(major).build();
    let place = env.root.dir("elsewhere", 0o700);
    env.pg.sql(&format!("create tablespace elsewhere location '{}'", place.display()));
    env.pg.sql("create table far tablespace elsewhere as select generate_series(1, 10) as id");
    let mut ledger = Ledger::create(&env.pg);
    ledger.write(&env.pg, 5);
    env.backup();
    ledger.write(&env.pg, 5);
    env.pg.switch_and_archive();
    // The last of timeline 1 is only in pg_wal; so is that of timeline 2 below.
    ledger.write(&env.pg, 5);
    let first = ledger.clone();

    let eighth = Target::Xid(ledger.entry(8).xid).to_string();
    recovers_in_place(&env, &mut ledger, &["--to", &eighth], 8, 2);
    ledger.write(&env.pg, 4);
    let second = ledger.clone();
    let tenth = Target::Time(ledger.entry(10).at).to_string();
    recovers_in_place(&env, &mut ledger, &["--to", &tenth], 10, 3);
    ledger.write(&env.pg, 1);
    env.pg.switch_and_archive();

    ends_exactly(&env, &ledger, &Target::Latest, After);
    let along = |timeline, branch, target| {
        ends_exactly_with(&env, &env.pgkeep, branch, &target, After, &["--timeline", timeline]);
    };
    along("2", &second, Target::Latest);
    along("1", &first, Target::Latest);
    along("1", &first, Target::Xid(first.entry(13).xid));
    // Without a timeline the newest path is meant, also for what lies before its forks; of the numbers that were
    // given twice, the one on the path.
    ends_exactly(&env, &ledger, &Target::Xid(ledger.entry(6).xid), After);
    ends_exactly(&env, &ledger, &Target::Xid(ledger.entry(9).xid), After);
    is_the_commit(&ledger, &env.pg, 9);

    // Back onto timeline 1 for good: what was written there last is there again.
    let mut ledger = first;
    recovers_in_place(&env, &mut ledger, &["--to", "latest", "--timeline", "1"], 15, 4);
    ledger.write(&env.pg, 1);
    env.pg.switch_and_archive();
    ends_exactly(&env, &ledger, &Target::Latest, After);
}

#[test]
fn one_recovery_after_another_of_postgres_14_ends_exactly_and_every_timeline_stays_reachable() {
    one_recovery_after_another(14);
}
#[test]
fn one_recovery_after_another_of_postgres_18_ends_exactly_and_every_timeline_stays_reachable() {
    one_recovery_after_another(18);
}
