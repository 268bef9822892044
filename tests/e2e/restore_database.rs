//! `restore database` against real servers: what it chooses, what it replaces, what it makes, and that nothing is left or
//! changed where it fails. (That everything comes back equal: `dump/everything.rs`.)

mod choose;
mod crash;
mod failures;
mod place;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::{Build, EnvOptions, Pgkeep, Ran, TestEnv};

/// A database `shop` with tables, indexes, a foreign key, a subscription, and an owner of its own.
fn shop(major: u32) -> TestEnv {
    let env = EnvOptions::new(major).not_archiving().build();
    env.pg.sql("create role keeper; create role reader");
    env.pg.sql("create database shop owner keeper");
    env.pg.session_in("shop").sql(
        "create table goods (id int primary key, name text); \
         create table orders (id int primary key, goods int references goods, note text); \
         insert into goods select n, md5(n::text) from generate_series(1, 2000) n; \
         insert into orders select n, n, repeat(md5(n::text), 8) from generate_series(1, 1500) n; \
         create index on orders (note); alter table goods owner to keeper; grant select on orders to reader; \
         create subscription s connection 'dbname=nobody' publication p with (connect = false, slot_name = 'far')",
    );
    env
}

/// `pgkeep restore database … --yes`.
fn restore(pgkeep: &Pgkeep, args: &[&str]) -> Ran {
    pgkeep.run(["restore", "database", "--yes"].iter().chain(args))
}

#[track_caller]
fn restored(env: &TestEnv, args: &[&str]) -> Value {
    restore(&env.pgkeep.clone().global("--json"), args).ok().json()
}

/// Every database with its rows and owner, and every role: what a failed restore must not change.
fn whole_server(env: &TestEnv) -> BTreeMap<String, String> {
    let databases = env.pg.sql(
        "select datname, pg_get_userbyid(datdba) || coalesce(shobj_description(oid, 'pg_database'), '') \
                                from pg_database where datallowconn order by 1",
    );
    let mut found = BTreeMap::new();
    for row in databases {
        let (name, facts) = (row[0].clone().unwrap(), row[1].clone().unwrap());
        let tables = env.pg.session_in(&name).one(
            "select string_agg(relname || (xpath('/table/row/c/text()', query_to_xml(format('select count(*) || md5(string_agg(t::text, \
             '','' order by t::text)) as c from public.%I t', relname), true, false, '')))[1]::text, ';' order by relname) from pg_class \
             where relkind = 'r' and relnamespace = 'public'::regnamespace",
        );
        found.insert(name, format!("{facts} {tables}"));
    }
    let roles = env.pg.one("select string_agg(rolname, ',' order by rolname) from pg_roles");
    found.insert("all roles".to_owned(), roles);
    found
}

#[track_caller]
fn nothing_changed(env: &TestEnv, before: &BTreeMap<String, String>, doing: &str) {
    let now = whole_server(env);
    assert_eq!(&now, before, "{doing}");
}

fn count(env: &TestEnv, database: &str, table: &str) -> u64 {
    env.pg.session_in(database).one(&format!("select count(*) from {table}")).parse().unwrap()
}

/// pgkeep with a `pg_restore` that is this script, in which `"$real"` is the real one.
fn with_pg_restore(env: &TestEnv, script: &str) -> Pgkeep {
    let Build { bin, lib, .. } = &env.pg.build;
    let dir: PathBuf = env.root.dir("programs", 0o755);
    let text = format!(
        "#!/bin/bash\nreal={}/pg_restore\nexport LD_LIBRARY_PATH={}\n[ \"$1\" = --version ] && exec $real --version\n\
         for arg; do case $arg in --use-list=*) list=${{arg#*=}};; --dbname=*) database=${{arg#*=}};; esac; done\n{script}\n",
        bin.display(),
        lib.as_ref().unwrap().display()
    );
    env.root.file("programs/pg_restore", 0o755, &text);
    let before = format!("bin_directory = \"{}\"", bin.display());
    let after = format!("bin_directory = \"{}\"", dir.display());
    env.with_config("programs.toml", |text| text.replace(&before, &after))
}
