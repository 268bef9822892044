//! WAL as a whole: no hole behind the oldest base backup, every base backup's own WAL, no end that has moved back. Pure.
//!
//! Where base backups expire, WAL does: holes before the retained window's first base backup (`floor`) are meant, but
//! for the retained backups' own WAL, and so is the end of a timeline that recoveries have left.

use std::collections::{BTreeMap, BTreeSet};

use super::memory::{Memory, WalEnd};
use super::wal::Content;
use crate::model::{BackupId, Lsn, SegmentName, SegmentSize, SystemId, TimelineId, Timestamp, WalFileName};
use crate::postgres::history::{History, TimelinePath};
use crate::repository::continuity::{self, Fork, Hole, Stop};
use crate::repository::wal_listing::WalListing;
use crate::repository::window::BackupPoint;

/// A hole, and the base backups around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) timeline: TimelineId,
    pub(super) hole: Hole,
    /// The newest that is consistent before it.
    pub(super) before: Option<BackupPoint>,
    /// The oldest that begins behind it.
    pub(super) after: Option<BackupPoint>,
    /// Where later pieces of the same, unfinished segment go on.
    pub(super) piece: Option<Lsn>,
}

/// A base backup whose own WAL is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Incomplete {
    pub(super) backup: BackupPoint,
    pub(super) missing: SegmentName,
    pub(super) damaged: bool,
}

/// WAL that was there once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shorter {
    pub(super) before: WalEnd,
    pub(super) until: Lsn,
    /// The first segment that is not there any more.
    pub(super) missing: SegmentName,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Gaps {
    pub(super) holes: Vec<Gap>,
    pub(super) incomplete: Vec<Incomplete>,
    pub(super) shorter: Vec<Shorter>,
    pub(super) forks: Vec<Fork>,
    /// Timelines whose history file is not there.
    pub(super) histories: Vec<TimelineId>,
    /// To be remembered.
    pub(super) ends: Vec<WalEnd>,
}

/// What is known of one system identifier's WAL. The listing holds only what nothing is known against.
pub(super) struct Known<'a> {
    pub(super) system: SystemId,
    pub(super) listing: &'a WalListing,
    pub(super) size: SegmentSize,
    /// Of the base backups that do not expire.
    pub(super) points: &'a [BackupPoint],
    /// Where base backups expire: the first of those behind them.
    pub(super) floor: Option<&'a BackupId>,
    pub(super) histories: &'a BTreeMap<TimelineId, History>,
    /// What was taken out of the listing.
    pub(super) bad: &'a [Content],
    pub(super) memory: &'a Memory,
    pub(super) now: Timestamp,
}

impl Gaps {
    /// Whether nothing is missing.
    pub(super) fn is_clean(&self) -> bool {
        self.holes.is_empty()
            && self.incomplete.is_empty()
            && self.shorter.is_empty()
            && self.histories.is_empty()
    }
}

impl Known<'_> {
    fn path(&self, timeline: TimelineId) -> TimelinePath {
        let known = self.histories.get(&timeline).cloned();
        known.unwrap_or_else(|| History::without_ancestors(timeline)).path()
    }

    /// Everything.
    pub(super) fn all(&self) -> Gaps {
        let mut gaps = self.own(self.points);
        let mut seen: BTreeSet<SegmentName> = BTreeSet::new();
        let mut timelines = self.listing.timelines();
        timelines.extend(self.points.iter().map(|point| point.timeline));
        for timeline in timelines {
            for gap in self.timeline(timeline) {
                if seen.insert(gap.hole.first_missing) {
                    gaps.holes.push(gap);
                }
            }
            self.end(timeline, &mut gaps);
        }
        let segments = |fork: &Fork| SegmentName::parse(&fork.file).is_some();
        gaps.histories = self.lost_histories();
        gaps.forks = continuity::forks(self.listing).into_iter().filter(segments).collect();
        gaps
    }

    /// Only a timeline whose parent is here, too, must have one: an archive may begin on any. They never expire.
    fn lost_histories(&self) -> Vec<TimelineId> {
        let has_wal = |timeline: &TimelineId| {
            self.listing.segments(*timeline).next().is_some()
                || self.listing.headed(*timeline).next().is_some()
        };
        let there: BTreeSet<TimelineId> = self.listing.histories().map(|(timeline, _)| timeline).collect();
        let bad = |timeline: &TimelineId| {
            let of_it = |content: &Content| matches!(content, Content::File(WalFileName::History(t), _) if t == timeline);
            self.bad.iter().any(of_it)
        };
        let with_wal = self.listing.timelines().into_iter().filter(has_wal).skip(1);
        with_wal.filter(|timeline| !there.contains(timeline) && !bad(timeline)).collect()
    }

    /// These backups' own WAL.
    pub(super) fn own(&self, points: &[BackupPoint]) -> Gaps {
        let incomplete = points.iter().filter_map(|point| {
            let path = self.path(point.timeline);
            let reach = continuity::reach(self.listing, self.size, &path, point.start_lsn);
            (reach.end < point.stop_lsn).then(|| {
                let missing = SegmentName::containing(point.timeline, reach.end, self.size);
                let file = crate::model::WalFileName::Segment(missing);
                let damaged = !self.listing.objects(file).is_empty()
                    || self.bad.iter().any(|content| content.segment() == Some(missing));
                Incomplete { backup: point.clone(), missing, damaged }
            })
        });
        Gaps { incomplete: incomplete.collect(), ..Gaps::default() }
    }

    fn timeline(&self, timeline: TimelineId) -> Vec<Gap> {
        let path = self.path(timeline);
        let mut on_path: Vec<&BackupPoint> =
            self.points.iter().filter(|point| path.contains(point.timeline, point.stop_lsn)).collect();
        on_path.sort_by_key(|point| (point.start_lsn, point.stop_lsn));
        let mut gaps = Vec::new();
        // WAL before the oldest base backup leads nowhere.
        let Some(mut start) = self.window(&path).map(|point| point.start_lsn) else { return gaps };
        let left = self.left(timeline);
        while let Stop::Hole(hole) = continuity::reach(self.listing, self.size, &path, start).stop {
            if left.is_some_and(|left| hole.first_missing.timeline == timeline && hole.from >= left) {
                break;
            }
            let to = hole.to.filter(|to| *to > start);
            let before = on_path.iter().filter(|p| p.stop_lsn <= hole.from).max_by_key(|p| p.stop_lsn);
            let after = on_path.iter().find(|p| to.is_some_and(|to| p.start_lsn >= to));
            let (before, after) = (before.map(|p| (*p).clone()), after.map(|p| (*p).clone()));
            let damaged =
                hole.damaged || self.bad.iter().any(|content| content.segment() == Some(hole.first_missing));
            let start_of = hole.first_missing.start(self.size);
            let heads = self.listing.heads(hole.first_missing).iter();
            let piece = heads.map(|h| start_of.plus(u64::from(h.from))).filter(|lsn| *lsn > hole.from).min();
            gaps.push(Gap { timeline, hole: Hole { damaged, ..hole }, before, after, piece });
            match to {
                Some(to) => start = to,
                None => break,
            }
        }
        gaps
    }

    /// The first base backup on a path from which all WAL is expected.
    fn window(&self, path: &TimelinePath) -> Option<&BackupPoint> {
        let begins = |point: &&BackupPoint| {
            path.contains(point.timeline, point.stop_lsn) && self.floor.is_none_or(|floor| point.id >= *floor)
        };
        self.points.iter().filter(begins).min_by_key(|point| (point.start_lsn, point.stop_lsn))
    }

    /// Where WAL expires: the beginning of the segment in which the last recovery left this timeline. What came after is
    /// older than every moment since.
    fn left(&self, timeline: TimelineId) -> Option<Lsn> {
        self.floor?;
        let ancestors = self.histories.values().flat_map(|history| &history.ancestors);
        let switches = ancestors.filter(|ancestor| ancestor.timeline == timeline);
        let last = switches.map(|ancestor| ancestor.switch).max()?;
        Some(SegmentName::containing(timeline, last, self.size).start(self.size))
    }

    /// Whether it is meant that WAL of a timeline ends before the place where it ended once.
    fn expires(&self, timeline: TimelineId, until: Lsn) -> bool {
        let nothing_begins = || self.floor.is_some() && self.window(&self.path(timeline)).is_none();
        self.left(timeline).is_some_and(|left| until >= left) || nothing_begins()
    }

    /// Where WAL ends, and whether it went further once.
    fn end(&self, timeline: TimelineId, gaps: &mut Gaps) {
        let until = continuity::runs(self.listing, timeline, self.size).last().map_or(Lsn::ZERO, |r| r.until);
        let before = self.memory.wal_end(self.system, timeline);
        let known_bad = |content: &Content| {
            content.segment().is_some_and(|s| s.timeline == timeline && s.end(self.size) > until)
        };
        match before {
            // Zero, too: nothing is expected back.
            Some(before) if before.until > until && self.expires(timeline, until) => {
                gaps.ends.push(WalEnd { until, seen_at: self.now, ..*before });
            }
            // What is damaged now is told as that, and still expected back.
            Some(before) if before.until > until => {
                if !self.bad.iter().any(known_bad) {
                    let missing = SegmentName::containing(timeline, until, self.size);
                    gaps.shorter.push(Shorter { before: *before, until, missing });
                }
                gaps.ends.push(*before);
            }
            _ if until.is_zero() => {}
            _ => gaps.ends.push(WalEnd { system: self.system, timeline, until, seen_at: self.now }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BackupKind, ShortDigest};
    use crate::postgres::history::Ancestor;
    use crate::repository::keys::wal::WalObjectName;
    use crate::repository::wal_listing::tests::listing;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;
    const DIGEST: ShortDigest = ShortDigest([7; 16]);

    fn at(number: u64, offset: u64) -> Lsn {
        Lsn(number * SIZE.bytes() + offset)
    }
    fn name(timeline: u32, number: u64) -> SegmentName {
        SegmentName::numbered(TimelineId(timeline), number, SIZE)
    }
    fn whole(timeline: u32, numbers: impl IntoIterator<Item = u64>) -> Vec<WalObjectName> {
        let one = |n| WalObjectName::Segment { segment: name(timeline, n), digest: DIGEST };
        numbers.into_iter().map(one).collect()
    }
    fn backup(number: u64) -> BackupPoint {
        let start: Timestamp = "2026-11-21T00:00:00Z".parse().unwrap();
        let stop_time = start.plus(std::time::Duration::from_secs(number * 60));
        BackupPoint {
            id: BackupId::new(stop_time, BackupKind::Full, 0),
            timeline: TimelineId(1),
            start_lsn: at(number, 40),
            stop_lsn: at(number, 400),
            stop_time,
        }
    }
    fn look(names: &[WalObjectName], points: &[BackupPoint], bad: &[Content], memory: &Memory) -> Gaps {
        expiring(names, points, None, &BTreeMap::new(), bad, memory)
    }
    fn expiring(
        names: &[WalObjectName],
        points: &[BackupPoint],
        floor: Option<&BackupId>,
        histories: &BTreeMap<TimelineId, History>,
        bad: &[Content],
        memory: &Memory,
    ) -> Gaps {
        let mut listing = listing(names);
        for content in bad {
            content.forget(&mut listing);
        }
        let now = "2026-11-22T00:00:00Z".parse().unwrap();
        let (system, listing) = (SystemId(1), &listing);
        Known { system, listing, size: SIZE, points, floor, histories, bad, memory, now }.all()
    }

    #[test]
    fn wal_without_a_hole_behind_the_oldest_backup_is_whole() {
        let mut names = whole(1, 0..=1);
        names.extend(whole(1, 3..=9));
        let gaps = look(&names, &[backup(3), backup(6)], &[], &Memory::default());
        assert_eq!((gaps.holes.len(), gaps.incomplete.len(), gaps.shorter.len()), (0, 0, 0));
        assert_eq!(gaps.ends.iter().map(|end| end.until).collect::<Vec<_>>(), [at(10, 0)]);
    }

    #[test]
    fn a_timeline_that_left_another_needs_its_history_file() {
        let mut names = whole(1, 3..=6);
        names.extend(whole(3, 6..=9));
        let lost = |names: &[WalObjectName]| look(names, &[backup(3)], &[], &Memory::default()).histories;
        assert_eq!(lost(&names), [TimelineId(3)]);
        names.push(WalObjectName::History { timeline: TimelineId(3), digest: DIGEST });
        assert_eq!(lost(&names), []);
        let bad = Content::File(WalFileName::History(TimelineId(3)), DIGEST);
        assert_eq!(look(&names, &[backup(3)], &[bad], &Memory::default()).histories, [], "told as damaged");
        assert_eq!(lost(&whole(3, 6..=9)), [], "the archive begins there");
    }

    #[test]
    fn every_hole_is_found_with_the_backups_around_it() {
        let mut names = whole(1, 3..=4);
        names.extend(whole(1, 6..=6));
        names.extend(whole(1, 8..=9));
        let gaps = look(&names, &[backup(3), backup(8)], &[], &Memory::default());
        let seen: Vec<_> = gaps.holes.iter().map(|g| (g.hole.first_missing, g.hole.damaged)).collect();
        assert_eq!(seen, [(name(1, 5), false), (name(1, 7), false)]);
        assert_eq!(gaps.holes[0].before, Some(backup(3)));
        assert_eq!(gaps.holes[1].after, Some(backup(8)));
    }

    #[test]
    fn a_damaged_segment_is_a_hole_and_takes_a_backup_that_needs_it_along() {
        let bad = Content::File(WalFileName::Segment(name(1, 3)), DIGEST);
        let gaps = look(&whole(1, 2..=9), &[backup(3)], &[bad], &Memory::default());
        assert_eq!(gaps.incomplete[0].missing, name(1, 3));
        assert!(gaps.incomplete[0].damaged && gaps.holes[0].hole.damaged);
    }

    #[test]
    fn a_piece_that_is_missing_of_an_unfinished_segment_is_told_from_where_to_where() {
        let head = |from, to| WalObjectName::Head { segment: name(1, 5), from, to, digest: DIGEST };
        let mut names = whole(1, 3..=4);
        names.extend([head(0, 1000), head(4000, 5000)]);
        let gaps = look(&names, &[backup(3)], &[], &Memory::default());
        assert_eq!(gaps.holes.len(), 1);
        let (what, _) = crate::verify::integrity::impact::of_gap(&gaps.holes[0]);
        let piece = format!("of this unfinished segment, from {} to {},", at(5, 1000), at(5, 4000));
        assert!(what.contains(&piece) && !what.contains(&name(1, 5).to_string()), "{what}");
    }

    #[test]
    fn a_backup_whose_last_segment_never_came_is_incomplete() {
        let mut late = backup(3);
        late.stop_lsn = at(4, 8);
        let gaps = look(&whole(1, 2..=3), &[late.clone()], &[], &Memory::default());
        assert_eq!(gaps.incomplete, [Incomplete { backup: late, missing: name(1, 4), damaged: false }]);
    }

    #[test]
    fn wal_that_expires_leaves_holes_before_the_window_and_none_in_it() {
        // 3 and 5 are kept with their own WAL, 4 has expired, the window begins with 8.
        let points = [backup(3), backup(5), backup(8)];
        let mut names = whole(1, [3, 5, 8, 9]);
        let look = |names: &[WalObjectName], floor: Option<&BackupId>| {
            let gaps = expiring(names, &points, floor, &BTreeMap::new(), &[], &Memory::default());
            (gaps.holes.iter().map(|gap| gap.hole.first_missing).collect::<Vec<_>>(), gaps.incomplete.len())
        };
        let floor = backup(8).id;
        assert_eq!(look(&names, Some(&floor)), (vec![], 0));
        assert_eq!(look(&names, None), (vec![name(1, 4), name(1, 6)], 0), "nothing says that it expires");
        names.extend(whole(1, 11..=12));
        assert_eq!(look(&names, Some(&floor)), (vec![name(1, 10)], 0));
        names.retain(|name| *name != whole(1, [5])[0]);
        assert_eq!(look(&names, Some(&floor)).1, 1, "its own WAL is needed all the same");
    }

    #[test]
    fn the_end_of_a_timeline_that_was_left_expires_with_the_backups_of_its_time() {
        let left = Ancestor { timeline: TimelineId(1), switch: at(6, 100), reason: String::new() };
        let history = History { timeline: TimelineId(2), ancestors: vec![left] };
        let histories = BTreeMap::from([(TimelineId(2), history)]);
        let (kept, mut newest) = (backup(3), backup(9));
        newest.timeline = TimelineId(2);
        let points = [kept, newest];
        let floor = points[0].id.clone();
        let mut names = whole(1, 3..=9);
        names.extend(whole(2, 6..=9));
        let memory =
            Memory { wal_ends: look(&names, &points, &[], &Memory::default()).ends, ..Memory::default() };
        let without = |numbers: std::ops::RangeInclusive<u64>| {
            let gone = whole(1, numbers);
            names.iter().filter(|name| !gone.contains(name)).copied().collect::<Vec<_>>()
        };
        let look = |names: &[WalObjectName], floor: Option<&BackupId>| {
            let gaps = expiring(names, &points, floor, &histories, &[], &memory);
            (gaps.holes.len(), gaps.shorter.len())
        };
        // From its end, or from its beginning; the segment of the fork, too, for the next timeline has it.
        for gone in [8..=9, 7..=8, 6..=9] {
            assert_eq!(look(&without(gone.clone()), Some(&floor)), (0, 0), "{gone:?}");
            assert_ne!(look(&without(gone.clone()), None), (0, 0), "{gone:?}");
        }
        assert_eq!(look(&without(5..=9), Some(&floor)).0, 1, "before the fork it is still needed");
        // When its last base backup has expired, all of it goes.
        let floor = points[1].id.clone();
        let gaps = expiring(&without(1..=9), &points[1..], Some(&floor), &histories, &[], &memory);
        assert_eq!((gaps.holes.len(), gaps.shorter.len()), (0, 0));
    }

    #[test]
    fn an_end_that_moved_back_is_told_until_the_wal_is_there_again() {
        let first = look(&whole(1, 2..=9), &[backup(3)], &[], &Memory::default());
        let memory = Memory { wal_ends: first.ends, ..Memory::default() };
        let again = look(&whole(1, 2..=8), &[backup(3)], &[], &memory);
        assert_eq!(again.shorter.len(), 1);
        assert_eq!(again.ends, memory.wal_ends, "it is still expected");
        let bad = Content::File(WalFileName::Segment(name(1, 9)), DIGEST);
        assert_eq!(look(&whole(1, 2..=9), &[backup(3)], &[bad], &memory).shorter.len(), 0);
        assert_eq!(look(&whole(1, 2..=11), &[backup(3)], &[], &memory).shorter.len(), 0);
    }
}
