//! Dumps and exports: the role that takes them, and PostgreSQL's programs for them.

use super::Subject;
use super::findings::Findings;
use crate::config::{ClusterConfig, Config, DumpConfig};
use crate::error::Result;
use crate::postgres::dump_roles::MissingRight;
use crate::postgres::dump_tool::DumpTool;
use crate::postgres::{ConnInfo, Session, connect_to, service};

/// What is missing fails the check only where the configuration speaks of dumps.
pub async fn all(subject: &Subject<'_>, findings: &mut Findings) {
    let wanted = wanted(subject.config, subject.cluster);
    let missing = match look(subject).await {
        Ok(missing) => missing,
        Err(error) => return findings.error_if(wanted, "dumps", &error),
    };
    if !wanted && !missing.is_empty() {
        let lacks: Vec<&str> = missing.iter().map(|right| right.what.as_str()).collect();
        return findings.ok("dumps", format!("none are configured; for them: {}", lacks.join("; ")));
    }
    for right in &missing {
        let place = right.database.as_deref().map_or(String::new(), |d| format!(", in database {d}"));
        let hint = format!("as a superuser{place}:\n{};", right.statement);
        findings.fail("dumps", right.what.clone(), hint);
    }
    if missing.is_empty() {
        findings.ok("dumps", "the role may read everything, and pg_dump is of the server's major");
    }
}

/// The configuration speaks of dumps.
fn wanted(config: &Config, cluster: &ClusterConfig) -> bool {
    cluster.dump_connection.is_some() || config.dump != DumpConfig::default()
}

async fn look(subject: &Subject<'_>) -> Result<Vec<MissingRight>> {
    let info = ConnInfo::resolve(subject.cluster.for_dumps())?.with_dbname("postgres");
    let session = connect_to(&info).await?;
    programs(subject, &session).await?;
    let mut missing = session.missing_for_dumps().await?;
    for database in session.all_databases().await? {
        if database.is_template || !database.allows_connections {
            continue;
        }
        // One that we may not enter has been said already.
        let Ok(inside) = connect_to(&info.clone().with_dbname(&database.name)).await else { continue };
        missing.extend(inside.unreadable_large_objects(&database.name).await?);
    }
    Ok(missing)
}

async fn programs(subject: &Subject<'_>, session: &Session) -> Result<()> {
    let running = subject.cluster.data_directory.as_deref().and_then(service::server_program);
    let bin_directory = subject.cluster.bin_directory.as_deref();
    DumpTool::find(session.major(), bin_directory, running.as_deref()).await.map(drop)
}
