//! What becomes of findings: a finding that holds for long enough opens an alert, which is told once, told again while
//! it stays open, and resolved once it has been gone for a while. Pure: findings, moment and elapsed time come in,
//! notices come out.
//!
//! How long something held is counted in elapsed time, never by the clock on the wall, so that a clock that jumps
//! opens nothing and resolves nothing. What was told is kept in the agent's memory ([`crate::agent::state::alerts`]);
//! if that is lost, an open alert is told once more.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rules::{self, Finding};
use crate::agent::board::{OpenAlert, Severity};
use crate::config::AlertsConfig;
use crate::model::Timestamp;

/// What receivers are told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    pub event: Event,
    pub alert: OpenAlert,
    pub at: Timestamp,
    pub host: String,
    /// What was told before, where it has become worse.
    #[serde(default)]
    pub risen_from: Option<Severity>,
    /// Nothing is wrong: somebody tries whether this arrives.
    #[serde(default)]
    pub test: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// New, or worse than when it was told last.
    Opened,
    /// Still so.
    Repeated,
    Resolved,
}

impl Event {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Repeated => "repeated",
            Self::Resolved => "resolved",
        }
    }
}

/// One alert on its way from the first finding to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    pub alert: OpenAlert,
    /// When it was told last; None while it only pends.
    pub told_at: Option<Timestamp>,
    /// How long it has been seen without a break, while it pends.
    pub held: Duration,
    /// How long it has been gone, while it is open.
    pub gone: Duration,
}

impl Watched {
    pub fn is_open(&self) -> bool {
        self.told_at.is_some()
    }
}

/// The passing of time since the step before.
#[derive(Debug, Clone, Copy)]
pub struct Tick {
    pub now: Timestamp,
    /// By the monotonic clock; zero at the first step.
    pub elapsed: Duration,
    /// Since this generation of the agent's tasks began: right after a start the board is empty, and that nothing is
    /// found then does not mean that nothing is wrong.
    pub uptime: Duration,
}

#[derive(Debug, Clone, Default)]
pub struct Machine {
    watched: BTreeMap<String, Watched>,
}

impl Machine {
    /// With what was watched before a restart.
    pub fn with(watched: impl IntoIterator<Item = Watched>) -> Self {
        Self { watched: watched.into_iter().map(|w| (w.alert.key.clone(), w)).collect() }
    }

    pub fn watched(&self) -> Vec<Watched> {
        self.watched.values().cloned().collect()
    }

    /// Those that were told and are not resolved, the worst and oldest first.
    pub fn open(&self) -> Vec<OpenAlert> {
        let mut open: Vec<OpenAlert> =
            self.watched.values().filter(|w| w.is_open()).map(|w| w.alert.clone()).collect();
        open.sort_by(|a, b| (b.severity, a.since, &a.key).cmp(&(a.severity, b.since, &b.key)));
        open
    }

    /// One look at what is found now.
    pub fn step(
        &mut self,
        host: &str,
        findings: Vec<Finding>,
        config: &AlertsConfig,
        tick: Tick,
    ) -> Vec<Notice> {
        let mut notices = Vec::new();
        let mut tell = |event, alert: &OpenAlert, risen_from| {
            let host = host.to_owned();
            notices.push(Notice { event, alert: alert.clone(), at: tick.now, host, risen_from, test: false });
        };
        let mut seen = BTreeMap::new();
        for finding in findings {
            seen.insert(finding.key(), finding);
        }
        let known_enough = tick.uptime >= config.settle.saturating_mul(2);
        self.watched.retain(|key, watched| {
            if seen.contains_key(key) {
                return true;
            }
            if !watched.is_open() {
                return false;
            }
            if known_enough {
                watched.gone = watched.gone.saturating_add(tick.elapsed);
            }
            if watched.gone < config.settle {
                return true;
            }
            tell(Event::Resolved, &watched.alert, None);
            false
        });
        for (key, finding) in seen {
            let hold = finding.hold;
            let watched = match self.watched.entry(key) {
                std::collections::btree_map::Entry::Occupied(known) => {
                    let watched = known.into_mut();
                    watched.held = watched.held.saturating_add(tick.elapsed);
                    watched.gone = Duration::ZERO;
                    watched
                }
                std::collections::btree_map::Entry::Vacant(new) => {
                    let alert = alert(new.key(), &finding, tick.now);
                    new.insert(Watched { alert, told_at: None, held: Duration::ZERO, gone: Duration::ZERO })
                }
            };
            let told = watched.told_at.map(|at| (at, watched.alert.severity));
            update(watched, finding);
            let severity = watched.alert.severity;
            let (event, risen_from) = match told {
                None if watched.held < hold => continue,
                None => (Event::Opened, None),
                Some((_, before)) if severity > before => (Event::Opened, Some(before)),
                Some((at, _)) if is_due(at, tick.now, repeat(severity, config)) => (Event::Repeated, None),
                Some(_) => continue,
            };
            watched.told_at = Some(tick.now);
            tell(event, &watched.alert, risen_from);
        }
        notices
    }
}

fn alert(key: &str, finding: &Finding, now: Timestamp) -> OpenAlert {
    OpenAlert {
        key: key.to_owned(),
        rule: finding.rule.to_owned(),
        severity: finding.severity,
        labels: finding.labels.clone(),
        since: now,
        summary: String::new(),
        mend: String::new(),
        runbook: rules::runbook(finding.rule).map(str::to_owned),
    }
}

/// The words follow what is seen; the severity of an open alert only rises, so that who was told that it is critical
/// is also told when it is over.
fn update(watched: &mut Watched, finding: Finding) {
    let alert = &mut watched.alert;
    alert.severity =
        if watched.told_at.is_some() { alert.severity.max(finding.severity) } else { finding.severity };
    alert.summary = finding.summary;
    alert.mend = finding.mend;
}

fn repeat(severity: Severity, config: &AlertsConfig) -> Duration {
    match severity {
        Severity::Critical => config.repeat_critical,
        Severity::Warning => config.repeat_warning,
    }
}

/// A moment in the future is one of a clock that has been set back since: nobody knows how long ago it was.
fn is_due(told: Timestamp, now: Timestamp, every: Duration) -> bool {
    told > now || now.since(told) >= every
}

#[cfg(test)]
mod tests;
