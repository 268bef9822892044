//! One file, from the queue to an acknowledgement: what runs beside the archiver's loop.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::scan::path_of;
use crate::agent::services::Services;
use crate::archive::push::Fingerprint;
use crate::archive::ship::{Shipped, Shipper};
use crate::error::Result;
use crate::model::{ClusterName, Digest, SegmentSize, SystemId, Timestamp, WalFileName};

/// What became of it.
pub(super) enum Done {
    Shipped(Box<Shipped>),
    /// Its content was acknowledged before; the file is as it was digested now.
    Known(Digest, Fingerprint),
}

/// `known`: the content of this name that was acknowledged.
pub(super) async fn one(
    shipper: Arc<Shipper>,
    data_directory: PathBuf,
    name: WalFileName,
    known: Option<Digest>,
    now: Timestamp,
) -> (WalFileName, Result<Done>) {
    (name, ship(&shipper, &path_of(&data_directory, name), known, now).await)
}

async fn ship(shipper: &Shipper, path: &Path, known: Option<Digest>, now: Timestamp) -> Result<Done> {
    if let Some(known) = known {
        let (digest, fingerprint) = shipper.digest(path).await?;
        if digest == known {
            return Ok(Done::Known(digest, fingerprint));
        }
    }
    shipper.ship(path, now).await.map(|shipped| Done::Shipped(Box::new(shipped)))
}

/// Opens what is needed to ship this cluster's files. False: an optional repository is not among it.
pub(super) async fn open(
    services: Services,
    cluster: ClusterName,
    system: SystemId,
    size: SegmentSize,
) -> (Result<Arc<Shipper>>, bool) {
    let repositories = services.stores.get().await;
    let complete = repositories.unavailable().is_empty();
    let opened = Shipper::open(&services.hub.config, &cluster, system, size, &repositories).await;
    (opened.map(Arc::new), complete)
}
