//! What the server limits: connections, and how long a session may stand still. A dump takes what it gets and says so.

use crate::support::{EnvOptions, Pgkeep, TestEnv};

/// A role that may read everything and is no superuser, for superusers have no limits.
fn with_reader(env: &TestEnv, limits: &str) -> Pgkeep {
    env.pg.sql(&format!("create role reader login {limits}"));
    env.pg.sql("grant pg_read_all_data, pg_read_all_settings to reader");
    let connection = env.pg.conninfo().replace("user=postgres", "user=reader");
    env.with_config("reader.toml", |text| {
        text.replace("[cluster.main]", &format!("[cluster.main]\ndump_connection = \"{connection}\""))
    })
}

fn env() -> TestEnv {
    let env =
        EnvOptions::new(18).not_archiving().config("[dump]\nretries = 1\nretry_after = \"100ms\"").build();
    for table in ["a", "b", "c", "d"] {
        env.pg.sql(&format!("create table {table} as select n from generate_series(1, 100) n"));
    }
    env
}

#[test]
fn an_export_makes_do_with_the_connections_that_there_are_and_says_so() {
    let env = env();
    let pgkeep = with_reader(&env, "connection limit 3");
    let args = ["backup", "tables", "-t", "?", "--connections", "4"];
    let json = pgkeep.global("--json").run(args).ok().json();
    let note = json["notes"][0].as_str().unwrap();
    assert!(note.contains("of 4 connections") && note.contains("too many connections"), "{note}");
    assert_eq!((&json["tables"], &json["rows"]), (&4.into(), &400.into()));
    env.fsck().assert_whole();
}

#[test]
fn too_few_connections_for_a_dump_are_an_error_that_says_what_to_raise_and_nothing_is_published() {
    let env = env();
    let pgkeep = with_reader(&env, "connection limit 2");
    for args in [&["backup", "dump"][..], &["backup", "tables", "-t", "a"]] {
        let ran = pgkeep.run(args).fails_with("server-full", 1);
        assert!(ran.stderr.contains("after 2 tries") && ran.stderr.contains("CONNECTION LIMIT"), "{ran}");
    }
    env.pg.sql("alter role reader connection limit 0");
    pgkeep.run(["backup", "dump"]).fails_with("server-full", 1).says("CONNECTION LIMIT");
    // The same words of a database, whose one connection the snapshot has.
    env.pg.sql("alter role reader connection limit -1");
    env.pg.sql("create database narrow connection limit 1");
    pgkeep.run(["backup", "dump", "-d", "narrow"]).fails_with("server-full", 1).says("database");
    assert!(env.fsck().assert_whole().published.is_empty());
}

/// Of a server that is full for all but the slots kept for superusers.
#[test]
fn a_full_server_is_said_to_be_full() {
    let env = EnvOptions::new(14)
        .not_archiving()
        .pg(|pg| pg.conf("max_connections = 6").conf("superuser_reserved_connections = 3"))
        .config("[dump]\nretries = 0")
        .build();
    let pgkeep = with_reader(&env, "");
    let others = [env.pg.session(), env.pg.session(), env.pg.session()];
    let ran = pgkeep.run(["backup", "dump"]).fails_with("server-full", 1);
    assert!(ran.stderr.contains("max_connections"), "{ran}");
    drop(others);
}

fn limits_of_time_do_not_end_a_dump(major: u32) {
    let env = EnvOptions::new(major).not_archiving().build();
    env.pg.sql("create table t as select n, repeat('x', 100) as filling from generate_series(1, 1000) n");
    let killers = [
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
        "transaction_timeout",
    ];
    let killers = if major >= 17 { &killers[..] } else { &killers[..4] };
    for killer in killers {
        env.pg.sql(&format!("alter role postgres set {killer} = '150ms'"));
    }
    let settings = "select setconfig::text from pg_db_role_setting";
    let before = env.pg.one(settings);
    // Longer than any of them: the session of the snapshot, and that of the lock, stand still all the while.
    let waits = "pg_sleep(case when n % 500 = 0 then 0.2 end) is not null or true";
    let export = ["backup", "tables", "-t", "t", "--where", &format!("t={waits}")];
    let slowly = env.pgkeep.clone().failpoint("tables-before-copy", "sleep(400)");
    assert_eq!(slowly.global("--json").run(export).ok().json()["rows"], 1000);
    let slowly = env.pgkeep.clone().failpoint("dump-after-database", "sleep(400)");
    assert_eq!(slowly.global("--json").run(["backup", "dump"]).ok().json()["rows"], 1000);
    // Only their own sessions knew no limits.
    assert_eq!(env.pg.one(settings), before);
    assert_eq!(env.pg.session().one("show statement_timeout"), "150ms");
}

#[test]
fn limits_of_time_do_not_end_a_dump_on_postgres_14() {
    limits_of_time_do_not_end_a_dump(14);
}
#[test]
fn limits_of_time_do_not_end_a_dump_on_postgres_18() {
    limits_of_time_do_not_end_a_dump(18);
}
