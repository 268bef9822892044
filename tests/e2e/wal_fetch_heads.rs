//! `wal fetch` without a plan where the archive holds only the beginning of a segment: no recovery ends before it, no
//! server is given it as if it were the segment, and a standby waits.

use pgkeep::model::SegmentName;
use pgkeep::repository::keys::wal::WalObjectName;

use crate::support::heads::flushed;
use crate::support::{EnvOptions, TestEnv};
use crate::wal_place::{after, digest_of, fetch, fetched, place, push, put_object, segments, wal_file};

fn put_head(env: &TestEnv, segment: &str, bytes: &[u8]) {
    let segment = SegmentName::parse(segment).unwrap();
    let to = u32::try_from(bytes.len()).unwrap();
    put_object(env, WalObjectName::Head { segment, from: 0, to, digest: digest_of(bytes) }, bytes);
}

#[test]
fn the_beginning_of_a_segment_is_neither_served_nor_the_end_of_the_archive() {
    let env = place(EnvOptions::new(17).pg(|pg| pg.segment_mib(1)));
    let name = segments(&env, 1).remove(0);
    push(&env, &env.pgkeep, &name).ok();
    env.pg.sql("insert into filler select i, md5(i::text) from generate_series(1, 500) i");
    let (current, until) = flushed(&env.pg);
    assert_eq!(current, after(&env, &name, 1));
    env.pg.kill9();
    let local = std::fs::read(wal_file(&env, &current)).unwrap();
    fetch(&env, &env.pgkeep, &current).exits(1);
    put_head(&env, &current, &local[..usize::try_from(until).unwrap()]);
    // PostgreSQL's own copy reaches as far.
    fetch(&env, &env.pgkeep, &current).exits(1).says("lies in pg_wal");
    let mut shorter = local;
    shorter[8192..].fill(0);
    std::fs::write(wal_file(&env, &current), &shorter).unwrap();
    fetch(&env, &env.pgkeep, &current).exits(200).says("only what comes before");
    std::fs::remove_file(wal_file(&env, &current)).unwrap();
    fetch(&env, &env.pgkeep, &current).exits(200).says("pgkeep restore");
    assert!(!fetched(&env).exists());
    // For a standby this is every day: it asks again, and nobody is warned.
    env.root.file("main/standby.signal", 0o600, "");
    let waits = fetch(&env, &env.pgkeep, &current).exits(1);
    assert_eq!(waits.stderr, "");
    assert!(!fetched(&env).exists());
}

#[test]
fn beginnings_that_come_later_are_wal_that_goes_on() {
    let env = place(EnvOptions::new(17).pg(|pg| pg.segment_mib(1)));
    let name = segments(&env, 1).remove(0);
    push(&env, &env.pgkeep, &name).ok();
    env.pg.kill9();
    let (missing, later) = (after(&env, &name, 1), after(&env, &name, 2));
    fetch(&env, &env.pgkeep, &missing).exits(1);
    put_head(&env, &later, &[7; 9000]);
    let _ = std::fs::remove_file(wal_file(&env, &missing));
    fetch(&env, &env.pgkeep, &missing).exits(200).says(&later);
    // A timeline that has begun has a history: to miss it is to follow the wrong one.
    fetch(&env, &env.pgkeep, "00000002.history").exits(1);
    put_head(&env, &later.replacen("00000001", "00000002", 1), &[7; 9000]);
    fetch(&env, &env.pgkeep, "00000002.history").exits(200);
    env.root.file("main/standby.signal", 0o600, "");
    for waits in [missing.as_str(), "00000002.history"] {
        assert_eq!(fetch(&env, &env.pgkeep, waits).exits(1).stderr, "");
    }
}
