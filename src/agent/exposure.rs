//! If this host died now: what would be lost, and how long until the cluster is back. Pure.
//!
//! What is safe is what every required repository has: the archived segments without a gap, and the tail's ranges beyond
//! them. Without a base backup none of it helps. Times are what this host knows; a server that does not answer commits
//! nothing, so what would be lost stops growing when it was last heard of.

use std::time::Duration;

use serde::Serialize;

use super::board::ClusterFacts;
use crate::model::Timestamp;
use crate::restore::estimate;

/// What would be lost.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Loss {
    /// Not known yet, or nothing was ever archived.
    Unknown,
    /// A standby: the loss of this host loses nothing that its primary does not have.
    Standby,
    /// There is no backup to begin with.
    Everything,
    /// What was committed after `since`.
    Commits {
        since: Timestamp,
        seconds: f64,
        /// WAL that is flushed and in no required repository; None while the server has not said where it is.
        bytes: Option<u64>,
    },
}

pub fn loss(cluster: &ClusterFacts, now: Timestamp) -> Loss {
    let (server, archive, tail, backups) =
        (&cluster.server, &cluster.archive, &cluster.tail, &cluster.backups);
    if server.in_recovery {
        return Loss::Standby;
    }
    if backups.seen_at.is_some() && backups.last_full.is_none() {
        return Loss::Everything;
    }
    // Ranges beyond a hole cannot be reached.
    let tailed = tail.enabled && archive.holes.is_empty();
    let shipped = tail.shipped_to.filter(|_| tailed);
    // What the archive holds of the timeline before says nothing about this one.
    let other_timeline = archive.timeline.zip(server.timeline).is_some_and(|(archived, now)| archived != now);
    let safe_to = archive.archived_to.filter(|_| !other_timeline).max(shipped);
    let bytes = server.flush_lsn.zip(safe_to).map(|(flushed, safe)| flushed.since(safe));
    let heard = if server.error.is_some() { server.asked_at.unwrap_or(now) } else { now };
    let complete = server.asked_at.filter(|_| bytes == Some(0));
    // A file's commits are older than its acknowledgement, and those of a waiting file than its end.
    let archived = archive.archived_at.map(|at| archive.waiting_since.map_or(at, |waits| at.min(waits)));
    let current = tail.current_at.filter(|_| tailed);
    match complete.max(current).max(archived) {
        None => Loss::Unknown,
        Some(since) => Loss::Commits { since, seconds: heard.since(since).as_secs_f64(), bytes },
    }
}

/// Assumed while no restore was measured: a store on the network, a server of average strength.
pub const RESTORE_BYTES_PER_SECOND: u64 = 100 << 20;
pub const REPLAY_BYTES_PER_SECOND: u64 = 50 << 20;
/// To begin, to start PostgreSQL, to promote.
const FIXED: Duration = Duration::from_secs(30);

/// How long until the cluster is back, and from what that was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Return {
    pub seconds: u64,
    /// Of the last full backup, before compression.
    pub backup_bytes: u64,
    /// WAL since then.
    pub wal_bytes: u64,
    /// How many restores it is estimated by; none: by stated rates.
    pub measured: usize,
    /// The median error of earlier estimates, in percent.
    pub error_percent: Option<u64>,
}

/// A number that has no fraction any more.
fn whole(number: f64) -> u64 {
    Duration::try_from_secs_f64(number.max(0.0)).unwrap_or_default().as_secs()
}

/// None while there is no backup.
pub fn time_to_return(cluster: &ClusterFacts) -> Option<Return> {
    let backup = cluster.backups.last_full.as_ref()?;
    let reached = cluster.archive.archived_to.max(cluster.tail.shipped_to).max(cluster.server.flush_lsn);
    let wal_bytes = reached.zip(backup.stop_lsn).map_or(0, |(reached, stop)| reached.since(stop));
    let by_rates = || {
        let copy = backup.bytes_raw / RESTORE_BYTES_PER_SECOND;
        let replay = wal_bytes / REPLAY_BYTES_PER_SECOND;
        FIXED.as_secs() + copy + replay
    };
    let estimated = estimate::estimate(&cluster.measured, backup.bytes_raw, wal_bytes, None);
    Some(Return {
        seconds: estimated.map_or_else(by_rates, |estimate| whole(estimate.seconds.ceil())),
        backup_bytes: backup.bytes_raw,
        wal_bytes,
        measured: estimated.map_or(0, |estimate| estimate.measured),
        error_percent: estimated.and_then(|e| e.error).map(|error| whole((error * 100.0).round())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::board::{Failure, HoleFacts, LastBackup};
    use crate::model::{Lsn, SegmentName, TimelineId};
    use crate::restore::estimate::Measured;

    fn at(second: u32) -> Timestamp {
        format!("2026-11-21T02:00:{second:02}Z").parse().unwrap()
    }

    fn cluster() -> ClusterFacts {
        let mut facts = ClusterFacts::default();
        facts.backups.seen_at = Some(at(0));
        facts.backups.last_full = Some(LastBackup {
            id: "x".into(),
            finished_at: at(0),
            bytes_raw: 1 << 30,
            bytes_stored: 1 << 29,
            took_seconds: 10,
            damaged: false,
            stop_lsn: Some(Lsn(0x100_0000)),
        });
        facts.server.asked_at = Some(at(30));
        facts.server.flush_lsn = Some(Lsn(0x500_0100));
        facts.archive.archived_to = Some(Lsn(0x500_0000));
        facts.archive.archived_at = Some(at(20));
        facts
    }

    fn commits(since: u32, seconds: f64, bytes: Option<u64>) -> Loss {
        Loss::Commits { since: at(since), seconds, bytes }
    }

    #[test]
    fn without_a_tail_what_came_after_the_last_archived_file_would_be_lost() {
        let mut facts = cluster();
        assert_eq!(loss(&facts, at(40)), commits(20, 20.0, Some(0x100)));
        facts.archive.waiting_since = Some(at(15));
        assert_eq!(loss(&facts, at(40)), commits(15, 25.0, Some(0x100)));
        facts.server.flush_lsn = facts.archive.archived_to;
        assert_eq!(loss(&facts, at(40)), commits(30, 10.0, Some(0)));
    }

    #[test]
    fn with_a_tail_it_is_what_came_after_its_last_complete_round_unless_a_hole_lies_before() {
        let mut facts = cluster();
        facts.tail.enabled = true;
        facts.tail.shipped_to = Some(Lsn(0x500_00f0));
        facts.tail.current_at = Some(at(38));
        assert_eq!(loss(&facts, at(40)), commits(38, 2.0, Some(0x10)));
        let lost = SegmentName::parse("000000010000000000000003").unwrap();
        facts.archive.holes.push(HoleFacts { first: lost, last: lost });
        assert_eq!(loss(&facts, at(40)), commits(20, 20.0, Some(0x100)));
    }

    #[test]
    fn what_the_archive_holds_of_an_earlier_timeline_is_not_what_it_holds_of_this_one() {
        let mut facts = cluster();
        // A restore to before the end of what was archived.
        (facts.archive.timeline, facts.server.timeline) = (Some(TimelineId(1)), Some(TimelineId(2)));
        facts.server.flush_lsn = Some(Lsn(0x300_0000));
        assert_eq!(loss(&facts, at(40)), commits(20, 20.0, None));
        facts.tail.enabled = true;
        facts.tail.shipped_to = Some(Lsn(0x2ff_ff00));
        assert_eq!(loss(&facts, at(40)), commits(20, 20.0, Some(0x100)));
    }

    #[test]
    fn a_server_that_does_not_answer_commits_nothing() {
        let mut facts = cluster();
        facts.server.error = Some("down".into());
        assert_eq!(loss(&facts, at(59)), commits(20, 10.0, Some(0x100)));
    }

    #[test]
    fn without_a_backup_everything_is_lost_and_nothing_can_be_said_of_the_return() {
        let mut facts = cluster();
        facts.backups.last_full = None;
        assert_eq!((loss(&facts, at(40)), time_to_return(&facts)), (Loss::Everything, None));
        facts.backups.seen_at = None;
        facts.archive = crate::agent::board::ArchiveFacts::default();
        assert_eq!(loss(&facts, at(40)), Loss::Unknown);
        facts.server.in_recovery = true;
        assert_eq!(loss(&facts, at(40)), Loss::Standby);
    }

    #[test]
    fn the_return_takes_the_backup_and_the_wal_since() {
        let mut facts = cluster();
        facts.server.flush_lsn = Some(Lsn(0x100_0000 + (100 << 20)));
        let expected = Return {
            seconds: 30 + 10 + 2,
            backup_bytes: 1 << 30,
            wal_bytes: 100 << 20,
            measured: 0,
            error_percent: None,
        };
        assert_eq!(time_to_return(&facts), Some(expected));
        let unused = Failure { at: at(0), text: String::new() };
        facts.archive.failure = Some(unused);
        assert_eq!(time_to_return(&facts), Some(expected));
        facts.measured = vec![Measured {
            backup_bytes: 1 << 30,
            wal_bytes: 100 << 20,
            plan_seconds: 1.0,
            lay_out_seconds: 4.0,
            replay_seconds: 2.5,
            estimated_seconds: Some(6.0),
        }];
        let measured = Return { seconds: 8, measured: 1, error_percent: Some(20), ..expected };
        assert_eq!(time_to_return(&facts), Some(measured));
    }
}
