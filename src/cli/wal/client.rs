//! `wal push` with an agent: a question over its socket and the answer, nothing else. PostgreSQL starts a process for
//! every segment, so this one loads no runtime, no store's SDK, no log, and not even the command line's reader where the
//! line is the plain one that `init` writes.
//!
//! Only a clear answer of the agent counts. Everything else (nobody listens, it dies on the way, it is silent for
//! [`SILENCE`], it declines, it speaks of something else) leaves the work to this process (promise 11).

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt::SendTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};
use serde_json::Value;

use crate::agent::archiver::push::{Answer, Archived, Question};
use crate::agent::control::{Request, wire};
use crate::cli::args::DEFAULT_CONFIG;
use crate::error::{Code, Error, Result};
use crate::model::ClusterName;
use crate::util::clock::Deadline;

pub mod fetch;

/// An agent that works is heard every second.
const SILENCE: Duration = Duration::from_secs(5);
const LONGEST_ANSWER: u64 = 1 << 20;

/// `pgkeep [--config FILE] [--cluster NAME] wal push PATH` without anything else.
#[derive(Debug, PartialEq, Eq)]
pub struct PlainPush {
    pub config: PathBuf,
    pub cluster: Option<ClusterName>,
    pub path: PathBuf,
}

impl PlainPush {
    /// None: whatever it is, it is read in earnest.
    pub fn recognise(argv: &[OsString], environment: Option<OsString>) -> Option<Self> {
        let (mut config, mut cluster, mut words) = (None, None, Vec::new());
        let mut rest = argv.iter().skip(1);
        while let Some(word) = rest.next() {
            let text = word.to_str()?;
            if let Some(option) = text.strip_prefix("--") {
                let (name, value) = match option.split_once('=') {
                    Some((name, value)) => (name, OsString::from(value)),
                    None => (option, rest.next()?.clone()),
                };
                let slot = match name {
                    "config" => &mut config,
                    "cluster" => &mut cluster,
                    _ => return None,
                };
                if value.is_empty() || slot.replace(value).is_some() {
                    return None;
                }
            } else if text.starts_with('-') || text.is_empty() {
                return None;
            } else {
                words.push(text);
            }
        }
        let ["wal", "push", path] = words.as_slice() else { return None };
        let cluster = match cluster {
            Some(name) => Some(ClusterName::parse(name.to_str()?)?),
            None => None,
        };
        let config = config.or(environment).unwrap_or_else(|| DEFAULT_CONFIG.into());
        let config = PathBuf::from(config);
        let config = std::path::absolute(&config).unwrap_or(config);
        Some(Self { config, cluster, path: PathBuf::from(path) })
    }
}

/// What the agent made of it.
pub enum Asked {
    Archived(Archived),
    /// As a push of our own would have failed.
    Refused(Error),
    /// To be done by this process. With what is to be said about the agent.
    NotAnswered(Option<String>),
}

/// Asks the agent that listens at `socket`. Takes no longer than `within`, the deadline of a push.
pub fn ask(
    agent: &Path,
    cluster: Option<&ClusterName>,
    data_directory: &Path,
    path: &Path,
    within: Duration,
) -> Asked {
    let (Some(data_directory), Some(path)) = (data_directory.to_str(), path.to_str()) else {
        return Asked::NotAnswered(None);
    };
    let question = Request::Push(Question {
        cluster: cluster.cloned(),
        data_directory: data_directory.to_owned(),
        path: path.to_owned(),
    });
    let deadline = Deadline::after(within);
    let Ok(stream) = knock(agent) else { return Asked::NotAnswered(None) };
    match converse(stream, &question, deadline) {
        Ok(answer) => understood(answer),
        Err(e) if deadline.passed() => Asked::Refused(crate::archive::push::too_slow(within).because(e)),
        Err(e) => Asked::NotAnswered(Some(format!("the agent does not answer ({e}): archiving without it"))),
    }
}

/// std's `connect` would wait for ever for an agent that no longer accepts.
fn knock(agent: &Path) -> io::Result<UnixStream> {
    let fd: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let limit = TimeVal::seconds(i64::try_from(SILENCE.as_secs()).unwrap_or(i64::MAX));
    setsockopt(&fd, SendTimeout, &limit)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(agent)?)?;
    Ok(UnixStream::from(fd))
}

fn converse(mut stream: UnixStream, question: &Request, deadline: Deadline) -> io::Result<Value> {
    let mut line = serde_json::to_vec(question)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answers = BufReader::new(stream);
    loop {
        let left = deadline.left().min(SILENCE).max(Duration::from_millis(1));
        answers.get_ref().set_read_timeout(Some(left))?;
        line.clear();
        if (&mut answers).take(LONGEST_ANSWER).read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let answer: Value = serde_json::from_slice(&line)?;
        if answer.get("progress").is_none() {
            return Ok(answer);
        }
        if deadline.passed() {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

fn understood(answer: Value) -> Asked {
    // An agent that does not know the question, or us, has no answer for PostgreSQL.
    let Ok(answer) = wire::outcome(answer) else { return Asked::NotAnswered(None) };
    match serde_json::from_value(answer) {
        Ok(Answer::Archived(archived)) => Asked::Archived(archived),
        Ok(Answer::Refused(error)) => match wire::outcome(error) {
            Err(error) => Asked::Refused(error),
            Ok(_) => Asked::NotAnswered(None),
        },
        Ok(Answer::Declined(_)) | Err(_) => Asked::NotAnswered(None),
    }
}

/// The working directory, which for PostgreSQL's commands is the data directory.
pub fn working_directory() -> Result<PathBuf> {
    std::env::current_dir()
        .map_err(|e| Error::new(Code::Io, "cannot find the working directory").at(".").because(e))
}

/// The variable that names the configuration, as the command line's reader takes it.
pub fn config_variable() -> Option<OsString> {
    std::env::var_os("PGKEEP_CONFIG").filter(|value| value != OsStr::new(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recognise(line: &str) -> Option<PlainPush> {
        let argv: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        PlainPush::recognise(&argv, None)
    }

    #[test]
    fn only_the_plain_line_is_recognised_and_as_the_reader_would_read_it() {
        let plain = |config: &str, cluster: Option<&str>| {
            let cluster = cluster.map(|name| ClusterName::parse(name).unwrap());
            Some(PlainPush { config: config.into(), cluster, path: "pg_wal/X".into() })
        };
        assert_eq!(recognise("pgkeep wal push pg_wal/X"), plain(DEFAULT_CONFIG, None));
        let with_both = plain("/c.toml", Some("main"));
        assert_eq!(recognise("pgkeep --config /c.toml --cluster main wal push pg_wal/X"), with_both);
        assert_eq!(recognise("pgkeep wal --config=/c.toml push pg_wal/X --cluster=main"), with_both);
        for other in [
            "pgkeep",
            "pgkeep wal push",
            "pgkeep wal push a b",
            "pgkeep wal push --repo eu pg_wal/X",
            "pgkeep -v wal push pg_wal/X",
            "pgkeep --config wal push pg_wal/X",
            "pgkeep --cluster NO! wal push pg_wal/X",
            "pgkeep --config /a --config /b wal push pg_wal/X",
            "pgkeep wal push -- pg_wal/X",
            "pgkeep wal push --help",
            "pgkeep wal fetch X Y",
        ] {
            assert_eq!(recognise(other), None, "{other}");
        }
    }

    #[test]
    fn nobody_listening_and_an_answer_of_something_else_leave_the_work_to_us() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let asked = || ask(&socket, None, dir.path(), Path::new("pg_wal/X"), Duration::from_secs(5));
        assert!(matches!(asked(), Asked::NotAnswered(None)));
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for (line, clear) in [
            ("{\"ok\":false,\"code\":\"usage\",\"what\":\"?\"}", false),
            ("{\"ok\":true,\"pid\":7}", false),
            ("{\"ok\":true,\"declined\":\"not mine\"}", false),
            ("not json", false),
            ("", false),
            ("{\"progress\":{}}\n{\"ok\":true,\"archived\":{\"name\":\"X\"}}", true),
            ("{\"ok\":true,\"refused\":{\"ok\":false,\"code\":\"wal-conflict\",\"what\":\"no\"}}", true),
        ] {
            let answering = std::thread::scope(|scope| {
                scope.spawn(|| {
                    let (stream, _) = listener.accept().unwrap();
                    let mut asked = String::new();
                    BufReader::new(&stream).read_line(&mut asked).unwrap();
                    assert!(asked.contains("\"op\":\"push\""), "{asked}");
                    (&stream).write_all(format!("{line}\n").as_bytes()).unwrap();
                });
                asked()
            });
            assert_eq!(!matches!(answering, Asked::NotAnswered(_)), clear, "{line}");
        }
    }
}
