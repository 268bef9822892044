//! Which copy of a backup's object is read: its replacement (`<key>.healed-…`), where the repository has one. The record
//! says what the object's bytes are, and so what its replacement is called: nothing is listed.

use tokio::runtime::Handle;

use super::Repository;
use super::keys::backup;
use crate::model::Digest;

/// The key to read for an object of these stored bytes. A store that does not say is asked for the object itself, and its
/// failure is seen there.
pub async fn place(repository: &Repository, key: &str, stored: Digest) -> String {
    let replacement = backup::healed(key, stored);
    match repository.storage.head(&replacement).await {
        Ok(Some(_)) => replacement,
        Ok(None) | Err(_) => key.to_owned(),
    }
}

/// The same for blocking threads.
pub fn place_on(runtime: &Handle, repository: &Repository, key: &str, stored: Digest) -> String {
    runtime.block_on(place(repository, key, stored))
}
