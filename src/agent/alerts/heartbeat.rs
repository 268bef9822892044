//! A URL that is asked for while all is well: a service elsewhere alarms when it is not. So the agent's own death, a
//! host that is gone, and receivers that fail all come to light.
//!
//! "All is well" means: the agent runs, none of its loops hangs, its rules were looked at within the last minutes, and
//! no critical alert is open. With one open the beat stops on purpose: it is then a second way on which the news arrives.
//! A warning does not stop it.
//!
//! Failure: a beat that does not arrive is not repeated before its next time; the absence is the alarm.

use std::time::Duration;

use super::sink::{Http, Refusal};
use crate::agent::Hub;
use crate::agent::board::{Severity, Snapshot};
use crate::config::alerts::HeartbeatConfig;
use crate::error::Result;
use crate::model::Timestamp;

/// For one try.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Rules that have not been looked at for so long say nothing about now.
const LOOKED: Duration = Duration::from_mins(5);

/// Runs until the hub's token is cancelled; ends at once where none is configured.
pub async fn run(hub: Hub) -> Result<()> {
    let Some(config) = &hub.config.heartbeat else { return Ok(()) };
    let mut http = None;
    let mut silent = false;
    loop {
        // The interval comes first: facts are found out before the first beat.
        tokio::select! {
            () = hub.shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(config.interval) => {}
        }
        let (facts, late) = (hub.board.snapshot(), hub.pulse.late());
        let why = why_silent(&facts, &late, hub.config.alerts.check_interval, hub.clock.now());
        if why.is_some() != silent {
            silent = why.is_some();
            let why = why.as_deref().unwrap_or("all is well again");
            tracing::warn!(why, "the heartbeat {}", if silent { "stops" } else { "goes on" });
        }
        if silent {
            continue;
        }
        if let Err(error) = beat(&mut http, config).await {
            tracing::warn!(%error, "the heartbeat could not be sent");
            // What it needs may have been mended: it is read anew.
            http = None;
        }
    }
}

async fn beat(http: &mut Option<Http>, config: &HeartbeatConfig) -> Result<()> {
    let open = match http {
        Some(open) => open,
        None => http.insert(Http::new(&config.http, TIMEOUT)?),
    };
    open.get().await.map_err(Refusal::into_error)
}

/// None while all is well.
fn why_silent(facts: &Snapshot, late: &[String], check_interval: Duration, now: Timestamp) -> Option<String> {
    if let Some(name) = late.first() {
        return Some(format!("a loop of the agent hangs: {name}"));
    }
    if let Some(alert) = facts.alerts.iter().find(|alert| alert.severity == Severity::Critical) {
        return Some(format!("a critical alert is open: {}", alert.key));
    }
    match facts.alerts_checked_at {
        None => Some("the rules have not been looked at yet".to_owned()),
        Some(at) if now.since(at) > LOOKED.max(check_interval * 3) => {
            Some(format!("the rules have not been looked at since {}", at.human()))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::alerts::rules::tests::facts;
    use crate::agent::board::OpenAlert;

    #[test]
    fn the_heart_beats_only_while_the_rules_are_looked_at_and_nothing_critical_is_open() {
        let every = Duration::from_secs(15);
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let mut facts = facts(now);
        assert!(why_silent(&facts, &[], every, now).is_some(), "nobody has looked yet");
        facts.alerts_checked_at = Some(now);
        assert_eq!(why_silent(&facts, &[], every, now), None);
        assert!(why_silent(&facts, &[], every, now.plus(Duration::from_mins(6))).is_some(), "the rules hang");
        assert!(why_silent(&facts, &["archiver".to_owned()], every, now).unwrap().contains("archiver"));
        let mut alert = OpenAlert {
            key: "archive-lag:main".into(),
            rule: "archive-lag".into(),
            severity: Severity::Warning,
            labels: std::collections::BTreeMap::default(),
            since: now,
            summary: String::new(),
            mend: String::new(),
            runbook: None,
        };
        facts.alerts.push(alert.clone());
        assert_eq!(why_silent(&facts, &[], every, now), None, "a warning is no reason");
        alert.severity = Severity::Critical;
        facts.alerts = vec![alert];
        assert!(why_silent(&facts, &[], every, now).unwrap().contains("archive-lag:main"));
    }
}
