//! A database with something of everything goes out by `backup dump` and comes back by `restore database`, equal.

use std::collections::BTreeMap;

use super::opened::{Taken, dump, text_of};
use crate::support::{EnvOptions, TestEnv};

const EVERYTHING: &str = include_str!("everything.sql");
/// What came with a major.
const SINCE: [(u32, &str); 3] = [
    (
        15,
        "create table app.few_nulls (n int unique nulls not distinct); \
         create view app.invoked with (security_invoker) as select * from app.few_nulls; \
         create publication filtered for table app.animal where (id > 7), tables in schema \"Odd.Schema \"\"q\"\"\"; \
         grant set on parameter work_mem to reader",
    ),
    (17, "create table app.ids (id int generated always as identity, at date) partition by range (at)"),
    (
        18,
        "create table app.computed (n int, twice int generated always as (n * 2) virtual, \
         constraint there not null n not valid, foreign key (n) references app.orders not enforced); \
         insert into app.computed values (1), (2)",
    ),
];
const ODD: &str = "Größe \"x\"=y.🐘";

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Three databases: everything under an odd name, one in LATIN1, one whose bytes nobody can convert.
fn fill(env: &TestEnv, major: u32) {
    env.pg.sql(&format!("create database {}", quoted(ODD)));
    let session = env.pg.session_in(ODD);
    session.sql(EVERYTHING);
    SINCE.iter().filter(|(since, _)| major >= *since).for_each(|(_, sql)| _ = session.sql(sql));
    session.sql(&format!(
        "alter database {0} set work_mem to '7MB'; alter database {0} set search_path to app, 'Odd \"s', public; \
         alter role reader in database {0} set statement_timeout to '1min'; alter database {0} connection limit 17; \
         comment on database {0} is 'DATABASE \"x\" it''s'; revoke connect on database {0} from public; \
         grant connect on database {0} to reader; alter database {0} owner to \"Owner É\"",
        quoted(ODD)
    ));
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
    fill(&env, major);
    let taken = dump(&env, &[]);
    the_index_counts(&env, &taken);
    let globals = String::from_utf8(taken.plain("globals.sql.zst.age")).unwrap();
    assert!(
        globals.contains("CREATE ROLE \"Owner É\"") && globals.contains("CREATE ROLE reader"),
        "{globals}"
    );
    let schema = taken.database(ODD)["schema"].as_str().unwrap();
    let schema = String::from_utf8(taken.plain(schema)).unwrap();
    assert!(schema.contains("CREATE POLICY own") && !schema.contains("COPY "), "{schema}");

    for (database, again) in [("latin", "Latin again"), ("bytes", "bytes again")] {
        restored(&env, &[database, "--from", "latest", "--as", again]);
        the_same(&env, &text_of(&env, database), again);
    }
    // One program after the other and all in one, then several at once.
    let (text, facts, digests) = (text_of(&env, ODD), facts(&env, ODD), digests(&env, ODD));
    assert!(digests.len() > 20 && facts.contains("7MB"), "{facts} {digests:?}");
    restored(&env, &[ODD, "--from", &taken.id, "--as", "again"]);
    restored(&env, &[ODD, "--from", "latest", "--replace", "--jobs", "4"]);
    for name in ["again", ODD] {
        the_same(&env, &text, name);
        assert_eq!(self::facts(&env, name), facts, "{name}");
        assert_eq!(self::digests(&env, name), digests, "{name}");
    }
    env.fsck().assert_whole();
}

#[track_caller]
fn restored(env: &TestEnv, args: &[&str]) {
    let command: Vec<&str> = ["restore", "database", "--yes"].iter().chain(args).copied().collect();
    let json = env.pgkeep.clone().global("--json").run(command).ok().json();
    assert_eq!((&json["differ"], &json["warnings"]), (&serde_json::json!([]), &serde_json::json!([])));
}

#[track_caller]
fn the_same(env: &TestEnv, before: &str, again: &str) {
    let after = text_of(env, again);
    assert!(before.len() > 500);
    let differ = before.lines().zip(after.lines()).find(|(a, b)| a != b);
    assert!(before == after, "{again} came back different: {differ:?}");
}

/// What belongs to the database itself.
fn facts(env: &TestEnv, database: &str) -> String {
    env.pg.one(&format!(
        "select pg_get_userbyid(datdba) || (select string_agg(a::text, ',' order by a::text) from unnest(datacl) a) || datconnlimit || pg_encoding_to_char(encoding) || datcollate \
         || shobj_description(d.oid, 'pg_database') || (select string_agg(setrole::regrole || setconfig::text, ',' \
         order by setrole) from pg_db_role_setting where setdatabase = d.oid) from pg_database d where datname = '{}'",
        database.replace('\'', "''")
    ))
}

/// Of the rows of every table and materialised view, of every sequence and every large object.
fn digests(env: &TestEnv, database: &str) -> BTreeMap<String, String> {
    let session = env.pg.session_in(database);
    let all = session.sql(
        "select format('%I.%I', n.nspname, c.relname), c.relkind::text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where c.relkind in ('r', 'S', 'm') and c.relispopulated and n.nspname !~ '^pg_|^information'",
    );
    let digest = |row: &Vec<Option<String>>| {
        let (name, kind) = (row[0].clone().unwrap(), row[1].clone().unwrap());
        let only = if kind == "r" { "only " } else { "" };
        let columns = if kind == "S" { "(last_value, is_called)::text" } else { "t::text" };
        let sql = format!(
            "select md5(string_agg(x, E'\\n' order by x)) from (select {columns} as x from {only}{name} t) r"
        );
        (name, session.sql(&sql)[0][0].clone().unwrap_or_default())
    };
    let mut found: BTreeMap<String, String> = all.iter().map(digest).collect();
    let large = "select string_agg(oid || md5(lo_get(oid)) || coalesce(lomacl::text, ''), ',' order by oid) \
                 from pg_largeobject_metadata";
    found.insert("large objects".to_owned(), session.one(large));
    found
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
fn everything_comes_back_equal_from_postgres_15() {
    comes_back_equal(15);
}
#[test]
fn everything_comes_back_equal_from_postgres_16() {
    comes_back_equal(16);
}
#[test]
fn everything_comes_back_equal_from_postgres_17() {
    comes_back_equal(17);
}
#[test]
fn everything_comes_back_equal_from_postgres_18() {
    comes_back_equal(18);
}
