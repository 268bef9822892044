//! Time travel: schedules, clocks that jump, runs that last, in a world whose clock the test moves.

use super::due::{Around, Due, Memory, Next, Pass, Retry, next};
use super::round::{Action, PassedOver, Scheduler};
use super::*;
use crate::config::{JobConfig, JobWork, RunOn, Schedule};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn minutes(count: u64) -> Duration {
    Duration::from_mins(count)
}

fn job(name: &str, schedule: &str, zone: &str) -> JobConfig {
    let schedule = Schedule::parse(schedule, zone.parse().unwrap()).unwrap();
    let (name, cluster) = (JobName::parse(name).unwrap(), ClusterName::parse("main").unwrap());
    JobConfig { jitter: Duration::from_millis(1), ..JobConfig::new(name, JobWork::Full, cluster, schedule) }
}

/// The agent's loop in small: what runs, for how long, and what is remembered.
struct World {
    now: Timestamp,
    scheduler: Scheduler,
    memories: BTreeMap<JobName, Memory>,
    running: Running,
    ends: BTreeMap<JobName, (Timestamp, bool)>,
    tries: BTreeMap<JobName, u32>,
    /// How long a run takes, and whether it succeeds, by the job's name.
    takes: fn(&str) -> (Duration, bool),
    role: Role,
    log: Vec<String>,
}

impl World {
    fn new(now: &str, jobs: Vec<JobConfig>) -> Self {
        let now = at(now);
        let fresh = |job: &JobConfig| (job.name.clone(), Memory { handled_to: now, retry: None });
        Self {
            now,
            memories: jobs.iter().map(fresh).collect(),
            scheduler: Scheduler::new(jobs, "db1".into(), now),
            running: Running::new(),
            ends: BTreeMap::new(),
            tries: BTreeMap::new(),
            takes: |_| (Duration::from_secs(20), true),
            role: Role::Primary,
            log: Vec::new(),
        }
    }
    fn say(&mut self, what: impl std::fmt::Display) {
        self.log.push(format!("{} {what}", self.now.0.format("%d %H:%M")));
    }
    fn end_runs(&mut self) {
        let now = self.now;
        let ended: Vec<_> =
            self.ends.iter().filter(|(_, (end, _))| *end <= now).map(|(n, _)| n.clone()).collect();
        for name in ended {
            let (_, done) = self.ends.remove(&name).unwrap();
            let occupied = self.running.remove(&name).unwrap();
            let job = self.scheduler.jobs().iter().find(|job| job.name == name).unwrap();
            if let Some(slot) = occupied.slot.filter(|_| !done) {
                let retry = Retry::after_failure(job, slot, self.tries[&name], now);
                self.memories.get_mut(&name).unwrap().retry = retry;
            }
        }
    }
    /// One look.
    fn look(&mut self) -> Timestamp {
        self.end_runs();
        let role = self.role;
        let round = self.scheduler.look(self.now, &self.memories, &self.running, |_| role);
        for action in round.actions {
            match action {
                Action::Start { job, cause, slot, attempt } => {
                    self.say(format!("{} {} {}", job.name, cause.as_str(), slot.0.format("%d %H:%M")));
                    self.memories.insert(job.name.clone(), Memory { handled_to: slot, retry: None });
                    let class = Class::of(&job.work);
                    let occupied = Occupied { cluster: job.cluster.clone(), class, slot: Some(slot) };
                    self.running.insert(job.name.clone(), occupied);
                    let (takes, done) = (self.takes)(job.name.as_str());
                    self.ends.insert(job.name.clone(), (self.now.plus(takes), done));
                    self.tries.insert(job.name, attempt);
                }
                Action::PassOver { job, slot, why } => {
                    self.say(format!("{} passed over {} {why:?}", job.name, slot.0.format("%d %H:%M")));
                    self.memories.insert(job.name, Memory { handled_to: slot, retry: None });
                }
                Action::Forget { job } => {
                    self.say(format!("{} forgets", job.name));
                    self.memories.insert(job.name, Memory { handled_to: self.now, retry: None });
                }
            }
        }
        round.wake
    }
    /// Lets the time pass as the loop does: a look at least every half minute.
    fn until(&mut self, end: &str) -> &mut Self {
        let end = at(end);
        loop {
            let wake = self.look();
            if self.now >= end {
                return self;
            }
            let soonest_end = self.ends.values().map(|(end, _)| *end).min().unwrap_or(end);
            self.now = wake.min(soonest_end).max(self.now.plus(Duration::from_millis(50))).min(end);
        }
    }
    /// The clock is set.
    fn clock(&mut self, to: &str) -> &mut Self {
        self.now = at(to);
        self
    }
    /// The agent is started anew.
    fn restart(&mut self, now: &str) -> &mut Self {
        self.now = at(now);
        (self.running, self.ends) = (Running::new(), BTreeMap::new());
        self.scheduler = Scheduler::new(self.scheduler.jobs().to_vec(), "db1".into(), self.now);
        self
    }
    fn log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }
}

#[test]
fn a_job_runs_once_at_each_of_its_times() {
    let mut world = World::new("2026-11-20T10:00:00Z", vec![job("nightly", "0 2 * * *", "UTC")]);
    world.until("2026-11-23T10:00:00Z");
    assert_eq!(
        world.log(),
        [
            "21 02:00 nightly schedule 21 02:00",
            "22 02:00 nightly schedule 22 02:00",
            "23 02:00 nightly schedule 23 02:00"
        ]
    );
}

#[test]
fn a_job_runs_once_a_day_through_both_changes_of_the_clocks() {
    let mut world = World::new("2026-03-27T12:00:00Z", vec![job("nightly", "30 2 * * *", "Europe/Berlin")]);
    world.until("2026-03-30T12:00:00Z");
    assert_eq!(
        world.log(),
        [
            "28 01:30 nightly schedule 28 01:30",
            "29 01:00 nightly schedule 29 01:00",
            "30 00:30 nightly schedule 30 00:30"
        ]
    );
    let mut world = World::new("2026-10-23T12:00:00Z", vec![job("nightly", "30 2 * * *", "Europe/Berlin")]);
    world.until("2026-10-26T12:00:00Z");
    assert_eq!(
        world.log(),
        [
            "24 00:30 nightly schedule 24 00:30",
            "25 00:30 nightly schedule 25 00:30",
            "26 01:30 nightly schedule 26 01:30"
        ]
    );
}

#[test]
fn times_missed_without_an_agent_are_made_up_for_once() {
    let mut world = World::new("2026-11-16T10:00:00Z", vec![job("nightly", "0 2 * * *", "UTC")]);
    world.restart("2026-11-21T08:00:00Z").until("2026-11-22T03:00:00Z");
    assert_eq!(world.log(), ["21 08:00 nightly catch-up 21 02:00", "22 02:00 nightly schedule 22 02:00"]);
}

#[test]
fn without_catch_up_missed_times_are_passed_over() {
    let mut hourly = job("hourly", "0 * * * *", "UTC");
    hourly.catch_up = false;
    let mut world = World::new("2026-11-21T02:30:00Z", vec![hourly]);
    world.restart("2026-11-21T08:20:00Z").until("2026-11-21T09:10:00Z");
    assert_eq!(
        world.log(),
        ["21 08:20 hourly passed over 21 08:00 Missed", "21 09:00 hourly schedule 21 09:00"]
    );
}

#[test]
fn a_host_that_slept_makes_up_for_what_it_slept_through() {
    let mut world = World::new("2026-11-21T00:00:00Z", vec![job("hourly", "0 * * * *", "UTC")]);
    world.until("2026-11-21T01:30:00Z").clock("2026-11-21T06:40:00Z").until("2026-11-21T07:10:00Z");
    assert_eq!(
        world.log(),
        [
            "21 01:00 hourly schedule 21 01:00",
            "21 06:40 hourly catch-up 21 06:00",
            "21 07:00 hourly schedule 21 07:00"
        ]
    );
}

#[test]
fn a_clock_set_back_runs_no_time_twice() {
    for back in ["2026-11-21T01:00:00Z", "2026-11-20T23:00:00Z", "2026-11-20T02:30:00Z"] {
        let mut world = World::new("2026-11-20T10:00:00Z", vec![job("nightly", "0 2 * * *", "UTC")]);
        world.until("2026-11-21T02:10:00Z").clock(back).until("2026-11-22T03:00:00Z");
        assert_eq!(
            world.log(),
            ["21 02:00 nightly schedule 21 02:00", "22 02:00 nightly schedule 22 02:00"],
            "back to {back}"
        );
    }
    let mut world = World::new("2026-11-21T08:30:00Z", vec![job("hourly", "0 * * * *", "UTC")]);
    world.until("2026-11-21T10:10:00Z").clock("2026-11-21T08:40:00Z").until("2026-11-21T11:10:00Z");
    assert_eq!(
        world.log(),
        [
            "21 09:00 hourly schedule 21 09:00",
            "21 10:00 hourly schedule 21 10:00",
            "21 11:00 hourly schedule 21 11:00"
        ]
    );
}

#[test]
fn a_clock_set_back_survives_a_restart() {
    let mut world = World::new("2026-11-20T10:00:00Z", vec![job("nightly", "0 2 * * *", "UTC")]);
    world.until("2026-11-21T02:10:00Z").restart("2026-11-21T01:30:00Z").until("2026-11-21T03:00:00Z");
    assert_eq!(world.log(), ["21 02:00 nightly schedule 21 02:00"]);
}

#[test]
fn a_clock_that_was_ten_years_ahead_does_not_silence_the_job_for_ten_years() {
    let mut world = World::new("2036-11-21T00:00:00Z", vec![job("nightly", "0 2 * * *", "UTC")]);
    world.until("2036-11-21T02:10:00Z").clock("2026-11-21T00:30:00Z").until("2026-11-21T03:00:00Z");
    assert_eq!(
        world.log(),
        [
            "21 02:00 nightly schedule 21 02:00",
            "21 00:30 nightly forgets",
            "21 02:00 nightly schedule 21 02:00"
        ]
    );
}

#[test]
fn a_clock_set_forward_over_several_times_runs_the_job_once() {
    let mut world = World::new("2026-11-17T00:00:00Z", vec![job("nightly", "0 2 * * *", "UTC")]);
    world.until("2026-11-17T01:00:00Z").clock("2026-11-21T12:00:00Z").until("2026-11-21T13:00:00Z");
    assert_eq!(world.log(), ["21 12:00 nightly catch-up 21 02:00"]);
}

#[test]
fn a_schedule_without_a_next_date_waits_for_ever() {
    let yearly = job("yearly", "@yearly", "UTC");
    let now = at("2100-06-01T00:00:00Z");
    let memory = Memory { handled_to: now, retry: None };
    let around = Around { now, since: now, role: Role::Primary, host: "db1" };
    assert_eq!(next(&yearly, &memory, &around), Next::Never);
    let mut world = World::new("2100-06-01T00:00:00Z", vec![yearly]);
    assert_eq!(world.look(), now.plus(LOOK), "it looks on all the same");
    assert!(world.log().is_empty());
}

#[test]
fn a_failed_run_is_tried_again_with_growing_pauses_until_its_tries_are_used_up() {
    let mut world = World::new("2026-11-21T01:00:00Z", vec![job("nightly", "0 2 * * *", "UTC")]);
    world.takes = |_| (minutes(1), false);
    world.until("2026-11-21T23:00:00Z");
    // Each takes a minute; pauses of 5 and 10 minutes.
    assert_eq!(
        world.log(),
        [
            "21 02:00 nightly schedule 21 02:00",
            "21 02:06 nightly retry 21 02:00",
            "21 02:17 nightly retry 21 02:00"
        ]
    );
}

#[test]
fn the_next_scheduled_time_takes_the_place_of_a_planned_try() {
    let mut often = job("often", "*/4 * * * *", "UTC");
    often.retries = 100;
    let mut world = World::new("2026-11-21T01:59:00Z", vec![often]);
    world.takes = |_| (minutes(1), false);
    world.until("2026-11-21T02:09:00Z");
    assert_eq!(
        world.log(),
        [
            "21 02:00 often schedule 21 02:00",
            "21 02:04 often schedule 21 02:04",
            "21 02:08 often schedule 21 02:08"
        ]
    );
}

#[test]
fn a_planned_try_is_not_lost_when_the_clock_goes_back() {
    let mut world = World::new("2026-11-21T01:00:00Z", vec![job("nightly", "0 2 * * *", "UTC")]);
    world.takes = |_| (minutes(1), false);
    world.until("2026-11-21T02:03:00Z").clock("2026-11-21T00:03:00Z");
    world.takes = |_| (minutes(1), true);
    world.until("2026-11-21T12:00:00Z");
    assert_eq!(world.log(), ["21 02:00 nightly schedule 21 02:00", "21 00:03 nightly retry 21 02:00"]);
}

#[test]
fn pauses_between_tries_double_and_have_a_bound() {
    let mut job = job("nightly", "0 2 * * *", "UTC");
    job.retries = 100;
    let now = at("2026-11-21T02:00:00Z");
    let after = |attempt| Retry::after_failure(&job, now, attempt, now).unwrap().after;
    let pauses: Vec<u64> = (1..=6).map(|attempt| after(attempt).as_secs() / 60).collect();
    assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
    assert_eq!(Retry::after_failure(&job, now, 101, now), None);
}

#[test]
fn a_time_that_comes_while_the_job_runs_is_passed_over() {
    let mut world = World::new("2026-11-21T01:30:00Z", vec![job("hourly", "0 * * * *", "UTC")]);
    world.takes = |_| (minutes(130), true);
    world.until("2026-11-21T05:30:00Z");
    assert_eq!(
        world.log(),
        [
            "21 02:00 hourly schedule 21 02:00",
            "21 03:00 hourly passed over 21 03:00 Overlap",
            "21 04:00 hourly passed over 21 04:00 Overlap",
            "21 05:00 hourly schedule 21 05:00"
        ]
    );
}

#[test]
fn an_hourly_job_waits_for_a_long_one_of_its_class_and_then_runs_once() {
    let jobs = vec![job("hourly", "0 * * * *", "UTC"), job("nightly", "10 2 * * *", "UTC")];
    let mut world = World::new("2026-11-21T01:30:00Z", jobs);
    world.takes = |name| if name == "nightly" { (minutes(140), true) } else { (minutes(5), true) };
    world.until("2026-11-21T06:30:00Z");
    assert_eq!(
        world.log(),
        [
            "21 02:00 hourly schedule 21 02:00",
            "21 02:10 nightly schedule 21 02:10",
            // 03:00 and 04:00 have passed: one run for both.
            "21 04:30 hourly schedule 21 04:00",
            "21 05:00 hourly schedule 21 05:00",
            "21 06:00 hourly schedule 21 06:00"
        ]
    );
}

#[test]
fn the_long_job_is_not_starved_by_frequent_ones() {
    let jobs = vec![job("a-often", "* * * * *", "UTC"), job("nightly", "0 2 * * *", "UTC")];
    let mut world = World::new("2026-11-21T01:58:30Z", jobs);
    // The frequent one is always running when the other's time comes.
    world.takes = |name| if name == "nightly" { (minutes(2), true) } else { (Duration::from_secs(90), true) };
    world.until("2026-11-21T02:04:00Z");
    let log = world.log();
    assert!(log.iter().any(|line| line.contains("nightly schedule 21 02:00")), "{log:?}");
}

#[test]
fn clusters_do_not_wait_for_each_other() {
    let mut other = job("other", "0 2 * * *", "UTC");
    other.cluster = ClusterName::parse("second").unwrap();
    let mut world = World::new("2026-11-21T01:30:00Z", vec![job("nightly", "0 2 * * *", "UTC"), other]);
    world.takes = |_| (minutes(60), true);
    world.until("2026-11-21T02:01:00Z");
    assert_eq!(world.log().len(), 2);
}

#[test]
fn jitter_is_within_its_bound_and_always_the_same_for_one_host_and_time() {
    let mut nightly = job("nightly", "0 2 * * *", "UTC");
    nightly.jitter = minutes(10);
    let slot = at("2026-11-21T02:00:00Z");
    let memory = Memory { handled_to: slot.minus(Duration::from_secs(1)), retry: None };
    let begin = |host: &str, since: Timestamp| {
        let around = Around { now: slot, since, role: Role::Primary, host };
        match next(&nightly, &memory, &around) {
            Next::Wait(at) => at.since(slot),
            other => panic!("{other:?}"),
        }
    };
    let early = slot.minus(minutes(60));
    let hosts: Vec<Duration> = (0..20).map(|n| begin(&format!("db{n}"), early)).collect();
    assert!(hosts.iter().all(|jitter| *jitter < minutes(10)), "{hosts:?}");
    assert!(
        hosts.iter().any(|jitter| *jitter > minutes(5)) && hosts.iter().any(|jitter| *jitter < minutes(5))
    );
    assert_eq!(begin("db1", early), begin("db1", early));
}

#[test]
fn jitter_never_reaches_the_next_time() {
    let mut often = job("often", "* * * * *", "UTC");
    often.jitter = minutes(600);
    let mut world = World::new("2026-11-21T01:59:30Z", vec![often]);
    world.takes = |_| (Duration::from_secs(1), true);
    world.until("2026-11-21T02:05:00Z");
    assert_eq!(world.log().len(), 5);
}

#[test]
fn a_job_of_the_primary_is_left_to_it_by_a_standby() {
    let mut primary = job("nightly", "0 2 * * *", "UTC");
    primary.run_on = RunOn::Primary;
    let mut world = World::new("2026-11-21T01:30:00Z", vec![primary]);
    world.role = Role::Standby;
    world.until("2026-11-21T03:00:00Z");
    assert_eq!(world.log(), ["21 02:00 nightly passed over 21 02:00 NotHere(Standby)"]);
    world.role = Role::Primary;
    world.until("2026-11-22T03:00:00Z");
    assert_eq!(world.log(), ["22 02:00 nightly schedule 22 02:00"]);
}

#[test]
fn a_job_of_the_standby_begins_there_at_once_and_on_the_primary_after_its_grace() {
    let mut standby = job("nightly", "0 2 * * *", "UTC");
    standby.run_on = RunOn::Standby;
    for (role, begun) in
        [(Role::Standby, "21 02:00"), (Role::Primary, "21 02:10"), (Role::Unknown, "21 02:05")]
    {
        let mut world = World::new("2026-11-21T01:30:00Z", vec![standby.clone()]);
        world.role = role;
        world.until("2026-11-21T03:00:00Z");
        assert_eq!(world.log(), [format!("{begun} nightly schedule 21 02:00")], "{role:?}");
    }
}

#[test]
fn the_run_that_was_begun_for_a_time_is_not_begun_again_before_it_is_written_down() {
    let nightly = job("nightly", "0 2 * * *", "UTC");
    let now = at("2026-11-21T02:00:10Z");
    let slot = at("2026-11-21T02:00:00Z");
    let memories =
        BTreeMap::from([(nightly.name.clone(), Memory { handled_to: slot.minus(minutes(1)), retry: None })]);
    let occupied = Occupied { cluster: nightly.cluster.clone(), class: Class::Base, slot: Some(slot) };
    let running = Running::from([(nightly.name.clone(), occupied)]);
    let mut scheduler = Scheduler::new(vec![nightly], "db1".into(), slot.minus(minutes(2)));
    assert_eq!(scheduler.look(now, &memories, &running, |_| Role::Primary).actions, []);
}

#[test]
fn a_time_that_is_due_while_the_job_runs_by_hand_is_passed_over() {
    let nightly = job("nightly", "0 2 * * *", "UTC");
    let slot = at("2026-11-21T02:00:00Z");
    let memory = Memory { handled_to: slot.minus(minutes(1)), retry: None };
    let memories = BTreeMap::from([(nightly.name.clone(), memory)]);
    let occupied = Occupied { cluster: nightly.cluster.clone(), class: Class::Base, slot: None };
    let running = Running::from([(nightly.name.clone(), occupied)]);
    let mut scheduler = Scheduler::new(vec![nightly.clone()], "db1".into(), slot.minus(minutes(1)));
    let round = scheduler.look(slot.plus(minutes(1)), &memories, &running, |_| Role::Primary);
    assert_eq!(round.actions, [Action::PassOver { job: nightly, slot, why: PassedOver::Overlap }]);
}

#[test]
fn what_is_due_is_said_with_its_time_and_try() {
    let nightly = job("nightly", "0 2 * * *", "UTC");
    let (slot, now) = (at("2026-11-21T02:00:00Z"), at("2026-11-21T02:00:01Z"));
    let around = |since| Around { now, since, role: Role::Unknown, host: "db1" };
    let memory = |handled_to| Memory { handled_to, retry: None };
    let before = slot.minus(minutes(5));
    assert_eq!(
        next(&nightly, &memory(before), &around(before)),
        Next::Due(Due { slot, attempt: 1, missed: false })
    );
    let mut no_catch_up = nightly.clone();
    no_catch_up.catch_up = false;
    let passed = Next::PassOver { slot, why: Pass::Missed };
    assert_eq!(next(&no_catch_up, &memory(before), &around(now)), passed);
    assert_eq!(
        next(&no_catch_up, &memory(before), &around(before)),
        Next::Due(Due { slot, attempt: 1, missed: false })
    );
    assert!(matches!(next(&nightly, &memory(slot), &around(before)), Next::Wait(_)));
}
