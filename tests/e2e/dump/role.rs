//! A role of its own for dumps: `check` says what it lacks, and with the statements it prints a dump is whole.

use crate::support::EnvOptions;

fn a_role_gets_what_check_asks_for(major: u32) {
    let env = EnvOptions::new(major).build();
    env.pg.sql("create role \"dum per\" login");
    env.pg.sql("create database shop");
    env.pg.sql("revoke connect on database shop from public");
    let shop = env.pg.session_in("shop");
    shop.sql("create table open as select 1 as n; create table secret as select 1 as n");
    shop.sql("alter table secret enable row level security; create policy nobody on secret using (false)");
    shop.sql("select lo_from_bytea(4711, 'large')");
    let connection = env.pg.conninfo().replace("user=postgres", "user='dum per'");
    assert!(connection.contains("dum per"), "{connection}");
    let pgkeep = env.with_config("role.toml", |text| {
        text.replace("[cluster.main]", &format!("[cluster.main]\ndump_connection = \"{connection}\""))
    });
    let missing = || {
        let json = pgkeep.clone().global("--json").run(["check", "--no-segment"]).json();
        let checks = json["checks"].as_array().unwrap().clone();
        checks.into_iter().filter(|c| c["check"] == "dumps" && c["state"] == "fail").collect::<Vec<_>>()
    };
    pgkeep.run(["backup", "dump"]).exits(1);
    // What can be seen from inside a database shows when the role may enter it.
    let mut rounds = 0;
    loop {
        let found = missing();
        if found.is_empty() {
            break;
        }
        rounds += 1;
        assert!(rounds <= 3, "{found:?}");
        for right in found {
            let hint = right["hint"].as_str().unwrap();
            let (place, statements) = hint.split_once(":\n").unwrap();
            let database = if place.contains("in database shop") { "shop" } else { "postgres" };
            env.pg.session_in(database).sql(statements);
        }
    }
    assert_eq!(rounds, 2);
    let json = pgkeep.clone().global("--json").run(["backup", "dump"]).ok().json();
    assert_eq!((&json["rows"], &json["tables"]), (&2.into(), &2.into()));
    pgkeep.run(["backup", "tables", "-t", "secret"]).ok();
    env.fsck().assert_whole();
}

#[test]
fn a_role_gets_what_check_asks_for_and_dumps_everything_on_postgres_14() {
    a_role_gets_what_check_asks_for(14);
}
#[test]
fn a_role_gets_what_check_asks_for_and_dumps_everything_on_postgres_18() {
    a_role_gets_what_check_asks_for(18);
}
