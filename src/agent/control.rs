//! The control socket: `wal push` and the commands ask the agent here.
//!
//! A stream of lines, one JSON object each. `{"op": "ping"}` is answered by `{"ok": true, …}` or
//! `{"ok": false, "code", "what", "hint"}`; what takes long says `{"progress": …}` before. A connection may ask several
//! things, one after another.
//!
//! Who is answered: root, the agent's own user, and the owner of each cluster's data directory, by the credentials that
//! the kernel vouches for. Bounds: [`CONNECTIONS`] at once, a line's length, a silence, the time to take an answer.
//! Each connection has a task of its own; all end with the generation, after [`FAREWELL`] for what is being answered.
//!
//! A new operation is a variant of [`Request`], a line in [`answer`], and a function where its matter is at home.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::services::Services;
use super::supervisor::Task;
use super::{archiver, jobs, prefetch};
use crate::error::{Code, Error, Result};
use crate::model::{JobName, Timestamp};
use crate::postgres::as_owner;

pub mod client;
mod listener;
pub mod wire;

pub use client::Client;
pub use listener::Listener;

/// More than these wait to be accepted.
const CONNECTIONS: usize = 64;
/// A connection that asks nothing for so long is ended.
const SILENCE: Duration = Duration::from_mins(1);
/// For the other side to take a line.
const TAKING: Duration = Duration::from_secs(10);
/// At the end of a generation, for the request of whoever has just connected.
const GREETING: Duration = Duration::from_secs(2);
/// At the end of a generation, for answers under way.
const FAREWELL: Duration = Duration::from_secs(5);
/// After an accept that failed (no descriptors left): not at once again.
const PAUSE: Duration = Duration::from_millis(200);

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Request {
    /// Who is there, and since when.
    Ping,
    /// Everything on the board.
    Status,
    /// `wal push`: is this file archived?
    Push(archiver::push::Question),
    /// There is a new backup, or a new proof: it is looked for at once.
    BackupNews,
    /// What is wrong now.
    Alerts,
    /// `wal fetch` without a plan: has this segment been received?
    Fetch(prefetch::Question),
    /// The jobs, with so many of their runs.
    Jobs {
        #[serde(default)]
        job: Option<JobName>,
        #[serde(default)]
        history: u32,
    },
    /// Run it now, and say how far it is.
    RunJob { job: JobName },
    /// Say how far the run is that began then; without a moment the one under way.
    WatchJob {
        job: JobName,
        #[serde(default)]
        started_at: Option<Timestamp>,
    },
}

async fn answer(services: &Services, request: Request, replies: &mut Replies) -> Result<Value> {
    match request {
        Request::Ping => Ok(ping(services)),
        Request::Status => Ok(json!({ "snapshot": services.hub.board.snapshot() })),
        Request::BackupNews => {
            services.news.tell();
            Ok(json!({}))
        }
        Request::Push(question) => archiver::push::answer(services, question, replies).await,
        Request::Alerts => Ok(json!({ "alerts": services.hub.board.snapshot().alerts })),
        Request::Fetch(question) => prefetch::answer(services, question, replies).await,
        Request::Jobs { job, history } => jobs::ask::list(services, job.as_ref(), history),
        Request::RunJob { job } => jobs::ask::run(services, &job, replies).await,
        Request::WatchJob { job, started_at } => jobs::ask::watch(services, &job, started_at, replies).await,
    }
}

fn ping(services: &Services) -> Value {
    let now = services.hub.board.snapshot();
    json!({
        "version": now.version,
        "host": now.host,
        "pid": std::process::id(),
        "started_at": now.started_at,
        "generation": services.generation,
    })
}

/// What is said to the asker before the answer.
pub struct Replies {
    write: OwnedWriteHalf,
}

impl Replies {
    /// Says how far the work is. An error when the asker has gone; the work may go on without.
    pub async fn progress(&mut self, step: impl Serialize) -> Result<()> {
        let line = serde_json::to_value(step)
            .map_err(|e| Error::internal("cannot write the progress of a request").because(e))?;
        self.line(&json!({ "progress": line })).await
    }
    async fn line(&mut self, line: &Value) -> Result<()> {
        let gone = |e| Error::new(Code::Cancelled, "the asker has gone").because(e);
        wire::write_line(&mut self.write, line, TAKING).await.map_err(gone)
    }
}

/// Answers until the generation ends.
pub fn task(services: &Services, listener: &Listener) -> Task {
    let (services, listener) = (services.clone(), listener.clone());
    Task::new("control", move || serve(services.clone(), listener.clone()))
}

async fn serve(services: Services, listener: Listener) -> Result<()> {
    let shutdown = services.hub.shutdown.clone();
    let welcome = Arc::new(welcome(&services));
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let permit = tokio::select! {
            () = shutdown.cancelled() => break,
            permit = Arc::clone(&room).acquire_owned() => permit,
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok(stream) => {
                let (services, welcome, shutdown) =
                    (services.clone(), Arc::clone(&welcome), shutdown.clone());
                connections.spawn(async move {
                    let _permit = permit;
                    converse(&services, &welcome, stream, shutdown).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the control socket");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(FAREWELL, all).await;
    Ok(())
}

/// The users who are answered.
fn welcome(services: &Services) -> BTreeSet<u32> {
    let mut users = BTreeSet::from([0, nix::unistd::geteuid().as_raw()]);
    for cluster in &services.hub.config.clusters {
        let owner = as_owner::owner(&cluster.connection, cluster.data_directory.as_deref());
        users.extend(owner.ok().map(|owner| owner.uid.as_raw()));
    }
    users
}

async fn converse(
    services: &Services,
    welcome: &BTreeSet<u32>,
    stream: UnixStream,
    shutdown: CancellationToken,
) {
    let user = stream.peer_cred().map(|peer| peer.uid());
    let (read, write) = stream.into_split();
    let (mut read, mut replies) = (BufReader::new(read), Replies { write });
    if !user.as_ref().is_ok_and(|user| welcome.contains(user)) {
        tracing::warn!(?user, "refused a user on the control socket");
        let _ = replies.line(&wire::failure(&refused())).await;
        return;
    }
    let mut has_asked = false;
    loop {
        let reading = tokio::time::timeout(SILENCE, wire::read_line(&mut read, wire::LONGEST_REQUEST));
        tokio::pin!(reading);
        let line = tokio::select! {
            biased;
            line = &mut reading => line,
            () = shutdown.cancelled() => {
                if has_asked {
                    return;
                }
                // Who came in the moment of a reload is about to ask, and would be turned away without a word.
                match tokio::time::timeout(GREETING, reading).await {
                    Ok(line) => line,
                    Err(_) => return,
                }
            }
        };
        has_asked = true;
        let answered = match line {
            // Silent for too long, or ended.
            Err(_) | Ok(Ok(None)) => return,
            Ok(Ok(Some(line))) => respond(services, &line, &mut replies).await,
            Ok(Err(e)) => {
                let error = Error::new(Code::Usage, "cannot read the request").because(e);
                let _ = replies.line(&wire::failure(&error)).await;
                return;
            }
        };
        if let Err(error) = answered {
            tracing::debug!(%error, "an answer was not taken");
            return;
        }
    }
}

async fn respond(services: &Services, line: &[u8], replies: &mut Replies) -> Result<()> {
    let asked = serde_json::from_slice::<Request>(line).map_err(|e| {
        Error::new(Code::Usage, "the agent does not know this request").because(e).hint(
            "the agent and this command are of different versions: restart the agent after an upgrade (systemctl \
             restart pgkeep)",
        )
    });
    let answered = match asked {
        Ok(request) => answer(services, request, replies).await,
        Err(e) => Err(e),
    };
    replies.line(&answered.map_or_else(|e| wire::failure(&e), wire::success)).await
}

fn refused() -> Error {
    Error::new(
        Code::Refused,
        "the agent answers only root, its own user and the owners of its data directories",
    )
    .hint("sudo -u postgres pgkeep …")
}
