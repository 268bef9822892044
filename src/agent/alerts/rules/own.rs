//! The agent itself: who watches has to be watched.

use std::time::Duration;

use super::Finding;
use crate::agent::board::Snapshot;
use crate::model::Timestamp;

/// A failing task is started again after a minute at the latest.
const RECENT: Duration = Duration::from_mins(3);
const TASK_HOLD: Duration = Duration::from_mins(5);
const SINK_HOLD: Duration = Duration::from_mins(10);

pub(super) fn findings(facts: &Snapshot, now: Timestamp) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, task) in &facts.tasks {
        if let Some(failure) = task.failure.as_ref().filter(|failure| now.since(failure.at) < RECENT) {
            let summary = format!("agent: the task {name} fails again and again: {}", failure.text);
            let finding = Finding::new("task-failing", "task", name).says(summary);
            found.push(finding.mend("journalctl -u pgkeep").hold(TASK_HOLD));
        }
    }
    if let Some(failure) = &facts.reload_refused {
        let summary = format!(
            "agent: the configuration of {} was refused and the one before it is in use: {}",
            failure.at.human(),
            failure.text
        );
        found.push(
            Finding::new("configuration-refused", "host", &facts.host)
                .says(summary)
                .mend("pgkeep config check"),
        );
    }
    for (name, sink) in &facts.sinks {
        if let Some(failure) = &sink.failure {
            let summary = format!("agent: alerts cannot be sent to {name}: {}", failure.text);
            let finding = Finding::new("sink-failing", "sink", name).says(summary);
            found.push(finding.mend(format!("pgkeep alerts test --sink '{name}'")).hold(SINK_HOLD));
        }
    }
    found
}
