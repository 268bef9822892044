//! What a drill or a restore test came to: one value, kept as JSON and shown as Markdown and HTML.
//!
//! Three things can be said of a check: it holds, it fails, or it was not made. What was not made is never called passed.

mod html;
mod text;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::model::{BackupId, ClusterName, Lsn, RepoName, TimelineId, Timestamp};
use crate::restore::estimate::{Estimate, Measured};
use crate::restore::plan::Commit;
use crate::restore::reachable::Stretch;
use crate::util::clock::Stopwatch;
use crate::util::human;

pub use html::html;
pub use text::markdown;

pub const FORMAT: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Drill,
    RestoreTest,
}

impl Kind {
    /// As in the report's key.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Drill => "drill",
            Self::RestoreTest => "restore-test",
        }
    }
    pub const fn words(self) -> &'static str {
        match self {
            Self::Drill => "drill",
            Self::RestoreTest => "restore test",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Holds,
    Fails,
    /// It could not be looked at; nothing is said of it.
    Unproved,
}

/// One thing that was looked at, or should have been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What it belongs to: `recovery`, `instance`, `assertions`, a backup.
    pub of: String,
    pub name: String,
    pub planned: String,
    pub found: String,
    pub verdict: Verdict,
    /// Without it there is no proof: where it was not made, the whole is unproved.
    pub essential: bool,
}

impl Check {
    pub fn new(of: &str, name: impl Into<String>, planned: impl Into<String>) -> Self {
        Self {
            of: of.to_owned(),
            name: name.into(),
            planned: planned.into(),
            found: String::new(),
            verdict: Verdict::Unproved,
            essential: false,
        }
    }
    pub fn essential(mut self) -> Self {
        self.essential = true;
        self
    }
    pub fn found(mut self, holds: bool, found: impl Into<String>) -> Self {
        self.verdict = if holds { Verdict::Holds } else { Verdict::Fails };
        self.found = found.into();
        self
    }
    /// What a question gave: whether it holds, and what was found. An error is an answer too: it does not hold.
    pub fn answered(self, answer: Result<(bool, String)>) -> Self {
        match answer {
            Ok((holds, found)) => self.found(holds, found),
            Err(e) => self.found(false, e.to_string()),
        }
    }
    pub fn unproved(mut self, why: impl Into<String>) -> Self {
        self.verdict = Verdict::Unproved;
        self.found = why.into();
        self
    }
}

/// A part of the run, in its order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub name: String,
    pub seconds: f64,
    /// It belongs to the time until the cluster is open.
    pub counts: bool,
}

/// An objective of the configuration, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    /// `RPO` or `RTO`.
    pub name: String,
    pub objective_seconds: Option<f64>,
    pub achieved_seconds: Option<f64>,
    /// None where nothing was asked for.
    pub verdict: Option<Verdict>,
    /// What the figure means.
    pub meaning: String,
}

/// What was brought back, and from what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recovered {
    pub target: String,
    /// How the target was chosen.
    pub chosen: String,
    pub seed: Option<u64>,
    /// What could have been recovered to.
    pub stretches: Vec<Stretch>,
    pub backup: BackupId,
    pub backup_of: Timestamp,
    pub repository: RepoName,
    pub backup_bytes: u64,
    pub stored_bytes: u64,
    pub wal_from: Lsn,
    pub wal_to: Lsn,
    pub wal_bytes: u64,
    pub timeline: TimelineId,
    pub ends_at: Lsn,
    pub last_commit_kept: Option<Commit>,
    /// Where there was no room for all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<PartOf>,
}

/// What of a base backup was restored, and what was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartOf {
    pub restored: Vec<String>,
    pub restored_bytes: u64,
    /// The largest first.
    pub left_out: Vec<LeftOut>,
}

/// A database that there was no room for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    pub name: String,
    pub bytes: u64,
}

impl PartOf {
    /// For people: some of them by name.
    pub fn left_out_text(&self) -> String {
        let all = self.left_out.iter();
        first(all.map(|database| match database.bytes {
            // WAL made it: the backup knows no size.
            0 => database.name.clone(),
            bytes => format!("{} ({})", database.name, human::size(bytes)),
        }))
    }
    pub fn restored_text(&self) -> String {
        format!("{} ({})", first(self.restored.iter().cloned()), human::size(self.restored_bytes))
    }
}

/// A cluster may have thousands.
fn first(all: impl ExactSizeIterator<Item = String>) -> String {
    const MOST: usize = 20;
    let more = all.len().saturating_sub(MOST);
    let mut text = all.take(MOST).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text += &format!(" and {more} more");
    }
    text
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Passed,
    Unproved,
    Failed,
}

impl Outcome {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Unproved => "unproved",
            Self::Failed => "FAILED",
        }
    }
}

/// The recovery kit that a drill used, and nothing else of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromKit {
    pub made_at: Timestamp,
    /// Where it was made.
    pub host: String,
    /// Of the recipients.
    pub fingerprint: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub format: u32,
    pub kind: Kind,
    pub pgkeep: String,
    pub host: String,
    pub cluster: ClusterName,
    /// The one that was used alone (`--repo`).
    pub only: Option<RepoName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kit: Option<FromKit>,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub outcome: Outcome,
    pub recovered: Option<Recovered>,
    pub objectives: Vec<Objective>,
    pub checks: Vec<Check>,
    pub steps: Vec<Step>,
    /// What it was thought to take before it began.
    pub estimate: Option<Estimate>,
    /// What it took, where it came to its end.
    pub measured: Option<Measured>,
    /// Why it came to no end.
    pub error: Option<String>,
    pub notes: Vec<String>,
}

impl Report {
    pub fn new(kind: Kind, cluster: &ClusterName, only: Option<&RepoName>, started_at: Timestamp) -> Self {
        Self {
            format: FORMAT,
            kind,
            pgkeep: env!("CARGO_PKG_VERSION").to_owned(),
            host: crate::util::host::name(),
            cluster: cluster.clone(),
            only: only.cloned(),
            kit: None,
            started_at,
            finished_at: started_at,
            outcome: Outcome::Unproved,
            recovered: None,
            objectives: Vec::new(),
            checks: Vec::new(),
            steps: Vec::new(),
            estimate: None,
            measured: None,
            error: None,
            notes: Vec::new(),
        }
    }

    /// A part of the run has come to its end.
    pub fn step(&mut self, name: &str, watch: Stopwatch, counts: bool) {
        self.steps.push(Step { name: name.to_owned(), seconds: watch.elapsed().as_secs_f64(), counts });
    }

    /// Says what all of it comes to.
    pub fn judge(&mut self) {
        let checks = || self.checks.iter();
        let missed = self.objectives.iter().any(|o| o.verdict == Some(Verdict::Fails));
        self.outcome = if self.error.is_some() || missed || checks().any(|c| c.verdict == Verdict::Fails) {
            Outcome::Failed
        } else if checks().any(|c| c.essential && c.verdict == Verdict::Unproved)
            || !checks().any(|c| c.verdict == Verdict::Holds)
        {
            Outcome::Unproved
        } else {
            Outcome::Passed
        };
    }

    pub fn count(&self, verdict: Verdict) -> usize {
        self.checks.iter().filter(|check| check.verdict == verdict).count()
    }

    /// What must be told to somebody: nothing where it has passed.
    pub fn findings(&self) -> Vec<String> {
        let mut found: Vec<String> = self.error.iter().cloned().collect();
        let wanted = |check: &&Check| {
            check.verdict == Verdict::Fails || (check.essential && check.verdict == Verdict::Unproved)
        };
        for check in self.checks.iter().filter(wanted) {
            let verdict = if check.verdict == Verdict::Fails { "" } else { " is unproved" };
            found.push(format!("{}: {}{verdict}: {}", check.of, check.name, check.found));
        }
        for missed in self.objectives.iter().filter(|o| o.verdict == Some(Verdict::Fails)) {
            found.push(missed.text());
        }
        found
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let part = self.recovered.as_ref().and_then(|recovered| recovered.part.as_ref());
        let kind = match part {
            Some(_) => format!("{} of a PART", self.kind.words()),
            None => self.kind.words().to_owned(),
        };
        let from = match &self.recovered {
            Some(recovered) => format!(" to {} from {}", recovered.target, recovered.backup),
            None => String::new(),
        };
        let took = match &self.measured {
            Some(measured) => format!(", open after {}", crate::restore::estimate::span(measured.seconds())),
            None => String::new(),
        };
        let unproved = match self.count(Verdict::Unproved) {
            0 => String::new(),
            n => format!(", {n} not made"),
        };
        let holds = match self.count(Verdict::Holds) {
            1 => "1 check holds".to_owned(),
            n => format!("{n} checks hold"),
        };
        let failed = match self.count(Verdict::Fails) {
            0 => String::new(),
            n => format!(", {n} FAILED"),
        };
        format!("{kind}{from}{took}: {holds}{failed}{unproved}")
    }
}

impl Objective {
    pub fn text(&self) -> String {
        let span = |seconds: Option<f64>| {
            seconds.map_or_else(|| "not known".to_owned(), crate::restore::estimate::span)
        };
        let against = match (self.objective_seconds, self.verdict) {
            (None, _) => "no objective is configured".to_owned(),
            (Some(_), Some(Verdict::Holds)) => {
                format!("the objective of {} is kept", span(self.objective_seconds))
            }
            (Some(_), Some(Verdict::Fails)) => {
                format!("the objective of {} is MISSED", span(self.objective_seconds))
            }
            (Some(_), _) => {
                format!("whether the objective of {} is kept is not shown", span(self.objective_seconds))
            }
        };
        format!("{} {}: {against}", self.name, span(self.achieved_seconds))
    }
}

#[cfg(test)]
pub mod tests;
