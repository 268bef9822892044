//! Where WAL ends, and why.

use std::fmt;

use crate::model::{Lsn, SystemId, TimelineId};

/// The end of what a reader could read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The first byte after the last good record: where PostgreSQL would go on writing. Before any record: where the
    /// first one was expected.
    pub lsn: Lsn,
    /// The last good record's start.
    pub last_record: Option<Lsn>,
    pub reason: EndReason,
}

/// Why a reader stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// Everything that was fed is read; `open` is a record that goes on after it.
    OutOfBytes { open: Option<Lsn> },
    /// The caller had enough.
    Stopped,
    /// Zeros where the next record or page would be: nothing was written here yet.
    Zeros,
    /// Bytes of the file's earlier life; `from` is the older position that they speak of.
    Recycled { from: Lsn },
    /// Something that PostgreSQL does not write. At the end of WAL that is being written this is a torn write; in a
    /// finished segment it is damage.
    Damaged { at: Lsn, fault: Fault },
}

impl EndReason {
    /// The bytes ran out, with nothing wrong in them.
    pub fn is_out_of_bytes(self) -> bool {
        matches!(self, Self::OutOfBytes { .. })
    }
    pub fn is_damage(self) -> bool {
        matches!(self, Self::Damaged { .. })
    }
}

/// What is wrong with a page or a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    PageMagic {
        found: u16,
    },
    PageFlags {
        found: u16,
    },
    PageAddress {
        found: Lsn,
    },
    PageTimeline {
        found: TimelineId,
        before: TimelineId,
    },
    System {
        found: SystemId,
        expected: SystemId,
    },
    SegmentSize {
        found: u32,
    },
    BlockSize {
        found: u32,
    },
    /// The rest of the record that began at `record` does not come.
    ContinuationMissing {
        record: Lsn,
    },
    ContinuationLength {
        found: u32,
        expected: u32,
    },
    /// A page begins with the rest of a record, though the last record was complete.
    ContinuationUnexpected,
    RecordLength {
        found: u32,
    },
    RecordManager {
        found: u8,
    },
    PrevLink {
        found: Lsn,
        expected: Option<Lsn>,
    },
    Crc {
        found: u32,
        expected: u32,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PageMagic { found } => {
                write!(f, "page magic {found:04X} is not that of this major version")
            }
            Self::PageFlags { found } => write!(f, "page flags {found:04X} are impossible here"),
            Self::PageAddress { found } => write!(f, "the page says that it lies at {found}"),
            Self::PageTimeline { found, before } => {
                write!(f, "timeline {found} follows timeline {before}")
            }
            Self::System { found, expected } => {
                write!(f, "the page is of system {found}, not {expected}")
            }
            Self::SegmentSize { found } => write!(f, "the page is of a segment of {found} bytes"),
            Self::BlockSize { found } => write!(f, "WAL blocks of {found} bytes, not 8192"),
            Self::ContinuationMissing { record } => {
                write!(f, "the rest of the record at {record} is missing")
            }
            Self::ContinuationLength { found, expected } => {
                write!(f, "{found} bytes of a record should follow, {expected} are missing")
            }
            Self::ContinuationUnexpected => f.write_str("the page goes on with a record that was complete"),
            Self::RecordLength { found } => write!(f, "no record is {found} bytes long"),
            Self::RecordManager { found } => write!(f, "there is no resource manager {found}"),
            Self::PrevLink { found, expected: Some(expected) } => {
                write!(f, "the record names {found} as its predecessor, which is {expected}")
            }
            Self::PrevLink { found, expected: None } => {
                write!(f, "the record names {found} as its predecessor, which comes after it")
            }
            Self::Crc { found, expected } => {
                write!(f, "the record's CRC is {found:08X}, its bytes give {expected:08X}")
            }
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfBytes { open: None } => f.write_str("all bytes are read"),
            Self::OutOfBytes { open: Some(lsn) } => {
                write!(f, "the record at {lsn} goes on after the last byte")
            }
            Self::Stopped => f.write_str("reading was stopped"),
            Self::Zeros => f.write_str("nothing is written from here on"),
            Self::Recycled { from } => write!(f, "what follows is left from {from}"),
            Self::Damaged { at, fault } => write!(f, "at {at}: {fault}"),
        }
    }
}
