//! `[canary]`: the row a minute by which a restore is proved from inside.

use std::time::Duration;

use super::reader::Section;

/// `[canary]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanaryConfig {
    pub enabled: bool,
    /// Where the schema `pgkeep` is made.
    pub database: String,
    /// Between two rows.
    pub interval: Duration,
    /// How long rows stay.
    pub keep: Duration,
}

impl Default for CanaryConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            database: "postgres".to_owned(),
            interval: Duration::from_mins(1),
            keep: Duration::from_hours(7 * 24),
        }
    }
}

impl CanaryConfig {
    /// How many rows that is.
    pub fn rows(&self) -> u64 {
        u64::try_from(self.keep.as_millis() / self.interval.as_millis().max(1)).unwrap_or(u64::MAX).max(1)
    }
}

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_mins(5);

pub(super) fn read(section: Option<Section<'_>>) -> CanaryConfig {
    let defaults = CanaryConfig::default();
    let Some(mut section) = section else { return defaults };
    let interval = section.duration("interval").unwrap_or(defaults.interval);
    // A restore looks for a row ten minutes back before it says that there was none.
    if !(SHORTEST..=LONGEST).contains(&interval) {
        section.fault("interval", "must be from 100ms to 5m");
    }
    let config = CanaryConfig {
        enabled: section.boolean("enabled").unwrap_or(defaults.enabled),
        database: section.string("database").unwrap_or(defaults.database),
        interval,
        keep: section.duration("keep").unwrap_or(defaults.keep),
    };
    section.finish();
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_off_until_somebody_says_so_and_keeps_a_week() {
        let config = CanaryConfig::default();
        assert!(!config.enabled);
        assert_eq!(config.rows(), 7 * 24 * 60);
        assert_eq!(CanaryConfig { keep: Duration::from_secs(1), ..config }.rows(), 1);
    }
}
