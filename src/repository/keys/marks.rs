//! `<cluster>/marks/<backup-id>/<time>-<mark>.json` and `<cluster>/reports/<time>-<kind>.json`.

use chrono::NaiveDateTime;

use crate::model::{BackupId, ClusterName, Timestamp};

/// `<cluster>/marks/`
pub fn all(cluster: &ClusterName) -> String {
    format!("{cluster}/marks/")
}

/// A mark's key; `mark` is a word such as `pinned` or `failed-verification`.
pub fn mark(cluster: &ClusterName, backup: &BackupId, at: Timestamp, mark: &str) -> String {
    format!("{}{backup}/{}-{mark}.json", all(cluster), at.compact_micros())
}

/// `<cluster>/reports/`
pub fn all_reports(cluster: &ClusterName) -> String {
    format!("{cluster}/reports/")
}

/// A report's key.
pub fn report(cluster: &ClusterName, at: Timestamp, kind: &str) -> String {
    format!("{}{}-{kind}.json", all_reports(cluster), at.compact_micros())
}

/// A mark as its key tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkName {
    pub backup: BackupId,
    pub at: Timestamp,
    pub mark: String,
}

/// Reads a mark's key; None for signatures and whatever is not a mark.
pub fn parse(cluster: &ClusterName, key: &str) -> Option<MarkName> {
    let rest = key.strip_prefix(&all(cluster))?.strip_suffix(".json")?;
    let (backup, name) = rest.split_once('/')?;
    let (time, mark) = name.split_once('-')?;
    let at = NaiveDateTime::parse_from_str(time, "%Y%m%dT%H%M%S%.6fZ").ok()?;
    let at = Timestamp(at.and_utc());
    let word = !mark.is_empty() && mark.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    (word && at.compact_micros() == time)
        .then(|| Some(MarkName { backup: BackupId::parse(backup)?, at, mark: mark.to_owned() }))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back_from_its_key() {
        let main = ClusterName::parse("main").unwrap();
        let backup = BackupId::parse("20261121T020000Z-full-3f9a").unwrap();
        let at: Timestamp = "2026-11-22T03:04:05.000006Z".parse().unwrap();
        let key = mark(&main, &backup, at, "failed-verification");
        assert_eq!(
            key,
            "main/marks/20261121T020000Z-full-3f9a/20261122T030405.000006Z-failed-verification.json"
        );
        let read = parse(&main, &key).unwrap();
        assert_eq!(read, MarkName { backup, at, mark: "failed-verification".into() });
        assert_eq!(parse(&main, &format!("{key}.minisig")), None);
        assert_eq!(parse(&main, &key.replace("failed", "Failed")), None);
    }
}
