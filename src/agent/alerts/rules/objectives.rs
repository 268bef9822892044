//! What the configuration says may be lost and how long a return may take, beside what it would be now; and the canary, by
//! which drills prove it.

use std::time::Duration;

use super::Finding;
use crate::agent::board::ClusterFacts;
use crate::agent::exposure::{self, Loss};
use crate::model::{ClusterName, Timestamp};
use crate::util::human::rough;

/// A backup of another size, or a burst of WAL, may pass.
const RTO_HOLD: Duration = Duration::from_mins(10);
const RPO_HOLD: Duration = Duration::from_secs(30);
const CANARY_HOLD: Duration = Duration::from_mins(5);

pub(super) fn findings(name: &ClusterName, facts: &ClusterFacts, now: Timestamp) -> Vec<Finding> {
    let of = |rule| Finding::new(rule, "cluster", name);
    let span = |seconds| rough(Duration::from_secs(seconds));
    let mut found = Vec::new();
    if let Some(objective) = facts.objectives.rto_seconds
        && let Some(back) = exposure::time_to_return(facts)
        && back.seconds > objective
    {
        let summary = format!(
            "cluster {name}: it would be back in about {}, and the objective is {}",
            span(back.seconds),
            span(objective)
        );
        let mend = format!("pgkeep drill --cluster {name}");
        found.push(of("rto-missed").says(summary).mend(mend).hold(RTO_HOLD));
    }
    if let Some(objective) = facts.objectives.rpo_seconds
        && let Loss::Commits { seconds, since, .. } = exposure::loss(facts, now)
        && seconds > objective as f64
    {
        let summary = format!(
            "cluster {name}: what was committed since {} would be lost, {}, and the objective is {}",
            since.human(),
            rough(Duration::from_secs_f64(seconds)),
            span(objective)
        );
        let mend = format!("pgkeep status --cluster {name}");
        found.push(of("rpo-missed").critical().says(summary).mend(mend).hold(RPO_HOLD));
    }
    // A server that is down is another alert.
    if let Some(failure) = facts.canary.failure.as_ref().filter(|_| facts.canary.enabled)
        && facts.server.error.is_none()
    {
        let summary = format!("cluster {name}: the canary is not written: {}", failure.text);
        let mend = format!("pgkeep check --cluster {name}");
        found.push(of("canary-silent").says(summary).mend(mend).hold(CANARY_HOLD));
    }
    found
}
