//! What is asked of a restored instance: by its own rows and counters, by PostgreSQL's programs, by the user.
//!
//! The instance is ours alone and goes away afterwards, so it may be changed. Order: what only reads, then `pg_amcheck`
//! (it installs its extension), then the server is stopped and `pg_checksums` reads every page.
//!
//! A question that proves something from inside is an [`Inside`]; a new one is one more in [`questions`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::report::Check;
use crate::config::{AssertionConfig, ProofConfig};
use crate::error::Result;
use crate::postgres::connect_to;
use crate::postgres::conninfo::ConnInfo;
use crate::postgres::instance::{Instance, StopMode};
use crate::postgres::privilege::Owner;
use crate::postgres::proof::{self, Checked};
use crate::postgres::session::Session;
use crate::postgres::tools::Tools;
use crate::restore::plan::Commit;
use crate::util::progress::Progress;

const STOPS_WITHIN: Duration = Duration::from_mins(10);

/// A restored instance that runs.
pub struct Running {
    pub tools: Tools,
    pub owner: Owner,
    pub data: PathBuf,
    pub socket: PathBuf,
    pub port: u16,
    pub superuser: String,
    pub log: PathBuf,
}

impl Running {
    pub async fn connect(&self, database: &str) -> Result<Session> {
        connect_to(&ConnInfo::socket(&self.socket, self.port, &self.superuser, database)).await
    }
}

/// A question to the instance.
#[async_trait]
pub trait Inside: Send + Sync {
    /// What is asked, with what is expected.
    fn check(&self) -> Check;
    /// Whether it holds, and what was found. An error is an answer too: it does not hold.
    async fn ask(&self, running: &Running, within: Duration) -> Result<(bool, String)>;
}

/// The last commit that the plan keeps is there as a committed transaction.
pub struct LastCommit(pub Commit);

#[async_trait]
impl Inside for LastCommit {
    fn check(&self) -> Check {
        let of = format!("committed, at {}", self.0.at.postgres());
        Check::new("recovery", format!("transaction {}", self.0.xid), of)
    }
    async fn ask(&self, running: &Running, _: Duration) -> Result<(bool, String)> {
        let session = running.connect("template1").await?;
        let found = session.transaction_status(self.0.xid).await?;
        Ok((
            found.as_deref() == Some("committed"),
            found.unwrap_or_else(|| "not known to the server".to_owned()),
        ))
    }
}

/// The user's own.
pub struct Assertion(pub AssertionConfig);

#[async_trait]
impl Inside for Assertion {
    fn check(&self) -> Check {
        Check::new("assertion", self.0.name.clone(), "true")
    }
    async fn ask(&self, running: &Running, within: Duration) -> Result<(bool, String)> {
        self.ask_in(&running.connect(&self.0.database).await?, within).await
    }
}

impl Assertion {
    /// The same in a session with its database, whatever that is called there.
    pub async fn ask_in(&self, session: &Session, within: Duration) -> Result<(bool, String)> {
        let said = session.assertion(&self.0.sql, within).await?;
        let words = said.map_or_else(|| "null".to_owned(), |truth| truth.to_string());
        Ok((said == Some(true), words))
    }
}

/// Everything that is asked of an instance of this cluster.
pub fn questions(last_kept: Option<Commit>, assertions: &[AssertionConfig]) -> Vec<Box<dyn Inside>> {
    let mut all: Vec<Box<dyn Inside>> = Vec::new();
    all.extend(last_kept.map(|commit| Box::new(LastCommit(commit)) as Box<dyn Inside>));
    all.extend(assertions.iter().map(|a| Box::new(Assertion(a.clone())) as Box<dyn Inside>));
    all
}

pub async fn ask(running: &Running, questions: &[Box<dyn Inside>], within: Duration) -> Vec<Check> {
    let mut answers = Vec::with_capacity(questions.len());
    for question in questions {
        let check = question.check();
        answers.push(check.answered(question.ask(running, within).await));
    }
    answers
}

/// What is looked at: every database, or those that were restored.
pub const ALL: &str = "";
pub const RESTORED: &str = " of what was restored";

/// `pg_amcheck`, where it is wanted.
pub async fn amcheck(
    running: &Running,
    of: &str,
    config: &ProofConfig,
    progress: &Arc<dyn Progress>,
) -> Check {
    let name = format!("pg_amcheck of all tables and indexes{of}");
    let check = Check::new("instance", name, "nothing is wrong");
    if !config.amcheck {
        return check.unproved("`amcheck` is off in [proof]");
    }
    progress.phase("checking tables and indexes");
    let Running { tools, owner, socket, port, superuser, .. } = running;
    said(check, proof::amcheck(tools, owner, socket, *port, superuser, config.deadline).await)
}

/// Stops the server in order.
pub async fn stop(running: &Running) -> Result<()> {
    let mut server = Instance::running(&running.tools, &running.data, &running.owner, &running.log);
    server.stop(StopMode::Fast, STOPS_WITHIN).await
}

/// Reads every page. The server is down.
pub async fn checksums(
    running: &Running,
    of: &str,
    config: &ProofConfig,
    progress: &Arc<dyn Progress>,
) -> Check {
    let check = Check::new("instance", format!("data checksums of all pages{of}"), "no page is wrong");
    progress.phase("checking data checksums");
    said(check, proof::checksums(&running.tools, &running.owner, &running.data, config.deadline).await)
}

fn said(check: Check, checked: Result<Checked>) -> Check {
    match checked {
        Ok(Checked::Sound) => check.found(true, "nothing is wrong"),
        Ok(Checked::Damaged(lines)) => check.found(false, lines.join("\n")),
        Ok(Checked::Impossible(why)) => check.unproved(why),
        Err(e) => check.found(false, e.to_string()),
    }
}
