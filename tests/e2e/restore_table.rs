//! `restore table --to`: single tables back to the row, production otherwise untouched, the side instance gone.

mod altered;
mod elsewhere;
mod failures;
mod from_backup;
mod owner;
mod plaintext;
mod screens;
mod shop;

use std::collections::BTreeMap;

use crate::support::{Build, TestEnv};
use shop::{DATABASE, definitions, digests, moment};

/// Nothing of a side instance is left: no directory, no server.
#[track_caller]
pub fn side_is_gone(env: &TestEnv) {
    let scratch = env.state.join("scratch");
    let Ok(entries) = std::fs::read_dir(&scratch) else { return };
    let left: Vec<_> = entries.flatten().map(|e| e.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// What differs between two views of all tables.
fn changed(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let all = before.keys().chain(after.keys());
    let mut names: Vec<String> = all.filter(|t| before.get(*t) != after.get(*t)).cloned().collect();
    names.sort();
    names.dedup();
    names
}

pub fn table_args<'a>(tables: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [&["restore", "table"], tables, more, &["--database", DATABASE, "--yes"]].concat()
}

/// Dropped, emptied and changed at once, and all of it back, on one major.
fn lost_tables_come_back(major: u32) {
    let env = TestEnv::new(major);
    shop::open(&env);
    let shop = env.pg.session_in(DATABASE);
    shop.sql("update app.customers set note = 'last' where id = 7");
    let then = digests(&env.pg);
    let definition = definitions(&env.pg, None);
    moment(&env, "good");
    shop.sql("drop table app.customers cascade");
    shop.sql("delete from app.orders where id % 2 = 0; update app.orders set amount = 0 where id % 3 = 0");
    shop.sql("delete from app.events; drop table app.child");
    let damaged = digests(&env.pg);
    let wanted = ["app.customers", "app.orders", "app.events"];
    env.pgkeep.run(table_args(&wanted, &["--to", "name:good", "--replace"])).exits(4).says("view app.rich");
    side_is_gone(&env);
    let now = digests(&env.pg);
    // `audit` has what the accident itself wrote, and nothing of the restore; `child` was not asked for.
    assert_eq!(
        changed(&damaged, &now),
        ["app.customers", "app.events_2025", "app.events_2026_rest", "app.orders"]
    );
    assert_eq!(changed(&then, &now), ["app.audit", "app.child"]);
    shop.sql(
        "create view app.rich as select c.name, sum(o.amount) as total from app.customers c \
        join app.orders o on o.customer = c.id group by 1; alter view app.rich owner to app",
    );
    env.pgkeep.run(table_args(&["app.child"], &["--to", "name:good", "--replace"])).ok();
    assert_eq!(changed(&then, &digests(&env.pg)), ["app.audit"]);
    assert_eq!(definitions(&env.pg, None), definition);
    // The next row gets the next number.
    assert_eq!(shop.one("insert into app.customers (name) values ('new') returning id"), "51");
}

macro_rules! on_each_major {
    ($($name:ident = $major:literal),*) => { $(
        #[test]
        fn $name() {
            assert!(Build::MAJORS.contains(&$major));
            lost_tables_come_back($major);
        }
    )* };
}
on_each_major!(
    lost_tables_come_back_14 = 14,
    lost_tables_come_back_15 = 15,
    lost_tables_come_back_16 = 16,
    lost_tables_come_back_17 = 17,
    lost_tables_come_back_18 = 18
);

#[test]
fn a_copy_comes_beside_the_table_and_binds_nothing() {
    let env = TestEnv::new(18);
    shop::open(&env);
    let shop = env.pg.session_in(DATABASE);
    let then = digests(&env.pg);
    moment(&env, "good");
    shop.sql("delete from app.orders where id > 100; alter table app.customers add column born date");
    shop.sql("drop table app.base cascade");
    let damaged = digests(&env.pg);
    let definition = definitions(&env.pg, Some("app.customers"));
    let wanted = [
        "app.customers",
        "app.orders",
        "app.events",
        "app.base",
        "\"Odd.Name\".\"x \"\"ü\"\" 🐘\"",
        "app.plain",
    ];
    env.pgkeep
        .run(table_args(&wanted, &["--to", "name:good"]))
        .ok()
        .says("app.orders is in app.orders_restored, 300 rows");
    side_is_gone(&env);
    let now = digests(&env.pg);
    for (table, digest) in &damaged {
        assert_eq!(now.get(table), Some(digest), "{table}");
    }
    assert_eq!(definitions(&env.pg, Some("app.customers")), definition);
    for (table, copy) in [
        ("app.customers", "app.customers_restored"),
        ("app.orders", "app.orders_restored"),
        ("app.events_2025", "app.events_2025_restored"),
        ("app.events_2026_rest", "app.events_2026_rest_restored"),
        ("app.base", "app.base_restored"),
        ("app.child", "app.child_restored"),
        ("app.plain", "app.plain_restored"),
        ("\"Odd.Name\".\"x \"\"ü\"\" 🐘\"", "\"Odd.Name\".\"x \"\"ü\"\" 🐘_restored\""),
    ] {
        assert_eq!(now.get(copy), then.get(table), "{copy} in {now:?}");
    }
    // Production's rows can go, and writing into the copy writes nowhere else.
    shop.sql("delete from app.customers where id = 3; insert into app.orders_restored (customer, amount) values (1, 1)");
    assert_eq!(shop.one("select count(*) from app.events_restored"), "150");
    assert_eq!(shop.one("select relrowsecurity from pg_class where relname = 'customers_restored'"), "t");
    // A second copy needs another name.
    env.pgkeep
        .run(table_args(&["app.orders"], &["--to", "name:good"]))
        .fails_with("refused", 3)
        .says("--as NAME");
    env.pgkeep.run(table_args(&["app.orders"], &["--to", "name:good", "--as", "\"Old Orders\""])).ok();
    assert_eq!(digests(&env.pg).get("app.\"Old Orders\""), then.get("app.orders"));
}
