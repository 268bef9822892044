//! `<cluster>/marks/<backup-id>/<time>-<mark>.json` and `<cluster>/reports/<time>-<kind>.json`.

use chrono::NaiveDateTime;

use crate::model::{BackupId, ClusterName, Timestamp};

/// `<cluster>/marks/`
pub fn all(cluster: &ClusterName) -> String {
    format!("{cluster}/marks/")
}

/// `<cluster>/marks/<backup-id>/`
pub fn of(cluster: &ClusterName, backup: &BackupId) -> String {
    format!("{}{backup}/", all(cluster))
}

/// A mark's key; `mark` is a word such as `pinned` or `failed-verification`.
pub fn mark(cluster: &ClusterName, backup: &BackupId, at: Timestamp, mark: &str) -> String {
    format!("{}{}-{mark}.json", of(cluster, backup), at.compact_micros())
}

/// `<cluster>/reports/`
pub fn all_reports(cluster: &ClusterName) -> String {
    format!("{cluster}/reports/")
}

/// A report's key.
pub fn report(cluster: &ClusterName, at: Timestamp, kind: &str) -> String {
    format!("{}{}-{kind}.json", all_reports(cluster), at.compact_micros())
}

/// Every report of `at` or later comes after this key.
pub fn reports_before(cluster: &ClusterName, at: Timestamp) -> String {
    format!("{}{}", all_reports(cluster), at.compact_micros())
}

/// When and of which kind a report is, by its key; None for signatures and whatever is not a report.
pub fn parse_report(cluster: &ClusterName, key: &str) -> Option<(Timestamp, String)> {
    let (at, kind) = time_and_word(key.strip_prefix(&all_reports(cluster))?.strip_suffix(".json")?)?;
    Some((at, kind.to_owned()))
}

/// `<time>-<word>`
fn time_and_word(name: &str) -> Option<(Timestamp, &str)> {
    let (time, word) = name.split_once('-')?;
    let at = NaiveDateTime::parse_from_str(time, "%Y%m%dT%H%M%S%.6fZ").ok()?;
    let at = Timestamp(at.and_utc());
    let is_word = !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    (is_word && at.compact_micros() == time).then_some((at, word))
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
    let (at, mark) = time_and_word(name)?;
    Some(MarkName { backup: BackupId::parse(backup)?, at, mark: mark.to_owned() })
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

    #[test]
    fn a_report_reads_back_from_its_key() {
        let main = ClusterName::parse("main").unwrap();
        let at: Timestamp = "2026-11-22T03:04:05.000006Z".parse().unwrap();
        let key = report(&main, at, "restore-test");
        assert_eq!(key, "main/reports/20261122T030405.000006Z-restore-test.json");
        assert_eq!(parse_report(&main, &key), Some((at, "restore-test".to_owned())));
        assert_eq!(parse_report(&main, &format!("{key}.minisig")), None);
        assert_eq!(parse_report(&main, "main/reports/x.json"), None);
        let earlier = report(&main, at.minus(std::time::Duration::from_secs(1)), "z");
        let before = reports_before(&main, at);
        assert!(earlier < before && before < key);
    }
}
