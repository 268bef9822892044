//! Which dump is taken, and what is refused before anything is touched.

use super::{count, nothing_changed, restore, restored, shop, whole_server};
use crate::support::EnvOptions;

fn id(ran: &crate::support::Ran) -> String {
    ran.json()["id"].as_str().unwrap().to_owned()
}

#[test]
fn the_newest_whole_dump_that_is_not_younger_is_taken_or_the_one_that_is_named() {
    let env = EnvOptions::new(18).not_archiving().build();
    env.pg.sql("create database shop");
    let from = |what: &str, name: &str| restore(&env.pgkeep, &["shop", "--from", what, "--as", name]);
    from("latest", "x").fails_with("no-backup", 3).says("no dump with database shop");
    let session = env.pg.session_in("shop");
    let json = env.pgkeep.clone().global("--json");
    session.sql("create table t as select 1 as n; create table other ()");
    let first = id(&json.run(["backup", "dump", "-d", "shop"]).ok());
    let between = env.pg.one("select clock_timestamp()");
    session.sql("insert into t values (2)");
    let second = id(&json.run(["backup", "dump", "-d", "shop"]).ok());
    session.sql("insert into t values (3)");
    let partial = id(&json.run(["backup", "dump", "-d", "shop", "-t", "t"]).ok());
    let tables = id(&json.run(["backup", "tables", "-d", "shop", "-t", "t"]).ok());
    json.run(["backup", "dump", "-d", "postgres"]).ok();

    let report = restored(&env, &["shop", "--from", "latest", "--as", "newest"]);
    assert_eq!((&report["backup"], count(&env, "newest", "t")), (&second.as_str().into(), 2));
    let report = restored(&env, &["shop", "--from", &between, "--as", "older"]);
    assert_eq!((&report["backup"], count(&env, "older", "t")), (&first.as_str().into(), 1));
    let report = restored(&env, &["shop", "--from", &partial, "--as", "part"]);
    assert_eq!((&report["tables"], count(&env, "part", "t")), (&1.into(), 3));

    let before = whole_server(&env);
    let plan =
        env.pgkeep.run(["restore", "database", "shop", "--from", "latest", "--as", "x", "--dry-run"]).ok();
    assert!(plan.stdout.contains(&format!("{partial}: it holds only the tables t")), "{plan}");
    let json =
        json.run(["restore", "database", "shop", "--from", "latest", "--as", "x", "--dry-run"]).ok().json();
    assert_eq!((&json["becomes"], &json["rows"], &json["existing"]), (&"x".into(), &2.into(), &().into()));
    let room = &json["room"];
    assert_eq!(room["path"], env.pg.data.to_str().unwrap());
    assert!(room["available"].as_u64() > Some(0) && room["needed"].as_u64() > Some(100 << 20), "{room}");
    from("2020-01-01 00:00+00", "x").fails_with("no-backup", 3).says("taken up to 2020-01-01");
    from("20201121T020000Z-dump-3f9a", "x").fails_with("no-backup", 3).says("no such backup");
    from(&tables, "x").fails_with("no-backup", 3).says("this is a tables backup, not a dump");
    from("tomorrow", "x").fails_with("usage", 2);
    restore(&env.pgkeep, &["nowhere", "--from", &first]).fails_with("no-backup", 3).says("it has shop");
    // Nobody is there to confirm.
    let args = ["restore", "database", "shop", "--from", "latest", "--as", "x"];
    env.pgkeep.run(args).fails_with("not-confirmed", 3);
    restore(&env.pgkeep, &["shop", "--from", &partial, "--replace"])
        .fails_with("refused", 3)
        .says("only the tables t");
    nothing_changed(&env, &before, "refused");
}

#[test]
fn another_cluster_an_older_major_and_missing_roles_are_refused_and_a_newer_major_takes_the_dump() {
    let old = shop(14);
    old.pgkeep.run(["backup", "dump", "-d", "shop"]).ok();
    let new = EnvOptions::new(18).not_archiving().uninitialised().build();
    // The old cluster's configuration, with the other server.
    let elsewhere = old.with_config("elsewhere.toml", |text| {
        let bin = |env: &crate::support::TestEnv| env.pg.build.bin.display().to_string();
        text.replace(&old.pg.conninfo(), &new.pg.conninfo()).replace(&bin(&old), &bin(&new)).replace(
            &format!("data_directory = \"{}\"", old.pg.data.display()),
            &format!("data_directory = \"{}\"", new.pg.data.display()),
        )
    });
    let before = whole_server(&new);
    let args = ["shop", "--from", "latest"];
    let also = |more: &[&'static str]| [&args[..], more].concat();
    let ran = restore(&elsewhere, &args).fails_with("foreign-cluster", 3);
    assert!(ran.stderr.contains(&old.pg.system_id().to_string()), "{ran}");
    let ran = restore(&elsewhere, &also(&["--into-another-cluster"])).fails_with("refused", 3);
    assert!(ran.stderr.contains("roles keeper, reader") && ran.stderr.contains("--globals"), "{ran}");
    nothing_changed(&new, &before, "refused");
    let ran = restore(&elsewhere, &also(&["--into-another-cluster", "--globals", "--jobs", "3"])).ok();
    assert!(
        ran.stderr.contains("ANOTHER CLUSTER") && ran.stdout.contains("made roles: keeper, reader"),
        "{ran}"
    );
    assert_eq!(count(&new, "shop", "orders"), 1500);
    assert_eq!(
        new.pg.one("select pg_get_userbyid(datdba) from pg_database where datname = 'shop'"),
        "keeper"
    );
    restore(&elsewhere, &also(&["--into-another-cluster", "--no-owner", "--as", "plain"])).ok();
    assert_eq!(
        new.pg.session_in("plain").one("select tableowner from pg_tables where tablename = 'goods'"),
        "postgres"
    );

    // The other way round.
    let newer = shop(18);
    newer.pgkeep.run(["backup", "dump", "-d", "shop"]).ok();
    let back = newer.with_config("back.toml", |text| {
        let bin = |env: &crate::support::TestEnv| env.pg.build.bin.display().to_string();
        text.replace(&newer.pg.conninfo(), &old.pg.conninfo()).replace(&bin(&newer), &bin(&old))
    });
    let args = ["shop", "--from", "latest", "--as", "x", "--into-another-cluster"];
    restore(&back, &args).fails_with("refused", 3).says("older 14");
}
