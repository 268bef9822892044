//! `<cluster>/backups/<backup-id>/…`. Keys inside a backup's directory are relative in `backup.json`.

use crate::model::{BackupId, ClusterName, Digest};

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

/// The key of a damaged object's replacement; `stored` is the digest of the stored bytes.
pub fn healed(key: &str, stored: Digest) -> String {
    let digits = stored.to_string();
    format!("{key}.healed-{}", digits.get(..8).unwrap_or(&digits))
}

/// True for the relative key of a replacement of the object `own`.
pub fn replaces(relative: &str, own: &str) -> bool {
    relative.strip_prefix(own).is_some_and(|rest| rest.starts_with(".healed-"))
}
/// True for the relative key of a replacement of the record or of its signature.
pub fn is_healed_record(relative: &str) -> bool {
    replaces(relative, RECORD) || replaces(relative, SIGNATURE)
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
/// True for the relative key of the manifest.
pub fn is_manifest(relative: &str) -> bool {
    relative.starts_with("manifest.json")
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

/// Relative: the archive of a database.
pub fn dump(database: &str, suffix: &str) -> String {
    format!("dump/{}.dump{suffix}", component(database))
}
/// Relative: the plain DDL of a database, or of its exported tables.
pub fn schema(database: &str, suffix: &str) -> String {
    format!("schema/{}.sql{suffix}", component(database))
}
/// Relative: roles and tablespaces.
pub fn globals(suffix: &str) -> String {
    format!("globals.sql{suffix}")
}
/// Relative: an exported table.
pub fn csv(database: &str, schema: &str, table: &str, suffix: &str) -> String {
    format!("csv/{}/{}/{}.csv{suffix}", component(database), component(schema), component(table))
}

/// The `number`-th object, from 1, of a stream that is longer than an object may be: the key itself, then
/// `<key>.part002` …
pub fn part(key: &str, number: u32) -> String {
    if number <= 1 { key.to_owned() } else { format!("{key}.part{number:03}") }
}

/// The longest component; stores and file systems allow 255 bytes with what is appended.
const COMPONENT: usize = 200;
/// Hex digits of the SHA-256 that tell two cut names apart.
const DIGITS: usize = 16;

/// A name of SQL as one component of a path: every byte outside `[A-Za-z0-9_-]` is `%XX`. Longer than [`COMPONENT`], it
/// is cut and ends in `~` and the first [`DIGITS`] hex digits of the SHA-256 of the uncut component.
fn component(name: &str) -> String {
    let mut whole = String::with_capacity(name.len());
    let mut fits = 0;
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            whole.push(char::from(byte));
        } else {
            whole.push_str(&format!("%{byte:02X}"));
        }
        // Never in the middle of a `%XX`.
        if whole.len() < COMPONENT - DIGITS {
            fits = whole.len();
        }
    }
    if whole.len() <= COMPONENT {
        return whole;
    }
    let digest = Digest::of(whole.as_bytes()).to_string();
    whole.truncate(fits);
    format!("{whole}~{}", &digest[..DIGITS])
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
    use proptest::prelude::*;

    #[test]
    fn names_of_sql_become_components() {
        assert_eq!(dump("app", ".zst.age"), "dump/app.dump.zst.age");
        assert_eq!(schema("My \"Db\"", ".zst"), "schema/My%20%22Db%22.sql.zst");
        let key = csv("app", "..", "Größe/1%", ".zst.age");
        assert_eq!(key, "csv/app/%2E%2E/Gr%C3%B6%C3%9Fe%2F1%25.csv.zst.age");
        // printf %s "$(printf 'a%.0s' {1..201})" | sha256sum
        let cut = component(&"a".repeat(201));
        assert_eq!(cut, format!("{}~{}", "a".repeat(183), "a92efd82109373e5"));
        assert_eq!(part("dump/app.dump.zst", 1), "dump/app.dump.zst");
        assert_eq!(part("dump/app.dump.zst", 2), "dump/app.dump.zst.part002");
    }

    /// The name that a component was made from; None for a cut one.
    fn unescaped(component: &str) -> Option<String> {
        if component.contains('~') {
            return None;
        }
        let mut bytes = Vec::new();
        let mut rest = component;
        while let Some(c) = rest.chars().next() {
            if c == '%' {
                bytes.push(u8::from_str_radix(&rest[1..3], 16).unwrap());
                rest = &rest[3..];
            } else {
                bytes.push(u8::try_from(c).unwrap());
                rest = &rest[1..];
            }
        }
        String::from_utf8(bytes).ok()
    }

    proptest! {
        #[test]
        fn any_name_is_one_safe_component_that_says_the_name(name in "\\PC{1,120}") {
            let component = component(&name);
            prop_assert!(component.len() <= COMPONENT);
            let safe = |b: u8| b.is_ascii_alphanumeric() || b"_-%~".contains(&b);
            prop_assert!(component.bytes().all(safe), "{}", component);
            if let Some(back) = unescaped(&component) {
                prop_assert_eq!(back, name);
            } else {
                prop_assert!(component.len() > COMPONENT - 20);
            }
        }

        #[test]
        fn two_names_never_meet(a in "[a-zÄ./%~]{1,90}", b in "[a-zÄ./%~]{1,90}") {
            prop_assume!(a != b);
            prop_assert_ne!(component(&a), component(&b));
        }

        #[test]
        fn two_long_names_that_begin_alike_never_meet(head in "[a-z ]{150,200}", a in "[a-z]{30,40}", b in "[a-z]{30,40}") {
            prop_assume!(a != b);
            prop_assert_ne!(component(&format!("{head}{a}")), component(&format!("{head}{b}")));
        }
    }

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
