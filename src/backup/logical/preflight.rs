//! What must be right before anything is read: keys, server, programs, repositories, the lock.

use std::sync::Arc;

use super::{LogicalRequest, selection};
use crate::backup::preflight::{self, Keys};
use crate::backup::targets::Targets;
use crate::error::{Code, Error, Result};
use crate::model::{BackupKind, SystemId};
use crate::postgres::dump_tool::DumpTool;
use crate::postgres::session::{LOCK_CLASS, LOCK_DUMP, LOCK_SCHEMA, LOCK_TABLES};
use crate::postgres::user_tables::Database;
use crate::postgres::{ConnInfo, Session, connect_to, service};
use crate::repository::open;

/// Everything that a logical backup works with.
pub(super) struct Ready {
    pub(super) keys: Keys,
    pub(super) targets: Arc<Targets>,
    /// Holds the lock, unless the primary's does, and tells the server's clock and place in WAL.
    pub(super) session: Session,
    /// Holds the lock for a standby.
    _primary: Option<Session>,
    pub(super) system: SystemId,
    pub(super) tool: DumpTool,
    /// To the database `postgres`.
    pub(super) info: ConnInfo,
    pub(super) databases: Vec<Database>,
    pub(super) notes: Vec<String>,
}

pub(super) async fn run(request: &LogicalRequest<'_>, writers: usize) -> Result<Ready> {
    let config = request.config;
    let (keys, no_metadata_key) = Keys::open(config)?;
    let mut notes = Vec::new();
    if no_metadata_key {
        notes.push(
            "this host has no metadata key: it cannot read the index (`pgkeep init` makes one)".to_owned(),
        );
    }
    request.progress.phase("checking the server and the repositories");
    let info = ConnInfo::resolve(request.cluster.for_dumps())?.with_dbname("postgres");
    let session = connect_to(&info).await?;
    let system = session.system_identifier().await?;
    // Where the server is on this host and lets us know.
    let data_directory = match &request.cluster.data_directory {
        Some(directory) => Some(directory.clone()),
        None => session.setting("data_directory").await.ok().flatten().map(Into::into),
    };
    let running = data_directory.as_deref().and_then(service::server_program);
    let bin_directory = request.cluster.bin_directory.as_deref();
    let tool = DumpTool::find(session.major(), bin_directory, running.as_deref()).await?;

    let targets = preflight::open_targets(config, request.only, writers).await?;
    for repository in targets.current() {
        match open::system(&repository, &request.cluster.name, system).await {
            Ok(known) if known.pg_major == session.major() => {}
            Ok(known) => {
                let what =
                    format!("the repository knows this system identifier as PostgreSQL {}", known.pg_major);
                let error = Error::new(Code::ForeignCluster, what).at(repository.storage.location());
                return Err(error.hint("after an upgrade: `pgkeep init` makes the new major known"));
            }
            Err(e) if repository.required => return Err(e),
            Err(e) => targets.drop_out(&repository.name, e),
        }
    }
    let kind = request.work.kind();
    let primary =
        if session.is_in_recovery().await? { primary(request, system, &mut notes).await? } else { None };
    lock(primary.as_ref().unwrap_or(&session), kind).await?;
    if let Some(still_wanted) = &request.still_wanted {
        still_wanted().await?;
    }
    preflight::leftovers(&request.cluster.name, &targets, |other| other == kind, &mut notes).await?;
    preflight::sweep(&targets, &mut notes).await;
    let wanted = if request.databases.is_empty() { &config.dump.databases } else { &request.databases };
    let all = session.all_databases().await?;
    let databases = selection::databases(&all, wanted)?.into_iter().cloned().collect();
    let targets = Arc::new(targets);
    Ok(Ready { keys, targets, session, _primary: primary, system, tool, info, databases, notes })
}

/// A standby's own locks are seen by nobody else. A primary that is down is no reason not to dump its standby.
async fn primary(
    request: &LogicalRequest<'_>,
    system: SystemId,
    notes: &mut Vec<String>,
) -> Result<Option<Session>> {
    let name = &request.cluster.name;
    let Some(primary) = &request.cluster.primary else {
        notes.push(format!(
            "`primary` is not set under [cluster.{name}]: whether another host does the same was not asked"
        ));
        return Ok(None);
    };
    let reached = async {
        let session = connect_to(&ConnInfo::resolve(primary)?.with_dbname("postgres")).await?;
        let theirs = session.system_identifier().await?;
        Ok::<_, Error>((session, theirs))
    };
    match reached.await {
        Ok((session, theirs)) if theirs == system => Ok(Some(session)),
        Ok((session, theirs)) => {
            let what = format!("the primary has system identifier {theirs}, this standby {system}");
            Err(Error::new(Code::ForeignCluster, what).at(session.place()))
        }
        Err(e) => {
            notes.push(format!("the primary was not asked whether another host does the same: {e}"));
            Ok(None)
        }
    }
}

async fn lock(session: &Session, kind: BackupKind) -> Result<()> {
    let number = match kind {
        BackupKind::Schema => LOCK_SCHEMA,
        BackupKind::Tables => LOCK_TABLES,
        _ => LOCK_DUMP,
    };
    if session.try_advisory_lock(LOCK_CLASS, number).await? {
        return Ok(());
    }
    Err(Error::new(Code::Busy, format!("another `{kind}` of this cluster is running"))
        .at(session.place())
        .hint(format!(
            "wait for it; in SQL it is the session that holds advisory lock ({LOCK_CLASS}, {number}) in pg_locks"
        )))
}
