//! The file that PostgreSQL hands over: read once, digested, and checked to be what its name says; and sealed on the way
//! where it will be sent ([`Keep::Sealed`]), piece by piece while each is in the processor's cache.
//!
//! A file that is something else is refused. One that is the right file with damaged records is read again, past the
//! page cache, and then taken as it is: refusing it for ever would stop PostgreSQL's archiving (promise 11).

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::codec::SealWriter;
use crate::error::{Code, Error, Result};
use crate::model::{Digest, Lsn, SegmentSize, SystemId, WalFileName};
use crate::repository::wal_object::Sealer;
use crate::util::buffers::Buffer;
use crate::wal::check::{SegmentChecker, SegmentVerdict};

/// A file up to this length is held in memory; a longer one is read twice. For one push at a time.
pub const IN_MEMORY: u64 = 64 << 20;
/// Digested and checked in pieces of this size, while they are in the processor's cache.
const PIECE: usize = 256 << 10;
/// A frame of what is sealed on the way. Longer ones would store a thousandth less, and fall out of the cache.
const FRAME: usize = 1 << 20;
/// A history or backup file is a few lines; more than this is something else.
const LONGEST_TEXT: u64 = 16 << 20;

/// A file ready to be shipped.
#[derive(Debug)]
pub struct LocalFile {
    pub name: WalFileName,
    pub content: Content,
    pub bytes: u64,
    pub digest: Digest,
    /// The file's before it was read and after.
    pub fingerprint: Fingerprint,
    /// Where and why its records cannot be replayed.
    pub damage: Option<(Lsn, String)>,
}

/// What tells a file from another, or from itself after a change, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint {
    pub device: u64,
    pub inode: u64,
    pub bytes: u64,
    /// Seconds and nanoseconds.
    pub mtime: (i64, i64),
    pub ctime: (i64, i64),
}

impl Fingerprint {
    pub fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            bytes: meta.size(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// What becomes of the bytes when they have been digested. The limits are lengths of files.
#[derive(Debug, Clone)]
pub enum Keep {
    Nothing,
    /// Those of a file up to this length are held as they are.
    Plain(u64),
    /// Those of a file up to this length are sealed.
    Sealed(u64, Sealer),
}

/// Its bytes.
#[derive(Debug, Clone)]
pub enum Content {
    Memory(Bytes),
    /// As they will be stored.
    Sealed(Bytes),
    /// Not kept, or too long for it; whoever reads it again compares the digest.
    Disk(PathBuf),
}

/// The name of the file at `path`, refused when it is none that PostgreSQL archives.
pub fn name_of(path: &Path) -> Result<WalFileName> {
    let name = path.file_name().and_then(|n| n.to_str()).and_then(WalFileName::parse);
    name.ok_or_else(|| {
        Error::new(Code::WalMismatch, "this is no WAL file that PostgreSQL archives")
            .at(path.display())
            .hint("archive_command is `pgkeep wal push %p`; PostgreSQL puts the path of a segment, history, backup or \
                   partial file in place of %p")
    })
}

/// Reads and checks the file. Blocks.
pub fn read(path: &Path, size: SegmentSize, system: SystemId, keep: &Keep) -> Result<LocalFile> {
    let name = name_of(path)?;
    let first = read_once(path, name, size, system, keep)?;
    if first.damage.is_none() {
        return Ok(first);
    }
    drop(first);
    // A flipped bit may have been in memory only.
    forget_cached(path);
    read_once(path, name, size, system, keep)
}

fn read_once(
    path: &Path,
    name: WalFileName,
    size: SegmentSize,
    system: SystemId,
    keep: &Keep,
) -> Result<LocalFile> {
    let cannot = |e| Error::io("cannot read the WAL file", path, e);
    let mut file = File::open(path).map_err(cannot)?;
    let before = file.metadata().map_err(cannot)?;
    check_length(path, name, before.len(), size)?;
    let mut checker = match name {
        WalFileName::Segment(s) | WalFileName::Partial(s) => Some(SegmentChecker::new(s, size, system)),
        WalFileName::BackupHistory(..) | WalFileName::History(_) => None,
    };
    // A backlog is no longer in the page cache. Only a hint.
    let _ = posix_fadvise(file.as_fd(), 0, 0, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
    let mut keeper = Keeper::new(keep, before.len())?;
    let (mut sha256, mut read) = (Sha256::new(), 0u64);
    loop {
        let room = keeper.room(PIECE)?;
        let n = match file.read(room) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(cannot(e)),
        };
        let piece = &room[..n];
        read += n as u64;
        sha256.update(piece);
        if let Some(checker) = &mut checker {
            checker.feed(piece);
        }
        keeper.filled += n;
    }
    let fingerprint = Fingerprint::of(&before);
    let after = Fingerprint::of(&file.metadata().map_err(cannot)?);
    if read != before.len() || fingerprint != after {
        return Err(changed(path));
    }
    Ok(LocalFile {
        name,
        content: keeper.finish(path)?,
        bytes: read,
        digest: Digest(sha256.finalize().into()),
        fingerprint,
        damage: damage(name, checker)?,
    })
}

/// Where pieces are read into, and what becomes of them.
struct Keeper {
    /// Of the whole file, of a frame, or of a piece.
    bytes: Vec<u8>,
    filled: usize,
    way: Way,
}

enum Way {
    Nothing,
    Plain,
    Sealed(Box<SealWriter<Buffer>>),
}

impl Keeper {
    fn new(keep: &Keep, length: u64) -> Result<Self> {
        let whole = usize::try_from(length).unwrap_or(usize::MAX);
        let (room, way) = match keep {
            Keep::Plain(limit) if length <= *limit => (whole, Way::Plain),
            Keep::Sealed(limit, sealer) if length <= *limit => {
                (FRAME, Way::Sealed(Box::new(sealer.begin(whole)?)))
            }
            _ => (PIECE, Way::Nothing),
        };
        Ok(Self { bytes: vec![0; room], filled: 0, way })
    }

    /// For no more than `most` bytes. Empty when the file is as long as it said.
    fn room(&mut self, most: usize) -> Result<&mut [u8]> {
        match &self.way {
            Way::Nothing => self.filled = 0,
            Way::Sealed(_) if self.filled == self.bytes.len() => self.seal()?,
            Way::Plain | Way::Sealed(_) => {}
        }
        let end = self.bytes.len().min(self.filled + most);
        Ok(&mut self.bytes[self.filled..end])
    }

    fn seal(&mut self) -> Result<()> {
        if let Way::Sealed(writer) = &mut self.way {
            writer.write_frame(&self.bytes[..self.filled])?;
            self.filled = 0;
        }
        Ok(())
    }

    fn finish(mut self, path: &Path) -> Result<Content> {
        if self.filled > 0 {
            self.seal()?;
        }
        Ok(match self.way {
            Way::Nothing => Content::Disk(path.to_path_buf()),
            Way::Plain => Content::Memory(self.bytes.into()),
            Way::Sealed(writer) => Content::Sealed(writer.finish()?.0.share()),
        })
    }
}

/// It is not what it was a moment ago.
pub(in crate::archive) fn changed(path: &Path) -> Error {
    Error::new(Code::Io, "the WAL file changed while it was read")
        .at(path.display())
        .hint("PostgreSQL asks again by itself; if it goes on, find out what writes to this file")
}

/// PostgreSQL's `.partial` carries recycled bytes after its end: only what it is is checked, not its records.
fn damage(name: WalFileName, checker: Option<SegmentChecker>) -> Result<Option<(Lsn, String)>> {
    let verdict = checker.map(SegmentChecker::finish).transpose()?;
    let whole = matches!(name, WalFileName::Segment(_));
    Ok(verdict.as_ref().filter(|_| whole).and_then(SegmentVerdict::finding))
}

fn check_length(path: &Path, name: WalFileName, length: u64, size: SegmentSize) -> Result<()> {
    let (right, expected) = match name {
        WalFileName::Segment(s) | WalFileName::Partial(s) => {
            if !s.fits(size) {
                return Err(Error::new(Code::WalMismatch, "this cluster's segment size allows no such name")
                    .at(path.display())
                    .hint("it is another cluster's file; find out where it came from"));
            }
            (length == size.bytes(), size.bytes())
        }
        WalFileName::BackupHistory(..) | WalFileName::History(_) => (length <= LONGEST_TEXT, LONGEST_TEXT),
    };
    if right {
        return Ok(());
    }
    Err(Error::new(Code::WalMismatch, format!("the WAL file has {length} bytes and should have {expected}"))
        .at(path.display())
        .hint("it is cut off or another cluster's; PostgreSQL keeps it and asks again"))
}

fn forget_cached(path: &Path) {
    // Only a hint to the kernel: without it the second look may see the same memory.
    if let Ok(file) = File::open(path) {
        let _ = posix_fadvise(file.as_fd(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
}
