//! Ships WAL before PostgreSQL asks: a segment is on its way as soon as it is `.ready`, several at once, and `wal push`
//! only hears that it is there.
//!
//! Promises kept here: the answer to PostgreSQL is a durable fact, of this very content (1); a damaged segment is shipped
//! with its mark and told (11); neither a store that fails nor this task's death stops PostgreSQL's archiving, for `wal
//! push` then works by itself (11); what is forgotten is looked up again in the store (9).
//!
//! Order: find the data directory → scan `archive_status` → open the repositories → ship. `notify` says that something
//! became ready, and a rescan every [`RESCAN`] finds what it missed. Everything of a cluster passes through one loop
//! ([`work`]), which never waits for a disk or a store: scans, opening and shipping are tasks of their own.
//!
//! Bounds: [`AHEAD`] files under way, [`ship::Shipper`]'s workers and memory, [`ASKS`] questions. Back-pressure: a store
//! that fails is tried with one file at a time ([`queue`]); the rest waits where PostgreSQL keeps it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};

use super::services::Services;
use super::supervisor::Task;
use crate::archive::push::Fingerprint;
use crate::config::{ClusterConfig, Config};
use crate::error::{Error, Result};
use crate::model::{ClusterName, SystemId, WalFileName};

mod acks;
mod facts;
mod holes;
mod inherited;
mod progress;
pub mod push;
mod queue;
mod scan;
mod ship;
mod watch;
mod work;

/// Between two scans when nothing is heard.
const RESCAN: Duration = Duration::from_secs(10);
/// Files that are looked for in the store or shipped at once.
const AHEAD: usize = 16;
/// Questions that wait to be heard.
const ASKS: usize = 64;

/// How `wal push` reaches the archivers of one generation. Cheap to clone.
#[derive(Clone)]
pub struct Archivers(Arc<Vec<Door>>);

/// The way to one cluster's archiver. Questions that nobody heard when it was started again are heard by the next.
#[derive(Clone)]
struct Door {
    cluster: ClusterName,
    /// Where it was seen last.
    found: Arc<Mutex<Option<PathBuf>>>,
    asks: mpsc::Sender<Ask>,
    heard: Arc<AsyncMutex<mpsc::Receiver<Ask>>>,
}

/// PostgreSQL waits for this file.
struct Ask {
    system: SystemId,
    name: WalFileName,
    /// As it lies there now.
    fingerprint: Fingerprint,
    reply: oneshot::Sender<push::Answer>,
}

impl Archivers {
    pub fn new(config: &Config) -> Self {
        let door = |cluster: &ClusterConfig| {
            let (asks, heard) = mpsc::channel(ASKS);
            let found = Arc::new(Mutex::new(cluster.data_directory.clone()));
            Door { cluster: cluster.name.clone(), found, asks, heard: Arc::new(AsyncMutex::new(heard)) }
        };
        Self(Arc::new(config.clusters.iter().map(door).collect()))
    }
    fn doors(&self) -> &[Door] {
        &self.0
    }
    /// Where a cluster's data directory was seen last.
    pub(super) fn data_directory(&self, cluster: &ClusterName) -> Option<PathBuf> {
        self.0.iter().find(|door| door.cluster == *cluster)?.data_directory()
    }
    /// The cluster whose data directory this is. Blocks.
    pub(super) fn cluster_at(&self, place: &Path, named: Option<&ClusterName>) -> Option<ClusterName> {
        self.door_at(place, named).map(|door| door.cluster.clone())
    }
    fn door_at(&self, place: &Path, named: Option<&ClusterName>) -> Option<&Door> {
        let here = scan::Identity::at(place)?;
        let ours = |door: &&Door| {
            named.is_none_or(|name| *name == door.cluster)
                && door.data_directory().as_deref().and_then(scan::Identity::at) == Some(here)
        };
        self.0.iter().find(ours)
    }
}

impl Door {
    fn data_directory(&self) -> Option<PathBuf> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    fn found_at(&self, path: PathBuf) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(path);
    }
}

/// One for each cluster.
pub fn tasks(services: &Services) -> Vec<Task> {
    let task = |cluster: &ClusterConfig| {
        let (services, cluster) = (services.clone(), cluster.clone());
        Task::new(format!("archiver {}", cluster.name), move || {
            let (services, cluster) = (services.clone(), cluster.clone());
            async move { begin(services, cluster).await }
        })
    };
    services.hub.config.clusters.iter().map(task).collect()
}

async fn begin(services: Services, cluster: ClusterConfig) -> Result<()> {
    let mut doors = services.archivers.doors().iter();
    let door = doors.find(|door| door.cluster == cluster.name).cloned();
    let door = door.ok_or_else(|| Error::internal("an archiver without a door"))?;
    // The one that failed before this has let go of it.
    let mut heard = door.heard.clone().lock_owned().await;
    work::Archiver::new(services, cluster, door).run(&mut heard).await
}
