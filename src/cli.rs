//! L5: arguments and output; a file per command. The only layer that prints.
//!
//! Order: recognise `wal fetch` (it has its own exits), read the arguments, set up panics and logging, listen for
//! signals, run the command, print how it ended. Data goes to standard output, everything else to standard error.
//!
//! A command is `pub struct Args` (clap) and `pub fn run(ctx: &Context, args: &Args) -> Result<Outcome>` in its file,
//! a variant in `args::Command` and a line in `dispatch`.

use std::ffi::OsString;
use std::panic::PanicHookInfo;
use std::sync::Arc;

use clap::Parser;

pub mod agent;
pub mod alerts;
pub mod args;
pub mod backup;
pub mod catalogs;
pub mod check;
pub mod completions;
pub mod config;
pub mod context;
pub mod drill;
pub mod error_list;
pub mod init;
pub mod jobs;
pub mod key;
pub mod list;
pub mod man;
mod passphrase;
pub mod progress;
pub mod report;
pub mod restore;
pub mod restore_test;
pub mod show;
pub mod signals;
pub mod status;
pub mod table;
pub mod verify;
pub mod wal;
pub mod window;
mod window_read;

use args::{Cli, Command};
use context::{Context, Outcome};

use crate::error::{Error, ExitClass, Result};
use crate::util::{failpoint, heap};

/// Runs one command line and gives the exit status. `exit` ends the process at once (a second Ctrl-C).
pub fn run(argv: impl IntoIterator<Item = OsString>, exit: fn(u8) -> !) -> u8 {
    let argv: Vec<OsString> = argv.into_iter().collect();
    std::panic::set_hook(Box::new(say_panic));
    if args::is_wal_fetch(&argv) {
        return wal::fetch_process(&argv);
    }
    if let Err(error) = failpoint::setup() {
        return report::conclude(Err(error), false);
    }
    if let Some(status) = wal::plain_push(&argv) {
        return status;
    }
    let cli = match Cli::try_parse_from(&argv) {
        Ok(cli) => cli,
        Err(answer) => return print_usage(&answer),
    };
    let json = cli.global.json;
    let outcome = std::panic::catch_unwind(|| start(&cli, exit));
    match outcome {
        Ok(result) => report::conclude(result, json),
        // The hook has said it.
        Err(_) => ExitClass::Failed as u8,
    }
}

fn start(cli: &Cli, exit: fn(u8) -> !) -> Result<Outcome> {
    let ctx = Context::new(&cli.global);
    start_log(&ctx, matches!(cli.command, Command::Agent(_)));
    if matches!(cli.command, Command::Agent(_)) {
        // The first thread is the one that listens.
        heap::share();
        signals::listen_as_service(ctx.cancel.clone(), Arc::clone(&ctx.reload), exit)?;
    } else if listens(&cli.command) {
        signals::listen(ctx.cancel.clone(), exit)?;
    }
    dispatch(&ctx, &cli.command)
}

/// Commands that end in order on a signal; PostgreSQL's own (`wal …`) must end as that signal.
fn listens(command: &Command) -> bool {
    match command {
        // The agent listens in its own way.
        Command::Agent(_)
        | Command::Alerts(_)
        | Command::Completions(_)
        | Command::Config(_)
        | Command::Init(_)
        | Command::Key(_)
        | Command::List(_)
        | Command::Man(_)
        | Command::Show(_)
        | Command::Wal(_)
        | Command::Window(_) => false,
        Command::Backup(_)
        | Command::Check(_)
        | Command::Drill(_)
        | Command::Jobs(_)
        | Command::Restore(_)
        | Command::RestoreTest(_)
        | Command::Status(_)
        | Command::Verify(_) => true,
    }
}

fn dispatch(ctx: &Context, command: &Command) -> Result<Outcome> {
    match command {
        Command::Agent(args) => agent::run(ctx, args),
        Command::Alerts(args) => alerts::run(ctx, args),
        Command::Backup(args) => backup::run(ctx, args),
        Command::Restore(args) => restore::run(ctx, args),
        Command::Drill(args) => drill::run(ctx, args),
        Command::RestoreTest(args) => restore_test::run(ctx, args),
        Command::Init(args) => init::run(ctx, args),
        Command::Check(args) => check::run(ctx, args),
        Command::Config(command) => config::run(ctx, command),
        Command::Wal(command) => wal::run(ctx, command),
        Command::Key(command) => key::run(ctx, command),
        Command::Jobs(args) => jobs::run(ctx, args),
        Command::List(args) => list::run(ctx, args),
        Command::Show(args) => show::run(ctx, args),
        Command::Status(args) => status::run(ctx, args),
        Command::Verify(args) => verify::run(ctx, args),
        Command::Window(args) => window::run(ctx, args),
        Command::Man(args) => man::run(ctx, args),
        Command::Completions(args) => completions::run(ctx, args),
    }
}

/// Help and version are answers (0), everything else is wrong usage (2).
fn print_usage(answer: &clap::Error) -> u8 {
    // A reader that went away is no failure of ours.
    let _ = answer.print();
    if answer.use_stderr() { ExitClass::Usage as u8 } else { 0 }
}

/// A panic is a bug; it is said like every other error, with its place.
fn say_panic(info: &PanicHookInfo<'_>) {
    let message = info
        .payload()
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| info.payload().downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic".to_owned());
    let place = info.location().map_or_else(|| "unknown place".to_owned(), ToString::to_string);
    report::to_stderr(&report::error_text(&Error::internal(message).at(place)));
}

/// The log goes to standard error: warnings, with `-v` what is done, with `-vv` how.
fn start_log(ctx: &Context, service: bool) {
    use tracing_subscriber::filter::LevelFilter;
    // A service says what it does.
    let level = match (ctx.quiet, ctx.verbosity + u8::from(service)) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, 2) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let ours = format!("warn,pgkeep={}", level.to_string().to_lowercase());
    let filter = if ctx.verbosity > 2 { "trace".to_owned() } else { ours };
    let timer = (!writes_to_journal()).then(tracing_subscriber::fmt::time::SystemTime::default);
    let _ = tracing_subscriber::fmt()
        .with_timer(LogTime(timer))
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_target(ctx.verbosity > 1)
        .with_ansi(false)
        .try_init();
}

/// The journal has the time of each line itself.
struct LogTime(Option<tracing_subscriber::fmt::time::SystemTime>);

impl tracing_subscriber::fmt::time::FormatTime for LogTime {
    fn format_time(&self, to: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        self.0.as_ref().map_or(Ok(()), |timer| timer.format_time(to))
    }
}

/// `JOURNAL_STREAM` is inherited by processes whose standard error goes elsewhere: device and inode must be the same
/// (systemd.exec(5)).
fn writes_to_journal() -> bool {
    use std::os::fd::AsFd;
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    nix::sys::stat::fstat(std::io::stderr().as_fd())
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}
