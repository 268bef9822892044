//! `backup tables`: CSV of one moment that comes back to the bit, with definitions, counts and digests.

use std::time::Duration;

use serde_json::Value;

use super::opened::Taken;
use crate::support::{EnvOptions, TestEnv, eventually, fsck};

const EVERYTHING: &str = include_str!("everything.sql");

#[track_caller]
fn export<'e>(env: &'e TestEnv, args: &[&str]) -> Taken<'e> {
    let command: Vec<&str> = ["backup", "tables"].iter().chain(args).copied().collect();
    let json = env.pgkeep.clone().global("--json").run(command).ok().json();
    Taken::open(env, json["id"].as_str().unwrap())
}

/// The plain file of an exported table, whose digest must be the recorded one.
#[track_caller]
fn csv(taken: &Taken<'_>, table: &Value) -> String {
    let plain = taken.plain(table["csv"]["object"].as_str().unwrap());
    assert_eq!(table["csv"]["sha256"], fsck::sha256_hex(&plain), "{table}");
    assert_eq!(table["bytes"], plain.len(), "{table}");
    String::from_utf8(plain).unwrap()
}

fn quoted(name: &Value) -> String {
    format!("\"{}\"", name.as_str().unwrap().replace('"', "\"\""))
}

fn comes_back_equal(major: u32) {
    let env = EnvOptions::new(major).not_archiving().build();
    env.pg.sql("create database shop");
    env.pg.sql("create database again");
    let shop = env.pg.session_in("shop");
    shop.sql(EVERYTHING);
    shop.sql("refresh materialized view app.empty");
    let taken = export(
        &env,
        &["-d", "shop", "-t", "app.*", "-t", "\"Odd.Schema \"\"q\"\"\".*", "--connections", "3"],
    );
    // The definitions of the whole database, from another kind of backup.
    let json = env.pgkeep.clone().global("--json").run(["backup", "schema", "-d", "shop"]).ok().json();
    let key = format!("main/backups/{}/schema/shop.sql.zst.age", json["id"].as_str().unwrap());
    let ddl = fsck::open(&env.repo().read(&key), &key, &env.identity_file).unwrap();
    let ddl = env.root.file("shop.sql", 0o644, std::str::from_utf8(&ddl).unwrap());
    let (host, port) = env.pg.socket();
    let (host, port, ddl) = (host.display().to_string(), port.to_string(), ddl.display().to_string());
    let args = [
        "-X",
        "-q",
        "-h",
        &host,
        "-p",
        &port,
        "-U",
        "postgres",
        "-d",
        "again",
        "-v",
        "ON_ERROR_STOP=1",
        "-f",
        &ddl,
    ];
    env.pg.build.run_tool("psql", args);

    let again = env.pg.session_in("again");
    again.sql("set session_replication_role = replica");
    let tables = taken.database("shop")["tables"].as_array().unwrap();
    let names: Vec<&str> = tables.iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert!(
        names.contains(&"measured") && !names.contains(&"measured_2026") && !names.contains(&"far"),
        "{names:?}"
    );
    assert!(names.contains(&"kept") && !names.contains(&"seen"), "{names:?}");
    for table in tables {
        let name = format!("{}.{}", quoted(&table["schema"]), quoted(&table["name"]));
        let text = csv(&taken, table);
        let only = if table["kind"] == "table" { "only" } else { "" };
        let digest = format!(
            "select count(*) || ' ' || coalesce(md5(string_agg(t::text, '|' order by t::text)), '') from {only} {name} t"
        );
        let before = shop.one(&digest);
        assert_eq!(before.split(' ').next().unwrap(), table["rows"].to_string(), "{table}");
        if table["kind"] == "materialized-view" {
            continue;
        }
        let columns: Vec<String> =
            table["csv"]["columns"].as_array().unwrap().iter().map(|c| quoted(&c["name"])).collect();
        let list = if columns.is_empty() { String::new() } else { format!("({})", columns.join(", ")) };
        let file = env.root.file("table.csv", 0o644, &text);
        again.sql(&format!("copy {name} {list} from '{}' (format csv, header)", file.display()));
        assert_eq!(before, again.one(&digest), "{name}");
    }
    let sequence = &taken.table("shop", "app", "animal")["sequences"][0];
    assert_eq!((&sequence["name"], &sequence["last_value"]), (&"animal_id_seq".into(), &3.into()));
    assert_eq!(taken.table("shop", "app", "every_type")["csv"]["columns"][0]["identity"], true);
    env.fsck().assert_whole();
}

#[test]
fn exported_tables_come_back_equal_on_postgres_14() {
    comes_back_equal(14);
}
#[test]
fn exported_tables_come_back_equal_on_postgres_18() {
    comes_back_equal(18);
}

fn all_tables_are_of_one_moment(major: u32) {
    let env = EnvOptions::new(major).not_archiving().build();
    env.pg.sql("create table a as select n, repeat('a', 100) as t from generate_series(1, 20000) n");
    env.pg.sql("create table b as select * from a; create table c as select * from a");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let taken = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let session = env.pg.session();
            let mut n = 20_000;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                n += 1;
                let into = |table: &str| format!("insert into {table} values ({n}, 'new')");
                session.sql(&format!("begin; {}; {}; {}; commit", into("a"), into("b"), into("c")));
            }
        });
        let taken = export(&env, &["-t", "?", "--connections", "2"]);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        writer.join().unwrap();
        taken
    });
    let rows = ["a", "b", "c"].map(|table| taken.rows("postgres", "public", table));
    assert!(rows[0] >= 20_000 && rows[0] == rows[1] && rows[1] == rows[2], "{rows:?}");
    for table in ["a", "b", "c"] {
        let text = csv(&taken, taken.table("postgres", "public", table));
        let last =
            text.lines().skip(1).map(|line| line.split(',').next().unwrap().parse::<u64>().unwrap()).max();
        assert_eq!(last, Some(rows[0]), "{table}");
    }
}

#[test]
fn conditions_choose_rows_and_what_is_not_there_is_a_finding() {
    let env = EnvOptions::new(16).not_archiving().config("[dump]\ntables = [\"users\", \"awards\"]").build();
    env.pg.sql("create table users as select n, n % 2 = 0 as even from generate_series(1, 10) n");
    let ran = env.pgkeep.clone().global("--json").run(["backup", "tables"]).fails_with("left-out", 4);
    assert_eq!(ran.json()["left_out"][0], "no table is called awards");
    let taken = export(&env, &["-t", "users", "--where", "users=even -- half of them"]);
    let users = taken.table("postgres", "public", "users");
    assert_eq!((&users["rows"], &users["csv"]["filter"]), (&5.into(), &"even -- half of them".into()));
    assert_eq!(csv(&taken, users).lines().next(), Some("n,even"));
    let run = |args: &[&str]| env.pgkeep.run(["backup", "tables"].iter().chain(args));
    run(&["-t", "users", "--where", "users=nonsense"]).fails_with("sql", 1).says("nonsense");
    run(&["-t", "users", "--where", "other=true"]).fails_with("left-out", 4);
    run(&["-t", "nothing"]).fails_with("usage", 2);
    assert_eq!(env.fsck().assert_whole().published.len(), 3);
}

#[test]
fn all_tables_of_an_export_of_14_are_of_one_moment() {
    all_tables_are_of_one_moment(14);
}
#[test]
fn all_tables_of_an_export_of_18_are_of_one_moment() {
    all_tables_are_of_one_moment(18);
}

/// An export that takes its time over every row.
const SLOW: [&str; 4] = ["-t", "slow", "--where", "slow=pg_sleep(0.02) is not null"];

fn slow(major: u32) -> TestEnv {
    let env = EnvOptions::new(major).not_archiving().build();
    env.pg.sql(
        "create table slow as select n from generate_series(1, 100000) n; create table t as select 1 as n",
    );
    env
}

#[test]
fn a_connection_lost_in_the_middle_of_a_copy_publishes_nothing() {
    let env = slow(18);
    let running = env.pgkeep.spawn(["backup", "tables"].iter().chain(&SLOW));
    let copies = "from pg_stat_activity where query like 'COPY%' and state = 'active'";
    eventually("the copy runs", Duration::from_secs(30), || {
        env.pg.one(&format!("select count(*) {copies}")) == "1"
    });
    env.pg.sql(&format!("select pg_terminate_backend(pid) {copies}"));
    let ran = running.wait();
    assert!(ran.code == Some(1) && ran.stderr.contains("export public.slow"), "{ran}");
    let fsck = env.fsck().assert_whole();
    assert!(fsck.published.is_empty() && fsck.unfinished.is_empty(), "{fsck:?}");
}

#[test]
fn an_export_that_is_stopped_ends_at_once_and_leaves_no_session() {
    let env = slow(15);
    let running = env.pgkeep.spawn(["backup", "tables"].iter().chain(&SLOW));
    let copies = "select count(*) from pg_stat_activity where query like 'COPY%'";
    eventually("the copy runs", Duration::from_secs(30), || env.pg.one(copies) == "1");
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.wait().fails_with("cancelled", 1);
    eventually("the server has noticed", Duration::from_secs(30), || env.pg.one(copies) == "0");
    assert!(env.fsck().assert_whole().published.is_empty());
}

#[test]
fn a_table_cannot_be_dropped_under_an_export() {
    let env = slow(17);
    let args = ["backup", "tables", "-t", "t"];
    let running = env.pgkeep.clone().failpoint("tables-before-copy", "return(stop)").spawn(args);
    eventually("it stands still before the first row", Duration::from_secs(30), || running.is_stopped());
    let session = env.pg.session();
    session.sql("set lock_timeout = '300ms'");
    assert!(session.try_sql("drop table t").is_err());
    running.signal(nix::sys::signal::Signal::SIGCONT);
    running.wait().ok();
    assert_eq!(env.fsck().assert_whole().published.len(), 1);
}
