//! How much a repository holds: the stored bytes of everything below its clusters, from listings alone.
//!
//! Listed piece by piece (a backup, 4 GiB of WAL), so that memory stays small however many objects there are. The few
//! small documents beside the pieces are not counted.

use super::{Repository, keys};
use crate::error::Result;

/// A listing for every backup and every 4 GiB of WAL: for once a day.
pub async fn stored_bytes(repository: &Repository) -> Result<u64> {
    let storage = &repository.storage;
    let mut bytes = 0;
    for cluster in storage.list_dirs("").await? {
        for area in storage.list_dirs(&format!("{cluster}/")).await? {
            for piece in pieces(repository, format!("{cluster}/{area}/"), keys::levels(&area)).await? {
                bytes += storage.list(&piece, None).await?.iter().map(|object| object.bytes).sum::<u64>();
            }
        }
    }
    Ok(bytes)
}

/// The prefixes so many levels below this one, or where it ends earlier.
async fn pieces(repository: &Repository, prefix: String, levels: u32) -> Result<Vec<String>> {
    let (mut ends, mut open) = (Vec::new(), vec![prefix]);
    for _ in 0..levels {
        let mut next = Vec::new();
        for prefix in open {
            let below = repository.storage.list_dirs(&prefix).await?;
            if below.is_empty() {
                ends.push(prefix);
            } else {
                next.extend(below.iter().map(|name| format!("{prefix}{name}/")));
            }
        }
        open = next;
    }
    ends.extend(open);
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::repository::tests::directory;

    #[tokio::test]
    async fn every_backup_and_every_wal_object_is_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        let repository = directory(dir.path(), "a", true).await;
        assert_eq!(stored_bytes(&repository).await.unwrap(), 0);
        let keys = [
            "main/backups/20261121T020000Z-full-3f9a/data/00001.tar.zst",
            "main/backups/20261121T020000Z-full-3f9a/backup.json",
            "main/backups/20261122T020000Z-full-3f9a/data/00001.tar.zst",
            "main/wal/7/00000001/00000000/000000010000000000000001-0.zst",
            "main/wal/7/00000001/00000001/000000010000000100000001-0.zst",
            "main/wal/7/00000002/00000001/000000020000000100000001-0.zst",
            "main/wal/7/history/00000002.history-0.zst",
            "main/wal/8/00000001/00000000/000000010000000000000001-0.zst",
            "main/marks/20261121T020000Z-full-3f9a/20261122T030405.000006Z-pinned.json",
            "other/reports/20261122T030405.000006Z-drill.json",
        ];
        for (number, key) in keys.iter().enumerate() {
            repository.storage.put(key, Bytes::from(vec![1; 1 << number])).await.unwrap();
        }
        assert_eq!(stored_bytes(&repository).await.unwrap(), (1 << keys.len()) - 1);
    }
}
