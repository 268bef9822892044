//! A dump holds nobody up: it waits shortly for a lock, lets go of everything, and comes again.

use std::time::Duration;

use crate::support::{EnvOptions, TestEnv, eventually};

fn env(keys: &str) -> TestEnv {
    let env = EnvOptions::new(17).not_archiving().config(&format!("[dump]\n{keys}")).build();
    env.pg.sql("create table migrated as select n from generate_series(1, 100) n");
    env
}

#[test]
fn a_table_that_stays_locked_fails_the_dump_soon_and_nothing_is_published() {
    let env = env("lock_timeout = \"200ms\"\nretries = 1\nretry_after = \"100ms\"");
    let migration = env.pg.session();
    migration.sql("begin; lock table migrated in access exclusive mode");
    let ran = env.pgkeep.run(["backup", "dump"]).fails_with("not-ready", 1);
    assert!(ran.stderr.contains("after 2 tries") && ran.stderr.contains("pg_stat_activity"), "{ran}");
    let fsck = env.fsck().assert_whole();
    assert_eq!((fsck.published.len(), fsck.leftovers.len()), (0, 0));
    // Nothing of ours waits any more.
    let waiting = "select count(*) from pg_stat_activity where application_name like 'pgkeep%'";
    eventually("our sessions are gone", Duration::from_secs(20), || env.pg.one(waiting) == "0");
}

#[test]
fn a_dump_that_met_a_lock_is_taken_once_the_lock_is_gone() {
    let env = env("lock_timeout = \"200ms\"\nretries = 50\nretry_after = \"200ms\"");
    let migration = env.pg.session();
    migration.sql("begin; lock table migrated in access exclusive mode; insert into migrated values (101)");
    let running = env.pgkeep.clone().global("--json").spawn(["backup", "dump"]);
    let log = "select count(*) from pg_stat_activity where application_name like 'pgkeep%' and wait_event_type = 'Lock'";
    eventually("the dump waits for the lock", Duration::from_secs(30), || env.pg.one(log) == "1");
    migration.sql("commit");
    let json = running.wait().ok().json();
    assert_eq!(json["rows"], 101);
    env.fsck().assert_whole();
}
