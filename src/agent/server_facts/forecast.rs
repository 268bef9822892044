//! When the disk of pg_wal is full, if pg_wal goes on growing as it has lately. Pure.
//!
//! Growth counts only when it lasts: over at least one of [`SCALES`] it has grown in each quarter. A burst leaves a
//! quarter out. The rate is that of the whole time or of its second half, whichever is lower, and after a silence at most
//! the largest step of that time spread over the silence: what has stopped fades by itself. What shrinks is not full soon.
//!
//! Up to its own target (`max_wal_size`, `wal_keep_size`) pg_wal grows because PostgreSQL keeps old files to write into
//! again: that growth ends by itself, so it counts only while archiving holds files back, or where the disk is too
//! small for the target.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// In samples, multiples of four: with one every 15 seconds two minutes, ten, and an hour, in which slow growth shows.
const SCALES: [usize; 3] = [8, 40, 240];

/// The size of pg_wal at one moment of the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    pub at: Instant,
    pub bytes: u64,
}

/// The last samples, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Window(VecDeque<Sample>);

/// What pg_wal may grow into.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    pub free: u64,
    /// Up to where PostgreSQL lets it grow by design; zero where that is unknown.
    pub target: u64,
    /// Archiving holds files back.
    pub held: bool,
}

impl Window {
    /// A sample that is not later than the one before says that this is another clock: the window begins anew.
    pub fn add(&mut self, sample: Sample) {
        if self.0.back().is_some_and(|last| last.at >= sample.at) {
            self.0.clear();
        }
        self.0.push_back(sample);
        let longest = SCALES[SCALES.len() - 1] + 1;
        while self.0.len() > longest {
            self.0.pop_front();
        }
    }

    /// None while it does not grow, or nothing can be said yet.
    pub fn full_in(&self, room: &Room) -> Option<Duration> {
        let last = self.0.back()?;
        let settles = room.target.checked_sub(last.bytes).is_some_and(|wanted| wanted <= room.free);
        if settles && !room.held {
            return None;
        }
        let rate = self.rate();
        #[expect(clippy::cast_precision_loss, reason = "a forecast")]
        let free = room.free as f64;
        (rate > 0.0).then(|| Duration::try_from_secs_f64(free / rate).unwrap_or(Duration::MAX))
    }

    /// Bytes per second; zero where nothing lasts.
    fn rate(&self) -> f64 {
        if self.last(SCALES[0]).is_none_or(|recent| grown(recent[0], recent[SCALES[0]]) < 0.0) {
            return 0.0;
        }
        let scales = SCALES.iter().filter_map(|scale| self.last(*scale));
        scales.map(|samples| lasting(&samples).min(fading(&samples))).fold(0.0, f64::max)
    }

    /// The samples of the last `steps` steps, one more than steps.
    fn last(&self, steps: usize) -> Option<Vec<Sample>> {
        let first = self.0.len().checked_sub(steps + 1)?;
        Some(self.0.range(first..).copied().collect())
    }
}

/// Zero unless it has grown in each quarter.
fn lasting(samples: &[Sample]) -> f64 {
    let quarter = (samples.len() - 1) / 4;
    let at = |quarters: usize| samples[quarters * quarter];
    if (0..4).any(|n| grown(at(n), at(n + 1)) <= 0.0) {
        return 0.0;
    }
    let rate = |from: Sample, to: Sample| grown(from, to) / seconds(from, to);
    rate(at(0), at(4)).min(rate(at(2), at(4)))
}

/// The largest step over the time since it grew last.
fn fading(samples: &[Sample]) -> f64 {
    let steps = || samples.windows(2).map(|two| (two[1], grown(two[0], two[1])));
    let largest = steps().map(|(_, step)| step).fold(0.0, f64::max);
    let silence = steps()
        .rfind(|(_, step)| *step > 0.0)
        .map_or(0.0, |(grew, _)| seconds(grew, samples[samples.len() - 1]));
    if silence > 0.0 { largest / silence } else { f64::INFINITY }
}

#[expect(clippy::cast_precision_loss, reason = "a forecast")]
fn grown(from: Sample, to: Sample) -> f64 {
    to.bytes as f64 - from.bytes as f64
}

fn seconds(from: Sample, to: Sample) -> f64 {
    to.at.saturating_duration_since(from.at).as_secs_f64()
}

#[cfg(test)]
mod tests;
