//! What goes wrong leaves nothing behind and says why.

use age::secrecy::ExposeSecret as _;

use super::{nothing_changed, restore, shop, whole_server, with_pg_restore};
use crate::support::{EnvOptions, TestEnv};

const COPY: [&str; 5] = ["shop", "--from", "latest", "--as", "copy"];

fn dumped(major: u32) -> TestEnv {
    let env = shop(major);
    env.pgkeep.run(["backup", "dump", "-d", "shop"]).ok();
    env
}

#[test]
fn a_pg_restore_that_does_not_end_well_leaves_nothing() {
    let env = dumped(17);
    let before = whole_server(&env);
    let rows = "grep -q . $list; if [ -e $0.rows ]; then rm $0.rows; ";
    for (script, says) in [
        (
            "head -c 3000 >/dev/null; echo 'pg_restore: error: out of luck' >&2; exit 1".to_owned(),
            "out of luck",
        ),
        ("$real \"$@\"; kill -9 $$".to_owned(), "signal: 9"),
        // The second one: rows.
        (
            format!("{rows} head -c 3000 >/dev/null; kill -9 $$; fi; touch $0.rows; exec $real \"$@\""),
            "signal: 9",
        ),
    ] {
        let pgkeep = with_pg_restore(&env, &script);
        let ran = restore(&pgkeep, &COPY).fails_with("restore-failed", 1);
        assert!(ran.stderr.contains(says) && ran.stderr.contains("restore-a-dump.md"), "{script}: {ran}");
        nothing_changed(&env, &before, &script);
    }
    // Another major's.
    let other = "[ \"$1\" = --version ] && echo 'pg_restore (PostgreSQL) 13.1'";
    let pgkeep = with_pg_restore(&env, "exit 0");
    let path = env.root.join("programs/pg_restore");
    std::fs::write(&path, format!("#!/bin/bash\n{other}\n")).unwrap();
    restore(&pgkeep, &COPY).fails_with("tools", 1).says("17");
    nothing_changed(&env, &before, other);
}

#[test]
fn rows_that_went_missing_are_a_finding_and_replace_nothing() {
    let env = dumped(16);
    let psql = env.pg.build.bin.join("psql");
    let (host, port) = env.pg.socket();
    // After the rows were loaded, some of them go.
    let script = format!(
        "$real \"$@\" || exit 1\n{} -qX -h {} -p {port} -U postgres -d \"$database\" -c 'delete from orders where id < 3' \
         2>/dev/null; exit 0",
        psql.display(),
        host.display()
    );
    let pgkeep = with_pg_restore(&env, &script);
    let differs = "public.orders has 1498 rows, and 1500 were dumped";
    let ran = restore(&pgkeep.clone().global("--json"), &COPY).fails_with("rows-differ", 4).says(differs);
    let json = ran.json();
    assert_eq!((&json["database"], &json["differ"][0]["restored"]), (&"copy".into(), &1498.into()));
    let before = whole_server(&env);
    let ran = restore(&pgkeep.global("--json"), &["shop", "--from", "latest", "--replace"])
        .fails_with("rows-differ", 4);
    let name = ran.json()["database"].as_str().unwrap().to_owned();
    assert!(name.starts_with("shop_restored_"), "{ran}");
    env.pg.session_in(&name).sql("alter subscription s set (slot_name = none); drop subscription s");
    env.pg.sql(&format!("drop database \"{name}\""));
    nothing_changed(&env, &before, "the old one stays");
}

#[test]
fn an_error_of_the_server_in_the_middle_leaves_nothing() {
    let env = shop(18);
    // It holds where goods are there already.
    env.pg.session_in("shop").sql(
        "create table public.zz_goods (id int); \
         create function public.cheap(n int) returns boolean language sql as 'select exists (select from public.zz_goods where id = n)'; \
         insert into public.zz_goods values (1); \
         create table public.aa_first (n int check (public.cheap(n))); insert into public.aa_first values (1)",
    );
    env.pgkeep.run(["backup", "dump", "-d", "shop"]).ok();
    let before = whole_server(&env);
    restore(&env.pgkeep, &COPY).fails_with("restore-failed", 1).says("violates check constraint");
    nothing_changed(&env, &before, "a check that cannot hold");
    // No room for another session.
    env.pg.sql("create role maker createdb login connection limit 1");
    let before = whole_server(&env);
    let maker = env.pg.conninfo().replace("user=postgres", "user=maker");
    let args = [&COPY[..], &["--no-owner", "--connection", &maker]].concat();
    restore(&env.pgkeep, &args).fails_with("server-full", 1).says("--jobs");
    nothing_changed(&env, &before, "no connection");
    // A role that may not.
    env.pg.sql("alter role maker nocreatedb");
    restore(&env.pgkeep, &args).fails_with("not-ready", 1).says("--connection");
}

#[test]
fn a_dump_that_is_cut_damaged_gone_or_locked_leaves_nothing() {
    let env = EnvOptions::new(17).not_archiving().build();
    env.pg.sql("create database shop");
    env.pg
        .session_in("shop")
        .sql("create table t as select n, md5(n::text) || md5((n + 1)::text) as t from generate_series(1, 20000) n");
    env.pgkeep.run(["backup", "dump", "-d", "shop"]).ok();
    let before = whole_server(&env);
    let key = env.repo().find(&["/dump/"]);
    let whole = env.repo().read(&key);
    assert!(whole.len() > 300_000, "{}", whole.len());
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for (bytes, says) in
        [(&whole[..whole.len() - 70_000], "were stored"), (&flipped[..], "cannot be read to its end")]
    {
        env.repo().write(&key, bytes);
        restore(&env.pgkeep, &COPY).fails_with("damaged", 1).says(says);
        nothing_changed(&env, &before, says);
    }
    env.repo().delete(&key);
    restore(&env.pgkeep, &COPY).fails_with("object-missing", 1);
    env.repo().write(&key, &whole);

    let other = age::x25519::Identity::generate();
    let other = env.root.file("other.txt", 0o600, other.to_string().expose_secret());
    let of_other = |text: String| text.replace(env.identity_file.to_str().unwrap(), other.to_str().unwrap());
    restore(&env.with_config("other.toml", of_other), &COPY).fails_with("wrong-key", 1);
    nothing_changed(&env, &before, "another identity");
    restore(&env.pgkeep, &COPY).ok();
}
