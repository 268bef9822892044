//! One source, several repositories: read once, write to all.
//!
//! * **Required** repositories decide: the first failure of one ends the work at once.
//! * **Optional** ones never hold it up: one that lags behind its bounded queue for longer than its patience, all
//!   together, or is unfinished when the patience after the required ones is over, is abandoned and reported.
//! * **Memory** is bounded: a chunk being filled, and per repository [`QUEUE`] chunks waiting and one on its way;
//!   repositories in step share the same chunks.
//! * **Cancellation**: dropping a [`FanOut`] without `finish` aborts every upload; nothing becomes visible.

use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::{SendTimeoutError, TrySendError};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Repository;
use crate::codec::{Sealed, into_io};
use crate::error::{Code, Error, Result};
use crate::model::RepoName;
use crate::storage::{Storage, Stored};
use crate::util::buffers::{Buffer, Buffers};

/// Bytes handed to the stores at a time.
pub const CHUNK: usize = 4 << 20;
/// Chunks waiting for one store.
const QUEUE: usize = 2;
/// How long an optional repository may hold up the others, and may take after them.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// What became of a write in one repository.
pub type Outcome = (RepoName, Result<Stored>);

enum Step {
    Chunk(Bytes),
    /// The stream is complete; without it the upload is aborted.
    End,
}

/// One repository's upload in progress.
struct Lane {
    name: RepoName,
    required: bool,
    place: String,
    /// None once the lane was given up.
    steps: Option<mpsc::Sender<Step>>,
    task: Option<JoinHandle<Result<Stored>>>,
    patience: Duration,
    gave_up: Option<Error>,
}

/// A write to several repositories. `Write` blocks: it is for blocking threads, never for async tasks.
pub struct FanOut {
    lanes: Vec<Lane>,
    chunk: Buffer,
    buffers: Buffers,
    runtime: Handle,
    patience: Duration,
}

impl FanOut {
    /// Opens the uploads. Must be called inside a runtime; writes then come from any blocking thread.
    pub fn begin(targets: &[&Repository], key: &str) -> Self {
        Self::begin_with(targets, key, &Handle::current(), PATIENCE)
    }

    /// The same from a thread that is not inside the runtime, and with a patience of one's own.
    pub fn begin_with(targets: &[&Repository], key: &str, runtime: &Handle, patience: Duration) -> Self {
        let lanes = targets.iter().map(|r| Lane::open(r, key, runtime, patience)).collect();
        let buffers = Buffers::default();
        Self { lanes, chunk: buffers.with_room(CHUNK), buffers, runtime: runtime.clone(), patience }
    }

    fn send(&mut self) -> Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, self.buffers.with_room(CHUNK)).share();
        let runtime = self.runtime.clone();
        for lane in &mut self.lanes {
            lane.offer(Step::Chunk(chunk.clone()), &runtime)?;
        }
        Ok(())
    }

    /// Completes the object in every repository and waits until it is durable there; `sealed` is what the codec
    /// counted, and a store that took anything else fails. An error is that of a required repository.
    pub fn finish(self, sealed: &Sealed) -> Result<Vec<Outcome>> {
        self.finish_part(sealed.stored_bytes)
    }

    /// The same for one object of a sealed stream that goes on in another: `bytes` is what went into this one.
    pub fn finish_part(self, bytes: u64) -> Result<Vec<Outcome>> {
        self.finish_bytes(bytes)?.wait()
    }

    /// The same without waiting: the caller may go on with the next object.
    pub fn finish_in_background(self, sealed: &Sealed) -> Result<Finishing> {
        self.finish_bytes(sealed.stored_bytes)
    }

    fn finish_bytes(mut self, bytes: u64) -> Result<Finishing> {
        self.send()?;
        let runtime = self.runtime.clone();
        for lane in &mut self.lanes {
            lane.offer(Step::End, &runtime)?;
        }
        let lanes = std::mem::take(&mut self.lanes);
        let task = runtime.spawn(close_all(lanes, bytes, self.patience));
        Ok(Finishing { task: Some(task), runtime })
    }
}

/// An object on its way to durability. Dropped, it is given up.
pub struct Finishing {
    task: Option<JoinHandle<Result<Vec<Outcome>>>>,
    runtime: Handle,
}

impl Finishing {
    /// For blocking threads.
    pub fn wait(mut self) -> Result<Vec<Outcome>> {
        let Some(task) = self.task.take() else {
            return Err(Error::internal("an object is finished twice"));
        };
        let runtime = self.runtime.clone();
        runtime.block_on(task).map_err(|e| Error::internal("an upload's task failed").because(e))?
    }
}

impl Drop for Finishing {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

async fn close_all(mut lanes: Vec<Lane>, bytes: u64, patience: Duration) -> Result<Vec<Outcome>> {
    // Required ones first: the patience for the others counts from their end.
    lanes.sort_by_key(|lane| !lane.required);
    let mut outcomes = Vec::with_capacity(lanes.len());
    let mut deadline = None;
    for lane in lanes {
        let (required, name) = (lane.required, lane.name.clone());
        let until =
            (!required).then(|| *deadline.get_or_insert_with(|| tokio::time::Instant::now() + patience));
        match lane.close(until).await.and_then(|stored| confirmed(stored, bytes)) {
            Err(e) if required => return Err(e),
            stored => outcomes.push((name, stored)),
        }
    }
    Ok(outcomes)
}

fn confirmed(stored: Stored, bytes: u64) -> Result<Stored> {
    if stored.bytes == bytes {
        return Ok(stored);
    }
    Err(Error::new(Code::StoreLied, format!("the store took {} bytes where {bytes} were sent", stored.bytes)))
}

impl Write for FanOut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK - self.chunk.len();
        let take = room.min(bytes.len());
        self.chunk.extend(&bytes[..take]);
        if self.chunk.len() == CHUNK {
            self.send().map_err(into_io)?;
        }
        Ok(take)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lane {
    fn open(target: &Repository, key: &str, runtime: &Handle, patience: Duration) -> Self {
        let (steps, mailbox) = mpsc::channel(QUEUE);
        let task = runtime.spawn(carry(target.storage.clone(), key.to_owned(), mailbox));
        Self {
            name: target.name.clone(),
            required: target.required,
            place: target.place(key),
            steps: Some(steps),
            task: Some(task),
            patience,
            gave_up: None,
        }
    }

    /// Hands a step to the upload. An optional lane may use up its patience, then it is given up.
    fn offer(&mut self, step: Step, runtime: &Handle) -> Result<()> {
        let Some(steps) = &self.steps else { return Ok(()) };
        if self.required {
            return match steps.blocking_send(step) {
                Ok(()) => Ok(()),
                Err(_) => Err(self.failure(runtime)),
            };
        }
        let step = match steps.try_send(step) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => {
                self.gave_up = Some(self.failure(runtime));
                self.steps = None;
                return Ok(());
            }
            Err(TrySendError::Full(step)) => step,
        };
        let before = tokio::time::Instant::now();
        let sent = runtime.block_on(steps.send_timeout(step, self.patience));
        self.patience = self.patience.saturating_sub(before.elapsed());
        match sent {
            Ok(()) => {}
            Err(SendTimeoutError::Closed(_)) => {
                self.gave_up = Some(self.failure(runtime));
                self.steps = None;
            }
            Err(SendTimeoutError::Timeout(_)) => {
                self.gave_up = Some(abandoned(&self.place));
                self.steps = None;
            }
        }
        Ok(())
    }

    /// Why the upload ended before its time.
    fn failure(&mut self, runtime: &Handle) -> Error {
        let ended = self.task.take().map(|task| runtime.block_on(task));
        match ended {
            Some(Ok(Err(error))) => error,
            _ => Error::internal("an upload ended by itself").at(&self.place),
        }
    }

    async fn close(mut self, deadline: Option<tokio::time::Instant>) -> Result<Stored> {
        if let Some(error) = self.gave_up.take() {
            return Err(error);
        }
        let Some(task) = self.task.as_mut() else {
            return Err(Error::internal("an upload is closed twice").at(&self.place));
        };
        let ended = match deadline {
            None => task.await,
            Some(deadline) => match tokio::time::timeout_at(deadline, task).await {
                Ok(ended) => ended,
                Err(_) => return Err(abandoned(&self.place)),
            },
        };
        self.task = None;
        ended.map_err(|e| Error::internal("an upload's task failed").at(&self.place).because(e))?
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // The upload's future is dropped at its next await; the storage contract aborts a dropped upload.
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

fn abandoned(place: &str) -> Error {
    Error::new(Code::StoreUnavailable, "abandoned: slower than the required repositories").at(place)
}

/// Carries chunks into one upload. When the sender goes away before the end, the upload is aborted.
async fn carry(
    storage: std::sync::Arc<dyn Storage>,
    key: String,
    mut mailbox: mpsc::Receiver<Step>,
) -> Result<Stored> {
    let mut upload = storage.upload(&key).await?;
    loop {
        match mailbox.recv().await {
            Some(Step::Chunk(chunk)) => {
                if let Err(error) = upload.write(chunk).await {
                    let _ = upload.abort().await;
                    return Err(error);
                }
            }
            Some(Step::End) => return upload.finish().await,
            None => {
                let _ = upload.abort().await;
                return Err(Error::new(Code::Cancelled, "the upload was given up"));
            }
        }
    }
}

/// A small object into every target at once. Required ones are waited for (the storage has its own deadlines);
/// optional ones get `patience` after them. Never fails as a whole: the caller looks at the required outcomes.
pub async fn put_everywhere(
    targets: &[&Repository],
    key: &str,
    bytes: &Bytes,
    patience: Duration,
) -> Vec<Outcome> {
    let mut running: Vec<(&Repository, JoinHandle<Result<Stored>>)> = Vec::with_capacity(targets.len());
    for target in targets {
        let (storage, key, bytes) = (target.storage.clone(), key.to_owned(), bytes.clone());
        running.push((target, tokio::spawn(async move { storage.put(&key, bytes).await })));
    }
    running.sort_by_key(|(target, _)| !target.required);
    let mut outcomes = Vec::with_capacity(running.len());
    let mut deadline = None;
    for (target, mut task) in running {
        let place = target.place(key);
        let ended = if target.required {
            task.await
        } else {
            let at = *deadline.get_or_insert_with(|| tokio::time::Instant::now() + patience);
            let left = at.saturating_duration_since(tokio::time::Instant::now());
            if let Ok(ended) = timeout(left, &mut task).await {
                ended
            } else {
                task.abort();
                Ok(Err(abandoned(&place)))
            }
        };
        let stored =
            ended.unwrap_or_else(|e| Err(Error::internal("a write's task failed").at(&place).because(e)));
        outcomes.push((target.name.clone(), stored));
    }
    outcomes
}
