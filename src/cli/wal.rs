//! `pgkeep wal push PATH` and `pgkeep wal fetch NAME DEST`: what PostgreSQL calls for every WAL file.
//!
//! `wal fetch` has exits of its own from its first instruction on ([`fetch_process`]): 0, 1 and 200.
//!
//! Neither listens for signals: PostgreSQL ends its commands with SIGTERM, and they must end as that. Neither builds more
//! than one worker, and a runtime is left without waiting long for threads that hang in a dead file system.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::args::{Cli, Command as Root};
use super::context::{Context, Outcome};
use super::report;
use crate::archive::{fetch, push};
use crate::error::{Code, Error, Result};
use crate::util::{clock, failpoint};

/// Threads get so long to remove what they have begun; one that hangs in a dead file system is left.
const LEAVING: Duration = Duration::from_secs(1);

/// Archives and fetches WAL.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Archives one WAL file: archive_command = 'pgkeep wal push %p'.
    Push(PushArgs),
    /// Fetches one WAL file: restore_command = 'pgkeep wal fetch %f "%p"'. Exits: 0 delivered, 1 does not exist, 200
    /// anything else.
    Fetch(FetchArgs),
}

#[derive(Debug, Args)]
pub struct PushArgs {
    /// The file, relative to the data directory, which is the working directory (%p).
    pub path: PathBuf,
}

#[derive(Debug, Args)]
pub struct FetchArgs {
    /// The file's name (%f).
    pub name: String,
    /// Where PostgreSQL wants it, relative to the data directory, which is the working directory (%p).
    pub destination: PathBuf,
}

pub fn run(ctx: &Context, command: &Command) -> Result<Outcome> {
    match command {
        Command::Push(args) => run_push(ctx, args),
        // `cli::run` sends these to `fetch_process` before any argument is read.
        Command::Fetch(_) => Err(Error::internal("a fetch that was not recognised")),
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
    runtime.shutdown_timeout(LEAVING);
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
    Ok(Outcome::Done)
}

/// `wal fetch`, from arguments to exit status: whatever happens, 0, 1 or 200.
pub fn fetch_process(argv: &[OsString]) -> u8 {
    std::panic::catch_unwind(|| fetch_answer(argv)).unwrap_or(fetch::FAILED)
}

fn fetch_answer(argv: &[OsString]) -> u8 {
    let cli = match Cli::try_parse_from(argv) {
        Ok(cli) => cli,
        Err(answer) => {
            // Help too: PostgreSQL takes 0 for "delivered".
            let _ = answer.print();
            return fetch::FAILED;
        }
    };
    let ctx = Context::new(&cli.global);
    super::start_log(&ctx);
    let fetched = match &cli.command {
        Root::Wal(Command::Fetch(args)) => failpoint::setup().and_then(|()| run_fetch(&ctx, args)),
        _ => Err(Error::new(Code::Usage, "this is no `pgkeep wal fetch NAME DEST`")),
    };
    match &fetched {
        Ok(fetch::Fetched::DoesNotExist(absence)) if absence.notable => {
            report::to_stderr(&format!("WARNING: {absence}"));
        }
        Ok(_) => {}
        Err(error) => report::to_stderr(&report::error_text(error)),
    }
    fetch::exit_status(&fetched)
}

fn run_fetch(ctx: &Context, args: &FetchArgs) -> Result<fetch::Fetched> {
    let config = ctx.load_config()?;
    let data_directory = working_directory()?;
    let request = fetch::Request {
        config: &config,
        cluster: ctx.cluster(&config)?,
        only: ctx.repo.as_ref(),
        data_directory: &data_directory,
        name: &args.name,
        destination: &args.destination,
        now: clock::now(),
    };
    let runtime = fetch::runtime()?;
    let fetched = fetch::run(&request, &runtime);
    runtime.shutdown_timeout(LEAVING);
    fetched
}

fn working_directory() -> Result<PathBuf> {
    std::env::current_dir().map_err(|e| Error::io("cannot find the working directory", Path::new("."), e))
}
