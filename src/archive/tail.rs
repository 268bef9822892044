//! The live tail: the bytes of WAL that no finished segment holds yet, shipped every few seconds as heads (FORMAT.md), so
//! that a lost host loses seconds and not a segment.
//!
//! Promises kept here: no byte past the flush position leaves, for what follows is a recycled file's earlier life; what is
//! shipped is what the file of that name held while it had that name; nothing is overwritten (4); nothing leaves in the
//! clear unless the user said so (5).
//!
//! Order: a [`Look`] says how far WAL is flushed → [`plan`] says which ranges are due → [`read`] takes them from `pg_wal`
//! → a [`Lane`] seals and stores them, oldest first, so that what the repositories hold has no gap. A finished segment is
//! the archiver's; until the archive has it whole, the tail ships what is missing of it, for heads of a later segment lead
//! nowhere without it.
//!
//! Failure: a head that was not confirmed is part of the next one, which reaches farther; heads may overlap. After a
//! restart the repositories are asked what they hold of the segments in question, and it is believed where the digests
//! are those of the local bytes. Cancellation: dropping [`Lane::follow`] leaves whole heads or none.

pub mod lane;
pub mod plan;
pub mod read;

pub use lane::{Lane, Place, Progress};

use crate::model::{Lsn, TimelineId, Timestamp};

/// What the server said: a primary that writes `timeline`, with everything before `flush` on its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Taken before the server was asked.
    pub at: Timestamp,
    pub timeline: TimelineId,
    pub flush: Lsn,
    /// Up to where the archiver knows the archive to be whole on this timeline.
    pub archived_to: Option<Lsn>,
    /// Counts connections: after a new one nothing is taken for granted that the server may have lost.
    pub session: u64,
}
