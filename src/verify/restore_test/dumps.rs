//! The latest dump, database by database, by `restore database`'s own way; each is counted, asked and dropped again, so that
//! the largest one says how much room is needed.

use std::sync::Arc;

use super::cluster::Cluster;
use super::{index_of, said};
use crate::codec::Identities;
use crate::error::{Code, Result};
use crate::repository::logical_index::IndexedDatabase;
use crate::restore::database::plan::room_for;
use crate::restore::database::{self, DatabaseRequest, DatabaseTask};
use crate::restore::gather::{Archive, Held};
use crate::restore::logical::Wanted;
use crate::util::human;
use crate::verify::drill::Drill;
use crate::verify::inside::Assertion;
use crate::verify::report::{Check, Report};
use crate::verify::room;

pub(super) async fn restore(
    test: &Drill<'_>,
    archive: &Archive,
    dump: &Held,
    identities: Option<&Identities>,
    cluster: &Cluster,
    report: &mut Report,
) -> Result<()> {
    let of = format!("dump {}", dump.record.id);
    let Some(index) = index_of(archive, dump, identities, &of, report).await else { return Ok(()) };
    for indexed in &index.databases {
        let rows = format!("{} rows in {} tables", indexed.rows(), indexed.tables.len());
        let check = Check::new(&of, format!("database {}", indexed.name), rows).essential();
        let needed = room_for(indexed.tables.iter().map(|t| t.bytes).sum());
        let available = room::available(&test.scratch)?;
        if needed.saturating_add(test.config.proof.reserve) > available {
            let why = format!(
                "the scratch directory has no room for it: about {} needed, {} available, {} to be left free",
                human::size(needed),
                human::size(available),
                human::size(test.config.proof.reserve)
            );
            report.checks.push(check.unproved(why));
            continue;
        }
        one(test, dump, indexed, cluster, check, report).await?;
    }
    Ok(())
}

async fn one(
    test: &Drill<'_>,
    dump: &Held,
    indexed: &IndexedDatabase,
    cluster: &Cluster,
    check: Check,
    report: &mut Report,
) -> Result<()> {
    let target = name_here(&indexed.name);
    let request = DatabaseRequest {
        database: indexed.name.clone(),
        from: Wanted::Id(dump.record.id.clone()),
        zone_assumed: false,
        target: target.clone(),
        replace: false,
        overwrite: false,
        terminate: false,
        globals: true,
        no_owner: false,
        no_tablespaces: true,
        other_cluster: true,
        connection: Some(cluster.conninfo()),
        jobs: None,
    };
    let task = DatabaseTask {
        config: test.config,
        cluster: test.cluster,
        only: test.only,
        request: &request,
        trusted: test.trusted.clone(),
        identities: test.identities.clone(),
        now: test.clock.now(),
        progress: Arc::clone(&test.progress),
        cancel: test.cancel.clone(),
        priority: test.priority(),
    };
    let restored = async {
        let prepared = Box::pin(database::prepare(&task)).await?;
        Box::pin(database::execute(&task, prepared)).await
    };
    let done = match restored.await {
        Ok(done) => done,
        Err(e) if e.code() == Code::Cancelled => return Err(e),
        Err(e) => {
            report.checks.push(check.found(false, said(&e)));
            return Ok(());
        }
    };
    let planned = check.planned.clone();
    let differ: Vec<String> = done.differ.iter().map(ToString::to_string).collect();
    let words = if differ.is_empty() { planned } else { differ.join("\n") };
    report.checks.push(check.found(done.holds(), words));
    report.notes.extend(done.warnings.iter().map(|w| format!("database {}: {w}", indexed.name)));
    let asked = test.assertions().into_iter().filter(|a| a.database == indexed.name);
    for assertion in asked {
        let check =
            Check::new(&format!("dump {}", dump.record.id), format!("assertion {}", assertion.name), "true");
        let session = cluster.connect(&done.database).await?;
        let answer = Assertion(assertion).ask_in(&session, test.config.proof.deadline).await;
        report.checks.push(check.answered(answer));
    }
    cluster.connect("template1").await?.drop_database(&done.database).await
}

/// A fresh cluster has some already.
fn name_here(database: &str) -> String {
    match database {
        "postgres" | "template0" | "template1" => format!("{database}_restored"),
        other => other.to_owned(),
    }
}
