//! From the board to receivers, with a clock that the test moves: what is told, how often, and what a restart, a reload,
//! a deaf receiver or a clock that was set back change about it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::machine::Event;
use super::sink::{Refusal, Sink};
use super::*;
use crate::agent::board::{Board, Failure, OpenAlert, Severity};
use crate::agent::{State, example};
use crate::config::Config;
use crate::error::{Code, Error};
use crate::model::{RepoName, Timestamp};
use crate::util::clock::Clock;

const STEP: Duration = Duration::from_secs(15);
const HOUR: Duration = Duration::from_hours(1);

/// A receiver that writes down what it took, and takes nothing while it is deaf.
#[derive(Default)]
pub struct Recorder {
    took: Mutex<Vec<(Event, String)>>,
    pub deaf: AtomicBool,
    /// Instead of "later": "never".
    pub refuses: AtomicBool,
    pub tries: AtomicU32,
}

#[async_trait]
impl Sink for Recorder {
    async fn send(&self, notice: &Notice) -> Result<(), Refusal> {
        self.tries.fetch_add(1, Ordering::SeqCst);
        let no = || Error::new(Code::AlertUndelivered, "not now");
        if self.refuses.load(Ordering::SeqCst) {
            return Err(Refusal::Never(no()));
        }
        if self.deaf.load(Ordering::SeqCst) {
            return Err(Refusal::Later(no()));
        }
        self.took.lock().unwrap().push((notice.event, notice.alert.key.clone()));
        Ok(())
    }
}

impl Recorder {
    pub fn took(&self) -> Vec<(Event, String)> {
        self.took.lock().unwrap().clone()
    }
    /// What it took, once that is `count`.
    pub async fn took_all(&self, count: usize) -> Vec<(Event, String)> {
        until(&format!("{count} notices are taken"), || self.took().len() >= count).await;
        self.took()
    }
}

pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not within 10 s: {what}");
}

/// A clock on the wall that tests set.
#[derive(Clone)]
pub struct Wall(Arc<Mutex<Timestamp>>);

impl Wall {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(example::now())))
    }
    pub fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
    pub fn set(&self, now: Timestamp) {
        *self.0.lock().unwrap() = now;
    }
    fn clock(&self) -> Clock {
        let this = self.clone();
        Clock::from_fn(move || this.now())
    }
}

/// A healthy host's agent.
pub fn hub(wall: &Wall, state: State) -> Hub {
    let text = "encryption = \"none\"\n[cluster.main]\nconnection = \"host=/tmp\"\n[[repository]]\nname = \
                \"a\"\nurl = \"file:///srv/pgkeep\"\n";
    let board = Board::new(wall.now());
    board.update(|all| {
        *all = rules::tests::facts(wall.now());
        all.sinks.clear();
    });
    Hub {
        config: Arc::new(Config::parse(Path::new("/x"), text).unwrap()),
        clock: wall.clock(),
        shutdown: CancellationToken::new(),
        board,
        state,
        end: CancellationToken::new(),
        lasting: tokio_util::task::TaskTracker::new(),
        pulse: crate::agent::pulse::Pulse::default(),
    }
}

pub fn notice(event: Event, key: &str, at: Timestamp) -> Notice {
    let alert = OpenAlert {
        key: key.to_owned(),
        rule: "archive-lag".to_owned(),
        severity: Severity::Critical,
        labels: BTreeMap::from([("cluster".to_owned(), "main".to_owned())]),
        since: at,
        summary: "it waits".to_owned(),
        mend: "pgkeep check --cluster main".to_owned(),
        runbook: Some("archiving-stalled.md".to_owned()),
    };
    Notice { event, alert, at, host: "db1".to_owned(), risen_from: None, test: false }
}

/// One generation of the alerts, from its start to its end, with a receiver.
struct Generation<'a> {
    hub: &'a Hub,
    watch: Watch<'a>,
    wall: &'a Wall,
    uptime: Duration,
    delivery: Vec<tokio::task::JoinHandle<()>>,
}

impl<'a> Generation<'a> {
    fn begin(hub: &'a Hub, wall: &'a Wall, lines: &'a [Line]) -> Self {
        let watch = Watch::begin(hub, lines);
        let run = |line: &Line| {
            let (line, hub) = (line.clone(), hub.clone());
            tokio::spawn(async move { line.run(&hub).await })
        };
        Self { hub, watch, wall, uptime: Duration::ZERO, delivery: lines.iter().map(run).collect() }
    }
    /// The rules are looked at for this long.
    fn goes_by(&mut self, span: Duration) {
        for _ in 0..span.as_secs() / STEP.as_secs() {
            let elapsed = if self.uptime.is_zero() { Duration::ZERO } else { STEP };
            // The other tasks do their work, so that nothing else is stale.
            let now = self.wall.now();
            self.hub.board.update(|all| {
                let fresh = rules::tests::facts(now);
                all.clusters = fresh.clusters;
                all.jobs = fresh.jobs;
            });
            self.watch.look(Tick { now, elapsed, uptime: self.uptime });
            self.wall.set(now.plus(STEP));
            self.uptime += STEP;
        }
    }
    async fn end(self) {
        self.hub.shutdown.cancel();
        for line in self.delivery {
            line.await.unwrap();
        }
    }
}

fn line(recorder: &Arc<Recorder>) -> Line {
    Line::hasty(NamedSink::scripted("ops", Arc::<Recorder>::clone(recorder)))
}

fn store_fails(hub: &Hub, failing: bool) {
    let failure = failing.then(|| Failure { at: hub.clock.now(), text: "no answer".to_owned() });
    hub.board.repository(&RepoName::parse("eu").unwrap(), |store| store.failure = failure);
}

fn store(event: Event) -> (Event, String) {
    (event, "store-unreachable:eu".to_owned())
}

#[tokio::test]
async fn a_restart_between_raise_and_resolution_tells_nothing_twice_and_the_resolution_comes() {
    let dir = tempfile::tempdir().unwrap();
    let (wall, recorder) = (Wall::new(), Arc::new(Recorder::default()));
    let file = dir.path().join("agent.db");
    {
        let (hub, lines) = (hub(&wall, State::open(&file).unwrap()), [line(&recorder)]);
        let mut agent = Generation::begin(&hub, &wall, &lines);
        agent.goes_by(HOUR);
        store_fails(&hub, true);
        agent.goes_by(HOUR);
        assert_eq!(recorder.took_all(1).await, [store(Event::Opened)]);
        agent.end().await;
    }
    // Another process: an empty board, the same memory.
    let (hub, lines) = (hub(&wall, State::open(&file).unwrap()), [line(&recorder)]);
    let mut agent = Generation::begin(&hub, &wall, &lines);
    assert_eq!(hub.board.snapshot().alerts.len(), 1, "status shows it at once");
    agent.goes_by(Duration::from_mins(1));
    store_fails(&hub, true);
    agent.goes_by(HOUR);
    store_fails(&hub, false);
    agent.goes_by(HOUR);
    assert_eq!(recorder.took_all(2).await, [store(Event::Opened), store(Event::Resolved)]);
    agent.end().await;
}

#[tokio::test]
async fn what_a_deaf_receiver_missed_arrives_in_order_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (wall, recorder) = (Wall::new(), Arc::new(Recorder::default()));
    let file = dir.path().join("agent.db");
    recorder.deaf.store(true, Ordering::SeqCst);
    {
        let (hub, lines) = (hub(&wall, State::open(&file).unwrap()), [line(&recorder)]);
        let mut agent = Generation::begin(&hub, &wall, &lines);
        store_fails(&hub, true);
        agent.goes_by(HOUR);
        store_fails(&hub, false);
        agent.goes_by(HOUR);
        until("it was tried", || recorder.tries.load(Ordering::SeqCst) > 2).await;
        agent.end().await;
    }
    assert_eq!(recorder.took(), []);
    recorder.deaf.store(false, Ordering::SeqCst);
    let (hub, lines) = (hub(&wall, State::open(&file).unwrap()), [line(&recorder)]);
    let mut agent = Generation::begin(&hub, &wall, &lines);
    agent.goes_by(HOUR);
    assert_eq!(recorder.took_all(2).await, [store(Event::Opened), store(Event::Resolved)]);
    agent.end().await;
    assert_eq!(memory::undelivered(&hub.state).unwrap(), [], "nothing is sent a third time");
}

#[tokio::test]
async fn a_reload_tells_nothing_again_and_forgets_what_waits_for_a_receiver_that_is_gone() {
    let (wall, recorder) = (Wall::new(), Arc::new(Recorder::default()));
    let (deaf, state) = (Arc::new(Recorder::default()), State::in_memory().unwrap());
    deaf.deaf.store(true, Ordering::SeqCst);
    let first = hub(&wall, state.clone());
    let gone = Line::hasty(NamedSink::scripted("gone", Arc::<Recorder>::clone(&deaf)));
    let lines = [line(&recorder), gone];
    let mut agent = Generation::begin(&first, &wall, &lines);
    store_fails(&first, true);
    agent.goes_by(HOUR);
    recorder.took_all(1).await;
    agent.end().await;
    assert_eq!(memory::undelivered(&state).unwrap().len(), 1);
    // The board lives on; the receiver `gone` is configured no longer.
    let second = Hub { shutdown: CancellationToken::new(), ..first.clone() };
    let lines = [line(&recorder)];
    let mut agent = Generation::begin(&second, &wall, &lines);
    assert_eq!(memory::undelivered(&state).unwrap(), []);
    assert!(!second.board.snapshot().sinks.contains_key("gone"));
    agent.goes_by(HOUR);
    store_fails(&second, false);
    agent.goes_by(HOUR);
    assert_eq!(recorder.took_all(2).await, [store(Event::Opened), store(Event::Resolved)]);
    agent.end().await;
}

#[tokio::test]
async fn a_clock_set_back_neither_silences_an_alert_nor_keeps_it_open() {
    let (wall, recorder) = (Wall::new(), Arc::new(Recorder::default()));
    let (hub, lines) = (hub(&wall, State::in_memory().unwrap()), [line(&recorder)]);
    let mut agent = Generation::begin(&hub, &wall, &lines);
    agent.goes_by(HOUR);
    wall.set(wall.now().minus(6 * HOUR));
    agent.goes_by(HOUR);
    assert!(hub.board.snapshot().alerts.is_empty(), "nothing is wrong because of it");
    store_fails(&hub, true);
    agent.goes_by(HOUR);
    recorder.took_all(1).await;
    wall.set(wall.now().minus(6 * HOUR));
    agent.goes_by(HOUR);
    store_fails(&hub, false);
    agent.goes_by(HOUR);
    // Told once more: nobody knows how long ago "in the future" was.
    let told = [store(Event::Opened), store(Event::Repeated), store(Event::Resolved)];
    assert_eq!(recorder.took_all(3).await, told);
    agent.end().await;
}

#[tokio::test]
async fn an_alert_that_lasts_is_told_again_at_its_interval() {
    let (wall, recorder) = (Wall::new(), Arc::new(Recorder::default()));
    let (hub, lines) = (hub(&wall, State::in_memory().unwrap()), [line(&recorder)]);
    let mut agent = Generation::begin(&hub, &wall, &lines);
    store_fails(&hub, true);
    for told in 1..=3 {
        agent.goes_by(4 * HOUR);
        // A repetition that has not arrived gives way to the next: each is waited for.
        recorder.took_all(told).await;
    }
    assert_eq!(recorder.took(), [store(Event::Opened), store(Event::Repeated), store(Event::Repeated)]);
    agent.end().await;
}

#[tokio::test]
async fn a_receiver_that_cannot_be_prepared_fails_alone_and_is_told_of_through_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("not-there");
    let config = format!(
        "encryption = \"none\"\n[cluster.main]\nconnection = \"host=/tmp\"\n[[repository]]\nname = \"a\"\nurl = \
         \"file:///srv/pgkeep\"\n[[alert_sink]]\nname = \"no-ca\"\nkind = \"webhook\"\nurl = \
         \"https://127.0.0.1:1/\"\nca_file = \"{0}\"\n[[alert_sink]]\nname = \"no-secret\"\nkind = \"slack\"\nurl = \
         {{ file = \"{0}\" }}\n",
        missing.display()
    );
    let config = Config::parse(Path::new("/x"), &config).unwrap();
    let (wall, recorder) = (Wall::new(), Arc::new(Recorder::default()));
    let hub = hub(&wall, State::in_memory().unwrap());
    let mut lines: Vec<Line> = config.alert_sinks.iter().map(|c| Line::hasty(NamedSink::of(c))).collect();
    lines.push(line(&recorder));
    let mut agent = Generation::begin(&hub, &wall, &lines);
    for name in ["no-ca", "no-secret"] {
        until(&format!("{name} is shown as failing, with no news to send"), || {
            hub.board.snapshot().sinks.get(name).is_some_and(|sink| sink.failure.is_some())
        })
        .await;
    }
    agent.goes_by(HOUR);
    let opened = |name: &str| (Event::Opened, format!("sink-failing:{name}"));
    assert_eq!(recorder.took_all(2).await, [opened("no-ca"), opened("no-secret")]);
    agent.end().await;
    let sinks = hub.board.snapshot().sinks;
    assert!(sinks["ops"].failure.is_none() && sinks["ops"].delivered_total == 2);
    // Each waits only with what is about the other.
    assert_eq!((sinks["no-ca"].waiting, sinks["no-secret"].waiting), (1, 1));
}
