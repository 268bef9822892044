//! Configuration from outside the data directory (Debian's `/etc/postgresql`), which a backup keeps in an archive of its
//! own. What this host has stays as it is; what it lacks is laid beside the data, never into place behind an
//! administrator's back.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::prepare::{Prepared, Task};
use crate::error::{Error, Result};
use crate::repository::keys::backup;
use crate::repository::pack_read::{each_member, open_pack};
use crate::repository::replaced;
use crate::util::durable;

/// Below the data directory.
const DIRECTORY: &str = "pgkeep-config";

/// Lays out what the backup keeps and this host lacks; says so.
pub async fn restore(task: &Task<'_>, prepared: &Prepared) -> Result<Vec<String>> {
    let record = &prepared.held.record;
    let Some(entry) = record.objects.iter().find(|entry| backup::is_config(&entry.key)) else {
        return Ok(Vec::new());
    };
    let key = backup::object(&task.cluster.name, &record.id, &entry.key);
    let Some(name) = prepared.held.repositories.first() else { return Ok(Vec::new()) };
    let repository = prepared.archive.repository(name)?.clone();
    let key = replaced::place(&repository, &key, entry.sha256).await;
    let identities = task.identities.clone();
    let runtime = tokio::runtime::Handle::current();
    let home = task.data_directory.join(DIRECTORY);
    let laid = tokio::task::spawn_blocking(move || {
        let pack = open_pack(&runtime, &repository, &key, identities.as_ref())?;
        let mut laid: Vec<PathBuf> = Vec::new();
        each_member(pack, &repository.place(&key), |head, body| {
            let original = PathBuf::from("/").join(OsStr::from_bytes(&head.name));
            if original.exists() {
                return Ok(());
            }
            let path = home.join(OsStr::from_bytes(&head.name));
            durable::make_dirs(path.parent().unwrap_or(&home), 0o700)?;
            let mut bytes = Vec::new();
            body.read_to_end(&mut bytes).map_err(|e| Error::io("cannot read the configuration", &path, e))?;
            durable::atomic_replace(&path, &bytes, 0o600)?;
            laid.push(original);
            Ok(())
        })?;
        Ok::<_, Error>(laid)
    });
    let laid = laid.await.map_err(|e| Error::internal("a worker died").because(e))??;
    Ok(laid
        .into_iter()
        .map(|path| format!("{} is not on this host; the backup's copy is below {DIRECTORY}", path.display()))
        .collect())
}
