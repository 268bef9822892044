use proptest::prelude::*;

use super::end::Fault;
use super::reader::{End, EndReason, Flow, WalReader};
use super::summary::{first_record, last_valid_record_end, summarize};
use super::synth::{MIB, SYSTEM, Synth, at};
use crate::model::{Lsn, SystemId, TimelineId};

const START: u64 = 3 << 20;

/// Reads `bytes` from `START` in pieces of a size; the records' (start, end) and the end.
fn read(bytes: &[u8], piece: usize) -> (Vec<(Lsn, Lsn)>, End) {
    read_with(WalReader::new(Lsn(START), MIB, None), bytes, piece)
}
fn read_with(mut reader: WalReader, bytes: &[u8], piece: usize) -> (Vec<(Lsn, Lsn)>, End) {
    let mut seen = Vec::new();
    for part in bytes.chunks(piece) {
        reader.feed(part, &mut |r| {
            seen.push((r.lsn, r.end_lsn));
            Flow::Continue
        });
    }
    let end = reader.finish(&mut |r| {
        seen.push((r.lsn, r.end_lsn));
        Flow::Continue
    });
    (seen, end)
}

#[test]
fn records_are_read_across_pages_and_segments_whatever_the_pieces() {
    let mut wal = Synth::new(START);
    let mut expected = Vec::new();
    for len in [10, 255, 256, 8000, 9000, 40_000, 1, 8192, 1_300_000, 5, 600_000, 7] {
        expected.push(wal.filler(len));
    }
    let end = wal.lsn();
    wal.bytes.resize(wal.bytes.len().next_multiple_of(1 << 20), 0);
    for piece in [1, 777, 8192, 8193, 1 << 20, wal.bytes.len()] {
        let (seen, found) = read(&wal.bytes, piece);
        assert_eq!(seen.iter().map(|r| r.0).collect::<Vec<_>>(), expected, "{piece}");
        assert_eq!((found.lsn, found.reason), (end, EndReason::Zeros), "{piece}");
        assert_eq!(seen.last().unwrap().1, end);
    }
}

#[test]
fn a_record_longer_than_what_is_kept_is_still_checked() {
    let mut wal = Synth::new(START);
    wal.filler(33 << 20);
    let last = wal.filler(8);
    let (seen, end) = read(&wal.bytes, 1 << 20);
    assert_eq!((seen.len(), end.last_record), (2, Some(last)));
    wal.bytes[(20 << 20) + 100] ^= 1;
    let (seen, end) = read(&wal.bytes, 1 << 20);
    assert_eq!(seen.len(), 0);
    assert!(matches!(end.reason, EndReason::Damaged { fault: Fault::Crc { .. }, .. }), "{end:?}");
}

#[test]
fn reading_can_begin_where_a_record_goes_on() {
    let mut wal = Synth::new(START);
    wal.fill();
    let open = wal.prev;
    let next = wal.filler(20);
    let summary = summarize(&wal.segment(1), Lsn(START + (1 << 20)), MIB, Some(SYSTEM)).unwrap();
    let first = summary.first_record.unwrap();
    assert_eq!((first.lsn, first.prev), (next, open));
    assert!(summary.carried_in > 0);
    let before = summarize(&wal.segment(0), Lsn(START), MIB, Some(SYSTEM)).unwrap();
    assert_eq!(before.last_record(), Some(open));
    assert_eq!(before.end.reason, EndReason::OutOfBytes { open: Some(open) });
    assert_eq!(before.is_continued_by(&summary), Some(true));
    assert_eq!(summary.is_continued_by(&before), Some(false));
    assert_eq!(first_record(&wal.segment(1), Lsn(START + (1 << 20)), MIB, None), Some(first));
}

#[test]
fn a_segment_within_one_record_says_nothing_about_its_neighbours() {
    let mut wal = Synth::new(START);
    wal.filler(3 << 20);
    let middle = summarize(&wal.segment(1), Lsn(START + (1 << 20)), MIB, None).unwrap();
    assert_eq!(middle.first_record, None);
    assert_eq!(middle.end.reason, EndReason::OutOfBytes { open: None });
    let first = summarize(&wal.segment(0), Lsn(START), MIB, None).unwrap();
    assert_eq!(first.is_continued_by(&middle), None);
}

#[test]
fn reading_can_begin_at_a_known_record() {
    let mut wal = Synth::new(START);
    wal.filler(9000);
    let known = wal.filler(100);
    wal.filler(50);
    let (seen, _) = read_with(WalReader::at_record(known, MIB, None), &wal.bytes, 4096);
    assert_eq!((seen.len(), seen[0].0), (2, known));
}

#[test]
fn the_rest_of_a_segment_after_a_switch_does_not_matter() {
    let mut wal = Synth::new(START);
    wal.filler(30_000);
    let switch = wal.switch();
    wal.filler(10);
    let junk_from = (switch.0 - START) as usize + 24;
    wal.bytes[junk_from..1 << 20].fill(0xEE);
    let (seen, end) = read(&wal.bytes, 8192);
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[1], (switch, Lsn(START + (1 << 20))));
    assert!(end.reason.is_out_of_bytes() || end.reason == EndReason::Zeros);
}

#[test]
fn a_record_that_a_crash_cut_off_is_passed_over() {
    // Cut in the same segment, and at a segment's border.
    for (good, cut, boundary) in [(100, 30_000, 8192), ((1 << 20) - 9000, 30_000, 1 << 20)] {
        let mut wal = Synth::new(START);
        let before = wal.filler(good);
        let voided = wal.filler(cut);
        let boundary = Lsn(START + boundary);
        assert!(voided < boundary);
        wal.overwrite(voided, boundary, before);
        let after = wal.filler(10);
        let (seen, end) = read(&wal.bytes, 8192);
        let starts: Vec<_> = seen.iter().map(|r| r.0).collect();
        assert_eq!((starts.len(), starts[0], starts[2]), (3, before, after));
        assert!(!end.reason.is_damage(), "{end:?}");
    }
}

#[test]
fn the_ends_of_wal_are_told_apart() {
    let mut wal = Synth::new(START);
    for _ in 0..40 {
        wal.filler(1000);
    }
    let (end_lsn, whole) = (wal.lsn(), wal.segment(0));
    let (_, end) = read(&whole, 8192);
    assert_eq!((end.lsn, end.reason), (end_lsn, EndReason::Zeros));

    // A recycled file: the next page is of an older segment.
    let mut older = Synth::new(START - (1 << 20));
    older.fill();
    let page = (end_lsn.0 - START).next_multiple_of(8192) as usize;
    let mut recycled = whole.clone();
    recycled[page..].copy_from_slice(&older.segment(0)[page..]);
    recycled[(end_lsn.0 - START) as usize..page].fill(0);
    assert_eq!(read(&recycled, 8192).1.reason, EndReason::Zeros);
    let mut full_page = Synth::new(START);
    full_page.filler(8192 - 40 - 24 - 5);
    let mut recycled = full_page.segment(0);
    recycled[8192..].copy_from_slice(&older.segment(0)[8192..]);
    let end = read(&recycled, 8192).1;
    assert_eq!(end.reason, EndReason::Recycled { from: Lsn(START - (1 << 20) + 8192) });
    assert_eq!(end.lsn, Lsn(START + 8192));

    // Torn: the last record's page came, the one it goes on to did not.
    let mut torn = Synth::new(START);
    let good = torn.filler(100);
    let cut = torn.filler(20_000);
    let mut bytes = torn.segment(0);
    bytes[8192..16384].fill(0);
    let end = last_valid_record_end(&bytes, Lsn(START), MIB, None);
    assert_eq!((end.lsn, end.last_record), (cut, Some(good)));
    assert_eq!(end.reason, EndReason::Zeros);
}

#[test]
fn faults_are_named_for_what_they_are() {
    let mut wal = Synth::new(START);
    let first = wal.filler(1000);
    let second = wal.filler(1000);
    wal.filler(9000);
    let good = wal.segment(0);
    let at = |lsn: Lsn| (lsn.0 - START) as usize;
    let fault = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        match read(&bytes, 8192).1.reason {
            EndReason::Damaged { fault, .. } => fault,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(fault(&|b| b[at(second) + 40] ^= 1), Fault::Crc { .. }));
    assert!(matches!(fault(&|b| b[at(second) + 17] = 99), Fault::RecordManager { found: 99 }));
    assert!(matches!(fault(&|b| b[at(second) + 9] = 0xFF), Fault::PrevLink { .. }));
    assert!(matches!(fault(&|b| b[at(first)] = 3), Fault::RecordLength { .. } | Fault::Crc { .. }));
    assert!(matches!(fault(&|b| b[8192] ^= 1), Fault::PageMagic { .. }));
    assert!(matches!(fault(&|b| b[8194] |= 0x10), Fault::PageFlags { .. }));
    assert!(matches!(fault(&|b| b[8194] = 0), Fault::ContinuationMissing { .. }));
    assert!(matches!(fault(&|b| b[8192 + 16] ^= 1), Fault::ContinuationLength { .. }));
    assert!(matches!(fault(&|b| b[8192 + 15] = 1), Fault::PageAddress { .. }));
    assert!(matches!(fault(&|b| b[8192 + 4] = 0), Fault::PageTimeline { .. }));
    assert!(matches!(fault(&|b| b[2] = 0), Fault::PageFlags { .. }));
    assert!(matches!(fault(&|b| b[34] = 1), Fault::SegmentSize { .. }));
    assert!(matches!(fault(&|b| b[37] = 1), Fault::BlockSize { .. }));
    let other = WalReader::new(Lsn(START), MIB, Some(SystemId(1)));
    let end = read_with(other, &good, 8192).1;
    assert!(matches!(end.reason, EndReason::Damaged { fault: Fault::System { .. }, .. }));
}

#[test]
fn a_timeline_goes_on_in_the_middle_of_a_segment() {
    let mut wal = Synth::new(START);
    for _ in 0..30 {
        wal.filler(700);
    }
    wal.timeline = TimelineId(2);
    for _ in 0..30 {
        wal.filler(700);
    }
    let (seen, _) = read(&wal.segment(0), 8192);
    assert_eq!(seen.len(), 60);
    assert_eq!(summarize(&wal.segment(0), Lsn(START), MIB, None).unwrap().timeline, Some(TimelineId(2)));
}

#[test]
fn a_summary_names_first_and_last_commit() {
    let mut wal = Synth::new(START);
    wal.abort(9, at(1));
    wal.commit(10, at(2));
    wal.filler(20_000);
    wal.commit_prepared(11, at(3));
    let last = wal.commit(12, at(4));
    wal.abort(13, at(5));
    let summary = summarize(&wal.segment(0), Lsn(START), MIB, None).unwrap();
    assert_eq!(summary.commits, 3);
    assert_eq!(summary.first_commit.unwrap().at, at(2));
    let found = summary.last_commit.unwrap();
    assert_eq!((found.at, found.xid.0, found.lsn), (at(4), 12, last));
}

/// A page's worth of every kind of thing, to be mutated.
fn sample() -> Synth {
    let mut wal = Synth::new(START);
    wal.commit(3, at(0));
    wal.commit_prepared(4, at(1));
    wal.restore_point("here", at(1));
    wal.filler(9000);
    wal.backup_end(Lsn(START));
    // One block reference with an image, and main data.
    let mut body = vec![0, 0x30, 4, 0, 8, 0, 0, 0, 1];
    body.extend([7; 12]);
    body.extend([1, 0, 0, 0, 255, 3]);
    body.extend([0xCC; 4 + 8 + 3]);
    wal.raw(10, 0, 5, &body);
    wal
}

#[test]
fn block_references_are_read() {
    let mut found = Vec::new();
    let mut reader = WalReader::new(Lsn(START), MIB, None);
    reader.feed(&sample().segment(0), &mut |r| {
        found.extend(r.decode().unwrap().blocks);
        Flow::Continue
    });
    assert_eq!(found.len(), 1);
    assert!(found[0].has_image);
    assert_eq!((found[0].block, found[0].relation.number), (1, 0x0707_0707));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_mutation_makes_the_reader_panic(
        changes in prop::collection::vec((0usize..24_000, any::<u8>()), 1..12),
        resum in any::<bool>(),
        piece in 1usize..20_000,
    ) {
        let mut bytes = sample().segment(0);
        bytes.truncate(24_000);
        for (place, value) in changes {
            bytes[place] = value;
        }
        if resum {
            resum_first(&mut bytes);
        }
        let mut reader = WalReader::new(Lsn(START), MIB, None);
        for part in bytes.chunks(piece) {
            reader.feed(part, &mut |r| {
                let _ = (r.decode(), r.main_data(), super::Fact::of(r).map(|f| format!("{f:?}")));
                Flow::Continue
            });
        }
        let _ = reader.finish(&mut |_| Flow::Continue).reason.to_string();
        let _ = super::check_segment(
            crate::model::SegmentName::containing(TimelineId(1), Lsn(START), MIB), &bytes, MIB, SYSTEM);
    }
}

/// Makes the first record's CRC right again, so that what it carries is looked at.
fn resum_first(bytes: &mut [u8]) {
    let total = u32::from_le_bytes(bytes[40..44].try_into().unwrap()) as usize;
    if (24..8000).contains(&total) {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[64..40 + total]), &bytes[40..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    }
}
