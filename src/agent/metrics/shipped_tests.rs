//! What is shipped beside the program for those who watch it: `config/prometheus-rules.yml` and
//! `config/grafana-dashboard.json` speak only of metrics that exist, and of every trouble that the agent knows.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::table::ALL;
use crate::agent::alerts::rules::RULES;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap()
}

/// Words that look like metrics.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("pgkeep_")).collect()
}

/// The labels that selectors and templates use, besides Prometheus's own.
fn labels(text: &str) -> BTreeSet<&str> {
    let templates = text.split("$labels.").skip(1);
    templates.filter_map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()).collect()
}

fn every_metric_exists(text: &str) {
    let known: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
    let used = named(text);
    assert!(used.len() > 10, "no metrics were found: is the test still reading them?");
    let unknown: Vec<_> = used.difference(&known).collect();
    assert!(unknown.is_empty(), "no such metrics: {unknown:?}");
}

#[test]
fn the_rules_use_metrics_and_labels_that_exist_and_lead_to_pages_that_exist() {
    let rules = text("config/prometheus-rules.yml");
    every_metric_exists(&rules);
    let known: BTreeSet<&str> = ALL.iter().flat_map(|metric| metric.labels).copied().collect();
    let unknown: Vec<_> = labels(&rules).into_iter().filter(|label| !known.contains(label)).collect();
    assert!(unknown.is_empty(), "no such labels: {unknown:?}");
    let mut pages = 0;
    for line in rules.lines().filter_map(|line| line.trim().strip_prefix("runbook: ")) {
        assert!(path(line).exists(), "{line}");
        pages += 1;
    }
    assert_eq!(pages, rules.matches("- alert: ").count(), "each rule has a page");
}

/// Prometheus gives a target the labels `job` and `instance`; a metric's own would be renamed.
#[test]
fn no_metric_has_a_label_that_prometheus_takes() {
    for metric in ALL {
        assert!(!metric.labels.iter().any(|label| ["job", "instance"].contains(label)), "{}", metric.name);
    }
}

#[test]
fn each_of_the_agents_rules_has_one_for_prometheus_with_its_page() {
    let rules = text("config/prometheus-rules.yml");
    let mut told = BTreeSet::new();
    for block in rules.split("- alert: ").skip(1) {
        let value = |key: &str| {
            let line = block.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap();
            line.trim().trim_matches('\'').to_owned()
        };
        let names = value("rules:");
        for name in names.split(' ').filter(|name| !name.is_empty()) {
            let rule = RULES.iter().find(|rule| rule.name == name);
            let rule = rule.unwrap_or_else(|| panic!("the agent has no rule {name}"));
            assert_eq!(value("runbook:"), format!("runbooks/{}", rule.runbook), "{name}");
            told.insert(rule.name);
        }
    }
    let all: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(told, all);
}

fn promtool(arguments: &[&str]) {
    let out =
        Command::new("promtool").args(arguments).output().expect("scripts/install-test-deps installs it");
    let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && !said.contains("FAILED"), "{said}");
}

#[test]
fn promtool_takes_the_rules_and_they_do_what_they_are_for() {
    promtool(&["check", "rules", path("config/prometheus-rules.yml").to_str().unwrap()]);
    promtool(&["test", "rules", path("tests/fixtures/prometheus/rules.test.yml").to_str().unwrap()]);
}

#[test]
fn the_dashboard_shows_metrics_that_exist_on_panels_that_do_not_overlap() {
    let dashboard = text("config/grafana-dashboard.json");
    every_metric_exists(&dashboard);
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut taken, mut ids, mut graphs) = (BTreeSet::new(), BTreeSet::new(), 0);
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is taken");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        let (x, y, w, h) = (place("x"), place("y"), place("w"), place("h"));
        assert!(w > 0 && h > 0 && x + w <= 24, "{title} is wider than the grid");
        for cell in (x..x + w).flat_map(|column| (y..y + h).map(move |line| (column, line))) {
            assert!(taken.insert(cell), "{title} overlaps another panel");
        }
        if panel["type"] == "row" {
            continue;
        }
        graphs += 1;
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty() && panel["description"].is_string(), "{title}");
        for target in targets {
            let expr = target["expr"].as_str().unwrap();
            assert!(!named(expr).is_empty() && expr.contains("$instance"), "{title}: {expr}");
        }
    }
    assert!(graphs > 15 && panels.len() > graphs, "{graphs} panels");
    let filled = taken.len() as u64;
    let height = taken.iter().map(|(_, line)| line + 1).max().unwrap();
    assert_eq!(filled, height * 24, "there are gaps between the panels");
}
