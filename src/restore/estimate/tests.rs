use super::*;

const MIB: u64 = 1 << 20;

/// 1 s and 10 ms for each MiB of WAL; 2 s and 5 ms for each MiB of the backup.
fn took(backup: u64, wal: u64) -> Measured {
    Measured {
        backup_bytes: backup * MIB,
        wal_bytes: wal * MIB,
        plan_seconds: 0.5,
        lay_out_seconds: 2.0 + 0.005 * backup as f64,
        replay_seconds: 1.0 + 0.01 * wal as f64,
        estimated_seconds: None,
    }
}

/// The same on a host that is so many times as busy.
fn busy(times: f64, measured: Measured) -> Measured {
    Measured {
        plan_seconds: measured.plan_seconds * times,
        lay_out_seconds: measured.lay_out_seconds * times,
        replay_seconds: measured.replay_seconds * times,
        ..measured
    }
}

fn before(past: &[Measured], backup: u64, wal: u64) -> Estimate {
    estimate(past, backup * MIB, wal * MIB, None).unwrap()
}

#[track_caller]
fn near(a: f64, b: f64) {
    assert!((a - b).abs() < 0.01, "{a} is not {b}");
}
#[track_caller]
fn within(part: f64, found: f64, right: f64) {
    assert!((found - right).abs() <= part * right, "{found} is not {right} within {part}");
}

#[test]
fn without_a_measurement_nothing_is_said() {
    assert_eq!(estimate(&[], MIB, MIB, None), None);
}

#[test]
fn one_measurement_says_it_for_its_own_size_and_what_starting_costs_is_not_multiplied() {
    let one = [took(1000, 100)];
    near(before(&one, 1000, 100).seconds, one[0].seconds());
    within(0.25, before(&one, 2000, 100).lay_out_seconds, 12.0);
    // A tiny one first, a hundred times as much WAL now: most of the tiny one's time was starting.
    let tiny = [took(20, 3)];
    within(0.6, before(&tiny, 20, 300).replay_seconds, 4.0);
    within(0.1, before(&tiny, 20, 3).seconds, tiny[0].seconds());
}

#[test]
fn fixed_costs_and_costs_for_each_byte_are_told_apart() {
    let past: Vec<Measured> =
        [(100, 0), (1000, 700), (500, 20), (2000, 300)].map(|(b, w)| took(b, w)).to_vec();
    let found = before(&past, 4000, 2000);
    near(found.lay_out_seconds, 22.0);
    near(found.replay_seconds, 21.0);
    within(0.5, found.plan_seconds, 0.5);
    assert_eq!((found.measured, found.error), (4, None));
}

#[test]
fn a_single_bad_night_does_not_bend_the_line() {
    let mut past: Vec<Measured> = (1..=9).map(|n| took(n * 100, n * 50)).collect();
    past[4].replay_seconds *= 20.0;
    past[7].lay_out_seconds *= 10.0;
    let found = before(&past, 1000, 600);
    within(0.1, found.replay_seconds, 7.0);
    within(0.1, found.lay_out_seconds, 7.0);
}

#[test]
fn more_bytes_never_take_less_time_and_no_time_is_negative() {
    let mut past: Vec<Measured> = (1..=5).map(|n| took(n * 100, n * 100)).collect();
    for (n, measured) in past.iter_mut().enumerate() {
        measured.replay_seconds = 10.0 - n as f64;
    }
    let found = before(&past, 0, 10_000);
    assert!((6.0..=10.0).contains(&found.replay_seconds), "{found:?}");
    assert!(found.lay_out_seconds >= 0.0);
}

#[test]
fn a_host_that_has_become_faster_is_believed_after_a_few_runs() {
    let slow = |n: u64| busy(3.0, took(100, 90 + n));
    let past: Vec<Measured> = (0..5).map(|n| took(100, 90 + n)).chain((0..7).map(slow)).collect();
    within(0.25, before(&past, 100, 95).seconds, took(100, 95).seconds());
}

#[test]
fn a_plan_that_took_longer_says_that_the_host_is_busy_if_it_has_said_so_before() {
    let times = [1.0, 2.5, 0.8, 3.0, 1.2, 2.0, 1.0, 0.9];
    let past: Vec<Measured> =
        times.iter().zip(1u64..).map(|(times, n)| busy(*times, took(100, 50 + 10 * n))).collect();
    let now = busy(3.0, took(100, 90));
    let blind = estimate(&past, 100 * MIB, 90 * MIB, None).unwrap();
    let seen = estimate(&past, 100 * MIB, 90 * MIB, Some(now.plan_seconds)).unwrap();
    within(0.3, seen.seconds, now.seconds());
    assert!(blind.seconds < 0.6 * now.seconds(), "{blind:?}");

    // Where a slow store makes slow plans and nothing else, it says nothing of the rest.
    let plans_alone =
        |m: &Measured| Measured { plan_seconds: m.plan_seconds, ..took(100, m.wal_bytes / MIB) };
    let past: Vec<Measured> = past.iter().map(plans_alone).collect();
    let seen = estimate(&past, 100 * MIB, 90 * MIB, Some(now.plan_seconds)).unwrap();
    within(0.1, seen.seconds - now.plan_seconds, took(100, 90).seconds() - 0.5);
}

#[test]
fn the_error_of_earlier_estimates_is_their_median() {
    let mut past = vec![took(100, 100); 3];
    for (measured, factor) in past.iter_mut().zip([1.1, 0.5, 1.2]) {
        measured.estimated_seconds = Some(measured.seconds() * factor);
    }
    let found = before(&past, 100, 100);
    near(found.error.unwrap(), 0.2);
    assert_eq!(
        found.text(),
        "about 5.0s, measured by 3 restores; earlier estimates were off by 20 % (median)"
    );
}

#[test]
fn only_the_newest_measurements_count() {
    let mut past = vec![took(100, 100); NEWEST];
    past.extend(vec![took(100, 100_000); 50]);
    assert_eq!(before(&past, 1, 1).measured, NEWEST);
}
