use super::check::{Ended, SegmentVerdict, check_segment};
use super::synth::{MIB, SYSTEM, Synth};
use crate::error::Code;
use crate::model::{Lsn, SegmentName, SystemId, TimelineId};

const START: u64 = 3 << 20;

fn name(timeline: u32, start: u64) -> SegmentName {
    SegmentName::containing(TimelineId(timeline), Lsn(start), MIB)
}
fn check(bytes: &[u8]) -> SegmentVerdict {
    check_segment(name(1, START), bytes, MIB, SYSTEM).unwrap()
}
fn refusal(name: SegmentName, bytes: &[u8]) -> String {
    let error = check_segment(name, bytes, MIB, SYSTEM).unwrap_err();
    assert_eq!(error.code(), Code::WalMismatch);
    error.to_string()
}
/// A full segment from `START` on, and what follows it.
fn full() -> Synth {
    let mut wal = Synth::new(START);
    wal.fill();
    wal.fill();
    wal
}

#[test]
fn a_full_segment_and_its_successor_are_sound() {
    let wal = full();
    let SegmentVerdict::Sound { ended: Ended::Full { open: Some(open) }, last_record_end, .. } =
        check(&wal.segment(0))
    else {
        panic!("{:?}", check(&wal.segment(0)));
    };
    assert_eq!(open, last_record_end);
    let next = check_segment(name(1, START + (1 << 20)), &wal.segment(1), MIB, SYSTEM).unwrap();
    assert!(next.is_sound(), "{next:?}");
}

#[test]
fn a_switched_segment_is_sound_with_anything_after_the_switch() {
    let mut wal = Synth::new(START);
    wal.filler(9000);
    let switch = wal.switch();
    let mut bytes = wal.segment(0);
    let sound = |bytes: &[u8]| matches!(check(bytes), SegmentVerdict::Sound { ended: Ended::Switch, .. });
    assert!(sound(&bytes));
    bytes[(switch.0 - START) as usize + 24..].fill(0xEE);
    assert!(sound(&bytes));
}

#[test]
fn a_file_that_is_something_else_is_refused_with_the_reason() {
    let good = full().segment(0);
    assert!(refusal(name(1, START), &good[..1 << 19]).contains("524288 bytes"));
    assert!(refusal(name(1, START), &[]).contains("0 bytes"));
    assert!(refusal(name(1, START + (1 << 20)), &good).contains("begins at 0/300000"));
    let error = check_segment(name(1, START), &good, MIB, SystemId(5)).unwrap_err();
    assert!(error.to_string().contains("is of system"), "{error}");
    let mut later = Synth::new(START);
    later.timeline = TimelineId(2);
    later.fill();
    assert!(refusal(name(1, START), &later.segment(0)).contains("timeline 2"));
    assert!(refusal(name(1, START), &vec![0x5A; 1 << 20]).contains("magic is 5A5A"));
    assert!(refusal(name(1, START), &vec![0; 1 << 20]).contains("magic is 0000"));
}

#[test]
fn a_right_file_with_a_wrong_first_page_is_damaged_not_refused() {
    let good = full().segment(0);
    // Magic, flags, timeline, address, segment size; never the system identifier.
    for place in [0, 2, 7, 9, 35] {
        let mut bytes = good.clone();
        bytes[place] ^= 0x40;
        assert!(matches!(check(&bytes), SegmentVerdict::Damaged { lsn: Lsn(START), .. }), "{place}");
    }
}

#[test]
fn a_flipped_byte_anywhere_between_is_damage() {
    let wal = full();
    let good = wal.segment(0);
    let verdict = |place: usize| {
        let mut bytes = good.clone();
        bytes[place] ^= 1;
        check(&bytes)
    };
    for place in [40, 100, 4000, 8192, 8193, 8200, 500_000, 524_288, 900_001] {
        assert!(matches!(verdict(place), SegmentVerdict::Damaged { .. }), "{place}: {:?}", verdict(place));
    }
    // The last record goes on in the next segment: it cannot be judged here.
    assert!(verdict((1 << 20) - 1).is_sound());
}

#[test]
fn zeroed_pages_are_damage_in_the_middle_and_an_early_end_at_the_end() {
    let good = full().segment(0);
    let mut middle = good.clone();
    middle[65_536..131_072].fill(0);
    let SegmentVerdict::Damaged { reason, .. } = check(&middle) else { panic!("{:?}", check(&middle)) };
    assert!(reason.contains("goes on at 0/320000"), "{reason}");
    let mut tail = good.clone();
    tail[65_536..].fill(0);
    let verdict = check(&tail);
    assert!(matches!(verdict, SegmentVerdict::EndsEarly { .. }), "{verdict:?}");
    assert!(!verdict.is_sound() && verdict.finding().is_some());
}

#[test]
fn a_recycled_tail_is_an_early_end() {
    let mut wal = Synth::new(START);
    wal.filler(20_000);
    let mut older = Synth::new(START - (1 << 20));
    older.fill();
    let mut bytes = wal.segment(0);
    bytes[24_576..].copy_from_slice(&older.segment(0)[24_576..]);
    assert!(matches!(check(&bytes), SegmentVerdict::EndsEarly { .. }), "{:?}", check(&bytes));
}

#[test]
fn a_voided_record_is_legal_in_both_its_segments() {
    let mut wal = Synth::new(START);
    wal.filler(500_000);
    let before = wal.filler(540_000);
    let voided = wal.filler(30_000);
    let border = Lsn(START + (1 << 20));
    assert!(voided < border);
    wal.overwrite(voided, border, before);
    wal.fill();
    assert!(check(&wal.segment(0)).is_sound());
    let second = check_segment(name(1, border.0), &wal.segment(1), MIB, SYSTEM).unwrap();
    assert!(second.is_sound(), "{second:?}");

    let mut same = Synth::new(START);
    let before = same.filler(100);
    let voided = same.filler(50_000);
    same.overwrite(voided, Lsn(START + 24_576), before);
    same.fill();
    assert!(check(&same.segment(0)).is_sound());
}

#[test]
fn the_first_segment_of_a_timeline_begins_with_pages_of_its_parent() {
    let mut wal = Synth::new(START);
    wal.filler(30_000);
    wal.timeline = TimelineId(2);
    wal.fill();
    assert!(check_segment(name(2, START), &wal.segment(0), MIB, SYSTEM).unwrap().is_sound());
    // Under the parent's name the later pages do not belong.
    assert!(matches!(check(&wal.segment(0)), SegmentVerdict::Damaged { .. }));
}

#[test]
fn a_segment_inside_one_long_record_is_sound() {
    let mut wal = Synth::new(START);
    wal.filler(3 << 20);
    wal.fill();
    for index in 0..4u64 {
        let name = name(1, START + (index << 20));
        let verdict = check_segment(name, &wal.segment(index as usize), MIB, SYSTEM).unwrap();
        assert!(verdict.is_sound(), "{index}: {verdict:?}");
    }
}
