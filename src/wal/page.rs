//! Page headers (`XLogPageHeaderData` and `XLogLongPageHeaderData` of `xlog_internal.h`).

use super::fields::{u16_at, u32_at, u64_at};
use crate::model::{Lsn, PgMajor, SegmentSize, SystemId, TimelineId};

/// `XLOG_BLCKSZ`: the only page size that pgkeep reads.
pub const PAGE_BYTES: usize = 8192;
/// The page header without the file's identity, padded to 8 bytes.
pub const SHORT_HEADER: usize = 24;
/// The header of a segment's first page.
pub const LONG_HEADER: usize = 40;

const FIRST_IS_CONTRECORD: u16 = 0x0001;
const IS_LONG: u16 = 0x0002;
const FIRST_IS_OVERWRITE: u16 = 0x0008;
const ALL_FLAGS: u16 = 0x000F;

/// One page's header, as found; nothing of it has been compared with anything yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    pub magic: u16,
    pub info: u16,
    /// The timeline of the first record on the page.
    pub timeline: TimelineId,
    /// Where this page lies in WAL. A recycled file's page still says where it once lay.
    pub address: Lsn,
    /// Bytes that the record going on here still needs, from this page on.
    pub remaining: u32,
    /// Only on a segment's first page.
    pub identity: Option<Identity>,
}

/// What the first page says about the file that it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub system: SystemId,
    pub segment_bytes: u32,
    pub block_bytes: u32,
}

impl PageHeader {
    /// None when the bytes are shorter than a header (long, if it says so).
    pub fn parse(page: &[u8]) -> Option<Self> {
        let info = u16_at(page, 2)?;
        let identity = if info & IS_LONG == 0 {
            None
        } else {
            Some(Identity {
                system: SystemId(u64_at(page, 24)?),
                segment_bytes: u32_at(page, 32)?,
                block_bytes: u32_at(page, 36)?,
            })
        };
        Some(Self {
            magic: u16_at(page, 0)?,
            info,
            timeline: TimelineId(u32_at(page, 4)?),
            address: Lsn(u64_at(page, 8)?),
            remaining: u32_at(page, 16)?,
            identity,
        })
    }
    /// The server version that wrote it, None for a magic that no supported major uses.
    pub fn major(&self) -> Option<PgMajor> {
        major_of_magic(self.magic)
    }
    /// The page begins with the rest of a record from the page before.
    pub fn continues_record(&self) -> bool {
        self.info & FIRST_IS_CONTRECORD != 0
    }
    /// The record that should go on here never will: a crash cut it off, and recovery wrote on from this page
    /// (`CreateOverwriteContrecordRecord` in `xlog.c`).
    pub fn overwrites_record(&self) -> bool {
        self.info & FIRST_IS_OVERWRITE != 0
    }
    pub fn has_unknown_flags(&self) -> bool {
        self.info & !ALL_FLAGS != 0
    }
    /// Bytes before the first byte of record data.
    pub fn len(&self) -> usize {
        if self.identity.is_some() { LONG_HEADER } else { SHORT_HEADER }
    }
    pub fn is_empty(&self) -> bool {
        false
    }
    /// The segment size of a first page, if it is one that PostgreSQL can have.
    pub fn segment_size(&self) -> Option<SegmentSize> {
        self.identity.and_then(|i| SegmentSize::new(i.segment_bytes))
    }
}

/// `XLOG_PAGE_MAGIC` of each major's `xlog_internal.h`.
pub fn major_of_magic(magic: u16) -> Option<PgMajor> {
    match magic {
        0xD10D => Some(PgMajor(14)),
        0xD110 => Some(PgMajor(15)),
        0xD113 => Some(PgMajor(16)),
        0xD116 => Some(PgMajor(17)),
        0xD118 => Some(PgMajor(18)),
        _ => None,
    }
}

/// Cuts a stream of bytes into pages; copies only what does not come as whole pages.
#[derive(Debug, Default)]
pub struct Pages {
    /// The beginning of a page whose end has not come yet.
    piece: Vec<u8>,
}

impl Pages {
    /// Bytes that wait for the rest of their page.
    pub fn waiting(&self) -> usize {
        self.piece.len()
    }
    pub fn split(&mut self, mut bytes: &[u8], each: &mut dyn FnMut(&[u8; PAGE_BYTES])) {
        while !bytes.is_empty() {
            if self.piece.is_empty()
                && let Some((page, rest)) = bytes.split_first_chunk::<PAGE_BYTES>()
            {
                each(page);
                bytes = rest;
                continue;
            }
            let (head, rest) = bytes.split_at(bytes.len().min(PAGE_BYTES - self.piece.len()));
            self.piece.extend_from_slice(head);
            bytes = rest;
            if let Ok(page) = <&[u8; PAGE_BYTES]>::try_from(self.piece.as_slice()) {
                each(page);
                self.piece.clear();
            }
        }
    }
}
