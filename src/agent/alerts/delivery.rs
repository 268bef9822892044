//! A line for each receiver: what it has not taken yet, in order, bounded. A receiver that fails is tried again with
//! growing pauses and holds up no other. What waits is in the agent's memory too, so that a restart loses nothing; if
//! that cannot be written (its disk is full: just then alerts matter), the line goes on without it.
//!
//! A notice is sent at least once: an agent that is killed between the receiver's yes and its own note sends it again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::machine::{Event, Notice};
use super::sink::{NamedSink, Refusal};
use crate::agent::Hub;
use crate::agent::board::{Failure, SinkFacts};
use crate::agent::state;
use crate::error::Error;
use crate::util::clock::Stopwatch;

/// For one receiver; beyond that the oldest go.
const WAITING: usize = 500;
/// After a failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// A receiver that says "never" is asked so often, in case a person is mending it just now.
const REFUSALS: u32 = 4;
/// Older news is none; what is still open is told again anyway.
const STALE: Duration = Duration::from_hours(24);

/// A notice that waits; without an id it is only in this process.
#[derive(Debug, Clone)]
struct Waiting {
    id: Option<i64>,
    notice: Notice,
}

/// What waits for one receiver. Cheap to clone.
#[derive(Clone)]
pub struct Line {
    sink: Arc<NamedSink>,
    queue: Arc<Mutex<VecDeque<Waiting>>>,
    news: Arc<Notify>,
    first_pause: Duration,
    longest_pause: Duration,
}

impl Line {
    pub fn new(sink: NamedSink) -> Self {
        Self {
            sink: Arc::new(sink),
            queue: Arc::default(),
            news: Arc::default(),
            first_pause: FIRST_PAUSE,
            longest_pause: LONGEST_PAUSE,
        }
    }
    /// With short pauses, for tests that have no hour.
    #[cfg(test)]
    pub(super) fn hasty(sink: NamedSink) -> Self {
        let (first_pause, longest_pause) = (Duration::from_millis(1), Duration::from_millis(10));
        Self { first_pause, longest_pause, ..Self::new(sink) }
    }
    pub fn name(&self) -> &str {
        &self.sink.name
    }
    pub fn wants(&self, notice: &Notice) -> bool {
        self.sink.wants(&notice.alert)
    }

    /// Puts a notice at the end.
    pub fn push(&self, hub: &Hub, id: Option<i64>, notice: Notice) {
        let mut gone = Vec::new();
        let waiting = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if notice.event == Event::Repeated {
                // Told again, and what was told before has not even arrived.
                let mut kept = VecDeque::new();
                for old in queue.drain(..) {
                    let same =
                        old.notice.alert.key == notice.alert.key && old.notice.event == Event::Repeated;
                    if same { gone.push(old) } else { kept.push_back(old) }
                }
                *queue = kept;
            }
            queue.push_back(Waiting { id, notice });
            while queue.len() > WAITING {
                gone.extend(queue.pop_front());
            }
            queue.len()
        };
        for old in gone {
            forget(hub, old.id);
            self.facts(hub, |facts| facts.dropped_total += 1);
        }
        self.facts(hub, |facts| facts.waiting = waiting as u64);
        self.news.notify_one();
    }

    fn facts<T>(&self, hub: &Hub, change: impl FnOnce(&mut SinkFacts) -> T) -> T {
        hub.board.update(|all| change(all.sinks.entry(self.sink.name.clone()).or_default()))
    }

    fn front(&self) -> Option<Waiting> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).front().cloned()
    }

    /// The front has been dealt with, unless it was pushed out meanwhile.
    fn pop(&self, hub: &Hub, done: &Waiting) {
        let left = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.front().is_some_and(|front| front.id == done.id && front.notice == done.notice) {
                queue.pop_front();
            }
            queue.len()
        };
        forget(hub, done.id);
        self.facts(hub, |facts| facts.waiting = left as u64);
    }

    /// Delivers until the hub's token is cancelled.
    pub async fn run(&self, hub: &Hub) {
        let mut pause = self.first_pause;
        let mut refusals = 0;
        let mut refreshed = None;
        while !hub.shutdown.is_cancelled() {
            match self.turn(hub, &mut refusals, &mut refreshed).await {
                Ok(()) => {
                    pause = self.first_pause;
                    self.facts(hub, |facts| facts.failure = None);
                    if self.front().is_none() {
                        self.rest(hub).await;
                    }
                }
                Err(refusal) => {
                    self.failed(hub, refusal.error(), pause);
                    tokio::select! {
                        () = hub.shutdown.cancelled() => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(self.longest_pause);
                }
            }
        }
    }

    /// One try: of what waits at the front, of what is open, or only whether something could be sent.
    async fn turn(
        &self,
        hub: &Hub,
        refusals: &mut u32,
        refreshed: &mut Option<Stopwatch>,
    ) -> Result<(), Refusal> {
        let Some(front) = self.front() else {
            self.sink.ready().await?;
            return self.refresh(hub, refreshed).await;
        };
        let tried = self.sink.send(&front.notice).await;
        let over = match &tried {
            Ok(()) => true,
            Err(Refusal::Never(_)) => {
                *refusals += 1;
                *refusals >= REFUSALS
            }
            Err(Refusal::Later(_)) => hub.clock.now().since(front.notice.at) > STALE,
        };
        if over {
            self.pop(hub, &front);
            *refusals = 0;
            self.told(hub, &front, &tried);
        }
        tried
    }

    /// Until there is news, or it is time to say again what is open.
    async fn rest(&self, hub: &Hub) {
        let every = self.sink.refresh_every().unwrap_or(Duration::from_hours(1));
        tokio::select! {
            () = hub.shutdown.cancelled() => {}
            () = self.news.notified() => {}
            () = tokio::time::sleep(every) => {}
        }
    }

    async fn refresh(&self, hub: &Hub, last: &mut Option<Stopwatch>) -> Result<(), Refusal> {
        let Some(every) = self.sink.refresh_every() else { return Ok(()) };
        if last.is_some_and(|since| since.elapsed() < every) {
            return Ok(());
        }
        let facts = hub.board.snapshot();
        let open: Vec<_> = facts.alerts.into_iter().filter(|alert| self.sink.wants(alert)).collect();
        self.sink.refresh(&open, &facts.host, hub.clock.now()).await?;
        *last = Some(Stopwatch::start());
        Ok(())
    }

    fn told(&self, hub: &Hub, front: &Waiting, tried: &Result<(), Refusal>) {
        let (sink, key, event) = (&self.sink.name, &front.notice.alert.key, front.notice.event.as_str());
        match tried {
            Ok(()) => {
                self.facts(hub, |facts| facts.delivered_total += 1);
                tracing::info!(%sink, alert = %key, event, "told");
            }
            Err(refusal) => {
                self.facts(hub, |facts| facts.dropped_total += 1);
                tracing::error!(%sink, alert = %key, event, error = %refusal.error(), "an alert is given up");
            }
        }
    }

    fn failed(&self, hub: &Hub, error: &Error, pause: Duration) {
        tracing::warn!(sink = %self.sink.name, %error, "an alert could not be sent; next try in {pause:?}");
        let failure = Failure { at: hub.clock.now(), text: error.to_string() };
        self.facts(hub, |facts| facts.failure = Some(failure));
    }
}

fn forget(hub: &Hub, id: Option<i64>) {
    if let Some(id) = id
        && let Err(error) = state::alerts::settled(&hub.state, id)
    {
        tracing::warn!(%error, "a delivered alert may be sent again after a restart");
    }
}

#[cfg(test)]
mod tests;
