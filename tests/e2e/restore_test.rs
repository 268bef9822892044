//! The nightly restore test: base backup, dump and exports, as a command and as a job.

mod part;

use std::time::Duration;

use serde_json::Value;

use crate::support::{EnvOptions, Ledger, Ran, TestEnv, eventually, forge};

const SOON: Duration = Duration::from_mins(1);
const TEST_DB: &str = "app";

/// A backup with WAL after it, a dump and an export of a database with some rows.
fn everything(extra: &str) -> TestEnv {
    everything_in(EnvOptions::new(18), extra)
}

fn everything_in(options: EnvOptions, extra: &str) -> TestEnv {
    let reserve =
        if extra.contains("reserve") { "" } else { "[proof]\nreserve = \"64MiB\"\nlow_priority = false\n" };
    let config = format!("[dump]\ntables = [\"users\"]\n{reserve}{extra}");
    let env = options.pg(|pg| pg.segment_mib(1)).config(&config).build();
    let mut ledger = Ledger::create(&env.pg);
    env.pg.sql("create role app_owner");
    env.pg.sql(&format!("create database {TEST_DB} owner app_owner"));
    let app = env.pg.session_in(TEST_DB);
    app.sql(
        "create table users (id int primary key, \"odd name\" text); set role app_owner; reset role; \
         insert into users select g, case when g % 3 = 0 then E'two\\nlines, \"quoted\"' end from generate_series(1, 500) g; \
         create table orders as select g as id from generate_series(1, 20) g",
    );
    env.backup();
    ledger.write(&env.pg, 3);
    env.pgkeep.run(["backup", "dump"]).ok();
    env.pgkeep.run(["backup", "tables"]).ok();
    ledger.write(&env.pg, 3);
    env.pg.switch_and_archive();
    env
}

fn run(env: &TestEnv) -> Ran {
    env.pgkeep.clone().global("--json").run(["restore-test"])
}

fn checks<'r>(report: &'r Value, of: &str) -> Vec<(&'r str, &'r str, &'r str)> {
    let all = report["checks"].as_array().unwrap().iter();
    let of_it = all.filter(|check| check["of"].as_str().unwrap().starts_with(of));
    let text = |check: &'r Value, key: &str| check[key].as_str().unwrap();
    of_it.map(|check| (text(check, "name"), text(check, "verdict"), text(check, "found"))).collect()
}

#[track_caller]
fn nothing_is_left(env: &TestEnv) {
    // Where nothing was made, there is not even the directory.
    let left = env.state.join("scratch").read_dir().into_iter().flatten();
    let left: Vec<_> = left.flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn base_backup_dump_and_exports_come_back_and_are_counted() {
    let assertion =
        "[[assertion]]\nname = \"users\"\ndatabase = \"app\"\nsql = \"select count(*) = 500 from users\"\n";
    let env = everything(assertion);
    let before = env.pg.sql("select datname from pg_database order by 1");
    let report = run(&env).ok().json();
    assert_eq!((report["outcome"].as_str(), report["kind"].as_str()), (Some("passed"), Some("restore-test")));
    let dump = checks(&report, "dump ");
    assert!(dump.contains(&("database app", "holds", "520 rows in 2 tables")), "{report:#}");
    assert!(dump.contains(&("assertion users", "holds", "true")), "{report:#}");
    assert!(dump.iter().any(|(name, ..)| *name == "database postgres"), "{report:#}");
    let exports = checks(&report, "export ");
    assert_eq!(exports, [("tables of database app", "holds", "500 rows in 1 tables, as exported")]);
    assert!(checks(&report, "assertion").contains(&("users", "holds", "true")), "of the base backup too");
    nothing_is_left(&env);
    assert_eq!(env.pg.sql("select datname from pg_database order by 1"), before);
    assert!(env.repo().list_under("main/reports/").iter().any(|key| key.ends_with("-restore-test.json")));
}

/// Columns of PostgreSQL's own types, and two of others.
const EVERY_TYPE: &str = "create type mood as enum ('sad', 'fine'); \
    create table every_type (id int, narrow varchar(5), fixed char(3), doc jsonb, plain json, price numeric(7,2), \
    at timestamptz(3), during tstzrange, several int4multirange, places point[], words tsvector, flags bit(4), \
    address inet, feeling mood, cost money); \
    insert into every_type values (1, 'äöüßé', 'x', '{\"a\": \"\\u00e4 and \\\\ \"}', '[1, 2]', 12345.67, now(), \
    tstzrange(now(), null), '{[1,3),[5,7)}', '{\"(1,2)\",\"(3,4)\"}', 'a fat cat', b'1010', '::1/64', 'fine', 12.5)";

#[test]
fn with_two_regions_a_damaged_export_of_one_is_loaded_from_the_other_and_each_region_has_its_drill() {
    let options = EnvOptions::new(18).s3_repository("eu", true).dir_repository("us", true);
    let env = everything_in(options, "");
    env.pg.session_in(TEST_DB).sql(EVERY_TYPE);
    env.pgkeep.run(["backup", "tables", "-t", "users", "-t", "every_type"]).ok();
    let store = env.store("eu");
    let of_type = |key: &&String| key.contains("-tables-") && key.contains("every_type");
    let csv = store.list_under("main/backups/").iter().find(of_type).cloned().unwrap();
    store.flip_a_bit(&csv);
    let report = run(&env).ok().json();
    assert_eq!(report["outcome"], "passed", "{report:#}");
    let exports = checks(&report, "export ");
    let whole = ("tables of database app", "holds", "501 rows in 2 tables, as exported");
    assert!(exports.contains(&whole), "{report:#}");
    let notes: Vec<&str> = report["notes"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let says = |parts: &[&str]| notes.iter().any(|note| parts.iter().all(|part| note.contains(part)));
    assert!(says(&["every_type", "in eu:"]), "{notes:?}");
    let as_text = "read as text, for their types are not PostgreSQL's own or depend on a locale: public.every_type.feeling";
    assert!(says(&[as_text, "every_type.cost (money)"]) && !says(&["as text", "narrow"]), "{notes:?}");
    for region in ["eu", "us"] {
        let drill = env.pgkeep.clone().global("--json").run(["--repo", region, "drill"]).ok().json();
        assert_eq!((&drill["outcome"], &drill["only"]), (&"passed".into(), &region.into()), "{drill:#}");
        assert_eq!(drill["recovered"]["repository"], region);
    }
    nothing_is_left(&env);
}

#[test]
fn killed_in_the_dump_or_the_exports_nothing_is_left_after_the_next_run_wherever_the_scratch_directory_is() {
    let env = everything("");
    // Too long for a socket: that lies in a directory outside, which must go too.
    let scratch = env.root.dir(&"long".repeat(25), 0o700);
    let args = ["restore-test", "--scratch-dir", scratch.to_str().unwrap()];
    let mut outside = Vec::new();
    for step in ["test-after-cluster", "test-after-dump", "test-after-exports"] {
        env.pgkeep.clone().failpoint(step, "return(kill)").run(args).was_killed();
        let left: Vec<_> = scratch.read_dir().unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left.len(), 1, "{step}: the next run has not removed what the last one left: {left:?}");
        let socket = std::env::temp_dir().join(format!("pgkeep-{}", left[0].to_str().unwrap()));
        assert!(
            socket.join(".s.PGSQL.5432").exists(),
            "the cluster runs, with its socket in {}",
            socket.display()
        );
        outside.push(socket);
    }
    env.pgkeep.run(args).ok();
    assert_eq!(scratch.read_dir().unwrap().count(), 0);
    assert!(outside.iter().all(|socket| !socket.exists()), "{outside:?}");
}

#[test]
fn a_damaged_dump_and_a_damaged_export_are_found_and_named() {
    let env = everything("");
    let keys = env.repo().list_under("main/backups/");
    let object = |kind: &str, part: &str| {
        keys.iter()
            .find(|key| key.contains(kind) && key.contains(part) && !key.contains("json"))
            .unwrap()
            .clone()
    };
    let (dump, csv) = (object("-dump-", "app"), object("-tables-", "users"));
    env.repo().flip_a_bit(&dump);
    env.repo().flip_a_bit(&csv);
    let ran = run(&env).exits(4).says("drill-failed.md");
    let report = ran.json();
    assert_eq!(report["outcome"], "failed");
    for (of, part) in [("dump ", "-dump-"), ("export ", "-tables-")] {
        let failed = checks(&report, of);
        assert!(failed.iter().any(|(_, verdict, _)| *verdict == "fails"), "{report:#}");
        let named =
            report["checks"].as_array().unwrap().iter().any(|c| c["of"].as_str().unwrap().contains(part));
        assert!(named, "{report:#}");
    }
    // The base backup's own part was made all the same.
    assert!(checks(&report, "recovery").iter().all(|(_, verdict, _)| *verdict == "holds"), "{report:#}");
    nothing_is_left(&env);
}

#[test]
fn a_value_that_does_not_fit_its_column_and_rows_that_are_not_as_many_are_found_where_all_digests_are_right()
{
    let env = everything("");
    let keys = env.repo().list_under("main/backups/");
    let csv = keys.iter().find(|key| key.contains("-tables-") && key.contains("/csv/")).unwrap();
    let undo = forge::object(&env, csv, |plain| {
        let text = String::from_utf8(plain).unwrap();
        assert!(text.contains("\n250,"), "{text}");
        text.replace("\n250,", "\ntwo hundred and fifty,").into_bytes()
    });
    // The dump has 500 rows, and was counted to have one more.
    let index = keys.iter().find(|key| key.contains("-dump-") && key.contains("index.json")).unwrap();
    let undone = forge::object(&env, index, |plain| {
        let text = String::from_utf8(plain).unwrap().replace(char::is_whitespace, "");
        assert_eq!(text.matches("\"rows\":500,").count(), 1, "{text}");
        text.replace("\"rows\":500,", "\"rows\":501,").into_bytes()
    });
    let ran = run(&env).exits(4).says("drill-failed.md");
    let report = ran.json();
    let dump = checks(&report, "dump ");
    let counted = |(name, verdict, found): &(&str, &str, &str)| {
        *name == "database app" && *verdict == "fails" && found.contains("501") && found.contains("500")
    };
    assert!(dump.iter().any(counted), "{dump:?}");
    undone.undo();
    let exports = checks(&report, "export ");
    let named = |(name, verdict, found): &(&str, &str, &str)| {
        name.contains("users") && *verdict == "fails" && found.contains("two hundred and fifty")
    };
    assert!(exports.iter().any(named), "{exports:?}");
    undo.undo();
}

#[test]
fn without_room_it_is_unproved_and_not_passed() {
    let env = everything("[proof]\nreserve = \"900TiB\"\n");
    let ran = run(&env).exits(4);
    let report = ran.json();
    assert_eq!(report["outcome"], "unproved", "{report:#}");
    for of in ["base backup", "dump ", "export "] {
        let all = checks(&report, of);
        assert!(
            !all.is_empty() && all.iter().all(|(_, verdict, _)| *verdict == "unproved"),
            "{of}: {report:#}"
        );
    }
    nothing_is_left(&env);
}

#[test]
fn jobs_drill_and_test_and_what_they_prove_is_on_the_screen() {
    let job = |name: &str, kind: &str| {
        format!(
            "[[job]]\nname = \"{name}\"\nkind = \"{kind}\"\nschedule = \"@yearly\"\nrepository = \"repo\"\n"
        )
    };
    let env = everything(&format!(
        "[proof]\nreserve = \"64MiB\"\nlow_priority = false\nrpo = \"1h\"\nrto = \"1h\"\n[alerts]\ncheck_interval = \"1s\"\n{}{}",
        job("test", "restore-test"),
        job("drill", "drill")
    ));
    let agent = env.start_agent();
    for name in ["test", "drill"] {
        env.pgkeep.run(["jobs", "run", name]).ok();
    }
    nothing_is_left(&env);
    let status = || env.pgkeep.run(["status"]).stdout;
    eventually("the proofs are on the screen", SOON, || status().contains("measured by 2 restores"));
    assert!(status().contains("last proof   ") && !status().contains("none yet"), "{}", status());
    env.pgkeep.run(["drill"]).ok();
    eventually("one by hand is, too", SOON, || status().contains("measured by 3 restores"));
    // What integrity may find and nobody looked at: the alert names the backup and the page.
    let dump = env.repo().find(&["/dump/", "app"]);
    env.repo().flip_a_bit(&dump);
    env.pgkeep.run(["jobs", "run", "test"]).exits(4);
    let id = dump.split('/').nth(2).unwrap();
    let alerts = || env.pgkeep.clone().global("--json").run(["alerts"]).stdout;
    eventually("the alert", SOON, || {
        let open = alerts();
        ["proof-failed", id, "drill-failed.md"].iter().all(|part| open.contains(part))
    });
    env.repo().flip_a_bit(&dump);
    agent.terminate();
    // Without an agent the same is found in the repository.
    let status = status();
    assert!(status.contains("measured by 4 restores") && !status.contains("none yet"), "{status}");
    let reports = env.repo().list_under("main/reports/");
    let drill = reports.iter().find(|key| key.ends_with("-drill.json")).unwrap();
    let report: Value = serde_json::from_slice(&env.repo().read(drill)).unwrap();
    // The agent knows what would be lost, so the objective is kept and not only not shown.
    let verdicts: Vec<_> =
        report["objectives"].as_array().unwrap().iter().map(|o| o["verdict"].clone()).collect();
    assert_eq!(verdicts, ["holds", "holds"], "{report:#}");
}
