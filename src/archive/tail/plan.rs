//! Which ranges are due: pure, from what was shipped and the flush position.
//!
//! A segment that fills slowly gets many small heads, and a reader must fetch each. So [`GROUP`] heads of one kind are
//! followed by one that holds all of their bytes again: a reader takes the farthest-reaching and passes over the small
//! ones. A segment that takes a day is then read in some hundred heads, and a byte is shipped again at most once per
//! level; a segment that fills within minutes never has so many.

use std::collections::BTreeMap;

use crate::model::{Lsn, SegmentName, SegmentSize, TimelineId};
use crate::repository::continuity::HeadRange;

/// So many heads of one level become one of the next.
const GROUP: usize = 64;
/// The longest head. Two of them, plain and sealed, are what the tail holds in memory.
pub const LONGEST: u32 = 8 << 20;
/// With more than this missing of finished segments, archiving is behind, and the tail leaves the store to it: heads that
/// lead nowhere would only hold it up.
const BACKLOG: u64 = 128 << 20;

/// The bytes `[from, to)` of a segment, to be shipped as one head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub segment: SegmentName,
    pub from: u32,
    pub to: u32,
    level: u8,
}

/// The heads of one segment that follow each other from its first byte.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Chain(Vec<Link>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    from: u32,
    to: u32,
    level: u8,
}

impl Chain {
    fn end(&self) -> u32 {
        self.0.last().map_or(0, |link| link.to)
    }
    /// Where the head that ends at `to` and is at most `piece` long begins, and its level.
    fn next(&self, to: u32, piece: u32) -> (u32, u8) {
        let (mut from, mut level, mut rest) = (self.end(), 0u8, self.0.as_slice());
        loop {
            let fits = |link: &&Link| link.level == level && to - link.from <= piece;
            let run = rest.iter().rev().take_while(fits).count();
            if run + 1 < GROUP {
                return (from, level);
            }
            let (before, merged) = rest.split_at(rest.len() - run);
            from = merged.first().map_or(from, |link| link.from);
            (rest, level) = (before, level.saturating_add(1));
        }
    }
    fn push(&mut self, range: Range) {
        self.0.retain(|link| link.from < range.from);
        self.0.push(Link { from: range.from, to: range.to, level: range.level });
    }
}

#[derive(Debug, Clone, Default)]
struct Entry {
    chain: Chain,
    /// The chain is what the repositories hold; false until they were asked.
    known: bool,
    /// The archiver has had the time of one look for it.
    waited: bool,
}

/// What is due.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Due {
    /// Oldest first.
    pub ranges: Vec<Range>,
    /// Bytes of finished segments that the archiver must ship first; then there are no ranges.
    pub backlog: u64,
}

/// What the repositories hold of the end of one timeline.
#[derive(Debug, Clone)]
pub struct Shipped {
    timeline: TimelineId,
    size: SegmentSize,
    /// By number, without gaps: unarchived finished segments, and last the one that is being written.
    segments: BTreeMap<u64, Entry>,
    flush: Lsn,
}

impl Shipped {
    /// At a start: `oldest` is the first finished segment that the archive may lack. Nothing is known of any yet.
    pub fn begin(timeline: TimelineId, size: SegmentSize, flush: Lsn, oldest: Option<SegmentName>) -> Self {
        let current = size.number_of(flush);
        let first = oldest.map_or(current, |s| s.number(size).min(current));
        let segments = (first..=current).map(|number| (number, Entry::default())).collect();
        Self { timeline, size, segments, flush }
    }
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }
    pub fn flush(&self) -> Lsn {
        self.flush
    }

    fn name(&self, number: u64) -> SegmentName {
        SegmentName::numbered(self.timeline, number, self.size)
    }
    fn current(&self) -> u64 {
        self.size.number_of(self.flush)
    }
    /// How many of a segment's bytes are on the server's disk.
    fn flushed(&self, number: u64) -> u32 {
        let bytes = if number < self.current() { self.size.bytes() } else { self.size.offset_of(self.flush) };
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
    fn missing(&self, number: u64, entry: &Entry) -> u64 {
        u64::from(self.flushed(number).saturating_sub(entry.chain.end()))
    }

    /// How many bytes of the segment are on the server's disk.
    pub fn flushed_of(&self, segment: SegmentName) -> u32 {
        self.flushed(segment.number(self.size))
    }
    /// Heads hold all of the segment.
    pub fn is_covered(&self, segment: SegmentName) -> bool {
        let entry = self.segments.get(&segment.number(self.size));
        entry.is_some_and(|e| u64::from(e.chain.end()) == self.size.bytes())
    }

    /// WAL has been flushed up to here. Segments that begin now have no heads yet.
    pub fn advance(&mut self, flush: Lsn) {
        self.flush = flush.max(self.flush);
        let newest = self.segments.keys().last().map_or(self.current(), |last| last + 1);
        for number in newest..=self.current() {
            self.segments.insert(number, Entry { known: true, ..Entry::default() });
        }
    }
    /// Finished segments of which the archive is not known to hold the whole.
    pub fn finished(&self) -> Vec<SegmentName> {
        self.segments.range(..self.current()).map(|(number, _)| self.name(*number)).collect()
    }
    /// The archive holds it, or it is gone for good: nothing is to be done for it.
    pub fn forget(&mut self, segment: SegmentName) {
        if segment.timeline == self.timeline && segment.number(self.size) < self.current() {
            self.segments.remove(&segment.number(self.size));
        }
    }
    /// The archive is whole up to here.
    pub fn archived(&mut self, to: Lsn) {
        let (size, current) = (self.size, self.current());
        self.segments.retain(|number, _| *number >= current || Lsn((number + 1) * size.bytes()) > to);
    }
    /// Segments whose heads in the repositories are to be asked for before anything is due; none in a backlog.
    pub fn unknown(&self) -> Vec<SegmentName> {
        if self.backlog() > BACKLOG {
            return Vec::new();
        }
        self.segments.iter().filter(|(_, e)| !e.known).map(|(number, _)| self.name(*number)).collect()
    }
    /// The repositories hold these heads of it, proved to be of the local bytes.
    pub fn adopt(&mut self, segment: SegmentName, heads: &[HeadRange]) {
        let links = heads.iter().map(|h| Link { from: h.from, to: h.to, level: 0 }).collect();
        if let Some(entry) = self.segments.get_mut(&segment.number(self.size)) {
            (entry.chain, entry.known) = (Chain(links), true);
        }
    }
    pub fn shipped(&mut self, range: Range) {
        if let Some(entry) = self.segments.get_mut(&range.segment.number(self.size)) {
            entry.chain.push(range);
        }
    }

    fn backlog(&self) -> u64 {
        let finished = self.segments.range(..self.current());
        finished.map(|(number, entry)| self.missing(*number, entry)).sum()
    }

    /// What is to be shipped now; `piece` bounds a head. A finished segment of which much is missing is left to the
    /// archiver until the next look: it is on its way as a whole.
    pub fn due(&mut self, piece: u32) -> Due {
        let backlog = self.backlog();
        if backlog > BACKLOG {
            return Due { ranges: Vec::new(), backlog };
        }
        let little = (self.size.bytes() / 4).min(u64::from(LONGEST));
        let current = self.current();
        let mut ranges = Vec::new();
        for number in self.segments.keys().copied().collect::<Vec<_>>() {
            let to = self.flushed(number);
            let Some(entry) = self.segments.get(&number) else { continue };
            let missing = self.missing(number, entry);
            let wait = number < current && missing > little && !entry.waited;
            if missing > 0 && !wait {
                cut(&mut ranges, self.name(number), &entry.chain, to, piece);
            }
            if let Some(entry) = self.segments.get_mut(&number).filter(|_| number < current) {
                entry.waited = true;
            }
        }
        Due { ranges, backlog: 0 }
    }

    /// The end of what the repositories hold without a gap, as whole segments or as heads.
    pub fn end(&self) -> Lsn {
        let start = |number: u64| Lsn(number * self.size.bytes());
        let gap = self.segments.iter().find(|(number, entry)| self.missing(**number, entry) > 0);
        gap.map_or(self.flush, |(number, entry)| start(*number).plus(u64::from(entry.chain.end())))
    }
}

/// The range from the chain's end to `to`, in pieces.
fn cut(ranges: &mut Vec<Range>, segment: SegmentName, chain: &Chain, to: u32, piece: u32) {
    let (from, level) = if to - chain.end() > piece { (chain.end(), 0) } else { chain.next(to, piece) };
    if level > 0 {
        return ranges.push(Range { segment, from, to, level });
    }
    let mut from = from;
    while from < to {
        let end = from.saturating_add(piece).min(to);
        ranges.push(Range { segment, from, to: end, level: 0 });
        from = end;
    }
}

#[cfg(test)]
mod tests;
