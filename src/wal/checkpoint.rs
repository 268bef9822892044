//! What checkpoint and parameter-change records say, which `pg_control` repeats (`pg_control.h`).

use std::fmt;

use super::fields::{i64_at, u32_at, u64_at};
use crate::model::{Lsn, TimelineId, Timestamp, Xid};

/// A checkpoint record (`CheckPoint`), as `pg_control` and WAL carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    pub redo: Lsn,
    pub timeline: TimelineId,
    /// Differs from `timeline` only where this checkpoint began one.
    pub previous_timeline: TimelineId,
    pub full_page_writes: bool,
    pub next_xid: Xid,
    pub next_xid_epoch: u32,
    pub oldest_xid: Xid,
    pub at: Option<Timestamp>,
}

/// The settings that a recovering server must not undercut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalSettings {
    pub wal_level: WalLevel,
    pub max_connections: u32,
    pub max_worker_processes: u32,
    pub max_wal_senders: u32,
    pub max_prepared_transactions: u32,
    pub max_locks_per_transaction: u32,
}

/// `wal_level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WalLevel {
    Minimal,
    Replica,
    Logical,
    Unknown(u32),
}

impl Checkpoint {
    /// From a checkpoint record's main data or `checkPointCopy`; 17 added a field in padding only.
    pub fn parse(b: &[u8]) -> Option<Self> {
        Some(Self {
            redo: Lsn(u64_at(b, 0)?),
            timeline: TimelineId(u32_at(b, 8)?),
            previous_timeline: TimelineId(u32_at(b, 12)?),
            full_page_writes: *b.get(16)? != 0,
            next_xid: Xid(u32_at(b, 24)?),
            next_xid_epoch: u32_at(b, 28)?,
            oldest_xid: Xid(u32_at(b, 44)?),
            at: Timestamp::from_unix_seconds(i64_at(b, 64)?),
        })
    }
}

impl WalSettings {
    /// From a parameter-change record (`xl_parameter_change`).
    pub fn parse(b: &[u8]) -> Option<Self> {
        Some(Self {
            max_connections: u32_at(b, 0)?,
            max_worker_processes: u32_at(b, 4)?,
            max_wal_senders: u32_at(b, 8)?,
            max_prepared_transactions: u32_at(b, 12)?,
            max_locks_per_transaction: u32_at(b, 16)?,
            wal_level: WalLevel::from_number(u32_at(b, 20)?),
        })
    }
    /// The larger of each number; the level is the other's.
    #[must_use]
    pub fn most(self, other: Self) -> Self {
        Self {
            wal_level: other.wal_level,
            max_connections: self.max_connections.max(other.max_connections),
            max_worker_processes: self.max_worker_processes.max(other.max_worker_processes),
            max_wal_senders: self.max_wal_senders.max(other.max_wal_senders),
            max_prepared_transactions: self.max_prepared_transactions.max(other.max_prepared_transactions),
            max_locks_per_transaction: self.max_locks_per_transaction.max(other.max_locks_per_transaction),
        }
    }
    /// Those that a server in recovery checks (`CheckRequiredParameterValues`), by name.
    pub const fn checked(&self) -> [(&'static str, u32); 5] {
        [
            ("max_connections", self.max_connections),
            ("max_worker_processes", self.max_worker_processes),
            ("max_wal_senders", self.max_wal_senders),
            ("max_prepared_transactions", self.max_prepared_transactions),
            ("max_locks_per_transaction", self.max_locks_per_transaction),
        ]
    }
}

impl WalLevel {
    pub fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Minimal,
            1 => Self::Replica,
            2 => Self::Logical,
            n => Self::Unknown(n),
        }
    }
}
impl fmt::Display for WalLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Minimal => f.write_str("minimal"),
            Self::Replica => f.write_str("replica"),
            Self::Logical => f.write_str("logical"),
            Self::Unknown(n) => write!(f, "{n}"),
        }
    }
}
