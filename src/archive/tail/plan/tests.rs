use super::*;
use crate::model::ShortDigest;

const SIZE: SegmentSize = SegmentSize::DEFAULT;
const SEGMENT: u32 = 16 << 20;
const T: TimelineId = TimelineId(1);

fn at(number: u64, offset: u64) -> Lsn {
    Lsn(number * SIZE.bytes() + offset)
}
/// A tail that was begun at the first byte of segment 5, whose repositories hold no heads.
fn begun(flush: Lsn) -> Shipped {
    let mut shipped = Shipped::begin(T, SIZE, flush, None);
    for segment in shipped.unknown() {
        shipped.adopt(segment, &[]);
    }
    shipped
}
fn spans(due: &Due) -> Vec<(u64, u32, u32)> {
    due.ranges.iter().map(|r| (r.segment.number(SIZE), r.from, r.to)).collect()
}
/// Everything that is due, shipped.
fn ship(shipped: &mut Shipped) -> Vec<(u64, u32, u32)> {
    let due = shipped.due(LONGEST);
    due.ranges.iter().for_each(|range| shipped.shipped(*range));
    spans(&due)
}

#[test]
fn each_look_ships_what_was_flushed_since_the_last() {
    let mut tail = begun(at(5, 300));
    assert_eq!(tail.end(), at(5, 0));
    assert_eq!(ship(&mut tail), [(5, 0, 300)]);
    assert_eq!((tail.end(), ship(&mut tail)), (at(5, 300), vec![]));
    tail.advance(at(5, 1000));
    assert_eq!(tail.end(), at(5, 300));
    assert_eq!(ship(&mut tail), [(5, 300, 1000)]);
    // A flush position at a boundary: the segment is finished, the next one empty.
    tail.advance(at(6, 0));
    tail.archived(at(6, 0));
    assert_eq!((ship(&mut tail), tail.end()), (vec![], at(6, 0)));
}

#[test]
fn a_head_that_was_not_confirmed_is_part_of_the_next_one() {
    let mut tail = begun(at(5, 300));
    assert_eq!(spans(&tail.due(LONGEST)), [(5, 0, 300)]);
    tail.advance(at(5, 900));
    assert_eq!(ship(&mut tail), [(5, 0, 900)]);
}

#[test]
fn a_long_range_goes_in_pieces() {
    let mut tail = begun(at(5, 5 << 20));
    let due = tail.due(2 << 20);
    assert_eq!(spans(&due), [(5, 0, 2 << 20), (5, 2 << 20, 4 << 20), (5, 4 << 20, 5 << 20)]);
    tail.shipped(due.ranges[0]);
    assert_eq!(tail.end(), at(5, 2 << 20));
    assert_eq!(spans(&tail.due(8 << 20)), [(5, 2 << 20, 5 << 20)]);
}

#[test]
fn the_rest_of_a_finished_segment_is_shipped_until_the_archive_has_it() {
    let mut tail = begun(at(5, 15 << 20));
    ship(&mut tail);
    // A little is missing of it: shipped at once, before the next segment's first bytes.
    tail.advance(at(6, 500));
    assert_eq!(tail.finished().len(), 1);
    assert_eq!(ship(&mut tail), [(5, 15 << 20, SEGMENT), (6, 0, 500)]);
    assert_eq!((ship(&mut tail), tail.end()), (vec![], at(6, 500)));
    tail.archived(at(6, 0));
    assert_eq!((tail.finished(), tail.end()), (vec![], at(6, 500)));
}

#[test]
fn what_is_finished_and_archived_is_never_shipped() {
    let mut tail = begun(at(5, 15 << 20));
    ship(&mut tail);
    tail.advance(at(7, 500));
    tail.archived(at(7, 0));
    assert_eq!(ship(&mut tail), [(7, 0, 500)]);
    tail.advance(at(9, 10));
    for segment in tail.finished() {
        tail.forget(segment);
    }
    assert_eq!(ship(&mut tail), [(9, 0, 10)]);
    assert_eq!(tail.end(), at(9, 10));
}

#[test]
fn the_archiver_gets_the_time_of_one_look_for_a_segment_of_which_much_is_missing() {
    let mut tail = begun(at(5, 1000));
    ship(&mut tail);
    tail.advance(at(6, 700));
    assert_eq!(ship(&mut tail), [(6, 0, 700)]);
    // What is there ends where the gap begins.
    assert_eq!(tail.end(), at(5, 1000));
    tail.advance(at(6, 800));
    let shipped = ship(&mut tail);
    assert_eq!(shipped.first(), Some(&(5, 1000, 1000 + LONGEST)));
    assert_eq!(shipped.last(), Some(&(6, 700, 800)));
    assert_eq!(tail.end(), at(6, 800));
}

#[test]
fn far_behind_the_tail_leaves_the_store_to_the_archiver() {
    let mut tail = begun(at(5, 1000));
    ship(&mut tail);
    tail.advance(at(20, 700));
    let due = tail.due(LONGEST);
    assert_eq!((due.ranges.len(), due.backlog), (0, 15 * SIZE.bytes() - 1000));
    assert_eq!(tail.end(), at(5, 1000));
    tail.archived(at(19, 0));
    // The archiver has had its time for the last one meanwhile, or gets it now.
    assert_eq!(ship(&mut tail), [(20, 0, 700)]);
    assert_eq!(tail.due(LONGEST).ranges.len(), 2);
}

#[test]
fn a_restarted_agent_goes_on_from_what_the_repositories_hold() {
    let oldest = SegmentName::numbered(T, 4, SIZE);
    let mut tail = Shipped::begin(T, SIZE, at(5, 900), Some(oldest));
    assert_eq!(tail.unknown().len(), 2);
    let head = |from, to| HeadRange { from, to, digest: ShortDigest([0; 16]) };
    tail.adopt(oldest, &[head(0, 100), head(100, SEGMENT)]);
    tail.adopt(oldest.next(SIZE), &[head(0, 400)]);
    assert_eq!((tail.unknown().len(), tail.end()), (0, at(5, 400)));
    assert_eq!(ship(&mut tail), [(5, 400, 900)]);
}

#[test]
fn many_small_heads_become_few_and_a_reader_needs_few() {
    let (mut tail, mut uploaded, mut objects) = (begun(at(5, 0)), 0u64, 0u64);
    let looks = 28_800; // a day of one every three seconds
    for look in 1..=looks {
        tail.advance(at(5, look * 500));
        for (_, from, to) in ship(&mut tail) {
            objects += 1;
            uploaded += u64::from(to - from);
        }
    }
    assert_eq!((objects, tail.end()), (looks, at(5, looks * 500)));
    let links = &tail.segments[&5].chain.0;
    assert!(links.len() < 3 * GROUP, "{} heads to read", links.len());
    assert!(links.windows(2).all(|pair| pair[0].to == pair[1].from), "heads overlap: readers would compare");
    assert!(uploaded < 4 * looks * 500, "{uploaded} bytes for {}", looks * 500);
}

#[test]
fn a_segment_that_fills_within_minutes_is_uploaded_once() {
    let (mut tail, mut uploaded) = (begun(at(5, 0)), 0u64);
    for look in 1..=60 {
        tail.advance(at(5, look * 262_144));
        uploaded += ship(&mut tail).iter().map(|(_, from, to)| u64::from(to - from)).sum::<u64>();
    }
    assert_eq!(uploaded, 60 * 262_144);
}

#[test]
fn heads_too_long_to_join_do_not_keep_later_small_ones_apart() {
    let mut tail = begun(at(5, 0));
    let mut flush = 0;
    for step in std::iter::repeat_n(200_000, 60).chain(std::iter::repeat_n(100, 200)) {
        flush += step;
        tail.advance(at(5, flush));
        ship(&mut tail);
    }
    assert!(tail.segments[&5].chain.0.len() < 2 * GROUP);
}
