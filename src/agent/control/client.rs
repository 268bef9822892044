//! The commands' side of the control socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::io::BufReader;
use tokio::net::UnixStream;

use super::{Request, wire};
use crate::error::{Code, Error, Result};

/// Until the agent takes the connection and the request.
const CONNECTING: Duration = Duration::from_secs(5);
/// For what is told and not asked.
const HEARING: Duration = Duration::from_secs(2);

/// A connection to the agent. Requests follow one another.
pub struct Client {
    stream: BufReader<UnixStream>,
    place: String,
}

impl Client {
    /// [`Code::NoAgent`] where none answers.
    pub async fn connect(socket: &Path) -> Result<Self> {
        let connecting = tokio::time::timeout(CONNECTING, UnixStream::connect(socket));
        let stream = connecting
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|e| no_agent(socket, e))?;
        Ok(Self { stream: BufReader::new(stream), place: socket.display().to_string() })
    }

    /// Asks and waits for the answer; `within` bounds the silence before each line.
    pub async fn ask(&mut self, request: &Request, within: Duration) -> Result<Value> {
        self.ask_long(request, within, |_| {}).await
    }

    /// As [`Client::ask`], for what takes long: `progress` is given what the agent says meanwhile.
    pub async fn ask_long(
        &mut self,
        request: &Request,
        within: Duration,
        mut progress: impl FnMut(Value),
    ) -> Result<Value> {
        let request = serde_json::to_value(request)
            .map_err(|e| Error::internal("cannot write the request").because(e))?;
        let sent = wire::write_line(self.stream.get_mut(), &request, CONNECTING).await;
        sent.map_err(|e| self.broken(e))?;
        loop {
            let reading = wire::read_line(&mut self.stream, wire::LONGEST_ANSWER);
            let line = tokio::time::timeout(within, reading).await;
            let line = line.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let line = line.and_then(|line| line.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()));
            let line = line.map_err(|e| self.broken(e))?;
            let mut answer: Value = serde_json::from_slice(&line)
                .map_err(|e| Error::internal("the agent's answer is no JSON").at(&self.place).because(e))?;
            match answer.get_mut("progress") {
                Some(step) => progress(step.take()),
                None => return wire::outcome(answer),
            }
        }
    }

    fn broken(&self, cause: io::Error) -> Error {
        let what = match cause.kind() {
            io::ErrorKind::TimedOut => "the agent does not answer",
            io::ErrorKind::UnexpectedEof => "the agent has ended before it answered",
            _ => "the connection to the agent broke",
        };
        Error::new(Code::NoAgent, what)
            .at(&self.place)
            .because(cause)
            .hint("look at what it says: journalctl -u pgkeep -e")
    }
}

/// Tells an agent, where there is one that hears; nobody depends on it.
pub async fn tell(socket: &Path, request: &Request) {
    let telling = async { Client::connect(socket).await?.ask(request, HEARING).await };
    if !matches!(tokio::time::timeout(HEARING, telling).await, Ok(Ok(_))) {
        tracing::debug!(?request, "no agent was told");
    }
}

fn no_agent(socket: &Path, cause: io::Error) -> Error {
    let denied = cause.kind() == io::ErrorKind::PermissionDenied;
    Error::new(Code::NoAgent, "no agent answers").at(socket.display()).because(cause).hint(if denied {
        "run this as the owner of the data directory or as root: sudo -u postgres pgkeep …"
    } else {
        "start it: systemctl start pgkeep (or `pgkeep agent` in a terminal); `socket` under [agent] says where it listens"
    })
}
