//! Where a side instance lives that nobody shall keep: a directory of its own (0700) in the scratch directory, with a lock
//! that its process holds. Restores of tables, drills and restore tests make theirs here.
//!
//! A directory whose lock is free was left by a killed process. The next of these commands removes it with the server that
//! may still run in it, and so does the agent when it starts. Whoever makes a directory or looks for leftovers holds the
//! scratch directory's own lock meanwhile, so that one that was just made is never taken for a leftover, and two who sweep
//! do not remove the same.

use std::fs::{File, TryLockError};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::model::Timestamp;
use crate::postgres::instance::{self, socket_fits};
use crate::postgres::privilege::Owner;
use crate::restore::{marker, rights};
use crate::util::durable;

const LOCK: &str = "lock";
/// Names the directory of the socket where the own path is too long.
const SOCKET: &str = "socket-directory";
const STOPS_WITHIN: Duration = Duration::from_mins(2);

/// What a directory is for. Its name begins so; nothing else in the scratch directory is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// `restore table`
    Table,
    Drill,
    RestoreTest,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::Table, Self::Drill, Self::RestoreTest];

    const fn prefix(self) -> &'static str {
        match self {
            Self::Table => "table-",
            Self::Drill => "drill-",
            Self::RestoreTest => "test-",
        }
    }
}

/// The directory of one run, before it exists.
pub fn choose(scratch: &Path, purpose: Purpose, now: Timestamp) -> PathBuf {
    // The agent runs several in one process, and a test's clock may stand still.
    let different = rand::random::<u16>();
    scratch.join(format!(
        "{}{}-{}-{different:04x}",
        purpose.prefix(),
        now.compact_seconds(),
        std::process::id()
    ))
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
        let lock = {
            let _all = lock_all(parent)?;
            durable::make_dirs(directory, 0o700)?;
            let path = directory.join(LOCK);
            let lock = open_lock(&path)?;
            lock.lock().map_err(|e| Error::io("cannot lock the directory of the side instance", &path, e))?;
            lock
        };
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
    let mut removed = Vec::new();
    for (directory, _lock) in leftovers(scratch)? {
        clear(&directory).await?;
        removed.push(directory);
    }
    Ok(removed)
}

/// Directories whose process has died, each with its lock, which is ours from here on.
fn leftovers(scratch: &Path) -> Result<Vec<(PathBuf, File)>> {
    let failed = |e| Error::io("cannot look into the scratch directory", scratch, e);
    let entries = match std::fs::read_dir(scratch) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut ours = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if Purpose::ALL.iter().any(|purpose| name.starts_with(purpose.prefix())) && entry.path().is_dir() {
            ours.push(entry.path());
        }
    }
    if ours.is_empty() {
        return Ok(Vec::new());
    }
    let _all = lock_all(scratch)?;
    let mut found = Vec::new();
    for directory in ours {
        let path = directory.join(LOCK);
        // Killed before its lock was made, or while it was removed.
        let lock = match open_lock(&path) {
            Ok(lock) => lock,
            Err(_) if !directory.exists() => continue,
            Err(e) => return Err(e),
        };
        match lock.try_lock() {
            Ok(()) => found.push((directory, lock)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) => {
                return Err(Error::io("cannot look at the lock of a side instance", &path, e));
            }
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

/// Held by whoever makes a directory or looks which are left over: both take no time.
fn lock_all(scratch: &Path) -> Result<File> {
    // The directory itself can be locked, and no file lies about.
    let failed = |e| Error::io("cannot lock the scratch directory", scratch, e);
    let lock = File::open(scratch).map_err(failed)?;
    lock.lock().map_err(failed)?;
    Ok(lock)
}

fn open_lock(path: &Path) -> Result<File> {
    let options = || File::options().create(true).truncate(false).write(true).mode(0o600).open(path);
    options().map_err(|e| Error::io("cannot open the lock of a side instance", path, e))
}

async fn clear(directory: &Path) -> Result<()> {
    let data = data_directory(directory);
    instance::stop_whatever_runs(&data, STOPS_WITHIN).await?;
    // A throwaway cluster has a directory of its own in it.
    for inner in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if inner.file_type().is_ok_and(|kind| kind.is_dir()) {
            instance::stop_whatever_runs(&data_directory(&inner.path()), STOPS_WITHIN).await?;
        }
    }
    // A description that cannot be read names nothing outside.
    let outside = marker::Side::read(&data).ok().flatten().map(|side| side.outside).unwrap_or_default();
    let socket = std::fs::read_to_string(directory.join(SOCKET)).ok().map(PathBuf::from);
    // Only one that this module could have named.
    let socket = socket.filter(|s| Some(s) == socket_directory(directory).as_ref());
    for path in outside.iter().chain(&socket) {
        remove_all(path)?;
    }
    remove_all(&data)?;
    // Up to here its lock keeps others away.
    let _all = directory.parent().and_then(|scratch| lock_all(scratch).ok());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner::current().unwrap()
    }

    #[tokio::test]
    async fn what_a_dead_process_left_is_removed_and_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        let now: Timestamp = "2026-11-21T02:00:00Z".parse().unwrap();
        let alive = Place::make(&choose(scratch.path(), Purpose::Drill, now), &owner()).await.unwrap();
        let dead = Place::make(&choose(scratch.path(), Purpose::Table, now), &owner()).await.unwrap();
        let killed = dead.directory.clone();
        std::fs::create_dir(killed.join("data")).unwrap();
        // As after kill -9: the lock is free, the directory is there.
        drop(dead);
        let unlocked = scratch.path().join("test-20261121T020000Z-1-0000");
        std::fs::create_dir(&unlocked).unwrap();
        let others = [scratch.path().join("drill.txt"), scratch.path().join("mine")];
        std::fs::write(&others[0], "x").unwrap();
        std::fs::create_dir(&others[1]).unwrap();

        let removed = remove_leftovers(scratch.path()).await.unwrap();
        assert_eq!(removed, [killed.clone(), unlocked]);
        assert!(!killed.exists() && alive.directory.exists() && others.iter().all(|path| path.exists()));
        alive.remove().await.unwrap();
        assert_eq!(remove_leftovers(scratch.path()).await.unwrap(), Vec::<PathBuf>::new());
        assert_eq!(remove_leftovers(&scratch.path().join("absent")).await.unwrap(), Vec::<PathBuf>::new());
    }
}
