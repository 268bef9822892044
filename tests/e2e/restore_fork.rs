//! Forks: a recovery made a new timeline, and then the host was lost.

use crate::support::{Ledger, Stop, TestEnv};

/// Rows 1 to 3 are before the fork, row 4 on the dead timeline 1; the archive holds all of timeline 1. The server was
/// recovered to row 3 and runs on timeline 2, whose first segment is archived.
fn forked(env: &TestEnv) -> Ledger {
    let mut ledger = Ledger::create(&env.pg);
    ledger.write(&env.pg, 1);
    env.backup();
    ledger.write(&env.pg, 3);
    env.pg.switch_and_archive();
    let target = format!("lsn:{}", ledger.entry(3).end);
    env.pg.stop(Stop::Fast);
    env.pgkeep.run(["restore", "--to", &target, "--yes"]).ok();
    ledger.assert_ends_at(&env.pg, 3);
    ledger
}

fn lose_the_host(env: &TestEnv) {
    env.pg.stop(Stop::Immediate);
    std::fs::remove_dir_all(&env.pg.data).unwrap();
}

#[test]
fn the_latest_after_a_fork_is_on_the_new_timeline_or_exactly_at_the_fork() {
    let env = TestEnv::new(18);
    let mut ledger = forked(&env);
    // Of timeline 2 the archive has what the restore switched away, then everything.
    lose_the_host(&env);
    env.pgkeep.run(["restore", "--to", "latest", "--yes"]).ok();
    ledger.assert_ends_at(&env.pg, 3);
    assert_eq!(
        env.pg.one("select timeline_id::text from pg_control_recovery(), pg_control_checkpoint()"),
        "3"
    );
    ledger.rewind_to(3);
    ledger.write(&env.pg, 2);
    env.pg.switch_and_archive();
    lose_the_host(&env);
    env.pgkeep.run(["restore", "--to", "latest", "--yes"]).ok();
    ledger.assert_ends_at(&env.pg, 5);
    // Nothing of the newest timelines but their history files: exactly at the first fork, never past it on the dead one.
    lose_the_host(&env);
    for timeline in ["/00000002/", "/00000003/", "/00000004/"] {
        env.repo().list().iter().filter(|k| k.contains(timeline)).for_each(|k| env.repo().delete(k));
    }
    env.repo()
        .list()
        .iter()
        .filter(|k| k.contains("/history/0000000") && !k.contains("00000002.history"))
        .for_each(|k| env.repo().delete(k));
    env.pgkeep.run(["restore", "--to", "latest", "--yes"]).ok();
    ledger.assert_ends_at(&env.pg, 3);
}

#[test]
fn a_target_before_the_fork_and_the_dead_timeline_itself_can_be_restored_to() {
    let env = TestEnv::new(15);
    let ledger = forked(&env);
    let dir = env.side_dir("early");
    let target = format!("xid:{}", ledger.entry(2).xid);
    env.pgkeep.run(["restore", "--to", &target, "--target-dir", dir.to_str().unwrap(), "--yes"]).ok();
    ledger.assert_ends_at(&env.side(&dir), 2);
    let dir = env.side_dir("dead");
    let dead = env.pgkeep.run([
        "restore",
        "--to",
        "latest",
        "--timeline",
        "1",
        "--target-dir",
        dir.to_str().unwrap(),
        "--yes",
    ]);
    dead.ok();
    ledger.assert_ends_at(&env.side(&dir), 4);
    // The parent's switch segment is gone, as after a failover; the child's copy begins with the same bytes.
    let fork = env.repo().list().into_iter().filter(|k| k.contains("/00000002/")).min().unwrap();
    let number = &fork.rsplit('/').next().unwrap()[8..24];
    env.repo().delete(&env.repo().find(&[&format!("/00000001{number}-")]));
    let dir = env.side_dir("stand-in");
    env.pgkeep.run(["restore", "--to", &target, "--target-dir", dir.to_str().unwrap(), "--yes"]).ok();
    let side = env.side(&dir);
    ledger.assert_ends_at(&side, 2);
    assert_eq!(side.one("select count(*)::text from pg_ls_waldir() where name = '00000003.history'"), "1");
}
