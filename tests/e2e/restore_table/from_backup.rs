//! `restore table --from`: out of a dump, or of an export of tables.

use super::shop::{self, DATABASE, digests, moment};
use super::{changed, side_is_gone, table_args};
use crate::support::TestEnv;

const DUMP: &[&str] = &["backup", "dump", "-d", DATABASE];
const EXPORT: &[&str] = &["backup", "tables", "-d", DATABASE, "-t", "app.*", "-t", "\"Odd.Name\".*"];

fn tables_come_back(major: u32, backup: &[&str]) {
    let env = TestEnv::new(major);
    shop::open(&env);
    let shop = env.pg.session_in(DATABASE);
    let then = digests(&env.pg);
    env.pgkeep.run(backup).ok();
    let odd = "\"Odd.Name\".\"x \"\"ü\"\" 🐘\"";
    shop.sql("drop table app.customers cascade");
    shop.sql("delete from app.orders where id % 2 = 0; delete from app.events; update app.base set t = 'x'");
    shop.sql(&format!("truncate {odd}"));
    let damaged = digests(&env.pg);

    env.pgkeep.run(table_args(&["app.orders"], &["--from", "latest"])).ok();
    assert_eq!(
        shop.one("select count(*) || ' ' || min(tags::text) from app.orders_restored"),
        "300 {a,NULL,\"b,c\",\"\\\"\"}"
    );
    shop.sql("drop table app.orders_restored");
    let gone = env.pgkeep.run(table_args(&["app.orders", "app.nothing"], &["--from", "latest"]));
    assert!(gone.exits(3).stderr.contains("not have app.nothing"));
    assert_eq!(digests(&env.pg), damaged);

    let wanted = ["app.customers", "app.orders", "app.events", odd];
    let ran = env.pgkeep.run(table_args(&wanted, &["--from", "latest", "--replace"]));
    // A dump knows what the dropped table took with it, an export does not, and says so.
    let (status, told) =
        if backup == DUMP { (4, "view app.rich") } else { (0, "those that went away with app.customers") };
    let ran = ran.exits(status).says(told).says("Plan of the side instance");
    side_is_gone(&env);
    // What nobody asked for is as it was after the accident.
    let left = changed(&then, &digests(&env.pg));
    assert_eq!(left, ["app.audit", "app.base", "app.child"], "{ran}");
    assert_eq!(shop.one("insert into app.customers (name) values ('new') returning id"), "51");
}

#[test]
fn tables_come_back_from_a_dump_of_postgres_14() {
    tables_come_back(14, DUMP);
}
#[test]
fn tables_come_back_from_a_dump_of_postgres_18() {
    tables_come_back(18, DUMP);
}
#[test]
fn tables_come_back_from_an_export_of_postgres_14() {
    tables_come_back(14, EXPORT);
}
#[test]
fn tables_come_back_from_an_export_of_postgres_18() {
    tables_come_back(18, EXPORT);
}

#[test]
fn killed_in_the_middle_or_with_a_damaged_backup_production_is_as_it_was() {
    let env = TestEnv::new(18);
    shop::open(&env);
    let id = env.pgkeep.clone().global("--json").run(EXPORT).ok().json()["id"].as_str().unwrap().to_owned();
    env.pgkeep.run(DUMP).ok();
    env.pg.session_in(DATABASE).sql("delete from app.orders where id > 50");
    let before = digests(&env.pg);
    for (from, step) in [("latest", "table-after-build"), (id.as_str(), "table-before-commit")] {
        let args = table_args(&["app.orders"], &["--from", from, "--replace"]);
        env.pgkeep.clone().failpoint(step, "return(kill)").run(args).was_killed();
        assert_eq!(digests(&env.pg), before, "{step}");
    }
    let key = env.repo().find(&["csv/", "/orders.csv"]);
    let mut bytes = env.repo().read(&key);
    let whole = bytes.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    env.repo().write(&key, &bytes);
    let args = table_args(&["app.orders"], &["--from", &id, "--replace"]);
    env.pgkeep.run(&args).fails_with("damaged", 1);
    assert_eq!(digests(&env.pg), before);
    side_is_gone(&env);
    env.repo().write(&key, &whole);
    env.pgkeep.run(&args).ok();
    assert_eq!(env.pg.session_in(DATABASE).one("select count(*) from app.orders"), "300");
}

#[test]
fn bytes_of_no_encoding_come_back_as_they_were_from_a_moment_a_dump_and_an_export() {
    let env = TestEnv::new(18);
    env.pg.sql("create database shop template template0 encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'");
    let shop = env.pg.session_in(DATABASE);
    let bytes = env.root.join("bytes");
    std::fs::write(&bytes, b"1\t\xe9t\xe9\n2\t\xc3\xa9\n3\t\xff\n").unwrap();
    shop.sql("create table t (id int primary key, v text)");
    shop.sql(&format!("copy t from '{}' (encoding 'SQL_ASCII')", bytes.display()));
    let digest = "select md5(string_agg(id || encode(v::bytea, 'hex'), ',' order by id)) from";
    let then = shop.one(&format!("{digest} t"));
    env.backup();
    let made = |args: &[&str]| {
        let ran = env.pgkeep.clone().global("--json").run(args).ok();
        ran.json()["id"].as_str().unwrap().to_owned()
    };
    let (dump, export) = (made(DUMP), made(&["backup", "tables", "-d", DATABASE, "-t", "public.t"]));
    moment(&env, "good");
    shop.sql("drop table t");
    for from in [["--from", export.as_str()], ["--from", dump.as_str()], ["--to", "name:good"]] {
        env.pgkeep.run(table_args(&["public.t"], &from)).ok();
        assert_eq!(shop.one(&format!("{digest} t_restored")), then, "{from:?}");
        shop.sql("drop table t_restored");
    }
}
