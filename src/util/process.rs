//! Runs another program to its end: never longer than a deadline, never with more output than a bound, and never
//! leaving its children behind.
//!
//! The program gets a process group of its own. When the deadline passes, or the future is dropped, the whole group
//! is killed. [`Run::stream`] hands on endless output as it comes, [`Run::feed`] hands endless input in. A daemon that
//! it started in a session of its own (`pg_ctl start`) is not part of the group and lives.

mod feed;
mod stream;

use std::ffi::{OsStr, OsString};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::error::{Code, Error, Result};

pub use feed::{Fed, reader_is_gone};
pub use stream::Streamed;

/// How much of each output is kept unless `limit` says otherwise.
const DEFAULT_LIMIT: usize = 1 << 20;
/// Once the program has ended, how long a grandchild may hold its pipes before we stop listening.
const LINGER: Duration = Duration::from_millis(500);

/// A program to run. Arguments are passed as they are; no shell is involved.
#[derive(Debug)]
pub struct Run {
    command: Command,
    program: OsString,
    stdin: Vec<u8>,
    deadline: Duration,
    limit: usize,
}

/// What a program left behind when it ended.
#[derive(Debug)]
pub struct Finished {
    pub program: String,
    pub status: ExitStatus,
    /// All of it: more than the limit is an error of `run`.
    pub stdout: Vec<u8>,
    /// The last bytes, up to the limit: what a person needs of an endless complaint is its end.
    pub stderr: Vec<u8>,
}

impl Run {
    pub fn new(program: impl AsRef<OsStr>, deadline: Duration) -> Self {
        let program = program.as_ref().to_owned();
        let mut command = Command::new(&program);
        command.process_group(0).kill_on_drop(true);
        Self { command, program, stdin: Vec::new(), deadline, limit: DEFAULT_LIMIT }
    }
    /// From a command that was prepared elsewhere (its user, its environment).
    pub fn from_command(command: std::process::Command, deadline: Duration) -> Self {
        let program = command.get_program().to_owned();
        let mut command = Command::from(command);
        command.process_group(0).kill_on_drop(true);
        Self { command, program, stdin: Vec::new(), deadline, limit: DEFAULT_LIMIT }
    }
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(name);
        self
    }
    pub fn dir(mut self, dir: impl AsRef<std::path::Path>) -> Self {
        self.command.current_dir(dir);
        self
    }
    /// As another user, without our supplementary groups.
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.command.uid(uid).gid(gid);
        self
    }
    /// What the program reads; nothing unless given.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }
    /// Bytes kept of stdout and of stderr.
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Runs it to its end, whatever its status. An error means that it could not be started, did not end in time,
    /// or said more than the limit.
    pub async fn run(self) -> Result<Finished> {
        let Self { mut command, program, stdin, deadline, limit } = self;
        let name = program.to_string_lossy().into_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|e| Error::io("cannot start the program", &program, e))?;
        let mut group = Group::new(child);
        match tokio::time::timeout(deadline, group.follow(stdin, limit)).await {
            Err(_) => {
                Err(Error::new(Code::Io, format!("the program did not end within {deadline:?}")).at(name))
            }
            Ok(Err(e)) => Err(Error::io("cannot follow the program", &program, e)),
            Ok(Ok((status, stdout, stderr))) => {
                if stdout.cut {
                    let what = format!("the program wrote more than {limit} bytes");
                    return Err(Error::new(Code::Io, what).at(name));
                }
                Ok(Finished { program: name, status, stdout: stdout.bytes, stderr: stderr.bytes })
            }
        }
    }
}

impl Finished {
    /// Itself when the program ended with 0, else an error with its last words.
    pub fn success(self) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        let said = String::from_utf8_lossy(&self.stderr);
        let what = format!("the program failed ({}): {}", self.status, said.trim());
        Err(Error::new(Code::Io, what).at(self.program))
    }
    pub fn stdout_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }
    pub fn stderr_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.stderr)
    }
}

/// A child whose group dies with this value, unless the child has ended and was waited for.
struct Group {
    child: Child,
    leader: Option<Pid>,
}

impl Group {
    fn new(child: Child) -> Self {
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Self { child, leader }
    }

    async fn follow(
        &mut self,
        stdin: Vec<u8>,
        limit: usize,
    ) -> std::io::Result<(ExitStatus, Captured, Captured)> {
        let (input, out, err) = (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take());
        let (mut stdout, mut stderr) = (Captured::default(), Captured::default());
        let feed = async {
            if let Some(mut pipe) = input {
                // A program that does not read its input to the end is free not to.
                let _ = pipe.write_all(&stdin).await;
            }
        };
        let status = {
            let talk = async {
                let ((), a, b) = tokio::join!(
                    feed,
                    capture(out, limit, Keep::Head, &mut stdout),
                    capture(err, limit, Keep::Tail, &mut stderr)
                );
                a.and(b)
            };
            tokio::pin!(talk);
            tokio::select! {
                said = &mut talk => {
                    said?;
                    self.child.wait().await?
                }
                ended = self.child.wait() => {
                    let status = ended?;
                    if let Ok(said) = tokio::time::timeout(LINGER, &mut talk).await {
                        said?;
                    }
                    status
                }
            }
        };
        self.leader = None;
        Ok((status, stdout, stderr))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        kill(self.leader);
    }
}

fn kill(group: Option<Pid>) {
    if let Some(leader) = group {
        // It may be gone already; there is nobody to tell.
        let _ = killpg(leader, Signal::SIGKILL);
    }
}

#[derive(Default)]
struct Captured {
    bytes: Vec<u8>,
    cut: bool,
}

#[derive(Clone, Copy)]
enum Keep {
    Head,
    Tail,
}

/// Reads to the end even beyond the limit, so that the program does not block on a full pipe.
async fn capture(
    pipe: Option<impl AsyncRead + Unpin>,
    limit: usize,
    keep: Keep,
    into: &mut Captured,
) -> std::io::Result<()> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    let mut chunk = vec![0; 16 << 10];
    loop {
        let n = pipe.read(&mut chunk).await?;
        if n == 0 {
            return Ok(());
        }
        into.bytes.extend_from_slice(&chunk[..n]);
        let excess = into.bytes.len().saturating_sub(limit);
        if excess > 0 {
            into.cut = true;
            match keep {
                Keep::Head => into.bytes.truncate(limit),
                Keep::Tail => drop(into.bytes.drain(..excess)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::clock::Stopwatch;

    fn sh(script: &str, deadline: Duration) -> Run {
        Run::new("sh", deadline).arg("-c").arg(script)
    }
    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn output_and_status_come_back_and_failure_quotes_stderr() {
        let done = sh("cat; echo oops >&2; exit 3", LONG).stdin("hello").run().await.unwrap();
        assert_eq!((done.stdout_text().as_ref(), done.status.code()), ("hello", Some(3)));
        assert!(done.success().unwrap_err().to_string().contains("oops"));
    }

    #[tokio::test]
    async fn the_deadline_kills_the_grandchildren_too() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("alive");
        let script = format!("(sleep 1; touch {}) & wait", mark.display());
        let error = sh(&script, Duration::from_millis(200)).run().await.unwrap_err();
        assert!(error.what().contains("did not end"), "{error}");
        tokio::time::sleep(Duration::from_millis(1300)).await;
        assert!(!mark.exists());
    }

    #[tokio::test]
    async fn a_daemon_that_keeps_the_pipes_open_does_not_keep_us() {
        let watch = Stopwatch::start();
        let done = sh("setsid sleep 5 & echo started", LONG).run().await.unwrap();
        assert_eq!(done.stdout_text().trim(), "started");
        assert!(watch.elapsed() < Duration::from_secs(4));
    }

    #[tokio::test]
    async fn endless_output_is_bounded() {
        let error = sh("yes | head -c 3000000", LONG).limit(1000).run().await.unwrap_err();
        assert!(error.what().contains("more than 1000 bytes"), "{error}");
        let done = sh("yes | head -c 3000000 >&2; echo end >&2", LONG).limit(1000).run().await.unwrap();
        assert_eq!(done.stderr.len(), 1000);
        assert!(done.stderr_text().ends_with("end\n"));
    }
}
