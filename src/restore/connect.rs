//! Connections to a server that was just restored: which roles it has depends on the moment it was restored to.

use super::plan::RestorePlan;
use super::prepare::Task;
use crate::postgres::conninfo::ConnInfo;
use crate::postgres::service::PidFile;
use crate::postgres::session::Session;

/// A session as whoever is let in: through the socket of this very data directory, else (in place) through the configured
/// connection, if that leads to it. None when nobody is.
pub async fn any(task: &Task<'_>, plan: &RestorePlan) -> Option<Session> {
    if let Some(session) = through_socket(task).await {
        return Some(session);
    }
    if !plan.place.in_place {
        return None;
    }
    let session = crate::postgres::connect(&task.cluster.connection).await.ok()?;
    let facts = session.facts().await.ok()?;
    // Another server may listen where this cluster is expected.
    (facts.data_directory == task.data_directory).then_some(session)
}

async fn through_socket(task: &Task<'_>) -> Option<Session> {
    let file = PidFile::read(&task.data_directory).ok().flatten()?;
    let socket = task.data_directory.join(file.socket_dir?);
    for user in users(task) {
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
pub fn users(task: &Task<'_>) -> Vec<String> {
    let mut users = vec!["postgres".to_owned()];
    let configured = ConnInfo::resolve(&task.cluster.connection).ok().map(|info| info.user);
    for user in [Some(task.owner.label()), configured].into_iter().flatten() {
        if !users.contains(&user) {
            users.push(user);
        }
    }
    users
}
