//! The agent's unit: understood by systemd without a word, hardened, and yet the agent can do its work in it. No systemd
//! runs here, so what a unit does to a process is compared with what the process does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::{Agent, TestEnv};

/// Under strace on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

fn unit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/pgkeep.service")
}

fn unit_text() -> String {
    std::fs::read_to_string(unit()).unwrap()
}

/// The values of a key, in their order.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let head = format!("{key}=");
    text.lines().filter_map(|line| line.strip_prefix(head.as_str())).collect()
}

fn analyze(args: &[&str]) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(args).env("SYSTEMD_COLORS", "0").output();
    let output = output.expect("systemd-analyze is missing: run scripts/install-test-deps");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said.into_owned())
}

#[test]
fn systemd_understands_the_unit_without_a_word() {
    let place = tempfile::tempdir().unwrap();
    let copy = place.path().join("pgkeep.service");
    // The program is not installed here, and a program that is missing is a word.
    std::fs::write(&copy, unit_text().replace("ExecStart=/usr/bin/pgkeep", "ExecStart=/bin/true")).unwrap();
    assert_eq!(analyze(&["verify", "--man=no", copy.to_str().unwrap()]), (true, String::new()));
    // It has words for a unit that is wrong.
    std::fs::write(&copy, unit_text().replace("WatchdogSec=", "WatchDogSecs=")).unwrap();
    assert!(analyze(&["verify", "--man=no", copy.to_str().unwrap()]).1.contains("WatchDogSecs"));
}

#[test]
fn the_units_exposure_is_rated_at_most_two_and_a_half() {
    let unit = unit();
    let rate = ["security", "--offline=true", "--no-pager", "--threshold=25", unit.to_str().unwrap()];
    let (ok, said) = analyze(&rate);
    assert!(ok, "{said}");
    assert!(said.contains("Overall exposure level for pgkeep.service"), "{said}");
}

#[test]
fn the_units_memory_limit_leaves_room_above_what_the_agent_needs() {
    let text = unit_text();
    let mebibytes = |key| values(&text, key)[0].trim_end_matches('M').parse::<u32>().unwrap();
    assert!(256 < mebibytes("MemoryHigh") && mebibytes("MemoryHigh") < mebibytes("MemoryMax"));
    // With it systemd would remove PostgreSQL's shared memory when the agent stops: they are one user.
    assert_eq!(values(&text, "RemoveIPC"), ["no"]);
}

/// The sets of system calls that systemd knows, as `@name` → calls and other sets.
fn sets() -> BTreeMap<String, Vec<String>> {
    let (ok, said) = analyze(&["syscall-filter", "--no-pager"]);
    assert!(ok, "{said}");
    let mut sets: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = String::new();
    for line in said.lines().filter(|line| !line.trim().is_empty() && !line.trim().starts_with('#')) {
        if line.starts_with('@') {
            line.trim().clone_into(&mut current);
        } else if line.starts_with(' ') && !current.is_empty() {
            sets.entry(current.clone()).or_default().push(line.trim().to_owned());
        }
    }
    assert!(sets.contains_key("@system-service") && sets.contains_key("@privileged"), "{said}");
    sets
}

fn expand(sets: &BTreeMap<String, Vec<String>>, names: &str, into: &mut BTreeSet<String>) {
    for name in names.split_whitespace() {
        match sets.get(name) {
            Some(inner) => inner.iter().for_each(|name| expand(sets, name, into)),
            None => drop(into.insert(name.to_owned())),
        }
    }
}

/// What the unit lets through.
fn allowed() -> BTreeSet<String> {
    let (sets, text) = (sets(), unit_text());
    let (mut yes, mut no) = (BTreeSet::new(), BTreeSet::new());
    for value in values(&text, "SystemCallFilter") {
        match value.strip_prefix('~') {
            Some(names) => expand(&sets, names, &mut no),
            None => expand(&sets, value, &mut yes),
        }
    }
    &yes - &no
}

/// The calls in a trace of strace.
fn called(trace: &Path) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(&std::fs::read(trace).unwrap()).into_owned();
    let calls = text.lines().filter_map(|line| line.split_whitespace().nth(1)?.split_once('('));
    calls.map(|(name, _)| name.to_owned()).filter(|name| !name.contains(['<', '+', '-'])).collect()
}

#[test]
fn the_unit_lets_through_every_system_call_of_an_agent_at_work() {
    let env = TestEnv::new(17);
    let trace = env.root.file("trace", 0o666, "");
    let words = ["strace", "-f", "-qq", "-A", "-o", trace.to_str().unwrap()];
    let traced = env.pgkeep.clone().under(words);
    // strace is the process that the harness knows; the agent answers with a pid of its own.
    let agent = Agent::launch(&env, &traced);
    // Once it answers, PostgreSQL's pushes go through it.
    agent.wait_log("the agent starts", PATIENCE);
    env.pg.switch_and_archive();
    agent.wait_log("archived", PATIENCE);
    traced.patience(PATIENCE).run(["backup"]).ok();
    drop(agent);
    let (called, allowed) = (called(&trace), allowed());
    assert!(called.contains("inotify_init1") && called.contains("execve"), "{called:?}");
    let refused: Vec<&String> = called.difference(&allowed).collect();
    assert!(refused.is_empty(), "the unit's SystemCallFilter refuses {refused:?}");
    assert!(!allowed.contains("setuid") && !allowed.contains("ptrace"));
}
