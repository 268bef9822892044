//! `pgkeep wal push PATH` and `pgkeep wal fetch NAME DEST`: what PostgreSQL calls for every WAL file.
//!
//! `wal push` asks the agent first ([`client`]) and works by itself where none answers.
//!
//! `wal fetch` has exits of its own from its first instruction on ([`fetch_process`]): 0, 1 and 200. It asks the agent too,
//! for a segment that no plan speaks of.
//!
//! Neither listens for signals: PostgreSQL ends its commands with SIGTERM, and they must end as that. Neither builds more
//! than one worker, and a runtime is left without waiting long for threads that hang in a dead file system.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::args::{Cli, Command as Root, Global};
use super::context::{Context, Outcome};
use super::report;
use crate::agent::archiver::push::Archived;
use crate::archive::{fetch, push};
use crate::error::{Code, Error, ExitClass, Result};
use crate::model::Lsn;
use crate::util::{clock, failpoint};

mod client;

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
        Command::Push(args) => push(ctx, &args.path, false),
        // `cli::run` sends these to `fetch_process` before any argument is read.
        Command::Fetch(_) => Err(Error::internal("a fetch that was not recognised")),
    }
}

/// `wal push` as PostgreSQL calls it, from arguments to exit status; None when the line says more than that.
pub fn plain_push(argv: &[OsString]) -> Option<u8> {
    let plain = client::PlainPush::recognise(argv, client::config_variable())?;
    let outcome = std::panic::catch_unwind(|| {
        let global = Global { config: plain.config, cluster: plain.cluster, ..Global::default() };
        push(&Context::new(&global), &plain.path, true)
    });
    // The hook has said it.
    Some(outcome.map_or(ExitClass::Failed as u8, |result| report::conclude(result, false)))
}

/// The agent's answer; where there is none, this process does the work.
fn push(ctx: &Context, path: &Path, quick: bool) -> Result<Outcome> {
    let config = ctx.load_config()?;
    let data_directory = client::working_directory()?;
    if ctx.repo.is_none() {
        let within = config.archive.push_deadline;
        match client::ask(&config.agent.socket, ctx.cluster.as_ref(), &data_directory, path, within) {
            client::Asked::Archived(Archived { name, damage, warnings }) => {
                say_archived(&name, damage.as_ref(), &warnings);
                return Ok(Outcome::Done);
            }
            client::Asked::Refused(error) => return Err(error),
            client::Asked::NotAnswered(None) => {}
            client::Asked::NotAnswered(Some(why)) => report::to_stderr(&format!("WARNING: {why}")),
        }
    }
    if quick {
        super::start_log(ctx, false);
    }
    let request = push::Request {
        config: &config,
        cluster: ctx.cluster(&config)?,
        only: ctx.repo.as_ref(),
        data_directory: &data_directory,
        path,
        now: clock::now(),
    };
    let runtime = ctx.light_runtime()?;
    let pushed = runtime.block_on(push::run(request));
    runtime.shutdown_timeout(LEAVING);
    let pushed = pushed?;
    let name = pushed.name;
    say_archived(&name.to_string(), pushed.damage.as_ref(), &pushed.warnings);
    tracing::info!(%name, shipped = pushed.shipped, "archived");
    Ok(Outcome::Done)
}

fn say_archived(name: &str, damage: Option<&(Lsn, String)>, warnings: &[String]) {
    if let Some((lsn, why)) = damage {
        report::to_stderr(&format!(
            "WARNING: {name} is damaged at {lsn}: {why}; it was archived as it is and marked: recovery cannot pass it, so \
             take a new full backup (`pgkeep backup full`)"
        ));
    }
    for warning in warnings {
        report::to_stderr(&format!("WARNING: {name}: {warning}"));
    }
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
    super::start_log(&ctx, false);
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
    let data_directory = client::working_directory()?;
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
    let agent = |segment| {
        let (socket, within) = (&config.agent.socket, config.archive.fetch_deadline);
        client::fetch::ask(socket, ctx.cluster.as_ref(), &data_directory, segment, within)
    };
    let fetched = fetch::run(&request, &runtime, agent);
    runtime.shutdown_timeout(LEAVING);
    fetched
}
