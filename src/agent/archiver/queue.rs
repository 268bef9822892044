//! Which file is shipped next, and when a failed one is tried again: pure, `now` is an argument.
//!
//! History files come first, then by name, which is by timeline and position, as PostgreSQL hands them over. A store
//! that fails slows down everything: one file at a time after a pause that grows, until one succeeds. A file that is
//! refused for what it is waits by itself. What PostgreSQL asks for is tried at once whatever failed before.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::error::Code;
use crate::model::{Timestamp, WalFileName};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// In the order in which files are shipped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Turn(bool, String);

impl Turn {
    fn of(name: WalFileName) -> Self {
        Self(!matches!(name, WalFileName::History(_)), name.to_string())
    }
}

#[derive(Debug)]
struct Item {
    name: WalFileName,
    /// When its `.ready` was made.
    since: Option<Timestamp>,
    bytes: u64,
    running: bool,
    /// PostgreSQL waits for it.
    asked: bool,
    failures: u32,
    not_before: Option<Instant>,
}

/// The files of one cluster that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    items: BTreeMap<Turn, Item>,
    running: usize,
    /// Of the stores, in a row.
    failures: u32,
    not_before: Option<Instant>,
}

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Waiting {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) since: Option<Timestamp>,
}

impl Queue {
    /// What a scan found to be waiting: the rest has gone, unless it is under way or asked for.
    pub(super) fn found(&mut self, ready: &[(WalFileName, u64, Option<Timestamp>)]) {
        let fresh: BTreeMap<Turn, _> = ready.iter().map(|found| (Turn::of(found.0), found)).collect();
        self.items.retain(|turn, item| item.running || item.asked || fresh.contains_key(turn));
        for (turn, (name, bytes, since)) in fresh {
            let item = self.items.entry(turn).or_insert_with(|| Item::new(*name));
            (item.bytes, item.since) = (*bytes, *since);
        }
    }

    /// PostgreSQL waits for this one. False: nothing was known of it.
    pub(super) fn ask(&mut self, name: WalFileName) -> bool {
        let turn = Turn::of(name);
        let known = self.items.contains_key(&turn);
        self.items.entry(turn).or_insert_with(|| Item::new(name)).asked = true;
        known
    }

    /// The next file to begin with, of at most `most` at once.
    pub(super) fn next(&mut self, most: usize, now: Instant) -> Option<WalFileName> {
        let passed = |at: Option<Instant>| at.is_none_or(|at| at <= now);
        let most = if self.failures > 0 { 1 } else { most };
        let free = passed(self.not_before) && self.running < most;
        let may = |item: &&mut Item| !item.running && (item.asked || (free && passed(item.not_before)));
        let item = self.items.values_mut().find(may)?;
        item.running = true;
        self.running += 1;
        Some(item.name)
    }

    /// It is done.
    pub(super) fn succeeded(&mut self, name: WalFileName) {
        self.ended(name);
        self.items.remove(&Turn::of(name));
        (self.failures, self.not_before) = (0, None);
    }

    /// It failed, and is tried again later.
    pub(super) fn failed(&mut self, name: WalFileName, code: Code, now: Instant) {
        self.ended(name);
        let of_file = matches!(code, Code::WalMismatch | Code::WalConflict);
        let item = self.items.get_mut(&Turn::of(name));
        if of_file {
            if let Some(item) = item {
                item.not_before = Some(now + pause(item.failures));
                item.failures += 1;
            }
        } else {
            self.not_before = Some(now + pause(self.failures));
            self.failures += 1;
        }
    }

    /// The stores cannot be used at all.
    pub(super) fn hold(&mut self, now: Instant) {
        self.not_before = Some(now + pause(self.failures));
        self.failures += 1;
        self.items.values_mut().for_each(|item| item.asked = false);
    }

    fn ended(&mut self, name: WalFileName) {
        if let Some(item) = self.items.get_mut(&Turn::of(name))
            && item.running
        {
            (item.running, item.asked) = (false, false);
            self.running -= 1;
        }
    }

    /// True when the stores may be used: no pause lasts, or PostgreSQL waits.
    pub(super) fn is_due_at(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| at <= now) || self.items.values().any(|item| item.asked)
    }
    /// When something that waits for its pause is due.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let waits = self.items.values().filter(|item| !item.running).map(|item| item.not_before);
        let due = waits.map(|at| at.max(self.not_before)).map(|at| at.unwrap_or(now)).min();
        due.or(self.not_before).filter(|at| *at > now)
    }
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
    /// The names that wait or are under way.
    pub(super) fn names(&self) -> impl Iterator<Item = WalFileName> {
        self.items.values().map(|item| item.name)
    }
    pub(super) fn waiting(&self) -> Waiting {
        let mut all = Waiting::default();
        for item in self.items.values() {
            all.files += 1;
            all.bytes += item.bytes;
            all.since = match (all.since, item.since) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        all
    }
}

impl Item {
    fn new(name: WalFileName) -> Self {
        Self { name, since: None, bytes: 0, running: false, asked: false, failures: 0, not_before: None }
    }
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(8)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> WalFileName {
        WalFileName::parse(text).unwrap()
    }
    fn found(names: &[&str]) -> Vec<(WalFileName, u64, Option<Timestamp>)> {
        names.iter().map(|n| (name(n), 10, None)).collect()
    }
    const SEVEN: &str = "000000010000000000000007";
    const EIGHT: &str = "000000010000000000000008";
    const NINE: &str = "000000010000000000000009";
    const NEW: &str = "000000020000000000000008";

    #[test]
    fn history_files_go_first_and_then_timelines_and_segments_in_their_order() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.found(&found(&[NEW, EIGHT, "00000002.history", SEVEN]));
        let order: Vec<String> = std::iter::from_fn(|| queue.next(9, now)).map(|n| n.to_string()).collect();
        assert_eq!(order, ["00000002.history", SEVEN, EIGHT, NEW]);
    }

    #[test]
    fn no_more_are_begun_at_once_than_allowed_but_for_what_postgres_waits_for() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.found(&found(&[SEVEN, EIGHT]));
        assert_eq!(queue.next(1, now), Some(name(SEVEN)));
        assert_eq!(queue.next(1, now), None);
        assert!(queue.ask(name(EIGHT)));
        assert_eq!(queue.next(1, now), Some(name(EIGHT)));
        queue.succeeded(name(EIGHT));
        assert!(!queue.ask(name(NINE)));
        assert_eq!(queue.next(1, now), Some(name(NINE)));
        queue.succeeded(name(SEVEN));
        queue.succeeded(name(NINE));
        assert_eq!(queue.waiting().files, 0);
    }

    #[test]
    fn a_failing_store_is_tried_with_one_file_after_pauses_that_grow_and_everything_goes_on_after_a_success()
    {
        let mut queue = Queue::default();
        let mut now = Instant::now();
        queue.found(&found(&[SEVEN, EIGHT, NINE]));
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(queue.next(4, now), Some(name(SEVEN)));
            queue.failed(name(SEVEN), Code::StoreUnavailable, now);
            assert_eq!(queue.next(4, now), None);
            assert_eq!(queue.wake_at(now), Some(now + Duration::from_secs(pause)));
            now += Duration::from_secs(pause);
        }
        assert_eq!(queue.next(4, now), Some(name(SEVEN)));
        assert_eq!(queue.next(4, now), None);
        queue.succeeded(name(SEVEN));
        assert_eq!((queue.next(4, now), queue.next(4, now)), (Some(name(EIGHT)), Some(name(NINE))));
    }

    #[test]
    fn a_refused_file_waits_alone_and_is_tried_at_once_when_postgres_asks() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.found(&found(&[SEVEN, EIGHT]));
        assert_eq!(queue.next(4, now), Some(name(SEVEN)));
        queue.failed(name(SEVEN), Code::WalConflict, now);
        assert_eq!(queue.next(4, now), Some(name(EIGHT)));
        assert_eq!(queue.next(4, now), None);
        assert!(queue.ask(name(SEVEN)));
        assert_eq!(queue.next(4, now), Some(name(SEVEN)));
    }

    #[test]
    fn what_is_no_longer_ready_is_forgotten_unless_it_is_under_way() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.found(&found(&[SEVEN, EIGHT]));
        assert_eq!(queue.next(1, now), Some(name(SEVEN)));
        queue.found(&[]);
        assert_eq!(queue.names().collect::<Vec<_>>(), [name(SEVEN)]);
    }
}
