//! The primary's host dies in the middle of a load, its archive lagging behind, and the standby is promoted. Each has an
//! agent, both archive into one repository.

use std::time::Duration;

use pgkeep::model::{Inclusion, Lsn, Target};
use serde_json::Value;

use super::{ends_exactly, ends_exactly_with};
use crate::support::{Agent, EnvOptions, Ledger, Load, Pg, Pgkeep, TestEnv, eventually};

use Inclusion::After;

const SOON: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(60);

/// The standby, and pgkeep on its host: a configuration, a state and a socket of its own.
fn follower(env: &TestEnv) -> (Pg, Pgkeep) {
    let standby = Pg::standby_of(&env.pg, "standby");
    let state = env.root.dir("standby.state", 0o700);
    let socket = env.root.join("standby.sock");
    let pgkeep = env.with_config("standby.toml", |text| {
        text.replace(&env.pg.conninfo(), &standby.conninfo())
            .replace(env.pg.data.to_str().unwrap(), standby.data.to_str().unwrap())
            .replace(env.state.to_str().unwrap(), state.to_str().unwrap())
            .replace(env.agent_socket().to_str().unwrap(), socket.to_str().unwrap())
    });
    let command = pgkeep.clone().global("--cluster").global("main").shell_command("wal push %p");
    standby.add_conf(&format!("archive_command = '{command}'"));
    standby.start();
    pgkeep.run(["init"]).ok();
    (standby, pgkeep)
}

fn timelines(env: &TestEnv) -> Vec<Value> {
    let window = env.pgkeep.clone().global("--json").run(["window"]).ok().json();
    window["systems"][0]["timelines"].as_array().unwrap().clone()
}

/// The primary goes on without archiving until some segments wait that only it and the standby have.
fn lag_behind(env: &TestEnv, agent: Agent, ledger: Ledger, standby: &Pg) -> Ledger {
    agent.kill();
    env.pg.add_conf("archive_command = 'false'");
    env.pg.reload();
    let writer = ledger.write_in_background(&env.pg, Duration::from_millis(5));
    let status = env.pg.data.join("pg_wal/archive_status");
    eventually("segments wait", SOON, || {
        let names = std::fs::read_dir(&status).unwrap().flatten().map(|e| e.file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".ready")).count() >= 3
    });
    let mut ledger = writer.stop();
    let end = ledger.write(&env.pg, 1).end;
    eventually("the standby has the last commit", SOON, || {
        standby.one("select pg_last_wal_replay_lsn()").parse::<Lsn>().unwrap() >= end
    });
    ledger
}

fn promoted_in_the_middle_of_a_load(major: u32) {
    let env = EnvOptions::new(major).pg(|pg| pg.segment_mib(1).conf("wal_keep_size = '500MB'")).build();
    let mut ledger = Ledger::create(&env.pg);
    ledger.write(&env.pg, 2);
    env.backup();
    let (standby, there) = follower(&env);
    let (first, second) = (env.start_agent(), Agent::start_beside(&env, &there, "standby"));
    let load = Load::begin(&env.pg, PAUSE);
    let writer = ledger.write_in_background(&env.pg, Duration::from_millis(5));
    env.pg.switch_and_archive();
    let ledger = writer.stop();
    let mut ledger = lag_behind(&env, first, ledger, &standby);
    env.pg.kill9();
    drop(load);
    let before = ledger.clone();

    standby.promote();
    let load = Load::begin(&standby, PAUSE);
    ledger.write(&standby, 20);
    standby.switch_and_archive();
    drop(load);
    let after = ledger.write(&standby, 3);
    standby.switch_and_archive();
    eventually(&format!("both timelines are whole: {}", second.log()), SOON, || {
        let both = timelines(&env);
        let whole = |t: &Value| {
            t["holes"].as_array().unwrap().is_empty() && !t["ranges"].as_array().unwrap().is_empty()
        };
        both.len() == 2 && both.iter().all(whole)
    });
    assert!(second.log().contains("the former primary did not archive these"), "{}", second.log());

    ends_exactly(&env, &ledger, &Target::Xid(before.entry(before.last_id()).xid), After);
    ends_exactly(&env, &ledger, &Target::Lsn(after.end), After);
    the_old_primary_comes_back(&env, &standby, &ledger, before);
}

/// Nobody told it: it goes on where it was, on its own timeline, and harms nothing.
fn the_old_primary_comes_back(env: &TestEnv, standby: &Pg, ledger: &Ledger, mut old: Ledger) {
    let kept = env.repo().snapshot();
    env.configure_archiving();
    env.pg.start();
    let _agent = env.start_agent();
    old.write(&env.pg, 3);
    env.pg.switch_and_archive();
    standby.switch_and_archive();
    let now = env.repo().snapshot();
    for (key, digest) in kept {
        assert_eq!(now.get(&key), Some(&digest), "{key}");
    }
    ends_exactly(env, ledger, &Target::Latest, After);
    ends_exactly_with(env, &env.pgkeep, &old, &Target::Latest, After, &["--timeline", "1"]);
}

#[test]
fn a_promotion_in_the_middle_of_a_load_of_postgres_14_loses_no_commit_on_either_timeline() {
    promoted_in_the_middle_of_a_load(14);
}
#[test]
fn a_promotion_in_the_middle_of_a_load_of_postgres_18_loses_no_commit_on_either_timeline() {
    promoted_in_the_middle_of_a_load(18);
}
