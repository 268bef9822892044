//! What a store can do, seen and not believed: `check` prints it, and settings that rely on more than every store
//! can (conditional writes, checksum headers) are advised from it.
//!
//! Everything is written below one prefix that the caller chooses and nobody else uses, and removed again, also
//! after a failure. Failure: an error means that not even a small object can be written and read back; all else is
//! an [`Ability`]. Costs two parts of traffic.

use std::sync::Arc;

use bytes::Bytes;

use super::{Checksum, Storage, StoreSettings, get_bytes, open};
use crate::error::{Code, Error, Result};

/// Seen to work, or why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ability {
    Yes,
    No(String),
}

impl Ability {
    pub fn works(&self) -> bool {
        *self == Self::Yes
    }
    fn of(tried: Result<()>) -> Self {
        tried.map_or_else(|e| Self::No(e.to_string()), |()| Self::Yes)
    }
}

/// What was seen. Small writes, reads and `head` work, else there would be none of this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// What was just written is listed, with its length.
    pub list_after_write: Ability,
    /// A byte range comes back exactly.
    pub ranged_get: Ability,
    /// An object of more than one part.
    pub multipart: Ability,
    /// A second conditional write of a key fails, and of two at once exactly one wins: `conditional_writes` may be
    /// switched on.
    pub conditional_put: Ability,
    /// Writes with the SDK's checksum headers, in one piece and in parts: `checksum = "when_supported"` may be used.
    pub checksums: Ability,
    /// Deletes. Without them nothing expires from here, and what the probe wrote stays.
    pub delete: Ability,
    /// Lists the unfinished uploads of killed writers, which cost money until they are aborted.
    pub list_unfinished: Ability,
}

/// Tries the store of these settings below `prefix` (a key without a slash at its end, not used by anybody).
pub async fn probe(settings: &StoreSettings, prefix: &str) -> Result<Capabilities> {
    let careful =
        StoreSettings { conditional_writes: false, checksum: Checksum::WhenRequired, ..settings.clone() };
    let store = open(&careful).await?;
    let tried = try_all(&*store, &careful, prefix).await;
    let delete = Ability::of(remove_all(&*store, prefix).await);
    tried.map(|seen| Capabilities { delete, ..seen })
}

async fn try_all(store: &dyn Storage, careful: &StoreSettings, prefix: &str) -> Result<Capabilities> {
    let (key, bytes) = (format!("{prefix}/plain"), noise(1000));
    store.put(&key, bytes.clone()).await?;
    same(store, &key, &bytes).await?;
    Ok(Capabilities {
        list_after_write: Ability::of(listed(store, &key, bytes.len() as u64).await),
        ranged_get: Ability::of(ranged(store, &key, &bytes).await),
        multipart: Ability::of(in_parts(store, careful, &format!("{prefix}/parts")).await),
        conditional_put: Ability::of(conditional(careful, prefix).await),
        checksums: Ability::of(checksums(careful, prefix).await),
        delete: Ability::Yes,
        list_unfinished: Ability::of(unfinished(store).await),
    })
}

/// The key holds exactly these bytes.
async fn same(store: &dyn Storage, key: &str, bytes: &Bytes) -> Result<()> {
    if get_bytes(store, key, bytes.len() as u64).await? == *bytes {
        return Ok(());
    }
    Err(Error::new(Code::StoreLied, "other bytes come back than were written").at(key))
}

async fn listed(store: &dyn Storage, key: &str, bytes: u64) -> Result<()> {
    let found = store.list(key, None).await?;
    if found.iter().any(|o| o.key == key && o.bytes == bytes) {
        return Ok(());
    }
    Err(Error::new(Code::StoreLied, "what was just written is not in the listing").at(key))
}

async fn ranged(store: &dyn Storage, key: &str, bytes: &Bytes) -> Result<()> {
    let body = store.get(key, Some(100..300)).await?;
    if super::collect(body, 200).await? == bytes.slice(100..300) {
        return Ok(());
    }
    Err(Error::new(Code::StoreLied, "another range comes back than was asked").at(key))
}

/// One part and a byte.
async fn in_parts(store: &dyn Storage, settings: &StoreSettings, key: &str) -> Result<()> {
    let size = usize::try_from(settings.part_size).map_err(|e| Error::internal("part size").because(e))?;
    let bytes = noise(size + 1);
    let mut upload = store.upload(key).await?;
    upload.write(bytes.clone()).await?;
    upload.finish().await?;
    same(store, key, &bytes).await
}

async fn conditional(careful: &StoreSettings, prefix: &str) -> Result<()> {
    const ROUNDS: usize = 3;
    let store = open(&StoreSettings { conditional_writes: true, ..careful.clone() }).await?;
    let ignored = |what: &str| Error::new(Code::StoreLied, what).at(store.location());
    let (key, first) = (format!("{prefix}/condition"), noise(1000));
    store.put(&key, first.clone()).await?;
    refused(store.put(&key, noise(1000)).await.map(drop))?
        .then_some(())
        .ok_or_else(|| ignored("a second write with If-None-Match was taken: the condition is ignored"))?;
    same(&*store, &key, &first).await?;
    for round in 0..ROUNDS {
        let key = format!("{prefix}/race-{round}");
        let one = |bytes: Bytes| {
            let (store, key) = (Arc::clone(&store), key.clone());
            async move { refused(store.put(&key, bytes).await.map(drop)) }
        };
        let (a, b) = futures::future::join(one(noise(1000)), one(noise(1000))).await;
        if a? == b? {
            return Err(ignored("of two writes at once not exactly one won: the condition is not atomic"));
        }
    }
    Ok(())
}

/// True: it was refused because the key is taken; false: it was done.
fn refused(written: Result<()>) -> Result<bool> {
    match written {
        Ok(()) => Ok(false),
        Err(e) if e.code() == Code::ObjectExists => Ok(true),
        Err(e) => Err(e),
    }
}

async fn checksums(careful: &StoreSettings, prefix: &str) -> Result<()> {
    let store = open(&StoreSettings { checksum: Checksum::WhenSupported, ..careful.clone() }).await?;
    let (key, bytes) = (format!("{prefix}/checksum"), noise(1000));
    store.put(&key, bytes.clone()).await?;
    same(&*store, &key, &bytes).await?;
    in_parts(&*store, careful, &format!("{prefix}/checksum-parts")).await
}

/// Older than a century: lists, and aborts none.
async fn unfinished(store: &dyn Storage) -> Result<()> {
    const CENTURY: std::time::Duration = std::time::Duration::from_hours(100 * 365 * 24);
    store.sweep_unfinished(CENTURY).await.map(drop)
}

async fn remove_all(store: &dyn Storage, prefix: &str) -> Result<()> {
    let below = format!("{prefix}/");
    for object in store.list(&below, None).await? {
        store.delete(&object.key).await?;
    }
    match store.list(&below, None).await?.first() {
        None => Ok(()),
        Some(left) => Err(Error::new(Code::StoreLied, "a deleted object is still listed").at(&left.key)),
    }
}

/// Bytes that were never written before, so that an old object cannot pass for a new one.
fn noise(bytes: usize) -> Bytes {
    let mut noise = vec![0; bytes];
    rand::RngCore::fill_bytes(&mut rand::rng(), &mut noise);
    noise.into()
}
