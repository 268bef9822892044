//! `[alerts]`, `[[alert_sink]]` and `[heartbeat]`.

use super::{KeyDoc, SectionDoc, key};

const ALERTS: &str = "[alerts]";
const SINK: &str = "[[alert_sink]]";
const HEARTBEAT: &str = "[heartbeat]";

pub(super) const SECTIONS: &[SectionDoc] = &[
    SectionDoc {
        head: ALERTS,
        example_head: "[alerts]",
        meaning: "When the agent says that something is wrong. `config/ALERTS.md` lists the rules.",
    },
    SectionDoc {
        head: SINK,
        example_head: "[[alert_sink]]",
        meaning: "Where alerts are sent to; there may be several, and one that fails holds up no other. `pgkeep alerts \
                  test` tries them. A value that lets others in (the URL of a Slack webhook, a key, a password) is \
                  { env = \"NAME\" }, { file = \"/path\" } or { command = \"…\" }.",
    },
    SectionDoc {
        head: HEARTBEAT,
        example_head: "[heartbeat]",
        meaning: "A URL that is asked for while all is well, so that somebody else notices when this host is silent. \
                  It is asked only while the agent is healthy: it runs, none of its loops hangs, the rules were looked at within the last minutes, and no critical alert is open.",
    },
];

#[rustfmt::skip]
pub(super) const KEYS: &[KeyDoc] = &[
    key(ALERTS, "check_interval", "duration", "\"15s\"", "\"15s\"", "How often the rules are looked at."),
    key(ALERTS, "archive_lag", "duration", "\"10m\"", "\"10m\"",
        "How long the oldest WAL file may wait to be archived."),
    key(ALERTS, "archive_failing", "duration", "\"5m\"", "\"5m\"", "How long archiving may go on failing."),
    key(ALERTS, "tail_lag", "duration", "\"1m\"", "\"1m\"",
        "How far the live tail may be behind: what a lost host would lose."),
    key(ALERTS, "backup_size_low", "number", "50", "50",
        "Percent of the average of earlier backups of its kind below which a backup is suspiciously small."),
    key(ALERTS, "backup_size_high", "number", "200", "200", "Percent of that average above which it is suspiciously large."),
    key(ALERTS, "repository_usage", "number", "80", "80", "Percent of a repository's capacity."),
    key(ALERTS, "disk_full_warning", "duration", "\"24h\"", "\"24h\"",
        "Time until the disk of pg_wal is full, as it grows now: a warning below this."),
    key(ALERTS, "disk_full_critical", "duration", "\"4h\"", "\"4h\"", "The same: critical below this."),
    key(ALERTS, "disk_free", "number", "10", "10",
        "Percent that must be free on the disk of pg_wal: a warning below this, critical below half of it."),
    key(ALERTS, "server_unreachable", "duration", "\"2m\"", "\"2m\"", "How long PostgreSQL may not answer."),
    key(ALERTS, "store_unreachable", "duration", "\"2m\"", "\"2m\"", "How long a repository's store may fail."),
    key(ALERTS, "job_silence", "number", "2", "2",
        "A job must have succeeded within this many of its intervals, whether or not anything failed."),
    key(ALERTS, "job_overdue", "duration", "\"1h\"", "\"1h\"", "How late a job may start."),
    key(ALERTS, "proof_age", "duration", "\"35d\"", "\"35d\"", "How old the last proof by a restore may be."),
    key(ALERTS, "credentials_expiry", "duration", "\"24h\"", "\"24h\"",
        "How long a store's credentials, when they do not renew themselves, must still be valid."),
    key(ALERTS, "settle", "duration", "\"1m\"", "\"1m\"",
        "How long the trouble must be gone before an alert is resolved: what flaps is told once."),
    key(ALERTS, "repeat_critical", "duration", "\"4h\"", "\"4h\"", "How often an open critical alert is told again."),
    key(ALERTS, "repeat_warning", "duration", "\"24h\"", "\"24h\"", "How often an open warning is told again."),

    key(SINK, "name", "text", "required", "\"on-call\"", "For `pgkeep alerts test --sink` and messages."),
    key(SINK, "kind", "choice", "required", "\"webhook\"",
        "\"webhook\" (pgkeep's own JSON), \"slack\", \"pagerduty\" (Events API v2), \"alertmanager\" (API v2), \"smtp\" or \
         \"command\"."),
    key(SINK, "min_severity", "choice", "\"warning\"", "\"warning\"", "\"warning\" or \"critical\": less is not sent here."),
    key(SINK, "url", "secret or text", "required but for pagerduty", "\"https://alerts.example.com/pgkeep\"",
        "webhook, slack, alertmanager (its base, such as `http://alertmanager:9093`), pagerduty: where to. A text only \
         if knowing it lets nobody in; Slack's is a secret."),
    key(SINK, "authorization", "secret", "none", "{ file = \"/etc/pgkeep/webhook.authorization\" }",
        "webhook, alertmanager: the value of the `Authorization` header, such as `Bearer …`."),
    key(SINK, "routing_key", "secret", "required for pagerduty", "{ file = \"/etc/pgkeep/pagerduty.key\" }",
        "pagerduty: the integration key of an \"Events API v2\" integration."),
    key(SINK, "ca_file", "path", "the system's", "\"/etc/pgkeep/ca.pem\"",
        "Certificates (PEM) trusted besides the system's; not for command."),
    key(SINK, "proxy", "text", "none", "\"http://proxy.example.com:3128\"",
        "An HTTP proxy, for those that take a URL. The environment's proxy variables are not looked at."),
    key(SINK, "server", "text", "required for smtp", "\"mail.example.com\"", "smtp: the mail server."),
    key(SINK, "port", "number", "465 for tls, 587 for starttls, 25 for none", "587", "smtp: its port."),
    key(SINK, "tls", "choice", "\"starttls\"", "\"starttls\"",
        "smtp: \"tls\" from the start, \"starttls\" (refused if the server does not offer it), or \"none\"."),
    key(SINK, "user", "text", "none", "\"pgkeep\"", "smtp: log in as; not with tls = \"none\"."),
    key(SINK, "password", "secret", "none", "{ file = \"/etc/pgkeep/smtp.password\" }", "smtp: its password."),
    key(SINK, "from", "text", "required for smtp", "\"pgkeep <pgkeep@example.com>\"", "smtp: the sender."),
    key(SINK, "to", "list", "required for smtp", "[\"dba@example.com\"]", "smtp: the receivers."),
    key(SINK, "run", "list", "required for command", "[\"/usr/local/bin/page\", \"--team\", \"dba\"]",
        "command: a program and its arguments, run without a shell with the webhook's JSON on its standard input."),
    key(SINK, "timeout", "duration", "\"10s\"", "\"10s\"", "For one try; then it counts as failed and is tried again later."),

    key(HEARTBEAT, "url", "secret or text", "required", "{ file = \"/etc/pgkeep/heartbeat.url\" }",
        "A GET of it says that all is well. A text only if knowing it lets nobody in."),
    key(HEARTBEAT, "interval", "duration", "\"1m\"", "\"1m\"", "How often."),
    key(HEARTBEAT, "ca_file", "path", "the system's", "\"/etc/pgkeep/ca.pem\"", "Certificates (PEM) trusted besides the system's."),
    key(HEARTBEAT, "proxy", "text", "none", "\"http://proxy.example.com:3128\"", "An HTTP proxy."),
];

/// The example is a webhook; keys of other kinds would be refused in it.
#[cfg(test)]
pub(super) fn is_for_another_kind(doc: &KeyDoc) -> bool {
    const WEBHOOK: [&str; 8] =
        ["name", "kind", "min_severity", "url", "authorization", "ca_file", "proxy", "timeout"];
    doc.section == SINK && !WEBHOOK.contains(&doc.key)
}
