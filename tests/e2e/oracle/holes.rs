//! A segment is missing from the archive: what lies before it is reached to the last record, nothing beyond it is
//! promised.

use pgkeep::model::{Inclusion, Lsn, SegmentName, SegmentSize, Target};

use super::{ends_exactly, holds_exactly, refused, side, words};
use crate::support::{EnvOptions, Ledger, Pg};

const MIB: u64 = 1 << 20;

fn position(pg: &Pg) -> Lsn {
    pg.one("select pg_current_wal_insert_lsn()").parse().unwrap()
}

/// Writes rows across the end of a segment that is never switched: the last record before the border lies where it
/// happens to, the one across it in both. Returns the border.
fn write_across_the_border(pg: &Pg, ledger: &mut Ledger) -> Lsn {
    let here = position(pg);
    let border = Lsn((here.0 / MIB + 1) * MIB);
    let room = border.0 - here.0;
    if room > 10_000 {
        // Records that end no transaction.
        pg.sql(&format!("select pg_logical_emit_message(false, 'test', repeat('x', {}))", room - 8_000));
    }
    while position(pg) < Lsn(border.0 + 2_000) {
        ledger.write(pg, 1);
    }
    border
}

fn a_hole(major: u32) {
    let env = EnvOptions::new(major).pg(|pg| pg.segment_mib(1)).build();
    let mut ledger = Ledger::create(&env.pg);
    ledger.write(&env.pg, 3);
    env.backup();
    ledger.write(&env.pg, 3);
    let border = write_across_the_border(&env.pg, &mut ledger);
    let beyond = ledger.last_id();
    env.pg.switch_wal();
    ledger.write(&env.pg, 3);
    env.pg.switch_and_archive();

    // Whole, every row around the border is reached.
    let last_before = ledger.entries.iter().rfind(|e| e.end <= border).unwrap().clone();
    assert!(last_before.id < beyond);
    ends_exactly(&env, &ledger, &Target::Xid(ledger.entry(last_before.id + 1).xid), Inclusion::After);

    let timeline = pgkeep::model::TimelineId(1);
    let missing = SegmentName::containing(timeline, border, SegmentSize::new(1 << 20).unwrap());
    let key = env.repo().find(&["main/wal/", &missing.to_string()]);
    env.repo().delete(&key);

    // `latest` and every target beyond are refused with the last place before the hole.
    let said = refused(&env, &["--to", "latest"]).says(&missing.to_string());
    let at = said.stderr.split("`--to lsn:").nth(1).unwrap().split('`').next().unwrap().to_owned();
    for entry in [ledger.entry(beyond), ledger.entries.last().unwrap()] {
        for target in [Target::Xid(entry.xid), Target::Lsn(entry.end), Target::Time(entry.at)] {
            let words = words(&target, Inclusion::After);
            refused(&env, &words.iter().map(String::as_str).collect::<Vec<_>>()).says(&format!("lsn:{at}"));
        }
    }
    // The place that was named works, and the last commit before the hole is kept.
    let side = side(&env, &["--to", &format!("lsn:{at}")]);
    holds_exactly(&ledger, &side.pg, &side.report, last_before.id);
    drop(side);
    // So it is by its number; just before it, by its time.
    ends_exactly(&env, &ledger, &Target::Xid(last_before.xid), Inclusion::After);
    ends_exactly(&env, &ledger, &Target::Time(last_before.at), Inclusion::Before);
}

#[test]
fn before_a_hole_postgres_14_ends_exactly_at_its_last_commit() {
    a_hole(14);
}
#[test]
fn before_a_hole_postgres_17_ends_exactly_at_its_last_commit() {
    a_hole(17);
}
