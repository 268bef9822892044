//! Back-pressure: a store that is slow while a hundred segments wait costs patience, not memory, and what PostgreSQL asks
//! for does not stand behind the whole queue.

use std::time::Duration;

use serde_json::json;

use crate::support::{EnvOptions, Fault, eventually};
use crate::wal_place::{behind_a_proxy, push, segments};

const MIB: u64 = 1 << 20;

#[test]
fn a_hundred_segments_wait_for_a_slow_store_in_bounded_memory_and_the_asked_one_goes_first() {
    let options = EnvOptions::new(17).pg(|pg| pg.segment_mib(4).conf("wal_keep_size = '2GB'"));
    let (env, proxy) = behind_a_proxy(options);
    let names = segments(&env, 104);
    proxy.all(Fault::Latency(Duration::from_millis(200)));
    let agent = env.start_agent();
    let waiting = || {
        let answer = agent.ask(&json!({"op": "status"}));
        answer["snapshot"]["clusters"]["main"]["archive"]["waiting_files"].as_u64()
    };
    eventually(&format!("the backlog is seen: {}", agent.log()), Duration::from_secs(30), || {
        waiting() > Some(95)
    });
    let last = &names[names.len() - 1];
    assert_eq!(push(&env, &env.pgkeep, last).ok().stderr, "");
    let behind = waiting().unwrap();
    assert!(behind >= 20, "the last one was archived only when {behind} were left");
    eventually(&format!("all are shipped: {}", agent.log()), Duration::from_secs(90), || {
        waiting() == Some(0)
    });
    // All at once would be 416 MiB, without what is sealed of them.
    let peak = agent.peak_bytes() / MIB;
    assert!(peak < 200, "{peak} MiB");
    let keys = env.repo().list();
    for name in &names {
        assert_eq!(keys.iter().filter(|key| key.contains(&format!("/{name}-"))).count(), 1, "{name}");
    }
}
