use super::*;
use crate::postgres::history::{Ancestor, History};
use crate::repository::continuity::{HeadRange, reach};
use crate::repository::keys::wal::WalObjectName;
use crate::repository::wal_listing::tests::listing;

const SIZE: SegmentSize = SegmentSize::DEFAULT;
const D: ShortDigest = ShortDigest([7; 16]);
const OTHER: ShortDigest = ShortDigest([8; 16]);

fn seg(timeline: u32, number: u64) -> SegmentName {
    SegmentName::numbered(TimelineId(timeline), number, SIZE)
}
fn at(number: u64, offset: u64) -> Lsn {
    Lsn(number * SIZE.bytes() + offset)
}
fn whole(timeline: u32, numbers: impl IntoIterator<Item = u64>) -> Vec<WalObjectName> {
    numbers.into_iter().map(|n| WalObjectName::Segment { segment: seg(timeline, n), digest: D }).collect()
}
fn history(timeline: u32) -> WalObjectName {
    WalObjectName::History { timeline: TimelineId(timeline), digest: D }
}
/// Path 1 → 3 (fork at segment 5, offset 1000), started at segment 3; timeline 2 is a dead branch.
fn plan(names: &[WalObjectName], start: Lsn) -> RecoveryPlan {
    let ancestors = vec![Ancestor { timeline: TimelineId(1), switch: at(5, 1000), reason: String::new() }];
    let path = History { timeline: TimelineId(3), ancestors }.path();
    let listing = listing(names);
    let found = reach(&listing, SIZE, &path, start);
    let histories = listing.histories().map(|(t, o)| (t, o[0].digest)).collect();
    let chosen = [(WalFileName::Segment(seg(1, 4)), OTHER)].into();
    RecoveryPlan::new(
        ClusterName::parse("main").unwrap(),
        SystemId(42),
        SIZE,
        "2026-11-21T02:00:00Z".parse().unwrap(),
        "latest".to_owned(),
        &path,
        &found,
        histories,
        &listing,
        &chosen,
        vec![RepoName::parse("a").unwrap()],
    )
}
fn full() -> Vec<WalObjectName> {
    let mut names = whole(1, 3..=9);
    names.extend(whole(2, 5..=12));
    names.extend(whole(3, 5..=7));
    names.extend([history(2), history(3), history(6)]);
    names
}
/// What `wal fetch` would answer: `0`, `1` or `200`, with what it would deliver.
fn answer(plan: &RecoveryPlan, name: &str) -> String {
    match plan.decide(WalFileName::parse(name).unwrap()) {
        Decision::Segment { digest, .. } => {
            format!("0 segment{}", if digest == Some(OTHER) { " other" } else { "" })
        }
        Decision::Ending { ending: Ending::Truncated { until, .. }, .. } => format!("0 truncated {until}"),
        Decision::Ending { ending: Ending::Partial { until, .. }, .. } => format!("0 partial {until}"),
        Decision::Ending { ending: Ending::Heads { until, .. }, .. } => format!("0 heads {until}"),
        Decision::History { .. } => "0 history".to_owned(),
        Decision::StandIn { .. } => "0 stand-in".to_owned(),
        Decision::DoesNotExist { .. } => "1".to_owned(),
        Decision::OutsidePlan { .. } => "200".to_owned(),
    }
}
fn answers(plan: &RecoveryPlan, table: &[(SegmentName, &str)]) {
    for (segment, expected) in table {
        assert_eq!(answer(plan, &segment.to_string()), *expected, "{segment}");
    }
}

#[test]
fn every_segment_of_a_path_over_two_timelines_has_its_answer() {
    answers(
        &plan(&full(), at(3, 100)),
        &[
            // Before the first: no part of this recovery, and no reason to end it.
            (seg(1, 0), "200"),
            (seg(1, 2), "200"),
            (seg(1, 3), "0 segment"),
            (seg(1, 4), "0 segment other"),
            // The switch segment: the child's copy exists.
            (seg(1, 5), "1"),
            // The dead end of the ancestor.
            (seg(1, 6), "1"),
            (seg(1, 9), "1"),
            // A timeline that is not on the path.
            (seg(2, 4), "1"),
            (seg(2, 5), "1"),
            (seg(2, 12), "1"),
            // The child.
            (seg(3, 4), "200"),
            (seg(3, 5), "0 segment"),
            (seg(3, 7), "0 segment"),
            (seg(3, 8), "1"),
            (seg(3, 5000), "1"),
            // A timeline of the future.
            (seg(7, 8), "1"),
        ],
    );
}

#[test]
fn the_switch_segment_is_cut_at_the_fork_only_where_the_child_has_no_copy() {
    let mut names = whole(1, 3..=9);
    names.push(history(3));
    answers(
        &plan(&names, at(3, 100)),
        &[
            (seg(1, 4), "0 segment other"),
            (seg(3, 5), "1"),
            (seg(1, 5), "0 truncated 1000"),
            (seg(3, 6), "1"),
            (seg(1, 6), "1"),
            (seg(3, 4), "200"),
        ],
    );
}

#[test]
fn past_the_tail_there_is_nothing() {
    let mut names = full();
    names.push(WalObjectName::Head { segment: seg(3, 8), from: 0, to: 4096, digest: D });
    let plan = plan(&names, at(3, 0));
    answers(&plan, &[(seg(3, 7), "0 segment"), (seg(3, 8), "0 heads 4096"), (seg(3, 9), "1")]);
    assert_eq!(plan.end(), at(8, 4096));
}

#[test]
fn a_hole_is_the_end_of_the_plan() {
    let mut names = full();
    names.retain(|n| n.segment() != Some(seg(3, 6)));
    let plan = plan(&names, at(3, 0));
    answers(&plan, &[(seg(3, 5), "0 segment"), (seg(3, 6), "1"), (seg(3, 7), "1")]);
    assert_eq!(plan.end(), at(6, 0));
}

#[test]
fn an_ancestor_that_ends_in_a_hole_has_its_end_there() {
    let mut names = full();
    names.retain(|n| n.segment() != Some(seg(1, 4)));
    let plan = plan(&names, at(3, 0));
    answers(
        &plan,
        &[(seg(1, 3), "0 segment"), (seg(1, 4), "1"), (seg(1, 5), "1"), (seg(3, 5), "1"), (seg(3, 6), "1")],
    );
}

#[test]
fn a_backup_of_the_child_needs_nothing_of_its_ancestor() {
    answers(
        &plan(&full(), at(6, 0)),
        &[
            (seg(1, 4), "200"),
            (seg(1, 5), "200"),
            (seg(3, 5), "200"),
            (seg(3, 6), "0 segment"),
            (seg(3, 8), "1"),
        ],
    );
}

#[test]
fn every_history_file_is_delivered_and_used_ids_without_one_have_a_stand_in() {
    let plan = plan(&full(), at(3, 0));
    for (id, expected) in [
        (1, "1"), // on the path, and timeline 1 never has one
        (2, "0 history"),
        (3, "0 history"),
        (4, "0 stand-in"),
        (5, "0 stand-in"),
        (6, "0 history"),
        (7, "1"),
        (u32::MAX, "1"),
    ] {
        assert_eq!(answer(&plan, &WalFileName::History(TimelineId(id)).to_string()), expected, "{id}");
    }
}

#[test]
fn a_timeline_known_by_a_segment_or_a_head_alone_is_taken() {
    let mut names = full();
    names.push(WalObjectName::Head { segment: seg(9, 8), from: 0, to: 4096, digest: D });
    let plan = plan(&names, at(3, 0));
    assert_eq!(answer(&plan, "00000009.history"), "0 stand-in");
    assert_eq!(answer(&plan, "0000000A.history"), "1");
}

#[test]
fn a_target_timeline_without_its_history_file_has_no_stand_in() {
    let mut names = full();
    names.retain(|n| *n != history(3));
    assert_eq!(answer(&plan(&names, at(3, 0)), "00000003.history"), "1");
}

#[test]
fn recovery_has_no_use_for_partial_and_backup_files() {
    let plan = plan(&full(), at(3, 0));
    for name in ["000000010000000000000004.partial", "000000010000000000000003.00000028.backup"] {
        assert_eq!(answer(&plan, name), "1");
    }
}

#[test]
fn a_name_that_this_segment_size_cannot_have_fails() {
    assert_eq!(answer(&plan(&full(), at(3, 0)), "000000010000000000000100"), "200");
}

#[test]
fn replay_is_followed_over_the_fork_to_the_end() {
    let plan = plan(&full(), at(3, 0));
    let mut order = vec![seg(1, 3)];
    while let Some(next) = plan.following(*order.last().unwrap()) {
        order.push(next);
    }
    assert_eq!(order, [seg(1, 3), seg(1, 4), seg(3, 5), seg(3, 6), seg(3, 7)]);
}

#[test]
fn a_plan_reads_back_and_an_unreadable_one_is_refused() {
    let mut names = full();
    names.push(WalObjectName::Head { segment: seg(3, 8), from: 0, to: 4096, digest: D });
    let plan = plan(&names, at(3, 0));
    let json = plan.to_json().unwrap();
    assert_eq!(RecoveryPlan::parse(&json).unwrap(), plan);
    let ending = plan.timelines[1].ending.clone().unwrap();
    assert_eq!(
        ending,
        Ending::Heads {
            segment: seg(3, 8),
            heads: vec![HeadRange { from: 0, to: 4096, digest: D }],
            until: 4096
        }
    );
    for cut in [0, 1, json.len() / 2, json.len() - 1] {
        assert_eq!(RecoveryPlan::parse(&json[..cut]).unwrap_err().code(), Code::Damaged);
    }
    let newer = String::from_utf8(json).unwrap().replacen("\"format\": 1", "\"format\": 2", 1);
    assert_eq!(RecoveryPlan::parse(newer.as_bytes()).unwrap_err().code(), Code::FormatTooNew);
}

#[test]
fn a_plan_that_ends_at_a_target_holds_nothing_after_it() {
    let mut cut = plan(&full(), at(3, 100));
    assert_eq!(cut.segments(), 5);
    cut.end_at(at(6, 8));
    assert_eq!((cut.end(), cut.segments()), (at(7, 0), 4));
    answers(&cut, &[(seg(3, 6), "0 segment"), (seg(3, 7), "1"), (seg(1, 5), "1")]);
    // Exactly the end of a segment: the next one is not needed.
    cut.end_at(at(5, 0));
    assert_eq!((cut.end(), cut.segments()), (at(5, 0), 2));
    answers(&cut, &[(seg(1, 4), "0 segment other"), (seg(1, 5), "1"), (seg(3, 5), "1")]);
}

#[test]
fn an_ending_after_the_target_is_dropped_and_one_with_it_stays() {
    let mut names = whole(1, 3..=9);
    names.push(history(3));
    let truncated = plan(&names, at(3, 100));
    let mut cut = truncated.clone();
    cut.end_at(at(5, 400));
    assert_eq!(cut, truncated);
    cut.end_at(at(4, 400));
    answers(&cut, &[(seg(1, 4), "0 segment other"), (seg(1, 5), "1")]);
}

#[test]
fn segments_that_heads_cover_are_served_from_them_and_replay_goes_on() {
    let until = 16 << 20;
    let mut names = full();
    names.extend([
        WalObjectName::Head { segment: seg(3, 8), from: 0, to: 4096, digest: D },
        WalObjectName::Head { segment: seg(3, 8), from: 4096, to: until, digest: D },
        WalObjectName::Head { segment: seg(3, 9), from: 0, to: 512, digest: D },
    ]);
    let plan = RecoveryPlan::parse(&plan(&names, at(3, 0)).to_json().unwrap()).unwrap();
    answers(
        &plan,
        &[
            (seg(3, 7), "0 segment"),
            (seg(3, 8), "0 heads 16777216"),
            (seg(3, 9), "0 heads 512"),
            (seg(3, 10), "1"),
        ],
    );
    assert_eq!((plan.end(), plan.following(seg(3, 7))), (at(9, 512), Some(seg(3, 8))));
    assert_eq!(plan.following(seg(3, 8)), Some(seg(3, 9)));
    let mut ended = plan.clone();
    ended.end_at(at(8, 100));
    answers(&ended, &[(seg(3, 8), "0 heads 16777216"), (seg(3, 9), "1")]);
}
