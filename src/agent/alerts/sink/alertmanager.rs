//! Prometheus' Alertmanager, API v2 (its `openapi.yaml`, `postAlerts`): alerts are its own when their labels are equal,
//! and one that is not sent again before its `endsAt` counts as resolved. So all that is open is sent again every
//! minute, with an end a few minutes ahead: an agent that dies leaves nothing firing for ever, and its heartbeat and
//! Prometheus' own rules say that it is dead.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::{Http, Refusal, Sink, page};
use crate::agent::alerts::machine::{Event, Notice};
use crate::agent::board::OpenAlert;
use crate::error::Result;
use crate::model::Timestamp;

const PATH: &str = "/api/v2/alerts";
const REFRESH: Duration = Duration::from_mins(1);
/// Three refreshes may be lost.
const AHEAD: Duration = Duration::from_mins(4);

pub struct Alertmanager(pub Http);

#[async_trait]
impl Sink for Alertmanager {
    async fn prepare(&self) -> Result<()> {
        self.0.prepare().await
    }
    async fn send(&self, notice: &Notice) -> Result<(), Refusal> {
        self.0.post(PATH, &Value::Array(documents(notice))).await
    }
    fn refresh_every(&self) -> Option<Duration> {
        Some(REFRESH)
    }
    async fn refresh(&self, open: &[OpenAlert], host: &str, now: Timestamp) -> Result<(), Refusal> {
        if open.is_empty() {
            return Ok(());
        }
        let all = open.iter().map(|alert| document(alert, host, now.plus(AHEAD), false)).collect();
        self.0.post(PATH, &Value::Array(all)).await
    }
}

/// The severity is a label, by which it is routed. An alert that has become worse is another one to the Alertmanager,
/// and the one before it ends.
pub(super) fn documents(notice: &Notice) -> Vec<Value> {
    let Notice { alert, host, at, test, .. } = notice;
    let end = if notice.event == Event::Resolved { *at } else { at.plus(AHEAD) };
    let mut all = vec![document(alert, host, end, *test)];
    if let Some(before) = notice.risen_from {
        let before = OpenAlert { severity: before, ..alert.clone() };
        all.push(document(&before, host, *at, *test));
    }
    all
}

fn document(alert: &OpenAlert, host: &str, end: Timestamp, test: bool) -> Value {
    let mut labels: Map<String, Value> =
        alert.labels.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    labels.insert("alertname".to_owned(), Value::from(format!("pgkeep-{}", alert.rule)));
    labels.insert("severity".to_owned(), Value::from(alert.severity.as_str()));
    labels.insert("host".to_owned(), Value::from(host));
    if test {
        labels.insert("test".to_owned(), Value::from("true"));
    }
    let mut annotations = Map::new();
    annotations.insert("summary".to_owned(), Value::from(alert.summary.as_str()));
    annotations.insert("mend".to_owned(), Value::from(alert.mend.as_str()));
    if let Some(page) = page(alert) {
        annotations.insert("runbook".to_owned(), Value::from(page));
    }
    json!({ "labels": labels, "annotations": annotations, "startsAt": alert.since, "endsAt": end })
}
