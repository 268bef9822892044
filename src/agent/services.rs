//! What the tasks of one generation share besides the hub: the opened stores, and the handles through which the control
//! socket asks other tasks. Made anew by a reload.

use super::Hub;
use super::archiver::Archivers;
use super::catalog_facts::News;
use super::jobs::Jobs;
use super::prefetch::Prefetchers;
use super::stores::Stores;

/// Cheap to clone.
#[derive(Clone)]
pub struct Services {
    pub hub: Hub,
    pub stores: Stores,
    /// The way of `wal push` to the archivers.
    pub archivers: Archivers,
    /// Runs, which outlive a generation.
    pub jobs: Jobs,
    /// Said when there may be a new backup or a new proof.
    pub news: News,
    pub prefetchers: Prefetchers,
    /// Counts the configurations that this process has worked with, from 1.
    pub generation: u64,
}

impl Services {
    pub fn new(hub: &Hub, generation: u64, jobs: &Jobs) -> Self {
        Self {
            hub: hub.clone(),
            stores: Stores::new(hub),
            archivers: Archivers::new(&hub.config),
            jobs: jobs.clone(),
            news: News::default(),
            prefetchers: Prefetchers::default(),
            generation,
        }
    }
}
