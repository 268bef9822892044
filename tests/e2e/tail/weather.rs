//! The tail while things happen: a store that is away or slow, segments that end meanwhile, a reload, a restore in place.

use std::time::{Duration, Instant};

use pgkeep::model::{Inclusion, Lsn, Target};

use super::{SOON, lose_host, quick, restore_latest, wait_safe, wait_shipped};
use crate::support::heads::{flushed, heads, reach, segment_at};
use crate::support::{Agent, EnvOptions, Fault, FaultProxy, Ledger, Rule, S3, TestEnv, eventually};

fn facts(agent: &Agent) -> serde_json::Value {
    agent.ask(&serde_json::json!({"op": "status"}))["snapshot"]["clusters"]["main"]["tail"].clone()
}

fn behind_a_proxy(major: u32) -> (TestEnv, FaultProxy) {
    let store = S3::fresh_bucket();
    let proxy = FaultProxy::before(store.endpoint());
    let options = EnvOptions::new(major).s3_repository_at("repo", true, store, &proxy.endpoint());
    (quick(options).build(), proxy)
}

#[test]
fn tail_asks_nothing_of_the_store_while_nothing_is_written() {
    let (env, proxy) = behind_a_proxy(17);
    let mut ledger = Ledger::create(&env.pg);
    let agent = env.start_agent();
    wait_shipped(&env, ledger.write(&env.pg, 2).end);
    // A server writes a record of its own now and then: a while is looked for in which it does not.
    let (segment, start) = (flushed(&env.pg).0, Instant::now());
    loop {
        let position = flushed(&env.pg);
        eventually("the tail is current", SOON, || reach(&heads(env.repo()), &segment) >= position.1);
        proxy.reset_counts();
        // Several looks of the tail.
        std::thread::sleep(Duration::from_secs(2));
        let asked: Vec<String> = proxy.counts().log.into_iter().filter(|r| r.contains(&segment)).collect();
        if flushed(&env.pg) == position {
            assert_eq!(asked, Vec::<String>::new());
            break;
        }
        assert!(start.elapsed() < SOON, "the server writes all the time");
    }
    agent.terminate().exits(0);
}

#[test]
fn tail_catches_up_with_a_store_that_was_away_and_ships_little_more_than_was_written() {
    let env = quick(EnvOptions::new(18)).build();
    let mut ledger = Ledger::create(&env.pg);
    env.backup();
    let agent = env.start_agent();
    wait_shipped(&env, ledger.write(&env.pg, 1).end);
    let (from, before): (Lsn, _) =
        (env.pg.one("select pg_current_wal_flush_lsn()").parse().unwrap(), facts(&agent));
    let away = env.repo().path().with_extension("away");
    std::fs::rename(env.repo().path(), &away).unwrap();
    env.pg
        .sql("create table filler as select i, repeat(md5(i::text), 20) t from generate_series(1, 60000) i");
    ledger.write(&env.pg, 3);
    eventually("the failure is told", SOON, || !facts(&agent)["failure"].is_null());
    assert!(agent.resident_bytes() < 256 << 20);
    agent.reload();
    std::fs::rename(&away, env.repo().path()).unwrap();
    let last = ledger.write(&env.pg, 3);
    wait_shipped(&env, last.end);
    eventually("the tail is current", SOON, || {
        let now = facts(&agent);
        now["failure"].is_null()
            && now["shipped_to"].as_str().is_some_and(|to| to.parse::<Lsn>().unwrap() >= last.end)
    });
    let shipped =
        facts(&agent)["plain_bytes_total"].as_u64().unwrap() - before["plain_bytes_total"].as_u64().unwrap();
    let written = env.pg.one("select pg_current_wal_flush_lsn()").parse::<Lsn>().unwrap().since(from);
    // The archiver ships most of it; what the tail ships besides is never more than that.
    assert!(shipped <= written, "{shipped} bytes of heads for {written} bytes of WAL");
    lose_host(&env, agent);
    let side = restore_latest(&env, &env.pgkeep, "side");
    ledger.assert_ends_at(&side, ledger.last_id());
}

#[test]
fn tail_of_a_segment_that_ends_while_its_head_is_uploaded_is_complete() {
    let (env, proxy) = behind_a_proxy(15);
    let mut ledger = Ledger::create(&env.pg);
    env.backup();
    env.pg.add_conf("archive_command = 'false'");
    env.pg.reload();
    let agent = Agent::start_as(&env, &env.pgkeep.clone().failpoint("ship-before-upload", "return(error)"));
    wait_shipped(&env, ledger.write(&env.pg, 1).end);
    let slow = Rule::always(Fault::Latency(Duration::from_millis(800))).method("PUT").path(".head-");
    proxy.rule(slow);
    for _ in 0..2 {
        proxy.reset_counts();
        ledger.write(&env.pg, 3);
        eventually("a head is on its way", SOON, || {
            proxy.counts().log.iter().any(|r| r.starts_with("PUT") && r.contains(".head-"))
        });
        ledger.write(&env.pg, 2);
        env.pg.switch_wal();
    }
    wait_safe(&agent, ledger.write(&env.pg, 2).end);
    proxy.calm();
    lose_host(&env, agent);
    let side = restore_latest(&env, &env.pgkeep, "side");
    ledger.assert_ends_at(&side, ledger.last_id());
}

#[test]
fn tail_of_a_slow_region_goes_on_after_its_segments_were_archived_elsewhere_and_recycled() {
    let store = S3::fresh_bucket();
    let proxy = FaultProxy::before(store.endpoint());
    let options = EnvOptions::new(16)
        .pg(|pg| pg.segment_mib(1).conf("min_wal_size = '2MB'").conf("max_wal_size = '4MB'"))
        .dir_repository("near", true)
        .s3_repository_at("far", false, store, &proxy.endpoint());
    let env = quick(options).build();
    let mut ledger = Ledger::create(&env.pg);
    let agent = env.start_agent();
    wait_shipped(&env, ledger.write(&env.pg, 1).end);
    let far = || heads(env.store("far"));
    eventually("the far region has the tail", SOON, || !far().is_empty());
    proxy.down();
    let first = flushed(&env.pg).0;
    for _ in 0..6 {
        ledger.write(&env.pg, 2);
        env.pg.switch_and_archive();
    }
    env.pg.sql("checkpoint");
    eventually("its segment is recycled", SOON, || !env.pg.data.join("pg_wal").join(&first).exists());
    proxy.up();
    let last = ledger.write(&env.pg, 2);
    let (segment, offset) = segment_at(&env.pg, last.end);
    eventually(&format!("the far region follows: {}", agent.log()), SOON, || {
        reach(&far(), &segment) >= offset
    });
}

#[test]
fn an_agent_beside_a_restore_in_place_goes_on_with_the_new_timeline() {
    let env = quick(EnvOptions::new(17)).build();
    let mut ledger = Ledger::create(&env.pg);
    ledger.write(&env.pg, 2);
    env.backup();
    let agent = env.start_agent();
    for _ in 0..2 {
        ledger.write(&env.pg, 2);
        env.pg.switch_and_archive();
    }
    let kept = ledger.write(&env.pg, 2);
    env.pg.switch_and_archive();
    wait_shipped(&env, ledger.write(&env.pg, 3).end);
    let target = Target::Lsn(kept.end);
    env.pgkeep.run(["restore", "--in-place", "--to", &target.to_string(), "--yes"]).ok();
    let end = ledger.expect_last(&target, Inclusion::After);
    ledger.assert_ends_at(&env.pg, end);
    ledger.rewind_to(end);
    // The tail first, then the archive, of the new timeline and of nothing else.
    let last = ledger.write(&env.pg, 2);
    let (segment, _) = segment_at(&env.pg, last.end);
    assert!(segment.starts_with("00000002"), "{segment}");
    wait_shipped(&env, last.end);
    let before = heads(env.repo()).into_iter().filter(|h| h.segment.starts_with("00000001")).count();
    env.pg.switch_and_archive();
    ledger.write(&env.pg, 2);
    env.pg.switch_and_archive();
    wait_shipped(&env, ledger.write(&env.pg, 2).end);
    let of_old = heads(env.repo()).into_iter().filter(|h| h.segment.starts_with("00000001")).count();
    assert_eq!(before, of_old, "the old timeline has ended");
    eventually(&format!("the agent is content: {}", agent.log()), SOON, || {
        let cluster = agent.ask(&serde_json::json!({"op": "status"}))["snapshot"]["clusters"]["main"].clone();
        let (archive, tail) = (&cluster["archive"], &cluster["tail"]);
        archive["failure"].is_null()
            && archive["holes"] == serde_json::json!([])
            && archive["conflicts"] == serde_json::json!([])
            && archive["timeline"] == 2
            && tail["failure"].is_null()
    });
    lose_host(&env, agent);
    let side = restore_latest(&env, &env.pgkeep, "side");
    ledger.assert_ends_at(&side, ledger.last_id());
}
