//! Who watches the agent: a real scrape, and what an agent costs that has nothing to do.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::support::{Agent, EnvOptions, TestEnv, eventually, eventually_some};
use pgkeep::agent::metrics::table;

const SOON: Duration = Duration::from_secs(30);

fn serving() -> EnvOptions {
    EnvOptions::new(17).agent("http = \"127.0.0.1:0\"")
}

fn page(agent: &Agent, path: &str) -> String {
    let address = eventually_some("metrics are served", SOON, || {
        let board = agent.ask(&json!({"op": "status"}))["snapshot"].clone();
        board["http"].as_str().map(str::to_owned)
    });
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{said}");
    body.to_owned()
}

/// Samples by name and labels, as they are written.
fn samples(agent: &Agent) -> BTreeMap<String, f64> {
    let text = page(agent, "/metrics");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(key, n)| (key.to_owned(), n.parse().unwrap()))
        .collect()
}

#[track_caller]
fn settled(agent: &Agent) {
    eventually(&format!("all is known and nothing waits: {}", agent.log()), SOON, || {
        let main = agent.ask(&json!({"op": "status"}))["snapshot"]["clusters"]["main"].clone();
        let known = [
            &main["archive"]["archived_to"],
            &main["server"]["flush_lsn"],
            &main["tail"]["shipped_to"],
            &main["backups"]["seen_at"],
        ];
        main["archive"]["waiting_files"] == 0 && known.iter().all(|fact| !fact.is_null())
    });
}

#[test]
fn a_real_scrape_satisfies_promtool_and_every_name_is_documented() {
    let job = "[[job]]\nname = \"nightly\"\nkind = \"full\"\nschedule = \"0 2 * * *\"";
    let env: TestEnv = serving().config(job).build();
    let agent = env.start_agent();
    env.pg.switch_wal();
    env.backup();
    settled(&agent);
    eventually("the backup is known", SOON, || {
        samples(&agent).keys().any(|key| key.contains("kind=\"full\""))
    });

    let text = page(&agent, "/metrics");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("scripts/install-test-deps installs promtool");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let checked = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr) + String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success() && said.trim().is_empty(), "{said}");

    for (key, value) in samples(&agent) {
        let name = key.split('{').next().unwrap();
        assert!(table::ALL.iter().any(|metric| metric.name == name), "{name} is not documented");
        assert!(value.is_finite() && value >= 0.0, "{key} {value}");
    }
    let samples = samples(&agent);
    assert!(samples["pgkeep_backup_last_raw_bytes{cluster=\"main\",kind=\"full\"}"] > 1e6);
    assert!(samples["pgkeep_store_used_bytes{repository=\"repo\"}"] > 0.0);
    assert!(samples["pgkeep_store_capacity_bytes{repository=\"repo\"}"] > 1e6);
    assert!(samples["pgkeep_rpo_seconds{cluster=\"main\"}"] < 60.0);
    assert!(samples["pgkeep_rto_estimate_seconds{cluster=\"main\"}"] > 0.0);
    agent.terminate().exits(0);
}

#[test]
fn an_idle_agent_asks_the_store_for_nothing_and_costs_next_to_no_processor_time() {
    let env = serving().build();
    let agent = env.start_agent();
    // What was archived before the agent came it need not know: a segment of its own.
    env.pg.switch_wal();
    settled(&agent);
    let asked = |samples: &BTreeMap<String, f64>| -> f64 {
        samples
            .iter()
            .filter(|(key, _)| key.starts_with("pgkeep_store_operations_total"))
            .map(|(_, n)| n)
            .sum()
    };
    let flushed =
        |samples: &BTreeMap<String, f64>| samples["pgkeep_server_flush_position_bytes{cluster=\"main\"}"];
    // Of several spans in which the server wrote nothing one must be without a request: it is what idle means. The
    // server itself writes a little now and then, which is then shipped.
    let window = Duration::from_secs(5);
    let mut seen = Vec::new();
    for _ in 0..6 {
        let before = samples(&agent);
        std::thread::sleep(window);
        let after = samples(&agent);
        let requests = asked(&after) - asked(&before);
        let cpu = after["pgkeep_process_cpu_seconds_total"] - before["pgkeep_process_cpu_seconds_total"];
        let written = flushed(&after) - flushed(&before);
        seen.push((requests, cpu, written));
        // A debug build, with two scrapes in it.
        if requests == 0.0 && cpu < window.as_secs_f64() * 0.05 {
            agent.terminate().exits(0);
            return;
        }
    }
    panic!("never idle; in each span (requests, processor seconds, bytes written by the server): {seen:?}");
}
