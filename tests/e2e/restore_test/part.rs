//! Where the scratch space is too small for the whole cluster: what fits is proved, what does not is named and unproved.

use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use nix::sys::signal::Signal;
use pgkeep::postgres::instance::limits::LIMITS;
use pgkeep::postgres::service::PidFile;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde_json::Value;

use super::{SOON, checks};
use crate::support::sql::Session;
use crate::support::{EnvOptions, Pg, Stop, TestEnv, eventually};
use crate::wal_place::Tmpfs;

const SEGMENT: u64 = 4 << 20;
const RESERVE: u64 = 32 << 20;
/// Of WAL at once.
const LYING_ABOUT: u64 = 16 * SEGMENT;
/// Less than any database has, and more than the sizes here are wrong by.
const SLACK: u64 = 4 << 20;
const WHOLE: &str = "every database is restored";

fn options(major: u32, more: &str) -> EnvOptions {
    let assertion = |database: &str| {
        format!(
            "[[assertion]]\nname = \"items of {database}\"\ndatabase = \"{database}\"\n\
             sql = \"select count(*) > 400 and bool_and(word is not null) from items\"\n"
        )
    };
    let all: String = ["small", "other", "mid", "big"].map(assertion).concat();
    let proof = "[proof]\nreserve = \"32MiB\"\nlow_priority = false\nrto = \"1h\"\n";
    EnvOptions::new(major)
        .config(&format!("{proof}{all}{more}"))
        .pg(|pg| pg.segment_mib(4).conf("autovacuum = off"))
}

/// A database with rows that WAL will change, and so many megabytes beside them.
fn database(pg: &Pg, name: &str, mib: u32) {
    pg.sql(&format!("create database {name}"));
    pg.session_in(name).sql(
        "create table items as select g as id, md5(g::text) as word from generate_series(1, 2000) g; \
         create index on items (word); create table scrap as select * from items; \
         create table quiet as select * from items",
    );
    let rows = mib * 1024;
    pg.session_in(name).sql(&format!(
        "create table bulk as select g as id, repeat(md5(g::text), 30) as t from generate_series(1, {rows}) g; \
         checkpoint"
    ));
}

/// Changes of all kinds; the last ones need pages of which WAL has no image.
fn load(pg: &Pg, name: &str) {
    let session = pg.session_in(name);
    for sql in [
        "update items set word = word || 'x' where id % 3 = 0",
        "delete from items where id % 4 = 0",
        "truncate scrap",
        "vacuum (freeze) items",
        "create index on items (id); drop table if exists made; create table made as select * from items",
        "vacuum (full) made",
        "insert into items select g, 'new' from generate_series(3000, 3100) g",
        // No image of its pages is in WAL: the visibility map alone changes.
        "vacuum quiet",
    ] {
        session.sql(sql);
    }
}

fn bytes(pg: &Pg, databases: &str) -> u64 {
    let sql = format!("select sum(pg_database_size(oid))::bigint from pg_database where {databases}");
    pg.one(&sql).parse().unwrap()
}

/// A file system with room for these databases, and for `more` bytes of which the others have need.
fn room(env: &TestEnv, kept: u64, more: u64) -> (PathBuf, Tmpfs) {
    let scratch = env.root.dir("small", 0o700);
    let size = kept + kept / 50 + more + LYING_ABOUT + RESERVE + SLACK;
    let mounted = Tmpfs::mount(&scratch, &format!("{}k", size / 1024));
    (scratch, mounted)
}

fn names(report: &Value, list: &str) -> Vec<String> {
    let part = &report["recovered"]["part"];
    let all = part[list].as_array().unwrap_or_else(|| panic!("no part in {report:#}")).iter();
    all.map(|one| one.as_str().unwrap_or_else(|| one["name"].as_str().unwrap()).to_owned()).collect()
}

fn test_in(env: &TestEnv, scratch: &std::path::Path, code: i32) -> Value {
    let seed = seed().to_string();
    let args = ["restore-test", "--scratch-dir", scratch.to_str().unwrap(), "--seed", &seed];
    env.pgkeep.clone().global("--json").run(args).exits(code).json()
}

/// Databases that WAL makes of one that may not be there, and one that it moves.
fn copies(pg: &Pg, major: u32) {
    let by_files = if major > 14 { "strategy file_copy" } else { "" };
    let copy =
        |name: &str, strategy: &str| pg.sql(&format!("create database {name} template mid {strategy}"));
    copy("dropped", by_files);
    pg.sql("drop database dropped");
    copy("copied", by_files);
    if major > 14 {
        copy("logged", "strategy wal_log");
    }
    pg.sql("alter database mid set tablespace elsewhere");
}

/// The one that tries the third of four databases after the first two, as `restore::part` shuffles them.
fn seed() -> u64 {
    let place = |order: &[u32], number| order.iter().position(|known| *known == number);
    let fits = |seed: &u64| {
        let mut order = [0, 1, 2, 3];
        order.shuffle(&mut StdRng::seed_from_u64(*seed));
        place(&order, 2) > place(&order, 0).max(place(&order, 1))
    };
    (1..1000).find(fits).unwrap()
}

#[track_caller]
fn every_question_was_asked_of_what_is_there(report: &Value, checksums: bool) {
    let verdict = |of: &str, name: &str| -> (String, String) {
        let found = checks(report, of);
        let found = found.iter().find(|(known, ..)| known.contains(name));
        let (_, verdict, found) = found.unwrap_or_else(|| panic!("no {of}: {name} in {report:#}"));
        (verdict.to_string(), found.to_string())
    };
    let (whole, why) = verdict("base backup", WHOLE);
    assert!(whole == "unproved" && ["big (", "mid (", "copied"].iter().all(|n| why.contains(n)), "{why}");
    for (name, planned) in [("small", "holds"), ("other", "holds"), ("mid", "unproved"), ("big", "unproved")]
    {
        assert_eq!(verdict("assertion", &format!("items of {name}")).0, planned, "{name}: {report:#}");
    }
    assert_eq!(verdict("instance", "canary").0, "unproved");
    assert_eq!(verdict("instance", "pg_amcheck of all tables and indexes of what was restored").0, "holds");
    let sums = if checksums { "holds" } else { "unproved" };
    assert_eq!(verdict("instance", "data checksums of all pages of what was restored").0, sums);
    let (pages, found) = verdict("recovery", "every page that WAL changes is there");
    assert_eq!(pages, "holds", "{found}");
    if !checksums {
        assert!(
            found.contains("of a database that was left out"),
            "the visibility map has no images: {found}"
        );
    }
    assert_eq!(verdict("recovery", "end of recovery").0, "holds");
}

fn what_fits_is_proved(major: u32, checksums: bool) {
    let canary = "[canary]\nenabled = true\ndatabase = \"big\"\n";
    let env = options(major, canary).pg(|pg| pg.checksums(checksums)).build();
    let pg = &env.pg;
    for (name, mib) in [("small", 1), ("other", 1), ("mid", 8), ("big", 70)] {
        database(pg, name, mib);
    }
    let elsewhere = env.root.dir("elsewhere", 0o700);
    pg.sql(&format!("create tablespace elsewhere location '{}'", elsewhere.display()));
    let kept = bytes(pg, "datname not in ('big', 'mid')") + (2 << 20);
    let mid = bytes(pg, "datname = 'mid'");
    let position =
        |pg: &Pg| -> u64 { pg.one("select pg_current_wal_lsn() - '0/0'::pg_lsn").parse().unwrap() };
    let begin = position(pg);
    let backup = env.pgkeep.clone().failpoint("backup-before-stop", "return(stop)").spawn(["backup", "full"]);
    eventually("the files are copied", SOON, || backup.is_stopped() || !backup.is_running());
    // WAL of the backup itself, which is replayed whatever the target is.
    for name in ["small", "other", "mid", "big"] {
        load(pg, name);
    }
    copies(pg, major);
    backup.signal(Signal::SIGCONT);
    backup.wait().ok();
    for name in ["small", "big"] {
        let session = pg.session_in(name);
        session.sql("update items set word = word || 'y' where id < 50");
        session.sql("vacuum items");
    }
    let wal = (position(pg) / SEGMENT - begin / SEGMENT + 1) * SEGMENT;
    pg.switch_and_archive();

    let (scratch, _mounted) = room(&env, kept, wal + 2 * mid);
    let before = pg.sql("select datname, datallowconn from pg_database order by 1");
    let report = test_in(&env, &scratch, 4);
    assert_eq!(report["outcome"], "unproved", "{report:#}");
    let mut left_out = names(&report, "left_out");
    left_out.sort();
    assert_eq!(left_out, ["big", "copied", "mid"], "{report:#}");
    let restored = names(&report, "restored");
    let logged = ["logged"].into_iter().filter(|_| major > 14);
    let expected: Vec<&str> =
        logged.chain(["other", "postgres", "small", "template0", "template1"]).collect();
    assert_eq!(restored, expected, "{report:#}");

    every_question_was_asked_of_what_is_there(&report, checksums);
    nothing_comes_of_it(&env, &report);
    assert_eq!(scratch.read_dir().unwrap().count(), 0);
    assert_eq!(pg.sql("select datname, datallowconn from pg_database order by 1"), before);
}

/// It is no proof and no measurement of the whole.
fn nothing_comes_of_it(env: &TestEnv, report: &Value) {
    assert!(report["measured"].is_null() && report["estimate"].is_null(), "{report:#}");
    let rto = report["objectives"].as_array().unwrap().iter().find(|o| o["name"] == "RTO").unwrap();
    assert_eq!(rto["verdict"], "unproved", "{rto}");
    let status = env.pgkeep.run(["status"]).stdout;
    assert!(status.contains("none yet"), "{status}");
    let plan =
        env.pgkeep.run(["restore", "--dry-run", "--to", "latest", "--target-dir", "/tmp/nowhere-at-all"]);
    assert!(!plan.ok().stdout.contains("measured by"));
    let mut kept = env.state.join("reports/main").read_dir().unwrap().flatten().map(|entry| entry.path());
    let page = kept.find(|path| path.extension().is_some_and(|e| e == "md")).unwrap();
    let page = std::fs::read_to_string(page).unwrap();
    for words in
        ["of a PART", "Restored, a part: ", "LEFT OUT for lack of room: big (", "say nothing of how long"]
    {
        assert!(page.contains(words), "no {words:?} in {page}");
    }
}

#[test]
fn databases_that_fit_are_proved_and_the_others_are_named_whatever_wal_did_to_them_18() {
    what_fits_is_proved(18, true);
}

#[test]
fn databases_that_fit_are_proved_and_the_others_are_named_whatever_wal_did_to_them_14() {
    what_fits_is_proved(14, false);
}

#[test]
fn a_page_of_wrong_contents_is_found_in_a_part_too() {
    let env = options(18, "").pg(|pg| pg.checksums(false)).build();
    database(&env.pg, "small", 1);
    database(&env.pg, "big", 40);
    let file = env.pg.data.join(env.pg.session_in("small").one("select pg_relation_filepath('scrap')"));
    env.pg.stop(Stop::Fast);
    let mut heap = std::fs::File::options().read(true).write(true).open(file).unwrap();
    // Headers of tuples at the end of the first page.
    heap.seek(SeekFrom::Start(8192 - 80)).unwrap();
    heap.write_all(&[0xff; 40]).unwrap();
    drop(heap);
    env.pg.start();
    let kept = bytes(&env.pg, "datname <> 'big'") + (2 << 20);
    env.backup();
    env.pg.sql("create table after_the_backup ()");
    env.pg.switch_and_archive();
    let (scratch, _mounted) = room(&env, kept, 3 * SEGMENT);
    let report = test_in(&env, &scratch, 4);
    assert_eq!((&report["outcome"], names(&report, "left_out")), (&"failed".into(), vec!["big".to_owned()]));
    let found = checks(&report, "instance");
    let damage = |(name, verdict, found): &(&str, &str, &str)| {
        name.contains("pg_amcheck") && *verdict == "fails" && found.contains("scrap")
    };
    assert!(found.iter().any(damage), "{report:#}");

    // A drill rehearses the whole.
    let drill = env.pgkeep.run(["drill", "--scratch-dir", scratch.to_str().unwrap()]);
    drill.fails_with("no-space", 3);
    assert_eq!(scratch.read_dir().unwrap().count(), 0);
}

/// What a server says of its settings.
fn settings(data: &std::path::Path, names: &[&str]) -> Vec<String> {
    let file = PidFile::read(data).unwrap().expect("a running server");
    let session = Session::connect(&data.join(file.socket_dir.unwrap()), file.port, "postgres").unwrap();
    names.iter().map(|name| session.one(&format!("show {name}"))).collect()
}

#[test]
fn scratch_instances_take_no_more_of_the_host_than_their_limits_say() {
    let env = super::everything("");
    let (names, limits): (Vec<&str>, Vec<&str>) = LIMITS.into_iter().unzip();
    let more = ["min_wal_size", "max_wal_size", "wal_level", "max_connections"];
    let inner = |directory: &std::path::Path| {
        let inner = directory.read_dir().unwrap().flatten().map(|entry| entry.path().join("data"));
        inner.into_iter().find(|data| data.is_dir()).unwrap_or_else(|| directory.join("data"))
    };
    for (command, step, expected) in [
        // As production has it, where recovery asks for it; segments are of 1 MiB.
        ("drill", "drill-after-restore", ["2MB", "16MB", "replica", "30"]),
        ("restore-test", "test-after-cluster", ["32MB", "192MB", "minimal", "20"]),
    ] {
        let running = env.pgkeep.clone().failpoint(step, "return(stop)").spawn([command]);
        eventually("the instance runs", SOON, || running.is_stopped() || !running.is_running());
        let mut places = env.state.join("scratch").read_dir().unwrap().flatten();
        let data = inner(&places.next().unwrap().path());
        assert_eq!(settings(&data, &names), limits, "{step}");
        assert_eq!(settings(&data, &more), expected, "{step}");
        running.signal(Signal::SIGINT);
        running.signal(Signal::SIGCONT);
        running.wait().fails_with("cancelled", 1);
    }
}
