use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;
use crate::agent::State;
use crate::agent::alerts::tests::{Recorder, Wall, hub, notice, until};

struct Place {
    hub: Hub,
    wall: Wall,
    recorder: Arc<Recorder>,
    line: Line,
}

impl Place {
    fn new() -> Self {
        let (wall, recorder) = (Wall::new(), Arc::new(Recorder::default()));
        let hub = hub(&wall, State::in_memory().unwrap());
        let line = Line::hasty(NamedSink::scripted("ops", Arc::<Recorder>::clone(&recorder)));
        Self { hub, wall, recorder, line }
    }
    fn push(&self, event: Event, key: &str) {
        self.line.push(&self.hub, None, notice(event, key, self.wall.now()));
    }
    fn run(&self) {
        let (line, hub) = (self.line.clone(), self.hub.clone());
        tokio::spawn(async move { line.run(&hub).await });
    }
    fn facts(&self) -> SinkFacts {
        self.hub.board.snapshot().sinks["ops"].clone()
    }
}

#[tokio::test]
async fn a_receiver_that_was_down_for_an_hour_hears_everything_once_and_in_order() {
    let place = Place::new();
    place.recorder.deaf.store(true, Ordering::SeqCst);
    place.run();
    place.push(Event::Opened, "a");
    place.push(Event::Opened, "b");
    until("it fails", || place.facts().failure.is_some()).await;
    place.wall.set(place.wall.now().plus(Duration::from_hours(1)));
    place.push(Event::Resolved, "a");
    until("it is tried again and again", || place.recorder.tries.load(Ordering::SeqCst) > 10).await;
    assert_eq!((place.facts().waiting, place.facts().delivered_total), (3, 0));
    place.recorder.deaf.store(false, Ordering::SeqCst);
    let told = [(Event::Opened, "a"), (Event::Opened, "b"), (Event::Resolved, "a")];
    let told = told.map(|(event, key)| (event, key.to_owned()));
    assert_eq!(place.recorder.took_all(3).await, told);
    until("that is on the board", || {
        let facts = place.facts();
        facts.failure.is_none() && facts.waiting == 0 && facts.delivered_total == 3
    })
    .await;
    assert_eq!(place.facts().dropped_total, 0);
}

#[tokio::test]
async fn what_is_refused_for_good_is_given_up_after_a_few_tries_and_holds_up_nothing() {
    let place = Place::new();
    place.recorder.refuses.store(true, Ordering::SeqCst);
    place.push(Event::Opened, "a");
    place.run();
    until("it is given up", || place.facts().dropped_total == 1).await;
    assert_eq!(place.recorder.tries.load(Ordering::SeqCst), REFUSALS);
    place.recorder.refuses.store(false, Ordering::SeqCst);
    place.push(Event::Opened, "b");
    assert_eq!(place.recorder.took_all(1).await, [(Event::Opened, "b".to_owned())]);
}

#[tokio::test]
async fn news_of_yesterday_is_given_up_while_nobody_listens() {
    let place = Place::new();
    place.recorder.deaf.store(true, Ordering::SeqCst);
    place.push(Event::Opened, "a");
    place.run();
    until("it is tried", || place.recorder.tries.load(Ordering::SeqCst) > 3).await;
    assert_eq!(place.facts().dropped_total, 0);
    place.wall.set(place.wall.now().plus(Duration::from_hours(25)));
    until("it is given up", || place.facts().dropped_total == 1).await;
    // A clock that was set back makes nothing old.
    place.push(Event::Opened, "b");
    place.wall.set(place.wall.now().minus(Duration::from_hours(1000)));
    place.recorder.deaf.store(false, Ordering::SeqCst);
    assert_eq!(place.recorder.took_all(1).await, [(Event::Opened, "b".to_owned())]);
}

#[tokio::test]
async fn what_waits_is_bounded_and_a_repetition_replaces_the_one_before() {
    let place = Place::new();
    for n in 0..WAITING + 5 {
        place.push(Event::Opened, &n.to_string());
    }
    assert_eq!((place.facts().waiting, place.facts().dropped_total), (500, 5));
    let place = Place::new();
    place.push(Event::Opened, "a");
    place.push(Event::Repeated, "a");
    place.push(Event::Repeated, "b");
    place.push(Event::Repeated, "a");
    place.run();
    let told = [(Event::Opened, "a"), (Event::Repeated, "b"), (Event::Repeated, "a")];
    assert_eq!(place.recorder.took_all(3).await, told.map(|(event, key)| (event, key.to_owned())));
}

#[tokio::test]
async fn a_notice_leaves_the_memory_only_when_it_was_taken() {
    let place = Place::new();
    let one = notice(Event::Opened, "a", place.wall.now());
    let ids = state::alerts::record(&place.hub.state, &[], &[("ops".to_owned(), one.clone())]).unwrap();
    place.recorder.deaf.store(true, Ordering::SeqCst);
    place.line.push(&place.hub, Some(ids[0]), one);
    place.run();
    until("it is tried", || place.recorder.tries.load(Ordering::SeqCst) > 3).await;
    assert_eq!(state::alerts::undelivered(&place.hub.state).unwrap().len(), 1);
    place.recorder.deaf.store(false, Ordering::SeqCst);
    place.recorder.took_all(1).await;
    until("it is forgotten", || state::alerts::undelivered(&place.hub.state).unwrap().is_empty()).await;
}

#[tokio::test]
async fn a_receiver_does_not_hear_that_it_was_deaf_itself() {
    let place = Place::new();
    let mut about = notice(Event::Opened, "sink-failing:ops", place.wall.now());
    about.alert.rule = "sink-failing".to_owned();
    about.alert.labels = [("sink".to_owned(), "ops".to_owned())].into();
    assert!(!place.line.wants(&about));
    about.alert.labels = [("sink".to_owned(), "other".to_owned())].into();
    assert!(place.line.wants(&about));
}
