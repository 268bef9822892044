//! How long a restore will take, from how long earlier ones took. Pure.
//!
//! Each part of a restore is a straight line: what it always costs, and what each byte costs. Planning (the WAL is read
//! once to find the target) and replay go with the WAL, laying out with the backup. Three things make the lines right for
//! a cluster of seconds as for one of hours:
//!
//! * **Few runs, or runs of one size**, cannot tell the two costs apart. Then a usual line ([`Usual`]) gives the shape, and the
//!   runs say how many times as fast or slow this host is. A minute of starting is so never multiplied by the bytes.
//! * **Medians**, of factors or of all slopes (Theil and Sen), so that one run on a busy night does not bend the line; newer runs
//!   weigh more, for a host changes.
//! * **The plan of this very restore has been timed** when it is estimated. Where slow plans went with slow restores in the past, a
//!   slow one now says that the host is busy now.

use serde::{Deserialize, Serialize};

use super::plan::RestorePlan;
use super::report::Phase;
use crate::util::human;

/// So many of the newest measurements count: what a host was like a year ago says little.
pub const NEWEST: usize = 12;
/// Each run weighs so much of the one after it.
const FADES: f64 = 0.85;
/// Sizes that differ by less than this factor are one size.
const APART: f64 = 3.0;
/// So many runs draw a line of their own.
const ENOUGH: usize = 4;
/// How much must have been seen before a slow plan counts: the squares of its logarithms.
const CAUTION: f64 = 0.5;
/// A plan is a matter of moments; what it is compared with is never less.
const MOMENT: f64 = 0.1;
/// And it never says more than this, either way.
const MOST: f64 = 4.0;

/// The shape of a line where there is none of one's own: seconds that it always takes, and seconds for each byte.
#[derive(Debug, Clone, Copy)]
struct Usual {
    fixed: f64,
    per_byte: f64,
}

const MIB: f64 = (1 << 20) as f64;
const PLAN: Usual = Usual { fixed: 0.3, per_byte: 1.0 / (200.0 * MIB) };
const LAY_OUT: Usual = Usual { fixed: 0.5, per_byte: 1.0 / (100.0 * MIB) };
const REPLAY: Usual = Usual { fixed: 1.5, per_byte: 1.0 / (50.0 * MIB) };

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

/// `past` is the newest first; `planned` is how long the plan of this restore took, where it is made already. None without
/// a measurement.
pub fn estimate(
    past: &[Measured],
    backup_bytes: u64,
    wal_bytes: u64,
    planned: Option<f64>,
) -> Option<Estimate> {
    let past = &past[..past.len().min(NEWEST)];
    if past.is_empty() {
        return None;
    }
    let line = |usual: Usual, bytes: fn(&Measured) -> u64, seconds: fn(&Measured) -> f64| {
        Line::through(usual, past.iter().map(|m| (bytes(m) as f64, seconds(m))))
    };
    let plan = line(PLAN, |m| m.wal_bytes, |m| m.plan_seconds);
    let lay_out = line(LAY_OUT, |m| m.backup_bytes, |m| m.lay_out_seconds);
    let replay = line(REPLAY, |m| m.wal_bytes, |m| m.replay_seconds);
    let (wal, backup) = (wal_bytes as f64, backup_bytes as f64);
    let usual_plan = plan.at(wal);
    let busy = planned.map_or(1.0, |planned| {
        let slower = |m: &Measured| slowness(m.plan_seconds, plan.at(m.wal_bytes as f64));
        let rest = |m: &Measured| {
            let usual = lay_out.at(m.backup_bytes as f64) + replay.at(m.wal_bytes as f64);
            slowness(m.lay_out_seconds + m.replay_seconds, usual)
        };
        let pairs: Vec<(f64, f64)> = past.iter().map(|m| (slower(m), rest(m))).collect();
        (goes_with(&pairs) * slowness(planned, usual_plan)).exp().clamp(1.0 / MOST, MOST)
    });
    let plan_seconds = planned.unwrap_or(usual_plan);
    let (lay_out_seconds, replay_seconds) = (busy * lay_out.at(backup), busy * replay.at(wal));
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

/// The logarithm of how many times as long as usual.
fn slowness(seconds: f64, usual: f64) -> f64 {
    (seconds.max(MOMENT) / usual.max(MOMENT)).ln()
}

/// How far the second goes with the first: 0 not at all, 1 all the way.
fn goes_with(pairs: &[(f64, f64)]) -> f64 {
    let together: f64 = pairs.iter().map(|(a, b)| a * b).sum();
    let alone: f64 = pairs.iter().map(|(a, _)| a * a).sum();
    (together / (alone + CAUTION)).clamp(0.0, 1.0)
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

/// What something takes, by its bytes; never below zero.
#[derive(Debug, Clone, Copy)]
struct Line {
    fixed: f64,
    per_byte: f64,
}

impl Line {
    /// Through points of bytes and seconds, the newest first.
    fn through(usual: Usual, points: impl Iterator<Item = (f64, f64)>) -> Self {
        let mut weight = 1.0;
        let weighed = points.map(|(bytes, seconds)| {
            let point = (bytes, seconds, weight);
            weight *= FADES;
            point
        });
        let points: Vec<(f64, f64, f64)> = weighed.collect();
        let largest = points.iter().map(|p| p.0).fold(0.0, f64::max);
        let smallest = points.iter().map(|p| p.0).fold(f64::INFINITY, f64::min);
        if points.len() >= ENOUGH && largest >= smallest * APART {
            return Self::of_its_own(&points, largest);
        }
        let factors = points
            .iter()
            .map(|(bytes, seconds, weight)| (seconds / (usual.fixed + usual.per_byte * bytes), *weight));
        let factor = weighed_median(factors.collect()).unwrap_or(1.0);
        Self { fixed: usual.fixed * factor, per_byte: usual.per_byte * factor }
    }

    fn of_its_own(points: &[(f64, f64, f64)], largest: f64) -> Self {
        let mut slopes = Vec::new();
        for (n, a) in points.iter().enumerate() {
            for b in &points[n + 1..] {
                // Over a short way the slope is mostly chance.
                if (a.0 - b.0).abs() > largest / 10.0 {
                    slopes.push(((a.1 - b.1) / (a.0 - b.0), a.2 * b.2));
                }
            }
        }
        let per_byte = weighed_median(slopes).unwrap_or(0.0).max(0.0);
        let left = points.iter().map(|(bytes, seconds, weight)| (seconds - per_byte * bytes, *weight));
        Self { fixed: weighed_median(left.collect()).unwrap_or(0.0).max(0.0), per_byte }
    }

    fn at(self, bytes: f64) -> f64 {
        self.fixed + self.per_byte * bytes
    }
}

/// The value on both sides of which there is as much weight.
fn weighed_median(mut values: Vec<(f64, f64)>) -> Option<f64> {
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = values.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
    let mut below = 0.0;
    values.iter().find_map(|(value, weight)| {
        below += weight;
        (below >= half).then_some(*value)
    })
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
mod tests;
