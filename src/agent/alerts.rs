//! Says when something is wrong, and when it is over: once each, to everybody who is configured to hear it.
//!
//! Order, every few seconds: the rules look at the board ([`rules`]); the state machine makes notices of what holds for
//! long enough, becomes worse, lasts or is over ([`machine`]); both are written into the agent's memory together, so
//! that a restart neither forgets nor repeats; then each receiver has its own line ([`delivery`]) to its [`sink`].
//!
//! Failure: a receiver that fails, or whose secret or certificate cannot be read, is tried again and becomes an alert for
//! the others; a memory that cannot be written is done without. Cancelled by the hub's token; what waits is sent after the next start.

use std::time::Duration;

use futures::future::join_all;

use self::delivery::Line;
use self::machine::{Machine, Notice, Tick, Watched};
use self::sink::NamedSink;
use super::Hub;
use super::state::alerts as memory;
use super::supervisor::Task;
use crate::error::Result;
use crate::util::clock::Stopwatch;

pub mod delivery;
pub mod heartbeat;
pub mod list;
pub mod machine;
pub mod rules;
pub mod sink;
pub mod trial;

const NAME: &str = "alerts";
/// A look takes milliseconds; a memory whose disk hangs takes longer.
const LATE: Duration = Duration::from_mins(3);

/// The tasks: the alerts, and the heartbeat.
pub fn tasks(hub: &Hub) -> Vec<Task> {
    let (alerts, beat) = (hub.clone(), hub.clone());
    vec![
        Task::new(NAME, move || run(alerts.clone())),
        Task::new("heartbeat", move || heartbeat::run(beat.clone())),
    ]
}

async fn run(hub: Hub) -> Result<()> {
    let lines: Vec<Line> = hub.config.alert_sinks.iter().map(|c| Line::new(NamedSink::of(c))).collect();
    let mut watch = Watch::begin(&hub, &lines);
    tokio::join!(watch.run(), join_all(lines.iter().map(|line| line.run(&hub))));
    Ok(())
}

/// From the board to the lines.
struct Watch<'a> {
    hub: &'a Hub,
    lines: &'a [Line],
    machine: Machine,
    /// As it is in the memory.
    noted: Vec<Watched>,
}

impl<'a> Watch<'a> {
    /// With what was watched and what waits from before; what cannot be read is done without.
    fn begin(hub: &'a Hub, lines: &'a [Line]) -> Self {
        let known = |name: &str| lines.iter().find(|line| line.name() == name);
        hub.board.update(|all| all.sinks.retain(|name, _| known(name).is_some()));
        let unread = |error| {
            tracing::warn!(%error, "open alerts of before are not known: they may be told once more");
        };
        for waiting in memory::undelivered(&hub.state).map_err(unread).unwrap_or_default() {
            match known(&waiting.sink) {
                Some(line) => line.push(hub, Some(waiting.id), waiting.notice),
                // Its receiver is configured no longer.
                None => drop(memory::settled(&hub.state, waiting.id)),
            }
        }
        let watched = memory::watched(&hub.state).map_err(unread).unwrap_or_default();
        let machine = Machine::with(watched.clone());
        hub.board.update(|all| all.alerts = machine.open());
        Self { hub, lines, machine, noted: watched }
    }

    async fn run(&mut self) {
        let (hub, every) = (self.hub, self.hub.config.alerts.check_interval);
        let (uptime, mut last) = (Stopwatch::start(), None::<Stopwatch>);
        loop {
            hub.pulse.beat(NAME, LATE.max(every.saturating_mul(4)));
            let elapsed = last.replace(Stopwatch::start()).map_or(Duration::ZERO, |since| since.elapsed());
            self.look(Tick { now: hub.clock.now(), elapsed, uptime: uptime.elapsed() });
            tokio::select! {
                () = hub.shutdown.cancelled() => break,
                () = tokio::time::sleep(every) => {}
            }
        }
        hub.pulse.rest(NAME);
    }

    /// One look at the board.
    fn look(&mut self, tick: Tick) {
        let (hub, config) = (self.hub, &self.hub.config.alerts);
        let facts = hub.board.snapshot();
        let findings = rules::evaluate(&facts, config, tick.now);
        let notices = self.machine.step(&facts.host, findings, config, tick);
        hub.board.update(|all| {
            all.alerts = self.machine.open();
            all.alerts_checked_at = Some(tick.now);
        });
        let now = self.machine.watched();
        if now != self.noted || !notices.is_empty() {
            hand_over(hub, self.lines, &now, notices);
            self.noted = now;
        }
    }
}

/// Into the memory, then into the lines.
fn hand_over(hub: &Hub, lines: &[Line], watched: &[Watched], notices: Vec<Notice>) {
    let mut addressed: Vec<(String, Notice)> = Vec::new();
    for notice in notices {
        let (alert, event) = (&notice.alert.key, notice.event.as_str());
        tracing::warn!(%alert, event, severity = %notice.alert.severity, "{}", notice.alert.summary);
        let wanted = lines.iter().filter(|line| line.wants(&notice));
        addressed.extend(wanted.map(|line| (line.name().to_owned(), notice.clone())));
    }
    let ids = memory::record(&hub.state, watched, &addressed);
    let ids = ids.map_err(|error| tracing::warn!(%error, "alerts are not remembered across a restart")).ok();
    for (n, (sink, notice)) in addressed.into_iter().enumerate() {
        let id = ids.as_ref().and_then(|ids| ids.get(n)).copied();
        if let Some(line) = lines.iter().find(|line| line.name() == sink) {
            line.push(hub, id, notice);
        }
    }
}

#[cfg(test)]
mod tests;
