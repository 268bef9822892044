//! A throwaway cluster: `initdb` in a directory of its own, a socket and nothing else, gone afterwards also on
//! failure.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::limits::{LIMITS, OF_FRESH};
use super::{Instance, StartOptions, StopMode, socket_fits};
use crate::error::{Code, Error, Result};
use crate::postgres::privilege::Owner;
use crate::postgres::session::Session;
use crate::postgres::tools::Tools;

const INITDB_WITHIN: Duration = Duration::from_mins(5);
const OPEN_WITHIN: Duration = Duration::from_mins(1);
const SUPERUSER: &str = "postgres";

/// A running cluster that disappears with this value.
#[derive(Debug)]
pub struct Scratch {
    // Fields drop in this order: the server first, then its directory.
    pub instance: Instance,
    directory: tempfile::TempDir,
    _socket: Option<tempfile::TempDir>,
}

impl Scratch {
    /// Makes and starts a cluster below `parent`, which `owner` must be able to write to. Where its own path is too long for
    /// a socket, that lies in `short`, which must be the owner's alone; without one, in a directory of its own, which a
    /// killed process leaves.
    pub async fn create(
        tools: &Tools,
        owner: &Owner,
        parent: &Path,
        short: Option<&Path>,
        initdb: &[&str],
    ) -> Result<Self> {
        let made = |e| Error::io("cannot make a scratch directory", parent, e);
        let directory =
            tempfile::Builder::new().prefix("pgkeep-scratch-").tempdir_in(parent).map_err(made)?;
        give(directory.path(), owner)?;
        let socket = if socket_fits(directory.path()) || short.is_some() {
            None
        } else {
            let short = tempfile::Builder::new().prefix("pgkeep-").tempdir().map_err(made)?;
            give(short.path(), owner)?;
            Some(short)
        };
        let data = directory.path().join("data");
        init(tools, owner, &data, initdb, "cannot make a scratch cluster").await?;
        let lies = match (&socket, short) {
            (Some(own), _) => own.path(),
            (None, Some(short)) if !socket_fits(directory.path()) => short,
            (None, _) => directory.path(),
        };
        let options =
            StartOptions { settings: scratch_settings(lies), log_file: directory.path().join("server.log") };
        let mut instance = Instance::start(tools, &data, owner, &options)?;
        instance.wait_until_open(OPEN_WITHIN).await?;
        Ok(Self { instance, directory, _socket: socket })
    }

    pub fn data_directory(&self) -> PathBuf {
        self.directory.path().join("data")
    }
    pub async fn connect(&self, dbname: &str) -> Result<Session> {
        self.instance.connect(SUPERUSER, dbname).await
    }
    /// Stops and removes it now, and says if that failed.
    pub async fn remove(mut self) -> Result<()> {
        self.instance.stop(StopMode::Immediate, OPEN_WITHIN).await?;
        let path = self.directory.path().to_path_buf();
        drop(self.instance);
        self.directory.close().map_err(|e| Error::io("cannot remove the scratch directory", path, e))
    }
}

/// `initdb` for a cluster that nobody will need after a crash. `failed` is what its error says.
pub async fn init(tools: &Tools, owner: &Owner, data: &Path, more: &[&str], failed: &str) -> Result<()> {
    let run = tools.run("initdb", owner, INITDB_WITHIN).arg("-D").arg(data);
    // Its socket lies in a directory that only the owner can enter.
    let run = run.args(["-U", SUPERUSER, "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"]).args(more);
    run.run().await?.success().map_err(|e| Error::new(Code::Tools, failed).at(data.display()).because(e))?;
    Ok(())
}

/// No TCP, no archiving, no durability: nobody will need it after a crash. And no more of the host than it needs.
pub fn scratch_settings(socket: &Path) -> Vec<(String, String)> {
    let socket = socket.display().to_string();
    let own = [
        ("unix_socket_directories", socket.as_str()),
        ("unix_socket_permissions", "0700"),
        ("listen_addresses", ""),
        ("fsync", "off"),
        ("archive_mode", "off"),
        ("logging_collector", "off"),
    ];
    let all = own.into_iter().chain(LIMITS).chain(OF_FRESH);
    all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What root made for the owner must be the owner's.
fn give(path: &Path, owner: &Owner) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    std::os::unix::fs::chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))
        .map_err(|e| Error::io("cannot give the directory to the server's user", path, e))
}
