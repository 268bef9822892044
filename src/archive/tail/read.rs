//! Bytes of a segment, taken from `pg_wal` while PostgreSQL writes, renames and recycles its files.
//!
//! A segment's file is opened by its name. PostgreSQL recycles by renaming, and a renamed file never gets its name back;
//! so if the name still leads to the file that was read once reading is over, the bytes are the segment's. The page
//! headers are compared as well: where each page lies in WAL is written in it.
//!
//! Below the flush position nothing changes any more, also through a crash: PostgreSQL writes on after the last record
//! that it finds, and one that never came to its end stays where it is (`StartupXLOG`, `missingContrecPtr`).

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};

use crate::error::{Code, Error, Result};
use crate::model::{Digest, SegmentName, SegmentSize, ShortDigest, SystemId, WalFileName};
use crate::repository::continuity::HeadRange;
use crate::wal::page::{PAGE_BYTES, PageHeader};

const PAGE: u64 = PAGE_BYTES as u64;
/// What is digested is read in pieces of this many pages.
const PIECE: u64 = 128 * PAGE;

/// One segment's file as it is now.
pub struct Segment {
    file: File,
    path: PathBuf,
    name: SegmentName,
    size: SegmentSize,
    system: SystemId,
}

impl Segment {
    /// None when there is no such file: it was recycled, which PostgreSQL does only with what it takes for archived.
    pub fn open(
        pg_wal: &Path,
        name: SegmentName,
        size: SegmentSize,
        system: SystemId,
    ) -> Result<Option<Self>> {
        let path = pg_wal.join(name.to_string());
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("cannot read the WAL that is being written", &path, e)),
        };
        Ok(Some(Self { file, path, name, size, system }))
    }

    /// The bytes `[from, to)`, all of them flushed. None when the file has lost its name meanwhile. Blocks.
    pub fn read(&self, from: u32, to: u32) -> Result<Option<Bytes>> {
        let first = u64::from(from) / PAGE * PAGE;
        let bytes = self.pages(first, u64::from(to))?;
        if !self.still_has_its_name()? {
            return Ok(None);
        }
        self.check(first, &bytes)?;
        let skip = usize::try_from(u64::from(from) - first).unwrap_or(bytes.len());
        Ok(Some(bytes.slice(skip.min(bytes.len())..)))
    }

    /// Those heads of a chain, from the first on, that hold the bytes of this file before `flushed`. None when the file
    /// has lost its name meanwhile. Blocks.
    pub fn proved(&self, chain: &[HeadRange], flushed: u32) -> Result<Option<Vec<HeadRange>>> {
        let mut proved = Vec::new();
        for head in chain.iter().take_while(|h| h.to <= flushed) {
            if self.digest(*head)? != head.digest {
                break;
            }
            proved.push(*head);
        }
        Ok(self.still_has_its_name()?.then_some(proved))
    }

    fn digest(&self, head: HeadRange) -> Result<ShortDigest> {
        let (mut at, mut sha256) = (u64::from(head.from), Sha256::new());
        while at < u64::from(head.to) {
            let end = (at + PIECE).min(u64::from(head.to));
            sha256.update(&self.pages(at, end)?);
            at = end;
        }
        Ok(Digest(sha256.finalize().into()).short())
    }

    fn pages(&self, from: u64, to: u64) -> Result<Bytes> {
        let mut bytes = BytesMut::zeroed(usize::try_from(to.saturating_sub(from)).unwrap_or(0));
        let read = self.file.read_exact_at(&mut bytes, from);
        read.map_err(|e| Error::io("cannot read the WAL that is being written", &self.path, e))?;
        Ok(bytes.freeze())
    }

    fn still_has_its_name(&self) -> Result<bool> {
        let failed = |e| Error::io("cannot look at the WAL that is being written", &self.path, e);
        let same = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        let opened = self.file.metadata().map_err(failed)?;
        match std::fs::metadata(&self.path) {
            Ok(named) => Ok(same(&named, &opened) && opened.len() == self.size.bytes()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(failed(e)),
        }
    }

    /// `first`: where in the segment the pages begin.
    fn check(&self, first: u64, bytes: &[u8]) -> Result<()> {
        let mut at = self.name.start(self.size).plus(first);
        for page in bytes.chunks(PAGE_BYTES) {
            let blank = page.iter().take(PAGE_BYTES).all(|b| *b == 0);
            let header = PageHeader::parse(page);
            let placed = header.is_some_and(|h| h.address == at && h.major().is_some());
            let ours = header.and_then(|h| h.identity).is_none_or(|i| i.system == self.system);
            // A switch leaves blank pages behind it, the headers too; less than a header says nothing.
            let fits = placed && ours || blank && at != self.name.start(self.size) || header.is_none();
            if !fits {
                return Err(Error::new(Code::WalMismatch, format!("the page at {at} is not what its place says"))
                    .at(self.path.display())
                    .hint("PostgreSQL says that this WAL is flushed, and the file holds something else: look at the disk"));
            }
            at = at.plus(PAGE);
        }
        Ok(())
    }
}

/// The oldest segment of a timeline that PostgreSQL still wants archived, before `current`.
pub fn oldest_ready(pg_wal: &Path, current: SegmentName) -> Result<Option<SegmentName>> {
    let directory = pg_wal.join("archive_status");
    let failed = |e| Error::io("cannot list what waits for the archiver", &directory, e);
    let mut oldest = None;
    for entry in std::fs::read_dir(&directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let ready = name.to_str().and_then(|n| n.strip_suffix(".ready")).and_then(WalFileName::parse);
        if let Some(WalFileName::Segment(segment)) = ready
            && segment.timeline == current.timeline
            && segment < current
        {
            oldest = Some(oldest.map_or(segment, |known: SegmentName| known.min(segment)));
        }
    }
    Ok(oldest)
}

/// True while PostgreSQL wants the segment archived.
pub fn is_ready(pg_wal: &Path, segment: SegmentName) -> bool {
    pg_wal.join("archive_status").join(format!("{segment}.ready")).exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TimelineId;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;
    const SYSTEM: SystemId = SystemId(42);

    fn name(number: u64) -> SegmentName {
        SegmentName::numbered(TimelineId(1), number, SIZE)
    }
    /// A segment's file whose first `pages` pages are written and the rest is left from segment 2.
    fn write(pg_wal: &Path, number: u64, pages: u64) {
        let mut bytes = Vec::new();
        for page in 0..SIZE.bytes() / PAGE {
            let of = if page < pages { number } else { 2 };
            let mut header = vec![0x18, 0xD1, 0, 0, 1, 0, 0, 0];
            if page == 0 {
                header[2] = 2;
            }
            header.extend((of * SIZE.bytes() + page * PAGE).to_le_bytes());
            header.extend([0; 8]);
            header.extend(SYSTEM.0.to_le_bytes());
            header.resize(PAGE_BYTES, u8::try_from(page % 250).unwrap());
            bytes.extend(header);
        }
        std::fs::write(pg_wal.join(name(number).to_string()), bytes).unwrap();
    }
    fn open(pg_wal: &Path, number: u64) -> Segment {
        Segment::open(pg_wal, name(number), SIZE, SYSTEM).unwrap().unwrap()
    }
    fn digest(bytes: &[u8]) -> ShortDigest {
        Digest::of(bytes).short()
    }

    #[test]
    fn exactly_the_bytes_of_the_range_are_read() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 5, 4);
        let whole = std::fs::read(dir.path().join(name(5).to_string())).unwrap();
        for (from, to) in [(0, 8192), (100, 200), (8000, 8200), (8192, 8193), (8192, 8210), (0, 32768)] {
            let bytes = open(dir.path(), 5).read(from, to).unwrap().unwrap();
            assert_eq!(bytes, whole[from as usize..to as usize], "{from} to {to}");
        }
    }

    #[test]
    fn a_page_of_the_files_earlier_life_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 5, 4);
        let error = open(dir.path(), 5).read(20_000, 40_000).unwrap_err();
        assert_eq!(error.code(), Code::WalMismatch);
        let other = Segment::open(dir.path(), name(5), SIZE, SystemId(43)).unwrap().unwrap();
        assert!(other.read(0, 100).is_err(), "another cluster's segment");
    }

    #[test]
    fn a_file_that_is_recycled_while_it_is_read_gives_nothing() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 5, 4);
        let opened = open(dir.path(), 5);
        let (old, new) = (dir.path().join(name(5).to_string()), dir.path().join(name(9).to_string()));
        crate::util::durable::hand_over(&old, &new).unwrap();
        assert_eq!(opened.read(0, 100).unwrap(), None);
        assert_eq!(opened.proved(&[], 100).unwrap(), None);
        write(dir.path(), 5, 4);
        assert_eq!(opened.read(0, 100).unwrap(), None, "another file has the name now");
        assert!(Segment::open(dir.path(), name(6), SIZE, SYSTEM).unwrap().is_none());
    }

    #[test]
    fn the_blank_pages_after_a_switch_are_read() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 5, 4);
        let path = dir.path().join(name(5).to_string());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[32_768..].fill(0);
        std::fs::write(&path, &bytes).unwrap();
        let end = u32::try_from(SIZE.bytes()).unwrap();
        assert!(open(dir.path(), 5).read(9000, end).unwrap().is_some());
        bytes[..8192].fill(0);
        std::fs::write(&path, &bytes).unwrap();
        assert!(open(dir.path(), 5).read(0, 100).is_err(), "no segment begins with zeros");
    }

    #[test]
    fn heads_are_believed_only_as_far_as_they_hold_the_local_bytes() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 5, 4);
        let whole = std::fs::read(dir.path().join(name(5).to_string())).unwrap();
        let head =
            |from: u32, to: u32| HeadRange { from, to, digest: digest(&whole[from as usize..to as usize]) };
        let (a, b, c) = (head(0, 9000), head(8500, 20_000), head(20_000, 30_000));
        let file = open(dir.path(), 5);
        assert_eq!(file.proved(&[a, b, c], 32_768).unwrap().unwrap(), [a, b, c]);
        assert_eq!(file.proved(&[a, b, c], 25_000).unwrap().unwrap(), [a, b], "beyond the flush position");
        let foreign = HeadRange { digest: ShortDigest([9; 16]), ..b };
        assert_eq!(file.proved(&[a, foreign, c], 32_768).unwrap().unwrap(), [a]);
    }

    #[test]
    fn what_waits_for_the_archiver_is_found_by_timeline() {
        let dir = tempfile::tempdir().unwrap();
        let status = dir.path().join("archive_status");
        std::fs::create_dir(&status).unwrap();
        let other = SegmentName::numbered(TimelineId(2), 1, SIZE);
        for file in [
            format!("{}.ready", name(7)),
            format!("{}.ready", name(6)),
            format!("{}.done", name(5)),
            format!("{other}.ready"),
            format!("{}.00000028.backup.ready", name(3)),
        ] {
            std::fs::write(status.join(file), "").unwrap();
        }
        assert_eq!(oldest_ready(dir.path(), name(9)).unwrap(), Some(name(6)));
        assert_eq!(oldest_ready(dir.path(), name(6)).unwrap(), None);
        assert!(is_ready(dir.path(), name(6)) && !is_ready(dir.path(), name(5)));
    }
}
