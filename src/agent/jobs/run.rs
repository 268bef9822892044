//! One run, from the look into the catalog to the diary's last word.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::kind::{self, JobContext, JobReport};
use super::progress::OnBoard;
use super::{ENDING, Order, claim, facts};
use crate::agent::Hub;
use crate::agent::board::{JobRun, RunOutcome};
use crate::agent::scheduler::Retry;
use crate::agent::state::runs::{self, Cause, NewRun};
use crate::agent::stores::Stores;
use crate::backup::StillWanted;
use crate::error::{Code, Error, Result};
use crate::model::Timestamp;
use crate::repository::record::BackupRecord;
use crate::util::progress::Progress;
use crate::util::{failpoint, host};

pub(super) struct Run {
    pub(super) hub: Hub,
    pub(super) stores: Stores,
    pub(super) order: Order,
    pub(super) started_at: Timestamp,
    /// Ends this run; the agent's end does it too.
    pub(super) cancel: CancellationToken,
}

impl Run {
    pub(super) async fn carry_out(self) -> JobRun {
        let job = &self.order.job;
        let progress = Arc::new(OnBoard::new(&self.hub.board, &job.name, self.started_at));
        tracing::info!(job = %job.name, cause = self.order.cause.as_str(), "a job begins");
        let ended = match self.found_done(&progress).await {
            Some(record) => self.noted(&record),
            None => self.work(Arc::clone(&progress)).await,
        };
        let run = ended.unwrap_or_else(|error| {
            // The diary cannot be written. What is handled is then not remembered either, and comes again.
            tracing::error!(job = %job.name, %error, "a job's run could not be written down");
            self.end(RunOutcome::Failed, error.to_string())
        });
        match run.outcome {
            RunOutcome::Failed => tracing::error!(job = %job.name, "a job failed: {}", run.text),
            RunOutcome::Finding => {
                tracing::warn!(job = %job.name, "a job found something wrong: {}", run.text);
            }
            _ => tracing::info!(job = %job.name, "a job has ended: {}", run.text),
        }
        progress.end();
        facts::ended(&self.hub, &job.name);
        run
    }

    /// The backup of this scheduled time, where one is there already.
    async fn found_done(&self, progress: &OnBoard) -> Option<BackupRecord> {
        let slot = self.order.slot.filter(|_| self.order.cause != Cause::Damage)?;
        progress.phase("looking whether it is done already");
        let looking = claim::done_already(&self.hub.config, &self.stores, &self.order.job, slot);
        let found = tokio::select! {
            found = looking => found,
            () = self.cancel.cancelled() => return None,
        };
        found.unwrap_or_else(|error| {
            // If the stores are away the run itself will say so.
            tracing::warn!(job = %self.order.job.name, %error, "cannot see whether another host has run this job");
            None
        })
    }

    /// The same look once more, for whom the work takes its lock: what another host had not finished at the first look
    /// it may have finished before it let the lock go.
    fn still_wanted(&self) -> Option<StillWanted> {
        let slot = self.order.slot.filter(|_| self.order.cause != Cause::Damage)?;
        let (config, stores) = (Arc::clone(&self.hub.config), self.stores.clone());
        let job = self.order.job.clone();
        Some(Arc::new(move || {
            let (config, stores, job) = (Arc::clone(&config), stores.clone(), job.clone());
            Box::pin(async move {
                match claim::done_already(&config, &stores, &job, slot).await? {
                    Some(record) => Err(Error::new(
                        Code::Busy,
                        format!("{} has taken {} meanwhile", record.host, record.id),
                    )),
                    None => Ok(()),
                }
            })
        }))
    }

    /// Nothing is left to do.
    fn noted(&self, record: &BackupRecord) -> Result<JobRun> {
        let outcome = if record.host == host::name() { RunOutcome::Done } else { RunOutcome::Elsewhere };
        let run = JobRun {
            backup: Some(record.id.to_string()),
            bytes_raw: Some(record.bytes_raw),
            bytes_stored: Some(record.bytes_stored),
            ..self.end(outcome, format!("{} took {}", record.host, record.id))
        };
        let id = self.write_begin()?;
        runs::end(&self.hub.state, id, &self.order.job.name, &run, None)?;
        Ok(run)
    }

    /// A line of its own, but for a look at another host's work: that one is written anew.
    fn write_begin(&self) -> Result<i64> {
        let (order, state) = (&self.order, &self.hub.state);
        let new = NewRun {
            job: order.job.name.clone(),
            cause: order.cause,
            slot: order.slot,
            attempt: order.attempt,
            started_at: self.started_at,
        };
        if let Some(slot) = order.slot {
            let earlier = runs::elsewhere(state, &order.job.name, slot)?;
            if let Some(id) = earlier {
                runs::begin_again(state, id, &new)?;
                return Ok(id);
            }
        }
        runs::begin(state, &new)
    }

    async fn work(&self, progress: Arc<OnBoard>) -> Result<JobRun> {
        let id = self.write_begin()?;
        failpoint::reach("job-begun")?;
        let result = self.within_deadline(progress).await;
        let run = match &result {
            Ok(report) => self.reported(report),
            Err(e) if e.code() == Code::Busy => self.end(RunOutcome::Elsewhere, said(e)),
            Err(e) => self.end(RunOutcome::Failed, said(e)),
        };
        failpoint::reach("job-ended")?;
        runs::end(&self.hub.state, id, &self.order.job.name, &run, self.retry(&run).as_ref())?;
        Ok(run)
    }

    fn reported(&self, report: &JobReport) -> JobRun {
        let (outcome, text) = match &report.finding {
            Some(finding) => (RunOutcome::Finding, format!("{finding}; {}", report.text)),
            None => (RunOutcome::Done, report.text.clone()),
        };
        JobRun {
            backup: report.backup.clone(),
            bytes_raw: report.bytes_raw,
            bytes_stored: report.bytes_stored,
            ..self.end(outcome, text)
        }
    }

    /// What is wrong with the host's clock does not become a run that ended before it began.
    fn end(&self, outcome: RunOutcome, text: String) -> JobRun {
        JobRun {
            started_at: self.started_at,
            finished_at: self.hub.clock.now().max(self.started_at),
            outcome,
            text,
            backup: None,
            bytes_raw: None,
            bytes_stored: None,
        }
    }

    /// When it is tried again. What is run by hand is not.
    fn retry(&self, run: &JobRun) -> Option<Retry> {
        let (job, slot, now) = (&self.order.job, self.order.slot?, self.hub.clock.now());
        match run.outcome {
            // Who had the lock may fail: look again until its backup is in the catalog.
            RunOutcome::Elsewhere => Some(Retry::again(job, slot, self.order.attempt, now)),
            // Stopped by us: no failure of the job.
            RunOutcome::Failed if self.hub.end.is_cancelled() => {
                Some(Retry::again(job, slot, self.order.attempt, now))
            }
            RunOutcome::Failed => Retry::after_failure(job, slot, self.order.attempt, now),
            RunOutcome::Done | RunOutcome::Finding | RunOutcome::Skipped => None,
        }
    }

    async fn within_deadline(&self, progress: Arc<OnBoard>) -> Result<JobReport> {
        let job = &self.order.job;
        let cx = JobContext {
            config: self.hub.config.clone(),
            cluster: self.hub.config.cluster(Some(&job.cluster))?.clone(),
            job: job.clone(),
            label: kind::label(&job.name),
            clock: self.hub.clock.clone(),
            progress,
            board: self.hub.board.clone(),
            cancel: self.cancel.clone(),
            still_wanted: self.still_wanted(),
        };
        // A task of its own: a panic in it is its failure and not ours.
        let mut work =
            AbortOnDropHandle::new(tokio::spawn(async move { kind::of(&cx.job.work).run(&cx).await }));
        let why = tokio::select! {
            // The run hears of the agent's end as well; whoever is first, that is why it ended.
            biased;
            () = self.hub.end.cancelled() => Error::new(Code::Cancelled, "stopped with the agent"),
            ended = &mut work => return ended.unwrap_or_else(|e| Err(panicked(e))),
            () = tokio::time::sleep(job.deadline) => {
                let what = format!("stopped at its deadline of {}", humantime::format_duration(job.deadline));
                Error::new(Code::Cancelled, what).hint("`deadline` of this [[job]]")
            }
        };
        self.cancel.cancel();
        match tokio::time::timeout(ENDING, &mut work).await {
            // It was quicker than we.
            Ok(Ok(Ok(report))) => Ok(report),
            Ok(Ok(Err(_)) | Err(_)) => Err(why),
            Err(_) => {
                tracing::warn!(job = %job.name, "the run did not end within {ENDING:?} and is dropped");
                Err(why)
            }
        }
    }
}

fn panicked(cause: tokio::task::JoinError) -> Error {
    Error::internal("the run panicked").because(cause)
}

/// The error with what to do about it, in one line.
fn said(error: &Error) -> String {
    match error.hint_text() {
        Some(hint) => format!("{error} ({})", hint.replace('\n', " ")),
        None => error.to_string(),
    }
}
