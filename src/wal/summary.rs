//! What one segment, whole or unfinished, holds: its first and last record, its commits, where it ends.

use super::facts::Fact;
use super::page::{PAGE_BYTES, PageHeader};
use super::reader::{End, EndReason, Flow, WalReader};
use super::record::Record;
use super::transaction::TransactionMark;
use crate::error::{Error, Result};
use crate::model::{Lsn, SegmentSize, SystemId, TimelineId};

/// Reads one segment, fed in pieces of any size.
#[derive(Debug)]
pub struct SegmentScan {
    reader: WalReader,
    head: Vec<u8>,
    notes: Notes,
}

#[derive(Debug, Default)]
struct Notes {
    first_record: Option<RecordPlace>,
    first_commit: Option<TransactionMark>,
    last_commit: Option<TransactionMark>,
    commits: u64,
    failed: Option<Error>,
}

/// A record's start and that of the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordPlace {
    pub lsn: Lsn,
    pub prev: Lsn,
}

/// What a segment holds.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentSummary {
    /// The first record that starts in it; its `prev` is the last one of the segment before.
    pub first_record: Option<RecordPlace>,
    pub first_commit: Option<TransactionMark>,
    pub last_commit: Option<TransactionMark>,
    pub commits: u64,
    /// Of the last page read.
    pub timeline: Option<TimelineId>,
    pub system: Option<SystemId>,
    /// Where reading ended: for an unfinished segment, up to where it is worth saving.
    pub end: End,
    /// The segment ends in a switch record.
    pub switched: bool,
    /// Bytes of the first page's record that began before.
    pub carried_in: u32,
    /// The first page voids the record that should go on there.
    pub overwrites: bool,
}

impl SegmentScan {
    /// `start`: the segment's first byte.
    pub fn new(start: Lsn, size: SegmentSize, system: Option<SystemId>) -> Self {
        Self { reader: WalReader::new(start, size, system), head: Vec::new(), notes: Notes::default() }
    }
    /// Takes the next bytes. `Stop` once nothing more can be read.
    pub fn feed(&mut self, bytes: &[u8]) -> Flow {
        let wanted = super::page::LONG_HEADER.saturating_sub(self.head.len());
        self.head.extend_from_slice(&bytes[..bytes.len().min(wanted)]);
        let notes = &mut self.notes;
        self.reader.feed(bytes, &mut |record| notes.take(record))
    }
    /// An error only where a record with a right CRC cannot be understood.
    pub fn finish(self) -> Result<SegmentSummary> {
        let Self { reader, head, mut notes } = self;
        let (system, timeline, switched) = (reader.system(), reader.timeline(), reader.is_after_switch());
        let end = reader.finish(&mut |record| notes.take(record));
        if let Some(error) = notes.failed {
            return Err(error);
        }
        let header = PageHeader::parse(&head);
        Ok(SegmentSummary {
            first_record: notes.first_record,
            first_commit: notes.first_commit,
            last_commit: notes.last_commit,
            commits: notes.commits,
            timeline,
            system,
            end,
            switched,
            carried_in: header.filter(PageHeader::continues_record).map_or(0, |h| h.remaining),
            overwrites: header.is_some_and(|h| h.overwrites_record()),
        })
    }
}

impl Notes {
    fn take(&mut self, record: &Record<'_>) -> Flow {
        self.first_record.get_or_insert(RecordPlace { lsn: record.lsn, prev: record.header.prev });
        match Fact::of(record) {
            Ok(Some(Fact::Transaction(end))) if end.committed => {
                let mark = TransactionMark::of(record, &end);
                self.commits += 1;
                self.first_commit.get_or_insert(mark);
                self.last_commit = Some(mark);
            }
            Ok(_) => {}
            Err(error) => {
                self.failed = Some(error);
                return Flow::Stop;
            }
        }
        Flow::Continue
    }
}

impl SegmentSummary {
    /// The start of the last record that starts in it, complete or not.
    pub fn last_record(&self) -> Option<Lsn> {
        match self.end.reason {
            EndReason::OutOfBytes { open: Some(open) } => Some(open),
            _ => self.end.last_record,
        }
    }
    /// Does `next` go on where this segment ends? None where neither its bytes nor its links can tell: a record that
    /// fills the whole of one of them.
    pub fn is_continued_by(&self, next: &SegmentSummary) -> Option<bool> {
        let first = next.first_record?;
        let before = if next.overwrites { self.end.last_record } else { self.last_record() };
        before.map(|before| before == first.prev)
    }
}

/// Summarises a segment, or the beginning of one, that is in memory.
pub fn summarize(
    bytes: &[u8],
    start: Lsn,
    size: SegmentSize,
    system: Option<SystemId>,
) -> Result<SegmentSummary> {
    let mut scan = SegmentScan::new(start, size, system);
    scan.feed(bytes);
    scan.finish()
}

/// Up to where an unfinished segment holds good records, and why not further.
pub fn last_valid_record_end(bytes: &[u8], start: Lsn, size: SegmentSize, system: Option<SystemId>) -> End {
    let mut reader = WalReader::new(start, size, system);
    reader.feed(bytes, &mut |_| Flow::Continue);
    reader.finish(&mut |_| Flow::Continue)
}

/// The first record that starts in a segment, and the one that it names as its predecessor: which of two objects of
/// one name continues the segment before. Reads no further than that record.
pub fn first_record(
    bytes: &[u8],
    start: Lsn,
    size: SegmentSize,
    system: Option<SystemId>,
) -> Option<RecordPlace> {
    let mut found = None;
    let mut reader = WalReader::new(start, size, system);
    let mut note = |record: &Record<'_>| {
        found = Some(RecordPlace { lsn: record.lsn, prev: record.header.prev });
        Flow::Stop
    };
    for piece in bytes.chunks(PAGE_BYTES) {
        if reader.feed(piece, &mut note) == Flow::Stop {
            break;
        }
    }
    found
}
