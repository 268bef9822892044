//! Which WAL a base backup needs, by segment and by timeline.

use std::path::Path;

use crate::error::{Code, Error, Result};
use crate::model::{Lsn, SegmentName, SegmentSize, TimelineId};
use crate::postgres::history::{History, TimelinePath};
use crate::repository::manifest::WalRange;

/// From the backup's start to the point from which on it is consistent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WalNeeded {
    pub(super) start: Lsn,
    pub(super) stop: Lsn,
    pub(super) size: SegmentSize,
    path: TimelinePath,
}

impl WalNeeded {
    /// `start_timeline` is that of the label, `stop_timeline` that of the stop point: a standby may have followed its
    /// primary onto a new timeline meanwhile, whose history it then has in pg_wal.
    pub(super) fn find(
        start: Lsn,
        start_timeline: TimelineId,
        stop: Lsn,
        stop_timeline: TimelineId,
        size: SegmentSize,
        data_directory: &Path,
    ) -> Result<Self> {
        let history = if start_timeline == stop_timeline {
            History::without_ancestors(start_timeline)
        } else {
            let path = data_directory.join("pg_wal").join(format!("{}.history", stop_timeline.hex()));
            let bytes = std::fs::read(&path).map_err(|e| {
                Error::io("cannot read the history of the timeline the backup ended on", &path, e)
            })?;
            History::parse(stop_timeline, &bytes).map_err(|e| e.at(path.display()))?
        };
        let path = history.path();
        if path.timeline_at(start) != start_timeline && start_timeline != stop_timeline {
            return Err(Error::new(
                Code::BackupFailed,
                format!(
                    "the server changed to timeline {stop_timeline}, which does not contain the backup's start"
                ),
            ));
        }
        Ok(Self { start, stop, size, path })
    }

    /// Names of all segments, in order. The stop point is exclusive: on a segment's border the segment before it is
    /// the last one needed (PostgreSQL's `XLByteToPrevSeg`).
    pub(super) fn segments(&self) -> Vec<SegmentName> {
        let last = self.size.number_of(Lsn(self.stop.0.max(self.start.0 + 1) - 1));
        (self.size.number_of(self.start)..=last).map(|number| self.path.segment(number, self.size)).collect()
    }

    /// Timelines that a recovery from here needs the history files of (all but the first).
    pub(super) fn histories(&self) -> Vec<TimelineId> {
        self.path.legs().iter().skip(1).map(|leg| leg.timeline).collect()
    }

    /// For `backup_manifest`, newest timeline first as PostgreSQL writes it.
    pub(super) fn ranges(&self) -> Vec<WalRange> {
        let clip = |leg: &crate::postgres::history::Leg| {
            let start = leg.begin.max(self.start);
            let end = leg.end.unwrap_or(Lsn::MAX).min(self.stop);
            (start < end || self.path.legs().len() == 1).then_some(WalRange {
                timeline: leg.timeline,
                start,
                end,
            })
        };
        self.path.legs().iter().rev().filter_map(clip).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(start: u64, stop: u64) -> Vec<String> {
        let size = SegmentSize::DEFAULT;
        let tli = TimelineId(1);
        let wal = WalNeeded::find(Lsn(start), tli, Lsn(stop), tli, size, Path::new("/nowhere")).unwrap();
        wal.segments().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_stop_on_a_segments_border_needs_nothing_of_the_next() {
        assert_eq!(needed(0x300_0028, 0x300_0100), ["000000010000000000000003"]);
        assert_eq!(needed(0x300_0028, 0x400_0000), ["000000010000000000000003"]);
        assert_eq!(needed(0x300_0028, 0x400_0001).len(), 2);
        assert_eq!(
            needed(0xFF00_0028, 0x1_0000_0028),
            ["0000000100000000000000FF", "000000010000000100000000"]
        );
    }

    #[test]
    fn a_switch_during_the_backup_makes_two_ranges() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pg_wal")).unwrap();
        std::fs::write(
            dir.path().join("pg_wal/00000002.history"),
            "1\t0/3800000\tno recovery target specified\n",
        )
        .unwrap();
        let size = SegmentSize::DEFAULT;
        let wal =
            WalNeeded::find(Lsn(0x300_0028), TimelineId(1), Lsn(0x500_0000), TimelineId(2), size, dir.path())
                .unwrap();
        let names: Vec<String> = wal.segments().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["000000020000000000000003", "000000020000000000000004"]);
        let range = |timeline, start, end| WalRange {
            timeline: TimelineId(timeline),
            start: Lsn(start),
            end: Lsn(end),
        };
        assert_eq!(wal.ranges(), [range(2, 0x380_0000, 0x500_0000), range(1, 0x300_0028, 0x380_0000)]);
        assert_eq!(wal.histories(), [TimelineId(2)]);
        assert!(
            WalNeeded::find(Lsn(0x390_0000), TimelineId(1), Lsn(0x500_0000), TimelineId(2), size, dir.path())
                .is_err()
        );
    }
}
