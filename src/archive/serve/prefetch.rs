//! The spool: the segment that is asked for and the next ones of the plan, received in parallel.
//!
//! A file stays in the spool under its own name until the asker has moved it away. Jobs outside the window (the request
//! and `look_ahead` segments after it) are ended and their files removed, so that the spool stays bounded wherever
//! PostgreSQL jumps.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::AbortHandle;

use super::Settings;
use crate::archive::fetch::planned::{self, Wanted};
use crate::archive::source::Source;
use crate::error::{Code, Error, Result};
use crate::model::{SegmentName, WalFileName};
use crate::repository::recovery_plan::RecoveryPlan;
use crate::repository::wal_listing::WalListing;
use crate::util::durable;

/// Downloads at once: opening them is work for a core each.
const PARALLEL: usize = 4;

type Outcome = Option<Result<(), Told>>;

/// A failure that several may have to hear of.
#[derive(Debug, Clone)]
struct Told {
    code: Code,
    message: String,
    hint: Option<String>,
}

struct Job {
    done: watch::Receiver<Outcome>,
    task: AbortHandle,
}

impl Drop for Job {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the downloads share.
struct Supply {
    plan: RecoveryPlan,
    listing: WalListing,
    source: Source,
    spool: PathBuf,
    mode: u32,
    deadline: Duration,
    lanes: Semaphore,
}

pub(super) struct Prefetch {
    supply: Arc<Supply>,
    look_ahead: usize,
    jobs: Mutex<BTreeMap<WalFileName, Job>>,
}

impl Prefetch {
    pub(super) fn new(settings: Settings, spool: PathBuf, mode: u32) -> Self {
        let Settings { plan, listing, source, look_ahead, deadline, .. } = settings;
        let lanes = Semaphore::new(PARALLEL.min(look_ahead.max(1)));
        let supply = Arc::new(Supply { plan, listing, source, spool, mode, deadline, lanes });
        Self { supply, look_ahead, jobs: Mutex::new(BTreeMap::new()) }
    }

    /// Starts on the plan's first segments, before PostgreSQL asks.
    pub(super) fn begin(self: &Arc<Self>) {
        let first = self.supply.plan.timelines.iter().find_map(|t| t.first);
        if let Some(first) = first {
            let this = self.clone();
            tokio::spawn(async move { this.want(first).await });
        }
    }

    /// Returns once the file lies in the spool under its name.
    pub(super) async fn get(&self, file: WalFileName) -> Result<()> {
        let done = match file {
            WalFileName::Segment(segment) => self.want(segment).await,
            other => self.start(&mut *self.jobs.lock().await, other),
        };
        let outcome = wait(done).await;
        // The asker takes the file away; a second request for it begins anew.
        self.jobs.lock().await.remove(&file);
        outcome
    }

    /// Moves the window to begin at `segment`.
    async fn want(&self, segment: SegmentName) -> watch::Receiver<Outcome> {
        let mut window = vec![segment];
        while window.len() <= self.look_ahead {
            match window.last().and_then(|last| self.supply.plan.following(*last)) {
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
            let _ = durable::remove_file(&self.supply.spool.join(file.to_string()));
        }
        let done = self.start(&mut jobs, WalFileName::Segment(segment));
        for next in window.into_iter().skip(1) {
            self.start(&mut jobs, WalFileName::Segment(next));
        }
        done
    }

    fn start(&self, jobs: &mut BTreeMap<WalFileName, Job>, file: WalFileName) -> watch::Receiver<Outcome> {
        // What failed ahead of time may succeed now that it is needed.
        if jobs.get(&file).is_some_and(|job| matches!(*job.done.borrow(), Some(Err(_)))) {
            jobs.remove(&file);
        }
        let job = jobs.entry(file).or_insert_with(|| {
            let (sender, done) = watch::channel(None);
            let supply = self.supply.clone();
            let work = async move {
                let outcome = supply.receive(file).await;
                let _ = sender.send(Some(outcome.map_err(Told::from)));
            };
            Job { done, task: tokio::spawn(work).abort_handle() }
        });
        job.done.clone()
    }
}

async fn wait(mut done: watch::Receiver<Outcome>) -> Result<()> {
    let gone = || Error::new(Code::Cancelled, "the restore has ended");
    let outcome = done.wait_for(Option::is_some).await.map_err(|_| gone())?.clone();
    outcome.unwrap_or(Ok(())).map_err(Error::from)
}

impl Supply {
    async fn receive(&self, file: WalFileName) -> Result<()> {
        let _lane = self.lanes.acquire().await.map_err(|e| Error::internal("no lanes").because(e))?;
        tokio::time::timeout(self.deadline, self.try_receive(file)).await.unwrap_or_else(|_| {
            let span = humantime::format_duration(self.deadline);
            Err(Error::new(Code::StoreUnavailable, format!("{file} was not fetched within {span}")))
        })
    }

    async fn try_receive(&self, file: WalFileName) -> Result<()> {
        let Some(wanted) = Wanted::of(self.plan.decide(file)) else {
            return Err(Error::new(Code::Refused, format!("{file} is not in the plan of this recovery")));
        };
        let needed = wanted.file().unwrap_or(file);
        let listed = match needed {
            WalFileName::Segment(s) => !self.listing.heads(s).is_empty() || self.listing.has_segment(s),
            other => !self.listing.objects(other).is_empty(),
        };
        let later = if listed { None } else { Some(self.source.find(needed).await.listing) };
        let listing = later.as_ref().unwrap_or(&self.listing);
        let destination = self.spool.join(file.to_string());
        planned::receive(&self.source, &self.plan, listing, &wanted, &destination, self.mode)
            .await?
            .hand_over()
    }
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
