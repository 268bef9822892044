//! The prefetcher: the segment that is asked for and the ones after it, received in parallel into a spool. `restore` runs
//! it over the plan of its recovery ([`super::serve`]), the agent over what the archive holds ([`super::ahead`]).
//!
//! A file stays in the spool under its own name until the asker has moved it away. Jobs outside the window (the request
//! and `look_ahead` segments after it) are ended and their files removed, so that the spool stays bounded wherever
//! PostgreSQL jumps. What the spool holds counts only with the job that received it: files of an earlier process are
//! never served.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::AbortHandle;

use crate::error::{Code, Error, Result};
use crate::model::{SegmentName, WalFileName};
use crate::util::durable;

/// Downloads at once: opening them is work for a core each.
const PARALLEL: usize = 4;

/// Where the files come from.
#[async_trait]
pub(super) trait Supply: Send + Sync + 'static {
    /// What is known of a received file.
    type Got: Clone + Send + Sync + 'static;
    /// The segment that is asked for after this one; None where nothing follows.
    fn following(&self, segment: SegmentName) -> Option<SegmentName>;
    /// Receives the file to this place in the spool.
    async fn receive(&self, file: WalFileName, destination: PathBuf) -> Result<Self::Got>;
}

type Outcome<T> = Option<Result<T, Told>>;

/// A failure that several may have to hear of.
#[derive(Debug, Clone)]
struct Told {
    code: Code,
    message: String,
    hint: Option<String>,
}

struct Job<T> {
    done: watch::Receiver<Outcome<T>>,
    task: AbortHandle,
}

impl<T> Drop for Job<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Dropped, it ends all downloads.
pub(super) struct Prefetch<S: Supply> {
    supply: Arc<S>,
    spool: PathBuf,
    look_ahead: usize,
    /// For one file.
    deadline: Duration,
    lanes: Arc<Semaphore>,
    jobs: Mutex<BTreeMap<WalFileName, Job<S::Got>>>,
}

impl<S: Supply> Prefetch<S> {
    pub(super) fn new(supply: Arc<S>, spool: PathBuf, look_ahead: usize, deadline: Duration) -> Self {
        let lanes = Arc::new(Semaphore::new(PARALLEL.min(look_ahead.max(1))));
        Self { supply, spool, look_ahead, deadline, lanes, jobs: Mutex::new(BTreeMap::new()) }
    }

    /// Returns once the file lies in the spool under its name.
    pub(super) async fn get(&self, file: WalFileName) -> Result<S::Got> {
        let done = match file {
            WalFileName::Segment(segment) => self.want(segment).await,
            other => self.start(&mut *self.jobs.lock().await, other),
        };
        let outcome = wait(done).await;
        // The asker takes the file away; a second request for it begins anew.
        self.jobs.lock().await.remove(&file);
        outcome
    }

    /// Begins to receive, before anybody asks.
    pub(super) async fn begin(&self, first: SegmentName) {
        self.want(first).await;
    }

    /// Moves the window to begin at `segment`.
    async fn want(&self, segment: SegmentName) -> watch::Receiver<Outcome<S::Got>> {
        let mut window = vec![segment];
        while window.len() <= self.look_ahead {
            match window.last().and_then(|last| self.supply.following(*last)) {
                Some(next) => window.push(next),
                None => break,
            }
        }
        let mut jobs = self.jobs.lock().await;
        let left: Vec<WalFileName> = jobs
            .keys()
            .filter(|file| matches!(file, WalFileName::Segment(s) if !window.contains(s)))
            .copied()
            .collect();
        for file in left {
            jobs.remove(&file);
            // It may still be on its way; the next window or the end of the server removes it then.
            let _ = durable::remove_file(&self.spool.join(file.to_string()));
        }
        let done = self.start(&mut jobs, WalFileName::Segment(segment));
        for next in window.into_iter().skip(1) {
            self.start(&mut jobs, WalFileName::Segment(next));
        }
        done
    }

    fn start(
        &self,
        jobs: &mut BTreeMap<WalFileName, Job<S::Got>>,
        file: WalFileName,
    ) -> watch::Receiver<Outcome<S::Got>> {
        // What failed ahead of time may succeed now that it is needed.
        if jobs.get(&file).is_some_and(|job| matches!(*job.done.borrow(), Some(Err(_)))) {
            jobs.remove(&file);
        }
        let job = jobs.entry(file).or_insert_with(|| {
            let (sender, done) = watch::channel(None);
            let (supply, lanes, deadline) = (self.supply.clone(), self.lanes.clone(), self.deadline);
            let destination = self.spool.join(file.to_string());
            let work = async move {
                let outcome = receive(&*supply, &lanes, deadline, file, destination).await;
                let _ = sender.send(Some(outcome.map_err(Told::from)));
            };
            Job { done, task: tokio::spawn(work).abort_handle() }
        });
        job.done.clone()
    }
}

async fn receive<S: Supply>(
    supply: &S,
    lanes: &Semaphore,
    deadline: Duration,
    file: WalFileName,
    destination: PathBuf,
) -> Result<S::Got> {
    let _lane = lanes.acquire().await.map_err(|e| Error::internal("no lanes").because(e))?;
    tokio::time::timeout(deadline, supply.receive(file, destination)).await.unwrap_or_else(|_| {
        let span = humantime::format_duration(deadline);
        Err(Error::new(Code::StoreUnavailable, format!("{file} was not fetched within {span}")))
    })
}

async fn wait<T: Clone>(mut done: watch::Receiver<Outcome<T>>) -> Result<T> {
    let gone = || Error::new(Code::Cancelled, "the prefetcher has ended");
    let outcome = done.wait_for(Option::is_some).await.map_err(|_| gone())?.clone();
    outcome.ok_or_else(gone)?.map_err(Error::from)
}

impl From<Error> for Told {
    fn from(error: Error) -> Self {
        Self { code: error.code(), message: error.to_string(), hint: error.hint_text().map(str::to_owned) }
    }
}

impl From<Told> for Error {
    fn from(told: Told) -> Self {
        let error = Error::new(told.code, told.message);
        match told.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}
