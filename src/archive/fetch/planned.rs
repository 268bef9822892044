//! What a plan holds, received: whole segments, endings padded with zeros, history files and their stand-ins.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::archive::fork;
use crate::archive::source::Source;
use crate::archive::spool::Incoming;
use crate::error::{Code, Error, Result};
use crate::model::{SegmentName, ShortDigest, TimelineId, WalFileName};
use crate::repository::continuity::{Ending, HeadRange};
use crate::repository::recovery_plan::{Decision, RecoveryPlan};
use crate::repository::wal_listing::{HeadObject, WalListing, WalObject};
use crate::repository::wal_object::join_heads;
use crate::wal::redirect;

/// A decision that something is delivered.
#[derive(Debug, Clone)]
pub(in crate::archive) enum Wanted {
    Whole { file: WalFileName, digest: Option<ShortDigest> },
    Ending { ending: Ending, digest: Option<ShortDigest> },
    StandIn { timeline: TimelineId },
}

impl Wanted {
    /// None for what is not delivered.
    pub(in crate::archive) fn of(decision: Decision) -> Option<Self> {
        match decision {
            Decision::Segment { segment, digest } => {
                Some(Self::Whole { file: WalFileName::Segment(segment), digest })
            }
            Decision::Ending { ending, digest } => Some(Self::Ending { ending, digest }),
            Decision::History { timeline, digest } => {
                Some(Self::Whole { file: WalFileName::History(timeline), digest: Some(digest) })
            }
            Decision::StandIn { timeline } => Some(Self::StandIn { timeline }),
            Decision::DoesNotExist { .. } | Decision::OutsidePlan { .. } => None,
        }
    }
    /// The file whose objects are needed.
    pub(in crate::archive) fn file(&self) -> Option<WalFileName> {
        match self {
            Self::Whole { file, .. } => Some(*file),
            Self::Ending { ending: Ending::Partial { segment, .. }, .. } => {
                Some(WalFileName::Partial(*segment))
            }
            Self::Ending { ending, .. } => Some(WalFileName::Segment(ending.segment())),
            Self::StandIn { .. } => None,
        }
    }
}

/// Receives it under `destination`, with the plan's patches. `listing` must hold the file; every failure is one of the fetch,
/// for the plan says that it is there.
pub(in crate::archive) async fn receive(
    source: &Source,
    plan: &RecoveryPlan,
    listing: &WalListing,
    wanted: &Wanted,
    destination: &Path,
    mode: u32,
) -> Result<Incoming> {
    let incoming = as_archived(source, plan, listing, wanted, destination, mode).await?;
    if let Some(WalFileName::Segment(segment) | WalFileName::Partial(segment)) = wanted.file() {
        patch(plan, segment, incoming.file())?;
    }
    Ok(incoming)
}

/// Tablespace records that would reach out of the recovered instance are delivered rewritten.
fn patch(plan: &RecoveryPlan, segment: SegmentName, file: &File) -> Result<()> {
    let size = plan.wal_segment_bytes;
    let failed = |e| Error::new(Code::Io, "cannot rewrite a tablespace record").at(segment).because(e);
    for patch in &plan.patches {
        let part = redirect::part_within(patch, segment.start(size), segment.end(size));
        let Some((offset, old, new)) = part else { continue };
        let mut there = vec![0; old.len()];
        file.read_exact_at(&mut there, offset).map_err(failed)?;
        if there != old {
            return Err(redirect::not_as_planned(patch));
        }
        file.write_all_at(new, offset).map_err(failed)?;
    }
    Ok(())
}

async fn as_archived(
    source: &Source,
    plan: &RecoveryPlan,
    listing: &WalListing,
    wanted: &Wanted,
    destination: &Path,
    mode: u32,
) -> Result<Incoming> {
    let size = plan.wal_segment_bytes.bytes();
    match wanted {
        Wanted::StandIn { timeline } => stand_in(*timeline, destination, mode),
        Wanted::Whole { file, digest } => {
            let object = pick(source, plan, listing, *file, *digest).await?;
            let length = matches!(file, WalFileName::Segment(_)).then_some(size);
            source.receive(&object, length, destination, mode).await
        }
        Wanted::Ending { ending: Ending::Heads { segment, heads, until }, .. } => {
            join(source, plan, listing, *segment, heads, *until, destination, mode).await
        }
        Wanted::Ending { ending, digest } => {
            let file = wanted.file().unwrap_or(WalFileName::Segment(ending.segment()));
            let object = pick(source, plan, listing, file, *digest).await?;
            let incoming = source.receive(&object, Some(size), destination, mode).await?;
            incoming.zero_from(u64::from(ending.until()), size)?;
            Ok(incoming)
        }
    }
}

fn stand_in(timeline: TimelineId, destination: &Path, mode: u32) -> Result<Incoming> {
    let mut incoming = Incoming::create(destination, mode)?;
    writeln!(incoming, "# timeline {timeline} has been used; pgkeep stands in for its history")
        .map_err(|e| Error::io("cannot write the history file", destination, e))?;
    Ok(incoming)
}

/// The one content that counts.
async fn pick(
    source: &Source,
    plan: &RecoveryPlan,
    listing: &WalListing,
    file: WalFileName,
    digest: Option<ShortDigest>,
) -> Result<WalObject> {
    let sound: Vec<&WalObject> = listing.sound(file).collect();
    let object = match (digest, sound.as_slice()) {
        (Some(digest), all) => all.iter().find(|o| o.digest == digest).copied(),
        (None, [only]) => Some(*only),
        (None, []) => None,
        (None, several) => {
            let digest = later_fork(source, plan, listing, file).await?;
            several.iter().find(|o| o.digest == digest).copied()
        }
    };
    object.cloned().ok_or_else(|| gone(listing, file))
}

/// Another content came after the plan was made.
async fn later_fork(
    source: &Source,
    plan: &RecoveryPlan,
    listing: &WalListing,
    file: WalFileName,
) -> Result<ShortDigest> {
    let WalFileName::Segment(segment) = file else {
        return Err(Error::new(Code::WalConflict, format!("the archive holds several contents of {file}"))
            .hint("two servers archive into one place; the plan was made before the second one came"));
    };
    let (size, path) = (plan.wal_segment_bytes, plan.path());
    let mut around = listing.clone();
    if let Some(before) = segment.number(size).checked_sub(1) {
        let before = path.segment(before, size);
        around.merge(source.find(WalFileName::Segment(before)).await.listing);
    }
    fork::choose(source, &around, &path, size, segment, &plan.chosen_files()).await
}

fn gone(listing: &WalListing, file: WalFileName) -> Error {
    if listing.objects(file).is_empty() {
        Error::new(Code::ObjectMissing, format!("{file} is in the plan of this recovery and not in the archive"))
            .hint(
                "it was there when the plan was made. Recovery stops here rather than end short of the archive: find it \
                 in another repository, or run `pgkeep restore` again to an earlier target",
            )
    } else {
        Error::new(Code::WalDamaged, format!("what the archive holds of {file} is marked damaged"))
            .hint("recovery cannot pass it; `pgkeep window` shows how far it can go")
    }
}

#[allow(clippy::too_many_arguments)] // the parts of one ending
async fn join(
    source: &Source,
    plan: &RecoveryPlan,
    listing: &WalListing,
    segment: SegmentName,
    heads: &[HeadRange],
    until: u32,
    destination: &Path,
    mode: u32,
) -> Result<Incoming> {
    let all = listing.heads(segment);
    let mut planned: Vec<HeadObject> = Vec::with_capacity(heads.len());
    for head in heads {
        let object = all.iter().find(|o| HeadRange::from(*o) == *head);
        planned.push(object.cloned().ok_or_else(|| gone(listing, WalFileName::Segment(segment)))?);
    }
    let copies: Vec<_> = planned.iter().flat_map(|h| h.copies.clone()).collect();
    let (destination, size) = (destination.to_path_buf(), plan.wal_segment_bytes);
    source
        .with(&copies, move |objects| {
            let incoming = Incoming::create(&destination, mode)?;
            let joined = join_heads(&objects, &planned, size, incoming.file())?;
            if joined.until < until {
                return Err(Error::new(
                    Code::Damaged,
                    format!("the heads of {segment} do not join as planned"),
                )
                .hint("they contradict each other: two servers wrote this segment"));
            }
            incoming.zero_from(u64::from(until), size.bytes())?;
            Ok(incoming)
        })
        .await
}
