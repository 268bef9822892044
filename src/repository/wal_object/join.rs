//! Heads of a segment that was still being written, joined into one file (FORMAT.md: of the heads that start at or
//! before the current end, the farthest-reaching whose overlapping bytes are equal; else stop there).

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use super::read::{Sink, WalObjects};
use super::store::blocking;
use crate::codec::into_io;
use crate::error::{Code, Error, Result};
use crate::model::{SegmentName, SegmentSize};
use crate::repository::continuity::{HeadRange, head_chain};
use crate::repository::wal_listing::{HeadObject, WalListing};

/// What the heads of a segment gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Those that were used, in order; what a plan writes down.
    pub heads: Vec<HeadRange>,
    /// The bytes `[0, until)` are in the file, zeros follow.
    pub until: u32,
    /// Heads that contradict the ones before: two servers wrote this segment. To be told to people.
    pub conflicts: Vec<HeadRange>,
}

/// Joins heads into `file`, which ends up as long as a segment, zeros after the last byte known. Blocks. A head that
/// cannot be read is an error; one that contradicts is left out.
pub fn join_heads(
    objects: &WalObjects,
    heads: &[HeadObject],
    size: SegmentSize,
    file: &File,
) -> Result<Joined> {
    let fitting: Vec<_> = heads.iter().filter(|h| u64::from(h.to) <= size.bytes()).collect();
    let joined = join_into(objects, &fitting, file)?;
    let ends = |length: u64| {
        file.set_len(length).map_err(|e| Error::new(Code::Io, "cannot size the file").because(e))
    };
    ends(u64::from(joined.until))?;
    ends(size.bytes())?;
    Ok(joined)
}

/// Takes heads out of the listing that contradict what they overlap, so that plans made from it lean on none of them.
/// Reads only heads that overlap, which a lost answer or a second server makes; notes for people come back.
pub async fn settle_heads(objects: &WalObjects, listing: &mut WalListing) -> Result<Vec<String>> {
    let contested: Vec<SegmentName> = listing
        .all_headed()
        .filter(|segment| !listing.has_segment(*segment) && overlap(&head_chain(listing.heads(*segment))))
        .collect();
    let mut notes = Vec::new();
    for segment in contested {
        let (objects, heads) = (objects.clone(), listing.heads(segment).to_vec());
        let joined = blocking(move || {
            let scratch = tempfile::tempfile()
                .map_err(|e| Error::new(Code::Io, "cannot use a temporary file").because(e))?;
            join_into(&objects, &heads.iter().collect::<Vec<_>>(), &scratch)
        });
        for conflict in joined.await?.conflicts {
            notes.push(format!(
                "a head of {segment}, bytes {} to {}, contradicts another: two servers wrote this segment, and it is \
                 left out",
                conflict.from, conflict.to
            ));
            listing.remove_head(segment, conflict);
        }
    }
    Ok(notes)
}

/// The heads that contradict what a reader makes of their segment: those that it leaves out on its way, and those that it
/// passes over because others reach as far. An error when the reader could not go its way. Blocks.
pub fn contradictions(objects: &WalObjects, heads: &[HeadObject]) -> Result<Vec<HeadRange>> {
    let scratch =
        tempfile::tempfile().map_err(|e| Error::new(Code::Io, "cannot use a temporary file").because(e))?;
    let Joined { heads: taken, until, conflicts: mut found } =
        join_into(objects, &heads.iter().collect::<Vec<_>>(), &scratch)?;
    for head in heads.iter().filter(|head| head.to <= until) {
        let range = HeadRange::from(head);
        if taken.contains(&range) || found.contains(&range) {
            continue;
        }
        let mut sink =
            HeadSink { file: &scratch, head: range, end: until, at: head.from, contradicts: false };
        let read = objects.read_into(&head.copies, head.digest, &mut sink);
        match read {
            Err(_) if sink.contradicts => found.push(range),
            Err(e) if matches!(e.code(), Code::StoreUnavailable | Code::StoreDenied) => return Err(e),
            // One that cannot be read says nothing, and nobody needs it.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(found)
}

fn overlap(chain: &[HeadRange]) -> bool {
    chain.windows(2).any(|pair| pair[1].from < pair[0].to)
}

fn join_into(objects: &WalObjects, heads: &[&HeadObject], file: &File) -> Result<Joined> {
    let mut joined = Joined { heads: Vec::new(), until: 0, conflicts: Vec::new() };
    loop {
        let end = joined.until;
        let tried = |h: &HeadObject| joined.conflicts.contains(&HeadRange::from(h));
        let next = heads
            .iter()
            .copied()
            .filter(|h| h.from <= end && h.to > end && !tried(h))
            .max_by_key(|h| (h.to, h.digest));
        let Some(head) = next else { break };
        let mut sink = HeadSink { file, head: HeadRange::from(head), end, at: head.from, contradicts: false };
        let read = objects.read_into(&head.copies, head.digest, &mut sink);
        match read {
            Ok(_) if sink.at == head.to => {
                joined.heads.push(HeadRange::from(head));
                joined.until = head.to;
            }
            Ok(_) => {
                return Err(Error::new(Code::Damaged, "a head is not as long as its name says")
                    .at(head.copies.first().map_or("", |c| c.key.as_str())));
            }
            Err(_) if sink.contradicts => joined.conflicts.push(HeadRange::from(head)),
            Err(e) => return Err(e),
        }
    }
    Ok(joined)
}

/// Writes a head at its place, after comparing what is there already.
struct HeadSink<'a> {
    file: &'a File,
    head: HeadRange,
    /// Bytes before this offset are known.
    end: u32,
    at: u32,
    contradicts: bool,
}

impl Write for HeadSink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = usize::try_from(self.head.to - self.at).unwrap_or(usize::MAX);
        if bytes.len() > left {
            return Err(into_io(Error::new(Code::Damaged, "a head is longer than its name says")));
        }
        let known = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX).min(bytes.len());
        let (old, new) = bytes.split_at(known);
        let mut there = vec![0; old.len()];
        self.file.read_exact_at(&mut there, u64::from(self.at))?;
        if there != old {
            self.contradicts = true;
            return Err(into_io(Error::new(Code::Damaged, "heads of one segment contradict each other")));
        }
        self.file.write_all_at(new, u64::from(self.at) + known as u64)?;
        self.at += u32::try_from(bytes.len()).map_err(io::Error::other)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for HeadSink<'_> {
    fn restart(&mut self) -> io::Result<()> {
        self.at = self.head.from;
        Ok(())
    }
}
