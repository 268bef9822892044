//! The agent's life: it starts, answers, reloads, refuses a second one, and ends.

use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{Agent, EnvOptions, Pgkeep, TestEnv, User, eventually};

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
    exchange_on(UnixStream::connect(env.agent_socket()).unwrap(), request)
}

fn exchange_on(mut stream: UnixStream, request: &[u8]) -> String {
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
fn agent_answers_whoever_connected_in_the_moment_of_a_reload() {
    let env = quiet_env();
    let agent = env.start_agent();
    let early = UnixStream::connect(env.agent_socket()).unwrap();
    // They are accepted in turn, so the one above has been.
    agent.ask(&json!({"op": "ping"}));
    agent.signal(Signal::SIGHUP);
    agent.wait_log("reloading", Duration::from_secs(20));
    assert!(exchange_on(early, b"{\"op\":\"ping\"}").contains("\"ok\":true"));
    agent.terminate().exits(0);
}

#[test]
fn agent_keeps_its_configuration_when_the_new_one_is_faulty() {
    let env = quiet_env();
    let agent = env.start_agent();
    let good = env.config_text();
    std::fs::write(&env.config_path, format!("{good}\n[nonsense]\nx = 1\n[restore]\nworkers = \"many\"\n"))
        .unwrap();
    agent.signal(Signal::SIGHUP);
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

/// What the agent tells systemd, in this order; `WATCHDOG=1` and the status line come whenever they come.
#[test]
fn agent_tells_systemd_when_it_is_ready_reloads_and_stops() {
    let env = quiet_env();
    let (systemd, pgkeep) = systemd(&env);
    let agent = Agent::start_as(&env, &pgkeep.env("WATCHDOG_USEC", "3000000"));
    assert_eq!(systemd.next(), "READY=1");
    agent.reload();
    let reloading = systemd.next();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(systemd.next(), "READY=1");
    std::fs::write(&env.config_path, "this is no configuration").unwrap();
    agent.signal(Signal::SIGHUP);
    assert!(systemd.next().starts_with("RELOADING=1"), "also of a faulty configuration");
    assert_eq!(systemd.next(), "READY=1", "and that is over, or systemd would end the service");
    for _ in 0..3 {
        systemd.wait_for("WATCHDOG=1");
    }
    let pid = agent.pid();
    agent.terminate().exits(0);
    assert!(systemd.next().starts_with("STOPPING=1"), "{pid}");
}

/// A socket that takes what would go to systemd, and the program that tells it.
fn systemd(env: &TestEnv) -> (Systemd, Pgkeep) {
    let path = env.root.join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    (Systemd(socket), env.pgkeep.clone().env("NOTIFY_SOCKET", path))
}

struct Systemd(UnixDatagram);

impl Systemd {
    fn any(&self) -> String {
        let mut text = [0; 4096];
        let bytes = self.0.recv(&mut text).expect("the agent tells systemd something");
        String::from_utf8_lossy(&text[..bytes]).trim_end().to_owned()
    }
    /// The next one that is about the agent's life.
    fn next(&self) -> String {
        loop {
            let text = self.any();
            if !text.starts_with("WATCHDOG=") && !text.starts_with("STATUS=") {
                return text;
            }
        }
    }
    fn wait_for(&self, wanted: &str) {
        while self.any() != wanted {}
    }
}

#[test]
fn agent_logs_to_the_journal_without_times_and_elsewhere_with_them() {
    let env = quiet_env();
    let agent = env.start_agent();
    assert!(agent.log().lines().all(|line| line.starts_with("20")), "{}", agent.log());
    agent.terminate().exits(0);
    let log = env.root.join("agent.log");
    std::fs::write(&log, "").unwrap();
    let (device, inode) = (std::os::unix::fs::MetadataExt::dev, std::os::unix::fs::MetadataExt::ino);
    let meta = std::fs::metadata(&log).unwrap();
    let pgkeep = env.pgkeep.clone().env("JOURNAL_STREAM", format!("{}:{}", device(&meta), inode(&meta)));
    let agent = Agent::start_as(&env, &pgkeep);
    assert!(
        !agent.log().is_empty() && agent.log().lines().all(|line| !line.starts_with("20")),
        "{}",
        agent.log()
    );
}

#[test]
fn agent_without_a_usable_state_directory_says_whose_it_must_be() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let env = quiet_env();
    std::os::unix::fs::chown(&env.state, Some(0), Some(0)).unwrap();
    let ran = env.pgkeep.run(["agent"]);
    ran.fails_with("io", 1).says("chown postgres:");
}

#[test]
fn agent_begins_its_memory_anew_when_the_file_is_damaged() {
    let env = quiet_env();
    env.root.file("state/agent.db", 0o600, &"garbage ".repeat(5000));
    let agent = env.start_agent();
    agent.wait_log("set aside", Duration::from_secs(5));
    agent.terminate().exits(0);
    assert!(env.state.join("agent.db.damaged").exists());
}

#[test]
fn agent_for_clusters_of_several_owners_is_refused_with_the_way_out() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let env = quiet_env();
    let other = env.root.dir("other", 0o755);
    std::os::unix::fs::chown(&other, Some(1), Some(1)).unwrap();
    let pgkeep = env.with_config("two.toml", |text| {
        let table = format!(
            "[cluster.other]\nconnection = \"host=/tmp\"\ndata_directory = \"{}\"\n",
            other.display()
        );
        format!("{text}\n{table}")
    });
    pgkeep.user(User::Caller).run(["agent"]).fails_with("config", 2).says("an agent for each");
}
