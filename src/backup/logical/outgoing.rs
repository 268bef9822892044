//! A sealed stream on its way into every repository, as one object or, where it is longer than an object may be, as
//! several that `cat` joins.

use std::io::{self, Write};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::backup::copy::Destination;
use crate::codec::{SealWriter, from_io, into_io};
use crate::error::{Error, Result};
use crate::model::Digest;
use crate::repository::fanout::FanOut;
use crate::repository::keys::backup;
use crate::repository::record::ObjectEntry;
use crate::util::failpoint;

/// FORMAT.md: "No stored object is larger than 64 GiB".
const LONGEST: u64 = 64 << 30;

/// Stored bytes on their way; the stream is whatever is written.
pub(super) struct Parts {
    destination: Arc<Destination>,
    key: String,
    longest: u64,
    /// None only while one object ends and the next begins.
    fan: Option<FanOut>,
    number: u32,
    bytes: u64,
    sha256: Sha256,
    done: Vec<ObjectEntry>,
}

impl Parts {
    /// Opens the first object, by its key in the backup's directory.
    pub(super) fn open(destination: &Arc<Destination>, key: &str) -> Self {
        Self {
            fan: Some(destination.open(key)),
            destination: destination.clone(),
            key: key.to_owned(),
            longest: failpoint::limit("object-longest", LONGEST),
            number: 1,
            bytes: 0,
            sha256: Sha256::new(),
            done: Vec::new(),
        }
    }

    fn next(&mut self) -> Result<()> {
        self.complete()?;
        self.number += 1;
        self.fan = Some(self.destination.open(&backup::part(&self.key, self.number)));
        Ok(())
    }

    fn complete(&mut self) -> Result<()> {
        let fan = self.fan.take().ok_or_else(ended_twice)?;
        let bytes = std::mem::take(&mut self.bytes);
        let sha256 = std::mem::take(&mut self.sha256);
        self.destination.targets.take(fan.finish_part(bytes)?);
        self.done.push(ObjectEntry {
            key: backup::part(&self.key, self.number),
            bytes,
            sha256: Digest(sha256.finalize().into()),
        });
        Ok(())
    }

    /// Completes the last object; all are then durable in every required repository. Blocks.
    pub(super) fn finish(mut self) -> Result<Vec<ObjectEntry>> {
        self.complete()?;
        Ok(self.done)
    }
}

fn ended_twice() -> Error {
    Error::internal("an object is ended twice")
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes == self.longest && !bytes.is_empty() {
            self.next().map_err(into_io)?;
        }
        let room = usize::try_from(self.longest - self.bytes).unwrap_or(usize::MAX);
        let fan = self.fan.as_mut().ok_or_else(|| into_io(ended_twice()))?;
        let taken = fan.write(&bytes[..bytes.len().min(room)])?;
        self.sha256.update(&bytes[..taken]);
        self.bytes += taken as u64;
        Ok(taken)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An object that is sealed and not yet complete. Dropped, it is given up.
pub(super) type Outgoing = SealWriter<Parts>;

/// What a stream became.
pub(super) struct Stored {
    pub(super) objects: Vec<ObjectEntry>,
    pub(super) plain_bytes: u64,
    /// Of nothing where it was not asked for.
    pub(super) plain_sha256: Digest,
}

/// Opens a sealed object. Its parts have digests of their own, so the codec takes none of the stored bytes, and of the
/// plain ones only where `digested`.
pub(super) fn open(destination: &Arc<Destination>, key: &str, digested: bool) -> Result<Outgoing> {
    let parts = Parts::open(destination, key);
    if digested {
        SealWriter::plain_digest_only(parts, &destination.protection, destination.level)
    } else {
        SealWriter::undigested(parts, &destination.protection, destination.level, None)
    }
}

/// Ends the stream and its objects. Blocks.
pub(super) fn finish(outgoing: Outgoing) -> Result<Stored> {
    let (parts, sealed) = outgoing.finish()?;
    let objects = parts.finish()?;
    Ok(Stored { objects, plain_bytes: sealed.plain_bytes, plain_sha256: sealed.plain_sha256 })
}

/// A sealed stream that waits in memory until it may be stored.
pub(super) struct Held {
    pub(super) bytes: Vec<u8>,
    pub(super) plain_bytes: u64,
}

impl Held {
    pub(super) fn finish(seal: SealWriter<Vec<u8>>) -> Result<Self> {
        let (bytes, sealed) = seal.finish()?;
        Ok(Self { bytes, plain_bytes: sealed.plain_bytes })
    }

    /// Blocks.
    pub(super) fn store(&self, destination: &Arc<Destination>, key: &str) -> Result<Vec<ObjectEntry>> {
        let mut parts = Parts::open(destination, key);
        parts.write_all(&self.bytes).map_err(|e| from_io("cannot write the object", key, e))?;
        parts.finish()
    }
}
