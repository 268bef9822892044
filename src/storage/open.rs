//! From settings to a store: the driver with its decorators.

use std::sync::Arc;

use super::directory::Directory;
use super::limit::Limited;
use super::observe::{Observed, Observer};
use super::retry::{Retry, RetryPolicy};
use super::s3::S3;
use super::{Location, Storage, StoreSettings};
use crate::error::Result;

/// Opens the store: limits around retries around the driver. A directory must exist; S3 is not asked anything
/// yet. Needs a tokio runtime.
pub async fn open(settings: &StoreSettings) -> Result<Arc<dyn Storage>> {
    open_observed(settings, None).await
}

/// The same, with somebody who is told of every try.
pub async fn open_observed(
    settings: &StoreSettings,
    observer: Option<Arc<dyn Observer>>,
) -> Result<Arc<dyn Storage>> {
    let policy = RetryPolicy::within(settings.operation_deadline);
    let driver: Arc<dyn Storage> = match settings.check()? {
        Location::Directory(path) => {
            let (file_mode, dir_mode) = (settings.file_mode, settings.dir_mode);
            Arc::new(Directory::open(&path, file_mode, dir_mode)?)
        }
        Location::S3 { bucket, prefix } => Arc::new(S3::open(settings, &bucket, &prefix).await?),
    };
    let driver = match observer {
        Some(observer) => Arc::new(Observed::new(driver, observer)),
        None => driver,
    };
    let retried = Arc::new(Retry::new(driver, policy));
    let (up, down) = (settings.upload_bandwidth, settings.download_bandwidth);
    Ok(Arc::new(Limited::new(retried, settings.concurrency, up, down)))
}
