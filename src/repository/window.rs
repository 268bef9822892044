//! From when to when each timeline can be recovered: pure, from the catalog's base backups, the listing and, where an
//! identity could open them, the history files and commit times.
//!
//! Without the histories a timeline's ancestors are not known: then only backups taken on the timeline itself count, and
//! the window says that it is not exact.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::{BackupId, Lsn, SegmentSize, TimelineId, Timestamp};
use crate::postgres::history::{History, TimelinePath};
use crate::repository::continuity::{self, Fork, Hole, Reach, Run, Stop};
use crate::repository::wal_listing::WalListing;

/// What the window needs to know of a base backup of this system identifier. Only backups that may be chosen (trusted,
/// not damaged) are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupPoint {
    pub id: BackupId,
    pub timeline: TimelineId,
    pub start_lsn: Lsn,
    pub stop_lsn: Lsn,
    /// The database's clock.
    pub stop_time: Timestamp,
}

/// A stretch of one path on which every position can be recovered to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The earliest backup that it begins with.
    pub from_backup: BackupId,
    /// Where that backup is consistent.
    pub from: Lsn,
    pub from_time: Timestamp,
    /// The first byte that cannot be recovered.
    pub until: Lsn,
    /// The timeline that the last byte is on.
    pub until_timeline: TimelineId,
    /// The last commit before `until`; only where WAL could be read.
    pub last_commit: Option<Timestamp>,
    /// When the last object of the range's last run was stored, by the store's clock: a stand-in for `last_commit`, and
    /// never to be called one.
    pub last_stored: Option<Timestamp>,
    /// Why it ends there, if not because WAL ends.
    pub hole: Option<Hole>,
}

/// One timeline's window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TimelineWindow {
    pub timeline: TimelineId,
    /// Where it left its parent.
    pub parent: Option<(TimelineId, Lsn)>,
    /// False when the timeline's ancestors are not known, because its history file could not be opened.
    pub exact: bool,
    pub ranges: Vec<Range>,
    /// Its own WAL, whether or not a backup leads to it.
    pub runs: Vec<Run>,
    pub holes: Vec<Hole>,
}

/// All timelines of one system identifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Window {
    pub timelines: Vec<TimelineWindow>,
    pub forks: Vec<Fork>,
}

/// `histories`: those that could be opened. The caller, who may be able to read WAL, fills in each range's `last_commit`.
pub fn window(
    listing: &WalListing,
    size: SegmentSize,
    backups: &[BackupPoint],
    histories: &BTreeMap<TimelineId, History>,
) -> Window {
    let mut ids = listing.timelines();
    ids.extend(backups.iter().map(|b| b.timeline));
    let timelines = ids.into_iter().map(|id| timeline_window(listing, size, backups, histories, id));
    Window { timelines: timelines.collect(), forks: continuity::forks(listing) }
}

fn timeline_window(
    listing: &WalListing,
    size: SegmentSize,
    backups: &[BackupPoint],
    histories: &BTreeMap<TimelineId, History>,
    timeline: TimelineId,
) -> TimelineWindow {
    let known = histories.get(&timeline).cloned();
    let exact = known.is_some() || timeline == TimelineId::FIRST;
    let history = known.unwrap_or_else(|| History::without_ancestors(timeline));
    let path = history.path();
    let mut on_path: Vec<_> = backups.iter().filter(|b| path.contains(b.timeline, b.stop_lsn)).collect();
    on_path.sort_by_key(|b| (b.stop_lsn, b.stop_time));
    let mut ranges: Vec<Range> = Vec::new();
    for backup in on_path {
        let reach = continuity::reach(listing, size, &path, backup.start_lsn);
        // A backup whose own WAL is incomplete leads nowhere.
        let leads = reach.end >= backup.stop_lsn;
        if leads && ranges.last().is_none_or(|r| r.until < reach.end) {
            ranges.push(range(listing, size, &path, backup, reach));
        }
    }
    TimelineWindow {
        timeline,
        parent: history.fork().map(|a| (a.timeline, a.switch)),
        exact,
        ranges,
        runs: continuity::runs(listing, timeline, size),
        holes: continuity::holes(listing, timeline, size),
    }
}

fn range(
    listing: &WalListing,
    size: SegmentSize,
    path: &TimelinePath,
    backup: &BackupPoint,
    reach: Reach,
) -> Range {
    let until_timeline = reach.timeline().unwrap_or_else(|| path.timeline_at(backup.stop_lsn));
    let runs = continuity::runs(listing, until_timeline, size);
    Range {
        from_backup: backup.id.clone(),
        from: backup.stop_lsn,
        from_time: backup.stop_time,
        until: reach.end,
        until_timeline,
        last_commit: None,
        last_stored: runs.iter().rev().find(|r| r.from < reach.end).and_then(|r| r.stored_at),
        hole: match reach.stop {
            Stop::Hole(hole) => Some(hole),
            Stop::EndOfWal => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BackupKind, SegmentName, ShortDigest};
    use crate::postgres::history::Ancestor;
    use crate::repository::keys::wal::WalObjectName;
    use crate::repository::wal_listing::tests::listing;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;

    fn at(number: u64, offset: u64) -> Lsn {
        Lsn(number * SIZE.bytes() + offset)
    }
    fn whole(timeline: u32, numbers: impl IntoIterator<Item = u64>) -> Vec<WalObjectName> {
        let one = |n| WalObjectName::Segment {
            segment: SegmentName::numbered(TimelineId(timeline), n, SIZE),
            digest: ShortDigest([7; 16]),
        };
        numbers.into_iter().map(one).collect()
    }
    fn backup(number: u64, timeline: u32) -> BackupPoint {
        let start: Timestamp = "2026-11-21T00:00:00Z".parse().unwrap();
        let stop_time = start.plus(std::time::Duration::from_secs(number * 60));
        BackupPoint {
            id: BackupId::new(stop_time, BackupKind::Full, 0),
            timeline: TimelineId(timeline),
            start_lsn: at(number, 40),
            stop_lsn: at(number, 400),
            stop_time,
        }
    }
    fn histories(known: bool) -> BTreeMap<TimelineId, History> {
        let ancestors =
            vec![Ancestor { timeline: TimelineId(1), switch: at(5, 1000), reason: String::new() }];
        let two = TimelineId(2);
        if known { [(two, History { timeline: two, ancestors })].into() } else { BTreeMap::new() }
    }
    fn ranges(w: &TimelineWindow) -> Vec<(Lsn, Lsn, bool)> {
        w.ranges.iter().map(|r| (r.from, r.until, r.hole.is_some())).collect()
    }

    #[test]
    fn a_window_begins_with_the_first_backup_and_ends_with_wal() {
        let names = whole(1, 2..=9);
        let w = window(&listing(&names), SIZE, &[backup(3, 1), backup(6, 1)], &histories(false));
        assert_eq!(ranges(&w.timelines[0]), [(at(3, 400), at(10, 0), false)]);
        assert!(w.timelines[0].exact);
    }

    #[test]
    fn a_hole_makes_two_windows_if_a_backup_lies_after_it() {
        let mut names = whole(1, 2..=4);
        names.extend(whole(1, 6..=9));
        let l = listing(&names);
        let w = window(&l, SIZE, &[backup(3, 1)], &histories(false));
        assert_eq!(ranges(&w.timelines[0]), [(at(3, 400), at(5, 0), true)]);
        let w = window(&l, SIZE, &[backup(3, 1), backup(7, 1)], &histories(false));
        assert_eq!(ranges(&w.timelines[0]), [(at(3, 400), at(5, 0), true), (at(7, 400), at(10, 0), false)]);
        assert_eq!(w.timelines[0].holes.len(), 1);
    }

    #[test]
    fn a_backup_without_its_own_wal_leads_nowhere() {
        let w = window(&listing(&whole(1, 4..=9)), SIZE, &[backup(3, 1)], &histories(false));
        assert_eq!(ranges(&w.timelines[0]), []);
        let w = window(&listing(&[]), SIZE, &[backup(3, 1)], &histories(false));
        assert_eq!(ranges(&w.timelines[0]), []);
    }

    #[test]
    fn a_child_is_reached_from_its_parents_backup_if_the_history_is_known() {
        let mut names = whole(1, 3..=9);
        names.extend(whole(2, 5..=7));
        let backups = [backup(3, 1), backup(8, 1)];
        let w = window(&listing(&names), SIZE, &backups, &histories(true));
        assert_eq!(ranges(&w.timelines[0]), [(at(3, 400), at(10, 0), false)]);
        assert_eq!(ranges(&w.timelines[1]), [(at(3, 400), at(8, 0), false)]);
        assert_eq!(w.timelines[1].parent, Some((TimelineId(1), at(5, 1000))));
        let w = window(&listing(&names), SIZE, &backups, &histories(false));
        assert_eq!((ranges(&w.timelines[1]), w.timelines[1].exact), (vec![], false));
    }
}
