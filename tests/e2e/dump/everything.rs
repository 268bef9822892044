//! A database with something of everything goes out and comes back equal.

use super::opened::{Taken, dump, text_of};
use crate::support::{EnvOptions, TestEnv};

const EVERYTHING: &str = include_str!("everything.sql");
const ODD: &str = "Größe \"x\"=y.🐘";

/// Three databases: everything under an odd name, one in LATIN1, one whose bytes nobody can convert.
fn fill(env: &TestEnv) {
    env.pg.sql(&format!("create database \"{}\"", ODD.replace('"', "\"\"")));
    env.pg.session_in(ODD).sql(EVERYTHING);
    for (name, encoding) in [("latin", "LATIN1"), ("bytes", "SQL_ASCII")] {
        env.pg.sql(&format!(
            "create database {name} encoding '{encoding}' template template0 lc_collate 'C' lc_ctype 'C'"
        ));
        env.pg.session_in(name).sql(
            "create table \"schön\" (\"ü\" text); insert into \"schön\" values ('äöü'), ('€')"
                .replace("€", "é")
                .as_str(),
        );
    }
}

fn comes_back_equal(major: u32) {
    let env = EnvOptions::new(major).not_archiving().build();
    fill(&env);
    let taken = dump(&env, &[]);
    the_index_counts(&env, &taken);
    for (database, again) in [(ODD, "again"), ("latin", "latin again"), ("bytes", "bytes again")] {
        taken.restore(database, again);
        let (before, after) = (text_of(&env, database), text_of(&env, again));
        assert!(before.len() > 500);
        let differ = before.lines().zip(after.lines()).find(|(a, b)| a != b);
        assert!(before == after, "{database} came back different: {differ:?}");
    }
    let globals = String::from_utf8(taken.plain("globals.sql.zst.age")).unwrap();
    assert!(
        globals.contains("CREATE ROLE \"Owner É\"") && globals.contains("CREATE ROLE reader"),
        "{globals}"
    );
    let schema = taken.database(ODD)["schema"].as_str().unwrap();
    let schema = String::from_utf8(taken.plain(schema)).unwrap();
    assert!(schema.contains("CREATE POLICY own") && !schema.contains("COPY "), "{schema}");
    env.fsck().assert_whole();
}

fn the_index_counts(env: &TestEnv, taken: &Taken<'_>) {
    assert_eq!(taken.database(ODD)["large_objects"], 2);
    assert_eq!(taken.database(ODD)["dump"], "dump/Gr%C3%B6%C3%9Fe%20%22x%22%3Dy%2E%F0%9F%90%98.dump.zst.age");
    let session = env.pg.session_in(ODD);
    let tables = session.sql(
        "select n.nspname, c.relname, format('%I.%I', n.nspname, c.relname) from pg_class c \
         join pg_namespace n on n.oid = c.relnamespace where c.relkind = 'r' and n.nspname ~ '^(app|Odd)'",
    );
    assert!(tables.len() >= 12, "{tables:?}");
    let mut total = 0;
    for table in &tables {
        let column = |n: usize| table[n].clone().unwrap();
        let count: u64 = session.one(&format!("select count(*) from only {}", column(2))).parse().unwrap();
        assert_eq!(taken.rows(ODD, &column(0), &column(1)), count, "{table:?}");
        total += count;
    }
    let all: u64 =
        taken.database(ODD)["tables"].as_array().unwrap().iter().map(|t| t["rows"].as_u64().unwrap()).sum();
    assert_eq!(all, total);
    assert_eq!(taken.rows("latin", "public", "schön"), 2);
    assert_eq!(taken.record["rows"].as_u64().unwrap(), total + 4);
    assert_eq!(taken.record["warnings"], 0);
}

#[test]
fn everything_comes_back_equal_from_postgres_14() {
    comes_back_equal(14);
}
#[test]
fn everything_comes_back_equal_from_postgres_18() {
    comes_back_equal(18);
}
