//! Archives what this host's `pg_wal` holds and the archive lacks, before the data directory is moved aside: it may be
//! the only copy of the last commits. The server is down by now, so nothing is written any more.

use std::time::Duration;

use bytes::Bytes;

use super::gather::Wal;
use super::local_wal::{self, LocalFile};
use super::prepare::{Prepared, Task};
use crate::error::Result;
use crate::model::{SegmentSize, SystemId};
use crate::repository::Repository;
use crate::repository::access;
use crate::repository::wal_object::{Placed, Plain, Sealer, store};

/// Lists anew, stores what is missing in every repository, and returns what was saved.
pub async fn run(
    task: &Task<'_>,
    prepared: &Prepared,
    system: SystemId,
    size: SegmentSize,
) -> Result<(Wal, Vec<LocalFile>)> {
    let archived = prepared.archive.wal(system, task.identities.clone()).await?;
    let pg_wal = task.data_directory.join("pg_wal");
    let files = local_wal::missing_from(&archived.listing, &pg_wal, size, system)?;
    if files.is_empty() {
        return Ok((archived, files));
    }
    let sealer = Sealer::new(access::protection(task.config)?, task.config.archive.compression, task.now);
    let targets: Vec<&Repository> = prepared.archive.repositories.iter().collect();
    task.progress.total(files.iter().map(|f| f.bytes).sum());
    for file in &files {
        save(&targets, &archived, file, &sealer, task.config.archive.optional_grace).await?;
        task.progress.advance(file.bytes);
        task.progress.note(&format!("archived {} of pg_wal", file.path.display()));
    }
    Ok((prepared.archive.wal(system, task.identities.clone()).await?, files))
}

async fn save(
    targets: &[&Repository],
    archived: &Wal,
    file: &LocalFile,
    sealer: &Sealer,
    grace: Duration,
) -> Result<()> {
    let bytes = Bytes::from(file.read()?);
    let placements = store(targets, &archived.root, file.name, Plain::Bytes(bytes), sealer, grace).await?;
    for (name, placed) in placements {
        match placed {
            Ok(Placed::Written(_) | Placed::AlreadyThere) => {}
            Err(e) if targets.iter().any(|r| r.required && r.name == name) => {
                return Err(e.while_doing(format!(
                    "cannot archive {} before it is moved aside",
                    file.path.display()
                )));
            }
            Err(error) => {
                tracing::warn!(repository = %name, %error, "an optional repository lacks saved WAL");
            }
        }
    }
    Ok(())
}
