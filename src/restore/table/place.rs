//! Where a side instance lives for the time of a table's restore: a directory of its own with a lock that its process
//! holds. A directory whose lock is free was left by a killed process; the next run removes it.

use std::fs::{File, TryLockError};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::model::Timestamp;
use crate::postgres::instance::{self, socket_fits};
use crate::postgres::privilege::Owner;
use crate::restore::{marker, rights};
use crate::util::durable;

/// Every such directory begins so; nothing else in the scratch directory is touched.
const PREFIX: &str = "table-";
const LOCK: &str = "lock";
/// Names the directory of the socket where the own path is too long.
const SOCKET: &str = "socket-directory";
const STOPS_WITHIN: Duration = Duration::from_mins(2);

/// The directory of one run, before it exists.
pub fn choose(scratch: &Path, now: Timestamp) -> PathBuf {
    scratch.join(format!("{PREFIX}{}-{}", now.compact_seconds(), std::process::id()))
}

/// The data directory of a side instance in `work`.
pub fn data_directory(work: &Path) -> PathBuf {
    work.join("data")
}

/// The socket's directory, where the data directory's path is too long for it.
pub fn socket_directory(work: &Path) -> Option<PathBuf> {
    if socket_fits(&data_directory(work)) {
        return None;
    }
    let name = work.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Some(std::env::temp_dir().join(format!("pgkeep-{name}")))
}

/// Held as long as the restore runs.
#[derive(Debug)]
pub struct Place {
    pub directory: PathBuf,
    /// Its lock ends with the process, however that ends.
    _lock: File,
}

impl Place {
    /// Makes it, with its parents.
    pub async fn make(directory: &Path, owner: &Owner) -> Result<Self> {
        let parent = directory.parent().unwrap_or(Path::new("/"));
        rights::make_directory(parent, owner).await.map_err(|e| {
            e.while_doing("cannot make the directory for the side instance")
                .hint("name another one with --scratch-dir, or set scratch_directory in [restore]")
        })?;
        durable::make_dirs(directory, 0o700)?;
        let path = directory.join(LOCK);
        let failed = |e| Error::io("cannot lock the directory of the side instance", &path, e);
        let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        lock.lock().map_err(failed)?;
        if let Some(socket) = socket_directory(directory) {
            durable::atomic_replace(&directory.join(SOCKET), socket.to_string_lossy().as_bytes(), 0o600)?;
            durable::make_dirs(&socket, 0o700)?;
            std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o700))
                .map_err(|e| Error::io("cannot close the socket's directory", &socket, e))?;
        }
        Ok(Self { directory: directory.to_path_buf(), _lock: lock })
    }

    /// Stops what runs there and removes it.
    pub async fn remove(self) -> Result<()> {
        clear(&self.directory).await
    }
}

/// Removes what killed runs left in the scratch directory; what was removed.
pub async fn remove_leftovers(scratch: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(scratch) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("cannot look into the scratch directory", scratch, e)),
    };
    let mut removed = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| Error::io("cannot look into the scratch directory", scratch, e))?;
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) || !entry.path().is_dir() {
            continue;
        }
        if is_free(&entry.path())? {
            clear(&entry.path()).await?;
            removed.push(entry.path());
        }
    }
    Ok(removed)
}

/// True when no living process holds the lock.
fn is_free(directory: &Path) -> Result<bool> {
    let path = directory.join(LOCK);
    let file = match File::options().write(true).open(&path) {
        Ok(file) => file,
        // Killed before it was made, or removed up to here.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        Err(e) => return Err(Error::io("cannot look at the lock of a side instance", &path, e)),
    };
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(e)) => Err(Error::io("cannot look at the lock of a side instance", &path, e)),
    }
}

async fn clear(directory: &Path) -> Result<()> {
    let data = data_directory(directory);
    instance::stop_whatever_runs(&data, STOPS_WITHIN).await?;
    // A description that cannot be read names nothing outside.
    let outside = marker::Side::read(&data).ok().flatten().map(|side| side.outside).unwrap_or_default();
    let socket = std::fs::read_to_string(directory.join(SOCKET)).ok().map(PathBuf::from);
    // Only one that this module could have named.
    let socket = socket.filter(|s| Some(s) == socket_directory(directory).as_ref());
    for path in outside.iter().chain(&socket) {
        remove_all(path)?;
    }
    remove_all(&data)?;
    remove_all(directory)
}

fn remove_all(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("cannot remove the side instance", path, e)
                .hint("remove this directory by hand: it holds plain data"))
        }
        _ => Ok(()),
    }
}

/// Why a person should look: a removal that failed after the work was done.
pub fn left_behind(directory: &Path, error: &Error) -> Error {
    Error::new(Code::Io, format!("the side instance could not be removed: {error}"))
        .at(directory.display())
        .hint("remove it with `pgkeep restore discard --leftovers`: it holds plain data")
}
