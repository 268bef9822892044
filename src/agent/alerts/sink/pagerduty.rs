//! PagerDuty's Events API v2 (developer.pagerduty.com, "Send an event" and "PD-CEF"): `trigger` and `resolve` with a
//! `dedup_key`, by which the service makes one incident of all notices of an alert.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Http, Refusal, Sink, cut, headline, page};
use crate::agent::alerts::machine::{Event, Notice};
use crate::config::Secret;
use crate::error::Result;

/// The service takes no more.
const LONGEST_SUMMARY: usize = 1024;
const LONGEST_KEY: usize = 255;

pub struct PagerDuty {
    pub http: Http,
    pub routing_key: Secret,
    pub timeout: Duration,
}

#[async_trait]
impl Sink for PagerDuty {
    async fn prepare(&self) -> Result<()> {
        self.http.prepare().await?;
        self.routing_key.resolve_within(self.timeout).await.map(drop)
    }
    async fn send(&self, notice: &Notice) -> Result<(), Refusal> {
        let key = self.routing_key.resolve_within(self.timeout).await.map_err(Refusal::Later)?;
        self.http.post_secret(&document(notice, key.trim()), key).await
    }
}

pub(super) fn document(notice: &Notice, routing_key: &str) -> Value {
    let alert = &notice.alert;
    let action = if notice.event == Event::Resolved { "resolve" } else { "trigger" };
    json!({
        "routing_key": routing_key,
        "event_action": action,
        "dedup_key": dedup_key(notice),
        "client": "pgkeep",
        "payload": {
            "summary": cut(&headline(notice), LONGEST_SUMMARY),
            "source": notice.host,
            "severity": alert.severity,
            "timestamp": alert.since,
            "component": alert.labels.values().cloned().collect::<Vec<_>>().join("/"),
            "group": "pgkeep",
            "class": alert.rule,
            "custom_details": {
                "summary": alert.summary,
                "mend": alert.mend,
                "runbook": page(alert),
                "test": notice.test,
            },
        },
    })
}

/// The same for all notices of an alert of a host, within the service's length.
fn dedup_key(notice: &Notice) -> String {
    let whole = format!("pgkeep/{}/{}", notice.host, notice.alert.key);
    if whole.len() <= LONGEST_KEY {
        return whole;
    }
    let digest = Sha256::digest(whole.as_bytes());
    let hex = digest.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    format!("pgkeep/{hex}")
}
