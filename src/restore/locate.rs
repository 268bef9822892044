//! Finds the target's place in WAL before anything starts, and refuses what cannot be reached with what can be.
//!
//! The choice of the backup and the place of the target depend on each other: a target before a backup's end needs an
//! older backup. So backups are tried from the newest that can fit on, and each is read forward from its start exactly
//! as PostgreSQL would replay it.

use super::choose::Candidate;
use super::refuse::{self, Bounds};
use super::scan::{self, CopyOfDatabase, ScanTask, Scanned, Tail, WalSource, WayFile};
use crate::error::Result;
use crate::model::{Inclusion, Lsn, SegmentSize, SystemId, Target};
use crate::repository::continuity::{Reach, Stop};
use crate::util::progress::Progress;
use crate::wal::redirect::Created;
use crate::wal::target::Stop as StopPoint;
use crate::wal::{Canary, Consistency, TargetScanner, TransactionMark, WalSettings};

/// What is looked for, and where.
pub struct Search<'a> {
    pub target: &'a Target,
    pub inclusion: Inclusion,
    /// Newest first, each with how far WAL reaches from it.
    pub fitting: &'a [(Candidate, Reach)],
    /// The backup was named by the user: none older is tried.
    pub named: bool,
    pub system: SystemId,
    pub size: SegmentSize,
    pub source: &'a dyn WalSource,
    pub progress: &'a dyn Progress,
}

/// Where the recovery will end, and from which backup it comes.
#[derive(Debug)]
pub struct Located {
    pub backup: Candidate,
    pub reach: Reach,
    /// None for `latest`, which ends with the WAL.
    pub stop: Option<StopPoint>,
    /// The end of the recovered cluster's WAL.
    pub end: Lsn,
    /// The end of the last record that PostgreSQL must read.
    pub needed_to: Lsn,
    pub last_kept: Option<TransactionMark>,
    pub first_left_out: Option<TransactionMark>,
    pub last_left_out: Option<TransactionMark>,
    /// The start of the last record replayed.
    pub last_record: Option<Lsn>,
    /// Where the archive's readable WAL of this path ends.
    pub archive_end: Lsn,
    pub created: Vec<Created>,
    /// Databases whose files replay copies or removes, in this order.
    pub copies: Vec<CopyOfDatabase>,
    /// The last of the agent's rows that the recovered cluster must have, where the WAL of this recovery has one.
    pub canary: Option<Canary>,
    /// What the WAL asks of a standby's settings, where that is more than the backup's server had.
    pub asked: Option<WalSettings>,
}

impl Search<'_> {
    /// Never empty-handed: an error says what can be reached instead.
    pub async fn run(&self) -> Result<Located> {
        let Some((newest, reach)) = self.fitting.first() else { return Err(refuse::no_backup()) };
        let files = scan::way(reach, self.size);
        let tail = self.tail(&files).await?;
        let bounds = self.bounds(newest, reach, tail.as_ref());
        match self.target {
            Target::Latest => self.latest(newest, reach, &bounds).await,
            Target::Backup => self
                .from(newest, reach, tail.as_ref(), None)
                .await?
                .ok_or_else(|| refuse::unreadable(self.target, &bounds)),
            Target::Lsn(lsn) => self.lsn(*lsn, tail.as_ref(), &bounds).await,
            Target::Time(_) => self.time(tail.as_ref(), &bounds).await,
            Target::Xid(_) | Target::Name(_) => self.search(tail.as_ref(), &bounds).await,
        }
    }

    /// Of the newest backup's way, or of the longest, where nothing was committed after the newest backup.
    async fn tail(&self, files: &[WayFile]) -> Result<Option<Tail>> {
        let tail = scan::tail(self.source, files, self.size, self.system).await?;
        let quiet = tail.as_ref().is_none_or(|t| t.last_commit.is_none());
        let Some((_, longest)) = self.fitting.last().filter(|_| quiet && self.fitting.len() > 1) else {
            return Ok(tail);
        };
        let files = scan::way(longest, self.size);
        let longer = scan::tail(self.source, &files, self.size, self.system).await?;
        let same_end = |t: &Tail| tail.as_ref().is_some_and(|newest| newest.end == t.end);
        Ok(longer.filter(same_end).or(tail))
    }

    fn bounds(&self, newest: &Candidate, reach: &Reach, tail: Option<&Tail>) -> Bounds {
        let oldest = self.fitting.last().map_or(newest, |(c, _)| c);
        Bounds {
            first_time: oldest.stop_time,
            first_lsn: oldest.stop,
            last_commit: tail.and_then(|t| t.last_commit),
            last_record: tail.and_then(|t| t.last_record),
            hole: match &reach.stop {
                Stop::Hole(hole) => Some(hole.clone()),
                Stop::EndOfWal => None,
            },
            named: self.named.then(|| newest.id.clone()),
        }
    }

    async fn latest(&self, backup: &Candidate, reach: &Reach, bounds: &Bounds) -> Result<Located> {
        if bounds.hole.is_some() {
            return Err(refuse::hole_before_latest(bounds));
        }
        let files = scan::way(reach, self.size);
        let scanned = self.scan(backup, &files).await?;
        if scanned.broken {
            return Err(refuse::broken(&scanned));
        }
        Ok(Self::located(backup, reach, scanned, None))
    }

    async fn lsn(&self, lsn: Lsn, tail: Option<&Tail>, bounds: &Bounds) -> Result<Located> {
        // PostgreSQL stops at the first record that starts at or after the target; there must be one.
        if bounds.last_record.is_none_or(|last| lsn > last) {
            return Err(refuse::past_the_end(self.target, bounds));
        }
        let Some((backup, reach)) = self.fitting.iter().find(|(c, _)| c.stop <= lsn) else {
            return Err(refuse::before_the_first(self.target, bounds));
        };
        self.from(backup, reach, tail, None).await?.ok_or_else(|| refuse::past_the_end(self.target, bounds))
    }

    async fn time(&self, tail: Option<&Tail>, bounds: &Bounds) -> Result<Located> {
        let Target::Time(time) = self.target else { return self.search(tail, bounds).await };
        // Saves reading everything for a target that is plainly too late; the scan decides the near ones. A tail without
        // a commit says nothing: the newest backup may be the last thing that happened.
        if bounds.last_commit.is_some_and(|last| *time > last.at) {
            return Err(refuse::past_the_end(self.target, bounds));
        }
        for (backup, reach) in self.fitting.iter().filter(|(c, _)| c.stop_time <= *time) {
            match self.from(backup, reach, tail, None).await? {
                Some(located) if located.stop.as_ref().is_some_and(|s| s.consistent) => return Ok(located),
                // The first later commit came before this backup was consistent: an older one is needed.
                Some(_) => {}
                // An older one leads to the same end.
                None => return Err(refuse::past_the_end(self.target, bounds)),
            }
        }
        Err(refuse::before_the_first(self.target, bounds))
    }

    /// A transaction or a name can lie anywhere: from the newest backup on back, each up to where the next one ended.
    async fn search(&self, tail: Option<&Tail>, bounds: &Bounds) -> Result<Located> {
        let mut limit = None;
        for (backup, reach) in self.fitting {
            if let Some(located) = self.from(backup, reach, tail, limit).await?
                && located.stop.as_ref().is_some_and(|s| s.consistent)
            {
                return Ok(located);
            }
            limit = Some(backup.stop);
        }
        Err(refuse::not_found(self.target, bounds))
    }

    /// Reads forward from one backup; None when the target does not come (before `limit`).
    async fn from(
        &self,
        backup: &Candidate,
        reach: &Reach,
        tail: Option<&Tail>,
        limit: Option<Lsn>,
    ) -> Result<Option<Located>> {
        let mut files = scan::way(reach, self.size);
        if let Some(limit) = limit {
            files.retain(|f| f.segment.start(self.size) < limit);
        }
        let scanned = self.scan(backup, &files).await?;
        if scanned.broken {
            return Err(refuse::broken(&scanned));
        }
        Ok(scanned.outcome.stop.is_some().then(|| Self::located(backup, reach, scanned, tail)))
    }

    async fn scan(&self, backup: &Candidate, files: &[WayFile]) -> Result<Scanned> {
        let task = ScanTask {
            source: self.source,
            files,
            size: self.size,
            system: self.system,
            start: backup.start,
            progress: self.progress,
        };
        let consistency = Consistency::Reached(backup.stop);
        task.run(TargetScanner::new(self.target.clone(), self.inclusion, backup.start, consistency)).await
    }

    fn located(backup: &Candidate, reach: &Reach, scanned: Scanned, tail: Option<&Tail>) -> Located {
        let outcome = scanned.outcome;
        // What was read ends soon after the target; the archive's last commit is that of its tail.
        let beyond = |m: &TransactionMark| outcome.stop.is_some() && m.lsn >= outcome.end;
        let of_tail = tail.and_then(|t| t.last_commit).filter(beyond);
        let last_left_out = [outcome.last_left_out, of_tail].into_iter().flatten().max_by_key(|m| m.lsn);
        Located {
            backup: backup.clone(),
            reach: reach.clone(),
            end: outcome.end,
            needed_to: scanned.needed_to.unwrap_or(outcome.end),
            last_kept: outcome.last_kept,
            first_left_out: outcome.first_left_out,
            last_left_out,
            last_record: match &outcome.stop {
                None => scanned.last_record,
                Some(stop) => Some(stop.record),
            },
            archive_end: tail.map_or(scanned.end.lsn, |t| t.end.max(outcome.end)),
            stop: outcome.stop,
            created: scanned.created,
            copies: scanned.copies,
            asked: scanned.asked,
            canary: scanned.canary,
        }
    }
}

#[cfg(test)]
mod tests;
