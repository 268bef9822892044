//! The restore itself, and what its own report says.

use super::Chosen;
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::postgres::service::PidFile;
use crate::restore::canary::{self, Expected};
use crate::restore::plan::{Commit, RestorePlan};
use crate::restore::prepare::{Prepared, Task};
use crate::restore::recover::SIDE_LOG;
use crate::restore::{connect, execute};
use crate::util::clock::Stopwatch;
use crate::verify::inside::Running;
use crate::verify::report::{Check, Objective, Recovered, Report, Step, Verdict};

pub(super) fn described(plan: &RestorePlan, chosen: Chosen) -> Recovered {
    Recovered {
        target: plan.target.target.to_string(),
        chosen: chosen.words,
        seed: chosen.seed,
        stretches: chosen.stretches,
        backup: plan.backup.id.clone(),
        backup_of: plan.backup.stop_time,
        repository: plan.backup.repository.clone(),
        backup_bytes: plan.backup.bytes_raw,
        stored_bytes: plan.backup.bytes_stored,
        wal_from: plan.wal.from,
        wal_to: plan.wal.to,
        wal_bytes: plan.wal.bytes,
        timeline: plan.target.timeline,
        ends_at: plan.target.end,
        last_commit_kept: plan.target.last_kept,
        part: None,
    }
}

/// Restores and opens it. None where nobody is let in with all rights: what has to be asked from inside is then not made.
pub(super) async fn restore(
    task: &Task<'_>,
    prepared: Prepared,
    report: &mut Report,
) -> Result<Option<Opened>> {
    let canary = canary_of(task, &prepared, report).await?;
    let tools = prepared.tools.clone();
    let executed = Box::pin(execute::run(task, prepared)).await?;
    let plan = &executed.plan;
    for phase in executed.report.phases.iter().filter(|phase| phase.name != "altogether") {
        report.steps.push(Step { name: phase.name.clone(), seconds: phase.seconds, counts: true });
    }
    report.measured = executed.report.measured;
    // The plan's warnings are there already.
    let fresh = executed.report.notes.iter().filter(|note| !plan.warnings.contains(note));
    report.notes.extend(fresh.cloned());
    for proof in &executed.report.proofs {
        let check = Check::new("recovery", proof.what.clone(), proof.planned.clone()).essential();
        report.checks.push(check.found(proof.holds, proof.found.clone()));
    }
    let watch = Stopwatch::start();
    let check = Check::new("recovery", "the cluster is open and answers", "a session").essential();
    let Some(session) = connect::any(task, plan).await else {
        report.checks.push(check.unproved("no role was let in"));
        return Ok(None);
    };
    let (major, minor) = (session.version_num() / 10_000, session.version_num() % 10_000);
    report
        .checks
        .push(check.found(!session.is_in_recovery().await?, format!("PostgreSQL {major}.{minor} answers")));
    report.step("first answer", watch, true);
    let Some(superuser) = session.some_superuser().await? else {
        let why = "at that moment the cluster had no superuser with LOGIN";
        report.checks.push(Check::new("instance", "questions from inside", "all hold").unproved(why));
        return Ok(None);
    };
    let file = PidFile::read(&task.data_directory)?;
    let file = file.ok_or_else(|| Error::new(Code::RecoveryFailed, "the restored instance has ended"))?;
    let running = Running {
        tools,
        owner: task.owner.clone(),
        data: task.data_directory.clone(),
        socket: task.data_directory.join(file.socket_dir.unwrap_or_default()),
        port: file.port,
        superuser,
        log: task.data_directory.join(SIDE_LOG),
    };
    Ok(Some(Opened { running, last_kept: plan.target.last_kept, canary }))
}

/// A restored instance that answers, and what it must have.
pub(super) struct Opened {
    pub(super) running: Running,
    pub(super) last_kept: Option<Commit>,
    pub(super) canary: Expected,
}

/// What WAL says of the canary. Nobody waits for it where there is none and none is asked for.
async fn canary_of(task: &Task<'_>, prepared: &Prepared, report: &mut Report) -> Result<Expected> {
    match prepared.located.canary {
        Some(canary) => Ok(Expected::Row(canary)),
        None if !task.config.canary.enabled => Ok(Expected::NoneSince(None)),
        None => {
            let watch = Stopwatch::start();
            let expected = canary::expected(prepared, &*task.progress).await?;
            report.step("look for the canary", watch, false);
            Ok(expected)
        }
    }
}

/// Whether the cluster came back in time.
pub(super) fn objective(config: &Config, report: &Report) -> Objective {
    let objective = config.proof.rto.map(|span| span.as_secs_f64());
    let achieved: f64 = report.steps.iter().filter(|step| step.counts).map(|step| step.seconds).sum();
    let holds = |objective| if achieved <= objective { Verdict::Holds } else { Verdict::Fails };
    Objective {
        name: "RTO".to_owned(),
        objective_seconds: objective,
        achieved_seconds: Some(achieved),
        verdict: objective.map(holds),
        meaning: "from the decision for a moment until the cluster was open and answered, on this host"
            .to_owned(),
    }
}
