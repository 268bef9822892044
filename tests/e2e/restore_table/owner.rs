//! One command, and no superuser: the owner of the tables is enough.

use super::shop::{self, DATABASE, digests, look, moment};
use super::{changed, side_is_gone, table_args};
use crate::support::TestEnv;

fn as_owner(env: &TestEnv) -> String {
    let (dir, port) = env.pg.socket();
    format!("host={} port={port} user=app", dir.display())
}

fn the_owner_brings_them_back(major: u32) {
    let env = TestEnv::new(major);
    shop::open(&env);
    let shop = env.pg.session_in(DATABASE);
    // Not even the owner sees a row, but for whoever is `nobody`.
    shop.sql(
        "alter table app.orders enable row level security, force row level security; \
         create policy nobody on app.orders to reader using (true); \
         alter table app.base enable row level security, force row level security",
    );
    let (then, whole) = (digests(&env.pg), look(&env.pg));
    moment(&env, "good");
    shop.sql("delete from app.orders where id > 50; drop table app.base cascade; truncate app.events");
    let connection = as_owner(&env);
    let more = ["--to", "name:good", "--replace", "--connection", &connection];
    env.pgkeep.run(table_args(&["app.orders", "app.base", "app.events"], &more)).ok();
    side_is_gone(&env);
    assert_eq!(changed(&then, &digests(&env.pg)), ["app.audit"]);
    let now = look(&env.pg);
    assert_eq!(now.definitions, whole.definitions);
    assert_eq!(now.globals, whole.globals);
    assert_eq!(now.settings, whole.settings);

    // A table of somebody else's that refers to them is found out before the recovery.
    shop.sql(
        "create role billing login; create schema billing authorization billing; \
        grant references on app.orders to billing; grant usage on schema app to billing; \
        create table billing.lines (n int constraint line_of references app.orders); \
        alter table billing.lines owner to billing",
    );
    let refused = env.pgkeep.run(table_args(&["app.orders"], &more)).fails_with("not-ready", 1);
    refused.says("foreign key line_of belongs to billing.lines, whose owner is role billing");
    env.pgkeep
        .run(table_args(&["billing.lines"], &["--to", "name:good", "--connection", &connection]))
        .fails_with("not-ready", 1)
        .says("may not make tables in this schema");
}

#[test]
fn the_owner_of_the_tables_needs_no_superuser_14() {
    the_owner_brings_them_back(14);
}

#[test]
fn the_owner_of_the_tables_needs_no_superuser_18() {
    the_owner_brings_them_back(18);
}
