//! How far a run is, on the board.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::agent::Board;
use crate::agent::board::RunningJob;
use crate::model::{JobName, Timestamp};
use crate::util::progress::Progress;

/// The board is everybody's: workers that report each chunk do not write each.
const EVERY: Duration = Duration::from_millis(200);

pub(super) struct OnBoard {
    board: Board,
    job: JobName,
    state: Mutex<State>,
}

struct State {
    running: RunningJob,
    written: Instant,
}

impl OnBoard {
    pub(super) fn new(board: &Board, job: &JobName, started_at: Timestamp) -> Self {
        let running =
            RunningJob { started_at, phase: "starting".to_owned(), done_bytes: 0, total_bytes: None };
        let this = Self {
            board: board.clone(),
            job: job.clone(),
            state: Mutex::new(State { running, written: Instant::now() }),
        };
        this.change(true, |_| {});
        this
    }

    fn change(&self, at_once: bool, change: impl FnOnce(&mut RunningJob)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state.running);
        if !at_once && state.written.elapsed() < EVERY {
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
        tracing::info!(job = %self.job, "{line}");
    }
}
