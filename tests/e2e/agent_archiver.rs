//! The agent ships ahead of PostgreSQL, and what it answers `wal push` is a durable fact about this very content.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{Agent, EnvOptions, Stop, TestEnv, eventually, eventually_some};
use crate::wal_place::{digest_of, opened_by_hand, place, push, put_object, segments, wal_file};
use pgkeep::model::SegmentName;
use pgkeep::repository::keys::wal::WalObjectName;

const SOON: Duration = Duration::from_secs(30);

fn small() -> EnvOptions {
    EnvOptions::new(17).pg(|pg| pg.segment_mib(1).conf("wal_keep_size = '200MB'"))
}
fn objects_of(env: &TestEnv, name: &str) -> Vec<String> {
    env.repo().list().into_iter().filter(|key| key.contains(&format!("/{name}-"))).collect()
}
/// All objects but the tail's: the server writes a little now and then.
fn archived(env: &TestEnv) -> std::collections::BTreeMap<String, String> {
    let mut objects = env.repo().snapshot();
    objects.retain(|key, _| !key.contains(".head-"));
    objects
}
#[track_caller]
fn wait_shipped(env: &TestEnv, agent: &Agent, names: &[String]) {
    eventually(&format!("{names:?} are shipped: {}", agent.log()), SOON, || {
        names.iter().all(|name| !objects_of(env, name).is_empty())
    });
}
fn facts(agent: &Agent) -> Value {
    agent.ask(&json!({"op": "status"}))["snapshot"]["clusters"]["main"]["archive"].clone()
}
/// The answers of the agent are on the board once nothing waits.
#[track_caller]
fn wait_idle(agent: &Agent) -> Value {
    eventually_some(&format!("nothing waits: {}", agent.log()), SOON, || {
        let facts = facts(agent);
        (facts["waiting_files"] == 0 && facts["archived_to"].is_string()).then_some(facts)
    })
}

/// The store is not there while this lives.
struct Away {
    from: PathBuf,
    to: PathBuf,
}
impl Away {
    fn take(env: &TestEnv) -> Self {
        let from = env.repo().path().to_path_buf();
        let to = from.with_extension("away");
        std::fs::rename(&from, &to).unwrap();
        Self { from, to }
    }
}
impl Drop for Away {
    fn drop(&mut self) {
        std::fs::rename(&self.to, &self.from).unwrap();
    }
}

#[test]
fn segments_are_shipped_before_postgres_asks_and_its_question_is_answered_without_the_store() {
    let env = place(small());
    let agent = env.start_agent();
    // `archive_command` is `false`: only the agent can have shipped them.
    let names = segments(&env, 3);
    wait_shipped(&env, &agent, &names);
    let known = wait_idle(&agent);
    assert!(known["files_total"].as_u64().unwrap() >= 3, "{known}");
    assert_eq!(known["failure"], Value::Null);
    for name in &names {
        let [key] = objects_of(&env, name).try_into().unwrap();
        assert_eq!(opened_by_hand(&env, &key), std::fs::read(wal_file(&env, name)).unwrap());
    }
    let before = archived(&env);
    let away = Away::take(&env);
    for name in &names {
        assert_eq!(push(&env, &env.pgkeep, name).ok().stderr, "");
    }
    drop(away);
    assert_eq!(archived(&env), before);
}

#[test]
fn another_file_of_the_name_is_digested_again_and_only_the_same_content_is_acknowledged() {
    let env = place(small());
    let agent = env.start_agent();
    let name = segments(&env, 1).remove(0);
    wait_shipped(&env, &agent, std::slice::from_ref(&name));
    wait_idle(&agent);
    let path = wal_file(&env, &name);
    let content = std::fs::read(&path).unwrap();
    {
        // The same bytes in another file: a restore in place. What is known of the content is enough.
        let _away = Away::take(&env);
        std::fs::rename(&path, path.with_extension("old")).unwrap();
        env.root.file(&format!("main/pg_wal/{name}"), 0o600, "");
        std::fs::write(&path, &content).unwrap();
        push(&env, &env.pgkeep, &name).ok();
    }
    let mut other = content;
    *other.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &other).unwrap();
    let before = archived(&env);
    for _ in 0..2 {
        push(&env, &env.pgkeep, &name)
            .fails_with("wal-conflict", 1)
            .says("two servers archive into one place");
    }
    assert_eq!(archived(&env), before);
    assert_eq!(facts(&agent)["conflicts"], json!([name]));
}

#[test]
fn other_content_in_the_store_is_refused_until_it_is_gone_and_holds_up_no_other_segment() {
    let env = place(small());
    let names = segments(&env, 2);
    let content = std::fs::read(wal_file(&env, &names[0])).unwrap();
    let mut other = content.clone();
    *other.last_mut().unwrap() ^= 1;
    let segment = SegmentName::parse(&names[0]).unwrap();
    put_object(&env, WalObjectName::Segment { segment, digest: digest_of(&other) }, &other);
    let agent = env.start_agent();
    wait_shipped(&env, &agent, &names[1..]);
    for _ in 0..2 {
        push(&env, &env.pgkeep, &names[0]).fails_with("wal-conflict", 1).says("the-other-host");
    }
    assert_eq!(facts(&agent)["conflicts"], json!([names[0]]));
    env.repo().delete(&objects_of(&env, &names[0])[0]);
    push(&env, &env.pgkeep, &names[0]).ok();
    assert_eq!(facts(&agent)["conflicts"], json!([]));
}

#[test]
fn a_damaged_segment_is_shipped_with_its_mark_and_told_each_time() {
    let env = place(small());
    let name = segments(&env, 2).remove(1);
    let path = wal_file(&env, &name);
    let mut bad = std::fs::read(&path).unwrap();
    bad[4000] ^= 0x10;
    std::fs::write(&path, &bad).unwrap();
    let agent = env.start_agent();
    eventually(&format!("{name} is shipped: {}", agent.log()), SOON, || objects_of(&env, &name).len() == 3);
    wait_idle(&agent);
    for _ in 0..2 {
        push(&env, &env.pgkeep, &name).ok().says("is damaged at").says("take a new full backup");
    }
    assert_eq!(facts(&agent)["damaged"], json!([name]));
}

#[test]
fn while_the_store_is_down_postgres_is_never_told_yes_and_everything_is_caught_up_afterwards() {
    let env = place(small());
    let agent = env.start_agent();
    let first = segments(&env, 1);
    wait_shipped(&env, &agent, &first);
    // The object is there before the look that confirms it.
    wait_idle(&agent);
    let away = Away::take(&env);
    let names = segments(&env, 3);
    for name in &names {
        assert_eq!(push(&env, &env.pgkeep, name).code, Some(1));
    }
    let facts_down = eventually_some("the failure is told", SOON, || {
        let facts = facts(&agent);
        (!facts["failure"].is_null() && facts["waiting_files"] == 3).then_some(facts)
    });
    assert!(facts_down["waiting_since"].is_string(), "{facts_down}");
    drop(away);
    wait_shipped(&env, &agent, &names);
    assert_eq!(wait_idle(&agent)["failure"], Value::Null);
    for name in &names {
        push(&env, &env.pgkeep, name).ok();
    }
}

#[test]
fn another_clusters_directory_and_a_file_elsewhere_are_declined_and_pushed_directly() {
    let env = place(small());
    let stranger = place(small());
    let agent = stranger.start_agent();
    let name = segments(&env, 1).remove(0);
    // This environment's configuration, and the other one's agent.
    let theirs = env.with_config("theirs.toml", |text| {
        let (ours, theirs) = (env.agent_socket(), stranger.agent_socket());
        text.replace(ours.to_str().unwrap(), theirs.to_str().unwrap())
    });
    push(&env, &theirs, &name).ok();
    assert_eq!(objects_of(&env, &name).len(), 1);
    assert_eq!(objects_of(&stranger, &name), Vec::<String>::new());
    drop(agent);
    let agent = env.start_agent();
    let second = segments(&env, 1).remove(0);
    wait_shipped(&env, &agent, std::slice::from_ref(&second));
    let elsewhere = env.root.dir("elsewhere", 0o755).join(&second);
    std::fs::copy(wal_file(&env, &second), &elsewhere).unwrap();
    crate::support::root::Ids::server().own(&elsewhere);
    let pushed = env.pgkeep.clone().dir(&env.pg.data).run(["wal", "push", elsewhere.to_str().unwrap()]);
    assert_eq!(pushed.ok().stderr, "");
}

#[test]
fn an_agent_that_hangs_or_is_dead_is_not_waited_for_and_the_push_does_the_work() {
    let env = place(small());
    let agent = env.start_agent();
    agent.signal(Signal::SIGSTOP);
    let name = segments(&env, 1).remove(0);
    let pushed = push(&env, &env.pgkeep, &name).ok().says("the agent does not answer");
    assert!(pushed.took < Duration::from_secs(20), "{pushed}");
    assert_eq!(objects_of(&env, &name).len(), 1);
    agent.kill();
    let name = segments(&env, 1).remove(0);
    assert_eq!(push(&env, &env.pgkeep, &name).ok().stderr, "");
    assert_eq!(objects_of(&env, &name).len(), 1);
}

#[test]
fn an_agent_that_dies_while_it_ships_leaves_the_push_to_the_asker_and_nothing_twice() {
    for step in ["ship-before-upload", "ship-after-upload", "ship-before-answer"] {
        let env = place(small());
        let name = segments(&env, 1).remove(0);
        let doomed = env.pgkeep.clone().failpoint(step, "return(kill)");
        let _agent = Agent::launch(&env, &doomed);
        eventually("the agent listens", SOON, || env.agent_socket().exists());
        push(&env, &env.pgkeep, &name).ok();
        assert_eq!(objects_of(&env, &name).len(), 1, "{step}");
    }
}

#[test]
fn deleted_state_costs_a_look_and_a_remembered_acknowledgement_not_even_that() {
    let env = place(small());
    let agent = env.start_agent();
    let names = segments(&env, 2);
    wait_shipped(&env, &agent, &names);
    wait_idle(&agent);
    agent.kill();
    let before = archived(&env);
    let agent = env.start_agent();
    let known = wait_idle(&agent);
    assert_eq!(known["files_total"], 0, "{known}");
    agent.kill();
    for file in ["agent.db", "agent.db-wal", "agent.db-shm"] {
        let _ = std::fs::remove_file(env.state.join(file));
    }
    let agent = env.start_agent();
    wait_idle(&agent);
    for name in &names {
        push(&env, &env.pgkeep, name).ok();
    }
    assert_eq!(archived(&env), before);
}

#[test]
fn a_linked_pg_wal_a_restarted_server_and_a_replaced_directory_are_followed() {
    let env = place(small());
    env.pg.stop(Stop::Fast);
    let (pg_wal, elsewhere) = (env.pg.data.join("pg_wal"), env.root.join("wal-elsewhere"));
    std::fs::rename(&pg_wal, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &pg_wal).unwrap();
    env.pg.start();
    let agent = env.start_agent();
    wait_shipped(&env, &agent, &segments(&env, 1));
    env.pg.stop(Stop::Fast);
    // As after a restore in place: the directory is another one.
    let aside = env.root.join("aside");
    let copied = std::process::Command::new("cp").arg("-a").arg(&env.pg.data).arg(&aside).status().unwrap();
    assert!(copied.success());
    std::fs::rename(&env.pg.data, env.root.join("old")).unwrap();
    std::fs::rename(&aside, &env.pg.data).unwrap();
    let moved = env.root.join("wal-again");
    std::fs::rename(&elsewhere, &moved).unwrap();
    std::fs::create_dir_all(elsewhere.join("archive_status")).unwrap();
    std::fs::remove_file(env.pg.data.join("pg_wal")).unwrap();
    std::os::unix::fs::symlink(&moved, env.pg.data.join("pg_wal")).unwrap();
    env.pg.start();
    wait_shipped(&env, &agent, &segments(&env, 2));
    assert!(agent.is_alive());
}

#[test]
fn a_backlog_is_drained_in_order_and_progress_is_told_as_a_contiguous_prefix() {
    let env = place(small());
    let names = segments(&env, 40);
    let agent = env.start_agent();
    let mut last = String::new();
    eventually(&format!("all are shipped: {}", agent.log()), SOON, || {
        let facts = facts(&agent);
        let reached = facts["archived_to"].as_str().unwrap_or_default().to_owned();
        let shipped = names.iter().take_while(|name| !objects_of(&env, name).is_empty()).count();
        if let Ok(reached) = reached.parse::<pgkeep::model::Lsn>() {
            // What was listed afterwards must hold all that was told before.
            let size = crate::wal_place::segment_size(&env);
            let told = names.iter().filter(|n| SegmentName::parse(n).unwrap().end(size) <= reached).count();
            assert!(told <= shipped, "{told} told, {shipped} there: {facts}");
        }
        last = reached;
        shipped == names.len()
    });
    let facts = wait_idle(&agent);
    assert!(facts["files_total"].as_u64().unwrap() >= 40, "{facts}");
    for name in &names {
        push(&env, &env.pgkeep, name).ok();
    }
}
