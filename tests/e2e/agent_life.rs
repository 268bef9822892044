//! The agent's life: it starts, answers, reloads, refuses a second one, and ends.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::json;

use crate::support::{Agent, EnvOptions, TestEnv, User, eventually};

fn quiet_env() -> TestEnv {
    EnvOptions::new(17).not_archiving().build()
}

#[test]
fn agent_answers_reloads_and_ends_in_order_on_sigterm() {
    let env = quiet_env();
    let agent = env.start_agent();
    assert_eq!(agent.ask(&json!({"op": "ping"}))["pid"], agent.pid().as_raw());
    agent.reload();
    assert_eq!(agent.ask(&json!({"op": "ping"}))["generation"], 2);
    agent.terminate().exits(0);
    assert!(!env.agent_socket().exists(), "the socket is gone with the agent");
}

/// What nobody does must not look as if it were done.
#[test]
fn agent_does_not_start_with_jobs_that_it_would_not_run() {
    let job = "[[job]]\nname = \"nightly\"\nkind = \"full\"\nschedule = \"0 2 * * *\"";
    let env = EnvOptions::new(17).not_archiving().config(job).build();
    let refused = env.pgkeep.run(["agent"]).fails_with("config", 2).says("does not serve [[job]]");
    refused.says("pgkeep backup full");
}

#[test]
fn agent_is_replaced_after_a_kill_but_never_beside_a_living_one() {
    let env = quiet_env();
    let first = env.start_agent();
    let second = env.pgkeep.run(["agent"]);
    assert!(second.says("an agent is running already").code == Some(1));
    // The refused one has not harmed the first.
    first.ask(&json!({"op": "ping"}));
    first.kill();
    assert!(env.agent_socket().exists(), "a killed agent leaves its socket");
    env.start_agent().terminate().exits(0);
}

#[test]
fn agent_control_refuses_strangers_and_what_it_does_not_understand() {
    let env = quiet_env();
    let agent = env.start_agent();
    for request in ["{\"op\": \"no-such-thing\"}", "this is no JSON", "[]", "{}"] {
        let answer = exchange(&env, request.as_bytes());
        assert!(
            answer.contains("\"code\":\"usage\"") && answer.contains("\"ok\":false"),
            "{request}: {answer}"
        );
    }
    let answer = exchange(&env, &vec![b'x'; 200 * 1024]);
    assert!(answer.contains("a line of more than"), "{answer}");
    if nix::unistd::geteuid().is_root() {
        // A socket's peer is who it was when it connected.
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        nix::unistd::seteuid(nobody.uid).unwrap();
        let answer = exchange(&env, b"{\"op\":\"ping\"}");
        nix::unistd::seteuid(nix::unistd::Uid::from_raw(0)).unwrap();
        assert!(answer.contains("\"code\":\"refused\""), "{answer}");
    }
    agent.ask(&json!({"op": "ping"}));
}

/// Sends bytes and reads until the agent has answered one line.
fn exchange(env: &TestEnv, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(env.agent_socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The agent ends the connection of who says too much, perhaps before all is sent.
    let _ = stream.write_all(request).and_then(|()| stream.write_all(b"\n"));
    let (mut answer, mut byte) = (Vec::new(), [0u8]);
    while stream.read(&mut byte).is_ok_and(|n| n == 1) && byte[0] != b'\n' {
        answer.push(byte[0]);
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn agent_serves_on_while_many_connections_hold_their_place() {
    let env = quiet_env();
    let agent = env.start_agent();
    // More than it serves at once; they ask nothing.
    let idle: Vec<UnixStream> = (0..100).map(|_| UnixStream::connect(env.agent_socket()).unwrap()).collect();
    drop(idle);
    eventually("it answers once they have gone", Duration::from_secs(20), || {
        exchange(&env, b"{\"op\":\"ping\"}").contains("\"ok\":true")
    });
    drop(agent);
}

#[test]
fn agent_keeps_its_configuration_when_the_new_one_is_faulty() {
    let env = quiet_env();
    let agent = env.start_agent();
    let good = env.config_text();
    std::fs::write(&env.config_path, format!("{good}\n[nonsense]\nx = 1\n[restore]\nworkers = \"many\"\n"))
        .unwrap();
    agent.signal(nix::sys::signal::Signal::SIGHUP);
    agent.wait_log("the old one goes on", Duration::from_secs(20));
    let log = agent.log();
    assert!(log.contains("nonsense") && log.contains("restore.workers"), "all faults are said: {log}");
    assert_eq!(agent.ask(&json!({"op": "ping"}))["generation"], 1);
    std::fs::write(&env.config_path, good).unwrap();
    agent.reload();
    agent.terminate().exits(0);
}

#[test]
fn agent_started_as_root_works_as_the_owner_of_the_data_directory() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let env = quiet_env();
    let agent = Agent::start_as(&env, &env.pgkeep.clone().user(User::Caller));
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let postgres = nix::unistd::User::from_name("postgres").unwrap().unwrap().uid.to_string();
    let ids = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    assert!(ids.split_whitespace().skip(1).all(|id| id == postgres), "no id of root is left: {ids}");
    agent.terminate().exits(0);
}
