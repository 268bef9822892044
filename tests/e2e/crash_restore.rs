//! A restore that is killed at random moments, or taken for dead after PostgreSQL was started on it: what was there before
//! stays to the last byte, and the next run ends at the right row. (Killed at its named steps: `restore_crash.rs`.)

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use pgkeep::model::{Inclusion, Target};
use rand::Rng as _;

use crate::crash_backup::seeded;
use crate::support::fsck::sha256_hex;
use crate::support::{EnvOptions, Ledger, Stop, TestEnv};

/// Every file below with its digest.
fn content(directory: &Path) -> BTreeMap<PathBuf, String> {
    let files = walkdir::WalkDir::new(directory).into_iter().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().is_file());
    let digest = |entry: walkdir::DirEntry| {
        let path = entry.path().strip_prefix(directory).unwrap().to_owned();
        (path, sha256_hex(&std::fs::read(entry.path()).unwrap()))
    };
    files.map(digest).collect()
}

/// What restores have moved aside, oldest first.
fn aside(data: &Path) -> Vec<PathBuf> {
    let head = format!("{}_incident_", data.file_name().unwrap().to_str().unwrap());
    let entries = data.parent().unwrap().read_dir().unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> =
        entries.filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with(&head)).collect();
    found.sort();
    found
}

/// A ledger with a backup in it, all archived, and a target before its end.
fn archived(env: &TestEnv) -> (Ledger, Target) {
    let mut ledger = Ledger::create(&env.pg);
    ledger.write(&env.pg, 3);
    env.backup();
    let target = Target::Xid(ledger.write(&env.pg, 4).xid);
    ledger.write(&env.pg, 2);
    env.pg.switch_and_archive();
    (ledger, target)
}

#[test]
fn killed_at_random_in_place_the_original_stays_and_the_next_run_ends_at_the_row() {
    let env = EnvOptions::new(18).pg(|pg| pg.segment_mib(1)).build();
    let (ledger, target) = archived(&env);
    env.pg.stop(Stop::Fast);
    let original = content(&env.pg.data);
    let (text, mut random) = (target.to_string(), seeded());
    let args = ["restore", "--to", &text, "--yes"];
    for round in 0..8 {
        let running = env.pgkeep.spawn(args);
        std::thread::sleep(std::time::Duration::from_millis(random.random_range(1..1200)));
        let _ = nix::sys::signal::kill(running.pid(), Signal::SIGKILL);
        let killed = running.wait();
        // A server that it may have started goes on by itself; a stopped one is not watched by the next run.
        if env.pg.is_running() {
            env.pg.stop(Stop::Immediate);
        }
        let kept = aside(&env.pg.data);
        let place = kept.first().unwrap_or(&env.pg.data);
        assert_eq!(content(place), original, "round {round}: {} after {killed}", place.display());
    }
    env.pgkeep.run(args).ok();
    ledger.assert_ends_at(&env.pg, ledger.expect_last(&target, Inclusion::After));
    assert_eq!(content(&aside(&env.pg.data)[0]), original);
    env.fsck_deep().assert_whole();
}

#[test]
fn killed_at_random_a_side_instance_is_begun_anew_and_production_is_untouched() {
    let env = EnvOptions::new(14).pg(|pg| pg.segment_mib(1)).build();
    let (ledger, target) = archived(&env);
    let (dir, text, mut random) = (env.side_dir("side"), target.to_string(), seeded());
    let args = ["restore", "--to", &text, "--target-dir", dir.to_str().unwrap(), "--yes"];
    let discard = ["restore", "discard", "--yes", "--target-dir", dir.to_str().unwrap()];
    for _ in 0..6 {
        let running = env.pgkeep.spawn(args);
        std::thread::sleep(std::time::Duration::from_millis(random.random_range(1..900)));
        let _ = nix::sys::signal::kill(running.pid(), Signal::SIGKILL);
        running.wait();
        // From its start on it is an instance like any other, and ended as one.
        if dir.join("pgkeep.side.json").exists() && !dir.join("pgkeep.restoring").exists() {
            env.pgkeep.run(discard).ok();
        }
    }
    env.pgkeep.run(args).ok();
    ledger.assert_ends_at(&env.side(&dir), ledger.expect_last(&target, Inclusion::After));
    ledger.assert_ends_at(&env.pg, ledger.last_id());
    env.pgkeep.run(discard).ok();
}

/// The marker of an unfinished restore is removed last. Killed just before, the directory is whole, a host that comes up
/// again starts PostgreSQL on it, and from then on it is somebody's database.
#[test]
fn what_was_started_after_the_kill_is_moved_aside_by_the_next_run_and_not_removed() {
    let env = EnvOptions::new(17).pg(|pg| pg.segment_mib(1)).build();
    let (mut ledger, target) = archived(&env);
    let text = target.to_string();
    let args = ["restore", "--to", &text, "--yes"];
    env.pg.stop(Stop::Fast);
    env.pgkeep.clone().failpoint("restore-after-control", "return(kill)").run(args).was_killed();
    env.pg.start();
    crate::support::eventually("it is promoted", std::time::Duration::from_mins(1), || {
        env.pg.one("select pg_is_in_recovery()") == "f"
    });
    let row = ledger.expect_last(&target, Inclusion::After);
    ledger.assert_ends_at(&env.pg, row);
    ledger.rewind_to(row);
    ledger.write(&env.pg, 3);
    env.pg.stop(Stop::Fast);
    let theirs = content(&env.pg.data);
    env.pgkeep.run(args).ok();
    ledger.assert_ends_at(&env.pg, row);
    let kept = aside(&env.pg.data);
    assert_eq!(kept.len(), 2, "the original, and what was written since: {kept:?}");
    assert_eq!(content(&kept[1]), theirs);
}
