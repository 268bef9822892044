//! Fetches the packs of a backup in parallel and lays their members out.
//!
//! Every pack is read to its authenticated end: age and zstd prove the bytes, the tar header the length. `pg_control` is
//! kept under another name until everything else is durable (PostgreSQL does not start without it), `tablespace_map` is
//! written by the plan. A pack that fails is read again, from another repository that has the backup if there is one.
//!
//! Cancellation: a worker ends at its next member; what it wrote is a leftover of an unfinished restore.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::StreamExt;
use tokio::runtime::Handle;

use super::part::{Lay, Part};
use crate::codec::Identities;
use crate::error::{Code, Error, Result};
use crate::model::ClusterName;
use crate::postgres::control_file;
use crate::repository::Repository;
use crate::repository::keys::backup;
use crate::repository::pack_read::{ReadHead, each_member, open_pack};
use crate::repository::record::{BackupRecord, ObjectEntry};
use crate::repository::replaced;
use crate::util::failpoint;
use crate::util::progress::Progress;

/// `pg_control` until the end.
pub const CONTROL_LATER: &str = "global/pg_control.pgkeep";
const TABLESPACE_MAP: &[u8] = b"tablespace_map";
const PIECE: usize = 256 << 10;
/// How often a pack is begun anew, besides the store's own retries.
const TRIES: usize = 2;

/// What is fetched, from where, to where.
pub struct Fetch {
    pub cluster: ClusterName,
    pub record: BackupRecord,
    /// In the order in which they are tried; each holds the backup.
    pub repositories: Vec<Repository>,
    pub identities: Option<Identities>,
    pub data_directory: PathBuf,
    pub workers: usize,
    /// Where not everything is laid out.
    pub part: Option<PartFetch>,
    pub progress: Arc<dyn Progress>,
}

/// What of a backup is laid out.
pub struct PartFetch {
    pub part: Part,
    /// The packs that have something of it.
    pub packs: BTreeSet<String>,
    /// Files that get their length alone, and that.
    pub hollow: Vec<(Vec<u8>, u64)>,
}

/// What was laid out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Laid {
    pub files: u64,
    pub bytes: u64,
}

struct Shared {
    fetch: Fetch,
    stop: AtomicBool,
    files: AtomicU64,
    bytes: AtomicU64,
    control: AtomicBool,
}

/// The packs that are read; keys are relative to the backup's directory.
fn packs(fetch: &Fetch) -> Vec<ObjectEntry> {
    let wanted = |o: &&ObjectEntry| fetch.part.as_ref().is_none_or(|part| part.packs.contains(&o.key));
    fetch.record.objects.iter().filter(|o| backup::is_pack(&o.key)).filter(wanted).cloned().collect()
}

pub async fn run(fetch: Fetch) -> Result<Laid> {
    let packs = packs(&fetch);
    let workers = fetch.workers.max(1);
    fetch.progress.total(fetch.part.as_ref().map_or(fetch.record.bytes_raw, |part| part.part.bytes));
    let shared = Arc::new(Shared {
        fetch,
        stop: AtomicBool::new(false),
        files: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        control: AtomicBool::new(false),
    });
    let guard = StopOnDrop(Arc::clone(&shared));
    let runtime = Handle::current();
    let jobs = packs.into_iter().map(|pack| {
        let (shared, runtime) = (Arc::clone(&shared), runtime.clone());
        async move {
            tokio::task::spawn_blocking(move || shared.one_pack(&runtime, &pack))
                .await
                .map_err(|e| Error::internal("a restore worker died").because(e))?
        }
    });
    let mut running = futures::stream::iter(jobs).buffer_unordered(workers);
    while let Some(done) = running.next().await {
        done?;
        failpoint::reach("restore-after-first-pack")?;
    }
    if !shared.control.load(Ordering::Acquire) {
        return Err(Error::new(Code::Damaged, "the backup holds no pg_control").at(&shared.fetch.record.id));
    }
    let making = Arc::clone(&shared);
    tokio::task::spawn_blocking(move || making.hollow())
        .await
        .map_err(|e| Error::internal("a restore worker died").because(e))??;
    drop(guard);
    Ok(Laid { files: shared.files.load(Ordering::Acquire), bytes: shared.bytes.load(Ordering::Acquire) })
}

/// Ends the workers when the restore is cancelled or one of them fails.
struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Release);
    }
}

impl Shared {
    fn one_pack(&self, runtime: &Handle, pack: &ObjectEntry) -> Result<()> {
        let fetch = &self.fetch;
        let key = backup::object(&fetch.cluster, &fetch.record.id, &pack.key);
        let mut failed = None;
        for repository in fetch.repositories.iter().cycle().take(fetch.repositories.len() * TRIES) {
            let key = replaced::place_on(runtime, repository, &key, pack.sha256);
            let tried = open_pack(runtime, repository, &key, fetch.identities.as_ref()).and_then(|plain| {
                each_member(plain, &repository.place(&key), |head, body| self.member(head, body))
            });
            match tried {
                Ok(()) => return Ok(()),
                Err(e) if !another_try_helps(&e) => return Err(e),
                Err(e) => failed = Some(e),
            }
        }
        Err(failed.unwrap_or_else(|| Error::internal("a backup without a repository")))
    }

    fn member(&self, head: &ReadHead, body: &mut dyn Read) -> Result<()> {
        if self.stop.load(Ordering::Acquire) {
            return Err(ended());
        }
        let lay = self.fetch.part.as_ref().map_or(Lay::Out, |part| part.part.lay(&head.name));
        if head.name == TABLESPACE_MAP || lay != Lay::Out {
            return Ok(());
        }
        let name = if head.name == control_file::RELATIVE_PATH.as_bytes() {
            self.control.store(true, Ordering::Release);
            CONTROL_LATER.as_bytes()
        } else {
            &head.name
        };
        let path = self.fetch.data_directory.join(OsStr::from_bytes(name));
        match head.kind {
            crate::repository::pack::MemberKind::Directory => directory(&path, head.mode),
            crate::repository::pack::MemberKind::File => {
                let written = self.file(&path, head, body)?;
                self.files.fetch_add(1, Ordering::AcqRel);
                self.bytes.fetch_add(written, Ordering::AcqRel);
                Ok(())
            }
        }
    }

    /// Once the directories of all packs are there, with their modes. PostgreSQL does not mind the files' own.
    fn hollow(&self) -> Result<()> {
        let hollow = self.fetch.part.iter().flat_map(|part| &part.hollow);
        for (name, bytes) in hollow {
            if self.stop.load(Ordering::Acquire) {
                return Err(ended());
            }
            let path = self.fetch.data_directory.join(OsStr::from_bytes(name));
            let made = create(&path).and_then(|file| file.set_len(*bytes));
            made.map_err(|e| Error::io("cannot make the file of a database that is left out", &path, e))?;
        }
        Ok(())
    }

    fn file(&self, path: &Path, head: &ReadHead, body: &mut dyn Read) -> Result<u64> {
        let failed = |e| Error::io("cannot write the restored file", path, e);
        let mut file = create(path).map_err(failed)?;
        let mut piece = vec![0; PIECE.min(usize::try_from(head.size).unwrap_or(PIECE)).max(1)];
        let mut written = 0;
        loop {
            let n = match body.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(crate::codec::from_io("the pack cannot be read", "", e)),
            };
            file.write_all(&piece[..n]).map_err(failed)?;
            written += n as u64;
            self.fetch.progress.advance(n as u64);
        }
        if written != head.size {
            let what = format!("a member has {written} bytes instead of {}", head.size);
            return Err(Error::new(Code::Damaged, what).at(path.display()));
        }
        file.set_permissions(Permissions::from_mode(head.mode)).map_err(failed)?;
        Ok(written)
    }
}

fn ended() -> Error {
    Error::new(Code::Cancelled, "the restore was ended")
}

/// A worker of a second try finds the file of the first one; its directory may come in another pack.
fn create(path: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    match open() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                std::fs::DirBuilder::new().recursive(true).create(parent)?;
                // Until its own member comes with its mode.
                std::fs::set_permissions(parent, Permissions::from_mode(0o700))?;
            }
            open()
        }
        opened => opened,
    }
}

fn directory(path: &Path, mode: u32) -> Result<()> {
    let failed = |e| Error::io("cannot make the directory", path, e);
    std::fs::DirBuilder::new().recursive(true).create(path).map_err(failed)?;
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)
}

/// The store, or one copy's bytes; not this host's disk, and not the key.
fn another_try_helps(error: &Error) -> bool {
    matches!(
        error.code(),
        Code::StoreUnavailable | Code::StoreLied | Code::StoreDenied | Code::ObjectMissing | Code::Damaged
    )
}
