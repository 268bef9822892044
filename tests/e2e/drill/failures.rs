//! What a drill must find, and what becomes of it when it is ended.

use std::io::{Seek, SeekFrom, Write};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{ROOM, SOON, archived, drill, nothing_is_left, places, verdict};
use crate::support::{EnvOptions, Ledger, Stop, TestEnv, eventually};

const STEPS: [&str; 3] = ["drill-after-place", "drill-after-restore", "drill-after-proofs"];

fn server_of(env: &TestEnv) -> Option<Pid> {
    let file = std::fs::read_to_string(places(env).first()?.join("data/postmaster.pid")).ok()?;
    Some(Pid::from_raw(file.lines().next()?.parse().ok()?))
}

#[test]
fn killed_at_any_step_nothing_is_left_after_the_next_run_or_the_agents_start() {
    let (env, _) = archived(EnvOptions::new(18).config(ROOM));
    for step in STEPS {
        env.pgkeep.clone().failpoint(step, "return(kill)").run(["drill"]).was_killed();
        assert_eq!(places(&env).len(), 1, "{step}: the next run has not removed what the last one left");
    }
    drill(&env, &[]).ok();
    nothing_is_left(&env);
    env.pgkeep.clone().failpoint("drill-after-restore", "return(kill)").run(["drill"]).was_killed();
    let server = server_of(&env).expect("the instance of a killed drill goes on");
    let agent = env.start_agent();
    eventually("its server is gone", SOON, || kill(server, None).is_err());
    eventually("the agent has removed it", SOON, || places(&env).is_empty());
    drop(agent);
}

#[test]
fn a_signal_ends_it_and_leaves_nothing() {
    let (env, _) = archived(EnvOptions::new(18).config(ROOM));
    for step in ["restore-after-packs", "drill-after-restore"] {
        let running = env.pgkeep.clone().failpoint(step, "return(stop)").spawn(["drill"]);
        eventually("it is under way", SOON, || running.is_stopped() || !running.is_running());
        let server = server_of(&env);
        running.signal(Signal::SIGINT);
        running.signal(Signal::SIGCONT);
        running.wait().fails_with("cancelled", 1).says("nothing is proved");
        nothing_is_left(&env);
        if let Some(server) = server {
            eventually("its server is gone", SOON, || kill(server, None).is_err());
        }
    }
    let reports = env.repo().list_under("main/reports/");
    assert!(reports.is_empty(), "nothing was proved either way: {reports:?}");
}

#[test]
fn an_assertion_that_does_not_hold_and_an_objective_that_is_missed_are_findings() {
    let assertion = |name: &str, sql: &str| {
        format!("[[assertion]]\nname = \"{name}\"\ndatabase = \"postgres\"\nsql = \"{sql}\"\n")
    };
    let config = [
        "[proof]\nreserve = \"64MiB\"\nrto = \"1ms\"\n".to_owned(),
        assertion("there are rows", "select count(*) > 2 from ledger;"),
        assertion("there are none", "select count(*) = 0 from ledger"),
        assertion("no truth", "select count(*) from ledger"),
        assertion("no table", "select true from nowhere"),
    ];
    let (env, _) = archived(EnvOptions::new(18).pg(|pg| pg.checksums(false)).config(&config.concat()));
    let ran = drill(&env, &["--to", "latest"]).exits(4).says("drill-failed.md").says("MISSED");
    let report = ran.json();
    assert_eq!(report["outcome"], "failed");
    assert_eq!(verdict(&report, "there are rows"), "holds");
    for name in ["there are none", "no truth", "no table"] {
        assert_eq!(verdict(&report, name), "fails", "{report:#}");
    }
    // Without checksums nothing is said of them, and that is no failure.
    assert_eq!(verdict(&report, "data checksums"), "unproved");
    nothing_is_left(&env);
}

#[test]
fn a_damaged_backup_is_a_failed_drill_that_names_it() {
    let (env, _) = archived(EnvOptions::new(18).config(ROOM));
    let pack = env.repo().find(&["/data/00001.tar"]);
    env.repo().flip_a_bit(&pack);
    let ran = drill(&env, &[]).exits(4);
    let report = ran.json();
    assert_eq!(report["outcome"], "failed");
    let backup = report["recovered"]["backup"].as_str().unwrap();
    assert!(pack.contains(backup));
    assert!(report["error"].as_str().unwrap().contains("00001.tar"), "{report:#}");
    nothing_is_left(&env);
    assert_eq!(env.repo().list_under("main/reports/").len(), 2);
}

#[test]
fn an_archive_that_lost_its_end_cannot_be_taken_for_one_that_has_it() {
    let (env, ledger) = archived(EnvOptions::new(18).config(ROOM));
    let xid = format!("xid:{}", ledger.entry(9).xid);
    drill(&env, &["--to", &xid]).ok();
    let wal = env.repo().list_under("main/wal/");
    let segments: Vec<&String> =
        wal.iter().filter(|key| !key.contains("history") && !key.contains("backup")).collect();
    // From the backup's second segment on.
    for key in &segments[segments.len() - 1..] {
        env.repo().delete(key);
    }
    let ran = drill(&env, &["--to", &xid]);
    assert_eq!(ran.code, Some(4), "{ran}");
    assert_eq!(ran.json()["outcome"], "failed");
    nothing_is_left(&env);
}

#[test]
fn a_heap_page_of_wrong_contents_is_found_where_no_checksum_is_wrong() {
    let env = EnvOptions::new(18).config(ROOM).pg(|pg| pg.segment_mib(1).checksums(false)).build();
    let mut ledger = Ledger::create(&env.pg);
    ledger.write(&env.pg, 40);
    env.pg.sql("create table victim as select g as id, repeat('x', 50) as t from generate_series(1, 100) g; checkpoint");
    let file = env.pg.data.join(env.pg.one("select pg_relation_filepath('victim')"));
    env.pg.stop(Stop::Fast);
    let mut heap = std::fs::File::options().read(true).write(true).open(file).unwrap();
    // The last tuple's header, at the end of the first page's line pointers' target: its t_hoff and infomask.
    heap.seek(SeekFrom::Start(8192 - 80)).unwrap();
    heap.write_all(&[0xff; 40]).unwrap();
    drop(heap);
    env.pg.start();
    env.backup();
    ledger.write(&env.pg, 2);
    env.pg.switch_and_archive();
    let ran = drill(&env, &["--to", "latest"]).exits(4);
    let report = ran.json();
    assert_eq!(verdict(&report, "pg_amcheck"), "fails", "{report:#}");
    assert!(report["checks"].to_string().contains("victim"), "{report:#}");
}

#[test]
fn the_reserve_of_the_disk_is_kept() {
    let (env, _) = archived(EnvOptions::new(18).config("[proof]\nreserve = \"900TiB\"\n"));
    let ran = drill(&env, &[]).fails_with("no-space", 3);
    assert!(ran.stderr.contains("[proof]"), "{ran}");
    nothing_is_left(&env);
    assert!(env.repo().list_under("main/reports/").is_empty());
}
