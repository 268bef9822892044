//! Segments received before a standby asks for them: the agent's side of `wal fetch` where there is no plan.
//!
//! Promise kept here (2): only a file that is there is ever told of. Whatever is not certain (a segment that is missing,
//! marked damaged, there in several contents, or only begun) is left to `wal fetch` itself, whose proofs it needs.
//!
//! Order: the rest of the log directory (4 GiB of WAL) is listed once, from the segment that is asked for on, and again
//! after [`FRESH`] or when that segment is not among it → the segment and the next ones are received, their digests
//! proved → the asker hears the file's [`Fingerprint`] and moves the file away, if it still is that file and its first
//! page says what its name says ([`Spooled::take_over`]).
//!
//! The spool holds only what this process received: it is emptied at the beginning and removed at the end. It never lies
//! in `pg_wal`. Bounds: the look-ahead, one listing, a deadline for each file. Dropping [`Ahead`] ends all downloads.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::prefetch::{Prefetch, Supply};
use super::push::Fingerprint;
use super::source::Source;
use super::spool::{self, Incoming};
use crate::error::{Code, Error, Result};
use crate::model::{SegmentName, SegmentSize, ShortDigest, SystemId, WalFileName};
use crate::repository::wal_listing::{WalListing, WalObject};
use crate::repository::wal_object::Sink;
use crate::util::durable;
use crate::wal::page::{LONG_HEADER, PageHeader};

/// How the names of spools begin, so that nothing else is ever taken for one and removed; in a data directory, the name.
pub const DIRECTORY: &str = "pgkeep.prefetch";

/// A listing is used for so long: what was stored since (another content of a name, a mark of damage) is then seen.
const FRESH: Duration = Duration::from_secs(30);
/// A store that does not list within this is silent.
const LISTING: Duration = Duration::from_secs(5);
/// However small the segments are.
const MOST_AHEAD: u64 = 64;

/// What is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub system: SystemId,
    pub size: SegmentSize,
    pub data_directory: PathBuf,
    /// Emptied, and removed at the end.
    pub spool: PathBuf,
    /// Bytes that the spool may hold, besides the segment that is asked for.
    pub spool_bytes: u64,
    /// For one file.
    pub deadline: Duration,
}

/// A file in the spool, whose content was proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spooled {
    pub path: PathBuf,
    pub fingerprint: Fingerprint,
}

/// The prefetcher of one standby.
pub struct Ahead {
    settings: Settings,
    archive: Arc<Archive>,
    prefetch: Prefetch<Archive>,
    /// What was told last: gone from the spool, unless the asker died.
    told: Mutex<Option<SegmentName>>,
}

struct Archive {
    source: Source,
    size: SegmentSize,
    mode: u32,
    listed: RwLock<Option<Listed>>,
    received_bytes: Arc<AtomicU64>,
}

struct Listed {
    at: Instant,
    listing: WalListing,
}

impl Ahead {
    /// Empties the spool. Blocks. Must be called inside a runtime.
    pub fn begin(settings: Settings, source: Source) -> Result<Self> {
        durable::make_dirs(&settings.spool, 0o700)?;
        refuse_in_pg_wal(&settings)?;
        clear(&settings.spool)?;
        durable::make_dirs(&settings.spool, 0o700)?;
        let archive = Arc::new(Archive {
            source,
            size: settings.size,
            mode: spool::file_mode(&settings.data_directory),
            listed: RwLock::new(None),
            received_bytes: Arc::default(),
        });
        let ahead = (settings.spool_bytes / settings.size.bytes()).clamp(1, MOST_AHEAD);
        let look_ahead = usize::try_from(ahead).unwrap_or(1);
        let prefetch = Prefetch::new(archive.clone(), settings.spool.clone(), look_ahead, settings.deadline);
        Ok(Self { settings, archive, prefetch, told: Mutex::new(None) })
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }
    /// Grows while something arrives from a store.
    pub fn received_bytes(&self) -> u64 {
        self.archive.received_bytes.load(Ordering::Relaxed)
    }

    /// The segment in the spool, once it is there; None where that is for `wal fetch` to decide.
    pub async fn get(&self, segment: SegmentName) -> Result<Option<Spooled>> {
        if let Some(left) = self.told.lock().await.take().filter(|left| *left != segment) {
            let _ = durable::remove_file(&self.settings.spool.join(left.to_string()));
        }
        if !segment.fits(self.settings.size) {
            return Ok(None);
        }
        if !self.archive.knows(segment)
            && let Err(error) = self.archive.list_from(segment).await
        {
            // What was listed before is still true of what was received: names keep their contents.
            if self.archive.only(segment).is_none() {
                return Err(error);
            }
            tracing::debug!(%segment, %error, "an older listing goes on");
        }
        if self.archive.only(segment).is_none() {
            return Ok(None);
        }
        let (digest, spooled) = self.prefetch.get(WalFileName::Segment(segment)).await?;
        *self.told.lock().await = Some(segment);
        // It was received before the last listing: what that says counts.
        let current = self.archive.only(segment).is_some_and(|object| object.digest == digest);
        Ok(current.then_some(spooled))
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // A leftover is harmless: nobody tells of it, and the next one empties the spool.
        let _ = clear(&self.settings.spool);
    }
}

/// Removes a spool with all that is in it.
pub fn clear(spool: &Path) -> Result<()> {
    match std::fs::remove_dir_all(spool) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("cannot remove the spool of prefetched segments", spool, e)),
    }
}

/// PostgreSQL removes and recycles what it finds there.
fn refuse_in_pg_wal(settings: &Settings) -> Result<()> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if real(&settings.spool).starts_with(real(&settings.data_directory.join("pg_wal"))) {
        return Err(Error::new(Code::Refused, "the spool of prefetched segments lies in pg_wal")
            .at(settings.spool.display())
            .hint("set `directory` under [prefetch] to a directory beside it"));
    }
    Ok(())
}

impl Archive {
    fn read<T>(&self, look: impl FnOnce(&Listed) -> T) -> Option<T> {
        self.listed.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(look)
    }
    /// The segment is in a listing that is not old.
    fn knows(&self, segment: SegmentName) -> bool {
        self.only(segment).is_some() && self.read(|listed| listed.at.elapsed() < FRESH).unwrap_or(false)
    }
    /// The one content of a segment, if nothing is to be decided about it.
    fn only(&self, segment: SegmentName) -> Option<WalObject> {
        self.read(|listed| {
            let [only] = listed.listing.objects(WalFileName::Segment(segment)) else { return None };
            (!only.damaged).then(|| only.clone())
        })
        .flatten()
    }
    async fn list_from(&self, segment: SegmentName) -> Result<()> {
        let at = Instant::now();
        let found = tokio::time::timeout(LISTING, self.source.find_from(segment)).await.map_err(|_| {
            let span = humantime::format_duration(LISTING);
            Error::new(Code::StoreUnavailable, format!("the store did not list WAL within {span}"))
        })?;
        let there = !found.listing.objects(WalFileName::Segment(segment)).is_empty();
        if let (false, Some((name, error))) = (there, found.silent.into_iter().next()) {
            return Err(error.while_doing(format!("the required repository {name} does not answer")));
        }
        let listed = Some(Listed { at, listing: found.listing });
        *self.listed.write().unwrap_or_else(PoisonError::into_inner) = listed;
        Ok(())
    }
}

#[async_trait]
impl Supply for Archive {
    type Got = (ShortDigest, Spooled);

    fn following(&self, segment: SegmentName) -> Option<SegmentName> {
        let next = segment.next(self.size);
        self.only(next).map(|_| next)
    }

    async fn receive(&self, file: WalFileName, destination: PathBuf) -> Result<Self::Got> {
        let object = match file {
            WalFileName::Segment(segment) => self.only(segment),
            _ => None,
        };
        let object = object.ok_or_else(|| Error::internal("a file that was not listed is prefetched"))?;
        let (digest, length, mode) = (object.digest, self.size.bytes(), self.mode);
        let (total, place) = (self.received_bytes.clone(), destination.clone());
        let copies = object.copies.clone();
        let incoming = self.source.with(&copies, move |objects| {
            let mut sink = Counted { incoming: Incoming::create(&place, mode)?, total };
            let read = objects.read_into(&object.copies, digest, &mut sink)?;
            if read.bytes == length {
                return Ok(sink.incoming);
            }
            Err(Error::new(Code::Damaged, format!("the archived file has {} bytes", read.bytes))
                .hint("it is no segment of this cluster's size"))
        });
        incoming.await?.hand_over()?;
        let meta = std::fs::symlink_metadata(&destination)
            .map_err(|e| Error::io("cannot look at the prefetched file", &destination, e))?;
        Ok((digest, Spooled { path: destination, fingerprint: Fingerprint::of(&meta) }))
    }
}

/// Counts what arrives.
struct Counted {
    incoming: Incoming,
    total: Arc<AtomicU64>,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.incoming.write(bytes)?;
        self.total.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.incoming.flush()
    }
}

impl Sink for Counted {
    fn restart(&mut self) -> io::Result<()> {
        self.incoming.restart()
    }
}

impl Spooled {
    /// Moves the file to where PostgreSQL wants it. False when it is not, or no longer, the file that was told of: the
    /// asker works by itself then, and meets what is wrong with the disk, if anything is. Blocks.
    pub fn take_over(
        &self,
        segment: SegmentName,
        size: SegmentSize,
        system: SystemId,
        destination: &Path,
        mode: u32,
    ) -> bool {
        let taken = self.look(segment, size, system).and_then(|()| {
            let moved = spool::take_over(&self.path, destination, mode);
            moved.map_err(|e| e.to_string())
        });
        if let Err(why) = &taken {
            tracing::warn!(%segment, file = %self.path.display(), why, "a prefetched file is not taken");
        }
        taken.is_ok()
    }

    fn look(&self, segment: SegmentName, size: SegmentSize, system: SystemId) -> Result<(), String> {
        let failed = |e: io::Error| e.to_string();
        let plain = nix::libc::O_NOFOLLOW;
        let mut file = File::options().read(true).custom_flags(plain).open(&self.path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        if !meta.is_file() || Fingerprint::of(&meta) != self.fingerprint || meta.len() != size.bytes() {
            return Err("it is another file than the agent has received".to_owned());
        }
        let mut page = [0; LONG_HEADER];
        file.read_exact(&mut page).map_err(failed)?;
        let header = PageHeader::parse(&page).filter(|header| header.address == segment.start(size));
        let identity = header.and_then(|header| header.identity);
        if identity.is_some_and(|i| i.system == system && u64::from(i.segment_bytes) == size.bytes()) {
            Ok(())
        } else {
            Err("its first page is not that of this segment".to_owned())
        }
    }
}

#[cfg(test)]
mod tests;
