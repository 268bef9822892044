//! `restore` in place: the main road, complete loss, what is moved aside, what is saved first.

use std::path::{Path, PathBuf};

use pgkeep::model::{Inclusion, Target};

use crate::support::Stop;
use crate::support::{EnvOptions, Ledger, TestEnv};

/// Directories beside `path` that a restore moved aside.
fn moved_aside(path: &Path) -> Vec<PathBuf> {
    let head = format!("{}_incident_", path.file_name().unwrap().to_str().unwrap());
    let entries = path.parent().unwrap().read_dir().unwrap().map(|e| e.unwrap().path());
    entries.filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with(&head)).collect()
}

fn timeline(env: &TestEnv) -> String {
    env.pg.one("select timeline_id::text from pg_control_checkpoint()")
}

#[test]
fn the_latest_keeps_even_what_was_never_archived() {
    let env = TestEnv::new(16);
    let mut ledger = Ledger::create(&env.pg);
    ledger.write(&env.pg, 2);
    env.backup();
    ledger.write(&env.pg, 2);
    env.pg.switch_and_archive();
    // These are in pg_wal alone when the restore begins.
    ledger.write(&env.pg, 3);
    let ran = env.pgkeep.run(["restore", "--to", "latest", "--yes"]).ok();
    ledger.assert_ends_at(&env.pg, ledger.last_id());
    assert_eq!(moved_aside(&env.pg.data).len(), 1, "{}", ran.stdout);
    env.pg.sql("checkpoint");
    assert_eq!(timeline(&env), "2");
    let history = env.repo().list().into_iter().any(|k| k.contains("/history/00000002.history-"));
    assert!(history, "success was reported before the new timeline was archived");
    let conf = std::fs::read_to_string(env.pg.data.join("postgresql.auto.conf")).unwrap();
    assert!(!conf.contains("restore_command") && !conf.contains("recovery_target"), "{conf}");
    // Life goes on, and can be restored to once more.
    ledger.write(&env.pg, 2);
    let row = ledger.entry(ledger.last_id() - 1).clone();
    let target = Target::Xid(row.xid);
    env.pgkeep.run(["restore", "--to", &target.to_string(), "--yes"]).ok();
    ledger.assert_ends_at(&env.pg, ledger.expect_last(&target, Inclusion::After));
    assert_eq!(moved_aside(&env.pg.data).len(), 2);
}

#[test]
fn an_empty_host_is_restored_from_nothing_but_the_repository_and_the_identity() {
    let env = TestEnv::new(15);
    let mut ledger = Ledger::create(&env.pg);
    env.backup();
    ledger.write(&env.pg, 4);
    env.pg.switch_and_archive();
    env.pg.stop(Stop::Immediate);
    std::fs::remove_dir_all(&env.pg.data).unwrap();
    let state = env.root.dir("new-state", 0o700);
    let old = env.state.display().to_string();
    let new_host = env.with_config("new-host.toml", |text| text.replace(&old, state.to_str().unwrap()));
    let refused = new_host.run(["restore", "--to", "latest", "--yes"]).exits(3);
    assert!(refused.stderr.contains("error[untrusted]"), "{}", refused.stderr);
    let public = std::fs::read_to_string(env.state.join("keys/host.pub")).unwrap();
    let key = public.lines().last().unwrap();
    new_host.run(["restore", "--to", "latest", "--trust", key, "--yes"]).ok();
    ledger.assert_ends_at(&env.pg, 4);
}

/// A table in a tablespace that the backup holds, and another in one that is only in the WAL after it.
fn with_two_tablespaces(major: u32) -> (TestEnv, [PathBuf; 2]) {
    let env = TestEnv::new(major);
    let home = env.root.dir("space", 0o700);
    env.pg.sql(&format!("create tablespace space location '{}'", home.display()));
    env.pg.sql("create table kept tablespace space as select generate_series(1, 1000) as i");
    env.backup();
    let newer = env.root.dir("newer", 0o700);
    env.pg.sql(&format!("create tablespace newer location '{}'", newer.display()));
    env.pg.sql("create table younger tablespace newer as select generate_series(1, 500) as i");
    env.pg.switch_and_archive();
    (env, [home, newer])
}

#[test]
fn tablespaces_return_to_their_places_and_the_old_ones_stay() {
    let (env, [home, newer]) = with_two_tablespaces(17);
    env.pg.sql("drop table kept");
    env.pgkeep.run(["restore", "--to", "latest", "--yes"]).ok();
    assert_eq!(env.pg.one("select count(*)::text from younger"), "500");
    assert!(env.pg.try_sql("select 1 from kept").is_err());
    for place in [&home, &newer] {
        let names: Vec<_> =
            place.read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(names.len(), 2, "the restored and the old directory: {names:?}");
        assert!(names.iter().any(|n| n.contains("_incident_")), "{names:?}");
    }
}

#[test]
fn a_restore_killed_between_its_moves_leaves_nothing_that_starts_without_its_tablespaces() {
    let (env, [home, newer]) = with_two_tablespaces(18);
    let args = ["restore", "--to", "latest", "--yes"];
    env.pgkeep.clone().failpoint("restore-after-first-move", "return(kill)").run(args).was_killed();
    assert!(env.pg.try_start().is_err(), "the old cluster was started in the middle of the moves");
    env.pgkeep.run(args).ok();
    assert_eq!(env.pg.one("select count(*)::text from kept"), "1000");
    assert_eq!(env.pg.one("select count(*)::text from younger"), "500");
    for place in [&home, &newer] {
        let names: Vec<_> =
            place.read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        assert!(names.iter().any(|n| n.contains("_incident_")), "the old files are kept: {names:?}");
    }
}

#[test]
fn a_paused_recovery_is_ended_by_promote() {
    let env = EnvOptions::new(14).build();
    let mut ledger = Ledger::create(&env.pg);
    env.backup();
    ledger.write(&env.pg, 4);
    env.pg.switch_and_archive();
    env.pg.stop(Stop::Fast);
    let row = ledger.entry(3).clone();
    let target = Target::Lsn(row.end);
    env.pgkeep.run(["restore", "--to", &target.to_string(), "--action", "pause", "--yes"]).ok();
    ledger.assert_ends_at(&env.pg, 3);
    assert_eq!(env.pg.one("select pg_is_in_recovery()::text"), "true");
    env.pgkeep.run(["restore", "promote"]).ok();
    assert_eq!(env.pg.one("select pg_is_in_recovery()::text"), "false");
    ledger.rewind_to(3);
    ledger.write(&env.pg, 1);
    ledger.assert_ends_at(&env.pg, 4);
}
