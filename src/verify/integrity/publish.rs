//! What is written down: the report of a run, signed, with what was checked when; and marks of backups.
//!
//! A backup gets a mark when all of it was looked at: `verified` when that is new or the last one is a week old,
//! `failed-verification` when something about it is wrong and was not so before.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::finding::{Checked, Finding, Kind};
use super::heal::Healed;
use super::memory::Memory;
use super::reading::Trouble;
use super::records::{About, Wrong};
use super::run::Cx;
use super::{Counts, signed};
use crate::error::Result;
use crate::model::{BackupId, ClusterName, RepoName, Timestamp};
use crate::repository::catalog::CatalogEntry;
use crate::repository::documents::{self, FORMAT};
use crate::repository::keys::marks;
use crate::repository::{self, access, reports};
use crate::util::host;

/// As it stands in the keys of reports.
pub const REPORT_KIND: &str = "verification";
/// The marks.
const VERIFIED: &str = "verified";
const FAILED: &str = "failed-verification";
/// A backup that stays whole is marked anew so often.
const MARK_AGAIN: Duration = Duration::from_hours(7 * 24);
/// Reports that are tried when the newest cannot be believed.
const BACK: usize = 5;

/// `<cluster>/reports/<time>-verification.json`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredReport {
    pub format: u32,
    pub kind: String,
    pub cluster: ClusterName,
    pub repository: RepoName,
    pub host: String,
    pub pgkeep_version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    /// Everything that was asked for was looked at, but for what a budget left.
    pub complete: bool,
    pub deep: bool,
    pub counts: Counts,
    pub findings: Vec<Finding>,
    #[serde(default)]
    pub healed: Vec<Healed>,
    #[serde(default)]
    pub unproved: Vec<String>,
    /// Backups that are marked as expiring and not gone yet.
    #[serde(default)]
    pub expiring: u64,
    memory: Memory,
}

/// A backup's mark.
#[derive(Debug, Serialize)]
struct MarkDocument<'a> {
    format: u32,
    mark: &'a str,
    backup: &'a BackupId,
    at: Timestamp,
    host: String,
    /// What was looked at.
    checked: &'a str,
    findings: Vec<&'a Finding>,
}

/// The newest report of a repository that a trusted host signed; what is wrong with newer ones comes with it.
pub(super) async fn newest(cx: &Cx<'_>) -> Result<(Option<StoredReport>, Vec<Wrong>)> {
    let mut wrong: Vec<Wrong> = Vec::new();
    let mut tried = 0;
    for back in reports::LOOK_BACK {
        let since = back.map(|span| cx.clock.now().minus(span));
        let names = reports::names(cx.repository, cx.cluster, &[REPORT_KIND], since).await?;
        // The first of them were looked at when less was listed.
        for name in names.into_iter().take(BACK).skip(tried) {
            tried += 1;
            match stored(cx, &name.key).await {
                Ok(report) => return Ok((Some(report), wrong)),
                Err(Trouble::Store(error)) => return Err(error),
                Err(Trouble::Wrong(Kind::Missing, _)) => {}
                Err(Trouble::Wrong(kind, what)) => {
                    wrong.push(Wrong { kind, key: name.key, about: About::Mark, what });
                }
            }
        }
    }
    Ok((None, wrong))
}

async fn stored(cx: &Cx<'_>, key: &str) -> Checked<StoredReport> {
    let bytes = signed::read(cx.repository, key, cx.trust).await?;
    Ok(documents::parse_versioned(&bytes, &cx.repository.place(key))?)
}

/// Writes the report. A host without a key, or without the right to write, can look all the same: what could not be
/// written is a note.
pub(super) async fn report(cx: &Cx<'_>, report: &StoredReport) -> Result<()> {
    let host_key = access::host_key(cx.config)?;
    let (key, now) = (marks::report(cx.cluster, report.finished_at, REPORT_KIND), cx.clock.now());
    // Not as to several repositories: an optional one is waited for, too, for this is what its next look begins with.
    repository::signed::write(cx.repository, &key, documents::to_bytes(report)?, &host_key, now).await
}

/// Everything about a report that the run's parts do not know.
pub(super) fn draft(cx: &Cx<'_>, started_at: Timestamp, memory: Memory) -> StoredReport {
    StoredReport {
        format: FORMAT,
        kind: REPORT_KIND.to_owned(),
        cluster: cx.cluster.clone(),
        repository: cx.repository.name.clone(),
        host: host::name(),
        pgkeep_version: env!("CARGO_PKG_VERSION").to_owned(),
        label: cx.label.clone(),
        started_at,
        finished_at: cx.clock.now().max(started_at),
        complete: false,
        deep: cx.deep,
        counts: Counts::default(),
        findings: Vec::new(),
        healed: Vec::new(),
        unproved: Vec::new(),
        expiring: 0,
        memory,
    }
}

impl StoredReport {
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }
}

/// Marks a backup of which everything was looked at.
pub(super) async fn mark(
    cx: &Cx<'_>,
    entry: &CatalogEntry,
    checked: &str,
    findings: Vec<&Finding>,
) -> Result<()> {
    let now = cx.clock.now();
    let last = entry.marks.iter().rev().find(|mark| mark.mark == VERIFIED || mark.mark == FAILED);
    let word = if findings.is_empty() { VERIFIED } else { FAILED };
    let said =
        last.is_some_and(|last| last.mark == word && (word == FAILED || now.since(last.at) < MARK_AGAIN));
    if said {
        return Ok(());
    }
    let host_key = access::host_key(cx.config)?;
    let backup = &entry.record.id;
    let (format, host) = (FORMAT, host::name());
    let document = MarkDocument { format, mark: word, backup, at: now, host, checked, findings };
    let key = marks::mark(cx.cluster, backup, now, word);
    repository::signed::write(cx.repository, &key, documents::to_bytes(&document)?, &host_key, now).await
}
