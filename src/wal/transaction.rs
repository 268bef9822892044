//! Ends of transactions: `ParseCommitRecord` and `ParseAbortRecord` of `xactdesc.c`.

use super::fields::{Fields, u32_at};
use super::record::Record;
use crate::model::{Lsn, PgMajor, Timestamp, Xid};

/// A commit or an abort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionEnd<'a> {
    /// What `recovery_target_xid` is compared with: of a prepared transaction its own, not that of the session which
    /// ended it.
    pub xid: Xid,
    /// By the server's clock when it ended.
    pub at: Timestamp,
    pub committed: bool,
    /// Ended by `COMMIT PREPARED` or `ROLLBACK PREPARED`.
    pub prepared: bool,
    subxids: &'a [u8],
}

impl TransactionEnd<'_> {
    /// Subtransactions that ended with it.
    pub fn subxids(&self) -> impl Iterator<Item = Xid> + '_ {
        self.subxids.chunks_exact(4).filter_map(|b| u32_at(b, 0)).map(Xid)
    }
}

/// A transaction's end and its place, kept after the record is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionMark {
    pub xid: Xid,
    pub at: Timestamp,
    pub lsn: Lsn,
    pub end_lsn: Lsn,
}

impl TransactionMark {
    pub fn of(record: &Record<'_>, end: &TransactionEnd<'_>) -> Self {
        Self { xid: end.xid, at: end.at, lsn: record.lsn, end_lsn: record.end_lsn }
    }
}

const COMMIT: u8 = 0x00;
const ABORT: u8 = 0x20;
const COMMIT_PREPARED: u8 = 0x30;
const ABORT_PREPARED: u8 = 0x40;
const OPCODE: u8 = 0x70;
const HAS_INFO: u8 = 0x80;

const HAS_DATABASE: u32 = 1;
const HAS_SUBXACTS: u32 = 1 << 1;
const HAS_RELATIONS: u32 = 1 << 2;
const HAS_INVALIDATIONS: u32 = 1 << 3;
const HAS_TWOPHASE: u32 = 1 << 4;
const HAS_DROPPED_STATS: u32 = 1 << 8;

const RELATION_BYTES: usize = 12;
/// `sizeof(SharedInvalidationMessage)`.
const INVALIDATION_BYTES: usize = 16;

/// Outer None: malformed. Inner None: a record of this manager that ends no transaction.
#[allow(clippy::option_option)]
pub(super) fn parse<'a>(record: &Record<'a>) -> Option<Option<TransactionEnd<'a>>> {
    let (committed, prepared) = match record.opcode() & OPCODE {
        COMMIT => (true, false),
        COMMIT_PREPARED => (true, true),
        ABORT => (false, false),
        ABORT_PREPARED => (false, true),
        _ => return Some(None),
    };
    let mut fields = Fields::new(record.main_data_kept()?);
    let at = Timestamp::from_postgres_micros(fields.i64()?)?;
    let info = if record.header.info & HAS_INFO == 0 { 0 } else { fields.u32()? };
    let mut subxids: &[u8] = &[];
    let twophase = details(&mut fields, info, committed, record.major, &mut subxids);
    let xid = if prepared { twophase?? } else { record.xid() };
    // The lists of a transaction too long to keep are not at hand; its time and id are.
    if twophase.is_none() && !record.is_cut() {
        return None;
    }
    Some(Some(TransactionEnd { xid, at, committed, prepared, subxids }))
}

/// The parts that `info` announces, in order, up to the prepared transaction's id.
#[allow(clippy::option_option)]
fn details<'a>(
    fields: &mut Fields<'a>,
    info: u32,
    commit: bool,
    major: PgMajor,
    subxids: &mut &'a [u8],
) -> Option<Option<Xid>> {
    if info & HAS_DATABASE != 0 {
        fields.take(8)?;
    }
    if info & HAS_SUBXACTS != 0 {
        *subxids = list(fields, 4)?;
    }
    if info & HAS_RELATIONS != 0 {
        list(fields, RELATION_BYTES)?;
    }
    if info & HAS_DROPPED_STATS != 0 {
        // 18 made the object's id 64 bits wide.
        list(fields, if major >= PgMajor(18) { 16 } else { 12 })?;
    }
    if commit && info & HAS_INVALIDATIONS != 0 {
        list(fields, INVALIDATION_BYTES)?;
    }
    Some(if info & HAS_TWOPHASE == 0 { None } else { Some(Xid(fields.u32()?)) })
}

/// A count and that many items.
fn list<'a>(fields: &mut Fields<'a>, item: usize) -> Option<&'a [u8]> {
    let count = fields.u32()? as usize;
    fields.take(count.checked_mul(item)?)
}
