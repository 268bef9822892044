//! `pgkeep wal push PATH` and `pgkeep wal fetch NAME DEST`: what PostgreSQL calls for every WAL file.
//!
//! Neither listens for signals: PostgreSQL ends its commands with SIGTERM, and they must end as that. Neither builds more
//! than a single-threaded runtime, and a runtime is left without waiting for threads that hang in a dead file system.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::context::{Context, Outcome};
use super::report;
use crate::archive::push;
use crate::error::{Error, Result};
use crate::util::clock;

/// Archives and fetches WAL.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Archives one WAL file: archive_command = 'pgkeep wal push %p'.
    Push(PushArgs),
}

#[derive(Debug, Args)]
pub struct PushArgs {
    /// The file, relative to the data directory, which is the working directory (%p).
    pub path: PathBuf,
}

pub fn run(ctx: &Context, command: &Command) -> Result<Outcome> {
    match command {
        Command::Push(args) => run_push(ctx, args),
    }
}

fn run_push(ctx: &Context, args: &PushArgs) -> Result<Outcome> {
    let config = ctx.load_config()?;
    let data_directory = working_directory()?;
    let request = push::Request {
        config: &config,
        cluster: ctx.cluster(&config)?,
        only: ctx.repo.as_ref(),
        data_directory: &data_directory,
        path: &args.path,
        now: clock::now(),
    };
    let runtime = ctx.light_runtime()?;
    let pushed = runtime.block_on(push::run(request));
    runtime.shutdown_background();
    let pushed = pushed?;
    let name = pushed.name;
    if let Some((lsn, why)) = &pushed.damage {
        report::to_stderr(&format!(
            "WARNING: {name} is damaged at {lsn}: {why}; it was archived as it is and marked: recovery cannot pass it, so \
             take a new full backup (`pgkeep backup full`)"
        ));
    }
    for warning in &pushed.warnings {
        report::to_stderr(&format!("WARNING: {name}: {warning}"));
    }
    tracing::info!(%name, shipped = pushed.shipped, "archived");
    tracing::info!(%name, shipped = pushed.shipped, "archived");
    Ok(Outcome::Done)
}

fn working_directory() -> Result<PathBuf> {
    std::env::current_dir().map_err(|e| Error::io("cannot find the working directory", Path::new("."), e))
}
