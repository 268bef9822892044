//! A backup taken from a standby while its primary is written to and archives.

use std::thread::sleep;
use std::time::Duration;

use pgkeep::model::{Inclusion, Target};

use super::{ends_exactly, host_is_lost, lsn, record, refused, side};
use crate::support::{EnvOptions, Ledger, Pg};

fn from_a_standby(major: u32) {
    let env = EnvOptions::new(major).pg(|pg| pg.segment_mib(1)).build();
    let mut ledger = Ledger::create(&env.pg);
    ledger.write(&env.pg, 3);
    let standby = Pg::standby_of(&env.pg, "standby");
    standby.start();
    let primary = format!("primary = \"{}\"\n[[repository]]", env.pg.conninfo());
    let pgkeep = env.with_config("standby.toml", |text| {
        text.replace(&env.pg.conninfo(), &standby.conninfo())
            .replace(env.pg.data.to_str().unwrap(), standby.data.to_str().unwrap())
            .replacen("[[repository]]", &primary, 1)
    });
    let writer = ledger.write_in_background(&env.pg, Duration::from_millis(4));
    sleep(Duration::from_millis(100));
    let taken = pgkeep.global("--json").run(["backup", "full"]).ok().json();
    sleep(Duration::from_millis(300));
    env.pg.switch_wal();
    let mut ledger = writer.stop();
    let quiet = ledger.write(&env.pg, 3);
    ledger.write(&env.pg, 3);
    env.pg.switch_and_archive();

    let record = record(&env, taken["id"].as_str().unwrap());
    assert_eq!(record["from_standby"], true);
    let stop = lsn(&record, "stop_lsn");
    drop(standby);
    host_is_lost(&env);
    ends_exactly(&env, &ledger, &Target::Latest, Inclusion::After);
    ends_exactly(&env, &ledger, &Target::Xid(quiet.xid), Inclusion::Before);
    ends_exactly(&env, &ledger, &Target::Time(quiet.at), Inclusion::After);
    // The first commit that this backup can end with, and one before it was consistent.
    let after = ledger.entries.iter().find(|e| e.before_commit >= stop).unwrap();
    ends_exactly(&env, &ledger, &Target::Lsn(after.end), Inclusion::After);
    let inside = ledger.entries.iter().rfind(|e| e.end < stop).unwrap();
    refused(&env, &["--to", &Target::Lsn(inside.end).to_string()]).says(&format!("(lsn {stop})"));
    let side = side(&env, &["--to", "backup"]);
    let found = Ledger::assert_contiguous(&side.pg, inside.id);
    assert!(found < after.id, "{found}");
}

#[test]
fn a_backup_from_a_standby_of_postgres_15_ends_exactly_at_its_targets() {
    from_a_standby(15);
}
#[test]
fn a_backup_from_a_standby_of_postgres_18_ends_exactly_at_its_targets() {
    from_a_standby(18);
}
