//! `pgkeep agent`: the service. systemd runs it; in a terminal it says on standard error what the journal would have.

use std::path::Path;

use clap::Args as ClapArgs;

use super::context::{Context, Outcome};
use crate::agent::run;
use crate::error::{Error, Result};
use crate::util::clock::Clock;

/// Few: the agent waits more than it works, and each thread costs memory for as long as it lives.
const WORKERS: usize = 2;
const BLOCKING_THREADS: usize = 32;

/// Runs the service: ships WAL ahead of PostgreSQL and serves metrics. Ends on SIGTERM, reloads on SIGHUP.
#[derive(Debug, ClapArgs)]
pub struct Args {}

pub fn run(ctx: &Context, _args: &Args) -> Result<Outcome> {
    let config = ctx.load_config()?;
    config.require_encryption()?;
    crate::agent::identity::take_on(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(|e| Error::io("cannot start the asynchronous runtime", Path::new("pgkeep agent"), e))?;
    let start = run::Start {
        config,
        clock: Clock::system(),
        shutdown: ctx.cancel.clone(),
        reload: ctx.reload.clone(),
    };
    let ended = runtime.block_on(run::run(start));
    // A thread that hangs in a dead file system is left.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    ended.map(|()| Outcome::Done)
}
