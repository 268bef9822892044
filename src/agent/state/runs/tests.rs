//! The diary in a database of its own.

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn job() -> JobName {
    JobName::parse("nightly").unwrap()
}

fn new(slot: Option<&str>, started_at: &str) -> NewRun {
    NewRun { job: job(), cause: Cause::Schedule, slot: slot.map(at), attempt: 1, started_at: at(started_at) }
}

fn ended(outcome: RunOutcome, finished_at: &str) -> JobRun {
    JobRun {
        started_at: at("2026-11-21T02:00:00Z"),
        finished_at: at(finished_at),
        outcome,
        text: "as it went".into(),
        backup: Some("20261121T020000Z-full-0000".into()),
        bytes_raw: Some(7),
        bytes_stored: None,
    }
}

const SCHEDULE: &str = "0 2 * * * UTC";

fn state(handled_to: &str) -> State {
    let state = State::in_memory().unwrap();
    remember(&state, &job(), SCHEDULE, &Memory { handled_to: at(handled_to), retry: None }).unwrap();
    state
}

#[test]
fn a_run_that_begins_has_handled_its_time() {
    let state = state("2026-11-20T02:00:00Z");
    let id = begin(&state, &new(Some("2026-11-21T02:00:00Z"), "2026-11-21T02:00:05Z")).unwrap();
    let memory = memory(&state, &job(), SCHEDULE).unwrap().unwrap();
    assert_eq!(memory.handled_to, at("2026-11-21T02:00:00Z"));
    assert_eq!(history(&state, &job(), 9).unwrap(), [], "an open run is no history");
    end(&state, id, &job(), &ended(RunOutcome::Done, "2026-11-21T02:10:00Z"), None).unwrap();
    let [diary] = history(&state, &job(), 9).unwrap().try_into().unwrap();
    assert_eq!(diary.run, ended(RunOutcome::Done, "2026-11-21T02:10:00Z"));
    assert_eq!(diary.scheduled_for, Some(at("2026-11-21T02:00:00Z")));
}

#[test]
fn an_older_time_does_not_undo_what_is_handled() {
    let state = state("2026-11-21T02:00:00Z");
    begin(&state, &new(Some("2026-11-20T02:00:00Z"), "2026-11-21T03:00:00Z")).unwrap();
    // With and without a fraction of a second, texts sort as moments do.
    let fraction = Memory { handled_to: at("2026-11-21T02:00:00.5Z"), retry: None };
    remember(&state, &job(), SCHEDULE, &fraction).unwrap();
    begin(&state, &new(Some("2026-11-21T02:00:00Z"), "2026-11-21T03:00:00Z")).unwrap();
    assert_eq!(memory(&state, &job(), SCHEDULE).unwrap().unwrap(), fraction);
}

#[test]
fn a_job_with_another_schedule_is_a_new_one() {
    let state = state("2026-11-20T02:00:00Z");
    assert_eq!(memory(&state, &job(), "0 3 * * * UTC").unwrap(), None);
}

#[test]
fn an_open_run_is_found_failed_once() {
    let state = state("2026-11-20T02:00:00Z");
    begin(&state, &new(Some("2026-11-21T02:00:00Z"), "2026-11-21T02:00:05Z")).unwrap();
    let now = at("2026-11-21T05:00:00Z");
    let slot = Some(at("2026-11-21T02:00:00Z"));
    assert_eq!(abandon_open(&state, now, "gone").unwrap(), [Abandoned { job: job(), slot, attempt: 1 }]);
    assert_eq!(abandon_open(&state, now, "gone").unwrap(), []);
    let past = past(&state, &job()).unwrap();
    let last = past.last.unwrap();
    assert_eq!((last.outcome, last.text.as_str(), last.finished_at), (RunOutcome::Failed, "gone", now));
    assert_eq!((past.failures_in_a_row, past.last_success_at), (1, None));
}

#[test]
fn a_planned_try_is_kept_until_a_run_begins() {
    let state = state("2026-11-20T02:00:00Z");
    let slot = at("2026-11-21T02:00:00Z");
    let id = begin(&state, &new(Some("2026-11-21T02:00:00Z"), "2026-11-21T02:00:05Z")).unwrap();
    let retry =
        Retry { slot, attempt: 2, at: at("2026-11-21T02:15:00Z"), after: Duration::from_millis(300_001) };
    end(&state, id, &job(), &ended(RunOutcome::Failed, "2026-11-21T02:10:00Z"), Some(&retry)).unwrap();
    assert_eq!(memory(&state, &job(), SCHEDULE).unwrap().unwrap().retry, Some(retry));
    let by_hand = begin(&state, &new(None, "2026-11-21T02:12:00Z")).unwrap();
    assert!(memory(&state, &job(), SCHEDULE).unwrap().unwrap().retry.is_some(), "a run by hand may fail too");
    end(&state, by_hand, &job(), &ended(RunOutcome::Done, "2026-11-21T02:13:00Z"), None).unwrap();
    assert_eq!(memory(&state, &job(), SCHEDULE).unwrap().unwrap().retry, None);
}

#[test]
fn the_past_knows_the_last_success_and_passes_over_what_was_skipped() {
    let state = state("2026-11-20T02:00:00Z");
    for (outcome, finished) in [
        (RunOutcome::Done, "2026-11-21T02:10:00Z"),
        (RunOutcome::Elsewhere, "2026-11-21T03:10:00Z"),
        (RunOutcome::Failed, "2026-11-21T04:10:00Z"),
        (RunOutcome::Failed, "2026-11-21T05:10:00Z"),
        (RunOutcome::Skipped, "2026-11-21T06:10:00Z"),
    ] {
        note(&state, &new(None, "2026-11-21T02:00:00Z"), &ended(outcome, finished)).unwrap();
    }
    let past = past(&state, &job()).unwrap();
    assert_eq!(past.last.unwrap().finished_at, at("2026-11-21T05:10:00Z"));
    assert_eq!(past.last_success_at, Some(at("2026-11-21T03:10:00Z")));
    assert_eq!((past.failures_in_a_row, past.earlier_bytes), (2, vec![7]));
    assert_eq!(history(&state, &job(), 2).unwrap().len(), 2);
}

#[test]
fn looks_at_another_hosts_work_make_one_line() {
    let state = state("2026-11-20T02:00:00Z");
    let slot = "2026-11-21T02:00:00Z";
    assert_eq!(elsewhere(&state, &job(), at(slot)).unwrap(), None);
    let id = begin(&state, &new(Some(slot), slot)).unwrap();
    assert_eq!(elsewhere(&state, &job(), at(slot)).unwrap(), None, "it has not ended");
    end(&state, id, &job(), &ended(RunOutcome::Elsewhere, "2026-11-21T02:10:00Z"), None).unwrap();
    assert_eq!(elsewhere(&state, &job(), at(slot)).unwrap(), Some(id));
    begin_again(&state, id, &new(Some(slot), "2026-11-21T02:15:00Z")).unwrap();
    end(&state, id, &job(), &ended(RunOutcome::Done, "2026-11-21T02:20:00Z"), None).unwrap();
    assert_eq!(history(&state, &job(), 9).unwrap().len(), 1);
    assert_eq!(elsewhere(&state, &job(), at("2026-11-22T02:00:00Z")).unwrap(), None);
}

#[test]
fn the_diary_of_a_job_has_a_bound() {
    let state = state("2026-11-20T02:00:00Z");
    for _ in 0..RUNS_KEPT + 5 {
        note(&state, &new(None, "2026-11-21T02:00:00Z"), &ended(RunOutcome::Done, "2026-11-21T02:10:00Z"))
            .unwrap();
    }
    assert_eq!(history(&state, &job(), 5000).unwrap().len(), RUNS_KEPT as usize);
}
