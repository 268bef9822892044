//! Looks for WAL that the archive lacks between files that it has. From listings alone, now and then, and only what came
//! since the last look, so that it costs a request or two.
//!
//! Only what lies before the contiguous prefix that this host has archived counts: what comes after it may still be on
//! its way, here or on another host.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::agent::board::HoleFacts;
use crate::agent::services::Services;
use crate::error::Result;
use crate::model::{ClusterName, Lsn, SegmentName, SegmentSize, SystemId, TimelineId};
use crate::repository::continuity;
use crate::repository::keys::wal::WalRoot;
use crate::repository::wal_listing::WalListing;

/// Between two looks.
const EVERY: Duration = Duration::from_mins(15);
/// From the start to the first one: there is more urgent work then.
const FIRST: Duration = Duration::from_secs(30);

/// Shared by the archiver, which says how far it is, and the task that looks.
#[derive(Clone)]
pub(super) struct Watcher {
    services: Services,
    cluster: ClusterName,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    place: Option<(SystemId, SegmentSize)>,
    reached: Option<(TimelineId, Lsn)>,
    found: Vec<HoleFacts>,
}

/// From where a timeline has to be looked at: all before is whole.
type Verified = BTreeMap<TimelineId, SegmentName>;

impl Watcher {
    pub(super) fn new(services: &Services, cluster: &ClusterName) -> Self {
        Self { services: services.clone(), cluster: cluster.clone(), inner: Arc::default() }
    }
    pub(super) fn look_in(&self, system: SystemId, size: SegmentSize) {
        self.inner().place = Some((system, size));
    }
    pub(super) fn reached(&self, reached: Option<(TimelineId, Lsn)>) {
        self.inner().reached = reached;
    }
    pub(super) fn found(&self) -> Vec<HoleFacts> {
        self.inner().found.clone()
    }

    /// For ever; a look that fails is made again at the next turn.
    pub(super) async fn run(self) {
        let (mut verified, mut last) = (Verified::new(), None);
        let mut pause = FIRST;
        loop {
            tokio::time::sleep(pause).await;
            pause = EVERY;
            let (place, reached) = {
                let inner = self.inner();
                (inner.place, inner.reached)
            };
            let (Some((system, size)), Some(reached)) = (place, reached) else { continue };
            if last == Some(reached) && self.inner().found.is_empty() {
                continue;
            }
            match self.look(system, size, reached, &mut verified).await {
                Ok(found) => {
                    last = Some(reached);
                    self.inner().found = found;
                }
                Err(error) => tracing::debug!(%error, "cannot look for holes in the archive"),
            }
        }
    }

    async fn look(
        &self,
        system: SystemId,
        size: SegmentSize,
        reached: (TimelineId, Lsn),
        verified: &mut Verified,
    ) -> Result<Vec<HoleFacts>> {
        let root = WalRoot::new(&self.cluster, system);
        let mut listing = WalListing::default();
        let (repositories, _) = self.services.stores.get().await.required()?;
        for repository in repositories.iter().filter(|r| r.required) {
            let mut timelines: Vec<TimelineId> = verified.keys().copied().collect();
            if verified.is_empty() {
                listing.merge(WalListing::load(&repository.name, &*repository.storage, &root).await?);
            } else if !timelines.contains(&reached.0) {
                timelines.push(reached.0);
            }
            for timeline in timelines {
                let from = verified
                    .get(&timeline)
                    .map(|segment| root.file_prefix(crate::model::WalFileName::Segment(*segment)));
                let prefix = root.timeline_prefix(timeline);
                for info in repository.storage.list(&prefix, from.as_deref()).await? {
                    listing.add(&repository.name, &root, info);
                }
            }
        }
        Ok(judge(&listing, size, reached, verified))
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The holes that a listing shows, and from where it has to be looked at next time: the first hole's predecessor, or
/// the last segment.
fn judge(
    listing: &WalListing,
    size: SegmentSize,
    reached: (TimelineId, Lsn),
    verified: &mut Verified,
) -> Vec<HoleFacts> {
    let mut found = Vec::new();
    for timeline in listing.timelines() {
        let counts =
            |hole: &&continuity::Hole| hole.to.is_some_and(|to| timeline != reached.0 || to <= reached.1);
        let holes = continuity::holes(listing, timeline, size);
        let holes: Vec<_> = holes.iter().filter(counts).collect();
        let last = listing.segments(timeline).map(|(segment, _)| segment).last();
        let whole = holes.first().map_or(last, |hole| hole.first_missing.previous(size));
        // A segment on whose border the next look begins must be in it.
        if let Some(begin) = whole.and_then(|segment| segment.previous(size)) {
            verified.insert(timeline, begin);
        }
        found.extend(holes.into_iter().filter_map(|hole| {
            let last = hole.next?.previous(size)?;
            Some(HoleFacts { first: hole.first_missing, last })
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ShortDigest;
    use crate::repository::keys::wal::WalObjectName;
    use crate::repository::wal_listing::tests::listing;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;

    fn segment(number: u64) -> SegmentName {
        SegmentName::numbered(TimelineId(1), number, SIZE)
    }
    fn holes(present: &[u64], reached: u64, verified: &mut Verified) -> Vec<(SegmentName, SegmentName)> {
        let name = |n: &u64| WalObjectName::Segment { segment: segment(*n), digest: ShortDigest([1; 16]) };
        let listing = listing(&present.iter().map(name).collect::<Vec<_>>());
        let reached = (TimelineId(1), segment(reached).start(SIZE));
        judge(&listing, SIZE, reached, verified).into_iter().map(|h| (h.first, h.last)).collect()
    }

    #[test]
    fn what_is_missing_before_the_archived_prefix_is_a_hole_and_what_is_under_way_is_none() {
        let mut verified = Verified::new();
        assert_eq!(holes(&[3, 4, 7, 8], 9, &mut verified), [(segment(5), segment(6))]);
        assert_eq!(verified[&TimelineId(1)], segment(3));
        assert_eq!(holes(&[3, 4, 7, 8], 5, &mut verified), []);
        assert_eq!(holes(&[3, 4, 5, 6, 7], 8, &mut verified), []);
        assert_eq!(verified[&TimelineId(1)], segment(6));
    }
}
