//! What `pgkeep status` says, as a value: pure, from a snapshot, whether it came from the agent or was found without
//! one. The most urgent first: what is wrong, each with the command that mends it ([`troubles`]); then, by cluster, what
//! would be lost now, how long until back, and the rest ([`lines`]).
//!
//! Nothing is healthy here that `/readyz` doubts. An open alert about the same thing is told once, with its age.

use serde::Serialize;

use super::board::Snapshot;
use super::exposure::{self, Loss, Return};
use crate::config::AlertsConfig;
use crate::model::{ClusterName, Timestamp};

mod lines;
mod troubles;

pub use troubles::Trouble;

/// Who knew what is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum AgentState {
    Running {
        since: Timestamp,
    },
    /// Nobody answers; server and stores were asked by the command itself.
    Down {
        why: String,
    },
}

/// A line of the screen; its text may have several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    pub label: String,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClusterView {
    pub name: ClusterName,
    /// Version and role.
    pub title: String,
    pub loss: Loss,
    pub time_to_return: Option<Return>,
    pub lines: Vec<Line>,
}

/// The screen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StatusView {
    pub host: String,
    pub at: Timestamp,
    pub agent: AgentState,
    /// Nothing is wrong.
    pub healthy: bool,
    pub troubles: Vec<Trouble>,
    pub clusters: Vec<ClusterView>,
    pub repositories: Vec<Line>,
    pub jobs: Vec<Line>,
}

/// What is little is said by the thresholds of the alerts.
pub fn view(snapshot: &Snapshot, agent: AgentState, thresholds: &AlertsConfig, now: Timestamp) -> StatusView {
    let troubles = troubles::all(snapshot, &agent, thresholds, now);
    let clusters = snapshot.clusters.iter().map(|(name, facts)| ClusterView {
        name: name.clone(),
        title: lines::title(facts),
        loss: exposure::loss(facts, now),
        time_to_return: exposure::time_to_return(facts),
        lines: lines::cluster(facts, now),
    });
    StatusView {
        host: snapshot.host.clone(),
        at: now,
        healthy: troubles.is_empty(),
        troubles,
        clusters: clusters.collect(),
        repositories: lines::repositories(snapshot, now),
        jobs: lines::jobs(snapshot, now),
        agent,
    }
}

#[cfg(test)]
mod tests;
