//! No plaintext on disk at any time: a marker in the rows is looked for in every file but PostgreSQL's own.

use std::path::Path;
use std::time::Duration;

use crate::support::{EnvOptions, TestEnv, eventually};

const MARKER: &[u8] = b"KanarienvogelQx7";

fn holding_the_marker(dir: &Path, data: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && path != data {
            holding_the_marker(&path, data, found);
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).unwrap_or_default();
            if bytes.windows(MARKER.len()).any(|window| window == MARKER) {
                found.push(path.display().to_string());
            }
        }
    }
}

#[track_caller]
fn the_marker_is_nowhere(env: &TestEnv) {
    let mut found = Vec::new();
    holding_the_marker(env.root.path(), &env.pg.data, &mut found);
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn neither_during_nor_after_a_dump_and_an_export_is_a_row_readable_anywhere() {
    let env = EnvOptions::new(18).not_archiving().build();
    env.pg.sql(
        "create table t as select n, 'KanarienvogelQx7' || md5(n::text) as t from generate_series(1, 5000) n",
    );
    for (step, args) in [
        ("dump-before-seal", &["backup", "dump"][..]),
        ("backup-before-publish", &["backup", "tables", "-t", "t"][..]),
    ] {
        let running = env.pgkeep.clone().failpoint(step, "return(stop)").spawn(args);
        eventually("it stands still", Duration::from_secs(30), || running.is_stopped());
        the_marker_is_nowhere(&env);
        running.signal(nix::sys::signal::Signal::SIGCONT);
        running.wait().ok();
        the_marker_is_nowhere(&env);
    }
    env.fsck().assert_whole();
}

#[test]
fn neither_during_nor_after_a_restore_of_a_database_is_a_row_readable_anywhere() {
    let env = EnvOptions::new(18).not_archiving().build();
    env.pg.sql("create database shop");
    env.pg.session_in("shop").sql(
        "create table t as select n, 'KanarienvogelQx7' || md5(n::text) as t from generate_series(1, 5000) n; \
         create table u as table t",
    );
    env.pgkeep.run(["backup", "dump", "-d", "shop"]).ok();
    for step in ["database-after-definitions", "database-after-rows", "database-before-publish"] {
        let pgkeep = env.pgkeep.clone().failpoint(step, "return(stop)");
        let args = ["restore", "database", "shop", "--from", "latest", "--as", step, "--jobs", "2", "--yes"];
        let running = pgkeep.spawn(args);
        eventually("it stands still", Duration::from_secs(30), || running.is_stopped());
        the_marker_is_nowhere(&env);
        running.signal(nix::sys::signal::Signal::SIGCONT);
        running.wait().ok();
        the_marker_is_nowhere(&env);
    }
    // In the middle of the rows, with a program that does not go on.
    let slow = env.pgkeep.clone().failpoint("database-after-rows", "return(kill)");
    slow.run(["restore", "database", "shop", "--from", "latest", "--as", "x", "--yes"]).was_killed();
    the_marker_is_nowhere(&env);
}
