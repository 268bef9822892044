//! `[tail]`: the live tail, the end of WAL that the agent ships every few seconds.

use std::time::Duration;

use super::reader::Section;

/// `[tail]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailConfig {
    pub enabled: bool,
    /// Between two looks at the server; what a lost host loses is about this.
    pub interval: Duration,
}

impl Default for TailConfig {
    fn default() -> Self {
        Self { enabled: true, interval: Duration::from_secs(3) }
    }
}

const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_hours(1);

pub(super) fn read(section: Option<Section<'_>>) -> TailConfig {
    let defaults = TailConfig::default();
    let Some(mut section) = section else { return defaults };
    let interval = section.duration("interval").unwrap_or(defaults.interval);
    if !(SHORTEST..=LONGEST).contains(&interval) {
        section.fault("interval", "must be from 200ms to 1h");
    }
    let enabled = section.boolean("enabled").unwrap_or(defaults.enabled);
    section.finish();
    TailConfig { enabled, interval }
}
