//! How progress looks: a bar on a terminal; otherwise a plain line when a phase begins, every five seconds or tenth
//! part, and when it ends, so that a log stays short. Always on standard error, with rate and time left.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::report::to_stderr;
use crate::util::human;
use crate::util::progress::Progress;

/// Bars, for a person at a terminal.
pub struct Bars {
    bar: ProgressBar,
}

impl Bars {
    pub fn new() -> Self {
        let bar = ProgressBar::no_length();
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar }
    }

    fn style(&self, template: &str) {
        // A template that does not parse would be a bug of ours; the plain bar does then.
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("=> "));
        }
    }
}

impl Default for Bars {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress for Bars {
    fn phase(&self, name: &str) {
        self.bar.reset();
        self.bar.unset_length();
        self.bar.set_message(name.to_owned());
        self.style("{spinner} {msg} [{elapsed}]");
    }
    fn total(&self, bytes: u64) {
        self.bar.set_length(bytes);
        self.style(
            "{msg} [{bar:30}] {percent:>3}% {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} left",
        );
    }
    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }
    fn note(&self, line: &str) {
        self.bar.suspend(|| to_stderr(line));
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Plain lines, for a log.
pub struct Lines {
    state: Mutex<State>,
}

struct State {
    phase: Option<String>,
    started: Instant,
    said: Instant,
    said_tenths: u64,
    total: Option<u64>,
    done: u64,
}

/// Between two lines of one phase.
const EVERY: Duration = Duration::from_secs(5);

impl Lines {
    pub fn new() -> Self {
        let now = Instant::now();
        let state = State { phase: None, started: now, said: now, said_tenths: 0, total: None, done: 0 };
        Self { state: Mutex::new(state) }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // A panic elsewhere must not silence progress.
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for Lines {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    fn begin(&mut self, name: &str, now: Instant) -> Option<String> {
        let ended = self.end(now);
        *self = Self {
            phase: Some(name.to_owned()),
            started: now,
            said: now,
            said_tenths: 0,
            total: None,
            done: 0,
        };
        ended
    }

    /// The closing line of a phase that moved bytes.
    fn end(&mut self, now: Instant) -> Option<String> {
        let phase = self.phase.take()?;
        let took = now - self.started;
        if self.done == 0 {
            return None;
        }
        let rate = rate(self.done, took).map_or_else(String::new, |rate| format!(", {rate}"));
        Some(format!("{phase}: {} in {}{rate}", human::size(self.done), human::span(took)))
    }

    /// A line when one is due.
    fn step(&mut self, now: Instant) -> Option<String> {
        let phase = self.phase.as_deref()?;
        let tenths = self.total.filter(|total| *total > 0).map_or(0, |total| self.done * 10 / total);
        let a_tenth =
            tenths > self.said_tenths && tenths < 10 && now - self.said >= Duration::from_millis(500);
        if !a_tenth && now - self.said < EVERY {
            return None;
        }
        (self.said, self.said_tenths) = (now, tenths);
        let took = now - self.started;
        let mut line = format!("{phase}: {}", human::size(self.done));
        if let Some(total) = self.total.filter(|total| *total > 0) {
            line.push_str(&format!(" of {} ({} %)", human::size(total), self.done * 100 / total));
        }
        if let Some(rate) = rate(self.done, took) {
            line.push_str(&format!(", {rate}"));
        }
        if let Some(left) = time_left(self.done, self.total, took) {
            line.push_str(&format!(", {} left", human::span(left)));
        }
        Some(line)
    }
}

fn rate(done: u64, took: Duration) -> Option<String> {
    let seconds = took.as_secs_f64();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // positive and far below 2^64
    (seconds > 0.05).then(|| format!("{}/s", human::size((done as f64 / seconds) as u64)))
}

/// What remains at the rate so far, in whole seconds.
fn time_left(done: u64, total: Option<u64>, took: Duration) -> Option<Duration> {
    let remaining = total?.checked_sub(done)?;
    if done == 0 || remaining == 0 {
        return None;
    }
    Duration::try_from_secs_f64(took.as_secs_f64() * remaining as f64 / done as f64).ok()
}

impl Progress for Lines {
    fn phase(&self, name: &str) {
        if let Some(ended) = self.with(|state| state.begin(name, Instant::now())) {
            to_stderr(&ended);
        }
        to_stderr(name);
    }
    fn total(&self, bytes: u64) {
        self.with(|state| state.total = Some(bytes));
    }
    fn advance(&self, bytes: u64) {
        let line = self.with(|state| {
            state.done = state.done.saturating_add(bytes);
            state.step(Instant::now())
        });
        if let Some(line) = line {
            to_stderr(&line);
        }
    }
    fn note(&self, line: &str) {
        to_stderr(line);
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if let Some(ended) = self.with(|state| state.end(Instant::now())) {
            to_stderr(&ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_every_five_seconds_or_tenth_with_rate_and_time_left() {
        let start = Instant::now();
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        let lines = Lines::new();
        lines.with(|state| {
            state.begin("copying", start);
            state.total = Some(1000 << 20);
            state.done = 10 << 20;
            assert_eq!(state.step(after(1)), None);
            state.done = 50 << 20;
            assert_eq!(
                state.step(after(5)).as_deref(),
                Some("copying: 50.0 MiB of 1000.0 MiB (5 %), 10.0 MiB/s, 1m 35s left")
            );
            state.done = 100 << 20;
            assert_eq!(
                state.step(after(6)).as_deref(),
                Some("copying: 100.0 MiB of 1000.0 MiB (10 %), 16.7 MiB/s, 54s left")
            );
            state.done = 1000 << 20;
            assert_eq!(state.step(after(10)), None, "the end has its own line");
            assert_eq!(
                state.begin("next", after(10)).as_deref(),
                Some("copying: 1000.0 MiB in 10s, 100.0 MiB/s")
            );
            assert_eq!(state.end(after(11)), None, "a phase without bytes ends silently");
        });
    }
}
