//! A server that pgkeep starts by itself: a side instance for a recovery, or a throwaway one ([`Scratch`]).
//!
//! [`Instance::start`] spawns `postgres` directly, as the owner, in a session of its own, with standard output and
//! error in a log file that is shown when it fails. Its state is what the process and `postmaster.pid` say, not what
//! a connection says: it may not be open for connections for hours.
//!
//! Cancellation: dropping an [`Instance`] that was not told to [`Instance::leave_running`] stops it at once
//! (immediate shutdown), bounded by ten seconds, then by SIGKILL.

pub mod limits;
mod scratch;

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::conninfo::ConnInfo;
use super::control_file::{ClusterState, ControlFile};
use super::privilege::{self, Owner};
use super::service::{PidFile, running_server};
use super::session::Session;
use super::tools::Tools;
use crate::error::{Code, Error, Result};
use crate::util::clock::Deadline;

pub use super::service::Status;
pub use scratch::{Scratch, init as init_scratch, scratch_settings};

/// `sockaddr_un.sun_path` less its end, less `/.s.PGSQL.65535`.
pub const SOCKET_DIR_BYTES: usize = 107 - 15;
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOG_TAIL_LINES: usize = 12;
const LOG_END_BYTES: u64 = 16 << 10;

/// How a server is started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StartOptions {
    /// `-c name=value`: wins over every configuration file.
    pub settings: Vec<(String, String)>,
    /// Where standard output and error go; appended.
    pub log_file: PathBuf,
}

/// `pg_ctl`'s modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    Smart,
    Fast,
    Immediate,
}

impl StopMode {
    fn signal(self) -> Signal {
        match self {
            Self::Smart => Signal::SIGTERM,
            Self::Fast => Signal::SIGINT,
            Self::Immediate => Signal::SIGQUIT,
        }
    }
}

/// What can be seen of a server without connecting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    /// Not open yet: starting, in crash recovery, or in a recovery that is not consistent.
    Starting,
    /// In recovery and closed, for `hot_standby` is off.
    Recovering,
    /// Takes connections; with `hot_standby`, recovery may still go on.
    Open,
    Stopping,
    /// Not running; the log says why.
    Down,
}

/// A server on `data_directory`.
#[derive(Debug)]
pub struct Instance {
    pub tools: Tools,
    pub data_directory: PathBuf,
    pub owner: Owner,
    pub log_file: PathBuf,
    /// What lay in the log file before this start says nothing about it.
    log_from: u64,
    child: Option<Child>,
    /// Stopped on drop.
    ours: bool,
}

impl Instance {
    /// Spawns the server and returns at once: `wait_until_open` or `state` say what becomes of it.
    pub fn start(
        tools: &Tools,
        data_directory: &Path,
        owner: &Owner,
        options: &StartOptions,
    ) -> Result<Self> {
        let log = |e| Error::io("cannot open the server's log", &options.log_file, e);
        let out =
            OpenOptions::new().append(true).create(true).mode(0o600).open(&options.log_file).map_err(log)?;
        let err = out.try_clone().map_err(log)?;
        let log_from = out.metadata().map_err(log)?.len();
        let mut command = tools.command("postgres", owner);
        command.arg("-D").arg(data_directory).stdin(Stdio::null()).stdout(out).stderr(err);
        for (name, value) in &options.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        privilege::detach(&mut command);
        let child =
            command.spawn().map_err(|e| Error::io("cannot start PostgreSQL", tools.path("postgres"), e))?;
        Ok(Self {
            tools: tools.clone(),
            data_directory: data_directory.to_path_buf(),
            owner: owner.clone(),
            log_file: options.log_file.clone(),
            log_from,
            child: Some(child),
            ours: true,
        })
    }

    /// A server that runs already, for example of an earlier pgkeep. It is left running on drop.
    pub fn running(tools: &Tools, data_directory: &Path, owner: &Owner, log_file: &Path) -> Self {
        Self {
            tools: tools.clone(),
            data_directory: data_directory.to_path_buf(),
            owner: owner.clone(),
            log_file: log_file.to_path_buf(),
            log_from: 0,
            child: None,
            ours: false,
        }
    }

    /// The state right now.
    pub fn state(&mut self) -> Result<ServerState> {
        if let Some(child) = &mut self.child {
            let ended = child
                .try_wait()
                .map_err(|e| Error::io("cannot follow the server", &self.data_directory, e))?;
            if ended.is_some() {
                return Ok(ServerState::Down);
            }
            let own = child.id();
            let file = PidFile::read(&self.data_directory)?;
            return Ok(match file {
                Some(file) if file.pid.unsigned_abs() == own => seen(file.status),
                // The file of an earlier server lies there until ours has looked at it.
                _ => ServerState::Starting,
            });
        }
        state_of(&self.data_directory)
    }

    /// Waits until the server takes connections, which with `hot_standby` it does during recovery. Its end, or
    /// `within` passing, is an error with its last words.
    pub async fn wait_until_open(&mut self, within: Duration) -> Result<()> {
        let deadline = Deadline::after(within);
        loop {
            match self.state()? {
                ServerState::Open => return Ok(()),
                ServerState::Down => return Err(self.ended()),
                _ if deadline.passed() => return Err(self.too_slow("did not open", within)),
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Waits until recovery has ended and the server is open for all.
    pub async fn wait_for_end_of_recovery(&mut self, within: Duration) -> Result<()> {
        let deadline = Deadline::after(within);
        loop {
            match self.state()? {
                ServerState::Open if !in_recovery(&self.data_directory)? => return Ok(()),
                ServerState::Down => return Err(self.ended()),
                _ if deadline.passed() => return Err(self.too_slow("did not end its recovery", within)),
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// The error of a server that ended on its own: what it said last.
    pub fn ended(&self) -> Error {
        Error::new(
            Code::Service,
            format!("PostgreSQL ended: {}", last_words(&log_end(&self.log_file, self.log_from))),
        )
        .at(self.data_directory.display())
        .hint(format!("its log: {}", self.log_file.display()))
    }

    fn too_slow(&self, what: &str, within: Duration) -> Error {
        Error::new(Code::Service, format!("PostgreSQL {what} within {} s", within.as_secs()))
            .at(self.data_directory.display())
            .hint(format!("its log: {}", self.log_file.display()))
    }

    /// The last lines of the log.
    pub fn log_tail(&self) -> String {
        tail(&log_end(&self.log_file, self.log_from))
    }

    /// Stops it and waits. Not running is fine.
    pub async fn stop(&mut self, mode: StopMode, within: Duration) -> Result<()> {
        let deadline = Deadline::after(within);
        self.signal(mode.signal());
        loop {
            if self.state()? == ServerState::Down {
                self.child = None;
                return Ok(());
            }
            if deadline.passed() {
                return Err(self.too_slow("did not stop", within));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Ends a recovery through `pg_ctl promote`, which needs no connection, and waits until it has ended.
    pub async fn promote(&mut self, within: Duration) -> Result<()> {
        let run = self.tools.run("pg_ctl", &self.owner, within.max(Duration::from_secs(10)));
        run.arg("-D").arg(&self.data_directory).args(["-W", "promote"]).run().await?.success().map_err(
            |e| {
                Error::new(Code::Service, "the server cannot be promoted")
                    .at(self.data_directory.display())
                    .because(e)
            },
        )?;
        self.wait_for_end_of_recovery(within).await
    }

    /// How to connect: the socket that the server itself wrote down.
    pub fn conninfo(&self, user: &str, dbname: &str) -> Result<ConnInfo> {
        let file = PidFile::read(&self.data_directory)?.ok_or_else(|| self.ended())?;
        let socket = file.socket_dir.ok_or_else(|| {
            Error::new(Code::Service, "the server has no socket").at(self.data_directory.display())
        })?;
        Ok(ConnInfo::socket(&self.data_directory.join(socket), file.port, user, dbname))
    }

    /// A session, once the server is open.
    pub async fn connect(&self, user: &str, dbname: &str) -> Result<Session> {
        super::connect_to(&self.conninfo(user, dbname)?).await
    }

    /// The server goes on when this value is dropped and when pgkeep ends.
    pub fn leave_running(&mut self) {
        self.ours = false;
    }

    /// The postmaster's process, while it runs.
    pub fn pid(&self) -> Option<i32> {
        match &self.child {
            Some(child) => i32::try_from(child.id()).ok(),
            None => running_server(&self.data_directory).ok()??.pid,
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            // It may have ended in this instant; `state` tells.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if !self.ours || self.child.is_none() {
            return;
        }
        for (signal, patience) in
            [(Signal::SIGQUIT, Duration::from_secs(10)), (Signal::SIGKILL, Duration::from_secs(2))]
        {
            self.signal(signal);
            let deadline = Deadline::after(patience);
            while !deadline.passed() {
                if !matches!(self.state(), Ok(state) if state != ServerState::Down) {
                    return;
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }
}

fn seen(status: Status) -> ServerState {
    match status {
        Status::Starting => ServerState::Starting,
        Status::Stopping => ServerState::Stopping,
        Status::Ready => ServerState::Open,
        Status::Standby => ServerState::Recovering,
    }
}

/// The state of whatever server runs on this directory, ours or the host's.
pub fn state_of(data_directory: &Path) -> Result<ServerState> {
    Ok(match running_server(data_directory)? {
        None => ServerState::Down,
        Some(server) => server.pid_file.map_or(ServerState::Stopping, |file| seen(file.status)),
    })
}

/// Whether the running server is still in recovery, as its control file says: no connection is needed, and a server
/// that nobody may connect to yet can be asked as well.
pub fn in_recovery(data_directory: &Path) -> Result<bool> {
    Ok(ControlFile::read(data_directory)?.state != ClusterState::InProduction)
}

/// Waits for a server that the host's manager started: open, or gone, which is an error with its log's tail. A server
/// that is not there yet gets `grace` to appear.
pub async fn wait_until_open(data_directory: &Path, log_file: Option<&Path>, within: Duration) -> Result<()> {
    let (deadline, grace) = (Deadline::after(within), Deadline::after(within.min(Duration::from_secs(20))));
    let mut appeared = false;
    loop {
        let state = state_of(data_directory)?;
        let error = match state {
            ServerState::Open => return Ok(()),
            ServerState::Down if appeared || grace.passed() => {
                let said = log_file.map(|log| log_end(log, 0)).unwrap_or_default();
                Error::new(Code::Service, format!("PostgreSQL ended: {}", last_words(&said)))
            }
            _ if deadline.passed() => {
                Error::new(Code::Service, format!("PostgreSQL did not open within {} s", within.as_secs()))
            }
            ServerState::Down => {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            _ => {
                appeared = true;
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
        };
        let error = error.at(data_directory.display());
        return Err(match log_file {
            Some(log) => error.hint(format!("its log: {}", log.display())),
            None => error,
        });
    }
}

/// Stops the server of a directory whose files nobody will need: at once, with its orphans.
pub async fn stop_whatever_runs(data_directory: &Path, within: Duration) -> Result<()> {
    let deadline = Deadline::after(within);
    while let Some(server) = running_server(data_directory)? {
        // The second half of the patience is for one that does not listen.
        let signal = if deadline.left() > within / 2 { Signal::SIGQUIT } else { Signal::SIGKILL };
        if let Some(pid) = server.pid {
            // It may have ended in this instant.
            let _ = kill(Pid::from_raw(pid), signal);
        }
        if deadline.passed() {
            return Err(Error::new(Code::Service, "the server does not end").at(data_directory.display()));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// The last lines of a log file; nothing when it cannot be read.
pub fn log_tail(log_file: &Path) -> String {
    tail(&log_end(log_file, 0))
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

/// The end of a log file, at most [`LOG_END_BYTES`] and nothing before `from`.
fn log_end(log_file: &Path, from: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log_file)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_END_BYTES).max(from)))?;
        let mut bytes = Vec::new();
        file.take(LOG_END_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    // A log that cannot be read makes a message poorer, not an error of its own.
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// What a person needs of a log's tail: the last FATAL or PANIC with what explains it, else the last line.
pub fn last_words(tail: &str) -> String {
    let lines: Vec<&str> = tail.lines().collect();
    let said = |line: &&str| ["FATAL:", "PANIC:"].iter().any(|word| line.contains(word));
    let Some(at) = lines.iter().rposition(said) else {
        return lines.last().map_or_else(|| "its log is empty".to_owned(), |l| (*l).to_owned());
    };
    let more = lines[at + 1..].iter().take_while(|l| l.contains("DETAIL:") || l.contains("HINT:"));
    // "configuration file contains errors" alone helps nobody: which they are was said before.
    let unspecific = lines[at].contains("contains errors");
    let before = lines[..at].iter().filter(|l| unspecific && l.contains("LOG:"));
    let parts: Vec<&str> = before.chain([&lines[at]]).chain(more).map(|l| strip_prefix(l)).collect();
    parts.join(" ")
}

/// Without the `log_line_prefix`.
fn strip_prefix(line: &str) -> &str {
    ["FATAL:", "PANIC:", "DETAIL:", "HINT:"]
        .iter()
        .find_map(|word| line.find(word))
        .map_or(line, |at| &line[at..])
}

/// True when a server can make its socket in this directory.
pub fn socket_fits(directory: &Path) -> bool {
    directory.as_os_str().as_bytes().len() <= SOCKET_DIR_BYTES
}

/// One word for `/bin/sh`.
pub fn shell_quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_the_fatal_ones_with_their_explanation() {
        let tail = "2026-11-21 09:00:00 UTC [7] LOG:  redo done\n\
            2026-11-21 09:00:00 UTC [7] FATAL:  recovery ended before configured recovery target was reached\n\
            2026-11-21 09:00:00 UTC [7] HINT:  look again\n2026-11-21 09:00:01 UTC [1] LOG:  database system is shut down";
        assert_eq!(
            last_words(tail),
            "FATAL:  recovery ended before configured recovery target was reached HINT:  look again"
        );
        assert_eq!(last_words("a\nb"), "b");
        assert_eq!(last_words(""), "its log is empty");
    }

    #[test]
    fn a_quoted_word_stays_one_word_for_the_shell() {
        assert_eq!(shell_quote("it's $HOME"), r"'it'\''s $HOME'");
    }
}
