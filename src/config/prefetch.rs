//! `[prefetch]`: what the agent keeps ready for a standby that follows the archive.

use std::path::PathBuf;

use super::reader::Section;

/// `[prefetch]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefetchConfig {
    pub enabled: bool,
    /// Where the spool is made, on the file system of pg_wal; None: found out.
    pub directory: Option<PathBuf>,
    /// Bytes of segments kept ready, for each cluster.
    pub size: u64,
}

impl Default for PrefetchConfig {
    fn default() -> Self {
        Self { enabled: true, directory: None, size: 128 << 20 }
    }
}

pub(super) fn read(section: Option<Section<'_>>) -> PrefetchConfig {
    let defaults = PrefetchConfig::default();
    let Some(mut section) = section else { return defaults };
    let enabled = section.boolean("enabled").unwrap_or(defaults.enabled);
    let directory = section.absolute_path("directory");
    let size = section.size("size").unwrap_or(defaults.size);
    section.finish();
    PrefetchConfig { enabled, directory, size }
}
