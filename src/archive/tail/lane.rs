//! One set of repositories that the tail is shipped to: the required ones together, each optional one by itself, so that
//! nobody waits for it.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;

use super::Look;
use super::plan::{LONGEST, Range, Shipped};
use super::read::{self, Segment};
use crate::codec::Protection;
use crate::error::{Code, Error, Result};
use crate::model::{ClusterName, Digest, Lsn, SegmentName, SegmentSize, SystemId, WalFileName};
use crate::repository::Repository;
use crate::repository::continuity::head_chain;
use crate::repository::keys::wal::{WalObjectName, WalRoot};
use crate::repository::open::system;
use crate::repository::wal_listing::WalListing;
use crate::repository::wal_object::{Plain, Sealer, blocking, store};
use crate::util::failpoint;

/// One head. The next try is shorter, so that a slow store gets one through in the end.
const UPLOAD_WITHIN: Duration = Duration::from_secs(20);
const SHORTEST: u32 = 512 << 10;
/// A listing, or the entry of the system identifier.
const ASK_WITHIN: Duration = Duration::from_secs(20);
/// A finished segment that heads cover is asked for so rarely, in looks: nothing hangs on the answer.
const ASK_AGAIN: u64 = 40;
/// The segment that is being written may have been recycled since the look, but not every time.
const MISSES: u32 = 3;

/// Where the WAL is and how it is written down.
#[derive(Debug, Clone)]
pub struct Place {
    pub cluster: ClusterName,
    pub system: SystemId,
    pub size: SegmentSize,
    pub pg_wal: PathBuf,
    pub protection: Protection,
    /// zstd's level.
    pub level: i32,
}

/// How far one look has brought it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The end of what every repository of the lane holds without a gap.
    pub shipped_to: Lsn,
    /// All that was flushed at the look is there.
    pub current: bool,
    /// Bytes that the archiver must ship before the tail goes on.
    pub backlog: u64,
}

/// Since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub heads: u64,
    pub plain_bytes: u64,
    pub stored_bytes: u64,
}

/// Some repositories and what they hold.
pub struct Lane {
    place: Place,
    root: WalRoot,
    repositories: Vec<Repository>,
    /// The repositories list this system identifier.
    welcome: bool,
    shipped: Option<(u64, Shipped)>,
    piece: u32,
    looks: u64,
    misses: u32,
    pub counts: Counts,
}

/// The file of a segment has lost its name.
struct Gone;

impl Lane {
    pub fn new(place: Place, repositories: Vec<Repository>) -> Self {
        let root = WalRoot::new(&place.cluster, place.system);
        Self {
            place,
            root,
            repositories,
            welcome: false,
            shipped: None,
            piece: LONGEST,
            looks: 0,
            misses: 0,
            counts: Counts::default(),
        }
    }
    /// The end of what is there without a gap; none before the first look.
    pub fn shipped_to(&self) -> Option<Lsn> {
        self.shipped.as_ref().map(|(_, shipped)| shipped.end())
    }

    /// Ships what is due. After an error the next call goes on from what is known to be there.
    pub async fn follow(&mut self, look: &Look) -> Result<Progress> {
        self.greet().await?;
        self.looks += 1;
        let mut shipped = self.begun(look).await?;
        let done = self.ship(look, &mut shipped).await;
        let end = shipped.end();
        self.shipped = Some((look.session, shipped));
        let backlog = done?;
        Ok(Progress { shipped_to: end, current: end >= look.flush, backlog })
    }

    /// WAL of a system identifier that a repository does not list is refused.
    async fn greet(&mut self) -> Result<()> {
        if self.welcome {
            return Ok(());
        }
        let place = &self.place;
        let entries = self.repositories.iter().map(|r| system(r, &place.cluster, place.system));
        for document in within(ASK_WITHIN, "the system identifier's entry", try_join_all(entries)).await? {
            if document.wal_segment_bytes != place.size {
                let what = format!(
                    "the repository expects segments of {} bytes",
                    document.wal_segment_bytes.bytes()
                );
                return Err(Error::new(Code::WalMismatch, what).at(&place.cluster).hint(
                    "pg_resetwal --wal-segsize makes a new history of a cluster: give it another name and `pgkeep init`",
                ));
            }
        }
        self.welcome = true;
        Ok(())
    }

    /// What is known to be there; after a start, a promotion or a lost connection nothing is.
    async fn begun(&mut self, look: &Look) -> Result<Shipped> {
        if let Some((session, mut shipped)) = self.shipped.take()
            && session == look.session
            && shipped.timeline() == look.timeline
            && shipped.flush() <= look.flush
        {
            shipped.advance(look.flush);
            return Ok(shipped);
        }
        let current = SegmentName::containing(look.timeline, look.flush, self.place.size);
        let pg_wal = self.place.pg_wal.clone();
        let oldest = blocking(move || read::oldest_ready(&pg_wal, current)).await?;
        Ok(Shipped::begin(look.timeline, self.place.size, look.flush, oldest))
    }

    /// Bytes of backlog come back.
    async fn ship(&mut self, look: &Look, shipped: &mut Shipped) -> Result<u64> {
        if let Some(archived_to) = look.archived_to {
            shipped.archived(archived_to);
        }
        self.ask_for_finished(shipped).await?;
        for segment in shipped.unknown() {
            if self.adopt(shipped, segment).await?.is_err() {
                self.missed(shipped, segment)?;
            }
        }
        let due = shipped.due(self.piece);
        for range in due.ranges {
            let Ok(bytes) = self.read(range).await? else {
                self.missed(shipped, range.segment)?;
                // What comes after it is looked at anew.
                break;
            };
            self.upload(range, bytes).await?;
            shipped.shipped(range);
            self.misses = 0;
        }
        Ok(due.backlog)
    }

    /// What PostgreSQL no longer wants archived is archived, if the repositories say so too.
    async fn ask_for_finished(&self, shipped: &mut Shipped) -> Result<()> {
        for segment in shipped.finished() {
            let urgent = !shipped.is_covered(segment) || self.looks.is_multiple_of(ASK_AGAIN);
            if urgent && !read::is_ready(&self.place.pg_wal, segment) {
                let listings = self.list(segment).await?;
                if listings.iter().all(|listing| listing.has_segment(segment)) {
                    shipped.forget(segment);
                }
            }
        }
        Ok(())
    }

    async fn list(&self, segment: SegmentName) -> Result<Vec<WalListing>> {
        let file = WalFileName::Segment(segment);
        let lists =
            self.repositories.iter().map(|r| WalListing::load_file(&r.name, &*r.storage, &self.root, file));
        within(ASK_WITHIN, "a listing", try_join_all(lists)).await
    }

    /// Takes over the heads that all repositories of the lane hold, as far as they are of the local bytes.
    async fn adopt(
        &self,
        shipped: &mut Shipped,
        segment: SegmentName,
    ) -> Result<std::result::Result<(), Gone>> {
        let mut all = WalListing::default();
        self.list(segment).await?.into_iter().for_each(|listing| all.merge(listing));
        let everywhere = |copies: &[_]| self.repositories.iter().all(|r| holds(copies, r));
        let heads: Vec<_> = all.heads(segment).iter().filter(|h| everywhere(&h.copies)).cloned().collect();
        let (chain, flushed) = (head_chain(&heads), shipped.flushed_of(segment));
        let (pg_wal, size, system) = (self.place.pg_wal.clone(), self.place.size, self.place.system);
        let proved = blocking(move || match Segment::open(&pg_wal, segment, size, system)? {
            Some(file) => file.proved(&chain, flushed),
            None => Ok(None),
        });
        Ok(match proved.await? {
            Some(heads) => {
                shipped.adopt(segment, &heads);
                Ok(())
            }
            None => Err(Gone),
        })
    }

    /// A finished segment that is gone was recycled; the one that is being written was finished since the look.
    fn missed(&mut self, shipped: &mut Shipped, segment: SegmentName) -> Result<()> {
        if shipped.finished().contains(&segment) {
            tracing::debug!(%segment, "a finished segment left pg_wal before its tail was shipped");
            shipped.forget(segment);
            return Ok(());
        }
        self.misses += 1;
        if self.misses < MISSES {
            return Ok(());
        }
        let path = self.place.pg_wal.join(segment.to_string());
        Err(Error::new(Code::WalMismatch, "the server writes a segment that is not here")
            .at(path.display())
            .hint("`connection` must lead to the server of this host whose data directory this is"))
    }

    async fn read(&self, range: Range) -> Result<std::result::Result<Bytes, Gone>> {
        let (pg_wal, size, system) = (self.place.pg_wal.clone(), self.place.size, self.place.system);
        let read = blocking(move || match Segment::open(&pg_wal, range.segment, size, system)? {
            Some(file) => file.read(range.from, range.to),
            None => Ok(None),
        });
        Ok(read.await?.ok_or(Gone))
    }

    async fn upload(&mut self, range: Range, bytes: Bytes) -> Result<()> {
        let Range { segment, from, to, .. } = range;
        let plain_bytes = bytes.len() as u64;
        let digest = Digest::of(&bytes).short();
        let now = crate::util::clock::now();
        let sealer = Sealer::new(self.place.protection.clone(), self.place.level, now);
        let sealed = sealer.seal(bytes).await?;
        let stored_bytes = sealed.len() as u64;
        let name = WalObjectName::Head { segment, from, to, digest };
        let targets: Vec<&Repository> = self.repositories.iter().collect();
        let placing = store(&targets, &self.root, name, Plain::Sealed(sealed), &sealer, UPLOAD_WITHIN);
        let placed = within(UPLOAD_WITHIN, "the end of WAL", placing).await.inspect_err(|_| {
            self.piece = (self.piece / 2).max(SHORTEST);
        })?;
        for (repository, placed) in placed {
            placed.map_err(|e| e.while_doing(format!("the end of WAL is not in repository {repository}")))?;
        }
        failpoint::reach("tail-after-upload")?;
        self.piece = self.piece.saturating_mul(2).min(LONGEST);
        self.counts.heads += 1;
        self.counts.plain_bytes += plain_bytes;
        self.counts.stored_bytes += stored_bytes;
        Ok(())
    }
}

fn holds(copies: &[crate::repository::wal_listing::StoredCopy], repository: &Repository) -> bool {
    copies.iter().any(|copy| copy.repo == repository.name)
}

async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let span = humantime::format_duration(limit);
        Err(Error::new(Code::StoreUnavailable, format!("{what}: the store did not answer within {span}"))
            .hint("look at the network and at the store; it is tried again every few seconds"))
    })
}
