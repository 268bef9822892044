//! The screen in golden files.

use super::*;
use crate::agent::board::JobFacts;
use crate::model::{ClusterName, JobName};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn run(day: u32, outcome: RunOutcome, text: &str) -> JobRun {
    JobRun {
        started_at: at(&format!("2026-11-{day:02}T02:00:13Z")),
        finished_at: at(&format!("2026-11-{day:02}T02:21:05Z")),
        outcome,
        text: text.to_owned(),
        backup: (outcome == RunOutcome::Done).then(|| format!("202611{day:02}T020015Z-full-7c1f")),
        bytes_raw: Some(3 << 30),
        bytes_stored: Some(1 << 30),
    }
}

fn view(name: &str) -> JobView {
    JobView {
        name: JobName::parse(name).unwrap(),
        facts: JobFacts {
            kind: "full".to_owned(),
            cluster: ClusterName::parse("main").unwrap(),
            schedule: "0 2 * * * Europe/Berlin".to_owned(),
            next_at: Some(at("2026-11-22T01:00:00Z")),
            running: None,
            last: None,
            last_success_at: None,
            failures_in_a_row: 0,
            interval_seconds: Some(86_400),
            earlier_bytes: Vec::new(),
        },
        retry_at: None,
        waiting_for: None,
        history: Vec::new(),
    }
}

fn some_jobs() -> Vec<JobView> {
    let fresh = view("fresh");
    let mut good = view("nightly");
    good.facts.last = Some(run(21, RunOutcome::Done, "3.0 GiB, 1.0 GiB stored"));
    let mut failing = view("failing");
    failing.facts.last = Some(run(21, RunOutcome::Failed, "no agreement\nwith the store"));
    failing.facts.failures_in_a_row = 3;
    failing.retry_at = Some(at("2026-11-21T02:26:05Z"));
    let mut running = view("running");
    running.facts.running = Some(RunningJob {
        started_at: at("2026-11-21T09:00:00Z"),
        phase: "copying".to_owned(),
        done_bytes: 1 << 30,
        total_bytes: Some(3 << 30),
    });
    let mut waiting = view("waiting");
    waiting.waiting_for = JobName::parse("running");
    let mut over = view("over");
    over.facts.next_at = None;
    vec![fresh, good, failing, running, waiting, over]
}

#[test]
fn every_state_of_a_job_is_a_line() {
    insta::assert_snapshot!(all(&some_jobs(), at("2026-11-21T09:12:30Z")));
}

#[test]
fn one_job_is_shown_with_its_history() {
    let mut job = view("nightly");
    let runs = [
        (Cause::Retry, 2, run(21, RunOutcome::Done, "3.0 GiB, 1.0 GiB stored")),
        (Cause::Schedule, 1, run(20, RunOutcome::Failed, "the store is away")),
        (Cause::Manual, 1, run(19, RunOutcome::Elsewhere, "db2 took 20261119T020001Z-full-aa00")),
        (Cause::CatchUp, 1, run(18, RunOutcome::Finding, "2 pages in 1 files fail their checksum")),
    ];
    job.facts.last = Some(runs[0].2.clone());
    job.facts.last_success_at = Some(runs[0].2.finished_at);
    let diary =
        |(cause, attempt, run): (Cause, u32, JobRun)| DiaryRun { cause, scheduled_for: None, attempt, run };
    job.history = runs.into_iter().map(diary).collect();
    insta::assert_snapshot!(one(&job, at("2026-11-21T09:12:30Z")));
}

#[test]
fn without_jobs_it_says_where_they_come_from() {
    assert!(all(&[], at("2026-11-21T09:12:30Z")).contains("[[job]]"));
}
