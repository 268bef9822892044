//! `kill -9` at every named step of a restore: what is half done cannot be started, and the next run succeeds.

use std::path::Path;

use crate::support::{EnvOptions, Ledger, Stop, TestEnv};

/// Steps between the move aside and the last rename: what lies there must not start.
const HALF_DONE: [&str; 4] =
    ["restore-after-aside", "restore-after-first-pack", "restore-after-packs", "restore-before-control"];

fn aside(data: &Path) -> usize {
    let head = format!("{}_incident_", data.file_name().unwrap().to_str().unwrap());
    let entries = data.parent().unwrap().read_dir().unwrap();
    entries.filter(|e| e.as_ref().unwrap().file_name().to_str().unwrap().starts_with(&head)).count()
}

#[test]
fn a_restore_in_place_killed_at_any_step_is_carried_on_by_the_next() {
    let env = EnvOptions::new(17).pg(|pg| pg.segment_mib(1)).build();
    let mut ledger = Ledger::create(&env.pg);
    env.backup();
    for step in [
        "restore-after-stop",
        "restore-after-save",
        "restore-after-aside",
        "restore-after-first-pack",
        "restore-after-packs",
        "restore-before-control",
        "restore-after-control",
        "restore-after-start",
        "restore-after-promote",
    ] {
        ledger.write(&env.pg, 2);
        env.pg.switch_and_archive();
        ledger.write(&env.pg, 1);
        // A stopped server is not watched, which saves ten seconds a step.
        env.pg.stop(Stop::Fast);
        let before = aside(&env.pg.data);
        let killed = env.pgkeep.clone().failpoint(step, "return(kill)");
        killed.run(["restore", "--to", "latest", "--yes"]).was_killed();
        if HALF_DONE.contains(&step) {
            assert!(env.pg.try_start().is_err(), "{step}: what is half done was started");
        }
        if step == "restore-after-start" {
            // The recovery goes on by itself with its plan; the next run begins anew all the same.
            crate::support::wait::eventually("the server is up", std::time::Duration::from_mins(1), || {
                env.pg.is_running()
            });
        }
        env.pgkeep.run(["restore", "--to", "latest", "--yes"]).ok();
        ledger.assert_ends_at(&env.pg, ledger.last_id());
        assert!(aside(&env.pg.data) > before, "{step}: the old data directory is gone");
    }
}

#[test]
fn a_side_restore_killed_at_any_step_leaves_what_the_next_one_removes() {
    let env = TestEnv::new(14);
    let mut ledger = Ledger::create(&env.pg);
    env.backup();
    ledger.write(&env.pg, 3);
    env.pg.switch_and_archive();
    for step in ["restore-after-first-pack", "restore-before-control", "restore-after-control"] {
        let dir = env.side_dir(step);
        let args = ["restore", "--to", "latest", "--target-dir", dir.to_str().unwrap(), "--yes"];
        env.pgkeep.clone().failpoint(step, "return(kill)").run(args).was_killed();
        if step != "restore-after-control" {
            assert!(env.side(&dir).try_start().is_err(), "{step}");
        }
        env.pgkeep.run(args).ok();
        ledger.assert_ends_at(&env.side(&dir), 3);
        env.pgkeep.run(["restore", "discard", "--yes", "--target-dir", dir.to_str().unwrap()]).ok();
    }
}
