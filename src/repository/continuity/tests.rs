use super::*;
use crate::postgres::history::{Ancestor, History};
use crate::repository::keys::wal::WalObjectName;
use crate::repository::wal_listing::tests::listing;

const SIZE: SegmentSize = SegmentSize::DEFAULT;
const D: ShortDigest = ShortDigest([7; 16]);

fn seg(timeline: u32, number: u64) -> SegmentName {
    SegmentName::numbered(TimelineId(timeline), number, SIZE)
}
fn whole(timeline: u32, numbers: impl IntoIterator<Item = u64>) -> Vec<WalObjectName> {
    let one = |n| WalObjectName::Segment { segment: seg(timeline, n), digest: D };
    numbers.into_iter().map(one).collect()
}
fn bad(timeline: u32, number: u64) -> WalObjectName {
    WalObjectName::Damaged { segment: seg(timeline, number), digest: D }
}
fn head(timeline: u32, number: u64, from: u32, to: u32) -> WalObjectName {
    WalObjectName::Head { segment: seg(timeline, number), from, to, digest: D }
}
fn at(number: u64, offset: u64) -> Lsn {
    Lsn(number * SIZE.bytes() + offset)
}
/// A path through timelines 1, 2 … that left each at the given positions.
fn path(switches: &[Lsn]) -> TimelinePath {
    let ancestors = switches.iter().zip(1..).map(|(switch, id)| Ancestor {
        timeline: TimelineId(id),
        switch: *switch,
        reason: String::new(),
    });
    let timeline = TimelineId(u32::try_from(switches.len()).unwrap() + 1);
    History { timeline, ancestors: ancestors.collect() }.path()
}
fn follow(names: &[WalObjectName], switches: &[Lsn], start: Lsn) -> Reach {
    reach(&listing(names), SIZE, &path(switches), start)
}
fn hole(reach: &Reach) -> Hole {
    match &reach.stop {
        Stop::Hole(hole) => hole.clone(),
        Stop::EndOfWal => panic!("the way ends at the end of WAL"),
    }
}
/// `1: 3-5`, with the ending behind.
fn shape(reach: &Reach) -> Vec<String> {
    let number = |s: SegmentName| s.number(SIZE);
    let leg = |l: &ReachLeg| {
        let whole = l.whole.map_or(String::new(), |(a, b)| format!(" {}-{}", number(a), number(b)));
        let ending = l.ending.as_ref().map_or(String::new(), |e| {
            let kind = match e {
                Ending::Heads { .. } => "heads",
                Ending::Truncated { .. } => "truncated",
                Ending::Partial { .. } => "partial",
            };
            format!(" {kind} {} until {}", number(e.segment()), e.until())
        });
        format!("{}:{whole}{ending}", l.timeline)
    };
    reach.legs.iter().map(leg).collect()
}

#[test]
fn one_timeline_is_followed_to_its_last_segment() {
    let r = follow(&whole(1, 2..=6), &[], at(3, 40));
    assert_eq!((shape(&r), r.end, r.stop), (vec!["1: 3-6".to_owned()], at(7, 0), Stop::EndOfWal));
}

#[test]
fn heads_go_on_after_the_last_whole_segment() {
    let mut names = whole(1, 3..=4);
    names.extend([head(1, 5, 0, 100), head(1, 5, 100, 300), head(1, 5, 80, 250), head(1, 5, 400, 500)]);
    let r = follow(&names, &[], at(3, 40));
    assert_eq!(shape(&r), ["1: 3-4 heads 5 until 300"]);
    assert_eq!(r.end, at(5, 300));
    // The head from 400 on does not join: bytes are missing, and bytes beyond are there.
    assert_eq!(hole(&r).first_missing, seg(1, 5));
    names.pop();
    assert_eq!(follow(&names, &[], at(3, 40)).stop, Stop::EndOfWal);
}

#[test]
fn heads_that_do_not_begin_with_the_segment_are_no_tail() {
    let mut names = whole(1, 3..=4);
    names.push(head(1, 5, 8, 100));
    let r = follow(&names, &[], at(3, 0));
    assert_eq!((shape(&r), r.end), (vec!["1: 3-4".to_owned()], at(5, 0)));
    assert!(matches!(r.stop, Stop::Hole(_)));
}

#[test]
fn a_whole_segment_wins_over_its_heads() {
    let mut names = whole(1, 3..=5);
    names.push(head(1, 5, 0, 100));
    assert_eq!(shape(&follow(&names, &[], at(3, 0))), ["1: 3-5"]);
}

#[test]
fn a_missing_segment_with_wal_beyond_is_a_hole() {
    let mut names = whole(1, 3..=4);
    names.extend(whole(1, 7..=9));
    let r = follow(&names, &[], at(3, 0));
    assert_eq!(r.end, at(5, 0));
    let expected = Hole {
        from: at(5, 0),
        to: Some(at(7, 0)),
        first_missing: seg(1, 5),
        next: Some(seg(1, 7)),
        damaged: false,
    };
    assert_eq!(hole(&r), expected);
    assert_eq!(holes(&listing(&names), TimelineId(1), SIZE), [expected]);
}

#[test]
fn a_segment_marked_damaged_is_a_hole_until_a_sound_one_is_there() {
    let mut names = whole(1, 3..=5);
    names.push(bad(1, 5));
    let r = follow(&names, &[], at(3, 0));
    assert_eq!((r.end, hole(&r).damaged, hole(&r).next), (at(5, 0), true, None));
    assert!(holes(&listing(&names), TimelineId(1), SIZE)[0].damaged);
    names.extend(whole(1, 6..=6));
    assert_eq!(hole(&follow(&names, &[], at(3, 0))).next, Some(seg(1, 6)));
    names.push(WalObjectName::Segment { segment: seg(1, 5), digest: ShortDigest([8; 16]) });
    let r = follow(&names, &[], at(3, 0));
    assert_eq!((r.end, r.stop, r.forks), (at(7, 0), Stop::EndOfWal, vec![]));
}

#[test]
fn the_switch_segment_is_read_from_the_child_once_the_child_has_it() {
    let mut names = whole(1, 3..=9);
    names.extend(whole(2, 5..=7));
    let r = follow(&names, &[at(5, 1000)], at(3, 0));
    assert_eq!(shape(&r), ["1: 3-4", "2: 5-7"]);
    assert_eq!((r.end, r.stop), (at(8, 0), Stop::EndOfWal));
}

#[test]
fn where_the_child_has_nothing_the_way_ends_exactly_at_the_fork() {
    let r = follow(&whole(1, 3..=9), &[at(5, 1000)], at(3, 0));
    assert_eq!(shape(&r), ["1: 3-4 truncated 5 until 1000"]);
    assert_eq!((r.end, r.stop), (at(5, 1000), Stop::EndOfWal));
}

#[test]
fn a_fork_on_a_segments_border_needs_nothing_of_the_parents_next_segment() {
    let r = follow(&whole(1, 3..=9), &[at(5, 0)], at(3, 0));
    assert_eq!(shape(&r), ["1: 3-4"]);
    assert_eq!((r.end, r.stop), (at(5, 0), Stop::EndOfWal));
}

#[test]
fn the_partial_file_of_a_promotion_reaches_the_fork_too() {
    let mut names = whole(1, 3..=4);
    names.push(WalObjectName::Partial { segment: seg(1, 5), digest: D });
    let r = follow(&names, &[at(5, 1000)], at(3, 0));
    assert_eq!(shape(&r), ["1: 3-4 partial 5 until 1000"]);
    assert_eq!(r.stop, Stop::EndOfWal);
}

#[test]
fn heads_of_the_parent_are_cut_at_the_fork() {
    let mut names = whole(1, 3..=4);
    names.push(head(1, 5, 0, 5000));
    let r = follow(&names, &[at(5, 1000)], at(3, 0));
    assert_eq!((shape(&r), r.stop), (vec!["1: 3-4 heads 5 until 1000".to_owned()], Stop::EndOfWal));
    // Too short to reach the fork: the bytes in between are lost.
    names.pop();
    names.push(head(1, 5, 0, 500));
    let r = follow(&names, &[at(5, 1000)], at(3, 0));
    assert_eq!((r.end, hole(&r).from), (at(5, 500), at(5, 500)));
}

#[test]
fn the_childs_first_heads_are_its_switch_segment() {
    let mut names = whole(1, 3..=9);
    names.push(head(2, 5, 0, 1500));
    let r = follow(&names, &[at(5, 1000)], at(3, 0));
    assert_eq!(shape(&r), ["1: 3-4", "2: heads 5 until 1500"]);
    // Heads that hold nothing of the child's own are worth no more than the parent's file.
    names.pop();
    names.push(head(2, 5, 0, 800));
    assert_eq!(shape(&follow(&names, &[at(5, 1000)], at(3, 0))), ["1: 3-4 truncated 5 until 1000"]);
}

#[test]
fn two_switches_in_one_segment_are_read_from_the_newest_timeline() {
    let switches = [at(5, 1000), at(5, 2000)];
    let mut names = whole(1, 3..=5);
    names.extend(whole(2, 5..=6));
    names.extend(whole(3, 5..=6));
    assert_eq!(shape(&follow(&names, &switches, at(3, 0))), ["1: 3-4", "3: 5-6"]);
    names.truncate(5);
    let r = follow(&names, &switches, at(3, 0));
    assert_eq!(
        (shape(&r), r.stop),
        (vec!["1: 3-4".to_owned(), "2: truncated 5 until 2000".to_owned()], Stop::EndOfWal)
    );
}

#[test]
fn a_child_that_goes_on_without_its_first_segment_leaves_a_hole_at_the_fork() {
    let mut names = whole(1, 3..=9);
    names.extend(whole(2, 6..=7));
    let r = follow(&names, &[at(5, 1000)], at(3, 0));
    assert_eq!(r.end, at(5, 1000));
    assert_eq!((hole(&r).first_missing, hole(&r).next), (seg(2, 5), Some(seg(2, 6))));
}

#[test]
fn an_ancestor_that_ends_before_its_switch_leaves_a_hole() {
    let r = follow(&whole(1, 3..=3), &[at(5, 1000)], at(3, 0));
    assert_eq!((hole(&r).from, hole(&r).next), (at(4, 0), None));
}

#[test]
fn a_dead_timeline_is_never_followed_past_its_fork() {
    let mut names = whole(1, 3..=20);
    names.extend(whole(2, 5..=5));
    let r = follow(&names, &[at(5, 1000)], at(3, 0));
    assert_eq!((shape(&r), r.end), (vec!["1: 3-4".to_owned(), "2: 5-5".to_owned()], at(6, 0)));
    assert_eq!(r.stop, Stop::EndOfWal);
}

#[test]
fn a_backup_of_the_child_does_not_go_back_to_the_parent() {
    let r = follow(&whole(1, 3..=9), &[at(5, 1000)], at(5, 2000));
    assert_eq!((r.legs.len(), r.end), (0, at(5, 2000)));
}

#[test]
fn two_contents_of_one_name_are_a_fork() {
    let mut names = whole(1, 3..=5);
    names.push(WalObjectName::Segment { segment: seg(1, 4), digest: ShortDigest([8; 16]) });
    let r = follow(&names, &[], at(3, 0));
    assert_eq!((r.end, r.forks), (at(6, 0), vec![seg(1, 4)]));
    assert_eq!(forks(&listing(&names))[0].digests.len(), 2);
}

#[test]
fn runs_of_a_timeline_carry_their_heads() {
    let mut names = whole(1, 3..=4);
    names.extend(whole(1, 7..=7));
    names.extend([head(1, 5, 0, 100), head(1, 10, 0, 50), head(1, 7, 0, 50)]);
    let runs = runs(&listing(&names), TimelineId(1), SIZE);
    let shape: Vec<_> = runs.iter().map(|r| (r.from, r.whole_until, r.until)).collect();
    let expected = [
        (at(3, 0), at(5, 0), at(5, 100)),
        (at(7, 0), at(8, 0), at(8, 0)),
        (at(10, 0), at(10, 0), at(10, 50)),
    ];
    assert_eq!(shape, expected);
}

#[test]
fn segment_numbers_go_on_over_the_border_of_a_log() {
    let r = follow(&whole(1, 254..=258), &[], at(254, 0));
    assert_eq!((r.end, r.stop), (at(259, 0), Stop::EndOfWal));
}

const SEGMENT: u32 = 16 << 20;

/// A segment that is there only as two heads.
fn covered(timeline: u32, number: u64) -> [WalObjectName; 2] {
    [head(timeline, number, 0, 5000), head(timeline, number, 5000, SEGMENT)]
}

#[test]
fn a_segment_that_heads_cover_is_passed_and_the_next_ones_heads_follow() {
    let mut names = whole(1, 3..=4);
    names.extend(covered(1, 5));
    names.extend(covered(1, 6));
    names.push(head(1, 7, 0, 300));
    let r = follow(&names, &[], at(3, 40));
    assert_eq!(shape(&r), ["1: 3-6 heads 7 until 300"]);
    assert_eq!((r.end, &r.stop), (at(7, 300), &Stop::EndOfWal));
    assert_eq!(r.joined.keys().copied().collect::<Vec<_>>(), [seg(1, 5), seg(1, 6)]);
    let run = runs(&listing(&names), TimelineId(1), SIZE);
    assert_eq!(run.len(), 1);
    assert_eq!((run[0].whole_until, run[0].until, run[0].tail.len()), (at(7, 0), at(7, 300), 1));
    assert_eq!(holes(&listing(&names), TimelineId(1), SIZE), []);
}

#[test]
fn whole_segments_go_on_after_one_that_heads_cover() {
    let mut names = whole(1, 3..=4);
    names.extend(covered(1, 5));
    names.extend(whole(1, 6..=8));
    let r = follow(&names, &[], at(3, 40));
    assert_eq!((shape(&r), r.stop), (vec!["1: 3-8".to_owned()], Stop::EndOfWal));
    assert_eq!(holes(&listing(&names), TimelineId(1), SIZE), []);
}

#[test]
fn one_byte_missing_at_a_segments_end_makes_what_follows_unreachable() {
    let mut names = whole(1, 3..=4);
    names.extend([head(1, 5, 0, SEGMENT - 1), head(1, 6, 0, 300)]);
    let r = follow(&names, &[], at(3, 40));
    assert_eq!(shape(&r), [format!("1: 3-4 heads 5 until {}", SEGMENT - 1)]);
    assert_eq!(hole(&r).next, Some(seg(1, 6)));
    assert_eq!(runs(&listing(&names), TimelineId(1), SIZE).len(), 2);
}

#[test]
fn heads_stand_in_for_a_segment_that_is_marked_damaged() {
    let mut names = whole(1, 3..=6);
    names.push(bad(1, 5));
    names.extend(covered(1, 5));
    let r = follow(&names, &[], at(3, 0));
    assert_eq!((shape(&r), r.stop), (vec!["1: 3-6".to_owned()], Stop::EndOfWal));
}
