//! Writes WAL for tests: what a server lays out, in bytes, and nothing of what it means.

use super::page::{LONG_HEADER, PAGE_BYTES, SHORT_HEADER};
use crate::model::{Lsn, SegmentSize, SystemId, TimelineId, Timestamp};

pub const MIB: SegmentSize = match SegmentSize::new(1 << 20) {
    Some(size) => size,
    None => unreachable!(),
};
pub const SYSTEM: SystemId = SystemId(7_123_456_789_012_345_678);

/// Stands at a place in WAL and writes on.
#[derive(Clone)]
pub struct Synth {
    pub start: Lsn,
    pub timeline: TimelineId,
    pub magic: u16,
    pub prev: Lsn,
    pub bytes: Vec<u8>,
}

impl Synth {
    pub fn new(start: u64) -> Self {
        Self { start: Lsn(start), timeline: TimelineId(1), magic: 0xD118, prev: Lsn(0), bytes: Vec::new() }
    }
    pub fn lsn(&self) -> Lsn {
        self.start.plus(self.bytes.len() as u64)
    }
    /// A page header, if a page begins here.
    fn header(&mut self, info: u16, remaining: u32) {
        let lsn = self.lsn();
        if !lsn.0.is_multiple_of(PAGE_BYTES as u64) {
            return;
        }
        let long = MIB.offset_of(lsn) == 0;
        let info = info | if long { 2 } else { 0 };
        let mut h = Vec::new();
        h.extend(self.magic.to_le_bytes());
        h.extend(info.to_le_bytes());
        h.extend(self.timeline.0.to_le_bytes());
        h.extend(lsn.0.to_le_bytes());
        h.extend(remaining.to_le_bytes());
        h.resize(SHORT_HEADER, 0);
        if long {
            h.extend(SYSTEM.0.to_le_bytes());
            h.extend((1u32 << 20).to_le_bytes());
            h.extend((PAGE_BYTES as u32).to_le_bytes());
            assert_eq!(h.len(), LONG_HEADER);
        }
        self.bytes.extend(h);
    }
    /// One record with main data only; its start.
    pub fn record(&mut self, rmgr: u8, info: u8, xid: u32, main: &[u8]) -> Lsn {
        let mut body = Vec::new();
        if let Ok(len) = u8::try_from(main.len()) {
            body.extend([255, len]);
        } else {
            body.push(254);
            body.extend((main.len() as u32).to_le_bytes());
        }
        body.extend(main);
        self.raw(rmgr, info, xid, &body)
    }
    pub fn raw(&mut self, rmgr: u8, info: u8, xid: u32, body: &[u8]) -> Lsn {
        let mut head = Vec::new();
        head.extend((body.len() as u32 + 24).to_le_bytes());
        head.extend(xid.to_le_bytes());
        head.extend(self.prev.0.to_le_bytes());
        head.extend([info, rmgr, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(body), &head);
        head.extend(crc.to_le_bytes());
        head.extend(body);
        self.header(0, 0);
        let lsn = self.lsn();
        let mut left = head.as_slice();
        while !left.is_empty() {
            if left.len() < head.len() {
                self.header(1, left.len() as u32);
            }
            let room = PAGE_BYTES - self.bytes.len() % PAGE_BYTES;
            let (now, later) = left.split_at(left.len().min(room));
            self.bytes.extend(now);
            left = later;
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.prev = lsn;
        lsn
    }
    pub fn commit(&mut self, xid: u32, at: Timestamp) -> Lsn {
        self.record(1, 0x00, xid, &at.postgres_micros().to_le_bytes())
    }
    pub fn abort(&mut self, xid: u32, at: Timestamp) -> Lsn {
        self.record(1, 0x20, xid, &at.postgres_micros().to_le_bytes())
    }
    /// `COMMIT PREPARED` of `prepared` by a session with `xid` 0.
    pub fn commit_prepared(&mut self, prepared: u32, at: Timestamp) -> Lsn {
        let mut main = at.postgres_micros().to_le_bytes().to_vec();
        main.extend((1u32 | 2 | 8 | 16).to_le_bytes());
        main.extend([5, 0, 0, 0, 6, 0, 0, 0]);
        main.extend([1, 0, 0, 0, 77, 0, 0, 0]);
        main.extend([1, 0, 0, 0]);
        main.extend([9; 16]);
        main.extend(prepared.to_le_bytes());
        self.record(1, 0x80 | 0x30, 0, &main)
    }
    pub fn restore_point(&mut self, name: &str, at: Timestamp) -> Lsn {
        let mut main = at.postgres_micros().to_le_bytes().to_vec();
        main.extend(name.as_bytes());
        main.resize(8 + 64, 0);
        self.record(0, 0x70, 0, &main)
    }
    pub fn backup_end(&mut self, start: Lsn) -> Lsn {
        self.record(0, 0x50, 0, &start.0.to_le_bytes())
    }
    /// `pg_logical_emit_message`.
    pub fn message(&mut self, xid: u32, database: u32, transactional: bool, prefix: &str, text: &str) -> Lsn {
        let mut main = database.to_le_bytes().to_vec();
        main.extend([u8::from(transactional), 0, 0, 0]);
        main.extend((prefix.len() as u64 + 1).to_le_bytes());
        main.extend((text.len() as u64).to_le_bytes());
        main.extend(prefix.as_bytes());
        main.push(0);
        main.extend(text.as_bytes());
        self.record(21, 0, xid, &main)
    }
    /// A record of another resource manager, `bytes` of main data long.
    pub fn filler(&mut self, bytes: usize) -> Lsn {
        self.record(10, 0, 3, &vec![0xA5; bytes])
    }
    /// Fills up to the end of the segment with small records; the last one may go on in the next segment.
    pub fn fill(&mut self) {
        let end = Lsn(self.lsn().0 / MIB.bytes() * MIB.bytes() + MIB.bytes());
        while self.lsn() < end {
            self.filler(700);
        }
    }
    /// A switch record and zeros to the segment's end.
    pub fn switch(&mut self) -> Lsn {
        let lsn = self.raw(0, 0x40, 0, &[]);
        self.bytes.resize(self.bytes.len().next_multiple_of(1 << 20), 0);
        lsn
    }
    /// Cuts the record at `lsn` off at the page boundary `at` and goes on there as crash recovery does; `before` is the
    /// last good record.
    pub fn overwrite(&mut self, lsn: Lsn, at: Lsn, before: Lsn) {
        self.bytes.truncate(at.since(self.start) as usize);
        self.prev = before;
        self.header(8, 0);
        let mut main = lsn.0.to_le_bytes().to_vec();
        main.extend(0u64.to_le_bytes());
        self.record(0, 0xD0, 0, &main);
    }
    /// The segment number `index` after `start`, zero-filled.
    pub fn segment(&self, index: usize) -> Vec<u8> {
        let from = index << 20;
        let mut bytes: Vec<u8> = self.bytes.iter().skip(from).take(1 << 20).copied().collect();
        bytes.resize(1 << 20, 0);
        bytes
    }
}

/// A moment so many seconds into the tests' day.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(1_790_000_000 + seconds).unwrap()
}
