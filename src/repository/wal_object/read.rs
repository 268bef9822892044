//! Reading WAL objects back, each copy in turn, until one has the bytes that its name promises.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;

use super::store::blocking;
use crate::codec::{Identities, WalObjectHeader, from_io, open_wal_object};
use crate::error::{Code, Error, Result};
use crate::model::{Digest, ShortDigest};
use crate::repository::Repository;
use crate::repository::body_reader::BodyReader;
use crate::repository::wal_listing::StoredCopy;

const PIECE: usize = 256 << 10;

/// Takes the plain bytes of one copy; begins again when that copy turns out not to be whole.
pub trait Sink: Write {
    fn restart(&mut self) -> io::Result<()>;
}

impl Sink for Vec<u8> {
    fn restart(&mut self) -> io::Result<()> {
        self.clear();
        Ok(())
    }
}

impl Sink for File {
    fn restart(&mut self) -> io::Result<()> {
        self.rewind()?;
        self.set_len(0)
    }
}

impl Sink for io::Sink {
    fn restart(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What was read, once its digest has been proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadBack {
    pub bytes: u64,
    /// Who archived it.
    pub header: Option<WalObjectHeader>,
}

/// The repositories that WAL is read from, and the keys that open it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WalObjects {
    repositories: Arc<[Repository]>,
    identities: Option<Arc<Identities>>,
    runtime: Handle,
}

impl WalObjects {
    /// Must be called inside a runtime.
    pub fn new(repositories: &[Repository], identities: Option<Identities>) -> Self {
        Self {
            repositories: repositories.into(),
            identities: identities.map(Arc::new),
            runtime: Handle::current(),
        }
    }
    pub fn repositories(&self) -> &[Repository] {
        &self.repositories
    }

    /// Reads one object into `sink`, from the repositories in their order, each one's replacements first. Blocks; for
    /// blocking threads only. When no copy is whole, the error is that of a
    /// store that failed if there is one (it may come back), else of the first copy.
    pub fn read_into(
        &self,
        copies: &[StoredCopy],
        digest: ShortDigest,
        sink: &mut dyn Sink,
    ) -> Result<ReadBack> {
        let mut failed: Option<Error> = None;
        let places = self.repositories.iter().flat_map(|repository| {
            let of_it = copies.iter().filter(|copy| copy.repo == repository.name);
            of_it.map(move |copy| (repository, copy))
        });
        for (repository, copy) in places {
            sink.restart().map_err(cannot_write)?;
            match self.read_copy(repository, &copy.key, digest, sink) {
                Ok(read) => return Ok(read),
                // The disk here is no better for the next copy.
                Err(e) if e.code() == Code::Io => return Err(e),
                Err(e) if failed.as_ref().is_none_or(|f| !may_pass(f) && may_pass(&e)) => failed = Some(e),
                Err(_) => {}
            }
        }
        Err(failed.unwrap_or_else(|| {
            Error::new(Code::ObjectMissing, "no repository that can be reached has a copy of this object")
        }))
    }

    fn read_copy(
        &self,
        repository: &Repository,
        key: &str,
        digest: ShortDigest,
        sink: &mut dyn Sink,
    ) -> Result<ReadBack> {
        let place = repository.place(key);
        let body = BodyReader::open_on(&self.runtime, repository, key, None);
        let (header, mut plain) = open_wal_object(body, key, self.identities.as_deref())
            .map_err(|e| e.while_doing(format!("cannot open {place}")))?;
        let mut sha256 = Sha256::new();
        let (mut piece, mut bytes) = (vec![0; PIECE], 0);
        loop {
            let n =
                plain.read(&mut piece).map_err(|e| from_io("the object cannot be read back", &place, e))?;
            if n == 0 {
                break;
            }
            sha256.update(&piece[..n]);
            bytes += n as u64;
            sink.write_all(&piece[..n]).map_err(cannot_write)?;
        }
        if Digest(sha256.finalize().into()).short() != digest {
            return Err(Error::new(Code::Damaged, "the object is not what its name says").at(place));
        }
        Ok(ReadBack { bytes, header })
    }

    /// Only the header: who archived this object. Blocks.
    pub fn header(&self, copies: &[StoredCopy]) -> Result<Option<WalObjectHeader>> {
        let found =
            copies.iter().find_map(|c| self.repositories.iter().find(|r| r.name == c.repo).map(|r| (r, c)));
        let Some((repository, copy)) = found else { return Ok(None) };
        let body = BodyReader::open_on(&self.runtime, repository, &copy.key, None);
        Ok(open_wal_object(body, &copy.key, self.identities.as_deref())?.0)
    }

    /// A small object (a history file, a head) in memory.
    pub async fn bytes(
        &self,
        copies: &[StoredCopy],
        digest: ShortDigest,
    ) -> Result<(Vec<u8>, Option<WalObjectHeader>)> {
        let (this, copies) = (self.clone(), copies.to_vec());
        blocking(move || {
            let mut bytes = Vec::new();
            let read = this.read_into(&copies, digest, &mut bytes)?;
            Ok((bytes, read.header))
        })
        .await
    }
}

/// An error of a store rather than of the bytes.
fn may_pass(error: &Error) -> bool {
    matches!(error.code(), Code::StoreUnavailable | Code::StoreDenied | Code::StoreLied)
}

fn cannot_write(cause: io::Error) -> Error {
    let full = cause.kind() == io::ErrorKind::StorageFull;
    match cause.downcast::<Error>() {
        Ok(ours) => ours,
        Err(cause) => {
            let error = Error::new(Code::Io, "cannot write what was read from the archive").because(cause);
            if full { error.hint("the disk is full: free some space there and try again") } else { error }
        }
    }
}
