//! After the recovery: settings cleared, the new timeline archived before success is reported, the result held against
//! the plan, the report written.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use super::connect;
use super::new_timeline::NewTimeline;
use super::plan::RestorePlan;
use super::prepare::{Prepared, Task};
use super::recover::Ended;
use super::report::{Proof, Report};
use crate::error::Result;
use crate::model::{Lsn, TimelineId};
use crate::postgres::session::Session;
use crate::postgres::settings as conf;
use crate::repository::recovery_plan::FILE_NAME as PLAN_FILE;
use crate::repository::{Repository, access, documents, reports};
use crate::util::durable;

/// How far apart the times of two records may be in the wrong order.
const CLOCK_RACE: Duration = Duration::from_secs(1);

/// Takes the plan out of force and the recovery settings out of the configuration: the next recovery is another one.
pub fn clear_recovery(data_directory: &std::path::Path) -> Result<()> {
    conf::clear_file(&data_directory.join("postgresql.auto.conf"), &conf::RECOVERY_SETTINGS, "recovery")?;
    durable::remove_file(&data_directory.join(PLAN_FILE))
}

/// What is left to do once recovery has ended, and what is proved.
pub async fn run(task: &Task<'_>, prepared: &Prepared, report: &mut Report) -> Result<()> {
    let plan = &prepared.plan;
    match report.ended.clone() {
        Ended::Promoted { timeline, fork } => {
            clear_recovery(&task.data_directory)?;
            let session = connect::any(task, plan).await;
            prove(prepared, report, timeline, fork, session.as_ref()).await?;
            if plan.place.in_place {
                let new = NewTimeline {
                    data_directory: &task.data_directory,
                    repositories: &prepared.archive.repositories,
                    root: &prepared.wal.root,
                    size: prepared.held.record.base()?.wal_segment_bytes,
                    timeline,
                    fork,
                    progress: &*task.progress,
                };
                report.notes.extend(new.archive(session).await?);
            }
        }
        Ended::Paused => {
            let session = connect::any(task, plan).await;
            if let Some(session) = &session {
                prove_last_commit(plan, report, session).await?;
            }
        }
        Ended::NotStarted | Ended::ShutDown | Ended::Following => {}
    }
    if !plan.place.in_place {
        side_lines(task, plan, report);
    }
    Ok(())
}

async fn prove(
    prepared: &Prepared,
    report: &mut Report,
    timeline: TimelineId,
    fork: Lsn,
    session: Option<&Session>,
) -> Result<()> {
    let plan = &prepared.plan;
    let end = plan.target.end;
    report.proofs.push(Proof {
        what: "end of recovery".to_owned(),
        planned: end.to_string(),
        found: fork.to_string(),
        holds: fork == end,
    });
    let highest = plan.recovery.as_ref().map_or(plan.target.timeline, |r| r.highest_timeline);
    report.proofs.push(Proof {
        what: "new timeline".to_owned(),
        planned: format!("above {highest}"),
        found: timeline.to_string(),
        holds: timeline > highest,
    });
    if let Some(session) = session {
        let waiting = session.prepared_transactions().await?;
        if waiting > 0 {
            report.notes.push(format!(
                "{waiting} prepared transactions have come back and hold their locks: SELECT * FROM pg_prepared_xacts"
            ));
        }
        return prove_last_commit(plan, report, session).await;
    }
    report.notes.push("no role was let in to look at the last commit; its place was checked".to_owned());
    Ok(())
}

async fn prove_last_commit(plan: &RestorePlan, report: &mut Report, session: &Session) -> Result<()> {
    let Some(planned) = plan.target.last_kept else { return Ok(()) };
    if stops_after(plan).is_some_and(|lsn| planned.lsn >= lsn) {
        return Ok(());
    }
    let Some(found) = session.last_replay_time().await? else { return Ok(()) };
    // PostgreSQL remembers the last commit or abort. A backend takes the time before it writes the record, so on a
    // busy server an abort may follow the commit with an earlier one.
    report.proofs.push(Proof {
        what: "time of the last transaction replayed".to_owned(),
        planned: planned.at.postgres(),
        found: found.postgres(),
        holds: found.plus(CLOCK_RACE) >= planned.at,
    });
    Ok(())
}

/// The LSN after which PostgreSQL stops. It replays a commit there without remembering its time (`recoveryStopsAfter`
/// of `xlogrecovery.c` returns before `SetLatestXTime`).
fn stops_after(plan: &RestorePlan) -> Option<Lsn> {
    plan.server.settings.get("recovery_target_lsn")?.parse().ok()
}

fn side_lines(task: &Task<'_>, plan: &RestorePlan, report: &mut Report) {
    let dir = task.data_directory.display();
    if let (Some(port), Some(socket)) = (plan.server.port, &plan.server.socket_dir) {
        let user = connect::users(task.cluster, &task.owner).into_iter().next().unwrap_or_default();
        report.connect = Some(format!("psql -h {} -p {port} -U {user} -d postgres", socket.display()));
    }
    report.ends_with = Some(format!("pgkeep restore discard --target-dir {dir}"));
}

/// Writes the report beside the data directory (in a side instance: into it), and, of a restore in place, to the
/// repositories. Returns the Markdown's path. A repository that does not take it is a note, not a failure.
pub async fn write_report(task: &Task<'_>, prepared: &Prepared, report: &mut Report) -> Result<PathBuf> {
    if report.in_place {
        let bytes = Bytes::from(documents::to_bytes(report)?);
        let targets: Vec<&Repository> = prepared.archive.repositories.iter().collect();
        // A host without a key of its own has a report all the same; only nobody counts with it.
        let key = access::host_key(task.config).ok();
        let (name, at) = (&task.cluster.name, report.started_at);
        for (repository, stored) in reports::put(&targets, name, at, "incident", &bytes, key.as_ref()).await?
        {
            if let Err(e) = stored {
                report.notes.push(format!("the report is not in repository {repository}: {e}"));
            }
        }
    }
    let stem = if report.in_place {
        let mut name = task.data_directory.as_os_str().to_owned();
        name.push(format!("_restore_{}", report.started_at.compact_seconds()));
        PathBuf::from(name)
    } else {
        task.data_directory.join("pgkeep-report")
    };
    let markdown = stem.with_extension("md");
    durable::atomic_replace(&stem.with_extension("json"), &documents::to_bytes(report)?, 0o600)?;
    durable::atomic_replace(&markdown, report.markdown().as_bytes(), 0o600)?;
    Ok(markdown)
}
