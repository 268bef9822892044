//! Waiting for something that another process does: with a bound, and with a message when it never happens.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Panics when `done` has not become true within `limit`.
#[track_caller]
pub fn eventually(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    eventually_some(what, limit, || done().then_some(()));
}

/// The value of `find` as soon as it has one.
#[track_caller]
pub fn eventually_some<T>(what: &str, limit: Duration, mut find: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        sleep(Duration::from_millis(20));
    }
}
