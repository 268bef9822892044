//! While `restore` runs a recovery it serves the fetches itself: the next segments are received ahead of the replay, so
//! that replay never waits for the store, and every request says how far replay is.
//!
//! `wal fetch` decides by the plan before it asks ([`ask`]), and what it asks for is in the plan. When nobody answers, or
//! the server dies in the middle, it works by itself; the plan is on disk.
//!
//! Bounds: `look_ahead` segments in `pgkeep.spool` (same file system as the data directory, never in pg_wal), as many
//! downloads at once, one request at a time from PostgreSQL. Only the data directory's owner and root are answered.
//! [`FetchServer::stop`] (and a drop) ends the downloads and removes socket and spool.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::prefetch::Prefetch;
use super::source::Source;
use super::spool;
use crate::error::{Code, Error, Result};
use crate::model::{SegmentName, WalFileName};
use crate::repository::recovery_plan::RecoveryPlan;
use crate::repository::wal_listing::WalListing;

mod answering;
mod planned;

/// The socket's name in the data directory. Requests are one line, answers one line of JSON.
pub const SOCKET: &str = "pgkeep.fetch.sock";

/// What a server serves.
#[derive(Debug)]
pub struct Settings {
    pub plan: RecoveryPlan,
    /// Everything that the repositories hold of this system identifier.
    pub listing: WalListing,
    pub source: Source,
    pub data_directory: PathBuf,
    /// Segments kept ready.
    pub look_ahead: usize,
    /// For one request.
    pub deadline: Duration,
}

/// How far replay has come, as far as its requests say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FetchProgress {
    /// The last segment that PostgreSQL was given.
    pub last_served: Option<SegmentName>,
    pub segments_served: u64,
    /// The last request that failed, for people.
    pub failed: Option<String>,
}

/// The answer to one request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    /// The file's name in the spool.
    Ready(String),
    Failed {
        message: String,
        hint: Option<String>,
    },
}

/// A running server.
pub struct FetchServer {
    task: JoinHandle<()>,
    progress: watch::Receiver<FetchProgress>,
    data_directory: PathBuf,
}

impl FetchServer {
    /// Begins to listen and to fetch ahead. Must be called inside a multi-threaded runtime.
    pub fn start(settings: Settings) -> Result<Self> {
        let data_directory = settings.data_directory.clone();
        let listener = answering::bind(&data_directory)?;
        clear_spool(&data_directory)?;
        let spool = data_directory.join(spool::DIRECTORY);
        crate::util::durable::make_dirs(&spool, 0o700)?;
        let mode = spool::file_mode(&data_directory);
        let (look_ahead, deadline) = (settings.look_ahead, settings.deadline);
        let supply = Arc::new(planned::Planned::new(settings, mode));
        let first = supply.first();
        let prefetch = Arc::new(Prefetch::new(supply, spool, look_ahead, deadline));
        if let Some(first) = first {
            let prefetch = prefetch.clone();
            tokio::spawn(async move { prefetch.begin(first).await });
        }
        let (sender, progress) = watch::channel(FetchProgress::default());
        let owner = answering::owner(&data_directory)?;
        let task = tokio::spawn(answering::serve(listener, owner, prefetch, sender));
        Ok(Self { task, progress, data_directory })
    }

    /// Follows the progress.
    pub fn progress(&self) -> watch::Receiver<FetchProgress> {
        self.progress.clone()
    }

    /// Ends the downloads; socket and spool are gone afterwards.
    pub async fn stop(mut self) -> Result<()> {
        self.task.abort();
        // Only its end matters: the downloads are dropped with it.
        let _ = (&mut self.task).await;
        clear(&self.data_directory)
    }
}

impl Drop for FetchServer {
    fn drop(&mut self) {
        self.task.abort();
        // A leftover is harmless: nobody answers on the socket, and the next server clears the spool.
        let _ = clear(&self.data_directory);
    }
}

/// Removes what a server leaves in a data directory.
pub fn clear(data_directory: &Path) -> Result<()> {
    crate::util::durable::remove_file(&data_directory.join(SOCKET))?;
    clear_spool(data_directory)
}

fn clear_spool(data_directory: &Path) -> Result<()> {
    let spool = data_directory.join(spool::DIRECTORY);
    match std::fs::remove_dir_all(&spool) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("cannot remove the spool of fetched segments", &spool, e)),
    }
}

/// Asks the server of a running restore for a file of its plan. None when there is none, or it died; then the caller
/// works by itself. An error is the server's own.
pub(super) fn ask(data_directory: &Path, file: WalFileName, deadline: Duration) -> Result<Option<PathBuf>> {
    match exchange(data_directory, file, deadline) {
        Ok(Answer::Ready(name)) => {
            // Only a name in the spool, never a path.
            let plain = WalFileName::parse(&name).map(|n| n.to_string());
            Ok(plain.map(|name| data_directory.join(spool::DIRECTORY).join(name)))
        }
        Ok(Answer::Failed { message, hint }) => {
            let error = Error::new(Code::StoreUnavailable, message);
            Err(match hint {
                Some(hint) => error.hint(hint),
                None => error,
            })
        }
        Err(e) => {
            tracing::debug!(error = %e, "no restore serves this recovery");
            Ok(None)
        }
    }
}

fn exchange(data_directory: &Path, file: WalFileName, deadline: Duration) -> std::io::Result<Answer> {
    // PostgreSQL's working directory is the data directory, whose own path may be too long for a socket.
    let near = Path::new(SOCKET);
    let far = data_directory.join(SOCKET);
    let mut stream = UnixStream::connect(if near.exists() { near } else { &far })?;
    stream.set_read_timeout(Some(deadline))?;
    stream.set_write_timeout(Some(deadline))?;
    writeln!(stream, "{file}")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    serde_json::from_str(&line).map_err(std::io::Error::from)
}
