//! Records from pages: `XLogReadRecord` of `xlogreader.c`, with the bytes pushed in instead of fetched.
//!
//! Whole segments are fed in order, in pieces of any size; every record whose CRC is right goes to a callback, borrowed:
//! one that lies within a page straight from the caller's bytes, one that crosses pages from a buffer that is used again.
//! The reader ends for good at the first thing that is no WAL ([`End`]); what is fed after that is ignored.

use super::fields::u32_at;
use super::page::{PAGE_BYTES, PageHeader, Pages};
use super::record::{HEADER_BYTES, KEPT_BYTES, MAX_BYTES, Record, RecordHeader};
use crate::model::{Lsn, PgMajor, SegmentSize, SystemId, TimelineId};

pub use super::end::{End, EndReason, Fault};

/// What a callback answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Continue,
    /// Enough: the reader ends here and cannot go on.
    Stop,
}

/// Reads WAL that is fed to it.
#[derive(Debug)]
pub struct WalReader {
    size: SegmentSize,
    system: Option<SystemId>,
    major: Option<PgMajor>,
    timeline: Option<TimelineId>,
    /// Of the next page.
    position: Lsn,
    pages: Pages,
    state: State,
    /// Start of the last good record.
    previous: Option<Lsn>,
    /// End of the last good record, or where the first is expected.
    reached: Lsn,
    held: Held,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first record; pages may begin with the rest of one that began earlier.
    Seeking,
    /// Before a record whose place is known.
    Awaiting(Lsn),
    /// In a record that began before the first byte fed: so many bytes of it are to come.
    Passing(u32),
    /// The next record starts where `reached` says, or after the next page's header.
    Between,
    /// In the record that `held` holds.
    Within,
    /// After a switch record, until this segment's end.
    Skipping(Lsn),
    Ended(EndReason),
}

/// A record that goes over a page's end.
#[derive(Debug, Default)]
struct Held {
    lsn: Lsn,
    timeline: Option<TimelineId>,
    total: u32,
    have: u32,
    crc: u32,
    bytes: Vec<u8>,
}

impl WalReader {
    /// Reads from the page at `from` on, beginning with the first record that starts there.
    /// `system`: refuse others; None takes the first one met.
    pub fn new(from: Lsn, size: SegmentSize, system: Option<SystemId>) -> Self {
        Self {
            size,
            system,
            major: None,
            timeline: None,
            position: Lsn(from.0 - from.0 % PAGE_BYTES as u64),
            pages: Pages::default(),
            state: State::Seeking,
            previous: None,
            reached: from,
            held: Held::default(),
        }
    }
    /// Reads from the record at `record` on; the first byte fed is that of its segment.
    pub fn at_record(record: Lsn, size: SegmentSize, system: Option<SystemId>) -> Self {
        let start = Lsn(record.0 - size.offset_of(record));
        Self { state: State::Awaiting(record), reached: record, ..Self::new(start, size, system) }
    }
    /// Demands that the first record follows this one (its start).
    pub fn after(mut self, previous: Option<Lsn>) -> Self {
        self.previous = previous;
        self
    }
    /// Where the next byte to be fed lies.
    pub fn position(&self) -> Lsn {
        self.position.plus(self.pages.waiting() as u64)
    }
    /// Known from the first page on.
    pub fn major(&self) -> Option<PgMajor> {
        self.major
    }
    pub fn system(&self) -> Option<SystemId> {
        self.system
    }
    /// Of the last page read.
    pub fn timeline(&self) -> Option<TimelineId> {
        self.timeline
    }
    /// The end of the last good record, or where the first one is expected.
    pub fn reached(&self) -> Lsn {
        self.reached
    }
    /// The last record was a switch: the rest of this segment does not matter.
    pub fn is_after_switch(&self) -> bool {
        matches!(self.state, State::Skipping(_))
    }
    /// Why it ended, once it has.
    pub fn ended(&self) -> Option<EndReason> {
        if let State::Ended(reason) = self.state { Some(reason) } else { None }
    }

    /// Takes the next bytes. `Stop` once the reader has ended (see [`Self::ended`]).
    pub fn feed(&mut self, bytes: &[u8], each: &mut dyn FnMut(&Record<'_>) -> Flow) -> Flow {
        if self.ended().is_none() {
            let mut pages = std::mem::take(&mut self.pages);
            pages.split(bytes, &mut |page| self.page(page, each));
            self.pages = pages;
        }
        if self.ended().is_some() { Flow::Stop } else { Flow::Continue }
    }

    /// No more bytes: a page begun is read as if zeros followed. Says where and why WAL ended.
    pub fn finish(mut self, each: &mut dyn FnMut(&Record<'_>) -> Flow) -> End {
        if self.pages.waiting() > 0 {
            let missing = PAGE_BYTES - self.pages.waiting();
            self.feed(&[0; PAGE_BYTES][..missing], each);
        }
        let reason = match self.state {
            State::Ended(reason) => reason,
            State::Within => EndReason::OutOfBytes { open: Some(self.held.lsn) },
            _ => EndReason::OutOfBytes { open: None },
        };
        End { lsn: self.reached, last_record: self.previous, reason }
    }

    /// Takes one whole page; the fast road under `feed`, for callers whose pieces are pages.
    pub fn page(&mut self, page: &[u8; PAGE_BYTES], each: &mut dyn FnMut(&Record<'_>) -> Flow) {
        let address = self.position;
        self.position = address.plus(PAGE_BYTES as u64);
        match self.state {
            State::Ended(_) => return,
            State::Skipping(until) if address < until => return,
            State::Awaiting(record) if self.position <= record => return,
            _ => {}
        }
        let outcome = self.records_of(page, address, each);
        if let Err(reason) = outcome {
            self.state = State::Ended(reason);
        }
    }

    fn records_of(
        &mut self,
        page: &[u8; PAGE_BYTES],
        address: Lsn,
        each: &mut dyn FnMut(&Record<'_>) -> Flow,
    ) -> Result<(), EndReason> {
        let header = self.checked_header(page, address)?;
        let damaged = |fault| EndReason::Damaged { at: address, fault };
        let mut offset = header.len();
        match self.state {
            State::Awaiting(record) if record > address => {
                let into = usize::try_from(record.since(address)).unwrap_or(usize::MAX);
                if into < offset || !into.is_multiple_of(8) {
                    return Err(damaged(Fault::ContinuationUnexpected));
                }
                offset = into;
            }
            State::Within => match self.continue_record(page, &header, address, each)? {
                Some(next) => offset = next,
                None => return Ok(()),
            },
            State::Passing(_) if header.overwrites_record() => {}
            State::Seeking | State::Passing(_) => {
                let expected = if let State::Passing(bytes) = self.state { Some(bytes) } else { None };
                match pass_record(&header, expected).map_err(damaged)? {
                    Passed::Until(next) => offset = next,
                    Passed::More(bytes) => {
                        self.state = State::Passing(bytes);
                        return Ok(());
                    }
                }
                self.reached = address.plus(offset as u64);
            }
            _ if header.continues_record() => return Err(damaged(Fault::ContinuationUnexpected)),
            _ => {}
        }
        self.state = State::Between;
        self.records_from(page, offset, address, &header, each)
    }

    /// The records that start on this page, from `offset` on.
    fn records_from(
        &mut self,
        page: &[u8; PAGE_BYTES],
        mut offset: usize,
        address: Lsn,
        page_header: &PageHeader,
        each: &mut dyn FnMut(&Record<'_>) -> Flow,
    ) -> Result<(), EndReason> {
        let major = self.major.unwrap_or(PgMajor(0));
        while let Some(total) = u32_at(page, offset) {
            let left = &page[offset..];
            let lsn = address.plus(offset as u64);
            if !(HEADER_BYTES..=MAX_BYTES as usize).contains(&(total as usize)) {
                return Err(no_record(left, lsn, total));
            }
            let header = left.first_chunk().map(RecordHeader::parse);
            if let Some(header) = &header {
                self.check_record(header, lsn, major)?;
            }
            let (Some(header), Some(bytes)) = (header, left.get(..total as usize)) else {
                self.held.begin(lsn, page_header.timeline, total, left);
                self.state = State::Within;
                return Ok(());
            };
            let body = &bytes[HEADER_BYTES..];
            check_crc(&header, crc32c::crc32c(body), bytes, lsn)?;
            offset += aligned(total) as usize;
            let end = self.end_of(&header, address.plus(offset as u64));
            self.passed(lsn, end, &header);
            let record = Record::new(lsn, end, header, page_header.timeline, major, body);
            if each(&record) == Flow::Stop {
                return Err(EndReason::Stopped);
            }
            if matches!(self.state, State::Skipping(_)) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Goes on with the held record. The offset after it, None when it goes on after this page too.
    fn continue_record(
        &mut self,
        page: &[u8; PAGE_BYTES],
        header: &PageHeader,
        address: Lsn,
        each: &mut dyn FnMut(&Record<'_>) -> Flow,
    ) -> Result<Option<usize>, EndReason> {
        let damaged = |fault| EndReason::Damaged { at: address, fault };
        if header.overwrites_record() {
            return Ok(Some(header.len()));
        }
        if !header.continues_record() {
            return Err(damaged(Fault::ContinuationMissing { record: self.held.lsn }));
        }
        let expected = self.held.total - self.held.have;
        if header.remaining != expected {
            return Err(damaged(Fault::ContinuationLength { found: header.remaining, expected }));
        }
        let data = &page[header.len()..];
        let taken = data.len().min(expected as usize);
        let had_header = self.held.have as usize >= HEADER_BYTES;
        self.held.append(&data[..taken]);
        let major = self.major.unwrap_or(PgMajor(0));
        let lsn = self.held.lsn;
        let Some(record) = self.held.bytes.first_chunk().map(RecordHeader::parse) else { return Ok(None) };
        if !had_header {
            self.check_record(&record, lsn, major)?;
        }
        if self.held.have < self.held.total {
            return Ok(None);
        }
        check_crc(&record, self.held.crc, &self.held.bytes, lsn)?;
        let next = header.len() + aligned(expected) as usize;
        let end = self.end_of(&record, address.plus(next as u64));
        self.passed(lsn, end, &record);
        let timeline = self.held.timeline.unwrap_or(header.timeline);
        let view = Record::new(lsn, end, record, timeline, major, &self.held.bytes[HEADER_BYTES..]);
        if each(&view) == Flow::Stop {
            return Err(EndReason::Stopped);
        }
        Ok(if matches!(self.state, State::Skipping(_)) { None } else { Some(next) })
    }

    /// `XLogReaderValidatePageHeader`.
    fn checked_header(&mut self, page: &[u8; PAGE_BYTES], address: Lsn) -> Result<PageHeader, EndReason> {
        let damaged = |fault| EndReason::Damaged { at: address, fault };
        let header = PageHeader::parse(page).ok_or(EndReason::Zeros)?;
        let major = header.major().filter(|m| self.major.is_none_or(|known| known == *m));
        let Some(major) = major else {
            let zeros = page.iter().all(|b| *b == 0);
            return Err(if zeros {
                EndReason::Zeros
            } else {
                damaged(Fault::PageMagic { found: header.magic })
            });
        };
        if header.has_unknown_flags() {
            return Err(damaged(Fault::PageFlags { found: header.info }));
        }
        if header.address != address {
            let older = header.address < address && header.address.0.is_multiple_of(PAGE_BYTES as u64);
            return Err(if older {
                EndReason::Recycled { from: header.address }
            } else {
                damaged(Fault::PageAddress { found: header.address })
            });
        }
        self.check_identity(&header, address).map_err(damaged)?;
        if let Some(before) = self.timeline.filter(|t| header.timeline < *t) {
            return Err(damaged(Fault::PageTimeline { found: header.timeline, before }));
        }
        self.timeline = Some(header.timeline);
        self.major = Some(major);
        Ok(header)
    }

    fn check_identity(&mut self, header: &PageHeader, address: Lsn) -> Result<(), Fault> {
        let Some(identity) = header.identity else {
            let first = self.size.offset_of(address) == 0;
            return if first { Err(Fault::PageFlags { found: header.info }) } else { Ok(()) };
        };
        if let Some(expected) = self.system.filter(|s| *s != identity.system) {
            return Err(Fault::System { found: identity.system, expected });
        }
        if u64::from(identity.segment_bytes) != self.size.bytes() {
            return Err(Fault::SegmentSize { found: identity.segment_bytes });
        }
        if identity.block_bytes as usize != PAGE_BYTES {
            return Err(Fault::BlockSize { found: identity.block_bytes });
        }
        self.system = Some(identity.system);
        Ok(())
    }

    /// `ValidXLogRecordHeader`.
    fn check_record(&self, header: &RecordHeader, lsn: Lsn, major: PgMajor) -> Result<(), EndReason> {
        let damaged = |fault| EndReason::Damaged { at: lsn, fault };
        if !header.rmgr.is_valid_in(major) {
            return Err(damaged(Fault::RecordManager { found: header.rmgr.0 }));
        }
        match self.previous {
            Some(expected) if header.prev != expected => {
                // A standby's segment can carry the bytes of its earlier life right after the last record.
                let older = header.prev < expected && !header.prev.is_zero();
                let fault = Fault::PrevLink { found: header.prev, expected: Some(expected) };
                Err(if older { EndReason::Recycled { from: header.prev } } else { damaged(fault) })
            }
            None if header.prev >= lsn => {
                Err(damaged(Fault::PrevLink { found: header.prev, expected: None }))
            }
            _ => Ok(()),
        }
    }

    /// A switch record is taken to reach to its segment's end.
    fn end_of(&self, header: &RecordHeader, end: Lsn) -> Lsn {
        let into = self.size.offset_of(end);
        if header.is_switch() && into != 0 { end.plus(self.size.bytes() - into) } else { end }
    }

    fn passed(&mut self, lsn: Lsn, end: Lsn, header: &RecordHeader) {
        self.previous = Some(lsn);
        self.reached = end;
        self.state = if header.is_switch() { State::Skipping(end) } else { State::Between };
    }
}

impl Held {
    fn begin(&mut self, lsn: Lsn, timeline: TimelineId, total: u32, bytes: &[u8]) {
        self.bytes.clear();
        *self = Self {
            lsn,
            timeline: Some(timeline),
            total,
            have: 0,
            crc: 0,
            bytes: std::mem::take(&mut self.bytes),
        };
        self.append(bytes);
    }
    /// `bytes` never reach beyond the record's end.
    fn append(&mut self, bytes: &[u8]) {
        let body = bytes.get(HEADER_BYTES.saturating_sub(self.have as usize)..).unwrap_or_default();
        self.crc = crc32c::crc32c_append(self.crc, body);
        let room = (HEADER_BYTES + KEPT_BYTES).saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.have = self.have.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    }
}

enum Passed {
    /// The foreign record ends on this page; the next one can start at this offset.
    Until(usize),
    /// It goes on; so many bytes are still to come.
    More(u32),
}

/// `XLogFindNextRecord`: how much of a page belongs to a record that began before.
fn pass_record(header: &PageHeader, expected: Option<u32>) -> Result<Passed, Fault> {
    if !header.continues_record() {
        return match expected {
            Some(expected) => Err(Fault::ContinuationLength { found: 0, expected }),
            None => Ok(Passed::Until(header.len())),
        };
    }
    if let Some(expected) = expected.filter(|e| *e != header.remaining) {
        return Err(Fault::ContinuationLength { found: header.remaining, expected });
    }
    let room = PAGE_BYTES - header.len();
    Ok(match header.remaining as usize {
        0 => return Err(Fault::ContinuationLength { found: 0, expected: 1 }),
        bytes if bytes > room => Passed::More(u32::try_from(bytes - room).unwrap_or(u32::MAX)),
        _ => Passed::Until(header.len() + aligned(header.remaining) as usize),
    })
}

/// What a place is that holds no record: `total` is what stands where its length would.
fn no_record(left: &[u8], lsn: Lsn, total: u32) -> EndReason {
    if left.iter().all(|b| *b == 0) {
        EndReason::Zeros
    } else {
        EndReason::Damaged { at: lsn, fault: Fault::RecordLength { found: total } }
    }
}

/// `ValidXLogRecord`: over the body first, then over the header up to the CRC itself.
fn check_crc(header: &RecordHeader, body: u32, bytes: &[u8], lsn: Lsn) -> Result<(), EndReason> {
    let expected = crc32c::crc32c_append(body, &bytes[..HEADER_BYTES - 4]);
    if expected == header.crc {
        return Ok(());
    }
    Err(EndReason::Damaged { at: lsn, fault: Fault::Crc { found: header.crc, expected } })
}

/// Records start at multiples of 8 (`MAXALIGN`).
fn aligned(bytes: u32) -> u32 {
    bytes.next_multiple_of(8)
}
