//! The only place that reads the wall clock.
//!
//! Decisions take `now` as an argument; who has to ask holds a [`Clock`], which a test replaces. Spans are measured
//! with [`Stopwatch`] and bounded with [`Deadline`] (or std's and tokio's `Instant`), which run on the monotonic
//! clock: a step of the host's clock neither ends a wait early nor makes it last for ever.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{SubsecRound, Utc};

use crate::model::Timestamp;

/// This moment by the host's clock, for what no test needs to move (the time of a log line, a file's age).
pub fn now() -> Timestamp {
    Timestamp(Utc::now().trunc_subsecs(6))
}

/// Says what time it is. Cheap to clone; handed down, never global.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The host's clock, in the microseconds that PostgreSQL's WAL carries.
    pub fn system() -> Self {
        Self(Arc::new(now))
    }
    /// A clock that stands still.
    pub fn fixed(at: Timestamp) -> Self {
        Self(Arc::new(move || at))
    }
    /// A clock that follows `source`, so that a test can move it.
    pub fn from_fn(source: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
    /// The monotonic clock, which no test moves.
    pub fn instant(&self) -> Instant {
        Instant::now()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

/// Measures how long something took.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    pub fn start() -> Self {
        Self(Instant::now())
    }
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The end of patience. Handed through nested calls, so that their waits share one bound instead of adding up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// `span` from now. A span too long for the clock ends in a hundred years.
    pub fn after(span: Duration) -> Self {
        let now = Instant::now();
        Self(now.checked_add(span).unwrap_or(now + Duration::from_hours(24 * 36_500)))
    }
    /// What is left; zero once it has passed.
    pub fn left(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
    pub fn passed(&self) -> bool {
        self.left().is_zero()
    }
    /// This deadline, or `span` from now if that is sooner: one try of several.
    pub fn sooner(&self, span: Duration) -> Self {
        (*self).min(Self::after(span))
    }
    /// For `tokio::time::timeout_at` and `sleep_until`.
    pub fn instant(&self) -> Instant {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_clock_stands_still() {
        let at: Timestamp = "2026-11-21T02:00:00.123456Z".parse().unwrap();
        let clock = Clock::fixed(at);
        assert_eq!((clock.now(), clock.clone().now()), (at, at));
    }

    #[test]
    fn the_system_clock_has_no_more_than_microseconds() {
        let now = Clock::system().now();
        assert_eq!(Timestamp::from_postgres_micros(now.postgres_micros()), Some(now));
    }

    #[test]
    fn a_deadline_passes_and_never_overflows() {
        assert!(Deadline::after(Duration::ZERO).passed());
        assert!(!Deadline::after(Duration::MAX).passed());
        let near = Deadline::after(Duration::MAX).sooner(Duration::from_secs(5));
        assert!(near.left() <= Duration::from_secs(5));
    }
}
