//! A database with what hangs on tables: foreign keys both ways, triggers, policies, partitions, children, odd names.

use std::collections::BTreeMap;

use crate::support::{Pg, TestEnv};

pub const DATABASE: &str = "shop";

/// Roles, schemas, tables and rows; the server has nothing of it before.
const SHOP: &str = r#"
create schema app authorization app;
set role app;
create table app.audit (n bigint generated always as identity, what text, at timestamptz default now());
create function app.note() returns trigger language plpgsql as $$ begin
  insert into app.audit (what) values (tg_op || ' ' || tg_table_name); return null; end $$;
create table app.customers (id bigint generated always as identity primary key, name text not null unique,
  note text, upper_name text generated always as (upper(name)) stored, check (name <> ''));
create table app.orders (id serial primary key, customer bigint not null
  constraint orders_of references app.customers on delete cascade, amount numeric(12,2) not null, tags text[]);
alter table app.customers add column favourite int constraint favourite_of references app.orders deferrable;
create index orders_amount on app.orders (amount desc) where amount > 0;
create statistics app.orders_st (dependencies) on customer, amount from app.orders;
create trigger noted after insert or update or delete on app.orders for each row execute function app.note();
create trigger noted after insert or update or delete on app.customers for each statement execute function app.note();
alter table app.customers enable always trigger noted;
comment on table app.customers is 'who''s "buying"';
comment on column app.customers.note is E'a\nb';
comment on constraint orders_of on app.orders is 'whose';
grant select on app.customers to reader;
grant update (note) on app.customers to reader;
alter table app.customers enable row level security;
create policy own on app.customers for select to reader using (name = current_user);
create view app.rich as select c.name, sum(o.amount) as total from app.customers c join app.orders o on o.customer = c.id group by 1;
create materialized view app.totals as select count(*) as orders from app.orders;
create table app.events (id bigint, day date not null, data jsonb, primary key (id, day)) partition by range (day);
create table app.events_2025 partition of app.events for values from ('2025-01-01') to ('2026-01-01');
create table app.events_2026 partition of app.events for values from ('2026-01-01') to ('2027-01-01') partition by list (id);
create table app.events_2026_rest partition of app.events_2026 default;
create table app.base (id int primary key, t text);
create table app.child (more bytea) inherits (app.base);
create schema "Odd.Name";
create table "Odd.Name"."x ""ü"" 🐘" ("a b" text, "SELECT" text, "ü" int default 7);
create table app.plain ();
insert into app.customers (name, note) select 'customer ' || i, case when i % 3 = 0 then null when i % 3 = 1 then '' else E'tab\t, line\n, back\\slash "q"' end
  from generate_series(1, 50) i;
insert into app.orders (customer, amount, tags) select 1 + i % 50, i * 1.25, array['a', null, 'b,c', '"'] from generate_series(1, 300) i;
update app.customers set favourite = (select min(id) from app.orders o where o.customer = customers.id);
insert into app.events select i, date '2025-06-01' + i * 3, jsonb_build_object('i', i) from generate_series(1, 150) i;
insert into app.base select i, 'base' from generate_series(1, 5) i;
insert into app.child select i, 'child', '\x00ff'::bytea from generate_series(10, 15) i;
insert into "Odd.Name"."x ""ü"" 🐘" values (null, ''), ('\N', E'\\.'), ('a', 'b');
insert into app.plain default values;
refresh materialized view app.totals;
reset role;
"#;

/// Makes the database, and takes a base backup of it.
pub fn open(env: &TestEnv) {
    env.pg.sql("create role app login");
    env.pg.sql("create role reader");
    env.pg.sql("create database shop owner app");
    env.pg.session_in(DATABASE).sql("grant create on database shop to app");
    env.pg.session_in(DATABASE).sql(SHOP);
    env.backup();
}

/// Names this moment, and makes it reachable.
pub fn moment(env: &TestEnv, name: &str) {
    env.pg.sql(&format!("select pg_create_restore_point('{name}')"));
    env.pg.switch_and_archive();
}

/// Every table's rows, without regard to their order.
pub fn digests(pg: &Pg) -> BTreeMap<String, String> {
    let session = pg.session_in(DATABASE);
    let tables = session.sql(
        "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where c.relkind in ('r', 'm') and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_toast' order by 1",
    );
    let digest = |table: &String| {
        session.one(&format!(
            "select count(*) || ' ' || md5(coalesce(string_agg(t::text, '|' order by t::text), '')) from only {table} t"
        ))
    };
    tables.into_iter().filter_map(|mut row| row.remove(0)).map(|t| (t.clone(), digest(&t))).collect()
}

/// The definitions of everything, or of one table.
pub fn definitions(pg: &Pg, table: Option<&str>) -> String {
    let (dir, port) = pg.socket();
    let mut args = vec!["-h".to_owned(), dir.display().to_string(), "-p".to_owned(), port.to_string()];
    args.extend(["-U", "postgres", "-s", "-d", DATABASE].map(str::to_owned));
    args.extend(table.map(|t| format!("--table={t}")));
    let text = pg.build.run_tool("pg_dump", &args);
    // A key of minor releases since August 2025, another one each time.
    text.lines()
        .filter(|l| !l.starts_with("\\restrict") && !l.starts_with("\\unrestrict"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Everything that a restore of a table could leave behind or take away.
#[derive(Debug, PartialEq, Eq)]
pub struct Look {
    pub digests: BTreeMap<String, String>,
    pub sequences: Vec<Vec<Option<String>>>,
    pub definitions: String,
    pub globals: String,
    pub settings: Vec<Vec<Option<String>>>,
}

/// Waits until a killed restore's session is gone, if it holds locks.
pub fn look(pg: &Pg) -> Look {
    let (dir, port) = pg.socket();
    let args = ["-h".to_owned(), dir.display().to_string(), "-p".to_owned(), port.to_string()];
    let globals =
        pg.build.run_tool("pg_dumpall", args.into_iter().chain(["-U", "postgres", "-g"].map(str::to_owned)));
    let plain = |text: &str| {
        text.lines()
            .filter(|l| !l.starts_with("\\restrict") && !l.starts_with("\\unrestrict"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    Look {
        digests: digests(pg),
        sequences: pg.session_in(DATABASE).sql("select sequencename, last_value from pg_sequences order by 1"),
        definitions: definitions(pg, None),
        globals: plain(&globals),
        settings: pg.sql("select name, setting, source from pg_settings where source not in ('client', 'session') order by 1"),
    }
}

/// The server process that a restore works through in production.
pub fn restoring(pg: &Pg) -> Option<String> {
    let sql = "select pid from pg_stat_activity where datname = 'shop' and application_name = 'pgkeep' and \
               state <> 'idle'";
    pg.sql(sql).pop().and_then(|mut row| row.remove(0))
}

/// Whether that process waits for a lock of this kind.
pub fn waits_for(pg: &Pg, lock: &str) -> bool {
    let sql = format!(
        "select 1 from pg_stat_activity where datname = 'shop' and application_name = 'pgkeep' and \
         wait_event_type = 'Lock' and wait_event = '{lock}'"
    );
    !pg.sql(&sql).is_empty()
}
