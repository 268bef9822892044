//! How far the archive reaches, from what PostgreSQL was told and what was acknowledged: pure.

use crate::model::{Lsn, SegmentName, SegmentSize, TimelineId};

/// The end of the contiguous prefix on the newest timeline: the first that waits, else the last that is archived.
/// PostgreSQL makes segments `.ready` in their order and keeps those that wait, so nothing before the first one waits.
/// (What an archive lacks besides is found in the archive: `holes`.) None while nothing is known.
pub(super) fn archived_to(
    archived: impl Iterator<Item = SegmentName> + Clone,
    waiting: impl Iterator<Item = SegmentName> + Clone,
    size: SegmentSize,
) -> Option<(TimelineId, Lsn)> {
    let timeline = archived.clone().chain(waiting.clone()).map(|segment| segment.timeline).max()?;
    let first_waiting = waiting.filter(|segment| segment.timeline == timeline).min();
    let last_archived = archived.filter(|segment| segment.timeline == timeline).max();
    let end = first_waiting.map(|segment| segment.start(size));
    end.or_else(|| last_archived.map(|segment| segment.end(size))).map(|lsn| (timeline, lsn))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(timeline: u32, number: u64) -> SegmentName {
        SegmentName::numbered(TimelineId(timeline), number, SegmentSize::DEFAULT)
    }
    fn to(archived: &[(u32, u64)], waiting: &[(u32, u64)]) -> Option<(u32, u64)> {
        let names = |all: &[(u32, u64)]| all.iter().map(|(t, n)| segment(*t, *n)).collect::<Vec<_>>();
        let (archived, waiting) = (names(archived), names(waiting));
        let found = archived_to(archived.into_iter(), waiting.into_iter(), SegmentSize::DEFAULT);
        found.map(|(t, lsn)| (t.0, lsn.0 / SegmentSize::DEFAULT.bytes()))
    }

    #[test]
    fn progress_moves_over_a_contiguous_prefix_only() {
        assert_eq!(to(&[], &[]), None);
        assert_eq!(to(&[], &[(1, 5)]), Some((1, 5)));
        assert_eq!(to(&[(1, 5), (1, 6)], &[]), Some((1, 7)));
        assert_eq!(to(&[(1, 5), (1, 7), (1, 8)], &[(1, 6)]), Some((1, 6)));
        assert_eq!(to(&[(1, 5), (2, 6)], &[(1, 7)]), Some((2, 7)));
        assert_eq!(to(&[(1, 5), (1, 6)], &[(2, 6)]), Some((2, 6)));
        // Acknowledged long ago, and removed since by PostgreSQL.
        assert_eq!(to(&[(1, 5), (1, 90), (1, 91)], &[]), Some((1, 92)));
    }
}
