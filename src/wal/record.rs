//! One WAL record (`xlogrecord.h`): its header and what it carries, read only when asked for.

use super::fields::Fields;
use crate::model::{Lsn, PgMajor, TimelineId, Xid};

/// `SizeOfXLogRecord`.
pub const HEADER_BYTES: usize = 24;
/// No record can be longer (`MaxAllocSize`; from 16 on PostgreSQL itself allows 1,020 MiB).
pub const MAX_BYTES: u32 = (1 << 30) - 1;
/// Of a longer record, which no ordinary work writes, the CRC is checked but only this much is kept.
pub const KEPT_BYTES: usize = 32 << 20;

/// Resource managers (`rmgrlist.h`); the numbers have been the same since 9.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rmgr(pub u8);

impl Rmgr {
    pub const XLOG: Rmgr = Rmgr(0);
    pub const TRANSACTION: Rmgr = Rmgr(1);
    pub const STORAGE: Rmgr = Rmgr(2);
    pub const DATABASE: Rmgr = Rmgr(4);
    pub const TABLESPACE: Rmgr = Rmgr(5);
    pub const LOGICAL_MESSAGE: Rmgr = Rmgr(21);

    /// As `pg_waldump` prints it; None for an extension's manager (15+) or an unused number.
    pub fn name(self) -> Option<&'static str> {
        const NAMES: [&str; 22] = [
            "XLOG",
            "Transaction",
            "Storage",
            "CLOG",
            "Database",
            "Tablespace",
            "MultiXact",
            "RelMap",
            "Standby",
            "Heap2",
            "Heap",
            "Btree",
            "Hash",
            "Gin",
            "Gist",
            "Sequence",
            "SPGist",
            "BRIN",
            "CommitTs",
            "ReplicationOrigin",
            "Generic",
            "LogicalMessage",
        ];
        NAMES.get(usize::from(self.0)).copied()
    }
    /// `RmgrIdIsValid` of `rmgr.h`: built in, or (15+) an extension's.
    pub fn is_valid_in(self, major: PgMajor) -> bool {
        self.name().is_some() || (self.0 >= 128 && major >= PgMajor(15))
    }
}

/// `XLogRecord`, the fixed first 24 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes of the whole record, header included, page headers in between not.
    pub total_len: u32,
    pub xid: Xid,
    /// Where the record before this one starts.
    pub prev: Lsn,
    pub info: u8,
    pub rmgr: Rmgr,
    pub crc: u32,
}

impl RecordHeader {
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let b = bytes;
        Self {
            total_len: u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            xid: Xid(u32::from_le_bytes([b[4], b[5], b[6], b[7]])),
            prev: Lsn(u64::from_le_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]])),
            info: b[16],
            rmgr: Rmgr(b[17]),
            crc: u32::from_le_bytes([b[20], b[21], b[22], b[23]]),
        }
    }
    /// `XLOG_SWITCH`: nothing follows in this segment.
    pub fn is_switch(&self) -> bool {
        self.rmgr == Rmgr::XLOG && self.info & 0xF0 == 0x40
    }
}

/// A record whose CRC was right, borrowed from the reader.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    pub lsn: Lsn,
    /// Where the next record can start at the earliest (PostgreSQL's `EndRecPtr`): 8-byte aligned; after a switch the
    /// end of the segment.
    pub end_lsn: Lsn,
    pub header: RecordHeader,
    /// Of the page on which the record starts.
    pub timeline: TimelineId,
    pub major: PgMajor,
    /// Everything after the header; cut at [`KEPT_BYTES`].
    body: &'a [u8],
}

/// A reference to a block of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRef {
    pub id: u8,
    pub relation: RelationLocator,
    /// 0 main, 1 free space map, 2 visibility map, 3 init.
    pub fork: u8,
    pub block: u32,
    pub has_image: bool,
    /// Replay makes the page anew, whatever it held.
    pub will_init: bool,
}

/// `RelFileLocator`: which files a relation's blocks are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelationLocator {
    pub tablespace: u32,
    pub database: u32,
    pub number: u32,
}

impl RelationLocator {
    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self { tablespace: fields.u32()?, database: fields.u32()?, number: fields.u32()? })
    }
}

/// What the headers inside a record say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded<'a> {
    pub blocks: Vec<BlockRef>,
    pub main_data: &'a [u8],
    /// The top-level transaction, where a subtransaction's record names it.
    pub toplevel_xid: Option<Xid>,
    pub origin: Option<u16>,
}

impl<'a> Record<'a> {
    pub(super) fn new(
        lsn: Lsn,
        end_lsn: Lsn,
        header: RecordHeader,
        timeline: TimelineId,
        major: PgMajor,
        body: &'a [u8],
    ) -> Self {
        Self { lsn, end_lsn, header, timeline, major, body }
    }
    pub fn xid(&self) -> Xid {
        self.header.xid
    }
    pub fn rmgr(&self) -> Rmgr {
        self.header.rmgr
    }
    /// The resource manager's own bits of `xl_info`.
    pub fn opcode(&self) -> u8 {
        self.header.info & 0xF0
    }
    /// Everything after the header.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }
    /// True when the record was too long to keep whole.
    pub fn is_cut(&self) -> bool {
        self.body.len() + HEADER_BYTES < self.header.total_len as usize
    }
    /// The resource manager's data, without those of blocks; None when the record is malformed or cut.
    pub fn main_data(&self) -> Option<&'a [u8]> {
        // Nearly every record that pgkeep looks into has no block references: the first byte says so.
        match *self.body {
            [SHORT_DATA, len, ref data @ ..] if data.len() == usize::from(len) => Some(data),
            _ => self.decode().map(|d| d.main_data),
        }
    }
    /// As much of the main data as was kept, for records without block references, whose first fields say enough.
    pub fn main_data_kept(&self) -> Option<&'a [u8]> {
        match *self.body {
            [LONG_DATA, _, _, _, _, ref data @ ..] if self.is_cut() => Some(data),
            _ => self.main_data(),
        }
    }
    /// None when the record is malformed or cut.
    pub fn decode(&self) -> Option<Decoded<'a>> {
        decode(self.body, self.major)
    }
}

const MAX_BLOCK_ID: u8 = 32;
const SHORT_DATA: u8 = 255;
const LONG_DATA: u8 = 254;
const ORIGIN: u8 = 253;
const TOPLEVEL_XID: u8 = 252;

/// `DecodeXLogRecord` of `xlogreader.c`.
fn decode(body: &[u8], major: PgMajor) -> Option<Decoded<'_>> {
    let mut fields = Fields::new(body);
    let mut found = Decoded { blocks: Vec::new(), main_data: &[], toplevel_xid: None, origin: None };
    // Bytes of block and main data that follow the headers.
    let mut data = 0usize;
    let mut main = 0usize;
    while fields.rest().len() > data {
        match fields.u8()? {
            id @ (SHORT_DATA | LONG_DATA) => {
                main = if id == SHORT_DATA { usize::from(fields.u8()?) } else { fields.u32()? as usize };
                data = data.checked_add(main)?;
                break;
            }
            ORIGIN => found.origin = Some(fields.u16()?),
            TOPLEVEL_XID => found.toplevel_xid = Some(Xid(fields.u32()?)),
            id @ 0..=MAX_BLOCK_ID => {
                let (block, bytes) = block_header(id, &mut fields, found.blocks.last(), major)?;
                found.blocks.push(block);
                data += bytes;
            }
            _ => return None,
        }
    }
    let rest = fields.rest();
    found.main_data = if rest.len() == data { rest.get(data - main..)? } else { return None };
    Some(found)
}

/// One `XLogRecordBlockHeader`, and how many bytes of image and data it announces.
fn block_header(
    id: u8,
    fields: &mut Fields<'_>,
    before: Option<&BlockRef>,
    major: PgMajor,
) -> Option<(BlockRef, usize)> {
    let flags = fields.u8()?;
    let mut bytes = usize::from(fields.u16()?);
    let has_image = flags & 0x10 != 0;
    if has_image {
        bytes += usize::from(fields.u16()?);
        let _hole_offset = fields.u16()?;
        let image = fields.u8()?;
        // 15 moved the bits: 0x02 was "compressed" and became "apply".
        let compressed = if major >= PgMajor(15) { image & 0x1C != 0 } else { image & 0x02 != 0 };
        if compressed && image & 0x01 != 0 {
            let _hole_length = fields.u16()?;
        }
    }
    let relation =
        if flags & 0x80 == 0 { RelationLocator::read(fields)? } else { before.map(|b| b.relation)? };
    let block = BlockRef {
        id,
        relation,
        fork: flags & 0x0F,
        block: fields.u32()?,
        has_image,
        will_init: flags & 0x40 != 0,
    };
    Some((block, bytes))
}
