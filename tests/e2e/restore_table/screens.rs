//! What is shown before and after, golden.

use super::shop::{self, DATABASE, moment};
use super::table_args;
use crate::support::{EnvOptions, Ran, TestEnv};

/// What differs from run to run is replaced.
fn shown(env: &TestEnv, name: &str, ran: &Ran) {
    let system = env.pg.system_id().to_string();
    let text = format!("--- stdout\n{}--- stderr\n{}", ran.stdout, ran.stderr);
    let text = text.replace(&env.root.path().display().to_string(), "ROOT").replace(&system, "SYSTEM");
    let mut settings = insta::Settings::clone_current();
    for (pattern, with) in [
        (r"\d{8}T\d{6}Z-full-[0-9a-f]{4}", "BACKUP"),
        (r"table-\d{8}T\d{6}Z-\d+-[0-9a-f]{4}", "table-RUN"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?(\+00| UTC)", "TIME"),
        (r"\b[0-9A-F]+/[0-9A-F]{2,8}\b", "LSN"),
        (r"\b[0-9A-F]{24}\b", "SEGMENT"),
        (r"\d+(\.\d+)? (B|KiB|MiB|GiB)\b", "SIZE"),
        (r"transaction \d+", "transaction XID"),
        (r"\b\d+\.\ds\b|\b\d+s\b", "SPAN"),
        (r"host [^,\n]*,", "host HOST,"),
        (r"PostgreSQL \d\d\.?\d*", "PostgreSQL VERSION"),
        (
            r"(?m)^\S* *(fetching|finding|recovering|copying|making|looking|taking|indexes|statistics|\[).*\n",
            "",
        ),
    ] {
        settings.add_filter(pattern, with);
    }
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[test]
fn the_plan_and_the_report_say_what_a_person_must_know() {
    let env = EnvOptions::new(18).pg(|pg| pg.segment_mib(1)).build();
    shop::open(&env);
    let shop = env.pg.session_in(DATABASE);
    shop.sql("update app.customers set note = 'last' where id = 7");
    moment(&env, "good");
    shop.sql("drop table app.customers cascade; delete from app.orders where id > 50");
    shop.sql("create publication sold for table app.orders");
    let tables = ["app.customers", "app.orders", "\"Odd.Name\".\"x \"\"ü\"\" 🐘\""];
    let planned = env.pgkeep.run(table_args(&tables, &["--to", "name:good", "--replace", "--dry-run"])).ok();
    shown(&env, "plan_replace", &planned);
    let beside = env.pgkeep.run(table_args(&tables[1..2], &["--to", "name:good", "--dry-run"])).ok();
    shown(&env, "plan_beside", &beside);
    let json = env.pgkeep.clone().global("--json");
    let plan =
        json.run(table_args(&tables[..2], &["--to", "name:good", "--replace", "--dry-run"])).ok().json();
    assert_eq!((&plan["tables"][0]["way"], &plan["tables"][1]["way"]), (&"anew".into(), &"rows".into()));
    assert_eq!(plan["locked"], serde_json::json!(["app.orders"]));
    assert!(!env.state.join("scratch").exists(), "a plan was shown and something was made");
    // Nobody is there to say yes.
    let all = table_args(&tables[..2], &["--to", "name:good", "--replace"]);
    let asked: Vec<&str> = all.iter().copied().filter(|arg| *arg != "--yes").collect();
    env.pgkeep.run(asked).fails_with("not-confirmed", 3);

    let done = env.pgkeep.run(&all).exits(4);
    let report = done.stdout.clone();
    shown(&env, "report", &Ran { stderr: findings(&done), stdout: report, ..done });
    shop.sql("delete from app.orders where id > 50");
    let report = json.run(table_args(&tables[1..2], &["--to", "name:good", "--replace"])).ok().json();
    assert_eq!(report["tables"][0]["rows"], 300);
    assert_eq!(report["tables"][0]["rows_before"], 50);
    assert_eq!(report["counts"], serde_json::json!({ "tables": 1, "rows": 300 }));
}

fn findings(ran: &Ran) -> String {
    let lines = ran.stderr.lines().filter(|l| l.starts_with("WARNING") || l.starts_with("note"));
    lines.collect::<Vec<_>>().join("\n")
}
