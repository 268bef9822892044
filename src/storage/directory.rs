//! A repository in a directory: a local disk, or NFS or CIFS that is mounted.
//!
//! An object is a file whose path is its key. It is written under a temporary name in the directory where it will
//! live and takes its name when it is durable (`util::durable`); the entries of its parent directories are made
//! durable once per process, also where another process made them and died before it could.
//!
//! The root must exist: an absent root is an unmounted disk, never an empty repository. The root may be a symbolic
//! link; below it links are refused, so that no key leads out of it. Directories that become empty by a `delete`
//! go with it. Symbolic links, sockets and the like fail a listing: a listing is complete or an error.
//!
//! Order and speed: one thread per upload writes while the caller prepares the next chunk; at most
//! two chunks wait. The disk begins to write every 16 MiB; one fsync at the end, none between. Reading is in pieces
//! of 1 MiB.
//!
//! Cancellation: a dropped upload's thread sees its channel closed and removes the temporary.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Body, Key, ObjectInfo, Storage, Stored, Upload, key};
use crate::error::{Code, Error, Result};
use crate::model::Timestamp;
use crate::util::{clock, durable};

mod listing;
mod reading;
mod writing;

/// The driver. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Directory(Arc<Root>);

#[derive(Debug)]
struct Root {
    path: PathBuf,
    location: String,
    file_mode: u32,
    dir_mode: u32,
    /// Directories whose entries up to the root this process has made durable.
    synced: Mutex<HashSet<PathBuf>>,
}

impl Directory {
    /// `root` must be an existing directory. Modes are for what will be made below it.
    pub fn open(root: &Path, file_mode: u32, dir_mode: u32) -> Result<Self> {
        let location = format!("file://{}", root.display());
        let root = Root { path: root.to_path_buf(), location, file_mode, dir_mode, synced: Mutex::default() };
        root.must_exist()?;
        Ok(Self(Arc::new(root)))
    }

    /// Runs `work` where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Root>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let root = Arc::clone(&self.0);
        joined(tokio::task::spawn_blocking(move || work(&root)).await)
    }
}

/// The result of a blocking task; a panic there is our bug.
fn joined<T>(result: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    result.unwrap_or_else(|e| Err(Error::internal("a storage thread died").because(e)))
}

impl Root {
    fn must_exist(&self) -> Result<()> {
        let gone = |what| {
            Error::new(Code::NotARepository, what)
                .at(&self.location)
                .hint("mount the disk; if this is a new repository, make the directory first")
        };
        match fs::metadata(&self.path) {
            Ok(m) if m.is_dir() => Ok(()),
            Ok(_) => Err(gone("the repository's root is not a directory")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(gone("the repository's root does not exist"))
            }
            Err(e) => Err(Error::io("cannot look at the repository's root", &self.path, e)),
        }
    }

    /// The file of a key, whose directories are real ones as far as they exist.
    fn path_of(&self, key: &Key) -> Result<PathBuf> {
        key::check(key)?;
        if let Some((directory, _)) = key.rsplit_once('/') {
            self.refuse_links(directory)?;
        }
        Ok(self.path.join(key))
    }

    /// The directory of a prefix (without its slash; empty for the root), a real one if it exists.
    fn directory_of(&self, prefix: &str) -> Result<PathBuf> {
        if prefix.is_empty() {
            return Ok(self.path.clone());
        }
        key::check(prefix)?;
        self.refuse_links(prefix)?;
        Ok(self.path.join(prefix))
    }

    fn refuse_links(&self, directory: &str) -> Result<()> {
        let mut path = self.path.clone();
        for component in directory.split('/') {
            path.push(component);
            match fs::symlink_metadata(&path) {
                Ok(m) if m.is_symlink() => return Err(linked(&path)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => break,
                _ => {}
            }
        }
        Ok(())
    }

    /// What lies at a key's path: None when the store can say that there is no object.
    fn look(&self, key: &Key, path: &Path) -> Result<Option<ObjectInfo>> {
        match fs::symlink_metadata(path) {
            Ok(m) if m.is_file() => Ok(Some(info(key.to_owned(), &m))),
            Ok(m) if m.is_dir() => Ok(None),
            Ok(_) => Err(linked(path)),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                self.must_exist().map(|()| None)
            }
            Err(e) => Err(Error::io("cannot look at the file", path, e)),
        }
    }

    fn synced(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.synced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn info(key: String, metadata: &fs::Metadata) -> ObjectInfo {
    let modified = metadata.modified().ok().map(|t| Timestamp(t.into()));
    ObjectInfo { key, bytes: metadata.len(), modified }
}

fn linked(path: &Path) -> Error {
    Error::new(Code::Io, "neither a file nor a directory; links are not followed inside a repository")
        .at(path.display())
        .hint("move it away; to put a part of the repository on another disk use a bind mount")
}

#[async_trait]
impl Storage for Directory {
    fn location(&self) -> &str {
        &self.0.location
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectInfo>> {
        let key = key.to_owned();
        self.blocking(move |root| root.look(&key, &root.path_of(&key)?)).await
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<Body> {
        let key = key.to_owned();
        let reader = self.blocking(move |root| reading::Reader::open(root, &key, range)).await?;
        Ok(reader.into_body())
    }

    async fn put(&self, key: &Key, body: Bytes) -> Result<Stored> {
        let key = key.to_owned();
        self.blocking(move |root| {
            let mut file = root.create(&key)?;
            file.write_past_cache(&body)?;
            file.publish()?;
            Ok(Stored { bytes: body.len() as u64 })
        })
        .await
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        let key = key.to_owned();
        let file = self.blocking(move |root| root.create(&key)).await?;
        Ok(Box::new(writing::DirectoryUpload::start(file)))
    }

    async fn list(&self, prefix: &str, start_after: Option<&Key>) -> Result<Vec<ObjectInfo>> {
        key::check_prefix(prefix)?;
        let (prefix, start_after) = (prefix.to_owned(), start_after.map(str::to_owned));
        self.blocking(move |root| root.list(&prefix, start_after.as_deref())).await
    }

    async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>> {
        key::check_prefix(prefix)?;
        let prefix = prefix.to_owned();
        self.blocking(move |root| root.list_dirs(&prefix)).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let key = key.to_owned();
        self.blocking(move |root| root.delete(&key)).await
    }

    async fn sweep_unfinished(&self, older_than: Duration) -> Result<u64> {
        self.blocking(move |root| durable::remove_stale_temporaries(&root.path, older_than, clock::now()))
            .await
    }
}

#[cfg(test)]
mod tests;
