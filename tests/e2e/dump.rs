//! `backup dump` against real servers: what goes out comes back equal, counts are those of the snapshot, and what goes
//! wrong publishes nothing.

mod broken;
mod everything;
mod failures;
mod limits;
mod opened;
mod patient;
mod places;
mod plaintext;
mod role;
mod tables;

use self::opened::{Taken, dump};
use crate::support::{EnvOptions, Ledger};
use std::time::Duration;

/// The ledger is written meanwhile.
fn the_recorded_counts_are_those_of_the_snapshot(major: u32) {
    let env = EnvOptions::new(major).not_archiving().build();
    env.pg.sql("create table bulk as select n, repeat('x', 200) as t from generate_series(1, 20000) n");
    let mut ledger = Ledger::create(&env.pg);
    ledger.write(&env.pg, 20);
    let writer = ledger.write_in_background(&env.pg, Duration::from_millis(1));
    let taken = dump(&env, &[]);
    let ledger = writer.stop();
    let database = taken.database("postgres");
    let rows = usize::try_from(taken.rows("postgres", "public", "ledger")).unwrap();
    assert_eq!(taken.rows("postgres", "public", "bulk"), 20_000);
    // Whatever had committed before the recorded place is in, and nothing is torn.
    let lsn: pgkeep::model::Lsn = database["snapshot_lsn"].as_str().unwrap().parse().unwrap();
    let before = ledger.entries.iter().filter(|e| e.end <= lsn).count();
    assert!((before..=before + 2).contains(&rows), "{rows} rows, {before} of them before {lsn}");
    taken.restore("postgres", "again");
    let again = env.pg.session_in("again");
    assert_eq!(again.one("select count(*) || ' ' || max(id) from ledger"), format!("{rows} {rows}"));
    env.fsck().assert_whole();
}

#[test]
fn the_recorded_counts_of_14_are_those_of_the_snapshot_while_the_ledger_is_written() {
    the_recorded_counts_are_those_of_the_snapshot(14);
}
#[test]
fn the_recorded_counts_of_18_are_those_of_the_snapshot_while_the_ledger_is_written() {
    the_recorded_counts_are_those_of_the_snapshot(18);
}

#[test]
fn databases_and_tables_are_chosen_by_patterns() {
    let env = EnvOptions::new(15).not_archiving().build();
    for database in ["shop_1", "shop_2", "other"] {
        env.pg.sql(&format!("create database {database}"));
        env.pg
            .session_in(database)
            .sql("create table users as select 1 as n; create table \"Users\" as select 2 as n");
    }
    let names = |taken: &Taken| -> Vec<String> {
        let databases = taken.index["databases"].as_array().unwrap().iter();
        databases.map(|d| d["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&dump(&env, &[])), ["other", "postgres", "shop_1", "shop_2"]);
    assert_eq!(names(&dump(&env, &["-d", "shop_*"])), ["shop_1", "shop_2"]);
    // Where no table is called so, there is nothing to dump.
    let taken = dump(&env, &["--table", "USERS", "--label", "two words"]);
    assert_eq!(names(&taken), ["other", "shop_1", "shop_2"]);
    assert_eq!(taken.record["label"], "two words");
    let tables = taken.database("shop_1")["tables"].as_array().unwrap();
    assert_eq!((tables.len(), tables[0]["name"].as_str()), (1, Some("users")));
    env.pg.sql("create database again");
    taken.restore("shop_1", "again");
    assert_eq!(
        env.pg
            .session_in("again")
            .one("select string_agg(relname, ',') from pg_class where relname ilike 'users'"),
        "users"
    );
    let run = |args: &[&str]| env.pgkeep.run(["backup", "dump"].iter().chain(args));
    run(&["-d", "nothing*"]).fails_with("usage", 2);
    run(&["-t", "nothing"]).fails_with("usage", 2);
    run(&["--workers", "2"]).fails_with("usage", 2);
    env.pgkeep.run(["backup", "full", "-t", "users"]).fails_with("usage", 2);
    assert_eq!(env.fsck().assert_whole().published.len(), 3);
}
