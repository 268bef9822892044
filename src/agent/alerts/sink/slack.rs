//! Slack's incoming webhooks (docs.slack.dev, "Sending messages using incoming webhooks"): a message with a text for
//! notifications and blocks for the channel. Only `&`, `<` and `>` must be written as entities.

use serde_json::{Value, json};

use super::{cut, headline, page};
use crate::agent::alerts::machine::{Event, Notice};
use crate::agent::board::Severity;

/// A section block's text has 3000 characters at most.
const SECTION: usize = 2900;

pub(super) fn document(notice: &Notice) -> Value {
    let alert = &notice.alert;
    let sign = match (notice.event, alert.severity) {
        (Event::Resolved, _) => ":white_check_mark:",
        (_, Severity::Critical) => ":rotating_light:",
        (_, Severity::Warning) => ":warning:",
    };
    let headline = escaped(&headline(notice));
    let mut body = format!("{sign} *{}*", cut(&headline, SECTION));
    if notice.event != Event::Resolved {
        body.push_str(&format!("\n`{}`", escaped(&alert.mend)));
    }
    let page = page(alert).map_or_else(String::new, |page| format!(", {page}"));
    let context = format!("pgkeep {}, since {}{page}", alert.rule, alert.since.human());
    json!({
        "text": headline,
        "blocks": [
            { "type": "section", "text": { "type": "mrkdwn", "text": cut(&body, 3000) } },
            { "type": "context", "elements": [{ "type": "mrkdwn", "text": escaped(&context) }] },
        ],
    })
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
