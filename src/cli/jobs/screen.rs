//! Jobs as text. Pure.

use std::time::Duration;

use crate::agent::board::{JobRun, RunOutcome, RunningJob};
use crate::agent::jobs::ask::JobView;
use crate::agent::state::runs::{Cause, DiaryRun};
use crate::cli::table::{facts, table};
use crate::model::Timestamp;
use crate::util::human;

/// A line for each job; then their runs, where they were asked for.
pub(super) fn all(views: &[JobView], now: Timestamp) -> String {
    if views.is_empty() {
        return "no jobs are configured; [[job]] makes one (pgkeep config example shows it)".to_owned();
    }
    let heads = ["NAME", "KIND", "CLUSTER", "SCHEDULE", "NEXT", "LAST", ">TOOK", "STATE"];
    let jobs = table(&heads, views.iter().map(|view| row(view, now)));
    let runs: Vec<Vec<String>> = views
        .iter()
        .flat_map(|view| {
            view.history.iter().map(|run| {
                let mut cells = vec![view.name.to_string()];
                cells.extend(run_cells(run));
                cells
            })
        })
        .collect();
    if runs.is_empty() {
        return jobs;
    }
    let heads = ["NAME", "STARTED", ">TOOK", "WHY", "OUTCOME", "BACKUP", "WHAT"];
    format!("{jobs}\n\n{}", table(&heads, runs))
}

/// One job and its history.
pub(super) fn one(view: &JobView, now: Timestamp) -> String {
    let job = &view.facts;
    let text = facts(&[
        ("job", view.name.to_string()),
        ("kind", job.kind.clone()),
        ("cluster", job.cluster.to_string()),
        ("schedule", job.schedule.clone()),
        ("next", next(view)),
        ("state", state(view, now)),
        ("last success", job.last_success_at.map_or_else(|| "never".to_owned(), Timestamp::human)),
    ]);
    if view.history.is_empty() {
        return text;
    }
    let heads = ["STARTED", ">TOOK", "WHY", "OUTCOME", "BACKUP", "WHAT"];
    format!("{text}\n\n{}", table(&heads, view.history.iter().map(run_cells)))
}

fn row(view: &JobView, now: Timestamp) -> Vec<String> {
    let job = &view.facts;
    let last = job.last.as_ref();
    vec![
        view.name.to_string(),
        job.kind.clone(),
        job.cluster.to_string(),
        job.schedule.clone(),
        next(view),
        last.map_or_else(|| "never".to_owned(), |run| run.finished_at.human()),
        last.map_or_else(String::new, took),
        state(view, now),
    ]
}

fn next(view: &JobView) -> String {
    match (view.facts.next_at, &view.waiting_for) {
        (_, Some(other)) => format!("after {other}"),
        (Some(at), None) => at.human(),
        (None, None) => "no further date".to_owned(),
    }
}

fn state(view: &JobView, now: Timestamp) -> String {
    let job = &view.facts;
    if let Some(running) = &job.running {
        return progress(running, now);
    }
    let Some(last) = &job.last else { return "never ran".to_owned() };
    let mut text = format!("{}: {}", word(last.outcome), one_line(&last.text));
    if job.failures_in_a_row > 1 {
        text.push_str(&format!("; {} times in a row", job.failures_in_a_row));
    }
    if let Some(at) = view.retry_at {
        text.push_str(&format!("; again at {}", at.human()));
    }
    text
}

fn progress(running: &RunningJob, now: Timestamp) -> String {
    // A host's clock may be set back while it runs.
    let span = Duration::from_secs(now.since(running.started_at).as_secs());
    let mut text = format!("running for {}: {}", humantime::format_duration(span), running.phase);
    match running.total_bytes {
        Some(total) if total > 0 => {
            let (done, total_text) = (human::size(running.done_bytes), human::size(total));
            let part = running.done_bytes.saturating_mul(100) / total;
            text.push_str(&format!(" {done} of {total_text} ({part} %)"));
        }
        _ if running.done_bytes > 0 => text.push_str(&format!(" {}", human::size(running.done_bytes))),
        _ => {}
    }
    text
}

fn run_cells(diary: &DiaryRun) -> Vec<String> {
    let run = &diary.run;
    vec![
        run.started_at.human(),
        took(run),
        why(diary),
        word(run.outcome).to_owned(),
        run.backup.clone().unwrap_or_default(),
        one_line(&run.text),
    ]
}

fn why(diary: &DiaryRun) -> String {
    match diary.cause {
        Cause::Retry => format!("try {}", diary.attempt),
        Cause::Manual => "by hand".to_owned(),
        cause => cause.as_str().to_owned(),
    }
}

fn word(outcome: RunOutcome) -> &'static str {
    match outcome {
        RunOutcome::Done => "done",
        RunOutcome::Finding => "FINDING",
        RunOutcome::Failed => "FAILED",
        RunOutcome::Elsewhere => "elsewhere",
        RunOutcome::Skipped => "skipped",
    }
}

fn took(run: &JobRun) -> String {
    human::span(run.finished_at.since(run.started_at))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
