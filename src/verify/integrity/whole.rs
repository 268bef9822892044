//! WAL as a whole, from fresh listings without what turned out to be wrong: what a restore could use now.

use std::collections::BTreeMap;
use std::time::Duration;

use super::finding::Kind;
use super::gaps::{Gap, Gaps, Known};
use super::impact;
use super::memory::Memory;
use super::records::{About, Wrong};
use super::run::{Cx, Run};
use super::wal::{Content, WalHoldings, WalItem};
use crate::error::{Code, Error, Result};
use crate::model::{BackupId, SegmentName, SystemId, TimelineId, Timestamp, WalFileName};
use crate::postgres::history::History;
use crate::repository::catalog::{Catalog, CatalogEntry};
use crate::repository::continuity::Hole;
use crate::repository::keys::wal::WalRoot;
use crate::repository::wal_listing::WalListing;
use crate::repository::wal_object::WalObjects;
use crate::repository::window::BackupPoint;

/// Between two looks at a hole that may still be filled.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// WAL objects on which an identity is tried before it is called the wrong one.
const TRIED: usize = 3;

impl Run<'_> {
    pub(super) async fn load_wal(&self) -> Result<Vec<WalHoldings>> {
        let mut all = Vec::new();
        for document in &self.survey.systems {
            let root = WalRoot::new(self.cx.cluster, document.system_identifier);
            let repository = self.cx.repository;
            let listing = WalListing::load(&repository.name, &*repository.storage, &root).await?;
            all.push(WalHoldings { root, document: document.clone(), listing });
        }
        Ok(all)
    }

    /// The listings once more, without what turned out to be wrong: what a restore could use now. A hole is looked at
    /// again for as long as it may still be filled.
    pub(super) async fn look_at_wal(&mut self) -> Result<()> {
        let cx = self.cx;
        if self.wal.is_empty() {
            return Ok(());
        }
        cx.phase("looking for holes in WAL");
        let began = tokio::time::Instant::now();
        let mut refreshed = false;
        // While a backlog is shipped there is a hole at its front at every look, and never the same one.
        let mut lasting: Option<Vec<Hole>> = None;
        loop {
            self.wal = self.load_wal().await?;
            let mut gaps: BTreeMap<SystemId, Gaps> = BTreeMap::new();
            let expected = Expected::of(self);
            for wal in &mut self.wal {
                let found = look_at(cx, wal, &expected, &self.wrong, &self.before).await?;
                gaps.insert(wal.root.system, found);
            }
            if !refreshed && gaps.values().any(|found| !found.is_clean()) {
                refreshed = true;
                self.refresh().await?;
                continue;
            }
            if let Some(lasting) = &lasting {
                let lasts = |gap: &Gap| lasting.iter().any(|hole| within(&gap.hole, hole));
                for found in gaps.values_mut() {
                    found.holes.retain(lasts);
                }
            }
            lasting = Some(gaps.values().flat_map(|g| g.holes.iter().map(|gap| gap.hole.clone())).collect());
            let missing =
                |g: &Gaps| !(g.holes.is_empty() && g.incomplete.is_empty() && g.histories.is_empty());
            let clean = !gaps.values().any(missing);
            self.gaps = gaps;
            let young = self.wal.iter().any(|wal| is_young(cx, &wal.listing, &self.gaps[&wal.root.system]));
            if clean || !young || began.elapsed() >= cx.patience {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN.min(cx.patience)) => {}
                () = cx.cancel.cancelled() => {
                    return Err(Error::new(Code::Cancelled, "the verification was ended"));
                }
            }
        }
    }
}

impl Run<'_> {
    /// Before WAL is missed: which base backups came, and which expire, since this began.
    async fn refresh(&mut self) -> Result<()> {
        let cx = self.cx;
        let catalog = Catalog::load(cx.repository, cx.cluster, cx.trust).await?;
        let newer = |entry: &CatalogEntry| {
            entry.is_trusted() && entry.record.base.is_some() && self.survey.by_id(&entry.record.id).is_none()
        };
        self.newer = catalog.backups.into_iter().filter(newer).collect();
        // After the catalog: of what is not in it any more, the marks are there.
        self.survey.leaving.refresh(cx).await
    }
}

/// The base backups that WAL is expected for.
struct Expected {
    /// Those that do not expire, with their system identifiers.
    points: Vec<(SystemId, BackupPoint)>,
    floor: Option<BackupId>,
}

impl Expected {
    fn of(run: &Run<'_>) -> Self {
        let leaving = &run.survey.leaving;
        let kept = || run.survey.kept().chain(run.newer.iter().filter(|e| !leaving.has(&e.record.id)));
        let point = |entry: &CatalogEntry| {
            let base = entry.record.base.as_ref()?;
            let point = BackupPoint {
                id: entry.record.id.clone(),
                timeline: base.timeline,
                start_lsn: base.start_lsn,
                stop_lsn: base.stop_lsn,
                stop_time: base.stop_time,
            };
            Some((entry.record.system_identifier, point))
        };
        let points: Vec<(SystemId, BackupPoint)> = kept().filter_map(point).collect();
        let floor = leaving.floor(run.expired(), points.iter().map(|(_, point)| &point.id));
        Self { points, floor }
    }
}

pub(super) type GapFinding = (Kind, String, Option<BackupId>, (String, String));

/// Whether a hole is what is left of another.
fn within(hole: &Hole, other: &Hole) -> bool {
    hole.first_missing.timeline == other.first_missing.timeline
        && hole.from >= other.from
        && other.to.is_none_or(|to| hole.from < to)
}

/// What a look at the whole found.
pub(super) fn of_gaps<'g>(gaps: &'g Gaps, root: &'g WalRoot) -> impl Iterator<Item = GapFinding> + 'g {
    let key = |segment: SegmentName| format!("{}{segment}", root.log_prefix(segment));
    let holes = gaps
        .holes
        .iter()
        .map(move |gap| (Kind::WalHole, key(gap.hole.first_missing), None, impact::of_gap(gap)));
    let incomplete = gaps.incomplete.iter().map(|i| {
        let id = i.backup.id.clone();
        (Kind::WalIncomplete, id.to_string(), Some(id), impact::of_incomplete(i))
    });
    let shorter =
        gaps.shorter.iter().map(move |s| (Kind::WalShorter, key(s.missing), None, impact::of_shorter(s)));
    let histories = gaps.histories.iter().map(move |timeline| {
        let (file, what) =
            (WalFileName::History(*timeline), "the history file is not there, and WAL of its timeline is");
        (Kind::Missing, root.file_prefix(file), None, (what.to_owned(), impact::of_history(*timeline)))
    });
    let forks = gaps.forks.iter().map(|fork| {
        let what = format!("it has {} contents: two servers archive into one place", fork.digests.len());
        let means = "a restore that needs it takes one of them, which may be the other server's".to_owned();
        (Kind::Conflict, format!("{}{}", root.prefix(), fork.file), None, (what, means))
    });
    holes.chain(incomplete).chain(shorter).chain(histories).chain(forks)
}

/// Tries the identities on a few objects, the newest first: where none opens, one finding says so for all.
pub(super) async fn wrong_identity(cx: &Cx<'_>, root: &WalRoot, items: &[WalItem]) -> Result<Option<Wrong>> {
    if cx.keys.data.is_none() || items.is_empty() {
        return Ok(None);
    }
    let objects = WalObjects::new(std::slice::from_ref(cx.repository), cx.keys.data.as_deref().cloned());
    let tries = [items.len() - 1, items.len() / 2, 0];
    for at in tries.into_iter().take(TRIED) {
        let (objects, copies) = (objects.clone(), items[at].copies.clone());
        let header = tokio::task::spawn_blocking(move || objects.header(&copies));
        match header.await.map_err(|e| Error::internal("a reader died").because(e))? {
            Err(e) if e.code() == Code::WrongKey => {}
            Err(e) if matches!(e.code(), Code::StoreUnavailable | Code::StoreDenied) => return Err(e),
            _ => return Ok(None),
        }
    }
    Ok(Some(Wrong {
        kind: Kind::WrongKey,
        key: root.prefix().to_owned(),
        about: About::System(root.system),
        what: "no identity here opens this WAL: it is encrypted to others".to_owned(),
    }))
}

async fn look_at(
    cx: &Cx<'_>,
    wal: &mut WalHoldings,
    expected: &Expected,
    wrong: &[Wrong],
    memory: &Memory,
) -> Result<Gaps> {
    let system = wal.root.system;
    let bad: Vec<Content> = wrong
        .iter()
        .filter_map(|wrong| match wrong.about {
            About::Wal(of, content) if of == system => Some(content),
            _ => None,
        })
        .collect();
    for content in &bad {
        content.forget(&mut wal.listing);
    }
    let histories = histories(cx, wal).await?;
    let of_system = expected.points.iter().filter(|(of, _)| *of == system);
    let points: Vec<BackupPoint> = of_system.map(|(_, point)| point.clone()).collect();
    let known = Known {
        system,
        listing: &wal.listing,
        size: wal.document.wal_segment_bytes,
        points: &points,
        floor: expected.floor.as_ref(),
        histories: &histories,
        bad: &bad,
        memory,
        now: cx.clock.now(),
    };
    if cx.scope.has_wal() {
        return Ok(known.all());
    }
    let chosen: Vec<BackupPoint> = points.iter().filter(|point| cx.scope.has(&point.id)).cloned().collect();
    Ok(known.own(&chosen))
}

/// Those that can be opened. One that cannot is told as an object.
async fn histories(cx: &Cx<'_>, wal: &WalHoldings) -> Result<BTreeMap<TimelineId, History>> {
    let objects = WalObjects::new(std::slice::from_ref(cx.repository), cx.keys.data.as_deref().cloned());
    let mut known = BTreeMap::new();
    for (timeline, contents) in wal.listing.histories() {
        for content in contents {
            match objects.bytes(&content.copies, content.digest).await {
                Ok((bytes, _)) => {
                    if let Ok(history) = History::parse(timeline, &bytes) {
                        known.insert(timeline, history);
                    }
                }
                Err(e) if matches!(e.code(), Code::StoreUnavailable | Code::StoreDenied) => return Err(e),
                Err(_) => {}
            }
        }
    }
    Ok(known)
}

/// Whether what is missing may still be on its way: something behind it came within the patience, by the store's clock.
fn is_young(cx: &Cx<'_>, listing: &WalListing, gaps: &Gaps) -> bool {
    let limit = cx.patience.max(Duration::from_secs(1)) * 10;
    let fresh = |at: Option<Timestamp>| at.is_none_or(|at| cx.clock.now().since(at) < limit);
    let newest = |segment: SegmentName| {
        let objects = listing.objects(WalFileName::Segment(segment));
        objects.iter().flat_map(|object| &object.copies).map(|copy| copy.modified).max().flatten()
    };
    // A new timeline's first segment may come before its history.
    !gaps.histories.is_empty()
        || gaps.holes.iter().any(|gap| gap.hole.next.is_none_or(|next| fresh(newest(next))))
}
