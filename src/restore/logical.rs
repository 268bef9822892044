//! Logical backups as what a restore reads: which one is meant, what its index says, its streams.
//!
//! Nothing is written here. A stream is read from one repository; whether that one holds all of it, by length, is asked
//! before anything else happens.

pub mod choose;
mod stored;

pub use choose::{PassedOver, Wanted};
pub use stored::StoredStream;

use super::gather::{Archive, Held};
use crate::codec::{Identities, open_sealed};
use crate::error::{Code, Error, Result};
use crate::repository::body_reader::BodyReader;
use crate::repository::keys::backup;
use crate::repository::logical_index::LogicalIndex;

/// Reads the index from the first repository that gives it whole. `identities` open metadata.
pub async fn read_index(
    archive: &Archive,
    held: &Held,
    identities: Option<&Identities>,
) -> Result<LogicalIndex> {
    let record = &held.record;
    let relative = record.objects.iter().map(|o| &o.key).find(|key| backup::is_index(key));
    let relative =
        relative.ok_or_else(|| Error::new(Code::Damaged, "the backup names no index").at(&record.id))?;
    let key = backup::object(&archive.cluster, &record.id, relative);
    let mut failed = None;
    for name in &held.repositories {
        let repository = archive.repository(name)?.clone();
        let (key, identities) = (key.clone(), identities.cloned());
        let runtime = tokio::runtime::Handle::current();
        let read = tokio::task::spawn_blocking(move || {
            let body = BodyReader::open_on(&runtime, &repository, &key, None);
            LogicalIndex::read(open_sealed(body, &key, identities.as_ref())?, &repository.place(&key))
        });
        match read.await.map_err(|e| Error::internal("a reader died").because(e))? {
            Ok(index) => return Ok(index),
            Err(e) => failed = Some(e),
        }
    }
    Err(failed
        .unwrap_or_else(|| Error::internal("a backup without a repository"))
        .while_doing(format!("cannot read the index of backup {}", record.id)))
}
