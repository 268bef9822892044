//! The control socket's `push`: what `wal push` asks instead of doing the work itself.
//!
//! The answer is one of three: `archived` with what there is to say about it, a durable fact; `refused` with the error
//! that a push of one's own would have met; `declined`: this agent has nothing to say about this file, push it yourself.
//! While the file is under way the asker hears of it every [`HEARTBEAT`], so that an agent that hangs is told from one
//! that works.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::scan::{Identity, path_of};
use super::{Archivers, Ask, Door};
use crate::agent::control::Replies;
use crate::agent::control::wire::failure;
use crate::agent::services::Services;
use crate::archive::push::Fingerprint;
use crate::error::{Error, Result};
use crate::model::{ClusterName, Lsn, SystemId, WalFileName};
use crate::postgres::control_file::ControlFile;
use crate::repository::wal_object::blocking;

/// How often the asker hears that the work goes on.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// `--cluster`
    #[serde(default)]
    pub cluster: Option<ClusterName>,
    /// PostgreSQL's working directory.
    pub data_directory: String,
    /// `%p`, relative to it.
    pub path: String,
}

/// What is answered, besides `ok`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    Archived(Archived),
    /// As `control::wire` writes errors.
    Refused(Value),
    Declined(String),
}

/// The file is durable in every required repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archived {
    pub name: String,
    /// Where its records end to be readable, and why.
    #[serde(default)]
    pub damage: Option<(Lsn, String)>,
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A file of one of our clusters, as it lies there now.
struct Asked {
    door: Door,
    system: SystemId,
    name: WalFileName,
    fingerprint: Fingerprint,
}

pub async fn answer(services: &Services, question: Question, replies: &mut Replies) -> Result<Value> {
    let archivers = services.archivers.clone();
    let recognised = blocking(move || Ok(recognise(&archivers, &question))).await?;
    let answer = match recognised {
        Ok(asked) => wait(asked, replies).await?,
        Err(why) => Answer::Declined(why),
    };
    serde_json::to_value(answer).map_err(|e| Error::internal("cannot write an answer").because(e))
}

/// Which cluster's file it is; or why this is none that this agent can speak of. Blocks.
fn recognise(archivers: &Archivers, question: &Question) -> Result<Asked, String> {
    let data_directory = Path::new(&question.data_directory);
    let door = archivers.door_at(data_directory, question.cluster.as_ref());
    let door = door.ok_or("the data directory is none of this agent's clusters'")?;
    let path = data_directory.join(&question.path);
    let name = path.file_name().and_then(|name| name.to_str()).and_then(WalFileName::parse);
    let name = name.ok_or("this is no WAL file")?;
    let usual = path_of(data_directory, name);
    let directory = |path: &Path| path.parent().and_then(Identity::at);
    if path != usual && directory(&path) != directory(&usual) {
        return Err("the file does not lie in pg_wal".to_owned());
    }
    let meta = std::fs::metadata(&usual).map_err(|e| format!("the file cannot be seen: {e}"))?;
    let control = ControlFile::read(data_directory).map_err(|e| e.to_string())?;
    Ok(Asked { door: door.clone(), system: control.system, name, fingerprint: Fingerprint::of(&meta) })
}

async fn wait(asked: Asked, replies: &mut Replies) -> Result<Answer> {
    let Asked { door, system, name, fingerprint } = asked;
    let (reply, mut told) = oneshot::channel();
    if door.asks.send(Ask { system, name, fingerprint, reply }).await.is_err() {
        return Ok(Answer::Declined("the archiver has ended".to_owned()));
    }
    loop {
        match tokio::time::timeout(HEARTBEAT, &mut told).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(_)) => return Ok(Answer::Declined("the archiver begins anew".to_owned())),
            Err(_) => replies.progress(json!({ "shipping": name.to_string() })).await?,
        }
    }
}

impl Answer {
    pub(super) fn refusal(error: &Error) -> Self {
        Self::Refused(failure(error))
    }
}
