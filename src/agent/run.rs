//! The agent's life: generations of tasks under one configuration each, from the first start to SIGTERM.
//!
//! Order: the socket (it says whether another agent lives), the state, the tasks. A reload reads and checks the
//! configuration first; a faulty one is refused with all its faults in the log, and the old one goes on. A good one ends
//! the generation and begins the next; the socket stays bound meanwhile, and who knocks waits.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::board::Failure;
use super::jobs::Jobs;
use super::pulse::Pulse;
use super::services::Services;
use super::supervisor::{self, Task};
use super::{
    Board, Hub, State, alerts, archiver, canary, catalog_facts, control, http, jobs, memory, prefetch,
    proof_facts, scheduler, server_facts, service_manager, tail, usage,
};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::util::clock::Clock;

/// What the agent is started with.
pub struct Start {
    /// Checked; a reload reads the file that it came from again.
    pub config: Config,
    pub clock: Clock,
    /// Cancelled by SIGTERM.
    pub shutdown: CancellationToken,
    /// Notified by SIGHUP.
    pub reload: Arc<Notify>,
}

/// Every task of a generation; a line for each.
fn tasks(services: &Services, listener: &control::Listener) -> Vec<Task> {
    let mut tasks = vec![control::task(services, listener)];
    tasks.extend(http::task(&services.hub));
    tasks.push(memory::task(&services.hub));
    tasks.extend(server_facts::tasks(&services.hub));
    tasks.extend(archiver::tasks(services));
    tasks.extend(tail::tasks(services));
    tasks.extend(canary::tasks(&services.hub));
    tasks.push(scheduler::task(services));
    tasks.extend(catalog_facts::tasks(services));
    tasks.extend(proof_facts::tasks(services));
    tasks.extend(usage::tasks(services));
    tasks.extend(alerts::tasks(&services.hub));
    tasks.push(prefetch::task(services));
    tasks.extend(jobs::damage::tasks(services));
    tasks
}

/// Runs until the token is cancelled and everything has ended.
pub async fn run(start: Start) -> Result<()> {
    let Start { mut config, clock, shutdown, reload } = start;
    let listener = control::Listener::bind(&config.agent.socket)?;
    let board = Board::new(clock.now());
    let state = State::open(&state_file(&config))?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), socket = %listener.path().display(), "the agent starts");
    let (pulse, lasting) = (Pulse::default(), TaskTracker::new());
    let informed = service_manager::keep_informed(board.clone(), pulse.clone(), shutdown.clone());
    let informed = tokio::spawn(informed);
    let jobs = Jobs::default();
    for generation in 1.. {
        let hub = Hub {
            config: Arc::new(config.clone()),
            clock: clock.clone(),
            shutdown: shutdown.child_token(),
            end: shutdown.clone(),
            lasting: lasting.clone(),
            board: board.clone(),
            state: state.clone(),
            pulse: pulse.clone(),
        };
        if generation == 1 {
            Jobs::bury(&hub)?;
        }
        match live(Services::new(&hub, generation, &jobs), &listener, &reload).await {
            Some(next) => config = next,
            None => break,
        }
    }
    lasting.close();
    if tokio::time::timeout(supervisor::GRACE, lasting.wait()).await.is_err() {
        tracing::warn!("{} jobs did not end in time and are abandoned", lasting.len());
    }
    let _ = informed.await;
    tracing::info!("the agent has ended");
    Ok(())
}

/// A generation, from its first task to its last; the configuration of the next one, if there is to be one.
async fn live(services: Services, listener: &control::Listener, reload: &Notify) -> Option<Config> {
    let Services { hub, generation, .. } = &services;
    let running = supervisor::run(hub, tasks(&services, listener));
    let watched = async {
        // `running`, polled first, has started the tasks.
        service_manager::ready();
        tracing::info!(generation, "the agent works");
        watch(hub, reload).await
    };
    let ((), next) = tokio::join!(running, watched);
    next
}

/// Ends the generation: with the next configuration after a reload, with None at the end.
async fn watch(hub: &Hub, reload: &Notify) -> Option<Config> {
    loop {
        tokio::select! {
            () = hub.end.cancelled() => {
                service_manager::stopping();
                return None;
            }
            () = reload.notified() => {}
        }
        service_manager::reloading();
        match reread(&hub.config) {
            Ok(next) => {
                tracing::info!(config = %next.path.display(), "reloading");
                hub.board.update(|all| all.reload_refused = None);
                hub.shutdown.cancel();
                return Some(next);
            }
            Err(error) => {
                let hint = error.hint_text().unwrap_or_default();
                tracing::error!(%error, hint, "the configuration is not taken over; the old one goes on");
                service_manager::ready();
                let failure = Failure { at: hub.clock.now(), text: error.to_string() };
                hub.board.update(|all| all.reload_refused = Some(failure));
            }
        }
    }
}

fn reread(old: &Config) -> Result<Config> {
    let next = Config::load(&old.path)?;
    if next.agent.socket != old.agent.socket || next.state_directory != old.state_directory {
        return Err(Error::new(
            crate::error::Code::Config,
            "`socket` under [agent] and `state_directory` change only with a restart",
        )
        .at(next.path.display())
        .hint("systemctl restart pgkeep"));
    }
    Ok(next)
}

fn state_file(config: &Config) -> PathBuf {
    config.state_directory.join("agent.db")
}
