//! Killed, failed and stopped at each step: nothing is changed, and the next run finds what was left.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{count, nothing_changed, restore, restored, shop, whole_server};
use crate::support::eventually;

const STEPS: [&str; 6] = [
    "database-after-create",
    "database-after-globals",
    "database-after-definitions",
    "database-after-rows",
    "database-after-indexes",
    "database-before-publish",
];

/// The rows of the dump are not those of the database any more, and a role of it is gone.
fn changed(major: u32) -> crate::support::TestEnv {
    let env = shop(major);
    env.pgkeep.run(["backup", "dump", "-d", "shop"]).ok();
    env.pg.session_in("shop").sql("delete from orders where id > 7; drop owned by reader");
    env.pg.sql("drop role reader");
    env
}

const AGAIN: [&str; 5] = ["shop", "--from", "latest", "--replace", "--globals"];

#[test]
fn a_failure_at_any_step_leaves_and_changes_nothing() {
    let env = changed(17);
    let before = whole_server(&env);
    for step in STEPS {
        let pgkeep = env.pgkeep.clone().failpoint(step, "return(error)");
        restore(&pgkeep, &AGAIN).fails_with("internal", 1).says("injected failure");
        nothing_changed(&env, &before, step);
    }
}

fn killed_at_any_step(major: u32) {
    let env = changed(major);
    let mut before = whole_server(&env);
    let mut left = 0;
    for step in STEPS {
        let pgkeep = env.pgkeep.clone().failpoint(step, "return(kill)");
        restore(&pgkeep, &AGAIN).was_killed();
        let unfinished = "select datname from pg_database where datname like 'pgkeep_restoring%'";
        let found = env.pg.sql(unfinished);
        assert_eq!(found.len(), 1, "{step}: the one before was removed, this one is left");
        left += 1;
        // What people use is as it was.
        let mut now = whole_server(&env);
        now.retain(|name, _| !name.starts_with("pgkeep_restoring"));
        now.remove("all roles");
        before.remove("all roles");
        assert_eq!(now, before, "{step}");
    }
    assert_eq!(left, STEPS.len());
    env.pgkeep
        .run(["restore", "database", "shop", "--from", "latest", "--replace", "--globals", "--dry-run"])
        .ok()
        .says("which a killed restore has left");
    let report = restored(&env, &AGAIN);
    assert_eq!(report["removed"].as_array().unwrap().len(), 1);
    assert_eq!(report["roles_made"], serde_json::json!(["reader"]));
    let aside = report["kept_as"].as_str().unwrap();
    assert_eq!((count(&env, "shop", "orders"), count(&env, aside, "orders")), (1500, 7));
    assert_eq!(env.pg.one("select count(*) from pg_database where datname like 'pgkeep_restoring%'"), "0");
    // The comment was ours alone.
    assert_eq!(env.pg.one("select count(*) from pg_shdescription where description like '%pgkeep%'"), "0");
}

#[test]
fn killed_at_any_step_nothing_is_changed_and_the_next_run_removes_what_was_left_on_postgres_14() {
    killed_at_any_step(14);
}
#[test]
fn killed_at_any_step_nothing_is_changed_and_the_next_run_removes_what_was_left_on_postgres_18() {
    killed_at_any_step(18);
}

#[test]
fn killed_right_after_the_exchange_the_database_is_whole() {
    let env = changed(16);
    let pgkeep = env.pgkeep.clone().failpoint("database-after-publish", "return(kill)");
    restore(&pgkeep, &AGAIN).was_killed();
    assert_eq!(count(&env, "shop", "orders"), 1500);
    assert_eq!(env.pg.one("select count(*) from pg_database where datname like 'shop_before_%'"), "1");
}

#[test]
fn ended_by_a_signal_it_takes_everything_back_and_a_second_restore_waits_for_nobody() {
    let env = changed(18);
    let before = whole_server(&env);
    let running = env
        .pgkeep
        .clone()
        .failpoint("database-after-rows", "return(stop)")
        .spawn(["restore", "database", "--yes"].iter().chain(&AGAIN));
    eventually("it stands still", Duration::from_secs(30), || running.is_stopped());
    restore(&env.pgkeep, &["shop", "--from", "latest", "--as", "other", "--no-owner"]).fails_with("busy", 1);
    running.signal(Signal::SIGTERM);
    running.signal(Signal::SIGCONT);
    running.wait().fails_with("cancelled", 1);
    nothing_changed(&env, &before, "ended by a signal");
}
