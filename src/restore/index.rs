//! What the index of a backup says for a restore: sizes by tablespace, the version directory, settings.

use std::collections::BTreeMap;

use crate::repository::index::BackupIndex;
use crate::wal::WalSettings;

/// `PG_18_202506291`, where the backup has tablespaces.
pub fn version_directory(index: &BackupIndex) -> Option<String> {
    index.members.iter().find_map(|m| {
        let name = std::str::from_utf8(m.name.as_bytes()).ok()?;
        let (_, inside) = name.strip_prefix("pg_tblspc/")?.split_once('/')?;
        let version = inside.split('/').next()?;
        version.starts_with("PG_").then(|| version.to_owned())
    })
}

/// What a recovering server needs, when replayed WAL asks for more than the backup's server had: production was given
/// more connections after it. None when it does not.
pub fn more_than_had(asked: Option<WalSettings>, index: &BackupIndex) -> Option<WalSettings> {
    let had = |name: &str| index.settings.get(name).and_then(|v| v.parse::<u32>().ok()).unwrap_or(0);
    let asked = asked?;
    let had = WalSettings {
        wal_level: asked.wal_level,
        max_connections: had("max_connections"),
        max_worker_processes: had("max_worker_processes"),
        max_wal_senders: had("max_wal_senders"),
        max_prepared_transactions: had("max_prepared_transactions"),
        max_locks_per_transaction: had("max_locks_per_transaction"),
    };
    let most = had.most(asked);
    (most != had).then_some(most)
}

/// Bytes of members by tablespace; 0 is the data directory.
pub fn bytes_by_tablespace(index: &BackupIndex) -> Vec<(u32, u64)> {
    let mut bytes: BTreeMap<u32, u64> = BTreeMap::from([(0, 0)]);
    for member in &index.members {
        let oid = std::str::from_utf8(member.name.as_bytes())
            .ok()
            .and_then(|name| name.strip_prefix("pg_tblspc/")?.split('/').next()?.parse().ok());
        *bytes.entry(oid.unwrap_or(0)).or_default() += member.size;
    }
    bytes.into_iter().collect()
}
