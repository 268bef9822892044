//! `pgkeep.recovery.json`: what a recovery may be given, decided before it starts (DESIGN.md, "The plan of a recovery").
//!
//! PostgreSQL asks for whatever it can imagine: history files that never existed, segments past the end, a dead
//! timeline's segments. `restore` writes this plan into the data directory, and `wal fetch` obeys it while
//! `recovery.signal` is there, also when `restore` itself has died. [`RecoveryPlan::decide`] is pure and total; promise 2
//! (a recovery never ends where the archive does not) is this table:
//!
//! * what the plan holds is delivered, or the fetch fails;
//! * a segment past the plan's end, of an ancestor after its switch, or of a timeline that is not on the path does not
//!   exist;
//! * a segment before the plan's first is no part of this recovery: the fetch fails rather than end it;
//! * every history file is delivered; an id up to the highest seen that has none gets a stand-in, so that PostgreSQL does
//!   not take a timeline id that has been used; only higher ids do not exist.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::model::{
    ClusterName, Lsn, RepoName, SegmentName, SegmentSize, ShortDigest, SystemId, TimelineId, Timestamp,
    WalFileName,
};
use crate::postgres::history::{Ancestor, History, TimelinePath};
use crate::repository::continuity::{Ending, HeadRange, Reach};
use crate::repository::wal_listing::WalListing;
use crate::wal::redirect::Patch;

/// Its place, relative to the data directory.
pub const FILE_NAME: &str = "pgkeep.recovery.json";
/// The file whose presence puts the plan in force.
pub const IN_FORCE_WHILE: &str = "recovery.signal";
const FORMAT: u32 = 1;

/// The plan of one recovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryPlan {
    pub format: u32,
    pub cluster: ClusterName,
    pub system_identifier: SystemId,
    pub wal_segment_bytes: SegmentSize,
    pub made_at: Timestamp,
    /// In the words of `--to`, for people.
    pub target: String,
    /// The path, oldest first. A timeline without files is on the path, and nothing of it is in the archive.
    pub timelines: Vec<PlannedTimeline>,
    /// Every history file of the system identifier; its contents' digests, the chosen one first.
    pub histories: BTreeMap<TimelineId, ShortDigest>,
    /// The highest timeline id that anything in any repository speaks of.
    pub highest_timeline: TimelineId,
    /// Which content of a name counts, for every planned name that has more than one. Keys are file names.
    pub chosen: BTreeMap<String, ShortDigest>,
    /// Planned segments that are there only as heads, which cover them. Keys are file names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub joined: BTreeMap<String, Vec<HeadRange>>,
    /// The repositories that answered when the plan was made.
    pub repositories: Vec<RepoName>,
    /// Bytes that are served changed: tablespace records, so that a recovery makes no link out of its place. Whoever
    /// delivers a segment applies them ([`crate::wal::redirect::apply`]); not to do so is to fail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<Patch>,
}

/// One timeline of the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedTimeline {
    pub timeline: TimelineId,
    /// Where the path comes onto it; 0/0 for the first.
    pub begin: Lsn,
    /// Where the path leaves it; none for the last.
    pub switch: Option<Lsn>,
    /// Whole segments, from the first to the last, all in the archive.
    pub first: Option<SegmentName>,
    pub last: Option<SegmentName>,
    /// What comes after the last whole segment; recovery ends in it.
    pub ending: Option<Ending>,
}

/// Read before the rest, whose shape a newer format may have changed.
#[derive(Deserialize)]
struct Probe {
    format: u32,
}

/// What `wal fetch` does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Delivers a whole segment. `digest`: the content that counts, where there are several.
    Segment { segment: SegmentName, digest: Option<ShortDigest> },
    /// Delivers the ending: what it holds, then zeros. A segment that heads cover is one without zeros.
    Ending { ending: Ending, digest: Option<ShortDigest> },
    /// Delivers a history file.
    History { timeline: TimelineId, digest: ShortDigest },
    /// Delivers one `#` line: the id is taken, though nobody has its history.
    StandIn { timeline: TimelineId },
    /// Answers that there is no such file: the only way to an exit of 1.
    DoesNotExist { why: &'static str },
    /// Fails.
    OutsidePlan { why: &'static str },
}

impl RecoveryPlan {
    /// A plan from what was found. `histories`: one content per timeline, chosen by the caller where there are several;
    /// `chosen`: likewise for segments.
    #[allow(clippy::too_many_arguments)] // every one of them is a line of the file
    pub fn new(
        cluster: ClusterName,
        system_identifier: SystemId,
        wal_segment_bytes: SegmentSize,
        made_at: Timestamp,
        target: String,
        path: &TimelinePath,
        reach: &Reach,
        histories: BTreeMap<TimelineId, ShortDigest>,
        listing: &WalListing,
        chosen: &BTreeMap<WalFileName, ShortDigest>,
        repositories: Vec<RepoName>,
    ) -> Self {
        let timelines = path.legs().iter().map(|leg| {
            let files = reach.legs.iter().find(|l| l.timeline == leg.timeline);
            PlannedTimeline {
                timeline: leg.timeline,
                begin: leg.begin,
                switch: leg.end,
                first: files.and_then(|f| f.whole).map(|(first, _)| first),
                last: files.and_then(|f| f.whole).map(|(_, last)| last),
                ending: files.and_then(|f| f.ending.clone()),
            }
        });
        let timelines: Vec<_> = timelines.collect();
        let highest = listing.highest_timeline().max(histories.keys().last().copied());
        Self {
            format: FORMAT,
            cluster,
            system_identifier,
            wal_segment_bytes,
            made_at,
            target,
            highest_timeline: highest.unwrap_or(TimelineId::FIRST).max(path.target()),
            timelines,
            histories,
            chosen: chosen.iter().map(|(name, digest)| (name.to_string(), *digest)).collect(),
            joined: reach.joined.iter().map(|(name, heads)| (name.to_string(), heads.clone())).collect(),
            repositories,
            patches: Vec::new(),
        }
    }

    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let broken = |e: serde_json::Error| {
            Error::new(Code::Damaged, "the plan of this recovery cannot be read")
                .at(FILE_NAME)
                .hint("run `pgkeep restore` again: it writes a new plan")
                .because(e)
        };
        let probe: Probe = serde_json::from_slice(bytes).map_err(broken)?;
        if probe.format > FORMAT {
            return Err(Error::new(Code::FormatTooNew, "the plan was written by a newer pgkeep")
                .at(FILE_NAME)
                .hint("let `restore_command` run the pgkeep that made the plan"));
        }
        serde_json::from_slice(bytes).map_err(broken)
    }
    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self).map_err(|e| Error::internal("a plan is not JSON").because(e))
    }

    /// The timelines that the recovery goes through.
    pub fn path(&self) -> TimelinePath {
        let ancestors = self.timelines.iter().filter_map(|t| {
            let switch = t.switch?;
            Some(Ancestor { timeline: t.timeline, switch, reason: String::new() })
        });
        History { timeline: self.target_timeline(), ancestors: ancestors.collect() }.path()
    }
    /// What was chosen where a name has several contents.
    pub fn chosen_files(&self) -> BTreeMap<WalFileName, ShortDigest> {
        let parsed = self.chosen.iter().map(|(name, digest)| Some((WalFileName::parse(name)?, *digest)));
        parsed.flatten().collect()
    }

    /// The timeline that the path ends on.
    pub fn target_timeline(&self) -> TimelineId {
        self.timelines.last().map_or(TimelineId::FIRST, |t| t.timeline)
    }
    /// The first byte that the plan does not hold.
    pub fn end(&self) -> Lsn {
        let size = self.wal_segment_bytes;
        let ends = self.timelines.iter().filter_map(|t| match (&t.ending, t.last) {
            (Some(ending), _) => Some(ending.segment().start(size).plus(u64::from(ending.until()))),
            (None, last) => last.map(|s| s.end(size)),
        });
        ends.max().unwrap_or(Lsn::ZERO)
    }

    /// Ends the plan with the segment that holds the byte before `needed_to`: what a recovery to a target reads. Later
    /// segments do not exist for it.
    pub fn end_at(&mut self, needed_to: Lsn) {
        let size = self.wal_segment_bytes;
        let bound = size.number_of(Lsn(needed_to.0.saturating_sub(1)));
        for planned in &mut self.timelines {
            if planned.ending.as_ref().is_some_and(|e| e.segment().number(size) > bound) {
                planned.ending = None;
            }
            let (Some(first), Some(last)) = (planned.first, planned.last) else { continue };
            if first.number(size) > bound {
                (planned.first, planned.last) = (None, None);
            } else if last.number(size) > bound {
                planned.last = Some(SegmentName::numbered(last.timeline, bound, size));
            }
        }
    }
    /// How many segments it holds, the ending included.
    pub fn segments(&self) -> u64 {
        let size = self.wal_segment_bytes;
        let whole = |t: &PlannedTimeline| match (t.first, t.last) {
            (Some(first), Some(last)) => last.number(size) - first.number(size) + 1,
            _ => 0,
        };
        self.timelines.iter().map(|t| whole(t) + u64::from(t.ending.is_some())).sum()
    }

    /// What a request for `name` gets.
    pub fn decide(&self, name: WalFileName) -> Decision {
        match name {
            WalFileName::Segment(segment) => self.decide_segment(segment),
            WalFileName::History(timeline) => self.decide_history(timeline),
            WalFileName::Partial(_) | WalFileName::BackupHistory(..) => {
                Decision::DoesNotExist { why: "a recovery needs no such file" }
            }
        }
    }

    fn decide_segment(&self, segment: SegmentName) -> Decision {
        let size = self.wal_segment_bytes;
        let Some(planned) = self.timelines.iter().find(|t| t.timeline == segment.timeline) else {
            return Decision::DoesNotExist { why: "its timeline is not on the path of this recovery" };
        };
        if !segment.fits(size) {
            return Decision::OutsidePlan { why: "no segment of this cluster has this name" };
        }
        let chosen = |file: WalFileName| self.chosen.get(&file.to_string()).copied();
        let digest = chosen(WalFileName::Segment(segment));
        if let Some(ending) =
            planned.ending.as_ref().filter(|e| e.segment().number(size) == segment.number(size))
        {
            let partial = matches!(ending, Ending::Partial { .. });
            let digest = if partial { chosen(WalFileName::Partial(segment)) } else { digest };
            return Decision::Ending { ending: ending.clone(), digest };
        }
        match (planned.first, planned.last) {
            (Some(first), Some(last)) if (first..=last).contains(&segment) => {
                match self.joined.get(&segment.to_string()) {
                    Some(heads) => Decision::Ending { ending: covered(segment, heads), digest: None },
                    None => Decision::Segment { segment, digest },
                }
            }
            _ if planned.switch.is_some_and(|s| segment.start(size) >= s) => {
                Decision::DoesNotExist { why: "the path has left this timeline before" }
            }
            _ if segment < self.first_of(planned, segment.timeline) => {
                Decision::OutsidePlan { why: "it lies before the first segment of the plan" }
            }
            _ if planned.switch.is_some_and(|s| segment.end(size) > s) => Decision::DoesNotExist {
                why: "the path leaves this timeline in it, and the next one's is there",
            },
            _ => Decision::DoesNotExist { why: "it lies past the end of the plan" },
        }
    }

    /// The first segment that this recovery can want of a timeline.
    fn first_of(&self, planned: &PlannedTimeline, timeline: TimelineId) -> SegmentName {
        let size = self.wal_segment_bytes;
        let first_file = |t: &PlannedTimeline| t.first.or_else(|| t.ending.as_ref().map(Ending::segment));
        let own = first_file(planned).map(|s| s.number(size));
        let start = self.timelines.iter().filter_map(first_file).map(|s| s.number(size)).min();
        let begin = size.number_of(planned.begin).max(start.unwrap_or(0));
        SegmentName::numbered(timeline, own.unwrap_or(begin), size)
    }

    fn decide_history(&self, timeline: TimelineId) -> Decision {
        if let Some(digest) = self.histories.get(&timeline).copied() {
            return Decision::History { timeline, digest };
        }
        if timeline > self.highest_timeline {
            return Decision::DoesNotExist { why: "nobody has used this timeline id" };
        }
        // PostgreSQL asks for the target's history to learn its path: a stand-in would say that it has no parents, and so
        // does the absence, which is the truth.
        if self.timelines.iter().any(|t| t.timeline == timeline) {
            return Decision::DoesNotExist { why: "this timeline of the path has no history file" };
        }
        Decision::StandIn { timeline }
    }

    /// The segment that replay reads after `segment`; none at the plan's end.
    pub fn following(&self, segment: SegmentName) -> Option<SegmentName> {
        let size = self.wal_segment_bytes;
        let number = segment.number(size) + 1;
        self.timelines
            .iter()
            .rev()
            .map(|t| SegmentName::numbered(t.timeline, number, size))
            .filter(|s| s.timeline >= segment.timeline)
            .find(|s| matches!(self.decide_segment(*s), Decision::Segment { .. } | Decision::Ending { .. }))
    }
}

/// Heads that cover their segment.
fn covered(segment: SegmentName, heads: &[HeadRange]) -> Ending {
    Ending::Heads { segment, heads: heads.to_vec(), until: heads.last().map_or(0, |h| h.to) }
}

#[cfg(test)]
mod tests;
