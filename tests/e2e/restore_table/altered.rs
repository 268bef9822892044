//! Tables that were altered since the asked moment, and what went away with a dropped one.

use super::shop::{self, DATABASE, digests, look, moment};
use super::{changed, side_is_gone, table_args};
use crate::support::{EnvOptions, TestEnv};

#[test]
fn a_table_that_was_altered_is_refused_with_the_way_out_and_new_columns_may_stay() {
    let env = TestEnv::new(18);
    shop::open(&env);
    let shop = env.pg.session_in(DATABASE);
    let then = digests(&env.pg);
    moment(&env, "good");
    shop.sql("delete from app.orders where id > 50; update app.orders set amount = 0");
    shop.sql(
        "drop view app.rich; alter table app.orders add column source text default 'web', alter column amount type numeric(14, 2); \
         alter table app.customers drop column note, add column born date not null default '2000-01-01'",
    );
    shop.sql("alter table app.base add column extra text; delete from app.base");
    let damaged = look(&env.pg);
    let back = |tables: &[&str], more: &[&str]| {
        env.pgkeep.run(table_args(tables, &[&["--to", "name:good"][..], more].concat()))
    };
    let refused = back(&["app.orders", "app.customers"], &["--replace"]).fails_with("refused", 3);
    for words in [
        "nothing in production has changed",
        "column amount was numeric(12,2) and is numeric(14,2)",
        "restore beside it (without --replace)",
    ] {
        assert!(refused.stderr.contains(words), "no {words:?} in {refused}");
    }
    side_is_gone(&env);
    let new = back(&["app.base"], &["--replace"]).fails_with("refused", 3);
    new.says("the table has got columns since that moment: extra (text)").says("--keep-new-columns");
    assert_eq!(look(&env.pg), damaged);

    shop.sql("alter table app.orders alter column amount type numeric(12, 2)");
    back(&["app.orders"], &["--replace", "--keep-new-columns"]).ok();
    assert_eq!(shop.one("select count(*) || min(source) || max(source) from app.orders"), "300webweb");
    shop.sql("alter table app.orders drop column source");
    assert_eq!(digests(&env.pg).get("app.orders"), then.get("app.orders"));
    // The way out for what has no place any more.
    back(&["app.customers"], &[]).ok();
    assert_eq!(digests(&env.pg).get("app.customers_restored"), then.get("app.customers"));
}

#[test]
fn what_went_away_with_a_dropped_table_is_told_with_what_makes_it_again() {
    let env = TestEnv::new(18);
    shop::open(&env);
    let shop = env.pg.session_in(DATABASE);
    shop.sql("create publication sold for table app.orders, app.customers");
    shop.sql("create publication everything for all tables");
    shop.sql(
        "alter table app.audit enable row level security; \
         create policy buyers on app.audit using (exists (select from app.customers)); \
         create function app.named(c app.customers) returns text language sql return (c).name; \
         create unlogged table app.pad (n int); insert into app.pad values (1)",
    );
    moment(&env, "good");
    shop.sql(
        "drop table app.customers cascade; drop table app.pad; select setval('app.orders_id_seq', 5000)",
    );
    let args = table_args(&["app.customers", "app.orders", "app.pad"], &["--to", "name:good", "--replace"]);
    let told = env.pgkeep.run(args).exits(4);
    for words in [
        "app.customers is there again, 50 rows",
        "app.orders has its 300 rows again (it had 300)",
        "app.pad is unlogged: no backup has its rows",
        "view app.rich read app.customers and is gone",
        "ALTER PUBLICATION \"sold\" ADD TABLE \"app\".\"customers\"",
        "policy buyers on table app.audit depended on the table and is gone",
        "function app.named(app.customers) depended on the table and is gone",
        "REFRESH MATERIALIZED VIEW \"app\".\"totals\"",
    ] {
        assert!(told.stderr.contains(words) || told.stdout.contains(words), "no {words:?} in {told}");
    }
    for words in ["publication everything", "policy own", "constraint"] {
        assert!(!told.stderr.contains(&format!("WARNING: {words}")), "{words} in {told}");
    }
    // The foreign keys came back by themselves, and numbers that were given out are not given out again.
    assert_eq!(shop.one("select count(*) from pg_constraint where contype = 'f' and convalidated"), "2");
    assert_eq!(shop.one("select nextval('app.orders_id_seq')"), "5001");
    assert_eq!(shop.one("select nextval('app.customers_id_seq')"), "51");
}

#[test]
fn a_dropped_partition_comes_back_where_it_belongs() {
    let env = EnvOptions::new(18).pg(|pg| pg.segment_mib(1)).build();
    shop::open(&env);
    let shop = env.pg.session_in(DATABASE);
    shop.sql(
        "create table app.days (day date primary key); insert into app.days select day from app.events group by 1; \
         alter table app.events add constraint of_a_day foreign key (day) references app.days; \
         create index events_data on app.events using gin (data)",
    );
    let then = look(&env.pg);
    moment(&env, "good");
    shop.sql("drop table app.events_2025; delete from app.events where id = 149");
    let damaged = look(&env.pg);
    let back = |tables: &[&str]| env.pgkeep.run(table_args(tables, &["--to", "name:good", "--replace"]));
    let refused = back(&["app.events"]).fails_with("sql", 1);
    refused.says("no partition of relation").says("pgkeep restore table app.events_2025 --replace");
    assert_eq!(look(&env.pg), damaged);
    back(&["app.events_2025"]).ok();
    assert_eq!(changed(&then.digests, &digests(&env.pg)), ["app.events_2026_rest"]);
    back(&["app.events"]).ok();
    side_is_gone(&env);
    let now = look(&env.pg);
    assert_eq!((now.definitions, now.digests), (then.definitions, then.digests));
}
