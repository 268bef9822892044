//! The program under test: the built binary, run as its users run it.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::root::Ids;

/// A command that takes longer hangs.
const PATIENCE: Duration = Duration::from_mins(3);

/// As whom a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// The one that owns the data directories, as in `archive_command`.
    Postgres,
    /// Who runs the tests, on CI root.
    Caller,
}

/// The binary, with the arguments and variables that every command of a test gets.
#[derive(Debug, Clone)]
pub struct Pgkeep {
    bin: PathBuf,
    global: Vec<OsString>,
    vars: Vec<(OsString, OsString)>,
    failpoints: Vec<String>,
    wrapper: Vec<OsString>,
    user: User,
    dir: PathBuf,
    patience: Duration,
}

impl Pgkeep {
    /// Without any global arguments, as user `postgres`, in `/`.
    pub fn bare() -> Self {
        Self {
            bin: shared_binary(),
            global: Vec::new(),
            vars: Vec::new(),
            failpoints: Vec::new(),
            wrapper: Vec::new(),
            user: User::Postgres,
            dir: "/".into(),
            patience: PATIENCE,
        }
    }
    pub fn with_config(path: &Path) -> Self {
        Self::bare().global("--config").global(path)
    }
    /// An argument before the command's own.
    pub fn global(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.global.push(arg.as_ref().to_owned());
        self
    }
    pub fn user(mut self, user: User) -> Self {
        self.user = user;
        self
    }
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.vars.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }
    /// The working directory; PostgreSQL's own commands run in the data directory.
    pub fn dir(mut self, dir: &Path) -> Self {
        dir.clone_into(&mut self.dir);
        self
    }
    pub fn patience(mut self, limit: Duration) -> Self {
        self.patience = limit;
        self
    }
    /// `action` is as in `util::failpoint`: `return(kill)`, `return(error)`, `panic`, `2*off->return(stop)` …
    pub fn failpoint(mut self, name: &str, action: &str) -> Self {
        let compiled_in = cfg!(feature = "failpoints");
        assert!(compiled_in, "run the tests with --features failpoints, as scripts/test does");
        self.failpoints.push(format!("{name}={action}"));
        self
    }

    /// Run by another program, which takes the command as its last arguments (`strace …`).
    pub fn under<A: AsRef<OsStr>>(mut self, wrapper: impl IntoIterator<Item = A>) -> Self {
        self.wrapper = wrapper.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    pub fn bin(&self) -> &Path {
        &self.bin
    }
    /// The command line for PostgreSQL's `archive_command` and `restore_command`.
    pub fn shell_command(&self, rest: &str) -> String {
        let mut words = vec![self.bin.display().to_string()];
        words.extend(self.global.iter().map(|a| a.to_string_lossy().into_owned()));
        assert!(words.iter().all(|w| !w.contains([' ', '\'', '"', '%'])), "would need quoting: {words:?}");
        format!("{} {rest}", words.join(" "))
    }
    pub fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut words = self.wrapper.clone();
        words.push(self.bin.clone().into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(&self.global).args(args).envs(self.vars.iter().map(|(k, v)| (k, v)));
        command.current_dir(&self.dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC").env_remove("PGKEEP_CONFIG");
        if !self.failpoints.is_empty() {
            command.env("FAILPOINTS", self.failpoints.join(";"));
        }
        if self.user == User::Postgres && nix::unistd::geteuid().is_root() {
            let ids = Ids::server();
            command.uid(ids.uid).gid(ids.gid);
        }
        command
    }
    #[track_caller]
    pub fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Ran {
        self.spawn(args).wait()
    }
    #[track_caller]
    pub fn spawn<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Running {
        let args: Vec<OsString> = args.into_iter().map(|a| a.as_ref().to_owned()).collect();
        self.start(self.command(&args), &args)
    }
    /// With its standard error in a file, for a process that lives long.
    #[track_caller]
    pub fn spawn_logging_to<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
        log: std::fs::File,
    ) -> Running {
        let args: Vec<OsString> = args.into_iter().map(|a| a.as_ref().to_owned()).collect();
        let mut command = self.command(&args);
        command.stderr(log);
        self.start(command, &args)
    }
    #[track_caller]
    fn start(&self, mut command: Command, args: &[OsString]) -> Running {
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot start {}: {e}", self.bin.display()));
        let args = args.iter().map(|a| a.to_string_lossy()).collect::<Vec<_>>().join(" ");
        Running::new(child, args, self.patience)
    }
}

/// A command that runs. Dropped, it is killed.
pub struct Running {
    pid: Pid,
    args: String,
    start: Instant,
    patience: Duration,
    done: std::sync::mpsc::Receiver<Output>,
    ended: bool,
}

impl Running {
    fn new(child: Child, args: String, patience: Duration) -> Self {
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        let (tell, done) = std::sync::mpsc::channel();
        std::thread::spawn(move || tell.send(child.wait_with_output().unwrap()));
        Self { pid, args, start: Instant::now(), patience, done, ended: false }
    }
    pub fn pid(&self) -> Pid {
        self.pid
    }
    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal).unwrap();
    }
    /// Whatever its status; too slow is a failure of the test.
    #[track_caller]
    pub fn wait(mut self) -> Ran {
        let left = self.patience.saturating_sub(self.start.elapsed());
        let Ok(output) = self.done.recv_timeout(left) else {
            let _ = kill(self.pid, Signal::SIGKILL);
            let output = self.done.recv_timeout(Duration::from_secs(5)).ok();
            let said = output.map(|o| String::from_utf8_lossy(&o.stderr).into_owned()).unwrap_or_default();
            self.ended = true;
            panic!("pgkeep {} did not end within {:?}; it said: {said}", self.args, self.patience);
        };
        self.ended = true;
        Ran {
            args: std::mem::take(&mut self.args),
            code: output.status.code(),
            signal: output.status.signal(),
            stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
            took: self.start.elapsed(),
        }
    }
    pub fn is_running(&self) -> bool {
        self.state().is_some_and(|state| state != 'Z')
    }
    /// True once a failpoint of the kind `return(stop)` was reached.
    pub fn is_stopped(&self) -> bool {
        self.state() == Some('T')
    }
    /// As in `/proc/PID/stat`.
    fn state(&self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended && self.done.try_recv().is_err() {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }
}

/// How a command ended and what it said.
#[derive(Debug, Clone)]
pub struct Ran {
    pub args: String,
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Ran {
    /// Panics unless it ended with 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }
    #[track_caller]
    pub fn exits(self, status: i32) -> Self {
        assert_eq!(self.code, Some(status), "{self}");
        self
    }
    /// Ended with this exit status and `error[CODE]` on stderr.
    #[track_caller]
    pub fn fails_with(self, code: &str, status: i32) -> Self {
        assert!(self.stderr.contains(&format!("error[{code}]")), "no error[{code}] in: {self}");
        self.exits(status)
    }
    #[track_caller]
    pub fn was_killed(self) -> Self {
        assert_eq!(self.signal, Some(Signal::SIGKILL as i32), "not killed: {self}");
        self
    }
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text) || self.stdout.contains(text), "does not say {text:?}: {self}");
        self
    }
    /// The one document on stdout.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("stdout is no JSON ({e}): {self}"))
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { args, code, signal, stdout, stderr, took } = self;
        write!(f, "pgkeep {args}\nstatus {code:?} signal {signal:?} after {took:?}\n")?;
        write!(f, "--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// The built program where every user can run it: a checkout may lie in a directory that only its owner can enter,
/// and a rebuild must not change it under a running server.
pub fn shared_binary() -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_pgkeep"));
    let meta = std::fs::metadata(built).unwrap();
    let tag = format!("{:x}-{:x}-{:x}", meta.ino(), meta.mtime(), meta.mtime_nsec());
    let home = Path::new("/tmp/pgkeep-test-bin");
    let shared = home.join(&tag).join("pgkeep");
    if shared.exists() {
        return shared;
    }
    std::fs::create_dir_all(home).unwrap();
    forget_old(home);
    let fresh = tempfile::Builder::new().prefix(".new-").tempdir_in(home).unwrap();
    std::fs::copy(built, fresh.path().join("pgkeep")).unwrap();
    std::fs::set_permissions(fresh.path().join("pgkeep"), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(fresh.path(), PermissionsExt::from_mode(0o755)).unwrap();
    // Another test process may have been quicker: its copy is as good, and this one is removed by its guard.
    if std::fs::rename(fresh.path(), home.join(&tag)).is_ok() {
        let _ = fresh.keep();
    }
    assert!(shared.exists());
    shared
}

/// Copies of earlier builds that no run can still be using.
fn forget_old(home: &Path) {
    for entry in std::fs::read_dir(home).unwrap().flatten() {
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        if age.is_some_and(|age| age > Duration::from_hours(1)) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
