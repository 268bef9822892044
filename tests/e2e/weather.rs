//! Bad weather between the agent and its store, under load: slow answers, resets, lost answers, 503, requests that
//! stall, an outage. No segment may be lost, PostgreSQL never told yes wrongly, the agent stays small and catches up, and
//! whoever is told hears of it once.
//!
//! `PGKEEP_TEST_WEATHER=full` is the whole measure: a minute of each, five minutes of outage, segments of 16 MiB, and
//! the figures on standard error.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::receivers::{Alertmanager, Hook, told, told_by_alertmanager};
use crate::support::{Agent, EnvOptions, Fault, FaultProxy, Root, Rule, S3, TestEnv, eventually};
use pgkeep::model::SegmentName;

/// How long, how much.
struct Scale {
    phase: Duration,
    outage: Duration,
    segment_mib: u32,
    /// Transactions a second.
    rate: u32,
    catch_up: Duration,
    /// When alerts rise, and for how long they must be gone.
    threshold: Duration,
}

impl Scale {
    fn chosen() -> Self {
        match std::env::var("PGKEEP_TEST_WEATHER").as_deref() {
            Ok("full") => Self {
                phase: Duration::from_mins(1),
                outage: Duration::from_mins(5),
                segment_mib: 16,
                rate: 300,
                catch_up: Duration::from_mins(5),
                threshold: Duration::from_secs(5),
            },
            _ => Self {
                phase: Duration::from_secs(2),
                outage: Duration::from_secs(8),
                segment_mib: 1,
                rate: 60,
                catch_up: Duration::from_secs(90),
                threshold: Duration::from_secs(4),
            },
        }
    }
    fn is_full(&self) -> bool {
        self.segment_mib == 16
    }
}

/// What the agent may have resident, a debug build under load; `DESIGN.md` gives 256 MiB during a backup.
const BOUND: u64 = 256 << 20;

struct Place {
    env: TestEnv,
    proxy: FaultProxy,
    hook: Hook,
    alertmanager: Alertmanager,
    /// PostgreSQL's yes to each file, in order.
    acknowledged: PathBuf,
    _root: std::sync::Arc<Root>,
}

fn place(scale: &Scale) -> Place {
    let root = Root::new();
    let hook = Hook::start();
    let alertmanager = Alertmanager::start(&root, &hook.url("/am"));
    let store = S3::fresh_bucket();
    let proxy = FaultProxy::before(store.endpoint());
    let threshold = scale.threshold.as_secs();
    let config = format!(
        "[alerts]\ncheck_interval = \"500ms\"\nstore_unreachable = \"{threshold}s\"\narchive_lag = \"{threshold}s\"\n\
         settle = \"{threshold}s\"\n\
         [[alert_sink]]\nname = \"am\"\nkind = \"alertmanager\"\nurl = \"{}\"\n\
         [[alert_sink]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"{}\"\n",
        alertmanager.url(),
        hook.url("/hook")
    );
    let endpoint = proxy.endpoint();
    let env = EnvOptions::new(17)
        .pg(|pg| pg.segment_mib(scale.segment_mib).conf("archive_timeout = 1s").conf("max_wal_size = '4GB'"))
        .s3_repository_at("s3", true, store, &endpoint)
        .config(&config)
        .build();
    let acknowledged = env.root.file("acknowledged", 0o666, "");
    env.pg.add_conf(&format!(
        "archive_command = '{} && echo %f >> {}'",
        env.archive_command(),
        acknowledged.display()
    ));
    env.pg.reload();
    Place { env, proxy, hook, alertmanager, acknowledged, _root: root }
}

/// pgbench until it is dropped.
struct Load(Child);

impl Load {
    fn begin(env: &TestEnv, rate: u32) -> Self {
        let (dir, port) = env.pg.socket();
        let (dir, port) = (dir.display().to_string(), port.to_string());
        let place = ["-h", &dir, "-p", &port, "-U", "postgres"];
        env.pg.build.run_tool("pgbench", place.iter().chain(&["-i", "-s", "1", "-q", "postgres"]));
        let rate = rate.to_string();
        let mut command = env.pg.build.tool("pgbench");
        command.args(place).args(["-n", "-c", "2", "-T", "3600", "-R", &rate, "postgres"]);
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is looked at all the time.
struct Watch<'a> {
    place: &'a Place,
    agent: &'a Agent,
    most_resident: u64,
    most_waiting: u64,
}

impl Watch<'_> {
    fn for_(&mut self, span: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < span {
            self.look();
            std::thread::sleep(Duration::from_millis(500));
        }
    }
    fn look(&mut self) {
        self.most_resident = self.most_resident.max(self.agent.resident_bytes());
        self.most_waiting = self.most_waiting.max(self.archive()["waiting_files"].as_u64().unwrap_or(0));
        // First what was acknowledged, then what is there: past the proxy, in the store itself.
        let acknowledged = self.acknowledged();
        let stored = self.stored();
        for name in &acknowledged {
            assert!(
                stored.iter().any(|key| key.contains(&format!("/{name}-"))),
                "{name} was lost: {stored:?}"
            );
        }
    }
    fn archive(&self) -> Value {
        self.agent.ask(&json!({"op": "status"}))["snapshot"]["clusters"]["main"]["archive"].clone()
    }
    fn acknowledged(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.place.acknowledged).unwrap();
        // A last line without its end is still being written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().filter(|name| SegmentName::parse(name).is_some()).map(str::to_owned).collect()
    }
    fn stored(&self) -> Vec<String> {
        self.place.env.repo().list()
    }
}

fn phases() -> Vec<(&'static str, Vec<Rule>)> {
    let sometimes = Rule::sometimes;
    vec![
        ("slow answers", vec![Rule::always(Fault::Latency(Duration::from_millis(400)))]),
        (
            "resets",
            vec![
                sometimes(Fault::ResetBefore, 0.2),
                sometimes(Fault::ResetMidway, 0.15),
                sometimes(Fault::LoseAnswer, 0.15),
            ],
        ),
        ("503", vec![sometimes(Fault::Status(503), 0.5)]),
        ("stalls", vec![sometimes(Fault::Stall, 0.1), sometimes(Fault::StallMidway, 0.1)]),
    ]
}

/// Firing and resolved by turns, and resolved at the end.
fn assert_once_each(told: &Told, begin: &str) {
    for (key, events) in told {
        let turns: Vec<&str> = events.iter().map(String::as_str).collect();
        let expected: Vec<&str> = [begin, "resolved"].into_iter().cycle().take(turns.len()).collect();
        assert!(turns == expected && turns.len().is_multiple_of(2), "{key}: {turns:?}");
    }
}

/// What an outage must raise.
const RISES: [&str; 2] = ["store-unreachable:s3", "archive-lag:main"];
const QUIET: Duration = Duration::from_mins(1);

type Told = BTreeMap<String, Vec<String>>;

fn count(key: &str, told: &Told) -> usize {
    told.get(key).map_or(0, Vec::len)
}

#[test]
fn weather_of_every_kind_loses_no_segment_and_is_told_once() {
    let scale = Scale::chosen();
    let place = place(&scale);
    let agent = place.env.start_agent();
    let load = Load::begin(&place.env, scale.rate);
    place.env.backup();
    let mut watch = Watch { place: &place, agent: &agent, most_resident: 0, most_waiting: 0 };
    watch.for_(scale.phase);
    for (name, rules) in phases() {
        place.proxy.rules(rules);
        watch.for_(scale.phase);
        if scale.is_full() {
            eprintln!("{name}: {} files acknowledged", watch.acknowledged().len());
        }
        place.proxy.calm();
    }
    wait_resolved(&place, &agent);
    let before = told(&place.hook, "/hook");
    outage(&mut watch, &scale, &before);
    let (backlog, up) = (watch.archive()["waiting_files"].clone(), Instant::now());
    place.proxy.up();
    caught_up(&mut watch, scale.catch_up);
    let took = up.elapsed();
    drop(load);
    wait_resolved(&place, &agent);
    let told = told(&place.hook, "/hook");
    assert_once_each(&told, "opened");
    assert_once_each(&told_by_alertmanager(&place.hook, "/am"), "firing");
    for key in RISES {
        // Afterwards a slow machine may lag again; the whole measure has the time to tell.
        let more = count(key, &told) - count(key, &before);
        assert!(if scale.is_full() { more == 2 } else { more >= 2 }, "once for the outage: {told:?}");
    }
    assert!(watch.most_resident < BOUND, "{} bytes resident", watch.most_resident);
    nothing_is_missing(&place, &watch);
    if scale.is_full() {
        eprintln!(
            "weather: {} files acknowledged; most waiting {}, after the outage {backlog}, shipped {took:?} later; most \
             resident {} MiB; told: {told:?}",
            watch.acknowledged().len(),
            watch.most_waiting,
            watch.most_resident >> 20
        );
    }
}

/// Nobody answers; that is told, once, and shown by the Alertmanager.
fn outage(watch: &mut Watch<'_>, scale: &Scale, before: &Told) {
    let place = watch.place;
    place.proxy.down();
    watch.for_(scale.outage);
    let told = || told(&place.hook, "/hook");
    for key in RISES {
        eventually(&format!("{key} is told; {}", watch.agent.log()), Duration::from_secs(30), || {
            count(key, &told()) > count(key, before)
        });
        assert_eq!(count(key, &told()), count(key, before) + 1, "told once while it lasts: {:?}", told());
    }
    eventually("the Alertmanager shows both", Duration::from_secs(30), || {
        let critical = |alert: &&Value| alert["labels"]["severity"] == "critical";
        place.alertmanager.firing().iter().filter(critical).count() >= RISES.len()
    });
}

/// Nothing is open, and everybody knows it.
fn wait_resolved(place: &Place, agent: &Agent) {
    eventually(&format!("what the weather raised is over; {}", agent.log()), QUIET, || {
        open(agent).is_empty()
    });
    eventually("the resolutions have arrived", QUIET, || {
        let (hook, am) = (told(&place.hook, "/hook"), told_by_alertmanager(&place.hook, "/am"));
        let over = |told: &Told| told.values().all(|events| events.last().unwrap() == "resolved");
        over(&hook) && over(&am) && hook.keys().all(|key| am.contains_key(key))
    });
}

fn open(agent: &Agent) -> Vec<Value> {
    agent.ask(&json!({"op": "alerts"}))["alerts"].as_array().unwrap().clone()
}

/// All that waited when this began is shipped, though the load goes on.
fn caught_up(watch: &mut Watch<'_>, limit: Duration) {
    let last = watch.place.env.pg.switch_wal();
    eventually(&format!("{last} is acknowledged; {}", watch.agent.log()), limit, || {
        watch.look();
        watch.acknowledged().contains(&last)
    });
}

/// Every segment from the first to the last is there, and what they hold is what was committed.
fn nothing_is_missing(place: &Place, watch: &Watch<'_>) {
    let env = &place.env;
    let last = env.pg.switch_and_archive();
    let size = crate::wal_place::segment_size(env);
    let acknowledged = watch.acknowledged();
    let number = |name: &str| SegmentName::parse(name).unwrap().number(size);
    let (first, last) = (number(&acknowledged[0]), number(&last));
    let stored = watch.stored();
    for n in first..=last {
        let name = SegmentName::numbered(SegmentName::parse(&acknowledged[0]).unwrap().timeline, n, size);
        let objects = stored.iter().filter(|key| key.contains(&format!("/{name}-"))).count();
        assert_eq!(objects, 1, "{name}");
    }
    let sums = "select (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches), \
                (select sum(delta) from pgbench_history), (select count(*) from pgbench_history)";
    let expected = env.pg.sql(sums);
    let dir = env.side_dir("again");
    env.pgkeep.run(["restore", "--to", "latest", "--target-dir", dir.to_str().unwrap(), "--yes"]).ok();
    assert_eq!(env.side(&dir).sql(sums), expected);
    assert!(expected[0][0] == expected[0][1] && expected[0][1] == expected[0][2], "{expected:?}");
}
