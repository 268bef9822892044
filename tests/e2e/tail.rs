//! The live tail: what the agent ships of WAL that no finished segment holds, and what a restore makes of it.

mod death;
mod weather;

use std::time::Duration;

use pgkeep::model::{Inclusion, Lsn, Target};

use crate::support::heads::{flushed, heads, reach, segment_at};
use crate::support::{Agent, EnvOptions, Ledger, Pg, Pgkeep, Stop, TestEnv, eventually};

const SOON: Duration = Duration::from_secs(30);

/// A quick tail, so that tests do not wait.
pub fn quick(options: EnvOptions) -> EnvOptions {
    options.config("[tail]\ninterval = \"300ms\"\n")
}

/// Waits until the repository holds everything before `lsn`, as heads or as the segment.
#[track_caller]
pub fn wait_shipped(env: &TestEnv, lsn: Lsn) {
    let (segment, offset) = segment_at(&env.pg, lsn);
    eventually(&format!("{lsn} is in the repository\n{:#?}", env.repo().list()), SOON, || {
        let whole = env.repo().list().iter().any(|key| key.contains(&format!("/{segment}-")));
        whole || reach(&heads(env.repo()), &segment) >= offset
    });
}

/// Waits until the agent says that everything before `lsn` is in the repository: finished segments too, which the tail
/// leaves to the archiver for one look while the heads of the next one are on their way.
#[track_caller]
pub fn wait_safe(agent: &Agent, lsn: Lsn) {
    eventually(&format!("all before {lsn} is shipped: {}", agent.log()), SOON, || {
        let status = agent.ask(&serde_json::json!({"op": "status"}));
        let to = status["snapshot"]["clusters"]["main"]["tail"]["shipped_to"].clone();
        to.as_str().is_some_and(|to| to.parse::<Lsn>().unwrap() >= lsn)
    });
}

/// The host is gone: server, agent, data directory.
pub fn lose_host(env: &TestEnv, agent: Agent) {
    env.pg.kill9();
    agent.kill();
    std::fs::remove_dir_all(&env.pg.data).unwrap();
}

/// `restore --to latest` into a directory of its own.
pub fn restore_latest(env: &TestEnv, pgkeep: &Pgkeep, name: &str) -> Pg {
    let dir = env.side_dir(name);
    pgkeep.run(["restore", "--to", "latest", "--yes", "--target-dir", dir.to_str().unwrap()]).ok();
    env.side(&dir)
}

#[test]
fn tail_brings_back_commits_that_no_archived_segment_holds() {
    let env = quick(EnvOptions::new(18)).build();
    let mut ledger = Ledger::create(&env.pg);
    env.backup();
    let agent = env.start_agent();
    for _ in 0..3 {
        let last = ledger.write(&env.pg, 4);
        wait_shipped(&env, last.end);
    }
    // Nothing beyond the flush position: what is there is contiguous and ends at it.
    let (segment, offset) = flushed(&env.pg);
    assert_eq!(reach(&heads(env.repo()), &segment), offset);
    assert!(heads(env.repo()).iter().all(|h| h.segment != segment || h.to <= offset));
    let window = env.pgkeep.clone().global("--json").run(["window"]).ok().json();
    let range = &window["systems"][0]["timelines"][0]["ranges"][0];
    let until: Lsn = range["until"].as_str().unwrap().parse().unwrap();
    assert!(until >= ledger.entries.last().unwrap().end, "{window}");
    let last_commit: pgkeep::model::Timestamp = range["last_commit"].as_str().unwrap().parse().unwrap();
    assert_eq!(last_commit, ledger.entries.last().unwrap().at, "{window}");
    lose_host(&env, agent);
    let side = restore_latest(&env, &env.pgkeep, "side");
    ledger.assert_ends_at(&side, ledger.expect_last(&Target::Latest, Inclusion::After));
}

#[test]
fn tail_covers_finished_segments_while_archiving_fails_and_the_next_ones_follow() {
    let env = quick(EnvOptions::new(14)).build();
    let mut ledger = Ledger::create(&env.pg);
    ledger.write(&env.pg, 2);
    env.backup();
    // From here on nothing is archived, neither by PostgreSQL nor by the agent.
    env.pg.add_conf("archive_command = 'false'");
    env.pg.reload();
    let agent = Agent::start_as(&env, &env.pgkeep.clone().failpoint("ship-before-upload", "return(error)"));
    for _ in 0..3 {
        ledger.write(&env.pg, 3);
        env.pg.switch_wal();
    }
    let last = ledger.write(&env.pg, 3);
    wait_safe(&agent, last.end);
    let whole = env.repo().list().iter().filter(|k| k.contains("/wal/") && !k.contains(".head-")).count();
    lose_host(&env, agent);
    let side = restore_latest(&env, &env.pgkeep, "side");
    ledger.assert_ends_at(&side, 14);
    let after = env.repo().list().iter().filter(|k| k.contains("/wal/") && !k.contains(".head-")).count();
    assert_eq!(whole, after, "only heads held the last segments");
}

#[test]
fn tail_goes_on_after_a_kill_from_what_the_repository_holds() {
    let env = quick(EnvOptions::new(17)).build();
    let mut ledger = Ledger::create(&env.pg);
    env.backup();
    let agent = env.start_agent();
    wait_shipped(&env, ledger.write(&env.pg, 5).end);
    agent.kill();
    let before = heads(env.repo());
    let end = before.iter().map(|h| h.to).max().unwrap();
    let agent = Agent::start_as(&env, &env.pgkeep.clone().failpoint("tail-after-upload", "return(kill)"));
    let last = ledger.write(&env.pg, 5);
    // Killed between the upload and its being noted.
    agent.wait().was_killed();
    let agent = env.start_agent();
    wait_shipped(&env, last.end);
    agent.terminate().exits(0);
    let fresh: Vec<_> = heads(env.repo()).into_iter().filter(|h| !before.contains(h)).collect();
    assert!(fresh.iter().all(|h| h.from >= end), "bytes were shipped again: {fresh:?} after {before:?}");
}

#[test]
fn tail_ships_nothing_while_nothing_is_written_and_nothing_when_it_is_off() {
    let env = quick(EnvOptions::new(16)).build();
    let off = env.with_config("off.toml", |text| text.replace("[tail]\n", "[tail]\nenabled = false\n"));
    let mut ledger = Ledger::create(&env.pg);
    let agent = Agent::start_as(&env, &off);
    ledger.write(&env.pg, 3);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(heads(env.repo()), []);
    agent.terminate().exits(0);
    let agent = env.start_agent();
    let last = ledger.write(&env.pg, 1);
    wait_shipped(&env, last.end);
    // A server writes a record of its own now and then: as many heads as positions, not as looks.
    let before = heads(env.repo()).len();
    let position = env.pg.one("select pg_current_wal_flush_lsn()");
    std::thread::sleep(Duration::from_secs(3));
    if env.pg.one("select pg_current_wal_flush_lsn()") == position {
        assert_eq!(heads(env.repo()).len(), before);
    }
    agent.terminate().exits(0);
}

#[test]
fn tail_of_a_promoted_standby_begins_with_the_promotion() {
    let env = quick(EnvOptions::new(15)).build();
    let mut ledger = Ledger::create(&env.pg);
    ledger.write(&env.pg, 3);
    env.backup();
    let standby = Pg::standby_of(&env.pg, "standby");
    standby.start();
    env.pg.switch_and_archive();
    let config = env.with_config("standby.toml", |text| {
        text.replace(&env.pg.conninfo(), &standby.conninfo())
            .replace(env.pg.data.to_str().unwrap(), standby.data.to_str().unwrap())
    });
    let agent = Agent::start_as(&env, &config);
    ledger.write(&env.pg, 2);
    eventually("the standby has the rows", SOON, || {
        standby.try_sql("select count(*) from ledger").is_ok_and(|rows| rows[0][0].as_deref() == Some("5"))
    });
    assert_eq!(heads(env.repo()), [], "a standby has no tail");
    env.pg.stop(Stop::Fast);
    standby.promote();
    let last = ledger.write(&standby, 4);
    let (segment, offset) = segment_at(&standby, last.end);
    assert!(segment.starts_with("00000002"));
    eventually("the tail of the new timeline", SOON, || reach(&heads(env.repo()), &segment) >= offset);
    standby.kill9();
    agent.kill();
    let side = restore_latest(&env, &env.pgkeep, "side");
    ledger.assert_ends_at(&side, 9);
}
