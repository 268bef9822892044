//! `[dump]`: dumps, schemas and exports of tables.

use std::time::Duration;

use super::reader::Section;
use crate::model::{DatabasePattern, TableFilter, TablePattern};

/// `[dump]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpConfig {
    /// Which databases; empty for all but templates.
    pub databases: Vec<DatabasePattern>,
    /// What `backup tables` exports when nobody says otherwise.
    pub tables: Vec<TablePattern>,
    /// Connections of an export.
    pub connections: usize,
    /// zstd's level. Text is compressed as well by the first level as by the second, and faster.
    pub compression: i32,
    /// How long one lock may be waited for: who waits for a lock holds up everybody behind him.
    pub lock_timeout: Duration,
    /// Tries after one that met a lock, or a server without a free connection.
    pub retries: u32,
    /// Until the first of them; doubled for each further one.
    pub retry_after: Duration,
}

impl Default for DumpConfig {
    fn default() -> Self {
        Self {
            databases: Vec::new(),
            tables: Vec::new(),
            connections: 2,
            compression: 1,
            lock_timeout: Duration::from_secs(10),
            retries: 5,
            retry_after: Duration::from_secs(10),
        }
    }
}

pub(super) fn read(section: Option<Section<'_>>) -> DumpConfig {
    let defaults = DumpConfig::default();
    let Some(mut section) = section else { return defaults };
    let config = DumpConfig {
        databases: databases(&mut section),
        tables: tables(&mut section),
        connections: section.integer("connections", 1..=32).map_or(defaults.connections, |n| n as usize),
        compression: super::sections::level(&mut section).unwrap_or(defaults.compression),
        lock_timeout: section.duration("lock_timeout").unwrap_or(defaults.lock_timeout),
        retries: section.integer("retries", 0..=100).unwrap_or(defaults.retries),
        retry_after: section.duration("retry_after").unwrap_or(defaults.retry_after),
    };
    section.finish();
    config
}

/// `databases = […]`, here and in a job.
pub(super) fn databases(section: &mut Section<'_>) -> Vec<DatabasePattern> {
    let check = |text: &str| {
        DatabasePattern::parse(text).map(|_| ()).ok_or_else(|| format!("`{text}` is no pattern of databases"))
    };
    let given = section.strings("databases", check).unwrap_or_default();
    given.iter().filter_map(|text| DatabasePattern::parse(text)).collect()
}

/// `tables = […]`, here and in a job.
pub(super) fn tables(section: &mut Section<'_>) -> Vec<TablePattern> {
    let check = |text: &str| {
        TablePattern::parse(text)
            .map(|_| ())
            .ok_or_else(|| format!("`{text}` is no pattern of tables such as \"users\" or \"app.*\""))
    };
    let given = section.strings("tables", check).unwrap_or_default();
    given.iter().filter_map(|text| TablePattern::parse(text)).collect()
}

/// `where = […]` of a job.
pub(super) fn filters(section: &mut Section<'_>) -> Vec<TableFilter> {
    let check = |text: &str| {
        TableFilter::parse(text)
            .map(|_| ())
            .ok_or_else(|| format!("`{text}` is not TABLE=CONDITION, as in \"users=active and id > 7\""))
    };
    let given = section.strings("where", check).unwrap_or_default();
    given.iter().filter_map(|text| TableFilter::parse(text)).collect()
}
