//! Ten seconds: a host dies at a random moment of a steady load, with its data directory, and the repository alone brings
//! back all but the last seconds.
//!
//! The tail has its default interval here. `PGKEEP_TEST_DEATHS` sets how often each kind is tried (by hand: 10, with more
//! load and more kinds); what each run lost is printed.

use std::time::{Duration, Instant};

use rand::Rng as _;

use super::{lose_host, restore_latest};
use crate::support::{EnvOptions, Ledger, Pg, TestEnv};

/// What a lost host may lose.
const ALLOWED: Duration = Duration::from_secs(10);

/// None: one, with little load, as part of all tests.
fn deaths() -> Option<u32> {
    std::env::var("PGKEEP_TEST_DEATHS").ok().and_then(|n| n.parse().ok())
}

/// Some megabytes of WAL per second beside the ledger, until the server is gone.
fn load(pg: &Pg, kib_per_second: u64) -> std::thread::JoinHandle<()> {
    pg.sql("create table load (n bigserial, filler text)");
    let session = pg.session();
    let rows = kib_per_second / 10;
    let statement = format!(
        "insert into load (filler) select string_agg(md5(random()::text), '') from generate_series(1, {rows}) r, \
         generate_series(1, 32) group by r"
    );
    std::thread::spawn(move || {
        while session.try_sql(&statement).is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    })
}

/// How much one death costs, in time of commits.
fn die_once(env: &TestEnv, kib_per_second: u64) -> Duration {
    let ledger = Ledger::create(&env.pg);
    env.backup();
    let agent = env.start_agent();
    let load = load(&env.pg, kib_per_second);
    let writer = ledger.write_until_death(&env.pg, Duration::from_millis(25));
    let span = rand::rng().random_range(7_000..13_000);
    std::thread::sleep(Duration::from_millis(span));
    let resident = agent.resident_bytes();
    lose_host(env, agent);
    let ledger = writer.join().unwrap();
    load.join().unwrap();
    let begun = Instant::now();
    let side = restore_latest(env, &env.pgkeep, "side");
    let kept = Ledger::assert_contiguous(&side, 1);
    let last = ledger.entries.last().unwrap();
    // The last commit may have been durable without being confirmed.
    assert!(kept <= last.id + 1, "{kept} rows came back, {} were confirmed", last.id);
    let end = ledger.entry(kept.min(last.id));
    let lost = last.at.since(end.at);
    eprintln!(
        "died after {:.1} s with {} rows ({} kib/s of load): lost {} rows, {:.2} s; restored in {:.1} s; the agent had {} MiB",
        span as f64 / 1000.0,
        last.id,
        kib_per_second,
        last.id - kept.min(last.id),
        lost.as_secs_f64(),
        begun.elapsed().as_secs_f64(),
        resident >> 20,
    );
    lost
}

/// The first kind, or by hand all of them.
fn dies(kinds: &[&dyn Fn() -> EnvOptions], kib_per_second: u64) {
    let by_hand = deaths();
    for kind in &kinds[..by_hand.map_or(1, |_| kinds.len())] {
        let load = by_hand.map_or(kib_per_second / 4, |_| kib_per_second);
        let mut lost: Vec<Duration> =
            (0..by_hand.unwrap_or(1)).map(|_| die_once(&kind().build(), load)).collect();
        lost.sort_unstable();
        eprintln!(
            "lost in {} deaths: median {:?}, worst {:?}",
            lost.len(),
            lost[lost.len() / 2],
            lost[lost.len() - 1]
        );
        assert!(lost.iter().all(|lost| *lost <= ALLOWED), "{lost:?}");
    }
}

#[test]
fn tail_keeps_all_but_ten_seconds_of_postgres_14() {
    dies(&[&|| EnvOptions::new(14), &|| EnvOptions::new(14).s3_repository("repo", true)], 4096);
}

#[test]
fn tail_keeps_all_but_ten_seconds_of_postgres_18() {
    dies(&[&|| EnvOptions::new(18).s3_repository("repo", true), &|| EnvOptions::new(18)], 4096);
}

#[test]
fn tail_keeps_all_but_ten_seconds_of_segments_of_64_mib() {
    dies(&[&|| EnvOptions::new(18).pg(|pg| pg.segment_mib(64))], 8192);
}
