use async_trait::async_trait;

use super::*;
use crate::error::{Code, Error};
use crate::model::{BackupId, SegmentName, ShortDigest, TimelineId, Timestamp, Xid};
use crate::postgres::history::History;
use crate::repository::continuity;
use crate::repository::keys::wal::WalObjectName;
use crate::repository::wal_listing::tests::listing;
use crate::util::progress::Silent;
use crate::wal::synth::{MIB, SYSTEM, Synth, at};

const START: u64 = 3 << 20;

/// The archive of one timeline, in memory.
struct Archive {
    wal: Synth,
    missing: Vec<usize>,
    backups: Vec<Candidate>,
}

struct Memory(Synth);

#[async_trait]
impl WalSource for Memory {
    async fn read(&self, file: &WayFile) -> Result<Vec<u8>> {
        let index = file.segment.start(MIB).since(Lsn(START)) / MIB.bytes();
        Ok(self.0.segment(usize::try_from(index).unwrap()))
    }
}

fn candidate(id: &str, start: Lsn, stop: Lsn, stop_time: Timestamp) -> Candidate {
    Candidate {
        id: id.parse::<BackupId>().unwrap(),
        system: SYSTEM,
        timeline: TimelineId(1),
        start,
        stop,
        stop_time,
        page_errors: 0,
        untrusted: None,
    }
}

/// Segment 3: backup A, commits 10 and 11, point "a". 4: commit 12, backup B, commit 13. 5: nothing. 6: commit 14, point "a"
/// again, commit 15. Times are 10, 11, 12 … seconds.
fn archive() -> Archive {
    let mut wal = Synth::new(START);
    let redo_a = wal.filler(10);
    wal.backup_end(redo_a);
    let a = candidate("20261121T010000Z-full-000a", redo_a, wal.lsn(), at(5));
    wal.commit(10, at(10));
    wal.commit(11, at(11));
    wal.restore_point("a", at(11));
    wal.fill();
    wal.commit(12, at(12));
    let redo_b = wal.filler(10);
    wal.backup_end(redo_b);
    let b = candidate("20261121T020000Z-full-000b", redo_b, wal.lsn(), at(13));
    wal.commit(13, at(13));
    wal.fill();
    wal.filler(100);
    wal.fill();
    wal.commit(14, at(14));
    wal.restore_point("a", at(14));
    wal.commit(15, at(15));
    wal.filler(40);
    Archive { wal, missing: Vec::new(), backups: vec![a, b] }
}

impl Archive {
    fn without(mut self, number: usize) -> Self {
        self.missing.push(number);
        self
    }

    fn fitting(&self) -> Vec<(Candidate, Reach)> {
        let last = usize::try_from(MIB.number_of(self.wal.lsn())).unwrap();
        let there = (3..=last).filter(|n| !self.missing.contains(n));
        let names: Vec<_> = there
            .map(|n| WalObjectName::Segment {
                segment: SegmentName::numbered(TimelineId(1), n as u64, MIB),
                digest: ShortDigest([7; 16]),
            })
            .collect();
        let path = History::without_ancestors(TimelineId(1)).path();
        let reach = |c: &Candidate| continuity::reach(&listing(&names), MIB, &path, c.start);
        self.backups.iter().rev().map(|c| (c.clone(), reach(c))).collect()
    }

    fn find(&self, target: &Target, inclusion: Inclusion) -> Result<Located> {
        let source = Memory(self.wal.clone());
        let fitting = self.fitting();
        let search = Search {
            target,
            inclusion,
            fitting: &fitting,
            named: false,
            system: SYSTEM,
            size: MIB,
            source: &source,
            progress: &Silent,
        };
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(search.run())
    }

    /// `backup: last kept, first and last left out`
    fn summary(&self, target: &Target, inclusion: Inclusion) -> String {
        let located = self.find(target, inclusion).unwrap();
        let xid = |m: Option<TransactionMark>| m.map_or("-".to_owned(), |m| m.xid.to_string());
        let backup = &located.backup.id.as_str()[22..];
        format!(
            "{backup}: {} | {} … {}",
            xid(located.last_kept),
            xid(located.first_left_out),
            xid(located.last_left_out)
        )
    }
    fn refused(&self, target: &Target) -> Error {
        let error = self.find(target, Inclusion::After).unwrap_err();
        assert_eq!(error.code(), Code::TargetUnreachable, "{error:?}");
        error
    }
}

use Inclusion::{After, Before};

#[test]
fn latest_keeps_everything_from_the_newest_backup_on() {
    let a = archive();
    assert_eq!(a.summary(&Target::Latest, After), "000b: 15 | - … -");
    let located = a.find(&Target::Latest, After).unwrap();
    assert_eq!(located.archive_end, a.wal.lsn());
    assert!(located.stop.is_none());
}

#[test]
fn a_time_takes_the_newest_backup_that_was_consistent_by_then() {
    let a = archive();
    assert_eq!(a.summary(&Target::Time(at(14)), After), "000b: 14 | 15 … 15");
    assert_eq!(a.summary(&Target::Time(at(14)), Before), "000b: 13 | 14 … 15");
    assert_eq!(a.summary(&Target::Time(at(13)), After), "000b: 13 | 14 … 15");
    // Backup B ended at 13, and "before 13" stops before its first commit: consistent, so B it is.
    assert_eq!(a.summary(&Target::Time(at(13)), Before), "000b: - | 13 … 15");
    assert_eq!(a.summary(&Target::Time(at(12)), After), "000a: 12 | 13 … 15");
    assert_eq!(a.summary(&Target::Time(at(7)), After), "000a: - | 10 … 15");
}

#[test]
fn a_time_before_the_newest_backup_is_reached_when_nothing_was_committed_after_it() {
    let mut a = archive();
    a.wal.fill();
    let redo_c = a.wal.filler(10);
    a.wal.backup_end(redo_c);
    a.backups.push(candidate("20261121T030000Z-full-000c", redo_c, a.wal.lsn(), at(30)));
    a.wal.filler(10);
    assert_eq!(a.summary(&Target::Time(at(14)), After), "000b: 14 | 15 … 15");
    assert_eq!(a.summary(&Target::Time(at(11)), After), "000a: 11 | 12 … 15");
    let early = a.refused(&Target::Time(at(1)));
    assert!(early.to_string().contains("before the first moment"), "{early}");
    let late = a.refused(&Target::Time(at(31)));
    assert!(late.to_string().contains("no transaction ended after this time"), "{late}");
}

#[test]
fn a_transaction_is_found_behind_the_newest_backup_and_before_it() {
    let a = archive();
    assert_eq!(a.summary(&Target::Xid(Xid(14)), After), "000b: 14 | 15 … 15");
    assert_eq!(a.summary(&Target::Xid(Xid(14)), Before), "000b: 13 | 14 … 15");
    assert_eq!(a.summary(&Target::Xid(Xid(12)), After), "000a: 12 | 13 … 15");
    assert_eq!(a.summary(&Target::Xid(Xid(10)), Before), "000a: - | 10 … 15");
}

#[test]
fn of_a_name_used_twice_the_newer_one_behind_a_backup_is_meant() {
    assert_eq!(archive().summary(&Target::Name("a".into()), After), "000b: 14 | 15 … 15");
}

#[test]
fn the_backup_target_ends_where_the_newest_backup_is_consistent() {
    let a = archive();
    assert_eq!(a.summary(&Target::Backup, After), "000b: - | 13 … 15");
    assert_eq!(a.find(&Target::Backup, After).unwrap().end, a.backups[1].stop);
}

#[test]
fn an_lsn_needs_a_record_at_or_after_it() {
    let a = archive();
    let last = a.find(&Target::Latest, After).unwrap().last_record.unwrap();
    assert_eq!(a.summary(&Target::Lsn(last), After), "000b: 15 | - … -");
    assert_eq!(a.summary(&Target::Lsn(a.backups[1].stop), Before), "000b: - | 13 … 15");
    assert_eq!(a.summary(&Target::Lsn(Lsn(a.backups[1].stop.0 - 1)), After), "000a: 13 | 14 … 15");
    let error = a.refused(&Target::Lsn(last.plus(1)));
    assert!(error.hint_text().unwrap().contains("--to latest"), "{error:?}");
}

#[test]
fn what_lies_outside_is_refused_with_the_window() {
    let a = archive();
    let late = a.refused(&Target::Time(at(15)));
    insta::assert_snapshot!(format!("{late:?}"), @r#"error[target-unreachable]: no transaction ended after this time, so a recovery would never stop there, --to 2026-09-21 14:13:35.000000+00 (hint: `--to latest` recovers everything there is; what can be reached is from 2026-09-21 14:13:25.000000+00 (lsn 0/300078) to 2026-09-21 14:13:35.000000+00 (lsn 0/600170))"#);
    let early = a.refused(&Target::Time(at(4)));
    assert!(early.what().contains("before the first moment"), "{early:?}");
    assert!(a.refused(&Target::Lsn(Lsn(START))).what().contains("before the first moment"));
    assert!(a.refused(&Target::Xid(Xid(99))).what().contains("no transaction 99"));
    assert!(a.refused(&Target::Name("b".into())).what().contains("no restore point `b`"));
}

#[test]
fn latest_over_a_hole_is_refused_with_the_lsn_that_still_works() {
    let a = archive().without(5);
    let error = a.refused(&Target::Latest);
    let hint = error.hint_text().unwrap();
    let lsn: Lsn = hint.split("lsn:").nth(1).unwrap().split('`').next().unwrap().parse().unwrap();
    assert!(error.what().contains("000000010000000000000005 is missing"), "{error:?}");
    assert_eq!(a.find(&Target::Lsn(lsn), After).unwrap().last_record, Some(lsn));
    assert!(a.find(&Target::Lsn(lsn.plus(1)), After).is_err(), "nothing later works");
    for beyond in [Target::Xid(Xid(14)), Target::Time(at(14)), Target::Name("z".into())] {
        let error = a.refused(&beyond);
        assert!(error.hint_text().unwrap().contains(&format!("lsn:{lsn}")), "{error:?}");
    }
    assert_eq!(a.summary(&Target::Time(at(12)), After), "000a: 12 | 13 … 13", "before the hole");
}

#[test]
fn a_damaged_record_on_the_way_ends_what_can_be_reached() {
    let mut a = archive();
    let spot = (2 << 20) + 5000;
    a.wal.bytes[spot] ^= 0x55;
    let error = a.find(&Target::Latest, After).unwrap_err();
    assert_eq!(error.code(), Code::WalDamaged);
    assert!(error.hint_text().unwrap().contains("--to lsn:0/5"), "{error:?}");
    assert_eq!(a.summary(&Target::Xid(Xid(13)), After), "000b: 13 | - … 15");
}
