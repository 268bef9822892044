use std::path::Path;

use super::super::Config;
use super::*;

const BASE: &str = r#"
encryption = "none"
[cluster.main]
connection = "host=/tmp user=pgkeep"
[[repository]]
name = "disk"
url = "file:///srv/pgkeep"
"#;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("/etc/pgkeep/pgkeep.toml"), &format!("{BASE}{text}"))
        .map_err(|e| e.what().to_owned())
}

fn sink(text: &str) -> Result<SinkConfig, String> {
    parse(&format!("[[alert_sink]]\nname = \"a\"\n{text}")).map(|mut config| config.alert_sinks.remove(0))
}

#[test]
fn without_a_section_the_thresholds_are_those_of_the_requirements() {
    let config = parse("").unwrap();
    assert_eq!(config.alerts, AlertsConfig::default());
    let alerts = config.alerts;
    assert_eq!((alerts.backup_size_low, alerts.backup_size_high, alerts.repository_usage), (50, 200, 80));
    assert_eq!(alerts.archive_lag, Duration::from_mins(10));
    assert!(config.alert_sinks.is_empty() && config.heartbeat.is_none());
    assert_eq!(parse("[alerts]\narchive_lag = \"5m\"").unwrap().alerts.archive_lag, Duration::from_mins(5));
}

#[test]
fn every_kind_of_sink_is_read() {
    let webhook = sink("kind = \"webhook\"\nurl = \"https://x.example/hook\"").unwrap();
    assert_eq!((webhook.min_severity, webhook.timeout), (Severity::Warning, Duration::from_secs(10)));
    let slack =
        sink("kind = \"slack\"\nurl = { file = \"/etc/slack\" }\nmin_severity = \"critical\"").unwrap();
    assert_eq!(slack.min_severity, Severity::Critical);
    let pager = sink("kind = \"pagerduty\"\nrouting_key = { env = \"KEY\" }").unwrap();
    let SinkKind::PagerDuty { http, .. } = pager.kind else { panic!("{pager:?}") };
    assert_eq!(http.url, Guarded::Text(PAGERDUTY.to_owned()));
    sink("kind = \"alertmanager\"\nurl = \"http://localhost:9093\"").unwrap();
    sink("kind = \"command\"\nrun = [\"/bin/page\", \"--now\"]").unwrap();
    for (tls, port) in [("", 587), ("tls = \"tls\"", 465), ("tls = \"none\"", 25)] {
        let text = format!(
            "kind = \"smtp\"\nserver = \"mail\"\nfrom = \"a@b.example\"\nto = [\"c@d.example\"]\n{tls}"
        );
        let SinkKind::Smtp(smtp) = sink(&text).unwrap().kind else { panic!("{text}") };
        assert_eq!(smtp.port, port);
    }
}

#[test]
fn what_makes_no_sense_in_a_sink_is_refused() {
    let mail = "kind = \"smtp\"\nserver = \"mail\"\nfrom = \"a@b.example\"\n";
    for (text, said) in [
        ("", "kind: is missing"),
        ("kind = \"fax\"", "one of"),
        ("kind = \"webhook\"", "url: is missing"),
        ("kind = \"webhook\"\nurl = \"x\"", "expected a URL"),
        ("kind = \"webhook\"\nurl = \"https://u:hunter2@h/\"", "credentials do not stand in a URL"),
        ("kind = \"slack\"\nurl = \"https://hooks.slack.com/services/T/hunter2\"", "can post there"),
        ("kind = \"webhook\"\nurl = \"https://hooks.slack.com/services/T/hunter2\"", "can post there"),
        ("kind = \"pagerduty\"", "routing_key: is missing"),
        ("kind = \"pagerduty\"\nrouting_key = \"hunter2\"", "does not stand in this file"),
        (
            "kind = \"webhook\"\nurl = \"https://x/\"\nrouting_key = { env = \"K\" }",
            "means nothing for kind = \"webhook\"",
        ),
        ("kind = \"command\"", "name a program"),
        (&format!("{mail}to = []"), "to: is missing"),
        (&format!("{mail}to = [\"nobody\"]"), "expected an address"),
        (&format!("{mail}to = [\"a@b.example\"]\nuser = \"u\""), "go together"),
        (
            &format!(
                "{mail}to = [\"a@b.example\"]\nuser = \"u\"\npassword = {{ env = \"P\" }}\ntls = \"none\""
            ),
            "in the clear",
        ),
    ] {
        let faults = sink(text).unwrap_err();
        assert!(faults.contains(said), "{text}: {faults}");
        assert!(!faults.contains("hunter2"), "{faults}");
    }
    let two = "[[alert_sink]]\nname = \"a\"\nkind = \"webhook\"\nurl = \"https://x/\"\n";
    assert!(parse(&format!("{two}{two}")).unwrap_err().contains("twice"));
}

#[test]
fn a_heartbeat_needs_a_url() {
    assert!(parse("[heartbeat]").unwrap_err().contains("url: is missing"));
    let beat = parse("[heartbeat]\nurl = \"https://beat.example/x\"").unwrap().heartbeat.unwrap();
    assert_eq!(beat.interval, Duration::from_mins(1));
}
