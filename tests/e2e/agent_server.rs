//! The agent asks PostgreSQL and the disk of its pg_wal how they are, and says so.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Agent, Build, EnvOptions, Pg, PgOptions, Root, Stop, TestEnv, eventually, eventually_some,
};
use crate::wal_place::Tmpfs;

const SOON: Duration = Duration::from_secs(30);

/// Asked twice a second, by nobody else.
fn watched(options: EnvOptions) -> EnvOptions {
    options.agent("http = \"127.0.0.1:0\"\nserver_interval = \"500ms\"").config("[tail]\nenabled = false")
}

fn snapshot(agent: &Agent) -> Value {
    agent.ask(&json!({"op": "status"}))["snapshot"].clone()
}
fn facts(agent: &Agent) -> Value {
    snapshot(agent)["clusters"]["main"]["server"].clone()
}
/// The facts, once they are so.
#[track_caller]
fn wait(agent: &Agent, what: &str, so: impl Fn(&Value) -> bool) -> Value {
    eventually_some(&format!("{what}: {}", agent.log()), SOON, || Some(facts(agent)).filter(&so))
}
/// Asked and answered from now on.
#[track_caller]
fn wait_rounds(agent: &Agent, rounds: usize) {
    for _ in 0..rounds {
        let before = facts(agent)["asked_at"].clone();
        wait(agent, "the server is asked again", |now| now["asked_at"] != before);
    }
}

fn get(agent: &Agent, path: &str) -> String {
    let address = snapshot(agent)["http"].as_str().unwrap().to_owned();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}

fn connections(env: &TestEnv) -> String {
    env.pg.one("SELECT string_agg(pid::text, ',') FROM pg_stat_activity WHERE application_name = 'pgkeep'")
}

#[test]
fn a_server_that_is_down_is_told_with_its_reason_and_found_again_when_it_is_back() {
    let env = watched(EnvOptions::new(14)).build();
    let agent = env.start_agent();
    let up = wait(&agent, "the server answers", |now| now["asked_at"].is_string());
    assert_eq!((&up["error"], &up["in_recovery"]), (&Value::Null, &json!(false)));
    assert_eq!((&up["major"], &up["timeline"]), (&json!(14), &json!(1)));
    assert!(up["flush_lsn"].is_string() && up["pg_wal_bytes"].as_u64().unwrap() >= 16 << 20, "{up}");
    let sized = wait(&agent, "the databases have a size", |now| now["data_bytes"].is_u64());
    assert!(sized["data_bytes"].as_u64().unwrap() > 10 << 20, "{sized}");
    eventually("archiving works", SOON, || get(&agent, "/readyz").starts_with("HTTP/1.1 200"));

    env.pg.stop(Stop::Fast);
    // While it ends, it still refuses connections itself.
    let down = wait(&agent, "it is down, with what to look at", |now| {
        now["error"].as_str().is_some_and(|reason| reason.contains("is the server running"))
    });
    assert!(down["flush_lsn"].is_string(), "what was known stays known: {down}");
    let ready = get(&agent, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("PostgreSQL does not answer"), "{ready}");
    assert!(get(&agent, "/healthz").starts_with("HTTP/1.1 200"), "the agent itself is well");

    env.pg.start();
    wait(&agent, "it answers again", |now| now["error"].is_null() && now["asked_at"] != down["asked_at"]);
    eventually("archiving works", SOON, || get(&agent, "/readyz").starts_with("HTTP/1.1 200"));
    let log = agent.log();
    assert_eq!(log.matches("PostgreSQL does not answer").count(), 1, "told once: {log}");
    assert_eq!(log.matches("PostgreSQL answers again").count(), 1, "told once: {log}");
}

#[test]
fn one_connection_is_kept_and_an_idle_server_writes_no_wal_for_it() {
    // Neither standby snapshots nor hint bits: whatever is written would be the agent's.
    let quiet = |pg: PgOptions| pg.conf("wal_level = minimal").conf("max_wal_senders = 0").checksums(false);
    let env = watched(EnvOptions::new(18).pg(quiet).uninitialised()).build();
    let agent = env.start_agent();
    wait(&agent, "all is asked once", |now| now["data_bytes"].is_u64());
    let (before, kept) = (env.pg.one("SELECT pg_current_wal_insert_lsn()"), connections(&env));
    wait_rounds(&agent, 5);
    assert_eq!(env.pg.one("SELECT pg_current_wal_insert_lsn()"), before);
    assert_eq!(connections(&env), kept);
    assert!(kept.parse::<u32>().is_ok(), "one connection: {kept}");
    env.pg.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgkeep'");
    wait_rounds(&agent, 2);
    assert_ne!(connections(&env), kept);
    assert!(
        !agent.log().contains("does not answer"),
        "a new connection is made without a word: {}",
        agent.log()
    );
}

#[test]
fn the_time_until_the_disk_of_pg_wal_is_full_is_told_while_it_grows() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let small = |pg: PgOptions| pg.segment_mib(1).conf("max_wal_size = '4MB'").conf("min_wal_size = '2MB'");
    let env = watched(EnvOptions::new(17).pg(small).not_archiving()).build();
    env.pg.stop(Stop::Fast);
    let (pg_wal, disk) = (env.pg.data.join("pg_wal"), env.root.dir("disk", 0o700));
    let tmpfs = Tmpfs::mount(&disk, "300m");
    let moved = std::process::Command::new("cp").arg("-a").arg(&pg_wal).arg(disk.join("wal")).status();
    assert!(moved.unwrap().success());
    std::fs::remove_dir_all(&pg_wal).unwrap();
    std::os::unix::fs::symlink(disk.join("wal"), &pg_wal).unwrap();
    env.pg.start();
    // Holds all WAL from here on.
    env.pg.sql("SELECT pg_create_physical_replication_slot('hold', true)");
    let agent = env.start_agent();
    let at_rest = wait(&agent, "the disk is seen", |now| now["wal_disk_bytes"].as_u64() != Some(0));
    assert_eq!(at_rest["wal_disk_bytes"], 300 << 20, "of the file system behind the link: {at_rest}");
    assert!(at_rest["wal_disk_free_bytes"].as_u64().unwrap() < 300 << 20, "{at_rest}");
    let growing = eventually_some("a forecast while it grows", SOON, || {
        env.pg.sql("SELECT pg_logical_emit_message(false, 'x', repeat('x', 500000)); SELECT pg_switch_wal()");
        Some(facts(&agent)).filter(|now| now["wal_disk_full_in_seconds"].is_u64())
    });
    let left = growing["wal_disk_full_in_seconds"].as_u64().unwrap();
    let (size, before) = (&growing["pg_wal_bytes"], &at_rest["pg_wal_bytes"]);
    assert!(left < 600 && size.as_u64() > before.as_u64(), "{growing}");
    // It survives a reload: the alert that hangs on it must not come and go.
    agent.reload();
    env.pg.sql("SELECT pg_drop_replication_slot('hold'); CHECKPOINT");
    wait(&agent, "it shrinks and is not full soon", |now| {
        now["wal_disk_full_in_seconds"].is_null() && now["pg_wal_bytes"].as_u64() < size.as_u64()
    });
    drop(agent);
    env.pg.stop(Stop::Immediate);
    drop(tmpfs);
}

#[tokio::test]
async fn a_standby_says_its_timeline_and_no_flush_position() {
    for major in [14, 18] {
        let root = Root::new();
        let primary = PgOptions::new(Build::of(major)).conf("wal_keep_size = '100MB'").create(&root);
        primary.start();
        let standby = Pg::standby_of(&primary, "standby");
        standby.start();
        let session = pgkeep::postgres::connect(&standby.conninfo()).await.unwrap();
        let vitals = session.vitals().await.unwrap();
        assert!(vitals.in_recovery && vitals.flush.is_none(), "{vitals:?}");
        assert_eq!((vitals.timeline.0, vitals.wal_target_bytes), (1, 1 << 30));
        standby.promote();
        let vitals = session.vitals().await.unwrap();
        assert!(!vitals.in_recovery && vitals.flush.is_some() && vitals.timeline.0 == 2, "{vitals:?}");
    }
}
