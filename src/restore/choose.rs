//! Which backup, and along which timelines. Pure: catalog and listings in, the choice with its reasons out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::model::{BackupId, Lsn, SegmentSize, SystemId, TargetTimeline, TimelineId, Timestamp};
use crate::postgres::history::{History, TimelinePath};
use crate::repository::continuity::{Reach, reach};
use crate::repository::wal_listing::WalListing;

/// A base backup as the choice sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub id: BackupId,
    pub system: SystemId,
    pub timeline: TimelineId,
    pub start: Lsn,
    pub stop: Lsn,
    /// By the database's clock.
    pub stop_time: Timestamp,
    /// Pages that failed their checksum when it was taken.
    pub page_errors: u64,
    /// Why its signature is not trusted; None when it is.
    pub untrusted: Option<String>,
}

/// A backup that cannot be taken for this target, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    pub id: BackupId,
    pub reason: String,
}

/// Backups that recovery can start from, newest first, each with how far WAL reaches from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usable {
    pub fitting: Vec<(Candidate, Reach)>,
    pub passed_over: Vec<PassedOver>,
}

/// The timeline that recovery ends on, and the way there.
pub fn path(
    wanted: TargetTimeline,
    histories: &BTreeMap<TimelineId, History>,
    listing: &WalListing,
    backups: &[Candidate],
) -> Result<TimelinePath> {
    let of_wal = listing.timelines();
    let known = || {
        let of_backups = backups.iter().map(|b| b.timeline);
        histories.keys().copied().chain(of_wal.iter().copied()).chain(of_backups)
    };
    let target = match wanted {
        TargetTimeline::Highest => known().max().unwrap_or(TimelineId::FIRST),
        TargetTimeline::Id(id) if known().any(|k| k == id) => id,
        TargetTimeline::Id(id) => {
            let mut all: Vec<_> = known().collect();
            all.sort_unstable();
            all.dedup();
            let all = all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(Error::new(
                Code::TargetUnreachable,
                format!("the archive holds nothing of timeline {id}"),
            )
            .hint(format!("it holds timelines {all}; `pgkeep window` shows how far each can be recovered")));
        }
    };
    path_to(target, histories)
}

/// The path to `target` by its history file, which only timeline 1 may lack.
pub fn path_to(target: TimelineId, histories: &BTreeMap<TimelineId, History>) -> Result<TimelinePath> {
    match histories.get(&target) {
        Some(history) => Ok(history.path()),
        None if target == TimelineId::FIRST => Ok(History::without_ancestors(target).path()),
        None => Err(Error::new(
            Code::TargetUnreachable,
            format!("the history file of timeline {target} is not in the archive"),
        )
        .at(format!("{}.history", target.hex()))
        .hint(format!(
            "archive that file from the server that made timeline {target}, or choose another with `--timeline`"
        ))),
    }
}

/// Judges every backup for a recovery along `path`.
pub fn usable(
    backups: &[Candidate],
    system: SystemId,
    path: &TimelinePath,
    listing: &WalListing,
    size: SegmentSize,
) -> Usable {
    let mut found = Usable { fitting: Vec::new(), passed_over: Vec::new() };
    for backup in backups {
        match judge(backup, system, path, listing, size) {
            Ok(reach) => found.fitting.push((backup.clone(), reach)),
            Err(reason) => found.passed_over.push(PassedOver { id: backup.id.clone(), reason }),
        }
    }
    found.fitting.sort_by(|(a, _), (b, _)| (b.stop, b.start, &b.id).cmp(&(a.stop, a.start, &a.id)));
    found
}

/// The reach from this backup, or why it is no start for this recovery.
fn judge(
    backup: &Candidate,
    system: SystemId,
    path: &TimelinePath,
    listing: &WalListing,
    size: SegmentSize,
) -> std::result::Result<Reach, String> {
    if backup.system != system {
        return Err(format!("it is of another cluster (system identifier {})", backup.system));
    }
    if let Some(reason) = &backup.untrusted {
        return Err(format!("untrusted: {reason}"));
    }
    if backup.page_errors > 0 {
        return Err(format!("damaged: {} pages failed their checksum", backup.page_errors));
    }
    off_path(backup, path).map_or(Ok(()), Err)?;
    let reach = reach(listing, size, path, backup.start);
    if reach.end < backup.stop {
        return Err(format!(
            "its own WAL is not whole: it needs {} to {}, the archive reaches {}",
            backup.start, backup.stop, reach.end
        ));
    }
    Ok(reach)
}

/// Why the backup does not lie on the path; None when it does.
fn off_path(backup: &Candidate, path: &TimelinePath) -> Option<String> {
    if path.contains(backup.timeline, backup.stop) {
        return None;
    }
    let target = path.target();
    Some(match path.leg(backup.timeline).and_then(|leg| leg.end) {
        Some(end) => format!(
            "timeline {target} left timeline {} at {end}, before this backup ended at {}",
            backup.timeline, backup.stop
        ),
        None => format!("timeline {} does not lead to timeline {target}", backup.timeline),
    })
}

/// The one backup that was asked for, or why it cannot be taken. Page errors do not rule it out here: it was named.
pub fn named(
    id: &BackupId,
    backups: &[Candidate],
    system: SystemId,
    path: &TimelinePath,
    listing: &WalListing,
    size: SegmentSize,
) -> Result<(Candidate, Reach)> {
    let backup = backups.iter().find(|b| b.id == *id).ok_or_else(|| {
        Error::new(Code::NoBackup, "there is no such base backup").at(id).hint("`pgkeep list` shows them")
    })?;
    let untrusted = |reason: &String| {
        Error::new(Code::Untrusted, format!("the backup is untrusted: {reason}"))
            .at(id)
            .hint("if you know the host that made it: --trust RW… for once, `[trust] hosts` in the configuration for good")
    };
    if let Some(reason) = &backup.untrusted {
        return Err(untrusted(reason));
    }
    let named = Candidate { page_errors: 0, ..backup.clone() };
    match judge(&named, system, path, listing, size) {
        Ok(reach) => Ok((backup.clone(), reach)),
        Err(reason) => Err(Error::new(Code::TargetUnreachable, format!("the backup does not fit: {reason}"))
            .at(id)
            .hint("leave out `--backup`, or choose another with `pgkeep list`")),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::model::{SegmentName, ShortDigest};
    use crate::postgres::history::Ancestor;
    use crate::repository::keys::wal::WalObjectName;
    use crate::repository::wal_listing::tests::listing;

    /// `[(timeline, first, last)]`: whole segments.
    pub fn holdings(runs: &[(u32, u64, u64)]) -> WalListing {
        let segments = runs.iter().flat_map(|(t, first, last)| (*first..=*last).map(|n| (TimelineId(*t), n)));
        let names = segments.map(|(t, n)| WalObjectName::Segment {
            segment: SegmentName::numbered(t, n, SIZE),
            digest: ShortDigest([7; 16]),
        });
        listing(&names.collect::<Vec<_>>())
    }
    /// The history of `timeline`, with where its ancestors were left.
    pub fn history(timeline: u32, switches: &[(u32, u64)]) -> History {
        let ancestors = switches
            .iter()
            .map(|(t, at)| Ancestor { timeline: TimelineId(*t), switch: Lsn(*at), reason: String::new() })
            .collect();
        History { timeline: TimelineId(timeline), ancestors }
    }

    pub const SYSTEM: SystemId = SystemId(7_000_000_000_000_000_001);
    const SIZE: SegmentSize = SegmentSize::DEFAULT;
    pub const SEG: u64 = 16 << 20;

    /// A backup of `timeline` from segment `first` to the middle of segment `last`; `n` makes id and time.
    pub fn backup(n: u32, timeline: u32, first: u64, last: u64) -> Candidate {
        let stop_time: Timestamp = format!("2026-11-21T{n:02}:00:30Z").parse().unwrap();
        Candidate {
            id: format!("20261121T{n:02}0000Z-full-{n:04x}").parse().unwrap(),
            system: SYSTEM,
            timeline: TimelineId(timeline),
            start: Lsn(first * SEG + 0x28),
            stop: Lsn(last * SEG + 0x100),
            stop_time,
            page_errors: 0,
            untrusted: None,
        }
    }
    fn histories(list: Vec<History>) -> BTreeMap<TimelineId, History> {
        list.into_iter().map(|h| (h.timeline, h)).collect()
    }
    fn ids(usable: &Usable) -> Vec<&str> {
        usable.fitting.iter().map(|(c, _)| c.id.as_str()).collect()
    }

    #[test]
    fn the_highest_timeline_known_from_anywhere_is_taken() {
        let two = histories(vec![history(2, &[(1, SEG)])]);
        let wal = holdings(&[(1, 0, 3)]);
        let target = |wanted, files: &_, wal: &_| path(wanted, files, wal, &[]).map(|p| p.target().0);
        assert_eq!(target(TargetTimeline::Highest, &two, &wal).unwrap(), 2);
        assert_eq!(target(TargetTimeline::Id(TimelineId(1)), &two, &wal).unwrap(), 1);
        assert_eq!(target(TargetTimeline::Highest, &BTreeMap::new(), &wal).unwrap(), 1);
    }

    #[test]
    fn a_timeline_whose_history_is_lost_or_that_never_was_is_refused_by_name() {
        let wal = holdings(&[(1, 0, 3), (3, 2, 4)]);
        let lost = path(TargetTimeline::Highest, &BTreeMap::new(), &wal, &[]).unwrap_err();
        assert_eq!((lost.code(), lost.place()), (Code::TargetUnreachable, Some("00000003.history")));
        let never = path(TargetTimeline::Id(TimelineId(7)), &BTreeMap::new(), &wal, &[]).unwrap_err();
        assert!(never.hint_text().unwrap().contains("timelines 1, 3"), "{never:?}");
    }

    #[test]
    fn newest_first_and_each_other_with_its_reason() {
        let path = history(2, &[(1, 6 * SEG)]).path();
        let wal = holdings(&[(1, 2, 9), (2, 6, 8)]);
        let backups = [
            backup(1, 1, 2, 2),
            backup(2, 1, 3, 3),
            Candidate { page_errors: 2, ..backup(3, 1, 4, 4) },
            Candidate { untrusted: Some("no signature".into()), ..backup(4, 1, 4, 4) },
            Candidate { system: SystemId(5), ..backup(5, 1, 4, 4) },
            backup(6, 1, 7, 7),
            backup(7, 2, 8, 9),
            backup(8, 3, 8, 8),
        ];
        let usable = usable(&backups, SYSTEM, &path, &wal, SIZE);
        assert_eq!(ids(&usable), ["20261121T020000Z-full-0002", "20261121T010000Z-full-0001"]);
        let reasons: Vec<_> = usable.passed_over.iter().map(|p| p.reason.as_str()).collect();
        assert_eq!(
            reasons,
            [
                "damaged: 2 pages failed their checksum",
                "untrusted: no signature",
                "it is of another cluster (system identifier 5)",
                "timeline 2 left timeline 1 at 0/6000000, before this backup ended at 0/7000100",
                "its own WAL is not whole: it needs 0/8000028 to 0/9000100, the archive reaches 0/9000000",
                "timeline 3 does not lead to timeline 2",
            ]
        );
    }

    #[test]
    fn a_backup_that_ended_exactly_at_the_fork_is_on_the_path() {
        let end = backup(1, 1, 2, 2).stop;
        let path = history(2, &[(1, end.0)]).path();
        let usable = usable(&[backup(1, 1, 2, 2)], SYSTEM, &path, &holdings(&[(1, 2, 2)]), SIZE);
        assert_eq!(usable.fitting.len(), 1);
        assert_eq!(usable.fitting[0].1.end, end);
    }

    #[test]
    fn a_damaged_backup_is_taken_when_it_is_named_an_untrusted_one_never() {
        let path = history(1, &[]).path();
        let wal = holdings(&[(1, 2, 9)]);
        let damaged = Candidate { page_errors: 2, ..backup(3, 1, 4, 4) };
        let strange = Candidate { untrusted: Some("no signature".into()), ..backup(4, 1, 4, 4) };
        let all = [damaged.clone(), strange.clone()];
        let choose = |id| named(id, &all, SYSTEM, &path, &wal, SIZE);
        assert_eq!(choose(&damaged.id).unwrap().0.page_errors, 2);
        assert_eq!(choose(&strange.id).unwrap_err().code(), Code::Untrusted);
        assert_eq!(choose(&backup(9, 1, 4, 4).id).unwrap_err().code(), Code::NoBackup);
    }
}
