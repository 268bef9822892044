//! `[alerts]`, `[[alert_sink]]` and `[heartbeat]`: when to say that something is wrong, and to whom.
//!
//! A key that belongs to another kind of sink is a fault: who wrote it believes that it does something.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::Section;
use super::secret::{Guarded, Secret};
use crate::model::Severity;

/// `[alerts]`: the thresholds, with the defaults of whoever sets nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertsConfig {
    pub check_interval: Duration,
    pub archive_lag: Duration,
    pub archive_failing: Duration,
    pub tail_lag: Duration,
    /// Percent of the average of earlier backups.
    pub backup_size_low: u32,
    pub backup_size_high: u32,
    /// Percent of a repository's capacity.
    pub repository_usage: u32,
    pub disk_full_warning: Duration,
    pub disk_full_critical: Duration,
    /// Percent that must be free.
    pub disk_free: u32,
    pub server_unreachable: Duration,
    pub store_unreachable: Duration,
    /// Intervals of the job.
    pub job_silence: u32,
    pub job_overdue: Duration,
    pub proof_age: Duration,
    pub credentials_expiry: Duration,
    /// How long a finding must be gone before its alert is resolved.
    pub settle: Duration,
    pub repeat_critical: Duration,
    pub repeat_warning: Duration,
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self {
            check_interval: Duration::from_secs(15),
            archive_lag: Duration::from_mins(10),
            archive_failing: Duration::from_mins(5),
            tail_lag: Duration::from_mins(1),
            backup_size_low: 50,
            backup_size_high: 200,
            repository_usage: 80,
            disk_full_warning: Duration::from_hours(24),
            disk_full_critical: Duration::from_hours(4),
            disk_free: 10,
            server_unreachable: Duration::from_mins(2),
            store_unreachable: Duration::from_mins(2),
            job_silence: 2,
            job_overdue: Duration::from_hours(1),
            proof_age: Duration::from_hours(35 * 24),
            credentials_expiry: Duration::from_hours(24),
            settle: Duration::from_mins(1),
            repeat_critical: Duration::from_hours(4),
            repeat_warning: Duration::from_hours(24),
        }
    }
}

/// `[[alert_sink]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkConfig {
    pub name: String,
    /// Less is not sent there.
    pub min_severity: Severity,
    /// For one try.
    pub timeout: Duration,
    pub kind: SinkKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkKind {
    Webhook(HttpConfig),
    Slack(HttpConfig),
    PagerDuty {
        routing_key: Secret,
        http: HttpConfig,
    },
    Alertmanager(HttpConfig),
    Smtp(SmtpConfig),
    /// A program and its arguments.
    Command(Vec<String>),
}

/// Where and how a URL is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    pub url: Guarded,
    pub authorization: Option<Secret>,
    pub ca_file: Option<PathBuf>,
    pub proxy: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmtpConfig {
    pub server: String,
    pub port: u16,
    pub tls: SmtpTls,
    pub login: Option<(String, Secret)>,
    pub from: String,
    pub to: Vec<String>,
    pub ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpTls {
    Tls,
    StartTls,
    None,
}

/// `[heartbeat]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatConfig {
    pub interval: Duration,
    pub http: HttpConfig,
}

/// Where PagerDuty takes events (developer.pagerduty.com, "Send an event", V2).
pub const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";

pub(super) fn thresholds(section: Option<Section<'_>>) -> AlertsConfig {
    let defaults = AlertsConfig::default();
    let Some(mut section) = section else { return defaults };
    let s = &mut section;
    let config = AlertsConfig {
        check_interval: s.duration("check_interval").unwrap_or(defaults.check_interval),
        archive_lag: s.duration("archive_lag").unwrap_or(defaults.archive_lag),
        archive_failing: s.duration("archive_failing").unwrap_or(defaults.archive_failing),
        tail_lag: s.duration("tail_lag").unwrap_or(defaults.tail_lag),
        backup_size_low: s.integer("backup_size_low", 1..=99).unwrap_or(defaults.backup_size_low),
        backup_size_high: s.integer("backup_size_high", 101..=10_000).unwrap_or(defaults.backup_size_high),
        repository_usage: s.integer("repository_usage", 1..=100).unwrap_or(defaults.repository_usage),
        disk_full_warning: s.duration("disk_full_warning").unwrap_or(defaults.disk_full_warning),
        disk_full_critical: s.duration("disk_full_critical").unwrap_or(defaults.disk_full_critical),
        disk_free: s.integer("disk_free", 1..=99).unwrap_or(defaults.disk_free),
        server_unreachable: s.duration("server_unreachable").unwrap_or(defaults.server_unreachable),
        store_unreachable: s.duration("store_unreachable").unwrap_or(defaults.store_unreachable),
        job_silence: s.integer("job_silence", 1..=100).unwrap_or(defaults.job_silence),
        job_overdue: s.duration("job_overdue").unwrap_or(defaults.job_overdue),
        proof_age: s.duration("proof_age").unwrap_or(defaults.proof_age),
        credentials_expiry: s.duration("credentials_expiry").unwrap_or(defaults.credentials_expiry),
        settle: s.duration("settle").unwrap_or(defaults.settle),
        repeat_critical: s.duration("repeat_critical").unwrap_or(defaults.repeat_critical),
        repeat_warning: s.duration("repeat_warning").unwrap_or(defaults.repeat_warning),
    };
    if config.disk_full_critical > config.disk_full_warning {
        section.fault("disk_full_critical", "must not be more than `disk_full_warning`");
    }
    section.finish();
    config
}

pub(super) fn sinks(root: &mut Section<'_>) -> Vec<SinkConfig> {
    let mut sinks: Vec<SinkConfig> = Vec::new();
    for mut section in root.list_of_tables("alert_sink") {
        let name = section.required_string("name");
        if let Some(name) = &name {
            section.rename(format!("alert_sink.{name}"));
            if sinks.iter().any(|sink| sink.name == *name) {
                section.fault("name", "the name is there twice");
            }
        }
        sinks.extend(sink(section, name));
    }
    sinks
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Webhook,
    Slack,
    PagerDuty,
    Alertmanager,
    Smtp,
    Command,
}

const KINDS: &[(&str, Kind)] = &[
    ("webhook", Kind::Webhook),
    ("slack", Kind::Slack),
    ("pagerduty", Kind::PagerDuty),
    ("alertmanager", Kind::Alertmanager),
    ("smtp", Kind::Smtp),
    ("command", Kind::Command),
];

/// Keys that only some kinds know.
const OWN_KEYS: &[(&str, &[Kind])] = &[
    ("url", &[Kind::Webhook, Kind::Slack, Kind::PagerDuty, Kind::Alertmanager]),
    ("authorization", &[Kind::Webhook, Kind::Alertmanager]),
    ("routing_key", &[Kind::PagerDuty]),
    ("ca_file", &[Kind::Webhook, Kind::Slack, Kind::PagerDuty, Kind::Alertmanager, Kind::Smtp]),
    ("proxy", &[Kind::Webhook, Kind::Slack, Kind::PagerDuty, Kind::Alertmanager]),
    ("server", &[Kind::Smtp]),
    ("port", &[Kind::Smtp]),
    ("tls", &[Kind::Smtp]),
    ("user", &[Kind::Smtp]),
    ("password", &[Kind::Smtp]),
    ("from", &[Kind::Smtp]),
    ("to", &[Kind::Smtp]),
    ("run", &[Kind::Command]),
];

fn sink(mut section: Section<'_>, name: Option<String>) -> Option<SinkConfig> {
    if !section.has("kind") {
        section.fault("kind", "is missing");
    }
    let kind = section.choice("kind", KINDS);
    let levels = [("warning", Severity::Warning), ("critical", Severity::Critical)];
    let min_severity = section.choice("min_severity", &levels).unwrap_or(Severity::Warning);
    let timeout = section.duration("timeout").unwrap_or(Duration::from_secs(10));
    if let Some(kind) = kind {
        for (key, kinds) in OWN_KEYS {
            if section.has(key) && !kinds.contains(&kind) {
                let word = KINDS.iter().find(|(_, k)| *k == kind).map_or("", |(word, _)| word);
                section.fault(key, format!("means nothing for kind = \"{word}\""));
            }
        }
    }
    // Read whatever the kind, so that every fault is found at once.
    let routing_key = section.secret("routing_key");
    let http = http(&mut section, kind);
    let smtp = smtp(&mut section, kind == Some(Kind::Smtp));
    let command = section.strings("run", |_| Ok(())).unwrap_or_default();
    let need = |section: &Section<'_>, key: &str| {
        if !section.has(key) {
            section.fault(key, "is missing");
        }
    };
    let kind = match kind? {
        Kind::PagerDuty => {
            need(&section, "routing_key");
            let http = http.unwrap_or_else(|| plain_url(PAGERDUTY));
            routing_key.map(|routing_key| SinkKind::PagerDuty { routing_key, http })
        }
        Kind::Smtp => smtp.map(SinkKind::Smtp),
        Kind::Command => {
            if command.is_empty() {
                section.fault("run", "name a program: [\"/path/of/program\", \"argument\"]");
            }
            Some(SinkKind::Command(command))
        }
        kind => {
            need(&section, "url");
            http.map(match kind {
                Kind::Slack => SinkKind::Slack,
                Kind::Alertmanager => SinkKind::Alertmanager,
                _ => SinkKind::Webhook,
            })
        }
    };
    section.finish();
    Some(SinkConfig { name: name?, min_severity, timeout, kind: kind? })
}

fn plain_url(url: &str) -> HttpConfig {
    HttpConfig { url: Guarded::Text(url.to_owned()), authorization: None, ca_file: None, proxy: None }
}

fn http(section: &mut Section<'_>, kind: Option<Kind>) -> Option<HttpConfig> {
    let url = section.guarded("url", |text| check_url(text, kind == Some(Kind::Slack)));
    let authorization = section.secret("authorization");
    let ca_file = section.absolute_path("ca_file");
    let proxy = proxy(section);
    let url = match (url, kind) {
        (None, Some(Kind::PagerDuty)) => Guarded::Text(PAGERDUTY.to_owned()),
        (url, _) => url?,
    };
    Some(HttpConfig { url, authorization, ca_file, proxy })
}

fn proxy(section: &mut Section<'_>) -> Option<String> {
    let text = section.string("proxy")?;
    if let Err(what) = check_url(&text, false) {
        section.fault("proxy", what);
    }
    Some(text)
}

fn check_url(text: &str, secret: bool) -> Result<(), &'static str> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    if authority.is_empty() || text.contains(char::is_whitespace) {
        Err("expected a URL such as \"https://alerts.example.com/pgkeep\"")
    } else if authority.contains('@') {
        Err("credentials do not stand in a URL: write { file = \"/path\" } with the URL in the file")
    } else if secret || authority == "hooks.slack.com" {
        Err("who knows this URL can post there: write { file = \"/path\" } with the URL in the file")
    } else {
        Ok(())
    }
}

fn smtp(section: &mut Section<'_>, wanted: bool) -> Option<SmtpConfig> {
    let modes = [("tls", SmtpTls::Tls), ("starttls", SmtpTls::StartTls), ("none", SmtpTls::None)];
    let tls = section.choice("tls", &modes).unwrap_or(SmtpTls::StartTls);
    let default_port = match tls {
        SmtpTls::Tls => 465,
        SmtpTls::StartTls => 587,
        SmtpTls::None => 25,
    };
    let port = section.integer("port", 1..=65_535).and_then(|n| u16::try_from(n).ok());
    let (server, from) = (section.string("server"), section.string("from"));
    let (user, password) = (section.string("user"), section.secret("password"));
    let address = |text: &str| mailbox(text).map_err(str::to_owned);
    let to = section.strings("to", address);
    if let Some(Err(what)) = from.as_deref().map(mailbox) {
        section.fault("from", what);
    }
    if !wanted {
        return None;
    }
    for key in ["server", "from", "to"] {
        if !section.has(key) || section.is_empty_list(key) {
            section.fault(key, "is missing");
        }
    }
    if section.has("user") != section.has("password") {
        section.fault("user", "`user` and `password` go together");
    }
    if section.has("password") && tls == SmtpTls::None {
        section.fault("tls", "a password does not travel in the clear: use \"starttls\" or \"tls\"");
    }
    let ca_file = section.absolute_path("ca_file");
    let port = port.unwrap_or(default_port);
    Some(SmtpConfig { server: server?, port, tls, login: user.zip(password), from: from?, to: to?, ca_file })
}

fn mailbox(text: &str) -> Result<(), &'static str> {
    let parsed = text.parse::<lettre::message::Mailbox>();
    parsed
        .map(|_| ())
        .map_err(|_| "expected an address such as \"dba@example.com\" or \"DBA <dba@example.com>\"")
}

pub(super) fn heartbeat(mut section: Section<'_>) -> Option<HeartbeatConfig> {
    if !section.has("url") {
        section.fault("url", "is missing");
    }
    let url = section.guarded("url", |text| check_url(text, false));
    let interval = section.duration("interval").unwrap_or(Duration::from_mins(1));
    let (ca_file, proxy) = (section.absolute_path("ca_file"), proxy(&mut section));
    section.finish();
    Some(HeartbeatConfig { interval, http: HttpConfig { url: url?, authorization: None, ca_file, proxy } })
}

#[cfg(test)]
mod tests;
