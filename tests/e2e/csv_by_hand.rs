//! A table of an export and a database of a dump come back without pgkeep (promise 10): the commands of the runbooks, as
//! they stand on their pages, with Debian's age, zstd and minisign and PostgreSQL's own programs.

use std::path::PathBuf;

use serde_json::Value;

use crate::support::runbook::{Runbook, bash, described};
use crate::support::{EnvOptions, Pgkeep, TestEnv};

const TABLE: &str = "Größe \"x\".y";

/// A table with what CSV gets wrong, in a schema of its own, and another that refers to it.
const FILL: &str = r#"
create schema "Shop A";
create table "Shop A"."Größe ""x"".y" (
    id int generated always as identity primary key,
    "select" text, twice int generated always as (id * 2) stored, tags text[], raw bytea, price numeric not null
);
insert into "Shop A"."Größe ""x"".y" ("select", tags, raw, price) values
    (null, null, null, 1), ('', '{}', '', 2.50), (E'two\nlines, "quoted"\r\n\ttab', '{"a,b",NULL,"\"\""}', '\xdeadbeef', 3),
    ('\N', '{NULL}', '\x00', 4), ('\.', '{x}', '\x0a', 5), (' spaces ', array['ü 🐘'], null, 6);
create table "Shop A".orders (n int primary key, of int references "Shop A"."Größe ""x"".y");
insert into "Shop A".orders select n, 1 + n % 6 from generate_series(1, 50000) n;
select lo_from_bytea(4711, 'large');
"#;

const DIGEST: &str =
    r#"select count(*) || ' ' || md5(string_agg(t::text, '|' order by id)) from "Shop A"."Größe ""x"".y" t"#;

fn env(major: u32) -> TestEnv {
    let env = EnvOptions::new(major).not_archiving().build();
    env.pg.sql("create database shop");
    env.pg.session_in("shop").sql(FILL);
    env
}

/// The server's programs, which find their libraries as a package's would.
fn programs(env: &TestEnv) -> PathBuf {
    let build = &env.pg.build;
    let Some(lib) = &build.lib else { return build.bin.clone() };
    let dir = env.root.dir("by-hand", 0o755);
    for name in ["pg_restore", "psql"] {
        let (lib, bin) = (lib.display(), build.bin.join(name));
        let text = format!("#!/bin/sh\nLD_LIBRARY_PATH={lib} exec {} \"$@\"\n", bin.display());
        env.root.file(&format!("by-hand/{name}"), 0o755, &text);
    }
    dir
}

/// The last variables are the page's own.
#[track_caller]
fn follow(
    env: &TestEnv,
    page: &str,
    backup: &str,
    own: Vec<(&'static str, String)>,
    steps: &[u32],
) -> (bool, String) {
    let host_key = std::fs::read_to_string(env.state.join("keys/host.pub")).unwrap();
    let mut values = vec![
        ("REPO", env.repo().path().display().to_string()),
        ("CLUSTER", "main".to_owned()),
        ("BACKUP", backup.to_owned()),
        ("IDENTITY", env.identity_file.display().to_string()),
        ("HOST_KEY", host_key.lines().nth(1).unwrap().to_owned()),
    ];
    values.extend(own);
    let output = bash(&env.root, &Runbook::named(page).script(&values, steps));
    (output.status.success(), described(&output))
}

fn of_a_table(env: &TestEnv) -> Vec<(&'static str, String)> {
    let (host, port) = env.pg.socket();
    let connection = format!("host={} port={port} user=postgres dbname=shop", host.display());
    vec![
        ("DATABASE", "shop".to_owned()),
        ("SCHEMA", "Shop A".to_owned()),
        ("TABLE", TABLE.to_owned()),
        ("CONNECTION", connection),
        ("WORK", env.root.dir("work", 0o700).display().to_string()),
        ("PSQL", programs(env).join("psql").display().to_string()),
    ]
}

fn taken(pgkeep: &Pgkeep, args: &[&str]) -> Value {
    let args: Vec<&str> = ["backup"].iter().chain(args).copied().collect();
    pgkeep.clone().global("--json").run(args).ok().json()
}

fn a_table_comes_back_by_hand(major: u32) {
    let env = env(major);
    // Of several objects, as a table of hundreds of gigabytes would be.
    let pgkeep = env.pgkeep.clone().failpoint("object-longest", "return(10000)");
    let export = taken(&pgkeep, &["tables", "-d", "shop", "-t", "\"Shop A\".*"]);
    let parts = export["objects"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|o| o["key"].as_str().unwrap().contains(".part0"));
    assert!(parts.count() >= 2, "{export}");
    let backup = export["id"].as_str().unwrap();
    let shop = env.pg.session_in("shop");
    let before = shop.one(DIGEST);
    let restored = DIGEST.replace(".y\"", ".y_restored\"");
    let steps = [1, 2, 3, 4, 5, 6];

    // Rows are missing.
    shop.sql("delete from \"Shop A\".orders; delete from \"Shop A\".\"Größe \"\"x\"\".y\" where id > 2");
    let (ok, said) = follow(&env, "csv-by-hand", backup, of_a_table(&env), &steps);
    assert!(ok && said.contains("has 6 rows") && said.contains("select setval("), "{said}");
    assert_eq!(shop.one(&restored), before);
    // The whole table is.
    shop.sql("drop schema \"Shop A\" cascade; create schema \"Shop A\"");
    let (ok, said) = follow(&env, "csv-by-hand", backup, of_a_table(&env), &steps);
    assert!(ok, "{said}");
    assert_eq!(shop.one(&restored), before);

    // What is damaged is found, also by whoever checks nothing.
    let key = format!("main/backups/{backup}/csv/shop/Shop%20A/orders.csv.zst.age.part002");
    env.repo().flip_a_bit(&key);
    let (ok, said) = follow(&env, "csv-by-hand", backup, of_a_table(&env), &[1, 2]);
    assert!(!ok && said.contains("FAILED"), "{said}");
    let mut orders = of_a_table(&env);
    "orders".clone_into(&mut orders[2].1);
    let (ok, said) = follow(&env, "csv-by-hand", backup, orders, &[1, 3]);
    assert!(!ok && said.contains("age: error"), "{said}");
}

#[test]
fn a_table_of_14_comes_back_by_hand() {
    a_table_comes_back_by_hand(14);
}
#[test]
fn a_table_of_18_comes_back_by_hand() {
    a_table_comes_back_by_hand(18);
}

fn a_database_comes_back_by_hand(major: u32) {
    let env = env(major);
    let pgkeep = env.pgkeep.clone().failpoint("object-longest", "return(10000)");
    let dump = taken(&pgkeep, &["dump", "-d", "shop"]);
    let parts =
        dump["objects"].as_array().unwrap().iter().filter(|o| o["key"].as_str().unwrap().contains(".part0"));
    assert!(parts.count() >= 2, "{dump}");
    let before = env.pg.session_in("shop").one(DIGEST);
    let (host, port) = env.pg.socket();
    let own = vec![
        ("DATABASE", "shop".to_owned()),
        ("NEW", "Shop again".to_owned()),
        ("SERVER", format!("host={} port={port} user=postgres", host.display())),
        ("WORK", env.root.dir("work", 0o700).display().to_string()),
        ("PGBIN", programs(&env).display().to_string()),
    ];
    let (ok, said) = follow(&env, "dump-by-hand", dump["id"].as_str().unwrap(), own, &[1, 2, 3, 4, 5]);
    assert!(ok && said.contains("2 tables with as many rows"), "{said}");
    let again = env.pg.session_in("Shop again");
    assert_eq!(again.one(DIGEST), before);
    assert_eq!(again.one("select convert_from(lo_get(4711), 'UTF8')"), "large");
}

#[test]
fn a_database_of_14_comes_back_by_hand() {
    a_database_comes_back_by_hand(14);
}
#[test]
fn a_database_of_18_comes_back_by_hand() {
    a_database_comes_back_by_hand(18);
}
