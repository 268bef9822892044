//! The repositories' stores.

use super::Finding;
use crate::agent::board::{Severity, StoreFacts};
use crate::config::AlertsConfig;
use crate::model::{RepoName, Timestamp};
use crate::util::human;

pub(super) fn findings(
    name: &RepoName,
    store: &StoreFacts,
    config: &AlertsConfig,
    now: Timestamp,
) -> Vec<Finding> {
    let of = |rule| Finding::new(rule, "repository", name).mend(format!("pgkeep check --repo {name}"));
    let mut found = Vec::new();
    if let Some(failure) = &store.failure {
        let severity = if store.required { Severity::Critical } else { Severity::Warning };
        let since = store.answered_at.map_or_else(String::new, |at| format!(" since {}", at.human()));
        let summary = format!("repository {name}: its store does not do its work{since}: {}", failure.text);
        found.push(of("store-unreachable").severity(severity).says(summary).hold(config.store_unreachable));
    }
    if let (Some(used), Some(capacity)) = (store.used_bytes, store.capacity_bytes)
        && u128::from(used) * 100 > u128::from(capacity) * u128::from(config.repository_usage)
    {
        let (used, capacity) = (human::size(used), human::size(capacity));
        let share = config.repository_usage;
        let summary = format!("repository {name}: {used} of {capacity} are used, more than {share} %");
        found.push(of("repository-usage").says(summary));
    }
    if let Some(end) = store.credentials_expire_at
        && end <= now.plus(config.credentials_expiry)
    {
        let (severity, word) =
            if end <= now { (Severity::Critical, "ended") } else { (Severity::Warning, "end") };
        let summary = format!("repository {name}: the credentials of its store {word} at {}", end.human());
        found.push(of("credentials-expiring").severity(severity).says(summary));
    }
    found
}
