//! Small signed documents: reports and marks. The signature lies beside and is written first, so that whoever finds the
//! document finds it signed.

use bytes::Bytes;

use super::signature::{HostKey, Trust, Verdict};
use super::{Repository, keys};
use crate::error::{Code, Error, Result};
use crate::model::Timestamp;
use crate::storage;

/// No honest document is larger.
const LARGEST: u64 = 64 << 20;

/// The bytes, and whether a trusted host wrote them.
pub async fn read(repository: &Repository, key: &str, trust: &Trust) -> Result<(Bytes, Verdict)> {
    let bytes = storage::get_bytes(&*repository.storage, key, LARGEST).await?;
    let signature = storage::get_bytes(&*repository.storage, &keys::signature_of(key), LARGEST).await;
    let signature = match signature {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.code() == Code::ObjectMissing => None,
        Err(e) => return Err(e),
    };
    let verdict = trust.verify(&bytes, signature.as_deref());
    Ok((bytes, verdict))
}

/// Writes one into a repository.
pub async fn write(
    repository: &Repository,
    key: &str,
    bytes: Vec<u8>,
    host_key: &HostKey,
    at: Timestamp,
) -> Result<()> {
    let file = key.rsplit('/').next().unwrap_or(key);
    let signature = host_key.sign(&bytes, file, at)?;
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
