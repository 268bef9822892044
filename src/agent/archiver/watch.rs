//! A hint that something became `.ready`. Notifications get lost and directories are replaced: a rescan finds what they
//! missed, so nothing here is an error.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use super::scan::Identity;

/// Watches one directory at a time.
pub(super) struct Watch {
    wake: Arc<Notify>,
    watched: Option<(PathBuf, Option<Identity>, RecommendedWatcher)>,
}

impl Watch {
    pub(super) fn new(wake: Arc<Notify>) -> Self {
        Self { wake, watched: None }
    }

    /// Watches this directory from now on; another one of the same path is another directory.
    pub(super) fn follow(&mut self, directory: &Path, identity: Option<Identity>) {
        let same =
            |(path, known, _): &(PathBuf, Option<Identity>, _)| path == directory && *known == identity;
        if self.watched.as_ref().is_some_and(same) {
            return;
        }
        let wake = self.wake.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Opening the directory for a scan is an event too, and must not lead to the next scan.
            if event.is_ok_and(|event| says_ready(&event)) {
                wake.notify_one();
            }
        });
        let watching = watcher.and_then(|mut watcher| {
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        self.watched = match watching {
            Ok(watcher) => {
                // Something may have become ready between the scan and now.
                self.wake.notify_one();
                Some((directory.to_path_buf(), identity, watcher))
            }
            Err(error) => {
                tracing::debug!(%error, directory = %directory.display(), "no notifications; rescans go on");
                None
            }
        };
    }
}

fn says_ready(event: &Event) -> bool {
    // PostgreSQL makes the file; who tells it to archive something once more may well rename one.
    let appeared = matches!(event.kind, EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(_)));
    // Without a path: the kernel's queue was full.
    event.need_rescan()
        || (appeared && event.paths.iter().any(|path| path.extension().is_some_and(|e| e == "ready")))
}
