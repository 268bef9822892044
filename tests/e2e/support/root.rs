//! The directory in which a test lives, readable by the unprivileged user that its servers run as. Whatever server
//! still runs below it when it is dropped is stopped, also one that pgkeep started.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait::eventually;

/// `/tmp/pgk-…`, short because a socket's path may have 107 bytes. `PGKEEP_TEST_KEEP=1` keeps it for a look.
pub struct Root(PathBuf);

/// The user that servers run as: PostgreSQL refuses root.
#[derive(Debug, Clone, Copy)]
pub struct Ids {
    pub uid: u32,
    pub gid: u32,
}

impl Ids {
    /// `postgres` when the tests run as root, else who we are.
    pub fn server() -> Self {
        if !nix::unistd::geteuid().is_root() {
            return Self { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() };
        }
        let user = nix::unistd::User::from_name("postgres").unwrap();
        let user = user.expect("there is no user `postgres`: run scripts/install-test-deps");
        Self { uid: user.uid.as_raw(), gid: user.gid.as_raw() }
    }
    pub fn own(self, path: &Path) {
        chown(path, Some(self.uid), Some(self.gid)).unwrap();
    }
}

impl Root {
    pub fn new() -> Arc<Self> {
        let made = tempfile::Builder::new().prefix("pgk-").tempdir_in("/tmp").unwrap().keep();
        std::fs::set_permissions(&made, PermissionsExt::from_mode(0o755)).unwrap();
        Ids::server().own(&made);
        // scripts/test cleans up after a test that was killed: it knows by this.
        std::fs::write(made.join("test.pid"), std::process::id().to_string()).unwrap();
        Arc::new(Self(made))
    }
    pub fn path(&self) -> &Path {
        &self.0
    }
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
    /// A directory below, made if needed, owned by the servers' user.
    pub fn dir(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        Ids::server().own(&path);
        path
    }
    /// A file below, readable by all unless `mode` says otherwise, owned by the servers' user.
    pub fn file(&self, name: &str, mode: u32, content: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        Ids::server().own(&path);
        path
    }
    /// Kills every server whose `postmaster.pid` lies below this directory.
    fn stop_servers(&self) {
        for entry in walkdir::WalkDir::new(&self.0).into_iter().flatten() {
            if entry.file_name() != "postmaster.pid" {
                continue;
            }
            let Some(data) = entry.path().parent() else { continue };
            if let Some(pid) = postmaster_pid(data) {
                let left = shared_memory_of(data);
                let _ = kill(pid, Signal::SIGKILL);
                // It goes with the last process that is attached.
                remove_shared_memory(left);
            }
        }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        self.stop_servers();
        if std::env::var_os("PGKEEP_TEST_KEEP").is_some() {
            eprintln!("kept: {}", self.0.display());
            return;
        }
        // Backends of a killed server may still write for a moment.
        for _ in 0..50 {
            if std::fs::remove_dir_all(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The living postmaster of a data directory. A stale `postmaster.pid`, whose number now belongs to another program
/// or to a server elsewhere, is none.
pub fn postmaster_pid(data: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid: i32 = text.lines().next()?.trim().parse().ok()?;
    works_in(pid, data).then(|| Pid::from_raw(pid))
}

/// The System V segment of a running server, by its id (`miscinit.h`: the seventh line is its key and its id).
pub fn shared_memory_of(data: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
    text.lines().nth(6)?.split_whitespace().nth(1)?.parse().ok()
}

/// A server that is killed leaves its segment behind, and a kernel has only some thousands of them: after as many tests
/// no server would start any more.
pub fn remove_shared_memory(id: Option<u32>) {
    let Some(id) = id else { return };
    // One that has gone already is what was wanted.
    let _ = Command::new("ipcrm").args(["-m", &id.to_string()]).stderr(Stdio::null()).status();
}

/// True when process `pid` has `data` as its working directory, as every process of a server has.
fn works_in(pid: i32, data: &Path) -> bool {
    let Ok(dir) = std::fs::read_link(format!("/proc/{pid}/cwd")) else { return false };
    std::fs::canonicalize(data).is_ok_and(|data| data == dir)
}

/// Waits until no process at all works in `data`: after a SIGKILL of the postmaster its backends need a moment.
pub fn wait_deserted(data: &Path) {
    eventually("every process of the server has ended", Duration::from_secs(30), || {
        let Ok(all) = std::fs::read_dir("/proc") else { return false };
        let pids = all.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
        !pids.into_iter().any(|pid| works_in(pid, data) && !is_zombie(pid))
    });
}

fn is_zombie(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with('Z')))
        .unwrap_or(true)
}
