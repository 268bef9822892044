//! Which WAL can be replayed without a gap: pure, from a listing and the timelines' histories.
//!
//! A segment counts only if a content of it is there that nobody marked damaged. Heads go on from there, by their ranges;
//! whether their overlapping bytes are equal is known only when they are read (`wal_object::join_heads`). Heads that
//! cover their segment are as good as the segment, and the next one may follow: a host that dies while its archiver is
//! behind leaves such. Several contents of one name are reported as forks, never chosen between here.
//!
//! PostgreSQL's rule for the file of a segment number (`XLogFileReadAnyTLI`): of the path's timelines that had begun by
//! then it takes the newest that has the file, and never goes back to an older timeline afterwards.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{Lsn, SegmentName, SegmentSize, ShortDigest, TimelineId, Timestamp, WalFileName};
use crate::postgres::history::{Leg, TimelinePath};
use crate::repository::wal_listing::{HeadObject, WalListing};

/// The bytes `[from, to)` of a segment, offsets in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadRange {
    pub from: u32,
    pub to: u32,
    pub digest: ShortDigest,
}

impl From<&HeadObject> for HeadRange {
    fn from(head: &HeadObject) -> Self {
        Self { from: head.from, to: head.to, digest: head.digest }
    }
}

/// What is served after the last whole segment of a timeline, padded with zeros to the segment's size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Ending {
    /// Heads, joined.
    Heads { segment: SegmentName, heads: Vec<HeadRange>, until: u32 },
    /// An ancestor's switch segment, of which only the bytes before the switch are part of the path.
    Truncated { segment: SegmentName, until: u32 },
    /// The same, from the `.partial` file that PostgreSQL made of it.
    Partial { segment: SegmentName, until: u32 },
}

impl Ending {
    pub fn segment(&self) -> SegmentName {
        match self {
            Self::Heads { segment, .. } | Self::Truncated { segment, .. } | Self::Partial { segment, .. } => {
                *segment
            }
        }
    }
    /// The offset from which on there are only zeros.
    pub fn until(&self) -> u32 {
        match self {
            Self::Heads { until, .. } | Self::Truncated { until, .. } | Self::Partial { until, .. } => *until,
        }
    }
}

/// Consecutive sound segments of one timeline, and the heads that go on from them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Run {
    pub timeline: TimelineId,
    pub from: Lsn,
    /// Of the segments that are there as a whole, or covered by heads.
    pub whole_until: Lsn,
    /// With the tail.
    pub until: Lsn,
    pub tail: Vec<HeadRange>,
    /// When the newest of its objects was stored, by the store's clock.
    pub stored_at: Option<Timestamp>,
}

/// WAL that is not in the archive, or not to be trusted there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hole {
    pub from: Lsn,
    /// Where WAL goes on; None when the archive holds nothing further.
    pub to: Option<Lsn>,
    pub first_missing: SegmentName,
    /// The first file after it.
    pub next: Option<SegmentName>,
    /// The first missing segment is there, and marked damaged.
    pub damaged: bool,
}

/// A name with more than one sound content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fork {
    pub file: String,
    pub digests: Vec<ShortDigest>,
}

/// The heads that reach farthest from the segment's first byte, each beginning at or before the end of the ones before.
pub fn head_chain(heads: &[HeadObject]) -> Vec<HeadRange> {
    let mut chain: Vec<HeadRange> = Vec::new();
    loop {
        let end = chain.last().map_or(0, |h| h.to);
        let farthest = heads.iter().filter(|h| h.from <= end && h.to > end).max_by_key(|h| (h.to, h.digest));
        match farthest {
            Some(head) => chain.push(head.into()),
            None => return chain,
        }
    }
}

/// The heads that cover the whole segment; none when they do not.
fn covering(listing: &WalListing, segment: SegmentName, size: SegmentSize) -> Option<Vec<HeadRange>> {
    Some(head_chain(listing.heads(segment))).filter(|chain| reaches(chain) == size.bytes())
}

fn reaches(chain: &[HeadRange]) -> u64 {
    chain.last().map_or(0, |h| u64::from(h.to))
}

/// The runs of one timeline, in order.
pub fn runs(listing: &WalListing, timeline: TimelineId, size: SegmentSize) -> Vec<Run> {
    let whole = listing.segments(timeline).map(|(segment, _)| segment);
    let known: BTreeSet<SegmentName> = whole.chain(listing.headed(timeline)).collect();
    let mut runs: Vec<Run> = Vec::new();
    for segment in known {
        let (tail, until, stored_at) = if listing.has_segment(segment) {
            let sound = listing.sound(WalFileName::Segment(segment));
            let stored_at = sound.filter_map(|o| o.copies.iter().filter_map(|c| c.modified).min()).max();
            (Vec::new(), size.bytes(), stored_at)
        } else {
            let chain = head_chain(listing.heads(segment));
            let stored_at =
                listing.heads(segment).iter().flat_map(|h| &h.copies).filter_map(|c| c.modified).max();
            let until = reaches(&chain).min(size.bytes());
            (if until == size.bytes() { Vec::new() } else { chain }, until, stored_at)
        };
        if until > 0 {
            add_to_runs(
                &mut runs,
                segment,
                size,
                Run {
                    timeline,
                    from: segment.start(size),
                    whole_until: if tail.is_empty() { segment.end(size) } else { segment.start(size) },
                    until: segment.start(size).plus(until),
                    tail,
                    stored_at,
                },
            );
        }
    }
    runs
}

/// Lengthens the last run, or begins another.
fn add_to_runs(runs: &mut Vec<Run>, segment: SegmentName, size: SegmentSize, next: Run) {
    match runs.last_mut().filter(|r| r.whole_until == segment.start(size)) {
        Some(run) => {
            (run.whole_until, run.until, run.tail) = (next.whole_until, next.until, next.tail);
            run.stored_at = run.stored_at.max(next.stored_at);
        }
        None => runs.push(next),
    }
}

/// The gaps between a timeline's runs, and a damaged segment after the last one.
pub fn holes(listing: &WalListing, timeline: TimelineId, size: SegmentSize) -> Vec<Hole> {
    let runs = runs(listing, timeline, size);
    let name = |lsn: Lsn| SegmentName::containing(timeline, lsn, size);
    let damaged = |s: SegmentName| !listing.objects(WalFileName::Segment(s)).is_empty();
    let mut holes: Vec<Hole> = runs
        .windows(2)
        .map(|pair| {
            let missing = name(pair[0].until);
            Hole {
                from: pair[0].until,
                to: Some(pair[1].from),
                first_missing: missing,
                next: Some(name(pair[1].from)),
                damaged: damaged(missing),
            }
        })
        .collect();
    let end = runs.last().map_or(Lsn::ZERO, |r| r.until);
    let bad = listing.segments(timeline).map(|(s, _)| s).find(|s| s.end(size) > end);
    if let Some(segment) = bad {
        let from = end.max(segment.start(size));
        holes.push(Hole { from, to: None, first_missing: segment, next: None, damaged: true });
    }
    holes
}

/// Every name with more than one sound content.
pub fn forks(listing: &WalListing) -> Vec<Fork> {
    let several = |objects: &[_]| objects.len() > 1;
    listing
        .files()
        .filter(|(_, objects)| several(objects))
        .map(|(file, _)| Fork {
            file: file.to_string(),
            digests: listing.sound(file).map(|o| o.digest).collect(),
        })
        .filter(|fork| fork.digests.len() > 1)
        .collect()
}

/// The files of one timeline on a recovery's way: `first ..= last` whole (or covered by heads), then the ending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReachLeg {
    pub timeline: TimelineId,
    /// First and last whole segment.
    pub whole: Option<(SegmentName, SegmentName)>,
    pub ending: Option<Ending>,
}

/// Why the way ends where it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Nothing further on this path is in the archive.
    EndOfWal,
    /// Something is missing, and there is (or was) WAL beyond it.
    Hole(Hole),
}

/// How far a recovery comes that starts at some LSN and follows some path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Oldest first; only timelines that give a file.
    pub legs: Vec<ReachLeg>,
    /// The first byte that cannot be replayed.
    pub end: Lsn,
    pub stop: Stop,
    /// Segments on the way that have more than one sound content.
    pub forks: Vec<SegmentName>,
    /// Segments of the legs' whole ranges that are there only as heads, which cover them.
    pub joined: BTreeMap<SegmentName, Vec<HeadRange>>,
}

impl Reach {
    /// The timeline of the last file.
    pub fn timeline(&self) -> Option<TimelineId> {
        self.legs.last().map(|l| l.timeline)
    }
}

/// What a segment number is read from.
enum Source {
    Whole(SegmentName),
    /// Heads that cover it.
    Joined(SegmentName, Vec<HeadRange>),
    /// Recovery ends in it.
    Last(Ending),
}

/// Follows `path` from the record at `start` for as long as the archive goes.
pub fn reach(listing: &WalListing, size: SegmentSize, path: &TimelinePath, start: Lsn) -> Reach {
    let mut walk = Reach {
        legs: Vec::new(),
        end: start,
        stop: Stop::EndOfWal,
        forks: Vec::new(),
        joined: BTreeMap::new(),
    };
    let mut number = size.number_of(start);
    let mut oldest = path.timeline_at(start);
    loop {
        match source(listing, size, path, number, oldest) {
            Some(Source::Whole(segment)) => {
                oldest = segment.timeline;
                walk.take_whole(listing, segment, size);
                number += 1;
            }
            Some(Source::Joined(segment, heads)) => {
                oldest = segment.timeline;
                walk.joined.insert(segment, heads);
                walk.take_whole(listing, segment, size);
                number += 1;
            }
            Some(Source::Last(ending)) => {
                walk.take_ending(listing, ending, size);
                break;
            }
            None => break,
        }
    }
    walk.end = walk.end.max(start);
    walk.stop = stop(listing, size, path, &walk);
    walk
}

impl Reach {
    fn leg(&mut self, timeline: TimelineId) -> Option<&mut ReachLeg> {
        if self.timeline() != Some(timeline) {
            self.legs.push(ReachLeg { timeline, whole: None, ending: None });
        }
        self.legs.last_mut()
    }
    fn note_fork(&mut self, listing: &WalListing, segment: SegmentName) {
        if listing.sound(WalFileName::Segment(segment)).count() > 1 {
            self.forks.push(segment);
        }
    }
    fn take_whole(&mut self, listing: &WalListing, segment: SegmentName, size: SegmentSize) {
        self.note_fork(listing, segment);
        self.end = segment.end(size);
        if let Some(leg) = self.leg(segment.timeline) {
            leg.whole = Some((leg.whole.map_or(segment, |(first, _)| first), segment));
        }
    }
    fn take_ending(&mut self, listing: &WalListing, ending: Ending, size: SegmentSize) {
        let segment = ending.segment();
        if matches!(ending, Ending::Truncated { .. }) {
            self.note_fork(listing, segment);
        }
        self.end = segment.start(size).plus(u64::from(ending.until()));
        if let Some(leg) = self.leg(segment.timeline) {
            leg.ending = Some(ending);
        }
    }
}

/// The offset in segment `number` before which a timeline's bytes are the path's: None when it has left before.
/// The segment's size when it goes on beyond.
fn extent(leg: &Leg, number: u64, size: SegmentSize) -> Option<u64> {
    let start = Lsn(number.saturating_mul(size.bytes()));
    match leg.end {
        None => Some(size.bytes()),
        Some(end) if end <= start => None,
        Some(end) => Some(end.since(start).min(size.bytes())),
    }
}

fn source(
    listing: &WalListing,
    size: SegmentSize,
    path: &TimelinePath,
    number: u64,
    oldest: TimelineId,
) -> Option<Source> {
    let begun = |leg: &&Leg| size.number_of(leg.begin) <= number && leg.timeline >= oldest;
    path.legs().iter().rev().filter(begun).find_map(|leg| {
        let until = extent(leg, number, size)?;
        let segment = SegmentName::numbered(leg.timeline, number, size);
        let whole = until == size.bytes();
        let until = u32::try_from(until).ok()?;
        if listing.has_segment(segment) {
            return Some(if whole {
                Source::Whole(segment)
            } else {
                Source::Last(Ending::Truncated { segment, until })
            });
        }
        if !whole && listing.sound(WalFileName::Partial(segment)).next().is_some() {
            return Some(Source::Last(Ending::Partial { segment, until }));
        }
        if whole && let Some(heads) = covering(listing, segment, size) {
            return Some(Source::Joined(segment, heads));
        }
        let heads = head_chain(listing.heads(segment));
        let joined = heads.last().map_or(0, |h| h.to).min(until);
        // Bytes before the timeline's own begin are its parent's; the parent's file is as good.
        let own = joined > 0 && segment.start(size).plus(u64::from(joined)) > leg.begin;
        own.then_some(Source::Last(Ending::Heads { segment, heads, until: joined }))
    })
}

/// Whether anything on the path lies beyond the walk's end.
fn stop(listing: &WalListing, size: SegmentSize, path: &TimelinePath, walk: &Reach) -> Stop {
    let end = walk.end;
    let first = |sound_only| {
        let legs = path.legs().iter().filter_map(|leg| first_beyond(listing, size, leg, end, sound_only));
        // At one number the newest timeline's file is the path's.
        legs.min_by_key(|s| (s.number(size), std::cmp::Reverse(s.timeline)))
    };
    // Where a history file says that the path went on, WAL existed even if the archive has none of it.
    let switch = path.legs().iter().filter_map(|l| l.end).find(|switch| *switch > end);
    if first(false).is_none() && switch.is_none() {
        return Stop::EndOfWal;
    }
    let next = first(true);
    let missing = path.segment(size.number_of(end), size);
    let there = !listing.objects(WalFileName::Segment(missing)).is_empty();
    Stop::Hole(Hole {
        from: end,
        to: next.map(|s| s.start(size)).filter(|start| *start > end),
        first_missing: missing,
        next,
        damaged: there && !listing.has_segment(missing),
    })
}

/// The first segment (whole or with heads) of a leg that holds bytes of this path at or after `end`.
fn first_beyond(
    listing: &WalListing,
    size: SegmentSize,
    leg: &Leg,
    end: Lsn,
    sound_only: bool,
) -> Option<SegmentName> {
    let on_leg = |s: &SegmentName| {
        s.end(size) > end.max(leg.begin) && leg.end.is_none_or(|e| s.start(size) < e && e > end)
    };
    let good = |s: &SegmentName| !sound_only || listing.has_segment(*s);
    let whole = listing.segments(leg.timeline).map(|(s, _)| s).find(|s| on_leg(s) && good(s));
    let reaches = |s: &SegmentName| {
        listing.heads(*s).iter().any(|h| s.start(size).plus(u64::from(h.to)) > end) && on_leg(s)
    };
    whole.into_iter().chain(listing.headed(leg.timeline).find(reaches)).min()
}

#[cfg(test)]
mod tests;
