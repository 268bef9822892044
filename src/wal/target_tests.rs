use super::reader::{Flow, WalReader};
use super::synth::{MIB, Synth, at};
use super::target::{Consistency, Outcome, TargetScanner};
use super::{Fact, TransactionMark};
use crate::model::{Inclusion, Lsn, Target, Xid};

const START: u64 = 5 << 20;

/// The places in the sample that targets are measured against.
struct Places {
    wal: Synth,
    redo: Lsn,
    backup_end: Lsn,
    a: Lsn,
    b: Lsn,
    abort: Lsn,
    prepared: Lsn,
    point: Lsn,
    last: Lsn,
}

/// redo · backup end · commit 10 at 1 · commit 11 at 2 · abort 12 at 3 · prepared 13 at 3 · "here" twice · commit 14 at 9
fn sample() -> Places {
    let mut wal = Synth::new(START);
    wal.filler(100);
    let redo = wal.filler(10);
    let backup_end = wal.backup_end(redo);
    let a = wal.commit(10, at(1));
    wal.filler(9000);
    let b = wal.commit(11, at(2));
    let abort = wal.abort(12, at(3));
    let prepared = wal.commit_prepared(13, at(3));
    let point = wal.restore_point("here", at(4));
    wal.filler(10);
    wal.restore_point("here", at(5));
    let last = wal.commit(14, at(9));
    Places { wal, redo, backup_end, a, b, abort, prepared, point, last }
}

fn scan(places: &Places, target: Target, inclusion: Inclusion) -> Outcome {
    let consistency = Consistency::BackupEnd { start: places.redo };
    let mut scanner = TargetScanner::new(target, inclusion, places.redo, consistency);
    let mut reader = WalReader::new(Lsn(START), MIB, None);
    reader.feed(&places.wal.segment(0), &mut |r| {
        scanner.observe(r).unwrap();
        Flow::Continue
    });
    scanner.into_outcome()
}

fn xids(outcome: &Outcome) -> (Option<u32>, Option<u32>) {
    let xid = |m: &Option<TransactionMark>| m.as_ref().map(|m| m.xid.0);
    (xid(&outcome.last_kept), xid(&outcome.first_left_out))
}

#[test]
fn a_time_stops_before_the_first_end_of_a_transaction_that_is_later() {
    let p = sample();
    let stop = |seconds, inclusion| {
        let outcome = scan(&p, Target::Time(at(seconds)), inclusion);
        (outcome.stop.as_ref().map(|s| s.record), xids(&outcome))
    };
    assert_eq!(stop(2, Inclusion::After), (Some(p.abort), (Some(11), Some(13))));
    assert_eq!(stop(2, Inclusion::Before), (Some(p.b), (Some(10), Some(11))));
    assert_eq!(stop(3, Inclusion::Before), (Some(p.abort), (Some(11), Some(13))));
    assert_eq!(stop(3, Inclusion::After), (Some(p.last), (Some(13), Some(14))));
    // Restore points carry a time too, and do not count.
    assert_eq!(stop(4, Inclusion::After), (Some(p.last), (Some(13), Some(14))));
    assert_eq!(stop(9, Inclusion::After), (None, (Some(14), None)));
}

#[test]
fn a_transaction_id_is_met_at_its_own_end_also_when_prepared() {
    let p = sample();
    let stop = |xid, inclusion| {
        let outcome = scan(&p, Target::Xid(Xid(xid)), inclusion);
        (outcome.stop.as_ref().map(|s| s.record), xids(&outcome))
    };
    assert_eq!(stop(11, Inclusion::After), (Some(p.b), (Some(11), Some(13))));
    assert_eq!(stop(11, Inclusion::Before), (Some(p.b), (Some(10), Some(11))));
    assert_eq!(stop(13, Inclusion::After), (Some(p.prepared), (Some(13), Some(14))));
    assert_eq!(stop(12, Inclusion::After), (Some(p.abort), (Some(11), Some(13))));
    // Not ids of transactions that end here: a later one, and that of a heap record.
    assert_eq!(stop(15, Inclusion::After).0, None);
    assert_eq!(stop(3, Inclusion::After).0, None);
}

#[test]
fn an_lsn_stops_at_the_first_record_that_starts_there_or_later() {
    let p = sample();
    let stop = |lsn: Lsn, inclusion| {
        let outcome = scan(&p, Target::Lsn(lsn), inclusion);
        (outcome.stop.as_ref().map(|s| s.record), xids(&outcome))
    };
    assert_eq!(stop(p.b, Inclusion::After), (Some(p.b), (Some(11), Some(13))));
    assert_eq!(stop(p.b, Inclusion::Before), (Some(p.b), (Some(10), Some(11))));
    assert_eq!(stop(Lsn(p.b.0 - 8), Inclusion::After).0, Some(p.b));
    assert_eq!(stop(Lsn(p.b.0 + 1), Inclusion::After).0, Some(p.abort));
}

#[test]
fn a_name_stops_after_its_first_restore_point_whatever_the_inclusion() {
    let p = sample();
    for inclusion in [Inclusion::After, Inclusion::Before] {
        let outcome = scan(&p, Target::Name("here".to_owned()), inclusion);
        let stop = outcome.stop.clone().unwrap();
        assert_eq!((stop.record, stop.side, stop.at), (p.point, Inclusion::After, Some(at(4))));
        assert_eq!(xids(&outcome), (Some(13), Some(14)));
    }
    assert_eq!(scan(&p, Target::Name("her".to_owned()), Inclusion::After).stop, None);
}

#[test]
fn backup_stops_as_soon_as_the_data_are_consistent() {
    let p = sample();
    let outcome = scan(&p, Target::Backup, Inclusion::After);
    let stop = outcome.stop.clone().unwrap();
    assert_eq!((stop.record, stop.side, stop.consistent), (p.backup_end, Inclusion::After, true));
    assert_eq!(stop.end, p.a);
    assert_eq!(outcome.consistent_at, Some(p.a));
    let mut already =
        TargetScanner::new(Target::Backup, Inclusion::After, p.redo, Consistency::Reached(p.redo));
    let mut reader = WalReader::at_record(p.redo, MIB, None);
    reader.feed(&p.wal.segment(0), &mut |r| {
        already.observe(r).unwrap();
        Flow::Continue
    });
    let stop = already.into_outcome().stop.unwrap();
    assert_eq!((stop.record, stop.side, stop.end), (p.redo, Inclusion::Before, p.redo));
}

#[test]
fn a_stop_before_the_backup_is_consistent_says_so() {
    let p = sample();
    let outcome = scan(&p, Target::Lsn(p.redo), Inclusion::After);
    assert!(!outcome.stop.unwrap().consistent);
    assert!(scan(&p, Target::Xid(Xid(10)), Inclusion::After).stop.unwrap().consistent);
}

#[test]
fn the_end_is_that_of_the_last_record_kept() {
    let p = sample();
    let after = scan(&p, Target::Xid(Xid(11)), Inclusion::After);
    assert_eq!(after.end, p.abort);
    assert_eq!(after.stop.unwrap().end, p.abort);
    let before = scan(&p, Target::Xid(Xid(12)), Inclusion::Before);
    assert_eq!(before.stop.unwrap().end, p.abort);
    let latest = scan(&p, Target::Latest, Inclusion::After);
    assert_eq!((latest.stop, latest.commits_kept, latest.commits_left_out), (None, 4, 0));
    assert_eq!(latest.end, latest.seen);
}

#[test]
fn facts_are_read_from_records() {
    let mut wal = Synth::new(START);
    wal.record(5, 0x00, 7, b"\x39\x30\x00\x00/srv/space\0");
    wal.record(4, 0x10, 7, &[1, 0, 0, 0, 2, 0, 0, 0]);
    wal.record(4, 0x20, 7, &[1, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0]);
    wal.record(0, 0x80, 0, &[1]);
    wal.switch();
    let facts = |wal: &Synth| {
        let mut facts = Vec::new();
        let mut reader = WalReader::new(Lsn(START), MIB, None);
        reader.feed(&wal.segment(0), &mut |r| {
            facts.push(format!("{:?}", Fact::of(r).unwrap().unwrap()));
            Flow::Continue
        });
        facts
    };
    assert_eq!(
        facts(&wal),
        [
            "TablespaceCreate { oid: 12345, path: \"/srv/space\" }",
            "DatabaseCreate { database: 1, tablespace: 2, copied_from: None }",
            "DatabaseDrop { database: 1, tablespaces: [9] }",
            "FullPageWrites(true)",
            "Switch",
        ]
    );
    // On 14 the same opcode drops a database.
    let mut old = Synth::new(START);
    old.magic = 0xD10D;
    old.record(4, 0x10, 7, &[1, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0]);
    assert_eq!(facts(&old), ["DatabaseDrop { database: 1, tablespaces: [9] }"]);
}

#[test]
fn a_commit_that_cannot_be_understood_is_an_error() {
    let mut wal = Synth::new(START);
    wal.record(1, 0x80, 10, &[0; 8]);
    let mut reader = WalReader::new(Lsn(START), MIB, None);
    let mut failed = 0;
    reader.feed(&wal.segment(0), &mut |r| {
        failed += usize::from(Fact::of(r).is_err());
        Flow::Continue
    });
    assert_eq!(failed, 1);
}
