//! Times on a quiet database: PostgreSQL stops only where a transaction ended, so a time after the last one is never
//! reached. And times counted from now.

use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgkeep::model::Timestamp;

use super::{holds_exactly, refused, side};
use crate::support::{Ledger, TestEnv};

fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_unix_seconds(0).unwrap().plus(since_1970)
}

#[test]
fn a_time_after_the_last_commit_is_refused_with_latest_and_one_counted_from_now_is_reached() {
    let env = TestEnv::new(16);
    let mut ledger = Ledger::create(&env.pg);
    ledger.write(&env.pg, 3);
    env.backup();
    let before = ledger.write(&env.pg, 4);
    sleep(Duration::from_secs(2));
    let last = ledger.write(&env.pg, 1);
    // A segment in which nothing ends.
    env.pg.switch_wal();
    env.pg.switch_and_archive();
    let known = format!("{} (lsn ", last.at.postgres());

    refused(&env, &["--to", "1ms ago"]).says("--to latest").says(&known);
    refused(&env, &["--to", &last.at.plus(Duration::from_secs(1)).postgres()])
        .says("--to latest")
        .says(&known);
    refused(&env, &["--to", "2999-01-01"]).says("no transaction ended after this time");
    refused(&env, &["--to", "10 minutes ago"]).says("before the first moment").says(&known);

    let between = before.at.plus(Duration::from_secs(1));
    let ago = format!("{}ms ago", now().since(between).as_millis());
    let side = side(&env, &["--to", &ago]);
    holds_exactly(&ledger, &side.pg, &side.report, 7);
}
