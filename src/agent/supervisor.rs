//! Tasks that must live as long as the agent. One that fails or panics is started again after a pause that grows;
//! one that returns Ok has nothing to do until the next reload. Long-lived tasks are started here and nowhere else.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::Hub;
use super::board::Failure;
use crate::error::{Error, Result};

/// After the shutdown token: how long tasks may take to end before they are aborted.
pub const GRACE: Duration = Duration::from_secs(20);
/// Between two starts of a failing task.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

type Work = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// A named piece of work that can be started again.
pub struct Task {
    pub name: String,
    start: Box<dyn Fn() -> Work + Send + Sync>,
}

impl Task {
    pub fn new<F>(name: impl Into<String>, start: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        Self { name: name.into(), start: Box::new(move || Box::pin(start())) }
    }
}

/// Runs the tasks until the hub's token is cancelled and all have ended.
pub async fn run(hub: &Hub, tasks: Vec<Task>) {
    let mut running = JoinSet::new();
    for task in tasks {
        running.spawn(keep_alive(hub.clone(), task));
    }
    hub.shutdown.cancelled().await;
    let all_ended = async { while running.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all_ended).await.is_err() {
        tracing::warn!("tasks did not end within {GRACE:?} and are aborted");
        running.shutdown().await;
    }
}

async fn keep_alive(hub: Hub, task: Task) {
    let mut pause = FIRST_PAUSE;
    loop {
        hub.board.update(|all| all.tasks.entry(task.name.clone()).or_default().starts_total += 1);
        let begun = hub.clock.instant();
        // A task of its own, so that a panic ends it and not the supervisor.
        let error = match AbortOnDropHandle::new(tokio::spawn((task.start)())).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(panic) => Error::internal("a task of the agent panicked").because(panic),
        };
        if hub.shutdown.is_cancelled() {
            return;
        }
        tracing::error!(task = %task.name, %error, "a task failed and is started again in {pause:?}");
        let failure = Failure { at: hub.clock.now(), text: error.to_string() };
        hub.board.update(|all| all.tasks.entry(task.name.clone()).or_default().failure = Some(failure));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = hub.shutdown.cancelled() => return,
        }
        pause = if begun.elapsed() > LONGEST_PAUSE { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
    }
}
