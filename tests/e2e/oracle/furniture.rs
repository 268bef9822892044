//! What else a cluster has besides rows: tablespaces, unlogged tables, large objects, prepared transactions. Each as
//! it was at the target.

use pgkeep::model::{Inclusion, Target, Xid};

use super::{Side, holds_exactly, side, words};
use crate::support::{EnvOptions, Ledger, Pg, RawStore, TestEnv};

struct House {
    env: TestEnv,
    ledger: Ledger,
    tablespace: u32,
    /// Of the prepared transaction.
    prepared: Xid,
    /// Digest of the large object at the target.
    object: String,
}

const DIGEST: &str = "select md5(lo_get(oid)) from pg_largeobject_metadata";

fn house(major: u32) -> House {
    let env =
        EnvOptions::new(major).pg(|pg| pg.checksums(false).conf("max_prepared_transactions = 5")).build();
    let pg = &env.pg;
    let mut ledger = Ledger::create(pg);
    let place = env.root.dir("elsewhere", 0o700);
    pg.sql(&format!("create tablespace elsewhere location '{}'", place.display()));
    pg.sql("create table far (id int primary key using index tablespace elsewhere) tablespace elsewhere");
    pg.sql("create unlogged table quick (id serial primary key, note text)");
    pg.sql("insert into quick (note) select 'lost' from generate_series(1, 500)");
    pg.sql("select lo_from_bytea(4711, decode(repeat('ab', 9000), 'hex'))");
    pg.sql("insert into far select generate_series(1, 100)");
    pg.sql("create table later (id int primary key)");
    ledger.write(pg, 2);
    env.backup();
    pg.sql("insert into far select generate_series(101, 150)");
    pg.sql("select lo_put(4711, 17000, decode(repeat('cd', 3000), 'hex'))");
    pg.sql("create unlogged table quick_too (id int primary key)");
    pg.sql("insert into quick_too values (1)");
    let session = pg.session();
    session.sql("begin");
    let prepared =
        session.one("insert into later values (1) returning pg_current_xact_id()").parse().unwrap();
    session.sql("prepare transaction 'pending'");
    let object = pg.one(DIGEST);
    ledger.write(pg, 2);
    ledger.restore_point(pg, "here");
    // Nothing of this may come back.
    pg.sql("insert into far values (999)");
    pg.sql("select lo_unlink(4711)");
    ledger.write(pg, 2);
    pg.sql("commit prepared 'pending'");
    ledger.write(pg, 2);
    pg.switch_and_archive();
    let tablespace = pg.one("select oid from pg_tablespace where spcname = 'elsewhere'").parse().unwrap();
    House { env, ledger, tablespace, prepared: Xid(prepared), object }
}

impl House {
    fn restored(&self, target: &Target, inclusion: Inclusion) -> Side {
        let words = words(target, inclusion);
        side(&self.env, &words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn everything_is_as_it_was(&self, side: &Side) {
        let pg = &side.pg;
        holds_exactly(&self.ledger, pg, &side.report, 4);
        assert_eq!(pg.one("select count(*) || ' ' || max(id) from far"), "150 150");
        assert_eq!(pg.one(DIGEST), self.object);
        // Below its own directory, not in production's.
        let link = std::fs::read_link(side.dir.join(format!("pg_tblspc/{}", self.tablespace))).unwrap();
        assert_eq!(link, side.dir.join(format!("tablespaces/{}", self.tablespace)));
        unlogged_tables_are_empty_and_work(pg);
        assert_eq!(pg.one("select gid from pg_prepared_xacts"), "pending");
        assert_eq!(pg.one("select count(*) from later"), "0");
        pg.sql("commit prepared 'pending'");
        assert_eq!(pg.one("select count(*) from later"), "1");
        pg.sql("drop table far");
    }
}

fn unlogged_tables_are_empty_and_work(pg: &Pg) {
    for table in ["quick", "quick_too"] {
        assert_eq!(pg.one(&format!("select count(*) from {table}")), "0", "{table}");
        pg.sql(&format!("insert into {table} (id) select generate_series(5001, 6000)"));
        assert_eq!(
            pg.one(&format!("set enable_seqscan = off; select count(*) from {table} where id > 5500")),
            "500"
        );
    }
}

fn the_house_comes_back(major: u32) {
    let house = house(major);
    let production = RawStore::Dir(house.env.root.join("elsewhere"));
    let untouched = production.snapshot();
    house.everything_is_as_it_was(&house.restored(&Target::Name("here".to_owned()), Inclusion::After));
    assert_eq!(production.snapshot(), untouched);

    // A prepared transaction ends where it is committed, under its own number.
    let target = Target::Xid(house.prepared);
    let before = house.restored(&target, Inclusion::Before);
    house.ledger.assert_ends_at(&before.pg, 6);
    assert_eq!(before.pg.one("select gid from pg_prepared_xacts"), "pending");
    assert_eq!(before.pg.one("select max(id) from far"), "999");
    drop(before);
    let after = house.restored(&target, Inclusion::After);
    house.ledger.assert_ends_at(&after.pg, 6);
    assert_eq!(after.pg.one("select count(*) from pg_prepared_xacts"), "0");
    assert_eq!(after.pg.one("select count(*) from later"), "1");
    assert_eq!(after.report["last_commit_kept"]["xid"], u64::from(house.prepared.0));
}

#[test]
fn tablespaces_large_objects_and_prepared_transactions_of_postgres_14_come_back_and_unlogged_tables_empty() {
    the_house_comes_back(14);
}
#[test]
fn tablespaces_large_objects_and_prepared_transactions_of_postgres_18_come_back_and_unlogged_tables_empty() {
    the_house_comes_back(18);
}
