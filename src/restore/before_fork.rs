//! A target that lies before the fork where the path's last timelines began.
//!
//! Such a recovery must end on the timeline that its end lies on: PostgreSQL writes the new timeline's history as "left the
//! target timeline here", and a position before that timeline's own beginning makes a history that goes back, which breaks
//! every later recovery. So the path is cut to the ancestor.
//!
//! Of the ancestor's switch segment the archive often has no whole copy (a failover archives it as `.partial`). The child's
//! file begins with the same bytes up to the fork (`XLogFileCopy`), so it is served in its place, cut at the fork.

use super::choose;
use crate::error::Result;
use crate::model::{Lsn, SegmentName, SegmentSize, TimelineId, WalFileName};
use crate::postgres::history::{History, TimelinePath};
use crate::repository::continuity::{Ending, Reach, ReachLeg, Stop};
use crate::repository::wal_listing::WalListing;

/// A path that was cut, and the longer one that was asked for.
#[derive(Debug, Clone)]
pub struct Cut {
    pub asked: TimelinePath,
    pub timeline: TimelineId,
    /// Where the asked path leaves it.
    pub fork: Lsn,
}

impl Cut {
    /// Cuts `asked` where a recovery to `end` must end; None where it ends on the target timeline anyway.
    pub fn at(asked: &TimelinePath, end: Lsn) -> Option<Self> {
        let begins = asked.legs().last().map_or(Lsn::ZERO, |leg| leg.begin);
        if end >= begins {
            return None;
        }
        let timeline = asked.timeline_at(end);
        let fork = asked.leg(timeline)?.end?;
        Some(Self { asked: asked.clone(), timeline, fork })
    }

    pub fn path(&self, histories: &std::collections::BTreeMap<TimelineId, History>) -> Result<TimelinePath> {
        choose::path_to(self.timeline, histories)
    }

    /// Lengthens a reach along the cut path up to the fork, where the archive has the bytes under another name.
    pub fn lengthen(&self, mut reach: Reach, listing: &WalListing, size: SegmentSize) -> Reach {
        let number = size.number_of(self.fork);
        let start = Lsn(number * size.bytes());
        let own = SegmentName::numbered(self.timeline, number, size);
        // Everything before it must be there; a backup may begin in it.
        let arrived = reach.end == start || size.number_of(reach.end) == number && reach.legs.is_empty();
        if !arrived || listing.has_segment(own) || self.fork == start {
            return reach;
        }
        let Some(ending) = self.substitute(own, listing, size) else { return reach };
        match reach.legs.last_mut().filter(|leg| leg.timeline == self.timeline) {
            Some(leg) => leg.ending = Some(ending),
            None => reach.legs.push(ReachLeg { timeline: self.timeline, whole: None, ending: Some(ending) }),
        }
        reach.end = self.fork;
        reach.stop = Stop::EndOfWal;
        reach
    }

    fn substitute(&self, own: SegmentName, listing: &WalListing, size: SegmentSize) -> Option<Ending> {
        let until = u32::try_from(size.offset_of(self.fork)).ok()?;
        let younger =
            self.asked.legs().iter().filter(|l| l.timeline > self.timeline && l.begin < own.end(size));
        let copy = younger.map(|l| own.on(l.timeline)).find(|s| listing.has_segment(*s));
        if let Some(segment) = copy {
            return Some(Ending::Truncated { segment, until });
        }
        let partial = listing.sound(WalFileName::Partial(own)).next().is_some();
        partial.then_some(Ending::Partial { segment: own, until })
    }
}

#[cfg(test)]
mod tests {
    use super::super::choose::tests::{SEG, history, holdings};
    use super::*;
    use crate::repository::continuity::reach;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;

    fn cut(end: u64) -> Option<Cut> {
        Cut::at(&history(3, &[(1, 4 * SEG + 1000), (2, 6 * SEG)]).path(), Lsn(end))
    }

    #[test]
    fn a_path_is_cut_only_where_the_recovery_ends_before_its_last_timeline_begins() {
        assert!(cut(6 * SEG).is_none(), "exactly at the fork the history does not go back");
        assert!(cut(9 * SEG).is_none());
        let first = cut(4 * SEG + 999).unwrap();
        assert_eq!((first.timeline, first.fork), (TimelineId(1), Lsn(4 * SEG + 1000)));
        assert_eq!(cut(4 * SEG + 1000).unwrap().timeline, TimelineId(2));
    }

    #[test]
    fn the_childs_copy_of_the_switch_segment_stands_in_for_the_parents() {
        let cut = cut(4 * SEG + 500).unwrap();
        let path = history(1, &[]).path();
        let wal = holdings(&[(1, 2, 3), (2, 4, 5)]);
        let short = reach(&wal, SIZE, &path, Lsn(2 * SEG + 40));
        assert_eq!(short.end, Lsn(4 * SEG));
        let long = cut.lengthen(short, &wal, SIZE);
        assert_eq!((long.end, &long.stop), (Lsn(4 * SEG + 1000), &Stop::EndOfWal));
        let segment = SegmentName::numbered(TimelineId(2), 4, SIZE);
        assert_eq!(long.legs[0].ending, Some(Ending::Truncated { segment, until: 1000 }));
    }

    #[test]
    fn a_whole_segment_of_its_own_needs_no_stand_in_and_a_hole_before_it_gets_none() {
        let cut = cut(4 * SEG + 500).unwrap();
        let path = history(1, &[]).path();
        let whole = holdings(&[(1, 2, 7), (2, 4, 5)]);
        let long = cut.lengthen(reach(&whole, SIZE, &path, Lsn(2 * SEG)), &whole, SIZE);
        assert_eq!(long.end, Lsn(8 * SEG));
        let hole = holdings(&[(1, 2, 2), (2, 4, 5)]);
        let short = cut.lengthen(reach(&hole, SIZE, &path, Lsn(2 * SEG)), &hole, SIZE);
        assert_eq!(short.end, Lsn(3 * SEG));
    }
}
