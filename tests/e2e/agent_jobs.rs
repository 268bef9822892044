//! Jobs: run by hand and by schedule, once for each scheduled time whatever dies, and by one host of several.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use pgkeep::agent::State;
use pgkeep::agent::scheduler::Memory;
use pgkeep::agent::state::damage::{self, Place};
use pgkeep::agent::state::runs;
use pgkeep::model::{ClusterName, JobName, SegmentName};
use serde_json::{Value, json};

use crate::support::root::Ids;
use crate::support::{Agent, EnvOptions, Pg, Pgkeep, TestEnv, eventually, eventually_some};
use crate::wal_place::{place, segment_size, segments, wal_file};

const SOON: Duration = Duration::from_secs(90);
/// It came on the first of January and comes in the next year: never while a test runs.
const SCHEDULE: &str = "0 0 1 1 *";

/// The job `nightly`, without jitter, tried again after a second.
fn job(keys: &str) -> String {
    format!(
        "[[job]]\nname = \"nightly\"\nkind = \"full\"\nschedule = \"{SCHEDULE}\"\njitter = \"0s\"\n\
         retry_after = \"1s\"\n{keys}\n"
    )
}
fn env(keys: &str) -> TestEnv {
    EnvOptions::new(17).pg(|pg| pg.segment_mib(1)).config(&job(keys)).build()
}
/// The agent has not run since 2020.
fn missed(state_directory: &Path) {
    let path = state_directory.join("agent.db");
    let name = JobName::parse("nightly").unwrap();
    let memory = Memory { handled_to: "2020-01-01T00:00:00Z".parse().unwrap(), retry: None };
    let state = State::open(&path).unwrap();
    runs::remember(&state, &name, &format!("{SCHEDULE} UTC"), &memory).unwrap();
    drop(state);
    Ids::server().own(&path);
}
fn history(agent: &Agent) -> Vec<Value> {
    let answer = agent.ask(&json!({"op": "jobs", "job": "nightly", "history": 20}));
    answer["jobs"][0]["history"].as_array().unwrap().clone()
}
/// The runs, once the newest of them has this outcome.
#[track_caller]
fn ended(agent: &Agent, outcome: &str) -> Vec<Value> {
    eventually_some(&format!("a run is {outcome}"), SOON, || {
        Some(history(agent)).filter(|runs| runs.first().is_some_and(|run| run["outcome"] == outcome))
    })
}
#[track_caller]
fn wait_phase(agent: &Agent, phase: &str) {
    eventually(&format!("the run comes to `{phase}`"), SOON, || {
        agent.ask(&json!({"op": "jobs"}))["jobs"][0]["running"]["phase"] == phase
    });
}
fn backups(pgkeep: &Pgkeep) -> Vec<Value> {
    let list = pgkeep.clone().global("--json").run(["list"]).ok().json();
    list["backups"].as_array().unwrap().clone()
}
fn slow(env: &TestEnv, millis: u32) -> Pgkeep {
    env.pgkeep.clone().failpoint("backup-after-first-pack", &format!("1*sleep({millis})"))
}

#[test]
fn a_job_runs_by_hand_and_its_run_is_shown_with_and_without_the_agent() {
    let env = env("");
    let agent = env.start_agent();
    env.pgkeep.run(["jobs"]).ok().says("never ran").says("0 0 1 1 * UTC");
    let ran = env.pgkeep.run(["jobs", "run", "nightly"]).ok();
    let taken = backups(&env.pgkeep);
    let [backup] = taken.as_slice() else { panic!("{taken:?}") };
    let id = backup["id"].as_str().unwrap();
    let ran = ran.says(id);
    assert!(ran.stdout.contains("stored in "), "{ran}");
    env.pgkeep.run(["jobs", "nightly"]).ok().says("by hand").says(id);
    let shown = env.pgkeep.clone().global("--json").run(["jobs"]).ok().json();
    assert_eq!((&shown["agent"], &shown["jobs"][0]["last"]["backup"]), (&json!(true), &json!(id)), "{shown}");
    env.pgkeep.run(["jobs", "run", "weekly"]).fails_with("usage", 2).says("it has: nightly");
    env.pgkeep.run(["jobs", "run", "nightly", "--attach"]).fails_with("usage", 2).says("does not run");
    agent.kill();
    env.pgkeep.run(["jobs", "nightly"]).exits(4).says("no agent answers").says(id);
    env.pgkeep.run(["jobs", "run", "nightly"]).fails_with("no-agent", 1);
}

#[test]
fn a_missed_time_is_made_up_for_by_one_backup_even_if_the_agent_dies_in_the_middle() {
    let env = env("");
    missed(&env.state);
    let deadly = env.pgkeep.clone().failpoint("backup-before-publish", "return(kill)");
    let _ = Agent::launch(&env, &deadly).wait().was_killed();
    assert_eq!(backups(&env.pgkeep).len(), 0);
    let agent = env.start_agent();
    let runs = ended(&agent, "done");
    let told: Vec<_> = runs.iter().map(|run| (&run["cause"], &run["attempt"], &run["outcome"])).collect();
    assert_eq!(json!(told), json!([["retry", 2, "done"], ["catch-up", 1, "failed"]]));
    assert!(runs[1]["text"].as_str().unwrap().contains("the agent died"), "{runs:?}");
    assert_eq!(runs[0]["backup"], backups(&env.pgkeep)[0]["id"]);
    assert_eq!(backups(&env.pgkeep).len(), 1);
}

#[test]
fn a_run_outlives_a_reload_and_is_not_begun_twice_and_who_watches_sees_its_end() {
    let env = env("");
    let agent = Agent::start_as(&env, &slow(&env, 20_000));
    let first = env.pgkeep.spawn(["jobs", "run", "nightly"]);
    wait_phase(&agent, "copying");
    env.pgkeep.run(["jobs", "run", "nightly"]).fails_with("busy", 1).says("--attach");
    let second = env.pgkeep.spawn(["jobs", "run", "nightly", "--attach"]);
    agent.reload();
    let (first, second) = (first.wait().ok(), second.wait().ok());
    let taken = backups(&env.pgkeep);
    let [backup] = taken.as_slice() else { panic!("{taken:?}") };
    let id = backup["id"].as_str().unwrap();
    assert!(first.stdout.contains(id) && second.stdout.contains(id), "{first}\n{second}");
}

#[test]
fn at_the_agents_end_a_run_is_stopped_and_begins_again_with_the_next_agent() {
    let env = env("");
    missed(&env.state);
    let agent = Agent::start_as(&env, &slow(&env, 60_000));
    wait_phase(&agent, "copying");
    agent.terminate().exits(0);
    let agent = env.start_agent();
    let runs = ended(&agent, "done");
    assert!(runs[1]["text"].as_str().unwrap().contains("stopped with the agent"), "{runs:?}");
    assert_eq!(runs[0]["attempt"], 1, "the end of the agent is no failure of the job");
    assert_eq!(backups(&env.pgkeep).len(), 1);
}

#[test]
fn a_run_that_takes_longer_than_its_deadline_is_stopped_and_has_failed() {
    let env = env("deadline = \"2s\"");
    let _agent = Agent::start_as(&env, &slow(&env, 60_000));
    let ran = env.pgkeep.run(["jobs", "run", "nightly"]);
    ran.fails_with("job-failed", 1).says("stopped at its deadline of 2s");
    assert_eq!(backups(&env.pgkeep).len(), 0);
    env.pgkeep.run(["jobs"]).ok().says("FAILED: stopped at its deadline");
}

#[test]
fn while_the_store_is_away_a_job_is_tried_as_often_as_it_may_be_and_has_failed() {
    let env = env("retries = 1");
    missed(&env.state);
    let store = env.repo().path().to_path_buf();
    let away = store.with_extension("away");
    std::fs::rename(&store, &away).unwrap();
    let agent = env.start_agent();
    let runs = eventually_some("both tries have failed", SOON, || {
        Some(history(&agent)).filter(|runs| runs.len() == 2)
    });
    let told: Vec<_> = runs.iter().map(|run| (&run["cause"], &run["outcome"])).collect();
    assert_eq!(json!(told), json!([["retry", "failed"], ["catch-up", "failed"]]));
    env.pgkeep.run(["jobs"]).ok().says("2 times in a row");
    let waiting = env.pg.switch_wal();
    std::fs::rename(&away, &store).unwrap();
    // The agent opens a store anew some seconds after it failed; until then archiving is not back, and a backup says so.
    agent.wait_log(&format!("archived cluster=main name={waiting}"), SOON);
    // What was given up is not tried again by itself; by hand it is done.
    env.pgkeep.run(["jobs", "run", "nightly"]).ok();
    assert_eq!(history(&agent).len(), 3);
}

/// The standby, and pgkeep on its host, which believes the primary's host and is believed by it.
fn follower(env: &TestEnv) -> (Pg, Pgkeep) {
    let standby = Pg::standby_of(&env.pg, "standby");
    standby.start();
    let (there, state) = env.beside(&standby);
    let path = env.root.join("standby.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let primary = format!("[cluster.main]\nprimary = \"{}\"\n", env.pg.conninfo());
    std::fs::write(&path, text.replace("[cluster.main]\n", &primary)).unwrap();
    there.run(["init"]).ok();
    let key = |state: &Path| {
        let text = std::fs::read_to_string(state.join("keys/host.pub")).unwrap();
        text.lines().last().unwrap().to_owned()
    };
    let trust = format!("[trust]\nhosts = [\"{}\", \"{}\"]\n", key(&env.state), key(&state));
    for name in ["pgkeep.toml", "standby.toml"] {
        let path = env.root.join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}\n{trust}")).unwrap();
    }
    missed(&env.state);
    missed(&state);
    (standby, there)
}

#[test]
fn of_two_hosts_of_one_cluster_one_takes_the_backup_of_a_scheduled_time() {
    let env = env("");
    let (_standby, there) = follower(&env);
    let agents = [env.start_agent(), Agent::start_beside(&env, &there, "standby")];
    let taken = agents.each_ref().map(|agent| ended(agent, "done")[0]["backup"].clone());
    let listed = backups(&env.pgkeep);
    let [backup] = listed.as_slice() else { panic!("{listed:#?}\n{}\n{}", agents[0].log(), agents[1].log()) };
    assert_eq!(taken, [backup["id"].clone(), backup["id"].clone()]);
}

#[test]
fn a_job_of_the_standby_runs_there_while_the_primary_leaves_it_the_time() {
    let env = env("run_on = \"standby\"\nstandby_grace = \"1h\"");
    let (_standby, there) = follower(&env);
    let at_primary = env.start_agent();
    let at_standby = Agent::start_beside(&env, &there, "standby");
    let run = ended(&at_standby, "done").remove(0);
    let shown = env.pgkeep.clone().global("--json").run(["show", run["backup"].as_str().unwrap()]).ok();
    assert!(shown.stdout.contains("\"from_standby\": true"), "{shown}");
    assert_eq!((backups(&env.pgkeep).len(), history(&at_primary)), (1, Vec::new()));
}

/// Waits until the agent has looked once more for what damage asks for: a place noted here is then done with, too.
fn look_of_damage(env: &TestEnv, agent: &Agent, last: &str) {
    let path = env.state.join("agent.db");
    let (state, cluster) = (State::open(&path).unwrap(), ClusterName::parse("main").unwrap());
    let (segment, what) = (SegmentName::parse(last).unwrap(), "noted by the test".to_owned());
    let before = segment.previous(segment_size(env)).unwrap();
    let now = "2020-01-01T00:00:00Z".parse().unwrap();
    assert!(damage::note(&state, &cluster, &Place { last: before, what }, now).unwrap());
    agent.wait_log("noted by the test: the backup begins behind it", SOON);
    assert_eq!(damage::open(&state, &cluster).unwrap(), []);
}

#[test]
fn damaged_wal_makes_the_agent_take_one_full_backup_that_begins_behind_it() {
    let env = place(EnvOptions::new(17).pg(|pg| pg.segment_mib(1).conf("wal_keep_size = '200MB'")));
    let name = segments(&env, 2).remove(1);
    let path = wal_file(&env, &name);
    let mut bad = std::fs::read(&path).unwrap();
    bad[4000] ^= 0x10;
    std::fs::write(&path, &bad).unwrap();
    // It stands still where the backup begins until archiving is on, or the backup would rightly be refused.
    let agent = Agent::start_as(&env, &env.pgkeep.clone().failpoint("job-begun", "return(stop)"));
    eventually("the agent begins a backup", SOON, || agent.is_stopped());
    env.turn_archiving_on();
    agent.signal(Signal::SIGCONT);
    agent.wait_log("the backup begins behind it", SOON);
    let taken = backups(&env.pgkeep);
    let [backup] = taken.as_slice() else { panic!("{taken:?}") };
    assert!(backup["wal_first"].as_str().unwrap() > name.as_str(), "{backup}");
    // A place that is covered is done with, also for the next agent.
    agent.terminate().exits(0);
    let agent = env.start_agent();
    let facts = || agent.ask(&json!({"op": "status"}))["snapshot"]["clusters"]["main"]["archive"].clone();
    eventually("the damage is seen again", SOON, || facts()["damaged"] == json!([name]));
    look_of_damage(&env, &agent, &name);
    assert_eq!(backups(&env.pgkeep).len(), 1);
}
