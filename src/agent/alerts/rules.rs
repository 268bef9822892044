//! When is something wrong? Each rule is a pure function of what the board says, the thresholds and the moment; the
//! list of rules below is also the page `config/ALERTS.md`.
//!
//! A rule says what it sees now. Whether that has lasted long enough to tell anybody is the state machine's business
//! ([`super::machine`]): a finding only carries for how long it must hold.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::agent::board::{Severity, Snapshot};
use crate::config::AlertsConfig;
use crate::model::Timestamp;

mod archive;
mod backups;
mod jobs;
mod objectives;
mod own;
mod server;
mod stores;

/// A rule as it is documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub name: &'static str,
    /// In words, where it depends.
    pub severity: &'static str,
    pub when: &'static str,
    /// The keys of `[alerts]` that move it.
    pub thresholds: &'static [&'static str],
    /// A page in `runbooks/`.
    pub runbook: &'static str,
}

/// Something is wrong now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub rule: &'static str,
    /// `cluster`, `repository`, `job`, `task` or `sink`, and its name.
    pub labels: BTreeMap<String, String>,
    pub severity: Severity,
    /// What, where, since when.
    pub summary: String,
    /// The command that mends it, or shows more.
    pub mend: String,
    /// How long it must have been so before anybody is told.
    pub hold: Duration,
}

impl Finding {
    fn new(rule: &'static str, label: &str, name: &(impl ToString + ?Sized)) -> Self {
        Self {
            rule,
            labels: BTreeMap::from([(label.to_owned(), name.to_string())]),
            severity: Severity::Warning,
            summary: String::new(),
            mend: String::new(),
            hold: Duration::ZERO,
        }
    }
    fn critical(mut self) -> Self {
        self.severity = Severity::Critical;
        self
    }
    fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }
    fn says(mut self, summary: impl Into<String>) -> Self {
        self.summary = summary.into();
        self
    }
    fn mend(mut self, command: impl Into<String>) -> Self {
        self.mend = command.into();
        self
    }
    fn hold(mut self, span: Duration) -> Self {
        self.hold = span;
        self
    }
    /// Rule and subject: what makes two findings the same alert.
    pub fn key(&self) -> String {
        let names: Vec<&str> = self.labels.values().map(String::as_str).collect();
        format!("{}:{}", self.rule, names.join("/"))
    }
}

const ARCHIVING: &str = "archiving-stalled.md";
const DISK: &str = "disk-filling.md";
const STORE: &str = "store-unreachable.md";
const WAL: &str = "wal-missing-or-damaged.md";
const BACKUPS: &str = "backups-failing.md";
const AGENT: &str = "agent-in-trouble.md";
const DAMAGED: &str = "repository-damaged.md";
const DRILL: &str = "drill-failed.md";

const fn rule(
    name: &'static str,
    severity: &'static str,
    when: &'static str,
    thresholds: &'static [&'static str],
    runbook: &'static str,
) -> Rule {
    Rule { name, severity, when, thresholds, runbook }
}

/// Every rule.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    rule("archive-lag", "critical", "The oldest WAL file that waits to be archived waits for longer than this.",
        &["archive_lag"], ARCHIVING),
    rule("archive-failing", "warning", "Archiving has failed, without a success, for this long.",
        &["archive_failing"], ARCHIVING),
    rule("archiver-silent", "critical", "Nobody has looked for WAL to archive for this long, whether or not anything waits.",
        &["archive_lag"], ARCHIVING),
    rule("archiving-off", "critical",
        "PostgreSQL does not archive at all: `archive_mode` is off, or there is no command; held for 1 minute.", &[],
        ARCHIVING),
    rule("tail-behind", "warning", "The live tail is behind what PostgreSQL has flushed by more than this, for 30 seconds.",
        &["tail_lag"], ARCHIVING),
    rule("wal-hole", "critical", "WAL between two archived files is lost: no recovery passes it.", &[], WAL),
    rule("wal-damaged", "critical", "A WAL file that PostgreSQL handed over fails its check: recovery ends there.", &[], WAL),
    rule("wal-conflict", "critical", "The archive holds other content under the same name: two servers archive into one place.",
        &[], WAL),
    rule("disk-full-soon", "warning, critical below the second threshold",
        "As pg_wal grows now, its disk is full within this time; held for 2 minutes.",
        &["disk_full_warning", "disk_full_critical"], DISK),
    rule("disk-low", "warning, critical below half of it",
        "Less than this percentage of the disk of pg_wal is free; held for 1 minute.", &["disk_free"], DISK),
    rule("server-unreachable", "critical", "PostgreSQL has not answered for this long.", &["server_unreachable"], AGENT),
    rule("store-unreachable", "critical for a required repository, else warning",
        "A repository's store has failed, without a success, for this long.", &["store_unreachable"], STORE),
    rule("repository-usage", "warning", "A repository uses more than this percentage of its capacity.",
        &["repository_usage"], STORE),
    rule("credentials-expiring", "warning, critical once they have",
        "A store's credentials, which do not renew themselves, end within this time.", &["credentials_expiry"], STORE),
    rule("job-failed", "critical", "The last run of a job failed.", &[], BACKUPS),
    rule("job-finding", "critical", "The last run of a job did its work and found something wrong.", &[], BACKUPS),
    rule("proof-failed", "critical", "The last drill or restore test found something that a restore would stumble over.",
        &[], DRILL),
    rule("repository-damaged", "critical",
        "The last `verify` job found something wrong with what is stored: missing, damaged, unsigned, or WAL with a hole.", &[],
        DAMAGED),
    rule("job-overdue", "critical", "A job has not started this long after its time.", &["job_overdue"], BACKUPS),
    rule("job-silent", "critical", "A job has not succeeded within this many of its intervals (and one `job_overdue`).",
        &["job_silence"], BACKUPS),
    rule("backup-missing", "critical", "No repository has a full backup of the cluster; held for an hour.", &[], BACKUPS),
    rule("backup-damaged", "critical", "The last backup of a kind has damaged pages.", &[], BACKUPS),
    rule("backup-size", "warning",
        "A backup is smaller or larger than this percentage of the average of earlier ones of its kind.",
        &["backup_size_low", "backup_size_high"], BACKUPS),
    rule("backups-unread", "warning", "What backups there are has not been read for 6 hours.", &[], STORE),
    rule("proof-stale", "warning", "The last proof by a restore is older than this. Begins with the first proof.",
        &["proof_age"], DRILL),
    rule("canary-silent", "warning",
        "`[canary]` is on, PostgreSQL answers, and no row could be written for 5 minutes: drills prove less.", &[], DRILL),
    rule("rto-missed", "warning", "The cluster would be back later than `rto` of [proof] asks for; held for 10 minutes.", &[], DRILL),
    rule("rpo-missed", "critical", "More would be lost than `rpo` of [proof] allows; held for 30 seconds.", &[], DRILL),
    rule("task-failing", "warning", "A part of the agent fails again and again for 5 minutes.", &[], AGENT),
    rule("configuration-refused", "warning",
        "The configuration was to be loaded again and is wrong: the one before it is in use.", &[], AGENT),
    rule("sink-failing", "warning", "Alerts cannot be sent to one of their receivers for 10 minutes: the others are told.",
        &[], AGENT),
];

/// Everything that is wrong at this moment, at most one finding for a key.
pub fn evaluate(facts: &Snapshot, config: &AlertsConfig, now: Timestamp) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, cluster) in &facts.clusters {
        found.extend(archive::findings(name, cluster, facts.started_at, config, now));
        found.extend(server::findings(name, cluster, config, now));
        found.extend(backups::findings(name, &cluster.backups, config, now));
        found.extend(objectives::findings(name, cluster, now));
    }
    for (name, store) in &facts.repositories {
        found.extend(stores::findings(name, store, config, now));
    }
    for (name, job) in &facts.jobs {
        found.extend(jobs::findings(name, job, facts.started_at, config, now));
    }
    found.extend(own::findings(facts, now));
    found
}

/// The page of a rule.
pub fn runbook(rule: &str) -> Option<&'static str> {
    RULES.iter().find(|known| known.name == rule).map(|known| known.runbook)
}

#[cfg(test)]
pub(crate) mod tests;
