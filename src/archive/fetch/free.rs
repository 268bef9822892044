//! A fetch without a plan: a standby's, or a recovery that somebody set up by hand.
//!
//! "Does not exist" needs a proof: every required repository answered, and none has the file nor anything later of its
//! timeline. Or PostgreSQL has a whole copy of its own in pg_wal. A standby is answered so as well while a store is
//! silent, and where a later segment overtook this one on its way: it asks again.
//!
//! Heads are never served here, padded with zeros as if they were the segment: a server would take the padding for the
//! end of WAL, and a standby with `archive_mode = always` would archive it under the segment's name. But they are WAL
//! that the archive holds, so no recovery may end before them: a standby is told to ask again, any other recovery fails
//! with the way out, which is a plan.

use std::path::Path;

use super::Request;
use super::answer::Fetched;
use crate::archive::source::{Found, Source};
use crate::archive::{fork, spool};
use crate::error::{Code, Error, Result};
use crate::model::{Lsn, RepoName, SegmentName, SegmentSize, SystemId, TimelineId, WalFileName};
use crate::repository::continuity::head_chain;
use crate::repository::wal_listing::WalObject;
use crate::wal::check::{SegmentChecker, SegmentVerdict};

/// What is known of the cluster in the working directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cluster {
    pub size: SegmentSize,
    pub system: SystemId,
    pub standby: bool,
}

pub(super) async fn fetch(
    request: &Request<'_>,
    source: &Source,
    file: WalFileName,
    cluster: Cluster,
) -> Result<Fetched> {
    let found = source.find(file).await;
    let sound: Vec<&WalObject> = found.listing.sound(file).collect();
    let object = match sound.as_slice() {
        [] if !found.listing.objects(file).is_empty() => {
            return Err(Error::new(
                Code::WalDamaged,
                format!("what the archive holds of {file} is marked damaged"),
            )
            .hint("recovery cannot pass it; `pgkeep window` shows how far it can go"));
        }
        [] => return absent(request, source, file, cluster, found).await,
        [only] => (*only).clone(),
        several => choose(source, &found, file, cluster, several).await?,
    };
    let length =
        matches!(file, WalFileName::Segment(_) | WalFileName::Partial(_)).then_some(cluster.size.bytes());
    let destination = request.data_directory.join(request.destination);
    let mode = spool::file_mode(request.data_directory);
    source.receive(&object, length, &destination, mode).await?.hand_over()?;
    Ok(Fetched::Delivered)
}

async fn choose(
    source: &Source,
    found: &Found,
    file: WalFileName,
    cluster: Cluster,
    several: &[&WalObject],
) -> Result<WalObject> {
    let WalFileName::Segment(segment) = file else {
        return Err(Error::new(Code::WalConflict, format!("the archive holds several contents of {file}"))
            .hint("two servers archive into one place; find out which of them is the cluster"));
    };
    let mut around = found.listing.clone();
    around.merge(source.find(WalFileName::History(segment.timeline)).await.listing);
    let path = fork::path_to(source, &around, segment).await?;
    if let Some(before) = segment.number(cluster.size).checked_sub(1) {
        let before = path.segment(before, cluster.size);
        around.merge(source.find(WalFileName::Segment(before)).await.listing);
    }
    let chosen = fork::Chosen::new();
    let digest = fork::choose(source, &around, &path, cluster.size, segment, &chosen).await?;
    tracing::warn!(%segment, %digest, "the archive holds other content under this name too");
    let object = several.iter().find(|o| o.digest == digest).map(|o| (*o).clone());
    object.ok_or_else(|| Error::internal("a content was chosen that is not there"))
}

/// What keeps an absence from being proved.
enum Doubt {
    /// A required repository did not answer, or WAL goes on behind a gap.
    Missing(Error),
    /// Of the segment, or of what comes after it, the archive holds heads: WAL that only a plan can serve.
    OnlyHeads { until: Option<Lsn>, error: Error },
}

/// Nobody who answered has it.
async fn absent(
    request: &Request<'_>,
    source: &Source,
    file: WalFileName,
    cluster: Cluster,
    found: Found,
) -> Result<Fetched> {
    let Some(doubt) = doubt(source, file, cluster.size, found).await else { return Ok(Fetched::nowhere()) };
    let (why, until) = match &doubt {
        Doubt::Missing(why) => (why, None),
        Doubt::OnlyHeads { error, until } => (error, *until),
    };
    if let WalFileName::Segment(segment) = file
        && lies_in_pg_wal(request.data_directory, segment, cluster, until)
    {
        return Ok(Fetched::in_pg_wal(&why.to_string()));
    }
    match doubt {
        Doubt::OnlyHeads { error, .. } if cluster.standby => Ok(Fetched::only_begun(&error.to_string())),
        Doubt::Missing(why) if cluster.standby && matches!(why.code(), Code::WalHole) => {
            Ok(Fetched::standby_waits(&why.to_string()))
        }
        Doubt::Missing(error) | Doubt::OnlyHeads { error, .. } => Err(error),
    }
}

/// None when every required repository answered, and none has the file nor anything later.
async fn doubt(source: &Source, file: WalFileName, size: SegmentSize, found: Found) -> Option<Doubt> {
    let silent = |(name, error): (RepoName, Error)| {
        let what = format!("{file}: the required repository {name} does not answer");
        Some(Doubt::Missing(error.while_doing(what)))
    };
    if let Some(first) = found.silent.into_iter().next() {
        return silent(first);
    }
    let beyond = match file {
        WalFileName::Segment(s) | WalFileName::Partial(s) | WalFileName::BackupHistory(s, _) => {
            source.find_after(s).await
        }
        // A timeline with segments has a history: a false "missing" would follow the wrong timeline.
        WalFileName::History(t) if t > TimelineId::FIRST => {
            source.find_prefix(&source.root.timeline_prefix(t)).await
        }
        WalFileName::History(_) => return None,
    };
    if let Some(first) = beyond.silent.into_iter().next() {
        return silent(first);
    }
    let hole = |later: String| {
        Error::new(Code::WalHole, format!("{file} is not in the archive, and {later} is"))
            .hint("WAL is missing here: `pgkeep window` shows how far a recovery can go")
    };
    if let Some((later, _)) = beyond.listing.files().next() {
        return Some(Doubt::Missing(hole(later.to_string())));
    }
    if let Some(later) = beyond.listing.all_headed().next() {
        let error = hole(format!("the beginning of {later}"));
        return Some(Doubt::OnlyHeads { until: None, error });
    }
    let WalFileName::Segment(segment) = file else { return None };
    let until =
        head_chain(found.listing.heads(segment)).last().map(|h| segment.start(size).plus(h.to.into()))?;
    let error = Error::new(Code::WalHole, format!("of {file} the archive holds only what comes before {until}"))
        .hint(
            "only a recovery that pgkeep has planned can use it: `pgkeep restore --to …`. With a target before that place, \
             `recovery_prefetch = off` keeps PostgreSQL from asking for it; a standby needs standby.signal",
        );
    Some(Doubt::OnlyHeads { until: Some(until), error })
}

/// A whole, sound copy of the segment: one that ends early could be the very end that the archive goes beyond. Where the
/// archive is known to end at `until`, one that reaches as far is enough.
fn lies_in_pg_wal(data_directory: &Path, segment: SegmentName, cluster: Cluster, until: Option<Lsn>) -> bool {
    let path = data_directory.join("pg_wal").join(segment.to_string());
    let mut checker = SegmentChecker::new(segment, cluster.size, cluster.system);
    let read = || -> std::io::Result<()> {
        let mut file = std::fs::File::open(path)?;
        let mut piece = vec![0; 1 << 20];
        loop {
            match std::io::Read::read(&mut file, &mut piece)? {
                0 => return Ok(()),
                n => checker.feed(&piece[..n]),
            }
        }
    };
    if read().is_err() {
        return false;
    }
    match checker.finish() {
        Ok(SegmentVerdict::Sound { .. }) => true,
        Ok(SegmentVerdict::EndsEarly { lsn, .. }) => until.is_some_and(|until| lsn >= until),
        Ok(SegmentVerdict::Damaged { .. }) | Err(_) => false,
    }
}
