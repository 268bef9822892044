//! The copy: workers take files from one queue, largest first, and write packs, each into all repositories.
//!
//! One thread per worker does everything to a byte between the file and the store's queue; the runtime only moves
//! finished chunks. A worker goes on with the next pack while the last one becomes durable, one behind at most.
//! Memory per worker: one buffer, two packs' encoders and queues.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::file::{self, BUFFER};
use super::pages::Suspect;
use super::targets::Targets;
use crate::codec::Protection;
use crate::error::{Code, Error, Result};
use crate::model::{BackupId, ClusterName};
use crate::postgres::{EntryKind, ScanEntry};
use crate::repository::Repository;
use crate::repository::fanout::{FanOut, Finishing, PATIENCE};
use crate::repository::index::MemberName;
use crate::repository::keys::backup;
use crate::repository::manifest::ManifestFile;
use crate::repository::pack::{FinishedPack, PackWriter, PackedMember};
use crate::repository::record::ObjectEntry;
use crate::util::failpoint;
use crate::util::progress::Progress;

/// Where and how a backup's objects are written.
pub(super) struct Destination {
    pub(super) cluster: ClusterName,
    pub(super) id: BackupId,
    pub(super) targets: Arc<Targets>,
    pub(super) protection: Protection,
    pub(super) level: i32,
    pub(super) runtime: Handle,
}

impl Destination {
    /// Opens one object, by its key in the backup's directory, in every repository that still takes part.
    pub(super) fn open(&self, relative: &str) -> FanOut {
        let targets = self.targets.current();
        let targets: Vec<&Repository> = targets.iter().collect();
        let key = backup::object(&self.cluster, &self.id, relative);
        FanOut::begin_with(&targets, &key, &self.runtime, PATIENCE)
    }
}

/// A pack that is durable in every required repository.
pub(super) struct PackDone {
    /// From 1, as in its key.
    pub(super) number: u32,
    pub(super) entry: ObjectEntry,
    pub(super) members: Vec<PackedMember>,
}

/// What the copy brought.
#[derive(Default)]
pub(super) struct CopyResult {
    pub(super) files: Vec<ManifestFile>,
    pub(super) packs: Vec<PackDone>,
    pub(super) suspects: Vec<(MemberName, Vec<Suspect>)>,
    /// Files that PostgreSQL dropped between the listing and the reading.
    pub(super) vanished: u64,
}

pub(super) struct CopyJob {
    pub(super) destination: Arc<Destination>,
    pub(super) entries: Vec<ScanEntry>,
    pub(super) workers: usize,
    pub(super) checksums: bool,
    /// Ends the work early.
    pub(super) stop: CancellationToken,
    pub(super) progress: Arc<dyn Progress>,
}

/// What the workers share.
struct Shared<'j> {
    job: &'j CopyJob,
    queue: Mutex<VecDeque<&'j ScanEntry>>,
    packs: AtomicU32,
    first_pack_done: AtomicBool,
    failure: Mutex<Option<Error>>,
}

/// Copies everything but `pg_control`. Blocks; `workers` threads.
pub(super) fn run(job: &CopyJob) -> Result<CopyResult> {
    let mut order: Vec<&ScanEntry> =
        job.entries.iter().filter(|e| e.kind != EntryKind::ControlFile).collect();
    // Directories first, then the largest file first: the long ones overlap, the short ones fill up the end.
    order.sort_by_key(|e| (e.is_file(), std::cmp::Reverse(e.size)));
    let shared = Shared {
        job,
        queue: Mutex::new(order.into()),
        packs: AtomicU32::new(0),
        first_pack_done: AtomicBool::new(false),
        failure: Mutex::new(None),
    };
    let mut result = CopyResult::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..job.workers.max(1)).map(|_| scope.spawn(|| work(&shared))).collect();
        for thread in threads {
            match thread.join() {
                Ok(Some(part)) => result.merge(part),
                Ok(None) => {}
                Err(_) => shared.fail(Error::internal("a worker of the backup panicked")),
            }
        }
    });
    match shared.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(failure) => Err(failure),
        None => Ok(result),
    }
}

impl CopyResult {
    fn merge(&mut self, part: Self) {
        self.files.extend(part.files);
        self.packs.extend(part.packs);
        self.suspects.extend(part.suspects);
        self.vanished += part.vanished;
    }
}

impl<'j> Shared<'j> {
    fn next(&self) -> Option<&'j ScanEntry> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
    /// The first failure counts; the others end because of it.
    fn fail(&self, error: Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.job.stop.cancel();
    }
}

fn work(shared: &Shared<'_>) -> Option<CopyResult> {
    let mut worker = Worker { shared, result: CopyResult::default(), open: None, behind: None };
    match worker.run() {
        Ok(()) => Some(worker.result),
        Err(error) => {
            shared.fail(error);
            None
        }
    }
}

struct Worker<'s, 'j> {
    shared: &'s Shared<'j>,
    result: CopyResult,
    open: Option<(u32, PackWriter<FanOut>)>,
    behind: Option<Behind>,
}

/// A pack that is complete here and on its way to durability.
struct Behind {
    number: u32,
    key: String,
    pack: FinishedPack,
    finishing: Finishing,
}

impl Worker<'_, '_> {
    fn run(&mut self) -> Result<()> {
        let mut buffer = vec![0; BUFFER];
        while let Some(entry) = self.shared.next() {
            self.copy(entry, &mut buffer)?;
            if self.open.as_ref().is_some_and(|(_, pack)| pack.is_full()) {
                self.close()?;
            }
        }
        self.close()?;
        self.settle()
    }

    fn copy(&mut self, entry: &ScanEntry, buffer: &mut [u8]) -> Result<()> {
        let job = self.shared.job;
        let step = |bytes: u64| {
            job.progress.advance(bytes);
            if job.stop.is_cancelled() {
                Err(Error::new(Code::Cancelled, "the copy was stopped"))
            } else {
                Ok(())
            }
        };
        step(0)?;
        let (_, pack) = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(open_pack(self.shared)?),
        };
        if !entry.is_file() {
            return file::copy_directory(entry, pack);
        }
        match file::copy_file(entry, job.checksums, pack, buffer, &step)? {
            None => self.result.vanished += 1,
            Some(copied) => {
                if !copied.suspects.is_empty() {
                    self.result.suspects.push((copied.file.name.clone(), copied.suspects));
                }
                self.result.files.push(copied.file);
            }
        }
        Ok(())
    }

    /// Completes the open pack, once the one before it is durable.
    fn close(&mut self) -> Result<()> {
        let Some((number, pack)) = self.open.take() else { return Ok(()) };
        if pack.is_empty() {
            // Every file of it vanished before it was read: no object.
            return Ok(());
        }
        self.settle()?;
        let (fan, pack) = pack.finish()?;
        let key = backup::pack(number, self.shared.job.destination.protection.suffix());
        let finishing = fan.finish_in_background(&pack.sealed)?;
        self.behind = Some(Behind { number, key, pack, finishing });
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        let Some(Behind { number, key, pack, finishing }) = self.behind.take() else { return Ok(()) };
        self.shared.job.destination.targets.take(finishing.wait()?);
        let FinishedPack { sealed, members } = pack;
        let entry = ObjectEntry { key, bytes: sealed.stored_bytes, sha256: sealed.stored_sha256 };
        self.result.packs.push(PackDone { number, entry, members });
        if !self.shared.first_pack_done.swap(true, Ordering::Relaxed) {
            failpoint::reach("backup-after-first-pack")?;
        }
        Ok(())
    }
}

fn open_pack(shared: &Shared<'_>) -> Result<(u32, PackWriter<FanOut>)> {
    let destination = &shared.job.destination;
    let number = shared.packs.fetch_add(1, Ordering::Relaxed) + 1;
    let fan = destination.open(&backup::pack(number, destination.protection.suffix()));
    Ok((number, PackWriter::new(fan, &destination.protection, destination.level)?))
}
