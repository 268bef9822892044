//! What every command is given: which configuration, cluster and repository, how to talk, and the token that a
//! signal cancels. Nothing here reads the configuration until a command asks, and no runtime is built until a command
//! needs one: `wal push` must stay light.

use std::future::Future;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::args::Global;
use crate::config::{ClusterConfig, Config};
use crate::error::{Code, Error, Result};
use crate::model::{ClusterName, RepoName};
use crate::util::progress::{Progress, Silent};

/// How a command that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// The work is done, and it found something wrong that has been printed (exit 4).
    Finding,
}

/// Half of what a socket's buffer takes to fill at the speed of one server process.
const GATHER: std::time::Duration = std::time::Duration::from_micros(600);

#[derive(Clone)]
pub struct Context {
    pub config_path: PathBuf,
    pub cluster: Option<ClusterName>,
    pub repo: Option<RepoName>,
    pub json: bool,
    pub quiet: bool,
    pub verbosity: u8,
    /// Cancelled by the first SIGINT, SIGTERM or SIGHUP; the second ends the process at once.
    pub cancel: CancellationToken,
    /// Notified by SIGHUP, where the command is a service.
    pub reload: Arc<Notify>,
}

impl Context {
    pub fn new(global: &Global) -> Self {
        Self {
            config_path: std::path::absolute(&global.config).unwrap_or_else(|_| global.config.clone()),
            cluster: global.cluster.clone(),
            repo: global.repo.clone(),
            json: global.json,
            quiet: global.quiet,
            verbosity: global.verbose,
            cancel: CancellationToken::new(),
            reload: Arc::new(Notify::new()),
        }
    }

    /// The configuration, all faults at once.
    pub fn load_config(&self) -> Result<Config> {
        Config::load(&self.config_path)
    }

    /// The cluster that `--cluster` names, or the only one.
    pub fn cluster<'a>(&self, config: &'a Config) -> Result<&'a ClusterConfig> {
        config.cluster(self.cluster.as_ref())
    }

    pub fn config_path(&self) -> &Path {
        &self.config_path
    }

    /// Bars on a terminal, plain lines otherwise, nothing with `--quiet`; always on standard error.
    pub fn progress(&self) -> Arc<dyn Progress> {
        if self.quiet {
            Arc::new(Silent)
        } else if std::io::stderr().is_terminal() {
            Arc::new(super::progress::Bars::new())
        } else {
            Arc::new(super::progress::Lines::new())
        }
    }

    /// Runs asynchronous work on this thread alone: enough for a few requests to a store.
    pub fn block_on_light<F: Future>(&self, work: F) -> Result<F::Output> {
        Ok(self.light_runtime()?.block_on(work))
    }

    /// Runs asynchronous work on several threads: backups and restores.
    pub fn block_on<F: Future>(&self, work: F) -> Result<F::Output> {
        Ok(self.runtime()?.block_on(work))
    }

    pub fn light_runtime(&self) -> Result<Runtime> {
        Builder::new_current_thread().enable_all().build().map_err(no_runtime)
    }

    pub fn runtime(&self) -> Result<Runtime> {
        Builder::new_multi_thread().enable_all().build().map_err(no_runtime)
    }

    /// For work whose bytes come in many small packets over few connections, and are worked on by threads of their
    /// own. With several threads that receive, every packet would wake another one; and one that waits for the next
    /// packet at once is woken by each (PostgreSQL sends 8 kB), at the cost of the server's work. So it lets some gather.
    pub fn runtime_of_one(&self) -> Result<Runtime> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().on_thread_park(|| std::thread::sleep(GATHER));
        builder.build().map_err(no_runtime)
    }

    /// Data, on standard output. A reader that went away (`pgkeep list | head`) is no failure of ours.
    pub fn print(&self, text: &str) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let ended = if text.ends_with('\n') { "" } else { "\n" };
        let written = out
            .write_all(text.as_bytes())
            .and_then(|()| out.write_all(ended.as_bytes()))
            .and_then(|()| out.flush());
        match written {
            Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(Error::io("cannot write", Path::new("standard output"), e))
            }
            _ => Ok(()),
        }
    }

    /// The one document of `--json`, on standard output.
    pub fn print_json<T: Serialize>(&self, document: &T) -> Result<()> {
        let text = serde_json::to_string_pretty(document)
            .map_err(|e| Error::internal("cannot print the result as JSON").because(e))?;
        self.print(&text)
    }

    /// Talk, on standard error; nothing with `--quiet`.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            super::report::to_stderr(text);
        }
    }

    /// Asks a question on the terminal and waits for an answer on standard input. Without a terminal nobody can
    /// answer, and that is a refusal, never a yes.
    pub fn ask(&self, question: &str) -> Result<String> {
        if !std::io::stdin().is_terminal() {
            return Err(Error::new(
                Code::NotConfirmed,
                "nobody is there to confirm: standard input is no terminal",
            )
            .hint("give --yes to confirm in advance"));
        }
        let mut err = std::io::stderr().lock();
        let _ = err.write_all(question.as_bytes()).and_then(|()| err.flush());
        let mut answer = String::new();
        std::io::stdin()
            .read_line(&mut answer)
            .map_err(|e| Error::io("cannot read the answer", Path::new("standard input"), e))?;
        Ok(answer.trim().to_owned())
    }
}

fn no_runtime(cause: std::io::Error) -> Error {
    Error::new(Code::Io, "cannot start the asynchronous runtime").because(cause)
}
