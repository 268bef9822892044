//! `pg_dump`'s custom archive format, read as it passes: header, table of contents, data blocks.
//!
//! Pure: from any `BufRead`, in one pass, in bounded memory but for the table of contents (of each entry the short
//! fields are kept, most of the SQL is passed over). The rows of each table are counted in its own COPY data, so that a
//! restore can be compared with what was really dumped. For a restore, an archive of some of the blocks alone can be
//! made of the stream as it passes ([`Head`]).
//!
//! The format's source is PostgreSQL's `pg_backup_archiver.c` (`ReadHead`, `ReadToc`, `ReadInt`, `ReadStr`) and
//! `pg_backup_custom.c` (`_StartData`, `_StartLO`): versions 1.14 (PostgreSQL 14, 15), 1.15 (16) and 1.16 (17, 18).
//! A stream that ends before every entry with data has had its block is a truncated archive, whatever the exit status
//! of the program that wrote it.

mod data;
mod pass_on;
mod toc;

use std::io::{self, BufRead};

pub use data::{Block, Contents};
pub use pass_on::Head;
pub use toc::{Section, Toc, TocEntry};

use crate::error::{Code, Error, Result};

/// The first versions of the format that this reader knows, and the last: `K_VERS_1_14` to `K_VERS_1_16`.
const VERSIONS: std::ops::RangeInclusive<(u8, u8)> = (1, 14)..=(1, 16);

const MAGIC: &[u8; 5] = b"PGDMP";
/// `archCustom`
const CUSTOM_FORMAT: u8 = 1;
/// Longer than any name, owner, dependency or version; only SQL is longer, and that is not kept.
const LONGEST_NAME: u64 = 1 << 20;

/// What stands at the beginning of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Major and minor of the format.
    pub version: (u8, u8),
    /// False when the data blocks are compressed: rows cannot be counted then.
    pub uncompressed: bool,
    pub database: String,
    /// As the server said it, then as `pg_dump` says it.
    pub server_version: String,
    pub tool_version: String,
}

impl Header {
    /// `1.16`
    pub fn version_text(&self) -> String {
        format!("{}.{}", self.version.0, self.version.1)
    }
}

/// An archive whose header and table of contents have been read; the data blocks come next in the source.
pub struct Archive<R> {
    fields: Fields<R>,
    pub header: Header,
    pub toc: Toc,
}

fn damaged(what: impl Into<String>) -> Error {
    Error::new(Code::Damaged, what)
}

/// An error of the source: ours when it carries one, the system's, or an archive that is cut off.
fn failed(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return damaged("the archive ends in the middle").because(error);
    }
    if error.raw_os_error().is_some() {
        return Error::new(Code::Io, "cannot read the archive").because(error);
    }
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(error) => damaged("cannot read the archive").because(error),
    }
}

/// The plain fields that everything else is made of.
struct Fields<R> {
    source: R,
    int_bytes: u8,
    offset_bytes: u8,
}

impl<R: BufRead> Fields<R> {
    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.source.read_exact(&mut byte).map_err(failed)?;
        Ok(byte[0])
    }

    /// A byte, or None where the source ends.
    fn byte_or_end(&mut self) -> Result<Option<u8>> {
        let there = self.source.fill_buf().map_err(failed)?.first().copied();
        if there.is_some() {
            self.source.consume(1);
        }
        Ok(there)
    }

    /// A sign, then the absolute value with its lowest byte first.
    fn int(&mut self) -> Result<i64> {
        let sign = self.byte()?;
        let mut value = 0_i64;
        for at in 0..self.int_bytes {
            value |= i64::from(self.byte()?) << (8 * at);
        }
        match sign {
            0 => Ok(value),
            1 => Ok(-value),
            _ => Err(damaged("an integer of the archive has no sign")),
        }
    }

    fn positive(&mut self, what: &str) -> Result<u32> {
        u32::try_from(self.int()?)
            .map_err(|_| damaged(format!("{what} of the archive is no positive number")))
    }

    /// A length, or None for C's NULL.
    fn length(&mut self) -> Result<Option<u64>> {
        Ok(u64::try_from(self.int()?).ok())
    }

    /// A string that is kept.
    fn string(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(length) = self.length()? else { return Ok(None) };
        if length > LONGEST_NAME {
            return Err(damaged(format!("a name of the archive has {length} bytes")));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        self.source.read_exact(&mut bytes).map_err(failed)?;
        Ok(Some(bytes))
    }

    fn text(&mut self) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.string()?.unwrap_or_default()).into_owned())
    }

    /// A string that nobody needs.
    fn skip_string(&mut self) -> Result<()> {
        match self.length()? {
            None => Ok(()),
            Some(length) => self.each_piece(length, |_| ()),
        }
    }

    /// Hands on `length` bytes in the pieces in which the source has them.
    fn each_piece(&mut self, length: u64, mut take: impl FnMut(&[u8])) -> Result<()> {
        let mut left = usize::try_from(length).map_err(|_| damaged("a length that no memory has"))?;
        while left > 0 {
            let piece = self.source.fill_buf().map_err(failed)?;
            if piece.is_empty() {
                return Err(failed(io::ErrorKind::UnexpectedEof.into()));
            }
            let n = piece.len().min(left);
            take(&piece[..n]);
            self.source.consume(n);
            left -= n;
        }
        Ok(())
    }
}

impl<R: BufRead> Archive<R> {
    /// Reads up to where the data begins.
    pub fn open(source: R) -> Result<Self> {
        let mut fields = Fields { source, int_bytes: 4, offset_bytes: 8 };
        let header = header(&mut fields)?;
        let toc = toc::read(&mut fields, header.version)?;
        Ok(Self { fields, header, toc })
    }
}

fn header<R: BufRead>(fields: &mut Fields<R>) -> Result<Header> {
    let mut magic = [0; 5];
    fields.source.read_exact(&mut magic).map_err(failed)?;
    if &magic != MAGIC {
        return Err(damaged("this is no archive of pg_dump's custom format"));
    }
    let (major, minor, _revision) = (fields.byte()?, fields.byte()?, fields.byte()?);
    let version = (major, minor);
    if !VERSIONS.contains(&version) {
        return Err(damaged(format!("archives of version {major}.{minor} are not known here")));
    }
    (fields.int_bytes, fields.offset_bytes) = (fields.byte()?, fields.byte()?);
    if !(4..=7).contains(&fields.int_bytes) || !(1..=16).contains(&fields.offset_bytes) {
        return Err(damaged("the archive has integers of an impossible size"));
    }
    if fields.byte()? != CUSTOM_FORMAT {
        return Err(damaged("the archive is of another format than `custom`"));
    }
    // 1.15: the algorithm, as a byte. Before: zlib's level.
    let compression = if version >= (1, 15) { i64::from(fields.byte()?) } else { fields.int()? };
    for _ in ["second", "minute", "hour", "day", "month", "year", "daylight saving"] {
        fields.int()?;
    }
    Ok(Header {
        version,
        uncompressed: compression == 0,
        database: fields.text()?,
        server_version: fields.text()?,
        tool_version: fields.text()?,
    })
}
