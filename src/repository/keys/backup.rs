//! `<cluster>/backups/<backup-id>/…`. Keys inside a backup's directory are relative in `backup.json`.

use crate::model::{BackupId, ClusterName};

/// The record, published last.
pub const RECORD: &str = "backup.json";
/// Its signature, written before it.
pub const SIGNATURE: &str = "backup.json.minisig";

/// `<cluster>/backups/`
pub fn all(cluster: &ClusterName) -> String {
    format!("{cluster}/backups/")
}
/// `<cluster>/backups/<id>/`
pub fn directory(cluster: &ClusterName, id: &BackupId) -> String {
    format!("{cluster}/backups/{id}/")
}
/// An object of a backup by its relative key.
pub fn object(cluster: &ClusterName, id: &BackupId, relative: &str) -> String {
    format!("{cluster}/backups/{id}/{relative}")
}
pub fn record(cluster: &ClusterName, id: &BackupId) -> String {
    object(cluster, id, RECORD)
}
pub fn signature(cluster: &ClusterName, id: &BackupId) -> String {
    object(cluster, id, SIGNATURE)
}

/// Relative: the `number`-th pack, from 1. `suffix` is the protection's.
pub fn pack(number: u32, suffix: &str) -> String {
    format!("data/{number:05}.tar{suffix}")
}
/// True for the relative key of a pack.
pub fn is_pack(relative: &str) -> bool {
    relative.starts_with("data/")
}
/// True for the relative key of the index.
pub fn is_index(relative: &str) -> bool {
    relative.starts_with("index.json")
}
/// True for the relative key of the configuration from outside the data directory.
pub fn is_config(relative: &str) -> bool {
    relative.starts_with("config.tar")
}
/// Relative: PostgreSQL's backup manifest.
pub fn manifest(suffix: &str) -> String {
    format!("manifest.json{suffix}")
}
/// Relative: the index of members.
pub fn index(suffix: &str) -> String {
    format!("index.json{suffix}")
}
/// Relative: configuration from outside the data directory.
pub fn config(suffix: &str) -> String {
    format!("config.tar{suffix}")
}

/// The backup and the relative key of a key below [`all`]; None for what is no backup's.
pub fn parse<'k>(cluster: &ClusterName, key: &'k str) -> Option<(BackupId, &'k str)> {
    let rest = key.strip_prefix(cluster.as_str())?.strip_prefix("/backups/")?;
    let (id, relative) = rest.split_once('/')?;
    (!relative.is_empty()).then(|| Some((BackupId::parse(id)?, relative)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_backup_read_back() {
        let main = ClusterName::parse("main").unwrap();
        let id = BackupId::parse("20261121T020000Z-full-3f9a").unwrap();
        let key = object(&main, &id, &pack(7, ".zst.age"));
        assert_eq!(key, "main/backups/20261121T020000Z-full-3f9a/data/00007.tar.zst.age");
        assert_eq!(parse(&main, &key), Some((id.clone(), "data/00007.tar.zst.age")));
        assert_eq!(parse(&main, &record(&main, &id)), Some((id, RECORD)));
        for key in [
            "main/backups/20261121T020000Z-full-3f9a",
            "main/backups/20261121T020000Z-full-3f9a/",
            "main/backups/nonsense/backup.json",
            "main2/backups/20261121T020000Z-full-3f9a/backup.json",
            "mai/backups/20261121T020000Z-full-3f9a/backup.json",
        ] {
            assert_eq!(parse(&main, key), None, "{key}");
        }
    }
}
