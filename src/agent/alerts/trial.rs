//! A marked alert and its resolution, sent through each receiver: `pgkeep alerts test`. Works without an agent.

use std::collections::BTreeMap;

use super::machine::{Event, Notice};
use super::sink::{NamedSink, Refusal};
use crate::agent::board::{OpenAlert, Severity};
use crate::config::SinkConfig;
use crate::error::{Error, Result};
use crate::model::Timestamp;

/// One receiver's answer: None, or why it did not take it.
pub async fn run(config: &SinkConfig, host: &str, now: Timestamp) -> Result<(), Error> {
    let sink = NamedSink::of(config);
    for event in [Event::Opened, Event::Resolved] {
        let sent = sink.send(&notice(event, sink.min_severity, host, now)).await;
        sent.map_err(Refusal::into_error)?;
    }
    Ok(())
}

fn notice(event: Event, severity: Severity, host: &str, now: Timestamp) -> Notice {
    let alert = OpenAlert {
        // A key of its own each time, so that no receiver takes it for one that it knows.
        key: format!("test:{now}"),
        rule: "test".to_owned(),
        severity,
        labels: BTreeMap::from([("test".to_owned(), now.to_string())]),
        since: now,
        summary: "this is a test of pgkeep's alerts: nothing is wrong".to_owned(),
        mend: "pgkeep status".to_owned(),
        runbook: None,
    };
    Notice { event, alert, at: now, host: host.to_owned(), risen_from: None, test: true }
}
