//! The jobs: what failed, what did not start, and what has been silent.

use std::time::Duration;

use super::Finding;
use super::backups::unusual;
use crate::agent::board::{JobFacts, JobRun, RunOutcome};
use crate::config::AlertsConfig;
use crate::model::Timestamp;
use crate::util::human;

pub(super) fn findings(
    name: &str,
    job: &JobFacts,
    started_at: Timestamp,
    config: &AlertsConfig,
    now: Timestamp,
) -> Vec<Finding> {
    let of = |rule| Finding::new(rule, "job", name).critical().mend(format!("pgkeep jobs run {name}"));
    let mut found = Vec::new();
    if let Some(run) = &job.last {
        let (began, text) = (run.started_at.human(), &run.text);
        match run.outcome {
            RunOutcome::Failed => {
                let times = match job.failures_in_a_row {
                    0 | 1 => String::new(),
                    n => format!(", for the {n}th time in a row"),
                };
                let summary = format!("job {name}: the run of {began} failed{times}: {text}");
                found.push(of("job-failed").says(summary));
            }
            RunOutcome::Finding => {
                let summary = format!("job {name}: the run of {began} found something wrong: {text}");
                found.push(match job.kind.as_str() {
                    "verify" => of("repository-damaged")
                        .says(summary)
                        .mend(format!("pgkeep verify --cluster {}", job.cluster)),
                    "drill" | "restore-test" => of("proof-failed").says(summary),
                    _ => of("job-finding").says(summary),
                });
            }
            RunOutcome::Done | RunOutcome::Elsewhere | RunOutcome::Skipped => {}
        }
        found.extend(size(name, job, run, config));
    }
    if let Some(due) = job.next_at
        && job.running.is_none()
        && now.since(due) > config.job_overdue
    {
        let summary = format!("job {name}: it was due at {} and has not started", due.human());
        found.push(of("job-overdue").says(summary));
    }
    found.extend(silent(name, job, started_at, config, now).map(|summary| of("job-silent").says(summary)));
    found
}

fn silent(
    name: &str,
    job: &JobFacts,
    started_at: Timestamp,
    config: &AlertsConfig,
    now: Timestamp,
) -> Option<String> {
    let patience = Duration::from_secs(job.interval_seconds?)
        .saturating_mul(config.job_silence)
        .saturating_add(config.job_overdue);
    // What another host of the cluster does is done; what found something wrong did its work.
    let elsewhere =
        job.last.as_ref().filter(|run| run.outcome != RunOutcome::Failed).map(|run| run.finished_at);
    let success = job.last_success_at.max(elsewhere);
    // A job that is new is given its time; so is one whose history was lost.
    let since = success.unwrap_or(started_at);
    if now.since(since) <= patience {
        return None;
    }
    let span = human::span(Duration::from_secs(now.since(since).as_secs()));
    Some(match success {
        Some(at) => format!("job {name}: it last succeeded at {}, {span} ago", at.human()),
        None => format!("job {name}: it has not succeeded once in {span}"),
    })
}

/// Of backups that the catalog's rule does not see: it looks at full ones.
fn size(name: &str, job: &JobFacts, run: &JobRun, config: &AlertsConfig) -> Option<Finding> {
    let did_its_work = matches!(run.outcome, RunOutcome::Done | RunOutcome::Finding);
    if job.kind == "full" || !did_its_work {
        return None;
    }
    let what = unusual(run.bytes_raw?, job.earlier_bytes.iter().copied(), config)?;
    let summary = format!("job {name}: the backup of {} {what}", run.started_at.human());
    Some(Finding::new("backup-size", "job", name).says(summary).mend("pgkeep list"))
}
