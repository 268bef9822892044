//! Small signed documents: the bytes, and whether a trusted host wrote them.

use bytes::Bytes;

use super::finding::{Checked, Kind};
use super::reading::Trouble;
use crate::error::{Code, Error, Result};
use crate::repository::signature::{HostKey, Trust, Verdict};
use crate::repository::{Repository, keys};
use crate::storage;
use crate::util::clock::Clock;

/// No honest document is larger.
const LARGEST: u64 = 64 << 20;

/// Reads one whose signature, beside it, is a trusted host's.
pub(super) async fn read(repository: &Repository, key: &str, trust: &Trust) -> Checked<Bytes> {
    let bytes = storage::get_bytes(&*repository.storage, key, LARGEST).await?;
    let signature = storage::get_bytes(&*repository.storage, &keys::signature_of(key), LARGEST).await;
    let signature = match signature {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.code() == Code::ObjectMissing => None,
        Err(e) => return Err(e.into()),
    };
    match trust.verify(&bytes, signature.as_deref()) {
        Verdict::Trusted => Ok(bytes),
        Verdict::Untrusted(why) => Err(Trouble::wrong(Kind::Untrusted, why)),
    }
}

/// Writes one, its signature first.
pub(super) async fn write(
    repository: &Repository,
    key: &str,
    bytes: Vec<u8>,
    host_key: &HostKey,
    clock: &Clock,
) -> Result<()> {
    let file = key.rsplit('/').next().unwrap_or(key);
    let signature = host_key.sign(&bytes, file, clock.now())?;
    put(repository, &keys::signature_of(key), Bytes::from(signature)).await?;
    put(repository, key, Bytes::from(bytes)).await
}

async fn put(repository: &Repository, key: &str, bytes: Bytes) -> Result<()> {
    let length = bytes.len() as u64;
    let stored = repository.storage.put(key, bytes).await?;
    if stored.bytes == length {
        return Ok(());
    }
    Err(Error::new(Code::StoreLied, "the store took another length").at(repository.place(key)))
}
