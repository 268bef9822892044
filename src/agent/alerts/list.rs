//! `config/ALERTS.md`: the rules, printed from their own table.

use super::rules::RULES;
use crate::config::reference;

/// The page.
pub fn page() -> String {
    let mut text = String::from(
        "# Alerts\n\n\
         Printed from the program's own table (`src/agent/alerts/rules.rs`). The agent looks at these rules every\n\
         `check_interval`. A finding that has held for the time given opens an alert: it is told once, told again while\n\
         it is open (`repeat_critical`, `repeat_warning`) or when it becomes critical, and resolved once it has been gone\n\
         for `settle`. The thresholds are keys of `[alerts]` ([reference](REFERENCE.md)); receivers are\n\
         `[[alert_sink]]` tables, tried by `pgkeep alerts test`; `pgkeep alerts` shows what is open. The heartbeat of\n\
         `[heartbeat]` is sent only while the agent is healthy: it runs, none of its loops hangs, the rules were looked at\n\
         within the last minutes, and no critical alert is open.\n\n\
         | rule | severity | when | thresholds (default) | page |\n|---|---|---|---|---|\n",
    );
    for rule in RULES {
        let thresholds: Vec<String> = rule.thresholds.iter().map(|key| threshold(key)).collect();
        text.push_str(&format!(
            "| `{}` | {} | {} | {} | [{}](../runbooks/{}) |\n",
            rule.name,
            rule.severity,
            rule.when,
            thresholds.join(", "),
            rule.runbook,
            rule.runbook
        ));
    }
    text
}

fn threshold(key: &str) -> String {
    let default = reference::keys().find(|doc| doc.section == "[alerts]" && doc.key == key);
    let default = default.map_or("?", |doc| doc.default).trim_matches('"');
    format!("`{key}` ({default})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_committed_list_of_alerts_is_fresh() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/ALERTS.md");
        if std::env::var_os("PGKEEP_WRITE_GENERATED").is_some() {
            std::fs::write(&path, page()).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == page(),
            "ALERTS.md is stale: PGKEEP_WRITE_GENERATED=1 cargo test writes it anew"
        );
        assert!(!committed.contains('?'), "a rule names a threshold that is no key");
    }

    #[test]
    fn every_page_that_an_alert_names_exists() {
        for rule in RULES {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("runbooks").join(rule.runbook);
            assert!(path.exists(), "{} names {}", rule.name, rule.runbook);
        }
    }
}
