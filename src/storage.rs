//! Bytes by key: what a repository is kept in. A driver for a directory, one for S3, and decorators over the one
//! trait (retry with deadline, concurrency and bandwidth limits, an observer, scripted faults).
//!
//! Rules that every driver and decorator keeps, proved by `tests/e2e/storage_conformance.rs`:
//! * **Immutable**: nothing is overwritten. `put` and `upload` of an existing key fail with `ObjectExists` where
//!   the driver can tell; the layers above choose keys that carry digests, so that this is a net, not a lock.
//! * **All or nothing**: a key is listed and readable only once its last byte is durable. A killed writer leaves
//!   no object, at most a temporary that `list` never shows.
//! * **Durable before Ok**: when `put` or `finish` returns, a power cut loses nothing of it.
//! * **Nothing is not an error, an error is not nothing**: `head` says `None` and `get` says `ObjectMissing` only
//!   when the store answered that the key does not exist; a listing is complete or an error.
//! * **Cancellation**: dropping a future leaves no object behind that was not complete; a dropped `Upload` is
//!   aborted at the next chance.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use futures::stream::BoxStream;

use crate::error::{Code, Error, Result};

pub mod directory;
pub mod faults;
pub mod key;
pub mod limit;
pub mod observe;
mod open;
mod probe;
pub mod retry;
pub mod s3;
pub mod settings;

pub use observe::Observer;
pub use open::{open, open_observed};
pub use probe::{Ability, Capabilities, probe};
pub use settings::{Checksum, Location, StaticCredentials, StoreSettings};

/// A key below the repository's root: `/`-separated, no empty, `.` or `..` component, no leading `/`.
pub type Key = str;

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    pub key: String,
    /// Bytes as stored.
    pub bytes: u64,
    /// When the store says that it was written (a hint: clocks differ).
    pub modified: Option<crate::model::Timestamp>,
}

/// What a finished write stored, counted here, not by the store. The digest of the stored bytes is their maker's: the
/// codec takes it while they pass, and a driver that took it again would cost a tenth of a backup's processor time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    pub bytes: u64,
}

/// The body of an object, in order. A body that ends early yields an error (`StoreLied`), never a quiet end.
pub type Body = BoxStream<'static, Result<Bytes>>;

/// A write of unknown length in progress.
#[async_trait]
pub trait Upload: Send {
    /// Takes the next bytes; waits when the store is slower than the caller. Memory is bounded by the driver.
    async fn write(&mut self, chunk: Bytes) -> Result<()>;
    /// Makes the object visible and durable, and says what was stored. Fails when the store confirms another length.
    async fn finish(self: Box<Self>) -> Result<Stored>;
    /// Leaves nothing behind.
    async fn abort(self: Box<Self>) -> Result<()>;
}

/// A store. Object-safe; shared as `Arc<dyn Storage>`.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// Where it is, for messages: `file:///srv/pgkeep`, `s3://bucket/prefix`. No secrets.
    fn location(&self) -> &str;
    /// None when the store says that the key does not exist.
    async fn head(&self, key: &Key) -> Result<Option<ObjectInfo>>;
    /// The object, or a byte range of it (must lie inside the object).
    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<Body>;
    /// A small object in one go.
    async fn put(&self, key: &Key, body: Bytes) -> Result<Stored>;
    /// A long object in parts.
    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>>;
    /// All objects whose key begins with `prefix` (any string, not only whole components), in key order, all pages.
    /// `start_after`: only keys greater than it.
    async fn list(&self, prefix: &str, start_after: Option<&Key>) -> Result<Vec<ObjectInfo>>;
    /// Component names directly below `prefix` (which ends in `/` or is empty), without the slash; for S3 the
    /// common prefixes of a delimiter listing.
    async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>>;
    /// Deletes; a key that does not exist is not an error. Only `expire`, `check` and tests call it.
    async fn delete(&self, key: &Key) -> Result<()>;
    /// Removes what killed writers left behind (temporaries, multipart uploads) and nobody has touched for
    /// `older_than`; says how many. Never touches an object.
    async fn sweep_unfinished(&self, older_than: Duration) -> Result<u64>;
}

/// The whole object in memory; `limit` bounds it (`StoreLied` beyond).
pub async fn get_bytes(storage: &dyn Storage, key: &Key, limit: u64) -> Result<Bytes> {
    let body = storage.get(key, None).await?;
    collect(body, limit).await.map_err(|e| if e.place().is_some() { e } else { e.at(place(storage, key)) })
}

/// A body in memory; `limit` bounds it (`StoreLied` beyond). A body of one chunk is not copied.
pub async fn collect(mut body: Body, limit: u64) -> Result<Bytes> {
    let mut whole = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(chunk) = body.try_next().await? {
        if (whole.len() + joined.len() + chunk.len()) as u64 > limit {
            return Err(Error::new(Code::StoreLied, format!("the object is larger than {limit} bytes")));
        }
        if whole.is_empty() && joined.is_empty() {
            whole = chunk;
        } else {
            joined.extend_from_slice(&std::mem::take(&mut whole));
            joined.extend_from_slice(&chunk);
        }
    }
    Ok(if joined.is_empty() { whole } else { joined.freeze() })
}

/// Sends a whole body through an upload: what `replicate` and tests need. On an error the upload is aborted.
pub async fn upload_body(storage: &dyn Storage, key: &Key, mut body: Body) -> Result<Stored> {
    let mut upload = storage.upload(key).await?;
    loop {
        match body.try_next().await {
            Ok(Some(chunk)) => {
                if let Err(e) = upload.write(chunk).await {
                    return Err(abandoned(upload, e).await);
                }
            }
            Ok(None) => return upload.finish().await,
            Err(e) => return Err(abandoned(upload, e).await),
        }
    }
}

/// The error that ended an upload matters; what the abort could not remove is swept later.
async fn abandoned(upload: Box<dyn Upload>, error: Error) -> Error {
    let _ = upload.abort().await;
    error
}

/// An object's place for messages.
pub fn place(storage: &dyn Storage, key: &Key) -> String {
    format!("{}/{key}", storage.location())
}
