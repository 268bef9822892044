//! Two contents of one segment's name: which of them continues the segment before?
//!
//! The one whose first record names the predecessor's last record (`xl_prev`). Where that does not tell, nobody guesses:
//! the error names both hosts.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::source::Source;
use crate::error::{Code, Error, Result};
use crate::model::{Lsn, SegmentName, SegmentSize, ShortDigest, SystemId, WalFileName};
use crate::postgres::history::{History, TimelinePath};
use crate::repository::wal_listing::{WalListing, WalObject};
use crate::repository::wal_object::Sink;
use crate::wal::summary::{SegmentScan, SegmentSummary};

/// The contents that were chosen before, by name.
pub type Chosen = BTreeMap<WalFileName, ShortDigest>;

/// Chooses for each of these segments (in order of replay), so that a later choice can lean on an earlier one.
pub async fn choose_all(
    source: &Source,
    listing: &WalListing,
    path: &TimelinePath,
    size: SegmentSize,
    forks: &[SegmentName],
) -> Result<Chosen> {
    let mut chosen = Chosen::new();
    for segment in forks {
        let digest = choose(source, listing, path, size, *segment, &chosen).await?;
        chosen.insert(WalFileName::Segment(*segment), digest);
    }
    Ok(chosen)
}

/// Chooses among the sound contents of one segment. `listing` must hold the segment and the one before it.
pub async fn choose(
    source: &Source,
    listing: &WalListing,
    path: &TimelinePath,
    size: SegmentSize,
    segment: SegmentName,
    chosen: &Chosen,
) -> Result<ShortDigest> {
    let file = WalFileName::Segment(segment);
    let candidates: Vec<&WalObject> = listing.sound(file).collect();
    if let [only] = candidates.as_slice() {
        return Ok(only.digest);
    }
    let Some(before) = predecessor(listing, path, size, segment, chosen) else {
        return Err(undecided(source, &candidates, segment, "the segment before it is not there").await);
    };
    let start = Lsn(segment.start(size).0.saturating_sub(size.bytes()));
    let before = summary(source, before, start, size).await?;
    let (mut continuing, mut unreadable) = (Vec::new(), None);
    for candidate in &candidates {
        match summary(source, candidate, segment.start(size), size).await {
            Ok(next) if before.is_continued_by(&next) == Some(true) => continuing.push(candidate.digest),
            Ok(_) => {}
            // Nothing can be replayed from it, so it is no rival of one that continues.
            Err(e) if e.code() == Code::Damaged => {
                tracing::warn!(%segment, digest = %candidate.digest, "one of several contents cannot be read: {e}");
                unreadable = Some(e);
            }
            Err(e) => return Err(e),
        }
    }
    match (continuing.as_slice(), unreadable) {
        ([digest], _) => Ok(*digest),
        // It may be the one.
        ([], Some(damaged)) => Err(damaged
            .while_doing(format!(
                "of several contents of {segment} none that can be read continues the segment before"
            ))
            .hint("another repository may have a whole copy: --repo NAME, or pgkeep verify --heal")
            .see("wal-missing-or-damaged.md")),
        ([], None) => {
            Err(undecided(source, &candidates, segment, "none of them continues the segment before").await)
        }
        (_, _) => {
            Err(undecided(source, &candidates, segment, "several of them continue the segment before").await)
        }
    }
}

fn predecessor<'a>(
    listing: &'a WalListing,
    path: &TimelinePath,
    size: SegmentSize,
    segment: SegmentName,
    chosen: &Chosen,
) -> Option<&'a WalObject> {
    let name = WalFileName::Segment(path.segment(segment.number(size).checked_sub(1)?, size));
    if let Some(digest) = chosen.get(&name) {
        return listing.object(name, *digest);
    }
    let mut sound = listing.sound(name);
    sound.next().filter(|_| sound.next().is_none())
}

/// The path that leads to a timeline, from its history file; without one it has no ancestors.
pub async fn path_to(source: &Source, listing: &WalListing, segment: SegmentName) -> Result<TimelinePath> {
    let timeline = segment.timeline;
    let objects = listing.objects(WalFileName::History(timeline));
    let history = match objects {
        [] => History::without_ancestors(timeline),
        [only] => History::parse(timeline, &source.bytes(only).await?)?,
        _ => {
            return Err(Error::new(Code::WalConflict, "the archive holds two histories of one timeline")
                .at(WalFileName::History(timeline))
                .hint("two servers were promoted with the same timeline id and archive into one place"));
        }
    };
    Ok(history.path())
}

async fn summary(
    source: &Source,
    object: &WalObject,
    start: Lsn,
    size: SegmentSize,
) -> Result<SegmentSummary> {
    let (copies, digest, system) = (object.copies.clone(), object.digest, source.root.system);
    source
        .with(&object.copies, move |objects| {
            let mut sink = ScanSink { scan: new_scan(start, size, system), start, size, system };
            objects.read_into(&copies, digest, &mut sink)?;
            sink.scan.finish()
        })
        .await
}

async fn undecided(source: &Source, candidates: &[&WalObject], segment: SegmentName, why: &str) -> Error {
    let mut writers = Vec::new();
    for candidate in candidates {
        let copies = candidate.copies.clone();
        let header = source.with(&candidate.copies, move |objects| objects.header(&copies)).await;
        let host = header.ok().flatten().map_or_else(|| "an unknown host".to_owned(), |h| h.host);
        writers.push(format!("{} by {host}", candidate.digest));
    }
    Error::new(Code::WalConflict, format!("the archive holds several contents of {segment}, and {why}"))
        .at(writers.join(", "))
        .hint(
            "two servers archive into one place. `pgkeep window` shows the fork; restore to an LSN before this segment, \
             or find out which host is the cluster",
        )
}

fn new_scan(start: Lsn, size: SegmentSize, system: SystemId) -> SegmentScan {
    SegmentScan::new(start, size, Some(system))
}

/// Reads records out of the bytes as they come; keeps none of them.
struct ScanSink {
    scan: SegmentScan,
    start: Lsn,
    size: SegmentSize,
    system: SystemId,
}

impl Write for ScanSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Where the records end is part of the summary; the digest needs the rest all the same.
        let _ = self.scan.feed(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for ScanSink {
    fn restart(&mut self) -> io::Result<()> {
        self.scan = new_scan(self.start, self.size, self.system);
        Ok(())
    }
}
