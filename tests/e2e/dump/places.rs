//! Unusual places: a standby, databases of other encodings and names, one that takes no connections.

use std::time::Duration;

use serde_json::Value;

use super::opened::Taken;
use crate::support::{EnvOptions, Pg, Pgkeep, TestEnv, eventually};

const LONG: Duration = Duration::from_secs(30);

/// A standby that replays at once, whoever reads, and pgkeep that knows only it.
fn standby(env: &TestEnv) -> (Pg, Pgkeep) {
    let standby = Pg::standby_of(&env.pg, "standby");
    standby.add_conf("max_standby_streaming_delay = 0\nhot_standby_feedback = off");
    standby.start();
    let there = env.with_config("standby.toml", |text| {
        text.replace(&env.pg.conninfo(), &standby.conninfo())
            .replace(env.pg.data.to_str().unwrap(), standby.data.to_str().unwrap())
    });
    let end = env.pg.one("select pg_current_wal_flush_lsn()");
    let caught_up = format!("select pg_last_wal_replay_lsn() >= '{end}'");
    eventually("the standby has caught up", LONG, || standby.one(&caught_up) == "t");
    (standby, there)
}

fn a_standby_is_dumped(major: u32) {
    let env = EnvOptions::new(major).not_archiving().build();
    env.pg.sql("create table t as select n from generate_series(1, 1000) n");
    let (standby, there) = standby(&env);
    for args in [&["backup", "dump"][..], &["backup", "schema"], &["backup", "tables", "-t", "t"]] {
        let json = there.clone().global("--json").run(args).ok().json();
        assert!(json["notes"][0].as_str().unwrap().contains("`primary` is not set"), "{args:?}: {json}");
        if args[1] != "schema" {
            assert_eq!(json["rows"], 1000, "{args:?}");
        }
    }
    assert_eq!(env.fsck().assert_whole().published.len(), 3);

    // One at a time of the whole cluster, where the standby knows its primary.
    let primary = format!("[cluster.main]\nprimary = \"{}\"", env.pg.conninfo());
    let text = std::fs::read_to_string(env.root.join("standby.toml")).unwrap();
    let knows = env.with_config("knows.toml", |_| text.replace("[cluster.main]", &primary));
    let first = env.pgkeep.clone().failpoint("dump-before-seal", "return(stop)").spawn(["backup", "dump"]);
    eventually("the first stands still", LONG, || first.is_stopped());
    knows.run(["backup", "dump"]).fails_with("busy", 1);
    first.signal(nix::sys::signal::Signal::SIGKILL);
    first.wait().was_killed();

    // Replay does not wait for an export.
    let slow = ["backup", "tables", "-t", "t", "--where", "t=pg_sleep(0.02) is not null"];
    let running = there.spawn(slow);
    let copies = "select count(*) from pg_stat_activity where query like 'COPY%' and state = 'active'";
    eventually("the copy runs", LONG, || standby.one(copies) == "1");
    env.pg.sql("drop table t");
    let ran = running.wait();
    assert!(ran.code == Some(1) && ran.stderr.contains("max_standby_streaming_delay"), "{ran}");
    assert_eq!(env.fsck().assert_whole().published.len(), 3);
}

#[test]
fn a_standby_of_14_is_dumped_and_what_replay_needs_ends_the_export_with_a_hint() {
    a_standby_is_dumped(14);
}
#[test]
fn a_standby_of_18_is_dumped_and_what_replay_needs_ends_the_export_with_a_hint() {
    a_standby_is_dumped(18);
}

fn database(env: &TestEnv, name: &str, encoding: &str) {
    let quoted = name.replace('"', "\"\"");
    env.pg.sql(&format!(
        "create database \"{quoted}\" encoding '{encoding}' template template0 lc_collate 'C' lc_ctype 'C'"
    ));
}

#[test]
fn an_export_of_latin1_is_utf8_and_one_of_bytes_without_an_encoding_is_those_bytes() {
    let env = EnvOptions::new(16).not_archiving().build();
    database(&env, "latin", "LATIN1");
    database(&env, "bytes", "SQL_ASCII");
    env.pg.session_in("latin").sql("create table t as select 'é'::text as \"größe\"");
    // 0xE9 alone is no UTF-8.
    env.pg.session_in("bytes").sql("create table t (v text)");
    let file = env.root.join("raw.csv");
    std::fs::write(&file, b"\xe9t\xe9\n").unwrap();
    env.pg.session_in("bytes").sql(&format!("copy t from '{}' with (encoding 'SQL_ASCII')", file.display()));
    let json = env.pgkeep.clone().global("--json").run(["backup", "tables", "-t", "t"]).ok().json();
    let taken = Taken::open(&env, json["id"].as_str().unwrap());
    let csv = |database: &str| {
        let csv = &taken.table(database, "public", "t")["csv"];
        (csv["encoding"].clone(), taken.plain(csv["object"].as_str().unwrap()))
    };
    assert_eq!(csv("latin"), (Value::from("UTF8"), "größe\né\n".as_bytes().to_vec()));
    assert_eq!(csv("bytes"), (Value::from("SQL_ASCII"), b"v\n\xe9t\xe9\n".to_vec()));
    env.fsck().assert_whole();
}

#[test]
fn a_database_that_takes_no_connections_is_left_out_unless_it_is_named() {
    let env = EnvOptions::new(15).not_archiving().build();
    let odd = "host=nowhere \"x\" /../ü";
    database(&env, odd, "UTF8");
    env.pg.session_in(odd).sql("create table t as select 1 as n");
    env.pg.sql("create database closed allow_connections false");
    let json = env.pgkeep.clone().global("--json").run(["backup", "dump"]).ok().json();
    assert_eq!(json["databases"], serde_json::json!([odd, "postgres"]));
    let quoted = format!("\"{}\"", odd.replace('"', "\"\""));
    let args = ["backup", "tables", "-d", &quoted, "-t", "t"];
    let json = env.pgkeep.clone().global("--json").run(args).ok().json();
    let taken = Taken::open(&env, json["id"].as_str().unwrap());
    let object = &taken.table(odd, "public", "t")["csv"]["object"];
    assert_eq!(object, "csv/host%3Dnowhere%20%22x%22%20%2F%2E%2E%2F%C3%BC/public/t.csv.zst.age");
    env.pgkeep.run(["backup", "dump", "-d", "closed"]).fails_with("not-ready", 1).says("no connections");
    env.pgkeep.run(["backup", "dump", "-d", "clos*"]).fails_with("usage", 2);
    assert_eq!(env.fsck().assert_whole().published.len(), 2);
}
