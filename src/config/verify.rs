//! `[verify]`: looking at what is stored.

use std::time::Duration;

use super::reader::Section;

/// `[verify]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyConfig {
    /// How long a segment that is missing may be on its way, while newer ones are there already.
    pub patience: Duration,
}

impl Default for VerifyConfig {
    fn default() -> Self {
        Self { patience: Duration::from_mins(1) }
    }
}

pub(super) fn read(section: Option<Section<'_>>) -> VerifyConfig {
    let defaults = VerifyConfig::default();
    let Some(mut section) = section else { return defaults };
    let patience = section.pause("patience").unwrap_or(defaults.patience);
    section.finish();
    VerifyConfig { patience }
}
