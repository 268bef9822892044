//! The few records that a recovery, a window or a report depends on.

use super::checkpoint::{Checkpoint, WalSettings};
use super::fields::Fields;
use super::record::{Record, RelationLocator, Rmgr};
use super::transaction::{self, TransactionEnd};
use crate::error::{Code, Error, Result};
use crate::model::{Lsn, PgMajor, TimelineId, Timestamp};

/// What a record says; borrowed from it.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact<'a> {
    /// A transaction committed or aborted.
    Transaction(TransactionEnd<'a>),
    RestorePoint {
        name: String,
        at: Timestamp,
    },
    Checkpoint {
        checkpoint: Checkpoint,
        shutdown: bool,
    },
    /// Recovery ended here without a checkpoint; often a timeline begins.
    EndOfRecovery {
        timeline: TimelineId,
        previous_timeline: TimelineId,
        at: Timestamp,
    },
    /// The rest of the segment is empty.
    Switch,
    /// A base backup taken on a primary ended; `start` is where it began.
    BackupEnd {
        start: Lsn,
    },
    ParameterChange(WalSettings),
    FullPageWrites(bool),
    /// The record that a crash cut off at `overwritten` is void.
    ContinuationOverwritten {
        overwritten: Lsn,
        at: Timestamp,
    },
    TablespaceCreate {
        oid: u32,
        /// Where the link points to; empty for an in-place tablespace.
        path: String,
    },
    TablespaceDrop {
        oid: u32,
    },
    DatabaseCreate {
        database: u32,
        tablespace: u32,
        /// Database and tablespace whose files replay copies; None where every block is logged (15+).
        copied_from: Option<(u32, u32)>,
    },
    DatabaseDrop {
        database: u32,
        tablespaces: Vec<u32>,
    },
    RelationTruncate {
        relation: RelationLocator,
        /// Blocks that remain of the main fork.
        blocks: u32,
    },
    /// `pg_logical_emit_message`; one that is too long to keep says nothing.
    LogicalMessage {
        database: u32,
        transactional: bool,
        prefix: &'a [u8],
        message: &'a [u8],
    },
}

impl<'a> Fact<'a> {
    /// None for records of no interest here. An error where a record with a right CRC cannot be understood: its
    /// meaning must not be passed over.
    pub fn of(record: &Record<'a>) -> Result<Option<Self>> {
        let found = match record.rmgr() {
            Rmgr::TRANSACTION => transaction::parse(record).map(|end| end.map(Self::Transaction)),
            Rmgr::XLOG => xlog(record),
            Rmgr::TABLESPACE => tablespace(record),
            Rmgr::DATABASE => database(record),
            Rmgr::STORAGE => storage(record),
            // Others' messages mean nothing to a recovery: one that we do not understand is passed over.
            Rmgr::LOGICAL_MESSAGE => Some(message(record)),
            _ => Some(None),
        };
        found.ok_or_else(|| {
            Error::new(Code::WalDamaged, "a WAL record cannot be understood").at(record.lsn).hint(
                "its CRC is right, so the server wrote it so: check that this is WAL of PostgreSQL 14 to 18",
            )
        })
    }
}

type Parsed<'a> = Option<Option<Fact<'a>>>;

fn xlog<'a>(record: &Record<'a>) -> Parsed<'a> {
    let opcode = record.opcode();
    if !matches!(opcode, 0x00 | 0x10 | 0x40..=0x90 | 0xD0) {
        return Some(None);
    }
    let data = record.main_data()?;
    let mut fields = Fields::new(data);
    Some(Some(match opcode {
        0x00 | 0x10 => Fact::Checkpoint { checkpoint: Checkpoint::parse(data)?, shutdown: opcode == 0 },
        0x40 => Fact::Switch,
        0x50 => Fact::BackupEnd { start: Lsn(fields.u64()?) },
        0x60 => Fact::ParameterChange(WalSettings::parse(data)?),
        0x70 => {
            let at = time(&mut fields)?;
            Fact::RestorePoint { at, name: text(fields.c_string()?) }
        }
        0x80 => Fact::FullPageWrites(fields.u8()? != 0),
        0x90 => Fact::EndOfRecovery {
            at: time(&mut fields)?,
            timeline: TimelineId(fields.u32()?),
            previous_timeline: TimelineId(fields.u32()?),
        },
        _ => Fact::ContinuationOverwritten { overwritten: Lsn(fields.u64()?), at: time(&mut fields)? },
    }))
}

fn tablespace<'a>(record: &Record<'a>) -> Parsed<'a> {
    let mut fields = Fields::new(record.main_data()?);
    Some(match record.opcode() {
        0x00 => Some(Fact::TablespaceCreate { oid: fields.u32()?, path: text(fields.c_string()?) }),
        0x10 => Some(Fact::TablespaceDrop { oid: fields.u32()? }),
        _ => None,
    })
}

fn database<'a>(record: &Record<'a>) -> Parsed<'a> {
    let mut fields = Fields::new(record.main_data()?);
    // 15 put the logged copy between the two opcodes of 14.
    let drop = if record.major >= PgMajor(15) { 0x20 } else { 0x10 };
    Some(match record.opcode() {
        0x00 => Some(Fact::DatabaseCreate {
            database: fields.u32()?,
            tablespace: fields.u32()?,
            copied_from: Some((fields.u32()?, fields.u32()?)),
        }),
        opcode if opcode == drop => {
            let database = fields.u32()?;
            let count = fields.u32()?;
            let tablespaces = (0..count).map_while(|_| fields.u32()).collect::<Vec<_>>();
            (tablespaces.len() == count as usize).then_some(())?;
            Some(Fact::DatabaseDrop { database, tablespaces })
        }
        0x10 => Some(Fact::DatabaseCreate {
            database: fields.u32()?,
            tablespace: fields.u32()?,
            copied_from: None,
        }),
        _ => None,
    })
}

fn storage<'a>(record: &Record<'a>) -> Parsed<'a> {
    if record.opcode() != 0x20 {
        return Some(None);
    }
    let mut fields = Fields::new(record.main_data()?);
    let blocks = fields.u32()?;
    Some(Some(Fact::RelationTruncate { blocks, relation: RelationLocator::read(&mut fields)? }))
}

/// `xl_logical_message` of `message.h`; the prefix's length counts its final zero.
fn message<'a>(record: &Record<'a>) -> Option<Fact<'a>> {
    if record.opcode() != 0x00 {
        return None;
    }
    let mut fields = Fields::new(record.main_data()?);
    let database = fields.u32()?;
    let transactional = fields.u8()? != 0;
    let _padding = fields.take(3)?;
    let prefix = usize::try_from(fields.u64()?).ok()?;
    let bytes = usize::try_from(fields.u64()?).ok()?;
    let prefix = fields.take(prefix)?.split_last()?.1;
    let message = fields.take(bytes)?;
    Some(Fact::LogicalMessage { database, transactional, prefix, message })
}

fn time(fields: &mut Fields<'_>) -> Option<Timestamp> {
    Timestamp::from_postgres_micros(fields.i64()?)
}

/// Names and paths are in the server's encoding, whatever that is; for comparing and showing.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
