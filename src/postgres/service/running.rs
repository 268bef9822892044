//! Is a server running on this data directory? `postmaster.pid` is a claim; `/proc` is the answer.
//!
//! After a crash the pid may be another program's by now, and in a container it may be of another pid namespace:
//! a process counts when it works in the data directory (the postmaster and all its children do), and where we may
//! not look at that, when it is a `postgres` of that number. A socket whose lock file names the directory and that
//! accepts connections counts too. Source of the file's lines: `pidfile.h`.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// `postmaster.pid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PidFile {
    pub pid: i32,
    pub port: u16,
    /// None when the server has no socket.
    pub socket_dir: Option<PathBuf>,
    pub status: Status,
}

/// The last line of `postmaster.pid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Starting,
    Stopping,
    /// Takes connections; with `hot_standby`, also during recovery.
    Ready,
    /// In recovery and closed.
    Standby,
}

/// A server that runs, as far as it can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningServer {
    /// None when only the configured status command or a socket says so.
    pub pid: Option<i32>,
    pub pid_file: Option<PidFile>,
}

impl RunningServer {
    pub fn label(&self, data_directory: &Path) -> String {
        let pid = self.pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
        format!("{}{pid}", data_directory.display())
    }
}

impl PidFile {
    /// None when there is no such file; one that is being written reads as starting.
    pub fn read(data_directory: &Path) -> Result<Option<Self>> {
        let path = data_directory.join("postmaster.pid");
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Self::parse(&String::from_utf8_lossy(&bytes))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("cannot read the server's pid file", &path, e)),
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        // A standalone backend writes its own pid negative.
        let pid: i32 = lines.first()?.parse::<i32>().ok()?.checked_abs()?;
        let status = match lines.get(7).copied().unwrap_or_default() {
            "ready" => Status::Ready,
            "standby" => Status::Standby,
            "stopping" => Status::Stopping,
            _ => Status::Starting,
        };
        Some(Self {
            pid,
            port: lines.get(3).and_then(|p| p.parse().ok()).unwrap_or(0),
            socket_dir: lines.get(4).filter(|d| !d.is_empty()).map(PathBuf::from),
            status,
        })
    }
}

/// The server that runs on `data_directory`. A directory that does not exist has none.
pub fn running_server(data_directory: &Path) -> Result<Option<RunningServer>> {
    let directory = match std::fs::canonicalize(data_directory) {
        Ok(directory) => directory,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("cannot look at the data directory", data_directory, e)),
    };
    let pid_file = PidFile::read(&directory)?;
    if let Some(file) = &pid_file {
        let lives = match works_in(file.pid, &directory) {
            Some(here) => here,
            None => is_postgres(file.pid),
        };
        if lives || answers(file, &directory) {
            return Ok(Some(RunningServer { pid: lives.then_some(file.pid), pid_file }));
        }
    }
    // The postmaster was killed, and a child of it still writes.
    let orphan =
        processes()?.into_iter().find(|pid| works_in(*pid, &directory) == Some(true) && is_postgres(*pid));
    Ok(orphan.map(|pid| RunningServer { pid: Some(pid), pid_file }))
}

/// The program file of the running server.
pub fn server_program(data_directory: &Path) -> Option<PathBuf> {
    let pid = running_server(data_directory).ok()??.pid?;
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    // After an upgrade under a running server the link says "(deleted)".
    program.exists().then_some(program)
}

/// Whether the process works in this directory; none when we may not look. A zombie works nowhere.
fn works_in(pid: i32, directory: &Path) -> Option<bool> {
    match std::fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(cwd) => Some(cwd == directory),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Some(false),
        Err(_) => None,
    }
}

/// Whether a living process of this number calls itself `postgres`.
fn is_postgres(pid: i32) -> bool {
    let zombie = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])));
    let name = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    !zombie && (name.starts_with(b"postgres") || name.starts_with(b"postmaster"))
}

/// A socket that accepts, whose lock file names this directory.
fn answers(file: &PidFile, directory: &Path) -> bool {
    let Some(dir) = &file.socket_dir else { return false };
    let socket = dir.join(format!(".s.PGSQL.{}", file.port));
    let lock = dir.join(format!(".s.PGSQL.{}.lock", file.port));
    let names = std::fs::read(lock).is_ok_and(|bytes| {
        bytes.split(|b| *b == b'\n').nth(1).is_some_and(|line| line == directory.as_os_str().as_bytes())
    });
    names && UnixStream::connect(socket).is_ok()
}

pub(super) fn processes() -> Result<Vec<i32>> {
    let entries =
        std::fs::read_dir("/proc").map_err(|e| Error::io("cannot list the processes", "/proc", e))?;
    Ok(entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: &str = "4711\n/srv/pg\n1763715600\n5433\n/tmp\nlocalhost\n 1 2\nready   \n";

    #[test]
    fn a_pid_file_says_port_socket_and_status() {
        let file = PidFile::parse(RUNNING).unwrap();
        assert_eq!((file.pid, file.port, file.status), (4711, 5433, Status::Ready));
        assert_eq!(file.socket_dir, Some(PathBuf::from("/tmp")));
    }

    #[test]
    fn a_pid_file_cut_off_anywhere_is_read_as_starting_or_not_at_all() {
        for length in 0..RUNNING.len() - 5 {
            if let Some(file) = PidFile::parse(&RUNNING[..length]) {
                assert_eq!(file.status, Status::Starting, "{length}");
            }
        }
    }

    #[test]
    fn a_pid_file_left_by_a_crash_is_no_running_server() {
        let dir = tempfile::tempdir().unwrap();
        // This very process lives, and is no server of that directory.
        std::fs::write(
            dir.path().join("postmaster.pid"),
            RUNNING.replace("4711", &std::process::id().to_string()),
        )
        .unwrap();
        assert_eq!(running_server(dir.path()).unwrap(), None);
        assert_eq!(running_server(&dir.path().join("absent")).unwrap(), None);
    }
}
