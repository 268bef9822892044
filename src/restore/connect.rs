//! Connections to a server that was just restored: which roles it has depends on the moment it was restored to.

use std::path::Path;

use super::plan::RestorePlan;
use super::prepare::Task;
use crate::config::ClusterConfig;
use crate::postgres::conninfo::ConnInfo;
use crate::postgres::privilege::Owner;
use crate::postgres::service::PidFile;
use crate::postgres::session::Session;

/// A session with the server of a restore, as whoever is let in.
pub async fn any(task: &Task<'_>, plan: &RestorePlan) -> Option<Session> {
    to(&task.data_directory, task.cluster, &task.owner, plan.place.in_place).await
}

/// Through the socket of this very data directory, else (in place) through the configured connection, if that leads to
/// it. None when nobody is let in.
pub async fn to(
    data_directory: &Path,
    cluster: &ClusterConfig,
    owner: &Owner,
    in_place: bool,
) -> Option<Session> {
    if let Some(session) = through_socket(data_directory, cluster, owner).await {
        return Some(session);
    }
    if !in_place {
        return None;
    }
    let session = crate::postgres::connect(&cluster.connection).await.ok()?;
    let facts = session.facts().await.ok()?;
    // Another server may listen where this cluster is expected.
    (facts.data_directory == data_directory).then_some(session)
}

async fn through_socket(data_directory: &Path, cluster: &ClusterConfig, owner: &Owner) -> Option<Session> {
    let file = PidFile::read(data_directory).ok().flatten()?;
    let socket = data_directory.join(file.socket_dir?);
    for user in users(cluster, owner) {
        for database in ["postgres", "template1"] {
            let info = ConnInfo::socket(&socket, file.port, &user, database);
            if let Ok(session) = crate::postgres::connect_to(&info).await {
                return Some(session);
            }
        }
    }
    None
}

/// `postgres`, the role that is called as the owner, the configured role: those with most rights first.
pub fn users(cluster: &ClusterConfig, owner: &Owner) -> Vec<String> {
    let mut users = vec!["postgres".to_owned()];
    let configured = ConnInfo::resolve(&cluster.connection).ok().map(|info| info.user);
    for user in [Some(owner.label()), configured].into_iter().flatten() {
        if !users.contains(&user) {
            users.push(user);
        }
    }
    users
}
