//! How long a restore will take, from how long earlier ones took. Pure.
//!
//! Each part of a restore is a straight line: what it always costs, and what each byte costs. Planning (the WAL is read
//! once to find the target) and replay go with the WAL, laying out with the backup. Lines are drawn by the median of all
//! slopes (Theil and Sen), so that one run on a busy night does not bend them. Where all runs were of about one size
//! nothing can be said of two costs apart, and the time is taken to be in proportion.

use serde::{Deserialize, Serialize};

use super::plan::RestorePlan;
use super::report::Phase;
use crate::util::human;

/// So many of the newest measurements count: what a host was like a year ago says little.
pub const NEWEST: usize = 12;
/// Sizes that differ by less than this factor are one size.
const APART: f64 = 1.5;

/// What a restore took, in a report.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Of the base backup, before compression.
    pub backup_bytes: u64,
    /// WAL that was replayed.
    pub wal_bytes: u64,
    /// To look at the archive and find the target.
    pub plan_seconds: f64,
    /// To fetch the backup and make it durable.
    pub lay_out_seconds: f64,
    /// To start, replay and open.
    pub replay_seconds: f64,
    /// What had been estimated, if anything had been.
    #[serde(default)]
    pub estimated_seconds: Option<f64>,
}

impl Measured {
    /// Of a restore whose plan took so long to make.
    pub fn of(plan: &RestorePlan, plan_seconds: f64, phases: &[Phase], estimated: Option<f64>) -> Self {
        let sum = |names: &[&str]| {
            phases.iter().filter(|p| names.contains(&p.name.as_str())).map(|p| p.seconds).sum()
        };
        Self {
            backup_bytes: plan.backup.bytes_raw,
            wal_bytes: plan.wal.bytes,
            plan_seconds,
            lay_out_seconds: sum(&["move aside", "fetch the base backup", "make durable"]),
            replay_seconds: sum(&["replay WAL", "prove"]),
            estimated_seconds: estimated,
        }
    }

    /// From the beginning until the cluster is open.
    pub fn seconds(&self) -> f64 {
        self.plan_seconds + self.lay_out_seconds + self.replay_seconds
    }

    /// How far off the estimate was, as a part of what it took: 0.25 is 25 %.
    pub fn error(&self) -> Option<f64> {
        let estimated = self.estimated_seconds?;
        (self.seconds() > 0.0).then(|| (estimated - self.seconds()).abs() / self.seconds())
    }
}

/// How long it will take.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub seconds: f64,
    pub plan_seconds: f64,
    pub lay_out_seconds: f64,
    pub replay_seconds: f64,
    /// How many restores it is drawn from.
    pub measured: usize,
    /// The median error of earlier estimates, as a part of what it took; None before there was one.
    pub error: Option<f64>,
}

/// `past` is the newest first. None without a measurement.
pub fn estimate(past: &[Measured], backup_bytes: u64, wal_bytes: u64) -> Option<Estimate> {
    let past = &past[..past.len().min(NEWEST)];
    if past.is_empty() {
        return None;
    }
    let line = |bytes: fn(&Measured) -> u64, seconds: fn(&Measured) -> f64, at: u64| {
        let points: Vec<(f64, f64)> = past.iter().map(|m| (bytes(m) as f64, seconds(m))).collect();
        value_at(&points, at as f64)
    };
    let plan_seconds = line(|m| m.wal_bytes, |m| m.plan_seconds, wal_bytes);
    let lay_out_seconds = line(|m| m.backup_bytes, |m| m.lay_out_seconds, backup_bytes);
    let replay_seconds = line(|m| m.wal_bytes, |m| m.replay_seconds, wal_bytes);
    let errors: Vec<f64> = past.iter().filter_map(Measured::error).collect();
    Some(Estimate {
        seconds: plan_seconds + lay_out_seconds + replay_seconds,
        plan_seconds,
        lay_out_seconds,
        replay_seconds,
        measured: past.len(),
        error: median(errors),
    })
}

impl Estimate {
    /// For people, with where it comes from.
    pub fn text(&self) -> String {
        let from =
            if self.measured == 1 { "one restore".to_owned() } else { format!("{} restores", self.measured) };
        let error = match self.error {
            Some(error) => format!("; earlier estimates were off by {:.0} % (median)", error * 100.0),
            None => String::new(),
        };
        format!("about {}, measured by {from}{error}", span(self.seconds))
    }

    /// Its parts.
    pub fn parts(&self) -> String {
        format!(
            "{} to plan, {} to lay out the backup, {} to replay and open",
            span(self.plan_seconds),
            span(self.lay_out_seconds),
            span(self.replay_seconds)
        )
    }
}

/// Seconds for people.
pub fn span(seconds: f64) -> String {
    human::span(std::time::Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default())
}

/// The line through the points, at `x`; never below zero.
fn value_at(points: &[(f64, f64)], x: f64) -> f64 {
    let largest = points.iter().map(|p| p.0).fold(0.0, f64::max);
    let smallest = points.iter().map(|p| p.0).fold(f64::INFINITY, f64::min);
    if largest < smallest * APART || points.len() < 3 {
        return in_proportion(points, x);
    }
    let mut slopes = Vec::new();
    for (n, a) in points.iter().enumerate() {
        for b in &points[n + 1..] {
            if (a.0 - b.0).abs() > largest / 100.0 {
                slopes.push((a.1 - b.1) / (a.0 - b.0));
            }
        }
    }
    let slope = median(slopes).unwrap_or(0.0).max(0.0);
    let fixed = median(points.iter().map(|p| p.1 - slope * p.0).collect()).unwrap_or(0.0).max(0.0);
    fixed + slope * x
}

/// As the median run, but never less for fewer bytes than a third of its time: starting costs too.
fn in_proportion(points: &[(f64, f64)], x: f64) -> f64 {
    let bytes = median(points.iter().map(|p| p.0).collect()).unwrap_or(0.0);
    let seconds = median(points.iter().map(|p| p.1).collect()).unwrap_or(0.0);
    if bytes <= 0.0 { seconds } else { seconds * (x / bytes).max(1.0 / 3.0) }
}

pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
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

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 0.01, "{a} is not {b}");
    }

    #[test]
    fn without_a_measurement_nothing_is_said() {
        assert_eq!(estimate(&[], MIB, MIB), None);
    }

    #[test]
    fn one_measurement_says_it_for_its_own_size_and_in_proportion_for_others() {
        let one = [took(1000, 100)];
        near(estimate(&one, 1000 * MIB, 100 * MIB).unwrap().seconds, one[0].seconds());
        near(estimate(&one, 2000 * MIB, 100 * MIB).unwrap().lay_out_seconds, 14.0);
        near(estimate(&one, MIB, 100 * MIB).unwrap().lay_out_seconds, 7.0 / 3.0);
    }

    #[test]
    fn fixed_costs_and_costs_for_each_byte_are_told_apart() {
        let past: Vec<Measured> =
            [(100, 0), (1000, 700), (500, 20), (2000, 300)].map(|(b, w)| took(b, w)).to_vec();
        let found = estimate(&past, 4000 * MIB, 2000 * MIB).unwrap();
        near(found.lay_out_seconds, 22.0);
        near(found.replay_seconds, 21.0);
        near(found.plan_seconds, 0.5);
        assert_eq!((found.measured, found.error), (4, None));
    }

    #[test]
    fn a_single_bad_night_does_not_bend_the_line() {
        let mut past: Vec<Measured> = (1..=9).map(|n| took(n * 100, n * 50)).collect();
        past[4].replay_seconds *= 20.0;
        past[7].lay_out_seconds *= 10.0;
        let found = estimate(&past, 1000 * MIB, 600 * MIB).unwrap();
        assert!((found.replay_seconds - 7.0).abs() < 0.7, "{found:?}");
        assert!((found.lay_out_seconds - 7.0).abs() < 0.7, "{found:?}");
    }

    #[test]
    fn more_bytes_never_take_less_time_and_no_time_is_negative() {
        let mut past: Vec<Measured> = (1..=5).map(|n| took(n * 100, n * 100)).collect();
        for (n, measured) in past.iter_mut().enumerate() {
            measured.replay_seconds = 10.0 - n as f64;
        }
        let found = estimate(&past, 0, 10_000 * MIB).unwrap();
        near(found.replay_seconds, 8.0);
        assert!(found.lay_out_seconds >= 0.0);
    }

    #[test]
    fn the_error_of_earlier_estimates_is_their_median() {
        let mut past = vec![took(100, 100); 3];
        for (measured, factor) in past.iter_mut().zip([1.1, 0.5, 1.2]) {
            measured.estimated_seconds = Some(measured.seconds() * factor);
        }
        let found = estimate(&past, 100 * MIB, 100 * MIB).unwrap();
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
        assert_eq!(estimate(&past, MIB, MIB).unwrap().measured, NEWEST);
    }
}
