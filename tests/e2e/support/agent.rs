//! The agent of a test: a process of its own, asked over its socket, killed and reloaded at will.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::env::TestEnv;
use super::pgkeep::{Pgkeep, Ran, Running};
use super::wait::{eventually, eventually_some};

/// A debug build on a busy machine.
const START: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_mins(1);
/// No test runs longer.
const LIFE: Duration = Duration::from_hours(1);
/// Longer than the agent gives its tasks.
const END: Duration = Duration::from_secs(40);

/// A running agent. Dropped, it is killed; where the test fails, what it said is shown.
pub struct Agent {
    running: Option<Running>,
    pid: Pid,
    socket: PathBuf,
    log: PathBuf,
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), self.log());
        }
    }
}

impl Agent {
    /// Starts the environment's agent and waits until it answers.
    #[track_caller]
    pub fn start(env: &TestEnv) -> Self {
        Self::start_as(env, &env.pgkeep)
    }
    /// The same with a program of its own making: failpoints, variables, another configuration with the same socket.
    #[track_caller]
    pub fn start_as(env: &TestEnv, pgkeep: &Pgkeep) -> Self {
        Self::launch(env, pgkeep).answering()
    }
    /// Beside the environment's own: another configuration, with the socket `NAME.sock` in the root.
    #[track_caller]
    pub fn start_beside(env: &TestEnv, pgkeep: &Pgkeep, name: &str) -> Self {
        let socket = env.root.join(format!("{name}.sock"));
        Self::launch_at(pgkeep, socket, env.root.join(format!("{name}.agent.log"))).answering()
    }
    #[track_caller]
    fn answering(self) -> Self {
        let agent = self;
        eventually(&format!("the agent answers; it says: {}", agent.log.display()), START, || {
            assert!(agent.is_alive(), "the agent ended before it answered:\n{}", agent.log());
            agent.ping().is_some_and(|answer| answer["pid"] == agent.pid.as_raw())
        });
        agent
    }
    /// Starts it and waits for nothing.
    #[track_caller]
    pub fn launch(env: &TestEnv, pgkeep: &Pgkeep) -> Self {
        Self::launch_at(pgkeep, env.agent_socket(), env.root.join("agent.log"))
    }
    #[track_caller]
    fn launch_at(pgkeep: &Pgkeep, socket: PathBuf, log: PathBuf) -> Self {
        let file = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        let pgkeep = pgkeep.clone().patience(LIFE);
        let running = pgkeep.spawn_logging_to(["agent"], file);
        Self { pid: running.pid(), running: Some(running), socket, log }
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }
    pub fn is_alive(&self) -> bool {
        kill(self.pid, None).is_ok() && self.running.as_ref().is_some_and(Running::is_running)
    }
    /// It has come to a failpoint that says `return(stop)`.
    pub fn is_stopped(&self) -> bool {
        self.running.as_ref().is_some_and(Running::is_stopped)
    }
    /// All that agents of this environment have said on standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
    #[track_caller]
    pub fn wait_log(&self, text: &str, limit: Duration) {
        eventually(&format!("the agent says {text:?}; {}", self.log.display()), limit, || {
            self.log().contains(text)
        });
    }
    /// Sends one request and gives all lines of the answer, the last one last.
    #[track_caller]
    pub fn ask_lines(&self, request: &Value) -> Vec<Value> {
        self.try_ask(request).unwrap_or_else(|e| panic!("{request}: {e}\n{}", self.log()))
    }
    /// The last line of the answer, which must be a yes.
    #[track_caller]
    pub fn ask(&self, request: &Value) -> Value {
        let answer = self.ask_lines(request).pop().unwrap();
        assert_eq!(answer["ok"], true, "{request}: {answer}");
        answer
    }
    fn try_ask(&self, request: &Value) -> std::io::Result<Vec<Value>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(ANSWER))?;
        writeln!(stream, "{request}")?;
        let mut lines = Vec::new();
        for line in BufReader::new(stream).lines() {
            let line: Value = serde_json::from_str(&line?)?;
            let last = line.get("progress").is_none();
            lines.push(line);
            if last {
                return Ok(lines);
            }
        }
        Err(std::io::ErrorKind::UnexpectedEof.into())
    }
    fn ping(&self) -> Option<Value> {
        self.try_ask(&json!({"op": "ping"})).ok()?.pop()
    }
    /// SIGHUP, and waits until the next generation answers.
    #[track_caller]
    pub fn reload(&self) {
        let before = self.ask(&json!({"op": "ping"}))["generation"].as_u64().unwrap();
        self.signal(Signal::SIGHUP);
        eventually_some(&format!("the agent reloads; {}", self.log.display()), START, || {
            self.ping().filter(|answer| answer["generation"].as_u64().is_some_and(|now| now > before))
        });
    }
    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal).unwrap();
    }
    /// SIGKILL; gone when this returns.
    #[track_caller]
    pub fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.running.take().unwrap().wait().was_killed();
    }
    /// SIGTERM, and how it ended.
    #[track_caller]
    pub fn terminate(self) -> Ran {
        self.signal(Signal::SIGTERM);
        self.wait()
    }
    /// How it ended by itself.
    #[track_caller]
    pub fn wait(mut self) -> Ran {
        eventually(&format!("the agent ends; {}", self.log.display()), END, || !self.is_alive());
        self.running.take().unwrap().wait()
    }
    /// Resident bytes now.
    pub fn resident_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }
    /// The most resident bytes so far.
    pub fn peak_bytes(&self) -> u64 {
        self.memory("VmHWM:")
    }
    fn memory(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}
