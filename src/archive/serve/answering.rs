//! The socket: who may ask, one line in, one line out.

use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::planned::Planned;
use super::{Answer, FetchProgress, SOCKET};
use crate::archive::prefetch::Prefetch;
use crate::error::{Error, Result};
use crate::model::WalFileName;
use crate::util::durable;

/// A request is a file's name; more than this is none.
const LONGEST_REQUEST: u64 = 128;
const ROOT: u32 = 0;

/// Listens in the data directory, whatever the length of its path (a socket's own is limited to 107 bytes).
pub(super) fn bind(data_directory: &Path) -> Result<UnixListener> {
    let place = data_directory.join(SOCKET);
    let cannot = |e| Error::io("cannot listen for wal fetch", &place, e);
    durable::remove_file(&place)?;
    let directory = std::fs::File::open(data_directory).map_err(cannot)?;
    let short = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
    let listener = UnixListener::bind(short).map_err(cannot)?;
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o600)).map_err(cannot)?;
    Ok(listener)
}

/// The user who owns the data directory: PostgreSQL runs as this one.
pub(super) fn owner(data_directory: &Path) -> Result<u32> {
    let meta = std::fs::metadata(data_directory);
    meta.map(|m| m.uid()).map_err(|e| Error::io("cannot look at the data directory", data_directory, e))
}

/// Answers until it is aborted; then every conversation and every download ends with it.
pub(super) async fn serve(
    listener: UnixListener,
    owner: u32,
    prefetch: Arc<Prefetch<Planned>>,
    progress: watch::Sender<FetchProgress>,
) {
    let progress = Arc::new(progress);
    let mut conversations = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (prefetch, progress) = (prefetch.clone(), progress.clone());
                    conversations.spawn(async move { converse(stream, owner, &prefetch, &progress).await });
                }
                Err(e) => {
                    tracing::warn!(error = %e, "a fetch could not be accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            },
            Some(_) = conversations.join_next() => {}
        }
    }
}

async fn converse(
    stream: UnixStream,
    owner: u32,
    prefetch: &Prefetch<Planned>,
    progress: &watch::Sender<FetchProgress>,
) {
    let known = stream.peer_cred().is_ok_and(|peer| peer.uid() == owner || peer.uid() == ROOT);
    if !known {
        return;
    }
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    if BufReader::new(read.take(LONGEST_REQUEST)).read_line(&mut line).await.is_err() {
        return;
    }
    let Some(file) = WalFileName::parse(line.trim_end()) else { return };
    let answer = match prefetch.get(file).await {
        Ok(()) => Answer::Ready(file.to_string()),
        Err(e) => Answer::Failed { message: e.to_string(), hint: e.hint_text().map(str::to_owned) },
    };
    let Ok(mut json) = serde_json::to_vec(&answer) else { return };
    json.push(b'\n');
    // An asker that went away has what it needs on disk; it or the next one asks again.
    let told = write.write_all(&json).await.is_ok();
    progress.send_modify(|p| match (answer, file) {
        (Answer::Ready(_), WalFileName::Segment(segment)) if told => {
            p.last_served = Some(segment);
            p.segments_served += 1;
        }
        (Answer::Failed { message, .. }, _) => p.failed = Some(message),
        _ => {}
    });
}
