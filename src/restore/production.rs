//! The server that rows come back into: which one it is, and whether it is the right one.

use std::path::Path;

use crate::config::ClusterConfig;
use crate::error::{Code, Error, Result};
use crate::model::{PgMajor, SystemId};
use crate::postgres::connect_to;
use crate::postgres::conninfo::ConnInfo;
use crate::postgres::session::Session;

/// A session with it, and what a person must see before anything is changed there.
pub struct Production {
    pub info: ConnInfo,
    pub session: Session,
    pub system: SystemId,
    pub major: PgMajor,
}

impl Production {
    /// Through `connection`, else the cluster's own, into `database`.
    pub async fn connect(cluster: &ClusterConfig, connection: Option<&str>, database: &str) -> Result<Self> {
        let info = info(cluster, connection)?.with_dbname(database);
        let session = connect_to(&info).await?;
        if session.is_in_recovery().await? {
            return Err(Error::new(Code::Refused, "this server is a standby: nothing can be written there")
                .at(info.place())
                .hint("give the primary's with --connection \"host=… user=…\""));
        }
        let (system, major) = (session.system_identifier().await?, session.major());
        Ok(Self { info, session, system, major })
    }

    /// The same with a fresh session. It must still be the same server.
    pub async fn anew(self) -> Result<Self> {
        let Self { info, session, system, major } = self;
        // First: its locks, if it still has any, would be in our own way.
        drop(session);
        Self::known(info, system, major).await
    }

    /// The server that was seen before.
    pub async fn known(info: ConnInfo, system: SystemId, major: PgMajor) -> Result<Self> {
        let session = connect_to(&info).await?;
        if session.system_identifier().await? != system {
            let what = "another server answers there now";
            return Err(Error::new(Code::ForeignCluster, what).at(info.place()));
        }
        Ok(Self { info, session, system, major })
    }

    /// One more session of the same kind.
    pub async fn another(&self) -> Result<Session> {
        connect_to(&self.info).await
    }

    /// Refuses a server that is not of the cluster that was backed up.
    pub fn refuse_other(&self, backed_up: SystemId, allowed: bool) -> Result<()> {
        if self.system == backed_up || allowed {
            return Ok(());
        }
        Err(Error::new(
            Code::ForeignCluster,
            format!("this server has system identifier {}, the backup is of {backed_up}", self.system),
        )
        .at(self.info.place())
        .hint("check the host and the cluster; if this is where it shall go, add --into-another-cluster")
        .see("table-dropped-or-damaged.md"))
    }
}

/// The connection that is meant. A password has no place in it, as in the configuration.
pub fn info(cluster: &ClusterConfig, connection: Option<&str>) -> Result<ConnInfo> {
    ConnInfo::resolve(connection.unwrap_or(&cluster.connection))
}

/// The database of the cluster's own connection.
pub fn usual_database(cluster: &ClusterConfig) -> Result<String> {
    ConnInfo::resolve(&cluster.connection).map(|info| info.dbname)
}

/// The directory for side and scratch instances: the configured one, else one in the state directory.
pub fn scratch_directory(config: &crate::config::Config, given: Option<&Path>) -> std::path::PathBuf {
    let usual = || config.state_directory.join("scratch");
    given.map(Path::to_path_buf).or_else(|| config.restore.scratch_directory.clone()).unwrap_or_else(usual)
}
