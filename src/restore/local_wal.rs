//! What this host's `pg_wal` holds and the archive lacks: complete segments, the beginning of the one that was being
//! written, history files. Read while planning, so that the last minutes can be restored to; archived before anything
//! is moved.
//!
//! Only of the same system identifier, and only what is what its name says. Bytes after the last valid record are
//! recycled junk and never count.

use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result};
use crate::model::{Digest, Lsn, RepoName, SegmentName, SegmentSize, SystemId, TimelineId, WalFileName};
use crate::postgres::history::History;
use crate::repository::keys::wal::{Sealing, WalObjectName, WalRoot};
use crate::repository::wal_listing::{StoredCopy, WalListing};
use crate::storage::ObjectInfo;
use crate::wal::{EndReason, PAGE_BYTES, PageHeader, SegmentScan};

/// Long enough that no repository of a configuration is called so by accident.
const NAME: &str = "this-hosts-pg_wal";

/// As which "repository" local files stand in a listing.
pub fn repo_name() -> Result<RepoName> {
    RepoName::parse(NAME).ok_or_else(|| Error::internal("the name of the local WAL is no name"))
}

/// True for copies that lie in the local `pg_wal`.
pub fn is_local(copy: &StoredCopy) -> bool {
    copy.repo.as_str() == NAME
}

/// One file that the archive lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalFile {
    pub name: WalObjectName,
    pub path: PathBuf,
    /// Bytes from the file's beginning that count.
    pub bytes: u64,
}

impl LocalFile {
    /// The bytes that count.
    pub fn read(&self) -> Result<Vec<u8>> {
        let mut bytes = read(&self.path)?;
        bytes.truncate(usize::try_from(self.bytes).unwrap_or(usize::MAX));
        Ok(bytes)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::io("cannot read WAL from pg_wal", path, e))
}

/// Looks through `pg_wal`. Blocks.
pub fn missing_from(
    archive: &WalListing,
    pg_wal: &Path,
    size: SegmentSize,
    system: SystemId,
) -> Result<Vec<LocalFile>> {
    let mut names: Vec<WalFileName> = Vec::new();
    let entries = match std::fs::read_dir(pg_wal) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("cannot list pg_wal", pg_wal, e)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| Error::io("cannot list pg_wal", pg_wal, e))?;
        names.extend(entry.file_name().to_str().and_then(WalFileName::parse));
    }
    // Histories first: a timeline that is archived without its own leads nowhere, should this end in between.
    names.sort_by_key(|name| (!matches!(name, WalFileName::History(_)), *name));
    let mut found = Vec::new();
    for name in &names {
        let file = match *name {
            WalFileName::Segment(segment) => {
                let begun = names.contains(&WalFileName::History(segment.timeline))
                    || has_begun(archive, segment.timeline);
                local_segment(archive, pg_wal, segment, size, system, begun)?
            }
            WalFileName::History(timeline) => local_history(archive, pg_wal, timeline)?,
            // Of no use to a recovery that has the segment itself.
            WalFileName::Partial(_) | WalFileName::BackupHistory(..) => None,
        };
        found.extend(file);
    }
    Ok(found)
}

fn local_history(archive: &WalListing, pg_wal: &Path, timeline: TimelineId) -> Result<Option<LocalFile>> {
    let file = WalFileName::History(timeline);
    if !archive.objects(file).is_empty() {
        return Ok(None);
    }
    let path = pg_wal.join(file.to_string());
    let bytes = read(&path)?;
    let name = WalObjectName::History { timeline, digest: digest(&bytes).short() };
    Ok(Some(LocalFile { name, path, bytes: bytes.len() as u64 }))
}

/// Whether anything says that there is such a timeline.
fn has_begun(archive: &WalListing, timeline: TimelineId) -> bool {
    timeline == TimelineId(1)
        || !archive.objects(WalFileName::History(timeline)).is_empty()
        || archive.segments(timeline).next().is_some()
}

/// A promotion first copies the last segment under the new timeline's name, then writes the history file, then the first
/// record (`StartupXLOG`). Ended in between it leaves a copy that holds nothing new and names a timeline that never was;
/// archived, it would be the highest one, which every restore looks for.
fn local_segment(
    archive: &WalListing,
    pg_wal: &Path,
    segment: SegmentName,
    size: SegmentSize,
    system: SystemId,
    begun: bool,
) -> Result<Option<LocalFile>> {
    if archive.has_segment(segment) || !segment.fits(size) {
        return Ok(None);
    }
    let ready = pg_wal.join("archive_status").join(format!("{segment}.ready")).exists();
    let newest = archive.segments(segment.timeline).last().map(|(s, _)| s);
    if !ready && newest.is_some_and(|newest| segment < newest) {
        // Older than the archive: from before there was one, or removed from it on purpose.
        return Ok(None);
    }
    let path = pg_wal.join(segment.to_string());
    let bytes = read(&path)?;
    if bytes.len() as u64 != size.bytes() || !is_what_it_says(&bytes, segment, size, system) {
        return Ok(None);
    }
    if !begun && !has_page_of_its_timeline(&bytes, segment, size) {
        return Ok(None);
    }
    let mut scan = SegmentScan::new(segment.start(size), size, Some(system));
    let _ = scan.feed(&bytes);
    let summary = scan.finish()?;
    let whole = ready || summary.switched || matches!(summary.end.reason, EndReason::OutOfBytes { .. });
    if whole {
        let name = WalObjectName::Segment { segment, digest: digest(&bytes).short() };
        return Ok(Some(LocalFile { name, path, bytes: size.bytes() }));
    }
    let to = summary.end.lsn.since(segment.start(size));
    let known = archive.heads(segment).iter().filter(|h| h.from == 0).map(|h| u64::from(h.to)).max();
    if summary.end.last_record.is_none() || to > size.bytes() || known.is_some_and(|k| k >= to) {
        return Ok(None);
    }
    let head = &bytes[..usize::try_from(to).unwrap_or(bytes.len())];
    let to = u32::try_from(to).map_err(|_| Error::internal("a head longer than a segment"))?;
    let name = WalObjectName::Head { segment, from: 0, to, digest: digest(head).short() };
    Ok(Some(LocalFile { name, path, bytes: u64::from(to) }))
}

fn is_what_it_says(bytes: &[u8], segment: SegmentName, size: SegmentSize, system: SystemId) -> bool {
    PageHeader::parse(bytes)
        .is_some_and(|h| h.address == segment.start(size) && h.identity.is_some_and(|i| i.system == system))
}

fn has_page_of_its_timeline(bytes: &[u8], segment: SegmentName, size: SegmentSize) -> bool {
    let mut at = segment.start(size).0;
    bytes.chunks(PAGE_BYTES).any(|page| {
        let here = Lsn(at);
        at += page.len() as u64;
        PageHeader::parse(page).is_some_and(|h| h.address == here && h.timeline == segment.timeline)
    })
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::of(bytes)
}

/// The files as a listing that can be merged with the archive's.
pub fn as_listing(files: &[LocalFile], root: &WalRoot) -> Result<WalListing> {
    let repo = repo_name()?;
    let mut listing = WalListing::default();
    for file in files {
        let key = root.key(file.name, Sealing::Encrypted);
        listing.add(&repo, root, ObjectInfo { key, bytes: file.bytes, modified: None });
    }
    Ok(listing)
}

/// The file that stands for a copy in the listing.
pub fn find<'a>(files: &'a [LocalFile], copy: &StoredCopy, root: &WalRoot) -> Result<&'a LocalFile> {
    files
        .iter()
        .find(|f| root.key(f.name, Sealing::Encrypted) == copy.key)
        .ok_or_else(|| Error::new(Code::ObjectMissing, "a file has left pg_wal meanwhile").at(&copy.key))
}

/// Histories that only the local `pg_wal` has.
pub fn read_histories(wal: &mut super::gather::Wal, files: &[LocalFile]) -> Result<()> {
    for file in files {
        if let WalObjectName::History { timeline, digest } = file.name {
            wal.histories.insert(timeline, History::parse(timeline, &file.read()?)?);
            wal.history_digests.insert(timeline, digest);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::synth::{MIB, SYSTEM, Synth};

    /// `pg_wal` with the third segment under the name of timeline 2, whose pages are of `pages`.
    fn pg_wal(pages: u32) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let mut wal = Synth::new(3 << 20);
        wal.timeline = TimelineId(pages);
        wal.filler(20_000);
        std::fs::write(directory.path().join("000000020000000000000003"), wal.segment(0)).unwrap();
        directory
    }
    fn saved(pg_wal: &tempfile::TempDir) -> Vec<String> {
        let found = missing_from(&WalListing::default(), pg_wal.path(), MIB, SYSTEM).unwrap();
        found.iter().map(|file| file.path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_copy_that_a_promotion_made_before_its_history_names_no_timeline() {
        let killed = pg_wal(1);
        assert_eq!(saved(&killed), Vec::<String>::new());
        // Once its history is there it has begun, though its first page still says where it came from.
        let history = "00000002.history";
        std::fs::write(killed.path().join(history), "1\t0/300A000\tno recovery target specified\n").unwrap();
        assert_eq!(
            saved(&killed),
            [history, "000000020000000000000003"],
            "in this order, should somebody kill us"
        );
        // A server that was made from a backup of this timeline has no history of its own, and WAL.
        assert_eq!(saved(&pg_wal(2)), ["000000020000000000000003"]);
    }
}
