//! Fetch never lies, in real recoveries: whatever becomes of the store, a database opens with all that the archive
//! held when the recovery was planned, or does not open.

use std::path::Path;
use std::time::Duration;

use crate::support::{EnvOptions, Fault, FaultProxy, Ledger, Pg, Pgkeep, Rule, S3, TestEnv, eventually};

const SOON: Duration = Duration::from_mins(1);

/// A backup, then rows in three archived segments.
fn archived_rows(env: &TestEnv) -> (Ledger, Vec<String>) {
    let mut ledger = Ledger::create(&env.pg);
    env.backup();
    let mut segments = Vec::new();
    for _ in 0..3 {
        ledger.write(&env.pg, 2);
        segments.push(env.pg.switch_and_archive());
    }
    (ledger, segments)
}
fn small(major: u32) -> EnvOptions {
    EnvOptions::new(major).pg(|pg| pg.segment_mib(1))
}
fn prepared(env: &TestEnv, pgkeep: &Pgkeep, name: &str) -> Pg {
    let dir = env.side_dir(name);
    pgkeep
        .run(["restore", "--to", "latest", "--no-start", "--yes", "--target-dir", dir.to_str().unwrap()])
        .ok();
    env.side(&dir)
}
/// As quick to give up as a test needs it.
fn impatient(env: &TestEnv) -> Pgkeep {
    env.with_config("impatient.toml", |text| {
        text.replace("path_style = true\n", "path_style = true\noperation_deadline = \"3s\"\n")
            + "\n[archive]\nfetch_deadline = \"4s\"\n"
    })
}

/// The server ends by itself with FATAL, and never took a write or a new timeline.
#[track_caller]
fn dies_without_opening(pg: &Pg) {
    let started = pg.try_start();
    let said = if let Err(why) = started {
        why
    } else {
        eventually("recovery ends", SOON, || {
            let writable = pg.try_sql("select pg_is_in_recovery()").ok();
            assert!(writable.is_none_or(|rows| rows[0][0].as_deref() == Some("t")), "{}", pg.log_tail());
            !pg.is_running()
        });
        pg.log_tail()
    };
    assert!(said.contains("FATAL") && said.contains("could not restore file"), "{said}");
    assert!(!has_new_timeline(&pg.data), "promoted: {said}");
}
fn has_new_timeline(data: &Path) -> bool {
    data.join("pg_wal/00000002.history").exists()
}
#[track_caller]
fn opens_with_everything(pg: &Pg, ledger: &Ledger) {
    pg.start();
    is_open_with_everything(pg, ledger);
}
#[track_caller]
fn is_open_with_everything(pg: &Pg, ledger: &Ledger) {
    eventually("recovery ends", SOON, || {
        pg.try_sql("select pg_is_in_recovery()").is_ok_and(|rows| rows[0][0].as_deref() == Some("f"))
    });
    ledger.assert_ends_at(pg, ledger.last_id());
}

#[test]
fn while_the_store_fails_no_recovery_opens_and_afterwards_the_same_one_does() {
    let store = S3::fresh_bucket();
    let proxy = FaultProxy::before(store.endpoint());
    let env = small(17).s3_repository_at("repo", true, store, &proxy.endpoint()).build();
    let (ledger, segments) = archived_rows(&env);
    let pgkeep = impatient(&env);
    let pg = prepared(&env, &pgkeep, "side");
    for fault in [Fault::Status(500), Fault::Status(403), Fault::ResetBefore, Fault::StallMidway] {
        proxy.all(fault);
        dies_without_opening(&pg);
    }
    proxy.calm();
    // Whole answers, but for one segment in the middle, whose body is cut and says that it is not.
    let name = format!("{}-", segments[1]);
    proxy.rule(Rule::always(Fault::ShortBody).method("GET").path(&name));
    dies_without_opening(&pg);
    proxy.calm();
    proxy.down();
    dies_without_opening(&pg);
    proxy.up();
    opens_with_everything(&pg, &ledger);
}

fn a_segment_that_is_lost_after_planning(major: u32) {
    let env = small(major).build();
    let (ledger, segments) = archived_rows(&env);
    let pg = prepared(&env, &env.pgkeep, "side");
    let key = env.repo().find(&["/wal/", &segments[1]]);
    let object = env.repo().read(&key);
    env.repo().delete(&key);
    dies_without_opening(&pg);
    // Neither does the last one's loss make an end of what is left.
    env.repo().write(&key, &object);
    let last = env.repo().find(&["/wal/", &segments[2]]);
    let object = env.repo().read(&last);
    env.repo().delete(&last);
    dies_without_opening(&pg);
    env.repo().write(&last, &object);
    opens_with_everything(&pg, &ledger);
}

#[test]
fn a_segment_lost_after_planning_stops_the_recovery_on_14() {
    a_segment_that_is_lost_after_planning(14);
}
#[test]
fn a_segment_lost_after_planning_stops_the_recovery_on_18() {
    a_segment_that_is_lost_after_planning(18);
}

#[test]
fn a_recovery_goes_on_by_its_plan_when_the_restore_was_killed() {
    let env = small(16).build();
    let (ledger, segments) = archived_rows(&env);
    let restore = |name: &str| {
        let dir = env.side_dir(name);
        let killed = env.pgkeep.clone().failpoint("restore-after-start", "return(kill)");
        killed
            .run(["restore", "--to", "latest", "--yes", "--target-dir", dir.to_str().unwrap()])
            .was_killed();
        env.side(&dir)
    };
    is_open_with_everything(&restore("alone"), &ledger);
    // Killed before the start, and a planned segment lost then: it stays 200, whoever asks.
    let dir = env.side_dir("short");
    let killed = env.pgkeep.clone().failpoint("restore-after-control", "return(kill)");
    killed.run(["restore", "--to", "latest", "--yes", "--target-dir", dir.to_str().unwrap()]).was_killed();
    env.repo().delete(&env.repo().find(&["/wal/", &segments[2]]));
    let side = env.side(&dir);
    assert!(side.try_start().is_err() || !has_new_timeline(&dir), "{}", side.log_tail());
    assert!(!has_new_timeline(&dir));
}

#[test]
fn an_optional_repository_that_is_down_does_not_block_and_a_required_one_is_not_missing() {
    let store = S3::fresh_bucket();
    let proxy = FaultProxy::before(store.endpoint());
    let options = small(18).dir_repository("near", true);
    let env = options.s3_repository_at("far", false, store, &proxy.endpoint()).build();
    let (ledger, _) = archived_rows(&env);
    proxy.down();
    let pgkeep = impatient(&env);
    let dir = env.side_dir("optional");
    let to = |dir: &Path| {
        ["restore", "--to", "latest", "--yes", "--target-dir"]
            .map(str::to_owned)
            .into_iter()
            .chain([dir.to_str().unwrap().to_owned()])
            .collect::<Vec<_>>()
    };
    pgkeep.run(to(&dir)).ok().says("optional repository far is left out");
    ledger.assert_ends_at(&env.side(&dir), 6);

    let required = env.with_config("required.toml", |_| {
        let text = std::fs::read_to_string(env.root.join("impatient.toml")).unwrap();
        text.replace("name = \"far\"\nrequired = false", "name = \"far\"\nrequired = true")
    });
    let dir = env.side_dir("required");
    let ran = required.run(to(&dir));
    assert!(ran.code == Some(1) || ran.code == Some(3), "{ran}");
    let ran = ran.says("--repo").says("hint: ");
    assert!(!dir.join("PG_VERSION").exists(), "{ran}");
    let ran = required.clone().global("--repo").global("near").run(to(&dir)).ok();
    ran.says("ends at:");
    ledger.assert_ends_at(&env.side(&dir), 6);
}

#[test]
fn a_standby_asks_again_while_the_store_is_away_and_can_be_promoted() {
    let env = small(15).build();
    let (mut ledger, _) = archived_rows(&env);
    let standby = crate::support::PgOptions::new(env.pg.build.clone()).name("standby").create(&env.root);
    std::fs::remove_dir_all(&standby.data).unwrap();
    // Another host's configuration, without a primary to stream from: it lives on what it fetches.
    let own = standby.data.to_str().unwrap();
    let host = env.with_config("standby.toml", |text| text.replace(env.pg.data.to_str().unwrap(), own));
    host.run(["restore", "--to", "latest", "--standby", "--no-start", "--yes"]).ok();
    let socket = env.root.dir("standby-socket", 0o700);
    standby.add_conf(&format!("unix_socket_directories = '{}'\narchive_mode = off", socket.display()));
    standby.start();
    let has = |last: u32| {
        eventually("the standby follows", SOON, || {
            assert!(standby.is_running(), "it must stay up");
            let rows = standby.try_sql("select coalesce(max(id), 0) from ledger");
            rows.is_ok_and(|rows| rows[0][0].as_deref() == Some(last.to_string().as_str()))
        });
    };
    has(6);
    ledger.write(&env.pg, 1);
    env.pg.switch_and_archive();
    has(7);
    // The disk of the repository is not mounted for a while.
    let (place, away) = (env.repo().path().to_owned(), env.root.join("away"));
    std::fs::rename(&place, &away).unwrap();
    std::thread::sleep(Duration::from_secs(7));
    assert!(standby.is_running(), "a store that is away must not end a standby");
    std::fs::rename(&away, &place).unwrap();
    ledger.write(&env.pg, 1);
    env.pg.switch_and_archive();
    has(8);
    standby.promote();
    ledger.assert_ends_at(&standby, 8);
    assert!(!standby.data.join("standby.signal").exists());
}
