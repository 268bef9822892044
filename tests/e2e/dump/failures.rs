//! What goes wrong publishes nothing and says why.

use std::path::PathBuf;

use super::opened::Taken;
use crate::support::{Build, EnvOptions, Pgkeep, TestEnv};

fn env(major: u32) -> TestEnv {
    let env = EnvOptions::new(major).not_archiving().build();
    env.pg.sql(
        "create table t as select n, repeat(md5(n::text), 30) as filling from generate_series(1, 3000) n",
    );
    env
}

/// pgkeep with programs of its own: `pg_dump` is this script, in which `"$real/pg_dump"` is the real one.
pub(super) fn with_programs(env: &TestEnv, pg_dump: &str) -> Pgkeep {
    let Build { bin, lib, .. } = &env.pg.build;
    let dir: PathBuf = env.root.dir("programs", 0o755);
    let script = |name: &str, body: &str| {
        let lib = lib.as_ref().unwrap().display();
        let text = format!(
            "#!/bin/bash\nreal={}\nexport LD_LIBRARY_PATH={lib}\n\
             [ \"$1\" = --version ] && exec $real/{name} --version\n{body}\n",
            bin.display()
        );
        env.root.file(&format!("programs/{name}"), 0o755, &text);
    };
    script("pg_dump", pg_dump);
    script("pg_dumpall", "exec $real/pg_dumpall \"$@\"");
    let before = format!("bin_directory = \"{}\"", bin.display());
    let after = format!("bin_directory = \"{}\"", dir.display());
    env.with_config("programs.toml", |text| text.replace(&before, &after))
}

#[track_caller]
pub(super) fn nothing_is_published(env: &TestEnv) {
    let fsck = env.fsck().assert_whole();
    assert!(fsck.published.is_empty() && fsck.unfinished.is_empty(), "{fsck:?}");
}

/// Only the archive: the schema comes out whole.
const ARCHIVE: &str = "case \"$*\" in *format=custom*) ;; *) exec $real/pg_dump \"$@\";; esac\n";

#[test]
fn a_dump_that_pg_dump_does_not_end_well_is_not_published() {
    let env = env(15);
    for (script, says) in [
        // Everything was written, and then it fails.
        ("$real/pg_dump \"$@\"; echo 'pg_dump: error: out of luck' >&2; exit 1", "out of luck"),
        // Killed in the middle.
        ("$real/pg_dump \"$@\" | head -c 50000; kill -9 $$", "signal: 9"),
        // It broke off and says that all is well.
        ("$real/pg_dump \"$@\" | head -c 50000; exit 0", "not whole"),
        ("exit 0", "not whole"),
        ("echo this is no archive", "not whole"),
    ] {
        let pgkeep = with_programs(&env, &format!("{ARCHIVE}{script}"));
        let ran = pgkeep.run(["backup", "dump"]).fails_with("backup-failed", 1);
        assert!(ran.stderr.contains(says), "{script}: {ran}");
        nothing_is_published(&env);
    }
}

#[test]
fn a_warning_that_something_was_left_out_is_recorded_and_a_finding() {
    let env = env(18);
    let script =
        format!("{ARCHIVE}echo 'pg_dump: warning: subscriptions not dumped' >&2; exec $real/pg_dump \"$@\"");
    let ran = with_programs(&env, &script).global("--json").run(["backup", "dump"]).fails_with("left-out", 4);
    let json = ran.json();
    assert_eq!(json["left_out"][0], "postgres: subscriptions not dumped");
    let taken = Taken::open(&env, json["id"].as_str().unwrap());
    assert_eq!(
        (&taken.record["warnings"], taken.index["warnings"][0].as_str()),
        (&1.into(), json["left_out"][0].as_str())
    );
    env.fsck().assert_whole();
    env.pgkeep.run(["list"]).ok().says("1 warning");
}

#[test]
fn programs_of_another_major_are_refused_before_anything_is_written() {
    let env = env(17);
    let older = format!("bin_directory = \"{}\"", Build::of(16).bin.display());
    let before = format!("bin_directory = \"{}\"", env.pg.build.bin.display());
    let pgkeep = env.with_config("older.toml", |text| text.replace(&before, &older));
    pgkeep.run(["backup", "dump"]).fails_with("tools", 1).says("17");
    nothing_is_published(&env);
}

#[test]
fn killed_at_any_step_nothing_is_published_and_the_next_run_says_what_was_left() {
    let env = env(16);
    for step in
        ["dump-before-seal", "dump-after-database", "backup-before-signature", "backup-before-publish"]
    {
        let pgkeep = env.pgkeep.clone().failpoint(step, "return(kill)");
        pgkeep.run(["backup", "dump"]).was_killed();
        let fsck = env.fsck().assert_whole();
        assert!(fsck.published.is_empty(), "{step}: {fsck:?}");
    }
    env.pgkeep.run(["backup", "dump"]).ok().says("never published");
    // A base backup minds its own kind.
    assert_eq!(env.fsck().assert_whole().published.len(), 1);
}

#[test]
fn a_second_dump_of_the_cluster_is_refused_while_one_runs() {
    let env = env(14);
    let first = env.pgkeep.clone().failpoint("dump-before-seal", "return(stop)").spawn(["backup", "dump"]);
    crate::support::eventually("the first stands still", std::time::Duration::from_secs(30), || {
        first.is_stopped()
    });
    env.pgkeep.run(["backup", "dump"]).fails_with("busy", 1);
    // A schema is another kind.
    env.pgkeep.run(["backup", "schema"]).ok();
    first.signal(nix::sys::signal::Signal::SIGCONT);
    first.wait().ok();
    assert_eq!(env.fsck().assert_whole().published.len(), 2);
}

#[test]
fn a_required_repository_that_takes_nothing_fails_the_dump_and_an_optional_one_is_told() {
    let env =
        EnvOptions::new(17).not_archiving().dir_repository("eu", true).dir_repository("us", false).build();
    env.pg.sql("create table t as select n from generate_series(1, 3000) n");
    let block = |name: &str| {
        // A file where the directory of the backups belongs.
        let backups = env.store(name).path().join("main/backups");
        let _ = std::fs::remove_dir_all(&backups);
        std::fs::write(&backups, "").unwrap();
    };
    block("us");
    let json = env.pgkeep.clone().global("--json").run(["backup", "dump"]).ok().json();
    let us = json["repositories"].as_array().unwrap().iter().find(|r| r["name"] == "us").unwrap();
    assert_eq!(us["published"], false);
    env.fsck_of(env.store("eu")).assert_whole();
    block("eu");
    let ran = env.pgkeep.run(["backup", "dump"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("error["), "{ran}");
}
