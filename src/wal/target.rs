//! Where a recovery will stop: `recoveryStopsBefore` and `recoveryStopsAfter` of `xlogrecovery.c`, without replaying.
//!
//! The scanner is fed every record from the backup's start (its redo position) on, and keeps looking after it has found
//! the stop, so that a report can say what was left out. The rules, as in PostgreSQL:
//! * A time stops only at a commit or an abort: before the first one later than it (after), or not earlier (before).
//! * A transaction id stops at the commit or abort of just that id, of a prepared transaction's own id.
//! * An LSN stops at the first record that starts at or after it.
//! * A name stops after the first restore point of that name; there is no "before".
//! * `backup` stops as soon as the data are consistent.

use super::facts::Fact;
use super::record::Record;
use super::transaction::{TransactionEnd, TransactionMark};
use crate::error::Result;
use crate::model::{Inclusion, Lsn, Target, Timestamp, Xid};

/// When the data of a base backup are consistent; PostgreSQL ends no recovery before that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Taken on a primary: at the backup-end record that names this start.
    BackupEnd { start: Lsn },
    /// Taken on a standby (its minimum recovery point), or known from elsewhere: once replay has reached it.
    Reached(Lsn),
}

/// Looks for a target in records that are shown to it in order.
#[derive(Debug)]
pub struct TargetScanner {
    target: Target,
    inclusion: Inclusion,
    start: Lsn,
    consistency: Consistency,
    outcome: Outcome,
}

/// What was found so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// None: not reached (yet). `latest` never stops.
    pub stop: Option<Stop>,
    /// The last commit that the recovered cluster has.
    pub last_kept: Option<TransactionMark>,
    pub first_left_out: Option<TransactionMark>,
    pub last_left_out: Option<TransactionMark>,
    pub commits_kept: u64,
    pub commits_left_out: u64,
    /// Where the data become consistent, once seen. A stop before it is fatal to PostgreSQL.
    pub consistent_at: Option<Lsn>,
    /// The end of the last record kept: where the recovered cluster's WAL ends. The start before any.
    pub end: Lsn,
    /// The end of the last record seen, kept or not.
    pub seen: Lsn,
}

/// Where PostgreSQL will stop.
#[derive(Debug, Clone, PartialEq)]
pub struct Stop {
    /// The record that makes it stop.
    pub record: Lsn,
    /// That record is replayed (`After`) or not (`Before`).
    pub side: Inclusion,
    /// The end of the last record replayed; the new timeline begins here.
    pub end: Lsn,
    /// Of the stopping record, where it is a transaction's end.
    pub xid: Option<Xid>,
    /// Of the stopping record, where it has one.
    pub at: Option<Timestamp>,
    /// False: PostgreSQL will refuse to end here.
    pub consistent: bool,
}

impl Outcome {
    /// True once the stop and the first commit after it are known: nothing more is to be learned but counts.
    pub fn is_settled(&self) -> bool {
        self.stop.is_some() && self.first_left_out.is_some()
    }
}

impl TargetScanner {
    /// `start`: where replay begins; earlier records are ignored. `inclusion` matters for time, xid and LSN only.
    pub fn new(target: Target, inclusion: Inclusion, start: Lsn, consistency: Consistency) -> Self {
        let reached = matches!(consistency, Consistency::Reached(lsn) if lsn <= start);
        let outcome = Outcome {
            stop: None,
            last_kept: None,
            first_left_out: None,
            last_left_out: None,
            commits_kept: 0,
            commits_left_out: 0,
            consistent_at: reached.then_some(start),
            end: start,
            seen: start,
        };
        Self { target, inclusion, start, consistency, outcome }
    }

    /// Takes the next record.
    pub fn observe(&mut self, record: &Record<'_>) -> Result<()> {
        if record.lsn < self.start {
            return Ok(());
        }
        let fact = Fact::of(record)?;
        let ended = if let Some(Fact::Transaction(end)) = &fact { Some(end) } else { None };
        if self.outcome.stop.is_none() && self.stops_before(record, ended) {
            self.stop(record, Inclusion::Before, fact.as_ref());
        }
        self.count(record, ended);
        self.outcome.seen = record.end_lsn;
        if self.outcome.stop.is_some() {
            return Ok(());
        }
        self.outcome.end = record.end_lsn;
        self.note_consistency(record, fact.as_ref());
        if self.stops_after(record, fact.as_ref()) {
            self.stop(record, Inclusion::After, fact.as_ref());
        }
        Ok(())
    }

    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }
    pub fn into_outcome(self) -> Outcome {
        self.outcome
    }

    fn stops_before(&self, record: &Record<'_>, ended: Option<&TransactionEnd<'_>>) -> bool {
        let before = self.inclusion == Inclusion::Before;
        match (&self.target, ended) {
            (Target::Backup, _) => self.outcome.consistent_at.is_some(),
            (Target::Lsn(lsn), _) => before && record.lsn >= *lsn,
            (Target::Xid(xid), Some(end)) => before && end.xid == *xid,
            (Target::Time(time), Some(end)) => {
                let (at, limit) = (end.at.postgres_micros(), time.postgres_micros());
                if before { at >= limit } else { at > limit }
            }
            _ => false,
        }
    }

    fn stops_after(&self, record: &Record<'_>, fact: Option<&Fact<'_>>) -> bool {
        let after = self.inclusion == Inclusion::After;
        match (&self.target, fact) {
            (Target::Backup, _) => self.outcome.consistent_at.is_some(),
            (Target::Lsn(lsn), _) => after && record.lsn >= *lsn,
            (Target::Xid(xid), Some(Fact::Transaction(end))) => after && end.xid == *xid,
            (Target::Name(wanted), Some(Fact::RestorePoint { name, .. })) => wanted == name,
            _ => false,
        }
    }

    fn stop(&mut self, record: &Record<'_>, side: Inclusion, fact: Option<&Fact<'_>>) {
        let (xid, at) = match fact {
            Some(Fact::Transaction(end)) => (Some(end.xid), Some(end.at)),
            Some(Fact::RestorePoint { at, .. }) => (None, Some(*at)),
            _ => (None, None),
        };
        let (end, consistent) = (self.outcome.end, self.outcome.consistent_at.is_some());
        self.outcome.stop = Some(Stop { record: record.lsn, side, end, xid, at, consistent });
    }

    fn count(&mut self, record: &Record<'_>, ended: Option<&TransactionEnd<'_>>) {
        let Some(end) = ended.filter(|e| e.committed) else { return };
        let mark = TransactionMark::of(record, end);
        let outcome = &mut self.outcome;
        if outcome.stop.is_none() {
            outcome.commits_kept += 1;
            outcome.last_kept = Some(mark);
        } else {
            outcome.commits_left_out += 1;
            outcome.first_left_out.get_or_insert(mark);
            outcome.last_left_out = Some(mark);
        }
    }

    fn note_consistency(&mut self, record: &Record<'_>, fact: Option<&Fact<'_>>) {
        let reached = match (self.consistency, fact) {
            (Consistency::BackupEnd { start }, Some(Fact::BackupEnd { start: found })) => start == *found,
            (Consistency::Reached(lsn), _) => record.end_lsn >= lsn,
            _ => false,
        };
        if reached {
            self.outcome.consistent_at.get_or_insert(record.end_lsn);
        }
    }
}
