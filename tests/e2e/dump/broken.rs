//! What breaks in the middle: the disk, the server, pgkeep itself. Nothing is published, and the next run is whole.

use std::time::Duration;

use crate::support::{EnvOptions, Pg, Pgkeep, TestEnv, eventually};
use crate::wal_place::Tmpfs;

use super::failures::{nothing_is_published, with_programs};

const LONG: Duration = Duration::from_secs(30);

/// Three megabytes that do not compress well.
fn env(major: u32) -> TestEnv {
    let env = EnvOptions::new(major).not_archiving().build();
    let filling = "select string_agg(md5(random()::text), '') from generate_series(1, 30 + 0 * n)";
    env.pg
        .sql(&format!("create table t as select n, ({filling}) as filling from generate_series(1, 3000) n"));
    env
}

/// An export that takes its time over every row.
const SLOW: [&str; 6] = ["backup", "tables", "-t", "t", "--where", "t=pg_sleep(0.02) is not null"];

#[track_caller]
fn copy_runs(pg: &Pg) {
    let copies = "select count(*) from pg_stat_activity where query like 'COPY%' and state = 'active'";
    eventually("the copy runs", LONG, || pg.one(copies) == "1");
}

/// `pg_dump` that stops in the middle of the data until the file `go` is there, once it has said so by `begun`.
fn halting(env: &TestEnv) -> Pgkeep {
    let (begun, go) = (env.root.join("programs/begun"), env.root.join("programs/go"));
    with_programs(
        env,
        &format!(
            "case \"$*\" in *format=custom*) ;; *) exec $real/pg_dump \"$@\";; esac\nset -o pipefail\n\
             $real/pg_dump \"$@\" | {{ head -c 50000; touch {}; until [ -e {} ]; do sleep 0.05; done; cat; }}",
            begun.display(),
            go.display()
        ),
    )
}

#[test]
fn a_disk_that_is_full_in_the_middle_of_a_dump_or_an_export_is_said_and_with_room_all_is_well() {
    let env = env(15);
    let backups = env.repo().path().join("main/backups");
    std::fs::create_dir_all(&backups).unwrap();
    let tmpfs = Tmpfs::mount(&backups, "1m");
    for args in [&["backup", "dump"][..], &["backup", "tables", "-t", "t"]] {
        let full = env.pgkeep.run(args).fails_with("io", 1);
        assert!(full.stderr.contains("disk is full"), "{full}");
        let fsck = env.fsck().assert_whole();
        assert!(fsck.published.is_empty() && fsck.unfinished.is_empty(), "{fsck:?}");
    }
    tmpfs.resize("64m");
    env.pgkeep.run(["backup", "dump"]).ok();
    env.pgkeep.run(["backup", "tables", "-t", "t"]).ok();
    assert_eq!(env.fsck().assert_whole().published.len(), 2);
    drop(tmpfs);
}

#[test]
fn a_server_that_dies_in_the_middle_is_said_and_nothing_is_published() {
    let env = env(16);
    let running = env.pgkeep.spawn(SLOW);
    copy_runs(&env.pg);
    env.pg.kill9();
    let ran = running.wait();
    assert!(ran.code == Some(1) && ran.stderr.contains("export public.t"), "{ran}");
    env.pg.start();
    nothing_is_published(&env);

    let running = halting(&env).spawn(["backup", "dump"]);
    eventually("pg_dump is in the middle", LONG, || env.root.join("programs/begun").exists());
    env.pg.kill9();
    env.root.file("programs/go", 0o644, "");
    let ran = running.wait().fails_with("backup-failed", 1);
    assert!(ran.stderr.contains("server closed the connection"), "{ran}");
    env.pg.start();
    nothing_is_published(&env);
    env.pgkeep.run(["backup", "dump"]).ok();
}

#[test]
fn what_the_server_cannot_do_is_said_in_its_own_words() {
    let env = env(18);
    env.pg.sql("alter role postgres set temp_file_limit = '1MB'; alter role postgres set work_mem = '64kB'");
    // Sorting needs room on the server's disk.
    let sorting = "t=n in (select s.n from (select n, filling from public.t order by filling, n offset 0) s)";
    let ran = env.pgkeep.run(["backup", "tables", "-t", "t", "--where", sorting]).fails_with("sql", 1);
    assert!(ran.stderr.contains("temp_file_limit") && ran.stderr.contains("public.t"), "{ran}");
    nothing_is_published(&env);
}

#[test]
fn a_dump_that_is_stopped_in_the_middle_ends_pg_dump_and_its_session() {
    let env = env(17);
    let running = halting(&env).spawn(["backup", "dump"]);
    eventually("pg_dump is in the middle", LONG, || env.root.join("programs/begun").exists());
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.wait().fails_with("cancelled", 1);
    let sessions = "select count(*) from pg_stat_activity where application_name like 'pgkeep%'";
    eventually("its sessions are gone", LONG, || env.pg.one(sessions) == "0");
    nothing_is_published(&env);
}

#[test]
fn an_export_killed_at_any_step_publishes_nothing_and_the_next_run_says_what_was_left() {
    let env = env(14);
    let args = ["backup", "tables", "-t", "t"];
    for step in
        ["tables-before-copy", "dump-after-database", "backup-before-signature", "backup-before-publish"]
    {
        env.pgkeep.clone().failpoint(step, "return(kill)").run(args).was_killed();
        let fsck = env.fsck().assert_whole();
        assert!(fsck.published.is_empty(), "{step}: {fsck:?}");
    }
    let running = env.pgkeep.spawn(SLOW);
    copy_runs(&env.pg);
    running.signal(nix::sys::signal::Signal::SIGKILL);
    running.wait().was_killed();
    assert!(env.fsck().assert_whole().published.is_empty());
    env.pgkeep.run(args).ok().says("never published");
    assert_eq!(env.fsck().assert_whole().published.len(), 1);
}

#[test]
fn a_table_that_is_dropped_while_its_lock_is_waited_for_is_a_finding_and_the_others_are_exported() {
    let env =
        EnvOptions::new(17).not_archiving().config("[dump]\nretries = 5\nretry_after = \"100ms\"").build();
    env.pg.sql("create table kept as select 1 as n; create table going as select 1 as n");
    let migration = env.pg.session();
    migration.sql("begin; drop table going");
    let args = ["backup", "tables", "-t", "kept", "-t", "going"];
    let running = env.pgkeep.clone().global("--json").spawn(args);
    let waits = "select count(*) from pg_stat_activity where application_name like 'pgkeep%' and wait_event_type = 'Lock'";
    eventually("the export waits for the lock", LONG, || env.pg.one(waits) == "1");
    migration.sql("commit");
    let json = running.wait().fails_with("left-out", 4).json();
    assert_eq!((&json["left_out"][0], &json["rows"]), (&"no table is called going".into(), &1.into()));
    env.fsck().assert_whole();
}
