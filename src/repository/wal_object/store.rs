//! Writing WAL objects to several repositories at once.

use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::codec::{Protection, SealWriter, Sealed, WalObjectHeader, from_io};
use crate::error::{Code, Error, Result};
use crate::model::{Digest, Lsn, RepoName, SegmentName, ShortDigest, Timestamp};
use crate::repository::Repository;
use crate::repository::documents;
use crate::repository::fanout::{FanOut, put_everywhere};
use crate::repository::keys::wal::{Sealing, WalObjectName, WalRoot};
use crate::repository::signature::HostKey;
use crate::storage::Stored;
use crate::util::buffers::{Buffer, Buffers};

/// A streamed file is read in pieces of this size.
const PIECE: usize = 1 << 20;
/// What a sealed file may be longer by than a plain one that cannot be compressed.
const SLACK: usize = 64 << 10;

/// What is done to every WAL object of this process.
#[derive(Debug, Clone)]
pub struct Sealer {
    pub protection: Protection,
    /// zstd's level.
    pub level: i32,
    pub header: WalObjectHeader,
    /// What is sealed in memory is sealed into these.
    buffers: Buffers,
}

impl Sealer {
    pub fn new(protection: Protection, level: i32, now: Timestamp) -> Self {
        let header = WalObjectHeader {
            host: crate::util::host::name(),
            pgkeep_version: env!("CARGO_PKG_VERSION").to_owned(),
            archived_at: now,
        };
        Self { protection, level, header, buffers: Buffers::default() }
    }
    /// For one of many: memory is used again.
    pub fn into_buffers(self, buffers: Buffers) -> Self {
        Self { buffers, ..self }
    }
    pub fn sealing(&self) -> Sealing {
        match self.protection {
            Protection::Age(_) => Sealing::Encrypted,
            Protection::Plain => Sealing::Compressed,
        }
    }
    /// Begins to seal so many bytes into memory.
    pub fn begin(&self, plain_bytes: usize) -> Result<SealWriter<Buffer>> {
        // Room is no memory before it is written to.
        let sealed = self.buffers.with_room(plain_bytes + SLACK);
        SealWriter::undigested(sealed, &self.protection, self.level, Some(&self.header))
    }
    /// Seals bytes in memory, once for all repositories. Nobody can change them: they are not digested again.
    pub async fn seal(&self, plain: Bytes) -> Result<Bytes> {
        let sealer = self.clone();
        blocking(move || {
            let mut writer = sealer.begin(plain.len())?;
            writer.write_all(&plain).map_err(|e| from_io("cannot seal the WAL file", "", e))?;
            Ok(writer.finish()?.0.share())
        })
        .await
    }
    fn seal_into<W: Write>(&self, sink: W, source: &mut dyn io::Read) -> Result<(W, Sealed)> {
        let mut writer = SealWriter::new(sink, &self.protection, self.level, Some(&self.header))?;
        let mut piece = vec![0; PIECE];
        loop {
            match source.read(&mut piece) {
                Ok(0) => return writer.finish(),
                Ok(n) => {
                    writer.write_all(&piece[..n]).map_err(|e| from_io("cannot seal the WAL file", "", e))?;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::new(Code::Io, "cannot read the WAL file").because(e)),
            }
        }
    }
}

/// The bytes of an object before they are sealed.
pub enum Plain {
    /// Sealed in memory.
    Bytes(Bytes),
    /// By [`Sealer::seal`], for several calls with the same bytes.
    Sealed(Bytes),
    /// Streamed from where the file stands; for what is too long for memory.
    File(File),
}

/// How an object came to be in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    Written(Stored),
    /// Another writer of the same bytes was faster.
    AlreadyThere,
}

/// What became of a write in one repository.
pub type Placement = (RepoName, Result<Placed>);

/// Writes one object. Fails as a whole when the bytes are not those that `name` promises, or a required repository fails
/// on a streamed write; else the caller looks at each placement.
pub async fn store(
    targets: &[&Repository],
    root: &WalRoot,
    name: WalObjectName,
    plain: Plain,
    sealer: &Sealer,
    grace: Duration,
) -> Result<Vec<Placement>> {
    let key = root.key(name, sealer.sealing());
    let outcomes = match plain {
        Plain::Bytes(bytes) => {
            if Digest::of(&bytes).short() != name.digest() {
                return Err(Error::internal("an object is given a name that is not that of its bytes"));
            }
            put_everywhere(targets, &key, &sealer.seal(bytes).await?, grace).await
        }
        Plain::Sealed(sealed) => put_everywhere(targets, &key, &sealed, grace).await,
        Plain::File(file) => stream(targets, &key, file, name.digest(), sealer, grace).await?,
    };
    Ok(outcomes.into_iter().map(|(repo, outcome)| (repo, placed(outcome))).collect())
}

async fn stream(
    targets: &[&Repository],
    key: &str,
    mut file: File,
    digest: ShortDigest,
    sealer: &Sealer,
    grace: Duration,
) -> Result<Vec<(RepoName, Result<Stored>)>> {
    let (sealer, key, runtime) = (sealer.clone(), key.to_owned(), Handle::current());
    let targets: Vec<Repository> = targets.iter().map(|r| (*r).clone()).collect();
    blocking(move || {
        let targets: Vec<&Repository> = targets.iter().collect();
        let fan_out = FanOut::begin_with(&targets, &key, &runtime, grace);
        let (fan_out, sealed) = sealer.seal_into(fan_out, &mut file)?;
        // Before anything becomes visible: dropping the writer aborts every upload.
        verify(&sealed, digest)?;
        match fan_out.finish(&sealed) {
            // Somebody else has written the same bytes under this name meanwhile.
            Err(e) if e.code() == Code::ObjectExists => {
                let exists = || Error::new(Code::ObjectExists, "an object of this name exists already");
                Ok(targets.iter().map(|r| (r.name.clone(), Err(exists()))).collect())
            }
            done => done,
        }
    })
    .await
}

fn verify(sealed: &Sealed, digest: ShortDigest) -> Result<()> {
    if sealed.plain_sha256.short() == digest {
        return Ok(());
    }
    Err(Error::new(Code::Io, "the WAL file changed while it was read")
        .hint("PostgreSQL asks again by itself; if it goes on, find out what writes to this file"))
}

fn placed(outcome: Result<Stored>) -> Result<Placed> {
    match outcome {
        Ok(stored) => Ok(Placed::Written(stored)),
        Err(e) if e.code() == Code::ObjectExists => Ok(Placed::AlreadyThere),
        Err(e) => Err(e),
    }
}

/// Work that reads, digests or seals, off the runtime's threads.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|e| Err(Error::internal("a worker thread ended by itself").because(e)))
}

/// `<segment>-<digest>.damaged.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageMark {
    /// The first byte that cannot be replayed.
    pub lsn: Lsn,
    pub reason: String,
    pub host: String,
    pub found_at: Timestamp,
}

/// Writes the mark of a damaged segment, its signature first. Without a host key the mark stands unsigned: a damaged
/// segment must never stop archiving.
pub async fn store_mark(
    targets: &[&Repository],
    root: &WalRoot,
    segment: SegmentName,
    digest: ShortDigest,
    mark: &DamageMark,
    key: Option<&HostKey>,
    grace: Duration,
) -> Result<Vec<Placement>> {
    let bytes = documents::to_bytes(mark)?;
    let name = root.key(WalObjectName::Damaged { segment, digest }, Sealing::Compressed);
    if let Some(key) = key {
        let file = name.rsplit('/').next().unwrap_or_default();
        let signature = key.sign(&bytes, file, mark.found_at)?;
        let place = root.key(WalObjectName::DamagedSignature { segment, digest }, Sealing::Compressed);
        let signed = put_everywhere(targets, &place, &Bytes::from(signature), grace).await;
        required_failure(targets, signed)?;
    }
    let outcomes = put_everywhere(targets, &name, &Bytes::from(bytes), grace).await;
    Ok(outcomes.into_iter().map(|(repo, outcome)| (repo, placed(outcome))).collect())
}

/// The first failure of a required repository; a name that is taken is none.
fn required_failure(targets: &[&Repository], outcomes: Vec<(RepoName, Result<Stored>)>) -> Result<()> {
    let required = |name: &RepoName| targets.iter().any(|r| r.required && r.name == *name);
    let failed = outcomes.into_iter().filter(|(name, _)| required(name)).find_map(|(_, o)| placed(o).err());
    failed.map_or(Ok(()), Err)
}
