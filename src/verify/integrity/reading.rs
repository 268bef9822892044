//! Reads stored objects: their bytes pass once, are counted and digested, and are opened by whoever asks.
//!
//! What the store does is kept apart from what the bytes are: a store that fails says nothing about an object.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::finding::Kind;
use crate::codec::{from_io, into_io};
use crate::error::{Code, Error, Result};
use crate::model::Digest;
use crate::repository::Repository;
use crate::repository::body_reader::BodyReader;
use crate::util::progress::Progress;

/// Why an object is not proved.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The store's failure, or the end of this work.
    Store(Error),
    /// What is wrong with the object.
    Wrong(Kind, String),
}

impl Trouble {
    pub(super) fn wrong(kind: Kind, what: impl Into<String>) -> Self {
        Self::Wrong(kind, what.into())
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error.code() {
            Code::StoreUnavailable | Code::StoreDenied | Code::Cancelled | Code::Internal => {
                Self::Store(error)
            }
            Code::ObjectMissing => Self::wrong(Kind::Missing, "the object is not there"),
            Code::StoreLied | Code::Io => Self::wrong(Kind::Unreadable, error.to_string()),
            Code::WrongKey => Self::wrong(Kind::WrongKey, error.what()),
            Code::WalMismatch => Self::wrong(Kind::Foreign, error.to_string()),
            _ => Self::wrong(Kind::Damaged, said(&error)),
        }
    }
}

/// Without the place, which a finding says by itself.
fn said(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{}: {cause}", error.what()),
        None => error.what().to_owned(),
    }
}

/// What the reader of an object needs to know of the work. Cheap to clone.
#[derive(Clone)]
pub(super) struct Watch {
    pub(super) runtime: Handle,
    pub(super) cancel: CancellationToken,
    pub(super) progress: Arc<dyn Progress>,
}

/// One stored object, as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) bytes: u64,
    pub(super) sha256: Digest,
}

/// Objects as one stream, one after the other. A clone reads on where the other is.
#[derive(Clone)]
pub(super) struct Stream(Arc<Mutex<Inner>>);

struct Inner {
    repository: Repository,
    watch: Watch,
    left: VecDeque<String>,
    current: Option<Current>,
    found: Vec<Found>,
    /// What the store said; it is not asked again.
    failed: Option<Error>,
}

struct Current {
    body: BodyReader,
    bytes: u64,
    sha256: Sha256,
}

impl Stream {
    /// For blocking threads.
    pub(super) fn open(
        repository: &Repository,
        keys: impl IntoIterator<Item = String>,
        watch: &Watch,
    ) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            repository: repository.clone(),
            watch: watch.clone(),
            left: keys.into_iter().collect(),
            current: None,
            found: Vec::new(),
            failed: None,
        })))
    }

    /// Reads what nobody has read, and says what each object is.
    pub(super) fn finish(mut self) -> Result<Vec<Found>> {
        let mut piece = vec![0; 64 << 10];
        loop {
            match self.read(&mut piece) {
                Ok(0) => return Ok(std::mem::take(&mut self.lock().found)),
                Ok(_) => {}
                Err(e) => return Err(from_io("the object cannot be read", "", e)),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.lock().read(buffer)
    }
}

impl Inner {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if let Some(failed) = &self.failed {
            return Err(into_io(failed.again()));
        }
        if self.watch.cancel.is_cancelled() {
            return self.fail(Error::new(Code::Cancelled, "the verification was ended"));
        }
        loop {
            if self.current.is_none() {
                let Some(key) = self.left.pop_front() else { return Ok(0) };
                let body = BodyReader::open_on(&self.watch.runtime, &self.repository, &key, None);
                self.current = Some(Current { body, bytes: 0, sha256: Sha256::new() });
            }
            let Some(current) = &mut self.current else { return Ok(0) };
            match current.body.read(buffer) {
                Ok(0) => {
                    if let Some(Current { bytes, sha256, .. }) = self.current.take() {
                        self.found.push(Found { bytes, sha256: Digest(sha256.finalize().into()) });
                    }
                }
                Ok(n) => {
                    current.bytes += n as u64;
                    current.sha256.update(&buffer[..n]);
                    self.watch.progress.advance(n as u64);
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return self.fail(from_io("the object cannot be read", "", e)),
            }
        }
    }

    fn fail(&mut self, error: Error) -> io::Result<usize> {
        self.current = None;
        self.failed = Some(error.again());
        Err(into_io(error))
    }
}

/// Reads to the end, so that everything has been proved.
pub(super) fn drain(reader: &mut impl Read) -> Result<u64> {
    io::copy(reader, &mut io::sink()).map_err(|e| from_io("the object cannot be opened", "", e))
}
