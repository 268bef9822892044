//! Drills: a restore to a random second that proves itself, leaves nothing, and touches nothing of production.

mod failures;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use nix::sys::signal::Signal;
use pgkeep::model::{Inclusion, Target};
use pgkeep::postgres::service::PidFile;
use serde_json::Value;

use crate::support::sql::Session;
use crate::support::{EnvOptions, Ledger, Load, Pg, Ran, TestEnv, eventually};

const SOON: Duration = Duration::from_mins(1);

/// The disk of a test machine is nobody's but ours.
///
/// And a test must not wait for whatever else runs on it.
const ROOM: &str = "[proof]\nreserve = \"64MiB\"\nlow_priority = false\n";

/// The agent's own witness beside the ledger.
const CANARY: &str = "[canary]\nenabled = true\ninterval = \"200ms\"\n";

/// Drills between two base backups, of which there is more than one to choose from then.
const A_NEW_BACKUP: u32 = 20;

/// How many for each major: a few in CI, as many as somebody asks for (`PGKEEP_TEST_DRILLS`).
fn how_many(usual: u32) -> u32 {
    std::env::var("PGKEEP_TEST_DRILLS").map_or(usual, |text| text.parse().expect("a number"))
}

fn scratch(env: &TestEnv) -> PathBuf {
    env.state.join("scratch")
}

/// What lies in the scratch directory.
fn places(env: &TestEnv) -> Vec<PathBuf> {
    let Ok(entries) = scratch(env).read_dir() else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).collect()
}

#[track_caller]
fn nothing_is_left(env: &TestEnv) {
    assert_eq!(places(env), Vec::<PathBuf>::new());
}

fn drill(env: &TestEnv, args: &[&str]) -> Ran {
    env.pgkeep.clone().global("--json").run([&["drill"][..], args].concat())
}

/// The check of this name, and what became of it.
fn verdict<'r>(report: &'r Value, name: &str) -> &'r str {
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["name"].as_str().unwrap().contains(name));
    let found = found.unwrap_or_else(|| panic!("no check {name} in {report:#}"));
    eprintln!("{name}: {}", found["found"]);
    found["verdict"].as_str().unwrap()
}

/// pgbench's own tables, written to until this is dropped.
struct Pgbench(Child);

impl Pgbench {
    fn begin(pg: &Pg) -> Self {
        let (socket, port) = pg.socket();
        let command = || {
            let mut command = pg.build.tool("pgbench");
            command.arg("-h").arg(&socket).args(["-p", &port.to_string(), "-U", "postgres"]);
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            command
        };
        assert!(command().args(["-i", "-q", "postgres"]).status().unwrap().success());
        Self(command().args(["-n", "-c", "2", "-R", "40", "-T", "7200", "postgres"]).spawn().unwrap())
    }
}

impl Drop for Pgbench {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A session with the instance of a drill, which is its own.
fn inside(place: &Path) -> Session {
    let data = place.join("data");
    let file = PidFile::read(&data).unwrap().expect("a running server");
    Session::connect(&data.join(file.socket_dir.unwrap()), file.port, "postgres").unwrap()
}

/// What the ledger holds in the drill's own instance, and the target. The drill is stopped while it is looked at.
fn look_inside(env: &TestEnv) -> (Value, Vec<u32>) {
    let stopping = env.pgkeep.clone().global("--json").failpoint("drill-after-restore", "return(stop)");
    let running = stopping.spawn(["drill"]);
    eventually("the restored cluster is open", SOON, || running.is_stopped() || !running.is_running());
    assert!(running.is_stopped(), "{}", running.wait());
    let ids = inside(&places(env).remove(0)).sql("select id from ledger order by id");
    let ids = ids.into_iter().map(|mut row| row.remove(0).unwrap().parse().unwrap()).collect();
    running.signal(Signal::SIGCONT);
    (running.wait().ok().json(), ids)
}

fn drills_end_exactly_where_they_must(major: u32, times: u32) {
    let options = EnvOptions::new(major).config(ROOM).config(CANARY);
    let env = options.pg(|pg| pg.segment_mib(1).checksums(true)).build();
    let mut ledger = Ledger::create(&env.pg);
    let bench = Pgbench::begin(&env.pg);
    ledger.write(&env.pg, 3);
    let agent = env.start_agent();
    eventually("there is a canary", SOON, || {
        env.pg.try_sql("select 1 / count(*) from pgkeep.canary").is_ok()
    });
    env.backup();
    let mut writer = ledger.write_in_background(&env.pg, Duration::from_millis(20));
    let load = Load::begin(&env.pg, Duration::from_millis(100));
    // There must be something to choose from.
    std::thread::sleep(Duration::from_secs(3));
    let mut errors = Vec::new();
    for round in 0..times {
        if round > 0 && round % A_NEW_BACKUP == 0 {
            env.backup();
        }
        let (report, ids) = look_inside(&env);
        let ledger = writer.stop();
        let text = report["recovered"]["target"].as_str().unwrap();
        let target = Target::parse(text, pgkeep::util::clock::now()).unwrap().target;
        let last = ledger.expect_last(&target, Inclusion::After);
        assert_eq!(ids, (1..=last).collect::<Vec<_>>(), "round {round}, to {target}: {report:#}");
        assert_eq!(report["outcome"], "passed");
        let checks = ["end of recovery", "cluster is open", "pg_amcheck", "data checksums", "transaction"];
        for name in checks.into_iter().chain(["canary"]) {
            assert_eq!(verdict(&report, name), "holds", "{report:#}");
        }
        let measured = &report["measured"];
        let sum: f64 = ["plan_seconds", "lay_out_seconds", "replay_seconds"]
            .iter()
            .map(|part| measured[part].as_f64().unwrap())
            .sum();
        let part = |of: &Value, name: &str| of[name].as_f64().unwrap_or(f64::NAN);
        let parts = ["plan_seconds", "lay_out_seconds", "replay_seconds"];
        let shown: Vec<String> = parts
            .iter()
            .map(|name| format!("{name} {:.2}/{:.2}", part(&report["estimate"], name), part(measured, name)))
            .collect();
        eprintln!(
            "{round}: {} of WAL, estimated/measured: {}; load {}",
            measured["wal_bytes"],
            shown.join(", "),
            std::fs::read_to_string("/proc/loadavg").unwrap().trim()
        );
        if let Some(estimated) = measured["estimated_seconds"].as_f64() {
            errors.push(((estimated - sum) / sum, measured["wal_bytes"].as_u64().unwrap() >> 20, sum));
        }
        nothing_is_left(&env);
        writer = ledger.write_in_background(&env.pg, Duration::from_millis(20));
    }
    drop((load, bench, agent));
    let _ = writer.stop();
    assert_eq!(u32::try_from(errors.len()).unwrap(), times - 1, "each but the first had an estimate");
    if times > 10 {
        let mut late: Vec<f64> = errors.iter().skip(9).map(|(error, _, _)| error.abs()).collect();
        late.sort_by(f64::total_cmp);
        let median = late[late.len() / 2];
        eprintln!(
            "{times} drills on {major}; estimates after the tenth: median error {median:.3}\n{errors:.2?}"
        );
        assert!(median <= 0.25, "{late:?}");
    }
}

#[test]
fn drills_to_random_seconds_under_load_end_exactly_where_they_must_14() {
    drills_end_exactly_where_they_must(14, how_many(2));
}
#[test]
fn drills_to_random_seconds_under_load_end_exactly_where_they_must_18() {
    drills_end_exactly_where_they_must(18, how_many(3));
}

/// A backup, and WAL with commits after it, all archived.
fn archived(options: EnvOptions) -> (TestEnv, Ledger) {
    let env = options.pg(|pg| pg.segment_mib(1)).build();
    let mut ledger = Ledger::create(&env.pg);
    ledger.write(&env.pg, 3);
    env.backup();
    ledger.write(&env.pg, 6);
    env.pg.switch_and_archive();
    (env, ledger)
}

/// Everything of production that somebody else could have changed.
fn production(env: &TestEnv) -> (Vec<String>, Vec<Vec<Option<String>>>) {
    let mut files: Vec<String> = walkdir::WalkDir::new(&env.pg.data)
        .into_iter()
        .flatten()
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| entry.path().display().to_string())
        // PostgreSQL's own, which it makes when it likes.
        .filter(|path| {
            !["pgsql_tmp", "pg_stat", "pg_wal/", "global/pg_internal", "pg_logical", "pg_internal.init"]
                .iter()
                .any(|own| path.contains(own))
        })
        .collect();
    files.sort();
    let facts = "select pg_postmaster_start_time()::text, (select timeline_id from pg_control_checkpoint())::text, \
        (select count(*) from ledger)::text, current_setting('port'), (select failed_count from pg_stat_archiver)::text, \
        (select string_agg(datname, ',' order by 1) from pg_database), (select string_agg(extname, ',') from pg_extension)";
    (files, env.pg.sql(facts))
}

/// Every process of the drill's server gives way: processor and disk.
#[track_caller]
fn last_in_line(place: &Path) {
    let postmaster = PidFile::read(&place.join("data")).unwrap().unwrap().pid;
    let mut seen = 0;
    for entry in Path::new("/proc").read_dir().unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // After the name, which may hold anything: state, parent, …, nice.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let pid: i32 = entry.file_name().to_str().unwrap().parse().unwrap_or(0);
        if pid != postmaster && fields[1] != postmaster.to_string() {
            continue;
        }
        seen += 1;
        assert_eq!(fields[16], "19", "nice of {stat}");
        let said = std::process::Command::new("ionice").args(["-p", &pid.to_string()]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "idle", "disk class of {stat}");
    }
    assert!(seen > 3, "the server's processes were found: {seen}");
}

#[test]
fn production_and_its_archive_are_not_touched_and_the_report_is_kept() {
    let (env, ledger) =
        archived(EnvOptions::new(18).config("[proof]\nreserve = \"64MiB\"\nrpo = \"1s\"\nrto = \"1h\""));
    let (before, store) = (production(&env), env.repo().snapshot());
    let listening = |pg: &Path| std::fs::read_to_string(pg.join("postmaster.pid")).unwrap();
    let pid_file = listening(&env.pg.data);
    let stopping = env.pgkeep.clone().failpoint("drill-after-restore", "return(stop)");
    let running = stopping.spawn(["drill", "--to", &Target::Xid(ledger.entry(5).xid).to_string()]);
    eventually("the restored cluster is open", SOON, || running.is_stopped() || !running.is_running());
    let place = places(&env).remove(0);
    let side = inside(&place);
    assert_eq!(side.one("select current_setting('listen_addresses')"), "");
    assert_eq!(side.one("select current_setting('archive_mode')"), "off");
    assert_eq!(side.one("select count(*) from ledger"), "5");
    last_in_line(&place);
    assert_eq!(place.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    drop(side);
    running.signal(Signal::SIGCONT);
    let ran = running.wait().ok().says("Drill of main: passed").says("transaction").says("RTO");
    // Nobody asked production, so nobody knows whether there were later commits.
    assert!(ran.stdout.contains("is not shown") || ran.stdout.contains("RPO 0."), "{ran}");
    nothing_is_left(&env);
    assert_eq!(production(&env), before);
    assert_eq!(listening(&env.pg.data), pid_file);
    let after = env.repo().snapshot();
    let new: Vec<&String> = after.keys().filter(|key| !store.contains_key(*key)).collect();
    assert_eq!(new.len(), 2, "a report and its signature: {new:?}");
    assert!(new.iter().all(|key| key.starts_with("main/reports/") && key.contains("-drill.json")), "{new:?}");
    assert!(store.iter().all(|(key, digest)| after.get(key) == Some(digest)));
    env.pg.switch_and_archive();
    let kept: Vec<PathBuf> =
        env.state.join("reports/main").read_dir().unwrap().flatten().map(|e| e.path()).collect();
    for extension in ["json", "md", "html"] {
        assert!(kept.iter().any(|path| path.extension().unwrap() == extension), "{kept:?}");
    }

    // What it measured is what the next restore is estimated by.
    let plan =
        env.pgkeep.run(["restore", "--dry-run", "--to", "latest", "--target-dir", "/tmp/nowhere-at-all"]);
    plan.ok().says("measured by one restore");
}

#[test]
fn a_seed_chooses_the_same_second_again_and_a_bad_combination_is_refused() {
    let (env, _) = archived(EnvOptions::new(18).config(ROOM));
    let target =
        |args: &[&str]| drill(&env, args).ok().json()["recovered"]["target"].as_str().unwrap().to_owned();
    assert_eq!(target(&["--seed", "7"]), target(&["--to", "random", "--seed", "7"]));
    drill(&env, &["--to", "latest", "--seed", "7"]).fails_with("usage", 2);
    drill(&env, &["--before"]).fails_with("usage", 2);
    drill(&env, &["--scratch-dir", "here"]).fails_with("usage", 2);
}

#[test]
fn a_fresh_host_drills_from_one_repository_and_the_identity_alone() {
    let options = EnvOptions::new(18).config(ROOM).dir_repository("near", true).dir_repository("far", false);
    let (env, ledger) = archived(options);
    // The first region and the host are gone; what is left is the second region, a configuration and the identity.
    env.pg.stop(crate::support::Stop::Fast);
    std::fs::rename(env.root.join("near"), env.root.join("lost")).unwrap();
    let public = std::fs::read_to_string(env.state.join("keys/host.pub")).unwrap();
    let key = public.lines().last().unwrap();
    let state = env.root.dir("fresh", 0o700);
    let fresh = env.with_config("fresh.toml", |text| {
        let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("data_directory")).collect();
        let without = kept.join("\n");
        without.replace(env.state.to_str().unwrap(), state.to_str().unwrap())
    });
    let ran = fresh
        .global("--repo")
        .global("far")
        .global("--json")
        .run(["drill", "--to", "latest", "--trust", key]);
    let report = ran.ok().json();
    assert_eq!(report["only"], "far");
    let kept = report["recovered"]["last_commit_kept"]["xid"].as_u64().unwrap();
    assert_eq!(kept, u64::from(ledger.entry(9).xid.0));
    assert_eq!(report["outcome"], "passed", "{report:#}");
    assert!(state.join("scratch").read_dir().unwrap().next().is_none());
    let notes = report["notes"].to_string();
    assert!(notes.contains("not signed"), "{notes}");
}

#[test]
fn an_idle_cluster_is_drilled_to_the_end_of_its_wal() {
    let env = EnvOptions::new(18).config(ROOM).pg(|pg| pg.segment_mib(1)).build();
    env.backup();
    let report = drill(&env, &[]).ok().json();
    assert_eq!((&report["outcome"], &report["recovered"]["target"]), (&"passed".into(), &"latest".into()));
    assert!(report["recovered"]["chosen"].as_str().unwrap().contains("nothing was committed"), "{report:#}");
    nothing_is_left(&env);
}
