//! Into another database, into another cluster, and what is refused before anything is made.

use super::shop::{self, DATABASE, digests, look, moment};
use super::{side_is_gone, table_args};
use crate::support::{EnvOptions, PgOptions};

#[test]
fn another_cluster_and_a_moment_outside_the_window_are_refused_before_anything_is_made() {
    let env = EnvOptions::new(18).pg(|pg| pg.segment_mib(1)).build();
    shop::open(&env);
    let then = digests(&env.pg);
    moment(&env, "good");
    env.pg.session_in(DATABASE).sql("drop table app.child");
    let before = look(&env.pg);
    let other = PgOptions::new(env.pg.build.clone()).name("other").create(&env.root);
    other.start();
    other.sql("create database shop");
    other.session_in(DATABASE).sql("create schema app");
    let there = other.conninfo();
    let into_other = ["--to", "name:good", "--connection", &there];
    let refused = env.pgkeep.run(table_args(&["app.base"], &into_other)).fails_with("foreign-cluster", 3);
    refused.says(&env.pg.system_id().to_string()).says("--into-another-cluster");
    let run = |tables: &[&str], more: &[&str]| env.pgkeep.run(table_args(tables, more));
    for (to, code) in [
        ("2001-01-01 00:00:00+00", "target-unreachable"),
        ("2099-01-01 00:00:00+00", "target-unreachable"),
        ("name:nowhere", "target-unreachable"),
    ] {
        run(&["app.child"], &["--to", to, "--replace"]).fails_with(code, 3);
    }
    run(&["app.child"], &["--replace"]).fails_with("usage", 2).says("--to TARGET");
    run(&["app.child", "app.child"], &["--to", "latest"]).fails_with("usage", 2);
    run(&["app.rich"], &["--to", "latest", "--replace"]).fails_with("refused", 3).says("is a view");
    run(&["gone.away"], &["--to", "latest"]).fails_with("refused", 3).says("CREATE SCHEMA");
    run(&["app.base"], &["--to", "latest", "--into", "nirvana"]).fails_with("connect", 1);
    assert!(!env.state.join("scratch").exists(), "a side instance was begun");
    run(&["app.never"], &["--to", "name:good"]).fails_with("refused", 3).says("did not exist at that moment");
    side_is_gone(&env);
    assert_eq!(look(&env.pg), before);

    // Where it is meant, it goes there.
    let meant = [&into_other[..], &["--into-another-cluster", "--no-owner"]].concat();
    env.pgkeep.run(table_args(&["app.base"], &meant)).ok();
    assert_eq!(digests(&other).get("app.base_restored"), then.get("app.base"));
    // And into another database of the same cluster.
    env.pg.sql("create database lab");
    env.pg.session_in("lab").sql("create schema app authorization app");
    run(&["app.child", "app.base"], &["--to", "name:good", "--into", "lab", "--replace"])
        .fails_with("usage", 2);
    run(&["app.base"], &["--to", "name:good", "--into", "lab", "--replace"]).ok();
    let lab = env.pg.session_in("lab");
    assert_eq!(
        lab.one("select count(*) || ' ' || count(more) from app.base left join app.child using (id)"),
        "11 6"
    );
    assert_eq!(look(&env.pg), before);
}
