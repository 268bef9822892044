//! Objects into files: directories made and durable, a thread per long write, deletes.

use std::fs;
use std::io;
use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Key, Root, Stored, Upload, joined};
use crate::error::{Code, Error, Result};
use crate::util::durable::{self, NewFile};

/// Chunks that may wait for the disk.
const QUEUE: usize = 2;
/// Bytes after which the disk begins to write, while we go on.
const WRITEBACK: u64 = 16 << 20;

impl Root {
    /// A temporary beside the place where the object will be. `ObjectExists` when it is there already (told again,
    /// without a gap, when it is published). Blocks.
    pub(super) fn create(&self, key: &Key) -> Result<NewFile> {
        let path = self.path_of(key)?;
        if self.look(key, &path)?.is_some() {
            return Err(Error::new(Code::ObjectExists, "the object exists, and nothing is overwritten")
                .at(format!("{}/{key}", self.location)));
        }
        let directory = path.parent().unwrap_or(&self.path);
        for _ in 0..32 {
            self.must_exist()?;
            match self.make_durable(directory).and_then(|()| NewFile::create_io(&path, self.file_mode)) {
                Ok(file) => return Ok(file),
                // A `delete` has taken an empty directory away in between.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    self.synced().remove(directory);
                }
                Err(e) => return Err(Error::io("cannot create the file", &path, e)),
            }
        }
        Err(Error::new(Code::Io, "the directory vanishes again and again").at(directory.display()))
    }

    /// Makes the directory where it is missing, but never the root. Whoever made it: its name, and its parents',
    /// are durable from here on.
    fn make_durable(&self, directory: &Path) -> io::Result<()> {
        if self.synced().contains(directory) {
            return Ok(());
        }
        let below = directory.strip_prefix(&self.path).map_err(io::Error::other)?;
        let mut made = self.path.clone();
        for component in below {
            made.push(component);
            durable::make_dir_io(&made, self.dir_mode)?;
        }
        self.synced().insert(directory.to_path_buf());
        Ok(())
    }

    /// Removes the object, and the directories that it leaves empty. Blocks.
    pub(super) fn delete(&self, key: &Key) -> Result<()> {
        let path = self.path_of(key)?;
        if self.look(key, &path)?.is_none() {
            return Ok(());
        }
        durable::remove_file(&path)?;
        let mut directory = path.parent();
        while let Some(empty) = directory.filter(|d| *d != self.path) {
            self.synced().remove(empty);
            if fs::remove_dir(empty).is_err() {
                break;
            }
            directory = empty.parent();
        }
        Ok(())
    }
}

enum Step {
    Write(Bytes),
    Finish,
}

/// A long write. The thread owns the file: it ends with `Finish`, or unfinished when the channel closes.
pub(super) struct DirectoryUpload {
    steps: mpsc::Sender<Step>,
    thread: JoinHandle<Result<Option<Stored>>>,
}

impl DirectoryUpload {
    pub(super) fn start(file: NewFile) -> Self {
        let (steps, queue) = mpsc::channel(QUEUE);
        Self { steps, thread: tokio::task::spawn_blocking(move || write_out(file, queue)) }
    }

    /// Why the thread stopped taking steps.
    async fn failure(&mut self) -> Error {
        match joined((&mut self.thread).await) {
            Err(e) => e,
            Ok(_) => Error::internal("a storage thread ended early"),
        }
    }
}

/// None when the upload was given up.
fn write_out(mut file: NewFile, mut queue: mpsc::Receiver<Step>) -> Result<Option<Stored>> {
    let (mut bytes, mut begun) = (0, 0);
    while let Some(step) = queue.blocking_recv() {
        match step {
            Step::Write(chunk) => {
                file.write_past_cache(&chunk)?;
                bytes += chunk.len() as u64;
                if bytes - begun >= WRITEBACK {
                    // Where it went through the cache. Once more over the window before: by now it is on disk and
                    // can leave it.
                    file.begin_writeback(u64::saturating_sub(begun, WRITEBACK)..bytes);
                    begun = bytes;
                }
            }
            Step::Finish => {
                file.publish()?;
                return Ok(Some(Stored { bytes }));
            }
        }
    }
    Ok(None)
}

#[async_trait]
impl Upload for DirectoryUpload {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        if self.steps.send(Step::Write(chunk)).await.is_err() {
            return Err(self.failure().await);
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Stored> {
        if self.steps.send(Step::Finish).await.is_err() {
            return Err(self.failure().await);
        }
        match joined(self.thread.await)? {
            Some(stored) => Ok(stored),
            None => Err(Error::internal("a storage thread ended early")),
        }
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        let Self { steps, thread } = *self;
        drop(steps);
        // A write that had failed has nothing left to remove.
        let _ = thread.await;
        Ok(())
    }
}
