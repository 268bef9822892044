use super::*;

const STEP: Duration = Duration::from_secs(15);

/// A machine with a clock that it is driven by.
struct Driven {
    machine: Machine,
    config: AlertsConfig,
    now: Timestamp,
    uptime: Duration,
}

impl Driven {
    fn new() -> Self {
        Self::of(Machine::default())
    }
    fn of(machine: Machine) -> Self {
        let now = "2026-11-21T12:00:00Z".parse().unwrap();
        Self { machine, config: AlertsConfig::default(), now, uptime: Duration::ZERO }
    }
    /// What is told at the next look, by event and key.
    fn step(&mut self, findings: &[Finding]) -> Vec<(Event, String)> {
        let elapsed = if self.uptime.is_zero() { Duration::ZERO } else { STEP };
        let tick = Tick { now: self.now, elapsed, uptime: self.uptime };
        let told = self.machine.step("db1", findings.to_vec(), &self.config, tick);
        self.now = self.now.plus(STEP);
        self.uptime += STEP;
        told.into_iter().map(|notice| (notice.event, notice.alert.key)).collect()
    }
    /// Everything that is told while the same is found for this long.
    fn steps(&mut self, findings: &[Finding], span: Duration) -> Vec<(Event, String)> {
        let count = span.as_secs() / STEP.as_secs();
        (0..count).flat_map(|_| self.step(findings)).collect()
    }
}

fn lag() -> Finding {
    Finding {
        rule: "archive-lag",
        labels: BTreeMap::from([("cluster".to_owned(), "main".to_owned())]),
        severity: Severity::Critical,
        summary: "it waits".to_owned(),
        mend: "pgkeep check".to_owned(),
        hold: Duration::ZERO,
    }
}

fn key() -> String {
    "archive-lag:main".to_owned()
}

const HOUR: Duration = Duration::from_hours(1);

#[test]
fn an_alert_is_told_once_and_its_end_once() {
    let mut driven = Driven::new();
    assert_eq!(driven.steps(&[lag()], HOUR), [(Event::Opened, key())]);
    assert_eq!(driven.machine.open().len(), 1);
    assert_eq!(driven.machine.open()[0].runbook.as_deref(), Some("archiving-stalled.md"));
    assert_eq!(driven.steps(&[], HOUR), [(Event::Resolved, key())]);
    assert!(driven.machine.open().is_empty() && driven.machine.watched().is_empty());
}

#[test]
fn what_does_not_hold_for_long_enough_is_never_told() {
    let held = Finding { hold: Duration::from_mins(2), ..lag() };
    let mut driven = Driven::new();
    for _ in 0..20 {
        assert_eq!(driven.steps(std::slice::from_ref(&held), Duration::from_mins(2)), []);
        assert!(driven.machine.open().is_empty());
        assert_eq!(driven.step(&[]), []);
    }
    assert_eq!(driven.steps(&[held], Duration::from_mins(3)), [(Event::Opened, key())]);
}

#[test]
fn what_flaps_while_it_is_open_is_told_once() {
    let mut driven = Driven::new();
    let mut told = driven.step(&[lag()]);
    for _ in 0..100 {
        told.extend(driven.steps(&[], Duration::from_secs(45)));
        told.extend(driven.step(&[lag()]));
    }
    assert_eq!(told, [(Event::Opened, key())]);
    assert_eq!(driven.steps(&[], Duration::from_mins(5)), [(Event::Resolved, key())]);
}

#[test]
fn an_open_alert_is_told_again_now_and_then() {
    let mut driven = Driven::new();
    let told = driven.steps(&[lag()], 9 * HOUR);
    assert_eq!(told, [(Event::Opened, key()), (Event::Repeated, key()), (Event::Repeated, key())]);
    let warning = Finding { severity: Severity::Warning, ..lag() };
    assert_eq!(Driven::new().steps(&[warning], 23 * HOUR), [(Event::Opened, key())]);
}

#[test]
fn what_becomes_worse_is_told_at_once_and_does_not_become_better() {
    let warning = Finding { severity: Severity::Warning, ..lag() };
    let mut driven = Driven::new();
    driven.step(std::slice::from_ref(&warning));
    let tick = Tick { now: driven.now, elapsed: STEP, uptime: STEP };
    let told = driven.machine.step("db1", vec![lag()], &driven.config, tick);
    assert_eq!((told[0].event, told[0].risen_from), (Event::Opened, Some(Severity::Warning)));
    assert_eq!(told[0].alert.severity, Severity::Critical);
    assert_eq!(driven.steps(&[warning], HOUR), []);
    assert_eq!(driven.machine.open()[0].severity, Severity::Critical);
}

#[test]
fn a_restart_neither_forgets_nor_repeats() {
    let mut driven = Driven::new();
    driven.steps(&[lag()], HOUR);
    let mut again = Driven { now: driven.now, ..Driven::of(Machine::with(driven.machine.watched())) };
    // Right after a start nothing is known yet, and nothing is found: that is no end.
    assert_eq!(again.steps(&[], Duration::from_mins(2)), []);
    assert_eq!(again.steps(&[lag()], HOUR), []);
    assert_eq!(again.steps(&[], HOUR), [(Event::Resolved, key())]);
}

#[test]
fn a_lost_memory_costs_one_repetition() {
    let mut driven = Driven::new();
    driven.steps(&[lag()], HOUR);
    let mut again = Driven { now: driven.now, ..Driven::new() };
    assert_eq!(again.steps(&[lag()], HOUR), [(Event::Opened, key())]);
}

#[test]
fn a_clock_that_jumps_neither_opens_nor_resolves_nor_silences() {
    let held = Finding { hold: Duration::from_mins(2), ..lag() };
    let mut driven = Driven::new();
    driven.step(std::slice::from_ref(&held));
    driven.now = driven.now.plus(24 * HOUR);
    assert_eq!(driven.step(std::slice::from_ref(&held)), []);
    driven.steps(std::slice::from_ref(&held), Duration::from_mins(2));
    driven.now = driven.now.plus(24 * HOUR);
    assert_eq!(driven.step(&[]), [], "gone for one look only");
    // Told in what is now the future: when was that?
    driven.now = driven.now.minus(48 * HOUR);
    assert_eq!(driven.step(&[held]), [(Event::Repeated, key())]);
}

#[test]
fn the_worst_and_oldest_come_first() {
    let named = |name: &str, severity| Finding {
        labels: BTreeMap::from([("cluster".to_owned(), name.to_owned())]),
        severity,
        ..lag()
    };
    let mut driven = Driven::new();
    let (a, b, c) =
        (named("a", Severity::Warning), named("b", Severity::Critical), named("c", Severity::Critical));
    driven.step(&[a.clone(), c.clone()]);
    driven.step(&[a, b, c]);
    let keys: Vec<String> = driven.machine.open().into_iter().map(|alert| alert.key).collect();
    assert_eq!(keys, ["archive-lag:c", "archive-lag:b", "archive-lag:a"]);
}
