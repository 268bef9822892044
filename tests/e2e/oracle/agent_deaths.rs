//! The agent is killed again and again while PostgreSQL is written to, and started again by a supervisor: archiving goes
//! on, every segment is archived once with its own content, and a restore ends at the last commit.
//!
//! `PGKEEP_TEST_AGENT_DEATHS` is how many seconds that lasts.

use std::time::{Duration, Instant};

use pgkeep::model::{Inclusion, Target};
use rand::Rng as _;

use super::ends_exactly;
use crate::crash_backup::seeded;
use crate::crash_push::assert_every_segment_is_there;
use crate::support::{Agent, EnvOptions, Ledger, Load, eventually};

/// A debug build on a busy machine.
const START: Duration = Duration::from_secs(30);

fn how_long() -> Duration {
    let seconds = std::env::var("PGKEEP_TEST_AGENT_DEATHS").ok();
    Duration::from_secs(seconds.map_or(12, |text| text.parse().expect("seconds")))
}

fn killed_again_and_again(options: EnvOptions) {
    // No segment is removed: the originals stay to be compared with.
    let keep = |pg: crate::support::PgOptions| {
        pg.segment_mib(1).conf("wal_keep_size = '8GB'").conf("max_wal_size = '10GB'")
    };
    let env = options.pg(keep).build();
    let ledger = Ledger::create(&env.pg);
    env.backup();
    let first = env.pg.switch_and_archive();
    let writer = ledger.write_in_background(&env.pg, Duration::from_millis(5));
    let load = Load::begin(&env.pg, Duration::from_millis(60));
    let (mut random, until, mut deaths) = (seeded(), Instant::now() + how_long(), 0);
    while Instant::now() < until {
        let works = || {
            let log = std::fs::read_to_string(env.root.join("agent.log")).unwrap_or_default();
            log.matches("the agent works").count()
        };
        let before = works();
        let agent = Agent::launch(&env, &env.pgkeep);
        // Some die while they start, the others at work.
        if random.random_bool(0.7) {
            eventually("the agent works", START, || works() > before);
        }
        std::thread::sleep(Duration::from_millis(random.random_range(0..1000)));
        assert!(agent.is_alive(), "it ended by itself:\n{}", agent.log());
        agent.kill();
        deaths += 1;
    }
    drop(load);
    let mut ledger = writer.stop();
    let agent = env.start_agent();
    ledger.write(&env.pg, 1);
    let last = env.pg.switch_and_archive();
    assert!(deaths >= 3, "only {deaths} deaths");
    assert!(agent.log().matches(" archived").count() > 0, "no agent lived long enough:\n{}", agent.log());
    // Without an agent the command does the work: PostgreSQL never noticed.
    assert_eq!(env.pg.one("select failed_count from pg_stat_archiver"), "0", "{}", env.pg.log_tail());
    assert_every_segment_is_there(&env, &first, &last);
    ends_exactly(&env, &ledger, &Target::Latest, Inclusion::After);
    eprintln!("{deaths} agents were killed, segments {first} to {last}, {} commits", ledger.last_id());
}

#[test]
fn an_agent_that_dies_again_and_again_loses_nothing_in_a_directory() {
    killed_again_and_again(EnvOptions::new(18));
}
#[test]
fn an_agent_that_dies_again_and_again_loses_nothing_in_a_bucket() {
    killed_again_and_again(EnvOptions::new(14).s3_repository("cloud", true));
}
