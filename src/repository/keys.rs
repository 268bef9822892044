//! The only place that spells and reads keys (FORMAT.md, "Keys").

pub mod backup;
pub mod marks;
pub mod wal;

use crate::model::{ClusterName, SystemId};

/// The root's own document; without it a root is no repository.
pub const ROOT: &str = "pgkeep.json";

/// `<cluster>/cluster.json`
pub fn cluster(cluster: &ClusterName) -> String {
    format!("{cluster}/cluster.json")
}

/// `<cluster>/systems/`
pub fn systems(cluster: &ClusterName) -> String {
    format!("{cluster}/systems/")
}

/// `<cluster>/systems/<system-id>.json`
pub fn system(cluster: &ClusterName, system: SystemId) -> String {
    format!("{}{system}.json", systems(cluster))
}

/// The system identifier of a key below [`systems`].
pub fn parse_system(cluster: &ClusterName, key: &str) -> Option<SystemId> {
    let stem = key.strip_prefix(&systems(cluster))?.strip_suffix(".json")?;
    decimal(stem).map(SystemId)
}

/// How many levels below `<cluster>/<area>/` the pieces lie that are listed one by one: a backup, 4 GiB of WAL.
pub fn levels(area: &str) -> u32 {
    match area {
        "wal" => 3,
        "backups" => 1,
        _ => 0,
    }
}

/// A prefix that nobody else uses, for what `check` writes and removes: `check/<16 hex digits>`.
pub fn probe(random: u64) -> String {
    format!("check/{random:016x}")
}

/// True for the key of an encrypted object, of its continuations and of its replacement.
pub fn is_encrypted(key: &str) -> bool {
    replaced(key).split('.').any(|part| part == "age")
}

/// True for what lies below a cluster's WAL.
pub fn is_wal(key: &str) -> bool {
    key.contains("/wal/")
}

/// The key of the object that this one replaces; the key itself where it is no replacement.
pub fn replaced(key: &str) -> &str {
    key.split_once(".healed-").map_or(key, |(own, _)| own)
}

/// The name of the signature of a document.
pub fn signature_of(key: &str) -> String {
    format!("{key}.minisig")
}

/// A decimal number as `Display` prints it: no sign, no leading zero.
fn decimal(text: &str) -> Option<u64> {
    let number = text.parse::<u64>().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_identifier_reads_back_from_its_key_and_nothing_else_does() {
        let main = ClusterName::parse("main").unwrap();
        let key = system(&main, SystemId(7_512_345_678_901_234_567));
        assert_eq!(key, "main/systems/7512345678901234567.json");
        assert_eq!(parse_system(&main, &key), Some(SystemId(7_512_345_678_901_234_567)));
        for key in [
            "main/systems/+7.json",
            "main/systems/07.json",
            "main/systems/7.json.tmp",
            "main/systems/a/7.json",
            "other/systems/7.json",
        ] {
            assert_eq!(parse_system(&main, key), None, "{key}");
        }
    }
}
