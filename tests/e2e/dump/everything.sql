-- A database with something of everything that PostgreSQL 14 to 18 have in common.
create role "Owner É" nologin;
create role reader nologin;
create schema app authorization "Owner É";
create schema "Odd.Schema ""q""";
create extension hstore schema app;
create extension citext;
create type app.mood as enum ('sad', 'ok', 'it''s "great"');
create type app.pair as (a int, b text);
create domain app.positive as int check (value > 0);
create type app.span as range (subtype = float8);
create sequence app.loose start 41 increment 7 cycle maxvalue 1000;
select nextval('app.loose'), nextval('app.loose');
create table app.every_type (
  id bigint generated always as identity primary key,
  small smallint, big bigint, num numeric(20, 5), unbound numeric, r real, d double precision, m money,
  vc varchar(20), ch char(7), t text, ci citext, nm name, by bytea, bo boolean, u uuid, b5 bit(5), vb bit varying,
  da date, ti time, tiz timetz, ts timestamp, tsz timestamptz, iv interval,
  i inet, ci4 cidr, mac macaddr, mac8 macaddr8, j json, jb jsonb, x xml,
  p point, l line, ls lseg, bx box, pa path, po polygon, ce circle,
  tv tsvector, tq tsquery, ir int4range, mr int4multirange, sp app.span, mo app.mood, pr app.pair, pos app.positive,
  hs app.hstore, ai int[], at text[][], ap app.pair[], o oid, rc regclass, jp jsonpath, ln pg_lsn
);
insert into app.every_type (small, big, num, unbound, r, d, m, vc, ch, t, ci, nm, by, bo, u, b5, vb, da, ti, tiz, ts, tsz,
  iv, i, ci4, mac, mac8, j, jb, x, p, l, ls, bx, pa, po, ce, tv, tq, ir, mr, sp, mo, pr, pos, hs, ai, at, ap, o, rc, jp, ln)
values (-32768, 9223372036854775807, 12345.67891, 'NaN', 1.1754944e-38, 0.1, 12.34, 'a,b', 'pad', E'\ttab\nline\r\n"q" \\N \\. é🐘',
  'MiXed', 'name', '\x00ff5c4e0a2e', true, '123e4567-e89b-12d3-a456-426614174000', b'10101', b'1', '4713-01-01 BC',
  '24:00:00', '12:34:56.789+05:45', 'infinity', '2026-03-29 02:30:00+01', '1 year -2 months 3 days 04:05:06.7',
  '::1/64', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', '{"b" : 1,  "a":"x"}', '{"a": [1, null, "\u0001"]}',
  '<a b="c">d&amp;</a>', '(1,2)', '{1,2,3}', '[(1,2),(3,4)]', '(3,4),(1,2)', '[(1,1),(2,2)]', '((0,0),(1,1),(1,0))', '<(1,2),3>',
  'a:1 b:2', 'a & !b', '[1,5)', '{[1,2),[5,7)}', '[0.5,1.5]', 'it''s "great"', '(1,"x,""y""")', 7, 'a=>1, "b c"=>NULL',
  '{1,NULL,3}', '{{a,"b,c"},{"NULL",NULL}}', array[(1, 'a,b')::app.pair, (null, '')::app.pair], 4294967295, 'app.loose', '$.a[*] ? (@ > 1)', '16/B374D848');
insert into app.every_type default values;
insert into app.every_type (t, vc, by, at) values ('', '', '', '{}'), (E'\\.', '\N', '\x5c2e', '{""}'), (',', '"', null, null);
create table "Odd.Schema ""q"""."Größe ""x"".y 🐘" ("a b" int primary key, "select" text not null default 'x', "Ü" int unique);
insert into "Odd.Schema ""q"""."Größe ""x"".y 🐘" select n, repeat('ä', n), n * 2 from generate_series(1, 40) n;
create table app.made (n int, doubled int generated always as (n * 2) stored, at timestamptz default now());
insert into app.made (n) select generate_series(1, 10);
create table app.no_columns ();
insert into app.no_columns select from generate_series(1, 3);
create table app.measured (at date not null, place text, value float8, primary key (at, place)) partition by range (at);
create table app.measured_2025 partition of app.measured for values from ('2025-01-01') to ('2026-01-01') partition by list (place);
create table app.measured_2025_n partition of app.measured_2025 for values in ('north', 'süd');
create table app.measured_2025_x partition of app.measured_2025 default;
create table app.measured_2026 partition of app.measured for values from ('2026-01-01') to ('2027-01-01');
insert into app.measured select date '2025-12-01' + n, case n % 3 when 0 then 'north' when 1 then 'süd' else 'x' end, n / 7.0
  from generate_series(1, 60) n;
create table app.animal (id serial primary key, name text);
insert into app.animal (name) values ('cat'), ('dog');
create table app.orders (id int primary key, animal int references app.animal, parent int references app.orders deferrable);
insert into app.orders values (1, 1, null), (2, 2, 1), (3, null, 2);
alter table app.animal add column first_order int references app.orders;
create table app.bird (wings int) inherits (app.animal);
insert into app.bird (name, wings) values ('tit', 2);
create index on app.animal using hash (name);
create index partial on app.orders (animal) where parent is not null;
create table app.secret (who text, what text);
insert into app.secret values ('reader', 'a'), ('other', 'b');
alter table app.secret enable row level security, force row level security, owner to "Owner É";
create policy own on app.secret using (who = current_user);
create function app.noted() returns trigger language plpgsql as $$ begin new.n := new.n + 0; return new; end $$;
create trigger noted before update on app.made for each row execute function app.noted();
create view app.seen with (security_barrier) as select id, t from app.every_type where t <> '';
create materialized view app.kept as select count(*) as n from app.measured;
create materialized view app.empty as select 1 as one with no data;
create unlogged table app.fast as select generate_series(1, 5) as n;
create publication announced for table app.orders, app.animal;
create statistics app.related on at, place from app.measured;
create aggregate app.total (int) (sfunc = int4pl, stype = int, initcond = '0');
create collation app.german (provider = libc, locale = 'C');
create foreign data wrapper nobody;
create server nowhere foreign data wrapper nobody options (host 'x');
create foreign table app.far (a int) server nowhere;
comment on table app.made is E'a comment\nof two lines with ''quotes'' and ü';
comment on column app.made.n is 'n';
grant select, insert on app.made to reader;
grant select (id) on app.orders to reader with grant option;
alter default privileges in schema app grant select on tables to reader;
alter table app.orders replica identity full;
select lo_create(70001), lo_put(70001, 0, '\x00010203ff'::bytea);
select lo_create(70002);
comment on large object 70001 is 'large';
grant select on large object 70001 to reader;
create table app.more_types (
  id int generated by default as identity (start 100 increment 5), c "char", x8 xid8, snap pg_snapshot, t tid, rt regtype, rp regprocedure,
  dr daterange, tr tsrange, tzr tstzrange, nr numrange, nmr nummultirange, ivd interval day to second(2), ts0 timestamp(0),
  da app.positive[], ov oidvector, bpc bpchar, vb bit varying(9)
);
insert into app.more_types (c, x8, snap, t, rt, rp, dr, tr, tzr, nr, nmr, ivd, ts0, da, ov, bpc, vb) values
  ('x', '18446744073709551615', '10:20:10,14,15', '(4,2)', 'app.mood', 'app.noted()', 'empty', '[2026-01-01,infinity]', '(,2026-01-01 00:00+02)',
   '(1.5,]', '{(,1],[7,)}', '1 day 02:03:04.56', '2026-11-21 12:00:00', '{1,2}', '1 2 3', 'trailing  ', '101');
create table app.hashed (id bigint primary key, t text compression pglz) partition by hash (id);
create table app.hashed_0 partition of app.hashed for values with (modulus 2, remainder 0) with (fillfactor = 70);
create table app.hashed_1 partition of app.hashed for values with (modulus 2, remainder 1);
insert into app.hashed select n, repeat('x', n * 100) from generate_series(1, 50) n;
create index on app.hashed (t) include (id);
create table app.line_items (orders int references app.orders on delete cascade on update set null, hashed bigint references app.hashed, n int,
  constraint "Check ""odd"" é" check (n > 0) not valid, exclude using gist (int4range(n, n + 1) with &&));
insert into app.line_items values (1, 1, 7), (2, 50, 9);
alter table app.line_items alter column n set statistics 500, alter column n set storage plain, cluster on line_items_int4range_excl;
create unique index "Index.ö 🐘" on app.orders (coalesce(parent, 0) desc nulls last) where animal > 0;
create recursive view app.counted (n) as values (1) union all select n + 1 from counted where n < 5;
create view app.checked as select * from app.secret where who = 'reader' with cascaded check option;
create rule no_delete as on delete to app.animal where old.id = 1 do instead nothing;
create view app.grouped as select id, name from app.animal group by id;
create materialized view app."Kept Ü" as select a.id, g.name from app.animal a join app.grouped g using (id);
create unique index on app."Kept Ü" (id);
comment on index app."Index.ö 🐘" is 'it''s an index';
comment on constraint "Check ""odd"" é" on app.line_items is 'c';
create procedure app.proc(inout a int) language sql begin atomic select a + 1; end;
create function app.nothing() returns event_trigger language plpgsql as $f$ begin end $f$;
create event trigger "Watched" on ddl_command_end when tag in ('DROP TABLE') execute function app.nothing();
comment on event trigger "Watched" is 'watched';
create constraint trigger later after insert on app.orders deferrable initially deferred for each row execute function app.noted();
alter table app.orders disable trigger later;
create policy "by role" on app.secret as restrictive for select to reader, "Owner É" using (what <> '') ;
create operator app.=== (leftarg = int, rightarg = int, function = int4eq, commutator = operator(app.===));
create text search configuration app.plain (copy = simple);
create domain app.matrix as int[][] default '{}' not null;
create type app.nested as (p app.pair, m app.mood[]);
create table app.deep (n app.nested, m app.matrix);
insert into app.deep values (row(row(1, E'a"b\\'), '{ok}')::app.nested, '{{1,2},{3,4}}');
create cast (app.pair as text) with inout;
create subscription nowhere connection 'dbname=nobody' publication p with (connect = false);
create user mapping for reader server nowhere options (password 'x''y');
create sequence "Odd.Schema ""q"""."Seq 🐘" as smallint increment -3 minvalue -300 start -7;
select nextval('"Odd.Schema ""q"""."Seq 🐘"');
grant usage on schema "Odd.Schema ""q""" to reader, "Owner É";
grant execute on function app.noted() to reader;
revoke execute on function app.nothing() from public;
alter default privileges for role "Owner É" grant all on sequences to reader with grant option;
