//! One base backup of a cluster at a time: an advisory lock on the **primary**, in database `postgres`.
//!
//! A standby's own locks are seen by nobody else, so a backup from a standby takes the primary's. Where the primary
//! cannot be reached from a standby, the lock is taken on the standby itself and the report says that another
//! standby could take a backup meanwhile: two at once cost time, not data.

use crate::config::ClusterConfig;
use crate::error::{Code, Error, Result};
use crate::postgres::{ConnInfo, ServerFacts, Session, connect_to};

/// The numbers that all pgkeep programs agree on: the project's class, and 1 for base backups.
const CLASS: i32 = 1_885_825_904;
const BASE_BACKUP: i32 = 1;

/// Held until it is dropped, with the session that holds it.
pub(super) struct ClusterLock {
    /// On the primary; None when this is a standby whose primary could not be reached.
    pub(super) primary: Option<Session>,
    /// On the standby itself, then.
    _local: Option<Session>,
    /// Why the primary is not the one that is locked.
    pub(super) note: Option<String>,
}

pub(super) async fn take(cluster: &ClusterConfig, facts: &ServerFacts) -> Result<ClusterLock> {
    if !facts.in_recovery {
        let session = connect_to(&ConnInfo::resolve(&cluster.connection)?.with_dbname("postgres")).await?;
        lock(&session).await?;
        return Ok(ClusterLock { primary: Some(session), _local: None, note: None });
    }
    match primary_of(cluster, facts).await {
        Ok(session) => {
            lock(&session).await?;
            Ok(ClusterLock { primary: Some(session), _local: None, note: None })
        }
        // Who wrote `primary` into the configuration wants it used.
        Err(e) if cluster.primary.is_some() => Err(e),
        Err(e) => {
            let session =
                connect_to(&ConnInfo::resolve(&cluster.connection)?.with_dbname("postgres")).await?;
            lock(&session).await?;
            let note = format!(
                "the primary cannot be reached from this standby ({e}): no lock there, and no forced segment switch; \
                 set `primary` under [cluster.{}]",
                cluster.name
            );
            Ok(ClusterLock { primary: None, _local: Some(session), note: Some(note) })
        }
    }
}

/// The primary of a standby: as configured, else as the standby itself follows it.
async fn primary_of(cluster: &ClusterConfig, facts: &ServerFacts) -> Result<Session> {
    let followed = facts.setting("primary_conninfo");
    let text = match &cluster.primary {
        Some(text) => text.as_str(),
        None if !followed.is_empty() => followed,
        None => return Err(Error::new(Code::NotReady, "the standby does not say whom it follows")),
    };
    let mut info = ConnInfo::resolve(text)?.with_dbname("postgres");
    if cluster.primary.is_none() {
        // The replication user of primary_conninfo may do other things than ours.
        info.user = ConnInfo::resolve(&cluster.connection)?.user;
    }
    let session = connect_to(&info).await?;
    let system = session.system_identifier().await?;
    if system != facts.system_identifier {
        return Err(Error::new(
            Code::ForeignCluster,
            format!("the primary has system identifier {system}, this standby {}", facts.system_identifier),
        )
        .at(session.place()));
    }
    if session.is_in_recovery().await? {
        return Err(Error::new(Code::NotReady, "the server named as primary is a standby itself")
            .at(session.place())
            .hint("let `primary` lead to the primary, for example with target_session_attrs=read-write"));
    }
    Ok(session)
}

async fn lock(session: &Session) -> Result<()> {
    if session.try_advisory_lock(CLASS, BASE_BACKUP).await? {
        return Ok(());
    }
    Err(Error::new(Code::Busy, "another base backup of this cluster is running")
        .at(session.place())
        .hint("wait for it; in SQL it is the session that holds advisory lock (1885825904, 1) in pg_locks"))
}
