//! What [`push`](super::push) does for one file, for a process that stays: repositories kept open, several files at
//! once, listings shared.
//!
//! Promises kept here are those of a push: success only when every required repository has confirmed the file durable,
//! with the right length and digest (1); a damaged segment is shipped with its mark (11); nothing is overwritten (4).
//!
//! Order for each file: look (a listing shared with the files that wait at the same time) → a place among the workers
//! and in memory → read, check, digest, seal, in one pass → decision → mark → upload → a second look, again shared, begun
//! after the upload: it confirms the length and finds a writer who was as fast with other content.
//!
//! Bounds: as many files are read and sealed at once as [`ArchiveConfig::workers`](crate::config::ArchiveConfig) says, and
//! no more than [`MEMORY_MIB`] of those that are sealed or sent are held; a file longer than [`KEEP`] is streamed from where
//! it stands. From its place among the workers on, a file has the deadline of a push. An optional repository gets the grace after the required ones; one that was left behind is not waited for
//! again before [`SPARED`] has passed.
//!
//! Cancellation: a dropped future leaves whole objects or none.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::try_join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::push::file::{self, Content, Fingerprint, Keep, LocalFile};
use super::push::lane::{self, Cargo, Goal, Looked};
use super::push::{Presence, presence, too_slow};
use crate::codec::{Identities, Protection};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::{
    ClusterName, Digest, Lsn, SegmentName, SegmentSize, SystemId, TimelineId, Timestamp, WalFileName,
};
use crate::repository::configured;
use crate::repository::keys::wal::WalRoot;
use crate::repository::wal_listing::WalListing;
use crate::repository::wal_object::{Placed, Sealer, blocking};
use crate::repository::{Repositories, Repository};
use crate::util::buffers::Buffers;
use crate::util::failpoint;

mod along;
mod look;
mod stream;

use along::Along;
use look::Lister;

/// Of what is sealed and what is read.
const MEMORY_MIB: u32 = 96;
/// A longer file is read twice instead of being held.
const KEEP: u64 = 32 << 20;
/// What streaming a long file takes.
const STREAM_MIB: u32 = 32;
/// How long the first look waits for those that were told to go at the same time.
const GATHER: Duration = Duration::from_millis(2);
/// How long the second look waits for others that are about to need one too.
const JOIN: Duration = Duration::from_millis(120);

/// Files of one cluster into the repositories of one generation.
pub struct Shipper {
    cluster: ClusterName,
    system: SystemId,
    size: SegmentSize,
    root: WalRoot,
    state_directory: std::path::PathBuf,
    required: Vec<Target>,
    optional: Vec<Arc<Along>>,
    protection: Protection,
    level: i32,
    /// Only for the name of a host in a message.
    identities: Option<Identities>,
    deadline: Duration,
    grace: Duration,
    workers: Semaphore,
    memory: Arc<Semaphore>,
    /// What segments are sealed into.
    sealed: Buffers,
    /// Files that are being sealed or sent: they will need a second look soon.
    under_way: AtomicUsize,
}

struct Target {
    repository: Repository,
    lister: Lister,
}

impl Target {
    fn new(repository: &Repository, root: &WalRoot) -> Self {
        Self { repository: repository.clone(), lister: Lister::new(root.clone()) }
    }
}

/// A file that is durable in every required repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shipped {
    pub name: WalFileName,
    pub digest: Digest,
    /// Of the file before and after it was read.
    pub fingerprint: Fingerprint,
    /// False: it was there before.
    pub shipped: bool,
    pub plain_bytes: u64,
    /// Written now, in all required repositories together.
    pub stored_bytes: u64,
    /// Where its records end to be readable, and why.
    pub damage: Option<(Lsn, String)>,
    /// A repository holds other content under this name besides.
    pub contested: bool,
    /// What somebody should look at.
    pub warnings: Vec<String>,
}

impl Shipper {
    /// Makes sure that each repository expects this cluster. All required ones must have been opened; optional ones that
    /// were not are left out.
    pub async fn open(
        config: &Config,
        cluster: &ClusterName,
        system: SystemId,
        size: SegmentSize,
        repositories: &Repositories,
    ) -> Result<Self> {
        if let Some((name, _, error)) = repositories.unavailable().iter().find(|(_, required, _)| *required) {
            return Err(error
                .again()
                .while_doing(format!("the required repository {name} is not available")));
        }
        let protection = configured::protection(config)?;
        let root = WalRoot::new(cluster, system);
        let (required, optional): (Vec<_>, Vec<_>) =
            repositories.available().iter().partition(|repository| repository.required);
        let deadline = config.archive.push_deadline;
        let expected = required.iter().map(|r| lane::expects(r, cluster, system, size));
        timeout(deadline, try_join_all(expected)).await.unwrap_or_else(|_| Err(too_slow(deadline)))?;
        let along = |r: &Repository| Arc::new(Along::new(Target::new(r, &root)));
        Ok(Self {
            cluster: cluster.clone(),
            system,
            size,
            state_directory: config.state_directory.clone(),
            required: required.into_iter().map(|r| Target::new(r, &root)).collect(),
            optional: optional.into_iter().map(along).collect(),
            root,
            protection,
            level: config.archive.compression,
            identities: configured::identities(config).ok().flatten(),
            deadline,
            grace: config.archive.optional_grace,
            workers: Semaphore::new(config.archive.workers),
            memory: Arc::new(Semaphore::new(MEMORY_MIB as usize)),
            sealed: Buffers::default(),
            under_way: AtomicUsize::new(0),
        })
    }

    pub fn system(&self) -> SystemId {
        self.system
    }
    pub fn segment_size(&self) -> SegmentSize {
        self.size
    }
    /// Which repositories stand behind an answer: names and ids of the required ones.
    pub fn holders(&self) -> String {
        let ids = self.required.iter().map(|t| format!("{}={}", t.repository.name, t.repository.id));
        ids.collect::<Vec<_>>().join(" ")
    }

    /// Those of these segments that a required repository lacks, in their order.
    pub async fn absent(&self, segments: &[SegmentName]) -> Result<Vec<SegmentName>> {
        self.in_time(self.listed_as_absent(segments)).await
    }

    async fn listed_as_absent(&self, segments: &[SegmentName]) -> Result<Vec<SegmentName>> {
        let mut firsts: BTreeMap<TimelineId, SegmentName> = BTreeMap::new();
        for segment in segments {
            let first = firsts.entry(segment.timeline).or_insert(*segment);
            *first = (*first).min(*segment);
        }
        let mut absent: BTreeSet<SegmentName> = BTreeSet::new();
        for repository in self.required.iter().map(|target| &target.repository) {
            let mut listing = WalListing::default();
            for (timeline, first) in &firsts {
                let from = self.root.file_prefix(WalFileName::Segment(*first));
                let prefix = self.root.timeline_prefix(*timeline);
                for info in repository.storage.list(&prefix, Some(&from)).await? {
                    listing.add(&repository.name, &self.root, info);
                }
            }
            absent.extend(segments.iter().filter(|segment| !listing.has_segment(**segment)));
        }
        Ok(absent.into_iter().collect())
    }

    /// Only reads and digests: for a file whose digest may be known.
    pub async fn digest(&self, path: &Path) -> Result<(Digest, Fingerprint)> {
        let _place = self.place().await?;
        let local = self.read(path, Keep::Nothing).await?;
        Ok((local.digest, local.fingerprint))
    }

    async fn read(&self, path: &Path, keep: Keep) -> Result<LocalFile> {
        let (path, size, system) = (path.to_path_buf(), self.size, self.system);
        blocking(move || file::read(&path, size, system, &keep)).await
    }

    /// Archives one file. `now` goes into its header.
    pub async fn ship(&self, path: &Path, now: Timestamp) -> Result<Shipped> {
        let name = file::name_of(path)?;
        let goal = self.goal(name);
        let looked = self.in_time(self.look(name)).await?;
        let place = self.place().await?;
        self.in_time(self.read_and_send(path, goal, looked, place, now)).await
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        timeout(self.deadline, work).await.unwrap_or_else(|_| Err(too_slow(self.deadline)))
    }

    fn goal(&self, name: WalFileName) -> Goal {
        Goal {
            cluster: self.cluster.clone(),
            root: self.root.clone(),
            system: self.system,
            name,
            size: self.size,
            state_directory: self.state_directory.clone(),
            patience: self.deadline,
        }
    }

    async fn look(&self, name: WalFileName) -> Result<Vec<Looked>> {
        let looks = self.required.iter().map(|target| target.look(name, tokio::time::sleep(GATHER)));
        try_join_all(looks).await
    }

    /// A place among the workers, and room for the file.
    async fn place(&self) -> Result<Place<'_>> {
        let closed = |e| Error::internal("the shipper's limits were closed").because(e);
        let worker = self.workers.acquire().await.map_err(closed)?;
        let mib = match self.size.bytes() {
            long if long > KEEP => STREAM_MIB,
            // Sealed, with what it is read through.
            short => u32::try_from(short >> 20).unwrap_or(MEMORY_MIB) + 1,
        };
        let memory =
            self.memory.clone().acquire_many_owned(mib.clamp(1, MEMORY_MIB)).await.map_err(closed)?;
        Ok(Place { worker, memory, _count: Count::one(&self.under_way) })
    }

    async fn read_and_send(
        &self,
        path: &Path,
        goal: Goal,
        looked: Vec<Looked>,
        place: Place<'_>,
        now: Timestamp,
    ) -> Result<Shipped> {
        let sealer = Sealer::new(self.protection.clone(), self.level, now).into_buffers(self.sealed.clone());
        // What is there already will most likely turn out to be this very file.
        let missing = looked.iter().any(|l| l.listing.objects(goal.name).is_empty());
        let sealed = Keep::Sealed(KEEP, sealer.clone());
        let mut local = self.read(path, if missing { sealed.clone() } else { Keep::Nothing }).await?;
        let mut done = Shipped {
            name: local.name,
            digest: local.digest,
            fingerprint: local.fingerprint,
            shipped: false,
            plain_bytes: local.bytes,
            stored_bytes: 0,
            damage: local.damage.clone(),
            contested: false,
            warnings: Vec::new(),
        };
        let lacking = self.lacking(&looked, &local, &goal, &sealer.header.host, &mut done).await?;
        if lacking.is_empty() {
            return Ok(done);
        }
        done.shipped = true;
        if !missing && local.bytes <= KEEP {
            let again = self.read(path, sealed).await?;
            if (again.digest, again.fingerprint) != (local.digest, local.fingerprint) {
                return Err(file::changed(path));
            }
            local = again;
        }
        failpoint::reach("ship-before-upload")?;
        match &local.content {
            Content::Memory(_) | Content::Sealed(_) => {
                self.write(&lacking, local, goal, sealer, place, &mut done).await?;
            }
            Content::Disk(_) => self.stream(&lacking, &local, &goal, sealer, &mut done).await?,
        }
        failpoint::reach("ship-before-answer")?;
        Ok(done)
    }

    /// The required repositories that do not have the file.
    async fn lacking<'a>(
        &self,
        looked: &'a [Looked],
        local: &LocalFile,
        goal: &Goal,
        host: &str,
        done: &mut Shipped,
    ) -> Result<Vec<&'a Looked>> {
        let mut lacking = Vec::new();
        for looked in looked {
            match presence(&looked.listing, local.name, local.digest.short(), local.damage.is_some()) {
                Presence::Absent => lacking.push(looked),
                Presence::Present { others } => done.contest(lane::others_warning(looked, &others)),
                Presence::Conflict { others } => {
                    return Err(lane::conflict(looked, goal, &others, self.identities.clone(), host).await);
                }
            }
        }
        Ok(lacking)
    }

    /// Sealed once, sent to all, looked at again.
    async fn write(
        &self,
        lacking: &[&Looked],
        local: LocalFile,
        goal: Goal,
        sealer: Sealer,
        place: Place<'_>,
        done: &mut Shipped,
    ) -> Result<()> {
        let cargo = Arc::new(Cargo::of(&local, sealer).await?);
        drop(local);
        let goal = Arc::new(goal);
        let Place { worker, mut memory, _count: count } = place;
        // The next file is sealed while this one is sent.
        drop(worker);
        let held = cargo.sealed.as_ref().map_or(0, |sealed| sealed.len() >> 20) + 1;
        drop(memory.split(memory.num_permits().saturating_sub(held)));
        let along: Vec<_> = self.optional.iter().map(|a| (a, a.go(&goal, &cargo))).collect();
        let sent = try_join_all(lacking.iter().map(|l| lane::place(l, &goal, &cargo))).await?;
        drop(count);
        failpoint::reach("ship-after-upload")?;
        let confirms = lacking.iter().zip(&sent).map(|(looked, (placed, _))| {
            let (goal, cargo) = (&goal, &cargo);
            async move {
                let target = self.target(looked)?;
                let now = target.look(goal.name, self.others()).await?;
                lane::confirm_in(&now.listing, looked, goal, cargo, *placed).await
            }
        });
        for warnings in try_join_all(confirms).await? {
            done.contest(warnings);
        }
        for (placed, warnings) in sent {
            done.count(placed);
            done.warnings.extend(warnings);
        }
        done.warnings.extend(along::wait(along, self.grace).await);
        Ok(())
    }

    fn target(&self, looked: &Looked) -> Result<&Target> {
        let name = &looked.repository.name;
        let found = self.required.iter().find(|t| t.repository.name == *name);
        found.ok_or_else(|| Error::internal("a repository that was never opened"))
    }

    /// Waits a little for files that will need a second look soon, if there are any.
    async fn others(&self) {
        if self.under_way.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(JOIN).await;
        }
    }
}

impl Target {
    async fn look(&self, name: WalFileName, rest: impl Future<Output = ()>) -> Result<Looked> {
        let listing = self.lister.look(&self.repository, name, rest).await?;
        Ok(Looked { repository: self.repository.clone(), listing })
    }
}

impl Shipped {
    /// Warnings about other contents of this name.
    fn contest(&mut self, warnings: Vec<String>) {
        self.contested |= !warnings.is_empty();
        self.warnings.extend(warnings);
    }
    fn count(&mut self, placed: Placed) {
        if let Placed::Written(stored) = placed {
            self.stored_bytes += stored.bytes;
        }
    }
}

struct Place<'a> {
    worker: SemaphorePermit<'a>,
    memory: OwnedSemaphorePermit,
    _count: Count<'a>,
}

struct Count<'a>(&'a AtomicUsize);

impl<'a> Count<'a> {
    fn one(of: &'a AtomicUsize) -> Self {
        of.fetch_add(1, Ordering::Relaxed);
        Self(of)
    }
}
impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
