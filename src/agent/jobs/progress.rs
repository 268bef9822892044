//! How far a run is, on the board. What is reported too soon after the last line there is written a moment later, so
//! that a run that stands still shows how far it came.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::agent::Board;
use crate::agent::board::RunningJob;
use crate::model::{JobName, Timestamp};
use crate::util::progress::Progress;

/// The board is everybody's: workers that report each chunk do not write each.
const EVERY: Duration = Duration::from_millis(200);

pub(super) struct OnBoard {
    shown: Arc<Shown>,
    runtime: Handle,
}

struct Shown {
    board: Board,
    job: JobName,
    state: Mutex<State>,
}

struct State {
    running: RunningJob,
    written: Instant,
    /// Somebody will write what is not on the board yet.
    due: bool,
    ended: bool,
}

impl OnBoard {
    /// Within a runtime.
    pub(super) fn new(board: &Board, job: &JobName, started_at: Timestamp) -> Self {
        let running =
            RunningJob { started_at, phase: "starting".to_owned(), done_bytes: 0, total_bytes: None };
        let state = State { running, written: Instant::now(), due: false, ended: false };
        let shown = Shown { board: board.clone(), job: job.clone(), state: Mutex::new(state) };
        let this = Self { shown: Arc::new(shown), runtime: Handle::current() };
        this.change(true, |_| {});
        this
    }

    /// The run is over: a thread that has not noticed changes nothing any more.
    pub(super) fn end(&self) {
        self.shown.lock().ended = true;
    }

    fn change(&self, at_once: bool, change: impl FnOnce(&mut RunningJob)) {
        let mut state = self.shown.lock();
        change(&mut state.running);
        if at_once || state.written.elapsed() >= EVERY {
            self.shown.write(&mut state);
        } else if !state.due {
            state.due = true;
            let shown = Arc::clone(&self.shown);
            self.runtime.spawn(async move {
                tokio::time::sleep(EVERY).await;
                shown.write(&mut shown.lock());
            });
        }
    }
}

impl Shown {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, state: &mut State) {
        state.due = false;
        if state.ended {
            return;
        }
        state.written = Instant::now();
        let running = state.running.clone();
        self.board.update(|all| {
            // A reload may have taken the job away; its run goes on.
            if let Some(facts) = all.jobs.get_mut(self.job.as_str()) {
                facts.running = Some(running);
            }
        });
    }
}

impl Progress for OnBoard {
    fn phase(&self, name: &str) {
        self.change(true, |running| {
            name.clone_into(&mut running.phase);
            (running.done_bytes, running.total_bytes) = (0, None);
        });
    }
    fn total(&self, bytes: u64) {
        self.change(true, |running| running.total_bytes = Some(bytes));
    }
    fn advance(&self, bytes: u64) {
        self.change(false, |running| running.done_bytes = running.done_bytes.saturating_add(bytes));
    }
    fn note(&self, line: &str) {
        tracing::info!(job = %self.shown.job, "{line}");
    }
}
