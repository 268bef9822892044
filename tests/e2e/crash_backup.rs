//! A base backup that is killed, stopped or starved at every step: the repository is whole afterwards, nothing is
//! published that is not, the server has forgotten the backup, and the next one succeeds.

use std::time::Duration;

use nix::sys::signal::Signal;
use rand::{Rng as _, SeedableRng as _};

use crate::support::{EnvOptions, Fsck, Injection, Ledger, Pg, Running, TestEnv, eventually};
use crate::wal_place::Tmpfs;

/// Every named step of a backup, also one that is added tomorrow.
fn steps() -> Vec<&'static str> {
    let steps: Vec<_> =
        pgkeep::util::failpoint::NAMES.iter().copied().filter(|name| name.starts_with("backup-")).collect();
    assert!(steps.len() >= 8, "{steps:?}");
    steps
}
/// Where `backup.json` is already in its place.
const PUBLISHED: &str = "backup-after-publish";

fn small(major: u32) -> EnvOptions {
    EnvOptions::new(major).pg(|pg| pg.segment_mib(1))
}

/// No session of ours, no lock, no label: PostgreSQL knows nothing of a backup any more.
fn assert_not_in_backup_mode(pg: &Pg) {
    eventually("the sessions of the backup are gone", Duration::from_secs(20), || {
        pg.one("select count(*) from pg_stat_activity where application_name like 'pgkeep%'") == "0"
    });
    assert_eq!(pg.one("select count(*) from pg_locks where locktype = 'advisory'"), "0");
    assert!(!pg.data.join("backup_label").exists());
}

/// The repository is whole, holds exactly `published` backups, and the server is free.
#[track_caller]
fn assert_whole(env: &TestEnv, published: usize) -> Fsck {
    let found = env.fsck().assert_whole();
    assert_eq!(found.published.len(), published, "{found:#?}");
    assert_not_in_backup_mode(&env.pg);
    found
}

#[test]
fn killed_at_each_step_it_leaves_the_directory_whole_and_the_next_run_succeeds() {
    let env = small(18).build();
    let mut published = 0;
    for step in steps() {
        env.pgkeep.clone().failpoint(step, "return(kill)").run(["backup", "full"]).was_killed();
        published += usize::from(step == PUBLISHED);
        let found = assert_whole(&env, published);
        let id = env.backup();
        published += 1;
        let after = assert_whole(&env, published);
        assert!(after.published.contains(&id), "{after:#?}");
        assert_eq!(after.leftovers, found.leftovers, "only expire deletes");
    }
    // What was left behind is said, and is nothing anybody would choose.
    let found = env.fsck_deep().assert_whole();
    assert!(found.leftovers.len() >= 5, "{found:#?}");
    let said = env.pgkeep.run(["backup", "full"]).ok();
    for id in &found.leftovers {
        assert!(said.stdout.contains(id), "{id} is not mentioned: {said}");
    }
    let listed = env.pgkeep.clone().global("--json").run(["list"]).ok();
    let listed: Vec<String> = ids(&listed.json());
    assert_eq!(listed, env.fsck().published);
}

fn ids(list: &serde_json::Value) -> Vec<String> {
    let backups = list["backups"].as_array().unwrap_or_else(|| panic!("{list}"));
    let mut ids: Vec<_> = backups.iter().map(|b| b["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

#[test]
fn killed_at_each_step_it_leaves_the_bucket_whole_and_the_last_run_succeeds() {
    let env = small(14).s3_repository("cloud", true).build();
    let mut published = 0;
    for step in steps() {
        env.pgkeep.clone().failpoint(step, "return(kill)").run(["backup", "full"]).was_killed();
        published += usize::from(step == PUBLISHED);
        assert_whole(&env, published);
    }
    env.backup();
    assert_whole(&env, published + 1);
    env.fsck_deep().assert_whole();
}

#[test]
fn an_error_at_any_step_is_said_and_publishes_nothing() {
    let env = small(14).s3_repository("cloud", true).build();
    let mut published = 0;
    for step in steps() {
        let failed = env.pgkeep.clone().failpoint(step, "return(error)").run(["backup", "full"]);
        failed.fails_with("internal", 1).says(step);
        published += usize::from(step == PUBLISHED);
        let found = assert_whole(&env, published);
        assert_eq!(found.unfinished, Vec::<String>::new(), "uploads are aborted after an error at {step}");
    }
}

/// Runs a backup until the step, sends the signal, lets it go on.
fn signalled_at(env: &TestEnv, step: &str, signal: Signal) -> crate::support::Ran {
    let running: Running = env.pgkeep.clone().failpoint(step, "return(stop)").spawn(["backup", "full"]);
    eventually(&format!("{step} is reached"), Duration::from_mins(1), || running.is_stopped());
    running.signal(signal);
    running.signal(Signal::SIGCONT);
    running.wait()
}

#[test]
fn ctrl_c_and_sigterm_stop_it_cleanly() {
    let env = small(18).dir_repository("repo", true).s3_repository("cloud", true).build();
    for (step, signal) in [
        ("backup-after-start", Signal::SIGINT),
        ("backup-after-first-pack", Signal::SIGTERM),
        ("backup-before-stop", Signal::SIGINT),
        ("backup-before-manifest", Signal::SIGTERM),
    ] {
        let ran = signalled_at(&env, step, signal);
        let ran = ran.fails_with("cancelled", 1).says("nothing was published");
        assert!(ran.took < Duration::from_mins(1), "{ran}");
        let found = assert_whole(&env, 0);
        assert_eq!(found.unfinished, Vec::<String>::new(), "{signal} at {step}");
        let cloud = env.fsck_of(env.store("cloud")).assert_whole();
        assert_eq!((cloud.published.len(), cloud.unfinished), (0, Vec::new()), "{signal} at {step}");
    }
    // Where everything is there and only the names are missing it may end or be ended, but not halfway.
    let ran = signalled_at(&env, "backup-before-publish", Signal::SIGINT);
    let published = usize::from(ran.code == Some(0));
    assert!(matches!(ran.code, Some(0 | 1)), "{ran}");
    assert_whole(&env, published);
    env.backup();
    assert_whole(&env, published + 1);
}

#[test]
fn killed_at_random_moments_under_load_it_never_publishes_a_half() {
    let env = small(14).build();
    let ledger = Ledger::create(&env.pg).write_in_background(&env.pg, Duration::from_millis(2));
    let usual = env.pgkeep.run(["backup", "full"]).ok().took;
    let mut random = seeded();
    let mut published = 1;
    for _ in 0..10 {
        let delay = usual.mul_f64(random.random_range(0.02..1.1));
        let running = env.pgkeep.spawn(["backup", "full"]);
        std::thread::sleep(delay);
        // It may have ended by itself.
        let _ = nix::sys::signal::kill(running.pid(), Signal::SIGKILL);
        let ran = running.wait();
        let found = env.fsck().assert_whole();
        let new = found.published.len() - published;
        assert!(new == 0 || (new == 1 && ran.code != Some(1)), "after {delay:?}: {found:#?} {ran}");
        published += new;
    }
    env.backup();
    let ledger = ledger.stop();
    env.pg.switch_and_archive();
    assert_whole(&env, published + 1);
    env.fsck_deep().assert_whole();
    ledger.assert_ends_at(&env.pg, ledger.last_id());
}

/// The seed is said, so that a failure can be had again with `PGKEEP_TEST_SEED`.
pub fn seeded() -> rand::rngs::StdRng {
    let seed = std::env::var("PGKEEP_TEST_SEED").map_or_else(|_| rand::random(), |s| s.parse().unwrap());
    eprintln!("PGKEEP_TEST_SEED={seed}");
    rand::rngs::StdRng::seed_from_u64(seed)
}

#[test]
fn unfinished_writes_that_nobody_has_touched_for_days_are_swept_and_young_ones_stay() {
    let env = small(18).build();
    let file = |name: &str, age: Duration| {
        let path = env.root.file(&format!("repo/main/{name}"), 0o600, "unfinished");
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::SystemTime::now() - age).unwrap();
        path
    };
    let old = file(".pgkeep-tmp-0000000000000000000000000000000a", Duration::from_hours(96));
    let young = file(".pgkeep-tmp-0000000000000000000000000000000b", Duration::from_hours(48));
    env.backup();
    assert!(!old.exists() && young.exists());
    assert_whole(&env, 1);
}

mod power_cut {
    use super::*;

    #[test]
    fn a_disk_that_fails_to_sync_publishes_nothing() {
        let env = small(18).build();
        let mut published = 0;
        for nth in 1..=4 {
            let disk = Injection::of(&env.root, "fsync,fdatasync", &format!("error=EIO:when={nth}"));
            let ran = disk.wrap(&env.pgkeep).run(["backup", "full"]);
            if disk.count() == 0 {
                assert_eq!(ran.code, Some(0), "nothing went wrong: {ran}");
                published += 1;
            } else {
                ran.fails_with("io", 1);
            }
            assert_whole(&env, published);
        }
        assert!(published < 4, "no disk failed");
        env.backup();
        assert_whole(&env, published + 1);
    }

    #[test]
    fn killed_inside_a_sync_it_publishes_nothing_halfway() {
        let env = small(18).build();
        for nth in 1..=3 {
            let disk = Injection::of(&env.root, "fsync,fdatasync", &format!("signal=KILL:when={nth}"));
            let ran = disk.wrap(&env.pgkeep).run(["backup", "full"]);
            let found = env.fsck().assert_whole();
            assert!(ran.code == Some(0) || found.published.is_empty(), "{ran} {found:#?}");
        }
        env.backup();
        assert_not_in_backup_mode(&env.pg);
        env.fsck().assert_whole();
    }

    #[test]
    fn a_disk_that_fills_up_midway_is_said_and_after_making_room_all_is_well() {
        let env = small(14).build();
        let backups = env.repo().path().join("main/backups");
        std::fs::create_dir_all(&backups).unwrap();
        let tmpfs = Tmpfs::mount(&backups, "1m");
        let full = env.pgkeep.run(["backup", "full"]).fails_with("io", 1);
        assert!(full.stderr.contains("disk is full"), "{full}");
        assert_eq!(assert_whole(&env, 0).unfinished, Vec::<String>::new());
        tmpfs.resize("64m");
        env.backup();
        assert_whole(&env, 1);
        drop(tmpfs);
    }
}

#[test]
fn a_lost_state_directory_costs_time_not_data() {
    let env = small(18).build();
    let first = env.backup();
    let old_key = env.root.join("old-host.pub");
    std::fs::copy(env.state.join("keys/host.pub"), &old_key).unwrap();
    std::fs::remove_dir_all(&env.state).unwrap();
    // Archiving does not need it.
    env.pg.switch_and_archive();
    // A backup says what is missing and how to get it, and touches nothing.
    let refused = env.pgkeep.run(["backup", "full"]);
    assert!(refused.code == Some(1) || refused.code == Some(2), "{refused}");
    let refused = refused.says("pgkeep init");
    assert!(refused.stderr.contains("host key"), "{refused}");
    env.root.dir("state", 0o700);
    env.pgkeep.run(["init"]).ok();
    let second = env.backup();
    let signers = [old_key, env.state.join("keys/host.pub")];
    let look = crate::support::fsck::Look { store: env.repo(), signers: Some(&signers), identity: None };
    // Two of one second are told apart by a random end, so that their order says nothing.
    let mut both = [first.clone(), second];
    both.sort();
    assert_eq!(look.run().assert_whole().published, both);
    // The old one is still there for who trusts its signer.
    let listed = env.pgkeep.run(["list"]).ok();
    let line = listed.stdout.lines().find(|line| line.contains(&first)).unwrap_or_else(|| panic!("{listed}"));
    assert!(line.contains("untrusted"), "{listed}");
}
