//! pgkeep's own JSON, POSTed to a URL. The form, which only grows:
//!
//! ```json
//! {"version": 1, "event": "opened", "test": false, "host": "db1", "at": "2026-11-21T02:00:00Z",
//!  "alert": {"key": "archive-lag:main", "rule": "archive-lag", "severity": "critical",
//!            "labels": {"cluster": "main"}, "since": "2026-11-21T01:49:00Z", "summary": "…",
//!            "mend": "pgkeep check --cluster main", "runbook": "runbooks/archiving-stalled.md"}}
//! ```
//! `event` is `opened` (also when it has become worse), `repeated` or `resolved`; `host` and `key` together name the
//! alert. Any status of 200 to 299 means that it was taken.

use serde_json::{Value, json};

use super::page;
use crate::agent::alerts::machine::Notice;

pub(super) fn document(notice: &Notice) -> Value {
    let alert = &notice.alert;
    json!({
        "version": 1,
        "event": notice.event.as_str(),
        "test": notice.test,
        "host": notice.host,
        "at": notice.at,
        "alert": {
            "key": alert.key,
            "rule": alert.rule,
            "severity": alert.severity,
            "labels": alert.labels,
            "since": alert.since,
            "summary": alert.summary,
            "mend": alert.mend,
            "runbook": page(alert),
        },
    })
}
