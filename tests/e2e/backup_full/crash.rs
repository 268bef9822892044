//! Killed, stopped or interrupted at every step: nothing is published that is not whole, and the next one works.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::opened::{backup, backup_halted_at, fill, published, unpack};
use crate::support::{EnvOptions, TestEnv};

/// Whole: every object of every published record is there with its length.
fn assert_whole(env: &TestEnv) {
    for key in published(env.repo()) {
        let record: serde_json::Value = serde_json::from_slice(&env.repo().read(&key)).unwrap();
        let directory = key.strip_suffix("backup.json").unwrap();
        assert!(env.repo().exists(&format!("{key}.minisig")));
        for object in record["objects"].as_array().unwrap() {
            let stored = env.repo().read(&format!("{directory}{}", object["key"].as_str().unwrap()));
            assert_eq!(object["bytes"], stored.len());
        }
    }
}

#[test]
fn a_kill_at_any_step_publishes_nothing_and_the_next_backup_works() {
    let env = EnvOptions::new(17).build();
    fill(&env.pg, 1000);
    let steps = [
        "backup-after-start",
        "backup-after-first-pack",
        "backup-before-stop",
        "backup-after-stop",
        "backup-before-manifest",
        "backup-before-signature",
        "backup-before-publish",
    ];
    for step in steps {
        env.pgkeep.clone().failpoint(step, "return(kill)").run(["backup", "full"]).was_killed();
        assert!(published(env.repo()).is_empty(), "{step}");
    }
    env.pgkeep.clone().failpoint("backup-after-publish", "return(kill)").run(["backup", "full"]).was_killed();
    assert_eq!(published(env.repo()).len(), 1);
    assert_whole(&env);
    let ran = backup(&env).ok();
    let id = ran.json()["id"].as_str().unwrap().to_owned();
    unpack(&env, &id);
    let warnings = ran.json()["warnings"].to_string();
    assert!(warnings.contains("never published"), "{warnings}");
    assert_whole(&env);
}

#[test]
fn an_error_at_any_step_publishes_nothing_and_leaves_the_server_free() {
    let env = EnvOptions::new(14).build();
    for step in ["backup-after-first-pack", "backup-before-stop", "backup-before-manifest"] {
        env.pgkeep.clone().failpoint(step, "return(error)").run(["backup", "full"]).fails_with("internal", 1);
        assert!(published(env.repo()).is_empty(), "{step}");
    }
    backup(&env).ok();
}

#[test]
fn ctrl_c_ends_a_backup_in_order() {
    let env = EnvOptions::new(18).build();
    fill(&env.pg, 200_000);
    let running = backup_halted_at(&env, "backup-after-first-pack");
    running.signal(Signal::SIGINT);
    running.signal(Signal::SIGCONT);
    let ran = running.wait().fails_with("cancelled", 1);
    assert!(ran.took < Duration::from_secs(40), "{ran}");
    assert!(published(env.repo()).is_empty());
    backup(&env).ok();
}

#[test]
fn a_second_backup_at_the_same_time_is_refused() {
    let env = EnvOptions::new(15).build();
    let running = backup_halted_at(&env, "backup-before-stop");
    backup(&env).fails_with("busy", 1);
    running.signal(Signal::SIGCONT);
    running.wait().ok();
    assert_eq!(published(env.repo()).len(), 1);
}

#[test]
fn a_session_that_is_ended_by_the_server_fails_the_backup() {
    let env = EnvOptions::new(16).build();
    let running = backup_halted_at(&env, "backup-before-stop");
    env.pg.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgkeep'");
    running.signal(Signal::SIGCONT);
    running.wait().exits(1);
    assert!(published(env.repo()).is_empty());
}
