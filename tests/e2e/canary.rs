//! The canary: the agent writes it, and a drill proves by it that the last row is the one that it must be.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Agent, EnvOptions, Ledger, Pg, TestEnv, eventually, eventually_some};

const SOON: Duration = Duration::from_mins(1);
/// Five rows a second, of which 25 stay.
const CANARY: &str = "[canary]\nenabled = true\ninterval = \"200ms\"\nkeep = \"5s\"\n\
    [proof]\nreserve = \"64MiB\"\namcheck = false\nlow_priority = false\n";
const ROWS: &str = "select coalesce(max(number), 0) from pgkeep.canary";

fn facts(agent: &Agent) -> Value {
    agent.ask(&json!({"op": "status"}))["snapshot"]["clusters"]["main"]["canary"].clone()
}

fn newest(pg: &Pg) -> u64 {
    pg.try_sql(ROWS).ok().map_or(0, |rows| rows[0][0].as_deref().unwrap().parse().unwrap())
}

/// Some more rows than there are now.
#[track_caller]
fn more_rows(agent: &Agent, pg: &Pg, rows: u64) {
    let before = newest(pg);
    eventually(&format!("{rows} more rows: {}", agent.log()), SOON, || newest(pg) >= before + rows);
}

#[track_caller]
fn in_a_row(pg: &Pg) {
    let gaps = "select max(number) - min(number) + 1 - count(*) from pgkeep.canary";
    assert_eq!(pg.one(gaps), "0", "numbers follow each other");
}

/// The drill's check of the canary: its verdict, and what it found.
fn canary_of(env: &TestEnv, args: &[&str], exit: i32) -> (String, String) {
    let ran = env.pgkeep.clone().global("--json").run([&["drill"][..], args].concat());
    let report = ran.exits(exit).json();
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"].as_str().unwrap().contains("canary"));
    let check = check.unwrap_or_else(|| panic!("no canary in {report:#}"));
    eprintln!("{check:#}");
    (check["verdict"].as_str().unwrap().to_owned(), check["found"].as_str().unwrap().to_owned())
}

fn a_drill_proves_it(major: u32) {
    let env = EnvOptions::new(major).config(CANARY).pg(|pg| pg.segment_mib(1)).build();
    let agent = env.start_agent();
    more_rows(&agent, &env.pg, 3);
    env.backup();
    // Some of the first rows are gone again.
    more_rows(&agent, &env.pg, 30);
    in_a_row(&env.pg);
    let count: u64 = env.pg.one("select count(*) from pgkeep.canary").parse().unwrap();
    assert!(count <= 26, "{count} rows are kept");
    let (verdict, found) = canary_of(&env, &["--to", "random"], 0);
    assert_eq!(verdict, "holds", "{found}");
    // The moment at which the backup was consistent: no row since then may be there, and its own are.
    let (verdict, found) = canary_of(&env, &["--to", "backup"], 0);
    assert_eq!(verdict, "holds", "{found}");

    // Of one who has tampered with it, or of a recovery that has lost something.
    drop(agent);
    let last = newest(&env.pg);
    env.pg.sql(&format!("delete from pgkeep.canary where number = {}", last - 5));
    env.pg.switch_and_archive();
    let (verdict, found) = canary_of(&env, &["--to", "latest"], 4);
    assert_eq!((verdict.as_str(), found.contains("are missing")), ("fails", true), "{found}");
    let row = |number: u64| format!("insert into pgkeep.canary values ({number}, clock_timestamp())");
    env.pg.sql(&format!("{}; {}", row(last - 5), row(last + 1)));
    env.pg.switch_and_archive();
    let (verdict, found) = canary_of(&env, &["--to", "latest"], 4);
    assert_eq!(
        (verdict.as_str(), found.contains(&format!("number {}", last + 1))),
        ("fails", true),
        "{found}"
    );
}

#[test]
fn a_drill_proves_that_the_last_row_is_the_one_that_wal_names_14() {
    a_drill_proves_it(14);
}
#[test]
fn a_drill_proves_that_the_last_row_is_the_one_that_wal_names_18() {
    a_drill_proves_it(18);
}

#[test]
fn it_is_off_until_somebody_asks_for_it_and_then_a_drill_before_it_proves_nothing() {
    let env = EnvOptions::new(18).config("[proof]\nreserve = \"64MiB\"\namcheck = false\n").build();
    let agent = env.start_agent();
    eventually("the agent looks at the server", SOON, || {
        let status = agent.ask(&json!({"op": "status"}));
        status["snapshot"]["clusters"]["main"]["server"]["asked_at"].is_string()
    });
    assert_eq!(facts(&agent)["enabled"], false);
    assert!(!agent.log().contains("canary"), "{}", agent.log());
    let schemas = "select count(*) from pg_namespace where nspname = 'pgkeep'";
    assert_eq!(env.pg.one(schemas), "0");
    let mut ledger = Ledger::create(&env.pg);
    env.backup();
    ledger.write(&env.pg, 2);
    env.pg.switch_and_archive();
    let ran = env.pgkeep.clone().global("--json").run(["drill", "--to", "latest"]).ok();
    assert!(!ran.stdout.contains("canary"), "{ran}");

    // Asked for only now: what was archived before knows of none.
    drop(agent);
    let text = env.config_text();
    std::fs::write(
        &env.config_path,
        format!("{text}{CANARY}").replacen("[proof]\nreserve = \"64MiB\"\namcheck = false\n", "", 1),
    )
    .unwrap();
    let (verdict, found) = canary_of(&env, &["--to", "latest"], 0);
    assert_eq!((verdict.as_str(), found.contains("names no row")), ("unproved", true), "{found}");
}

#[test]
fn numbers_go_on_after_restarts_and_a_promotion_and_a_standby_writes_nothing() {
    let env = EnvOptions::new(18).config(CANARY).pg(|pg| pg.conf("wal_keep_size = '100MB'")).build();
    let agent = env.start_agent();
    more_rows(&agent, &env.pg, 3);
    agent.kill();
    let agent = env.start_agent();
    more_rows(&agent, &env.pg, 2);
    env.pg.restart();
    more_rows(&agent, &env.pg, 2);
    in_a_row(&env.pg);
    assert!(facts(&agent)["rows_total"].as_u64().unwrap() >= 4);

    let standby = Pg::standby_of(&env.pg, "standby");
    standby.start();
    let (there, _) = env.beside(&standby);
    let at_standby = Agent::start_beside(&env, &there, "standby");
    eventually("it knows that it is one", SOON, || facts(&at_standby)["standby"] == true);
    assert_eq!(
        (&facts(&at_standby)["rows_total"], &facts(&at_standby)["failure"]),
        (&json!(0), &Value::Null)
    );
    drop(agent);
    let last = newest(&env.pg);
    eventually("the standby has all rows", SOON, || newest(&standby) == last);
    env.pg.stop(crate::support::Stop::Fast);
    standby.promote();
    more_rows(&at_standby, &standby, 3);
    in_a_row(&standby);
    let following = format!("select count(*) from pgkeep.canary where number = {}", last + 1);
    assert_eq!(standby.one(&following), "1");
}

#[test]
fn a_role_without_rights_is_told_the_statements_and_nothing_foreign_is_written_into() {
    let env = EnvOptions::new(18).build();
    env.pg.sql("create role keeper login in role pg_monitor");
    let with_role = |name: &str, database: &str| {
        env.with_config(name, |text| {
            let (admin, role) =
                (env.pg.conninfo(), env.pg.conninfo().replace("user=postgres", "user=keeper"));
            assert_ne!(admin, role);
            let canary = CANARY.replace("[canary]", &format!("[canary]\ndatabase = \"{database}\""));
            format!("{}{canary}", text.replace(&admin, &role))
        })
    };
    let keeper = with_role("keeper.toml", "postgres");
    let finding = |pgkeep: &crate::support::Pgkeep| {
        let ran = pgkeep.clone().global("--json").run(["check", "--no-segment"]);
        let checks = ran.json()["checks"].as_array().unwrap().clone();
        checks.into_iter().find(|check| check["check"] == "canary").unwrap_or_else(|| panic!("{ran}"))
    };
    let missing = finding(&keeper);
    assert_eq!(missing["state"], "fail", "{missing}");
    let hint = missing["hint"].as_str().unwrap();
    let (_, statement) = hint.split_once("database postgres: ").unwrap();
    let agent = Agent::start_as(&env, &keeper);
    let failure = eventually_some("the agent says it too", SOON, || {
        facts(&agent)["failure"]["text"].as_str().map(str::to_owned)
    });
    assert!(failure.contains(statement), "{failure}");

    // Somebody else's table of this name, with code of theirs behind it.
    env.pg.sql(
        "create role eve; create schema pgkeep authorization eve; create table pgkeep.canary \
        (number bigint primary key, written timestamptz); alter table pgkeep.canary owner to eve",
    );
    let theirs = finding(&keeper);
    assert!(theirs["what"].as_str().unwrap().contains("role eve"), "{theirs}");
    let superuser = env.with_config("superuser.toml", |text| format!("{text}{CANARY}"));
    assert_eq!(finding(&superuser)["state"], "fail", "not as superuser either");
    env.pg.sql("drop schema pgkeep cascade");
    env.pg.sql(statement);
    more_rows(&agent, &env.pg, 2);
    assert_eq!(finding(&keeper)["state"], "ok");
    drop(agent);

    // Its subscribers would stop at a table that they lack.
    env.pg.sql("create database app");
    env.pg
        .session_in("app")
        .sql("create publication everything for all tables; grant create on database app to keeper");
    let published = finding(&with_role("published.toml", "app"));
    assert_eq!(published["state"], "fail", "{published}");
    assert!(published["what"].as_str().unwrap().contains("everything"), "{published}");

    // Switched off, what is left is named.
    let left = finding(&env.pgkeep);
    assert!(left["what"].as_str().unwrap().contains("DROP SCHEMA pgkeep"), "{left}");
}
