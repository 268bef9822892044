//! What happened, as a value: printed, and kept as the incident report (JSON in the repositories, JSON and Markdown
//! beside the data directory). It says what was lost.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::estimate::Measured;
use super::plan::{Commit, Lost, Move, RestorePlan};
use super::recover::Ended;
use super::request::Action;
use crate::model::{BackupId, ClusterName, Lsn, SystemId, Timestamp};
use crate::util::clock::Stopwatch;
use crate::util::human;

/// How long each phase took.
#[derive(Debug)]
pub struct Phases {
    watch: Stopwatch,
    whole: Stopwatch,
    done: Vec<Phase>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    pub name: String,
    pub seconds: f64,
}

impl Phases {
    pub fn start() -> Self {
        Self { watch: Stopwatch::start(), whole: Stopwatch::start(), done: Vec::new() }
    }
    pub fn done(&mut self, name: &str) {
        self.done.push(Phase { name: name.to_owned(), seconds: self.watch.elapsed().as_secs_f64() });
        self.watch = Stopwatch::start();
    }
    pub fn finish(mut self) -> Vec<Phase> {
        self.done.push(Phase { name: "altogether".to_owned(), seconds: self.whole.elapsed().as_secs_f64() });
        self.done
    }
}

/// What was seen of the recovered cluster, held against the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    pub what: String,
    pub planned: String,
    pub found: String,
    pub holds: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub plan: String,
    pub started_at: Timestamp,
    pub host: String,
    pub cluster: ClusterName,
    pub system_identifier: SystemId,
    pub data_directory: PathBuf,
    pub in_place: bool,
    pub target: String,
    pub backup: BackupId,
    pub wal_from: Lsn,
    pub wal_to: Lsn,
    pub ended: Ended,
    pub last_commit_kept: Option<Commit>,
    pub lost: Lost,
    pub kept_aside: Vec<Move>,
    pub proofs: Vec<Proof>,
    pub phases: Vec<Phase>,
    pub notes: Vec<String>,
    /// What the next restore can be estimated from.
    #[serde(default)]
    pub measured: Option<Measured>,
    /// How to connect, and how to end it: of a side instance.
    pub connect: Option<String>,
    pub ends_with: Option<String>,
}

impl Report {
    pub fn new(plan: &RestorePlan) -> Self {
        Self {
            plan: plan.id.clone(),
            started_at: plan.made_at,
            host: plan.host.clone(),
            cluster: plan.cluster.clone(),
            system_identifier: plan.system_identifier,
            data_directory: plan.place.data_directory.clone(),
            in_place: plan.place.in_place,
            target: plan.target.target.to_string(),
            backup: plan.backup.id.clone(),
            wal_from: plan.wal.from,
            wal_to: plan.wal.to,
            ended: Ended::NotStarted,
            last_commit_kept: plan.target.last_kept,
            lost: plan.lost.clone(),
            kept_aside: plan.place.moves.iter().filter(|m| m.to.is_some()).cloned().collect(),
            proofs: Vec::new(),
            phases: Vec::new(),
            notes: plan.warnings.clone(),
            measured: None,
            connect: None,
            ends_with: None,
        }
    }

    /// Everything that was checked is as planned.
    pub fn holds(&self) -> bool {
        self.proofs.iter().all(|p| p.holds)
    }

    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let mut line = |words: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{words}");
        };
        line(format!("# Restore of {} on {}, {}\n", self.cluster, self.host, self.started_at.human()));
        line(format!("* Result: {}", self.result()));
        line(format!("* Target: {}, from backup {}", self.target, self.backup));
        line(format!("* Data directory: {}", self.data_directory.display()));
        line(format!("* System identifier: {}", self.system_identifier));
        line(format!("* WAL replayed: {} to {}", self.wal_from, self.wal_to));
        let kept =
            self.last_commit_kept.map_or_else(|| "none after the backup".to_owned(), |c| c.to_string());
        line(format!("* Last commit kept: {kept}"));
        line("\n## What was left out\n".to_owned());
        if self.lost.bytes() == 0 {
            line("Nothing that the archive holds.".to_owned());
        } else {
            let bytes = human::size(self.lost.bytes());
            line(format!("* WAL {} to {} ({bytes})", self.lost.from, self.lost.to));
            if let Some(first) = &self.lost.first {
                line(format!("* First commit left out: {first}"));
            }
            if let Some(last) = &self.lost.last {
                line(format!("* Last commit left out: {last}"));
            }
        }
        if !self.kept_aside.is_empty() {
            line("\n## Kept until you remove it\n".to_owned());
            for step in &self.kept_aside {
                let to = step.to.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
                line(format!("* {to} (was {})", step.from.display()));
            }
        }
        line("\n## Checked\n".to_owned());
        for proof in &self.proofs {
            let verdict = if proof.holds { "as planned" } else { "NOT AS PLANNED" };
            line(format!("* {}: {} ({verdict}: {})", proof.what, proof.found, proof.planned));
        }
        if !self.notes.is_empty() {
            line("\n## Notes\n".to_owned());
            self.notes.iter().for_each(|note| line(format!("* {note}")));
        }
        line("\n## Times\n".to_owned());
        for phase in &self.phases {
            line(format!("* {}: {:.1} s", phase.name, phase.seconds));
        }
        text
    }

    /// One sentence.
    pub fn result(&self) -> String {
        match &self.ended {
            Ended::NotStarted => {
                "restored, not started: recovery begins when PostgreSQL is started".to_owned()
            }
            Ended::Promoted { timeline, fork } => {
                format!("recovered to lsn {fork} and open for writing on timeline {timeline}")
            }
            Ended::Paused => {
                format!("recovered and {}d at the target, open for reading", Action::Pause.as_str())
            }
            Ended::ShutDown => "recovered and shut down at the target".to_owned(),
            Ended::Following => "running as a standby".to_owned(),
        }
    }
}
