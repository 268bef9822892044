//! The server of a data directory as its host runs it: is it running, who manages it, stop it, start it.
//!
//! Order of detection: the configured commands, Debian's `pg_ctlcluster`, the systemd unit, `pg_ctl`. Managers that
//! would start the server again on their own (Patroni, repmgr, pg_auto_failover) are told from these and refused
//! ([`Service::refuse_other_managers`]) until they are paused.
//!
//! Promises: "stopped" is believed only when the pid file is stale or gone and no process works in the data
//! directory; after a stop the directory can be watched ([`Service::watch_stays_down`]). Commands of the host run as
//! root when pgkeep was started as root, `pg_ctl` always as the owner.
//!
//! Cancellation: dropping `stop` or `start` leaves the server to its manager; the state is asked afresh each time.

mod detect;
mod managers;
mod running;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::privilege::{self, Owner};
use super::settings;
use super::tools::Tools;
use crate::error::{Code, Error, Result};
use crate::util::clock::Deadline;
use crate::util::process::Run;

pub use managers::other_manager;
pub use running::{PidFile, RunningServer, Status, running_server, server_program};

/// How often a wait looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the command of a manager may take by itself before the server's own state is what counts.
const COMMAND_WITHIN: Duration = Duration::from_mins(5);
/// How long a stopped server is watched before its data directory is touched.
pub const WATCH: Duration = Duration::from_secs(10);
/// Where `pg_ctl` lets the server write before its own logging begins; in the data directory, left out of backups.
const START_LOG: &str = "pgkeep.start.log";

/// Commands of `[cluster.<name>.service]`, run by `/bin/sh -c`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commands {
    pub stop: Option<String>,
    pub start: Option<String>,
    /// Exits with 0 while the server runs.
    pub status: Option<String>,
}

/// Who stops and starts the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manager {
    Commands {
        stop: String,
        start: String,
    },
    /// Debian's; it speaks to systemd by itself where that runs.
    PgCtlCluster {
        version: String,
        name: String,
    },
    Systemctl {
        unit: String,
    },
    /// Nobody: `pg_ctl`, with the options that the server was started with last time.
    PgCtl {
        options: Vec<String>,
    },
}

/// The server of one data directory.
#[derive(Debug, Clone)]
pub struct Service {
    pub manager: Manager,
    pub data_directory: PathBuf,
    status: Option<String>,
    owner: Owner,
    tools: Tools,
}

impl Service {
    /// Finds out who manages the server. Call it before the data directory is moved aside: for `pg_ctl`, the
    /// options of the last start are read from it.
    pub async fn detect(
        commands: Commands,
        data_directory: &Path,
        owner: Owner,
        tools: Tools,
    ) -> Result<Self> {
        let manager = match (commands.stop, commands.start) {
            (Some(stop), Some(start)) => Manager::Commands { stop, start },
            (None, None) => detect::manager(data_directory).await?,
            _ => {
                return Err(Error::new(
                    Code::Config,
                    "the service has only one of the commands `stop` and `start`",
                )
                .hint("give both in [cluster.NAME.service], or neither"));
            }
        };
        let data_directory = data_directory.to_path_buf();
        Ok(Self { manager, data_directory, status: commands.status, owner, tools })
    }

    /// For the plan that is shown: what will be called.
    pub fn describe(&self) -> String {
        match &self.manager {
            Manager::Commands { stop, start } => format!("the configured commands `{stop}` and `{start}`"),
            Manager::PgCtlCluster { version, name } => format!("pg_ctlcluster {version} {name}"),
            Manager::Systemctl { unit } => format!("systemctl, unit {unit}"),
            Manager::PgCtl { .. } => format!("pg_ctl -D {}", self.data_directory.display()),
        }
    }

    /// The running server, if there is one. What cannot be told counts as running.
    pub async fn running(&self) -> Result<Option<RunningServer>> {
        if let Some(found) = running_server(&self.data_directory)? {
            return Ok(Some(found));
        }
        let Some(status) = &self.status else { return Ok(None) };
        let says_running = shell(status).run().await?.status.success();
        Ok(says_running.then_some(RunningServer { pid: None, pid_file: None }))
    }

    /// Refuses when something would start the server again behind our back.
    pub fn refuse_other_managers(&self) -> Result<()> {
        let Some(manager) = other_manager(&self.data_directory)? else { return Ok(()) };
        Err(Error::new(
            Code::ServerRunning,
            format!("{} manages this server and would start it again", manager.name),
        )
        .at(self.data_directory.display())
        .hint(manager.hint))
    }

    /// Stops the server (fast) and waits until nothing of it is left. Not running is fine.
    pub async fn stop(&self, within: Duration) -> Result<()> {
        if self.running().await?.is_none() {
            return Ok(());
        }
        let deadline = Deadline::after(within);
        let said = match &self.manager {
            Manager::Commands { stop, .. } => shell(stop).run().await,
            Manager::PgCtlCluster { version, name } => {
                as_root("pg_ctlcluster").args([version.as_str(), name, "stop", "-m", "fast"]).run().await
            }
            Manager::Systemctl { unit } => as_root("systemctl").args(["stop", unit]).run().await,
            Manager::PgCtl { .. } => {
                let run = self.tools.run("pg_ctl", &self.owner, COMMAND_WITHIN);
                run.arg("-D").arg(&self.data_directory).args(["-m", "fast", "-W", "stop"]).run().await
            }
        };
        let said = said.and_then(crate::util::process::Finished::success);
        while self.running().await?.is_some() {
            if deadline.passed() || said.is_err() {
                let what = format!("PostgreSQL did not stop within {} s", within.as_secs());
                let error = Error::new(Code::Service, what)
                    .at(self.data_directory.display())
                    .hint(format!("stop it by hand and try again; this was tried: {}", self.describe()));
                return Err(match said {
                    Err(e) => error.because(e),
                    Ok(_) => error,
                });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Watches for `span` that nobody starts the server again.
    pub async fn watch_stays_down(&self, span: Duration) -> Result<()> {
        let deadline = Deadline::after(span);
        loop {
            if let Some(server) = self.running().await? {
                return Err(Error::new(
                    Code::ServerRunning,
                    "something started PostgreSQL again after it was stopped",
                )
                .at(server.label(&self.data_directory))
                .hint("pause the cluster manager or the unit that does this, then try again"));
            }
            if deadline.passed() {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY.min(deadline.left())).await;
        }
    }

    /// Calls the manager's start. The server may still be starting or recovering when this returns: follow it with
    /// [`super::instance::wait_until_open`].
    pub async fn start(&self) -> Result<()> {
        let said = match &self.manager {
            Manager::Commands { start, .. } => shell(start).run().await,
            Manager::PgCtlCluster { version, name } => {
                as_root("pg_ctlcluster").args([version.as_str(), name, "start"]).run().await
            }
            Manager::Systemctl { unit } => {
                as_root("systemctl").args(["start", "--no-block", unit]).run().await
            }
            Manager::PgCtl { options } => {
                let log = self.data_directory.join(START_LOG);
                let run = self.tools.run("pg_ctl", &self.owner, COMMAND_WITHIN);
                let run = run.arg("-D").arg(&self.data_directory).arg("-l").arg(log).arg("-W");
                let quoted: Vec<String> = options.iter().map(|o| super::instance::shell_quote(o)).collect();
                let run = if quoted.is_empty() { run } else { run.arg("-o").arg(quoted.join(" ")) };
                run.arg("start").run().await
            }
        };
        let failed = match said {
            Ok(finished) if finished.status.success() => return Ok(()),
            // pg_ctlcluster gives up waiting long before a recovery ends.
            _ if running_server(&self.data_directory)?.is_some() => return Ok(()),
            Ok(finished) => finished.success().err(),
            Err(e) => Some(e),
        };
        let error = Error::new(Code::Service, "PostgreSQL could not be started")
            .at(self.data_directory.display())
            .hint(format!("this was tried: {}; the server's log says why it failed", self.describe()));
        Err(match failed {
            Some(e) => error.because(e),
            None => error,
        })
    }

    /// The file that the server writes its log to, as far as that can be told.
    pub fn log_file(&self) -> Option<PathBuf> {
        let own = self.data_directory.join(START_LOG);
        let debian = match &self.manager {
            Manager::PgCtlCluster { version, name } => {
                Some(PathBuf::from(format!("/var/log/postgresql/postgresql-{version}-{name}.log")))
            }
            _ => None,
        };
        let collected =
            std::fs::read_to_string(self.data_directory.join("current_logfiles")).ok().and_then(|text| {
                let line = text.lines().find_map(|l| l.strip_prefix("stderr "))?.to_owned();
                Some(self.data_directory.join(line))
            });
        [collected, debian, Some(own)].into_iter().flatten().find(|p| p.exists())
    }

    /// Where the server's configuration is: Debian keeps it outside the data directory.
    pub fn config_file(&self) -> PathBuf {
        match &self.manager {
            Manager::PgCtlCluster { version, name } => {
                PathBuf::from(format!("/etc/postgresql/{version}/{name}/postgresql.conf"))
            }
            Manager::PgCtl { options } => {
                let given = options.iter().find_map(|o| {
                    o.strip_prefix("config_file=")
                        .or_else(|| o.strip_prefix("--config_file="))
                        .or_else(|| o.strip_prefix("--config-file="))
                });
                given.map_or_else(|| self.data_directory.join("postgresql.conf"), PathBuf::from)
            }
            _ => self.data_directory.join("postgresql.conf"),
        }
    }

    /// A setting of the configuration files as they lie there, without a server (`postgresql.auto.conf` wins).
    pub fn configured(&self, name: &str) -> Result<Option<String>> {
        let main = self.config_file();
        let mut value = None;
        for file in
            settings::files(&main)?.into_iter().chain([self.data_directory.join("postgresql.auto.conf")])
        {
            match std::fs::read(&file) {
                Ok(bytes) => value = settings::value(&String::from_utf8_lossy(&bytes), name).or(value),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io("cannot read the configuration of PostgreSQL", &file, e)),
            }
        }
        Ok(value)
    }
}

fn shell(script: &str) -> Run {
    as_root("/bin/sh").arg("-c").arg(script)
}

fn as_root(program: &str) -> Run {
    let mut command = Command::new(program);
    privilege::as_root(&mut command);
    Run::from_command(command, COMMAND_WITHIN)
}
