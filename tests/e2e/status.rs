//! `pgkeep status` as somebody sees it who was just woken up: four screens of real hosts, and what a program is told.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use pgkeep::agent::State;
use pgkeep::agent::scheduler::Memory;
use pgkeep::agent::state::runs;
use pgkeep::config::Config;
use pgkeep::util::clock;

use crate::support::{Agent, EnvOptions, Pgkeep, TestEnv, eventually, eventually_some};

const SOON: Duration = Duration::from_secs(30);

/// A host that is not in trouble because the disk of the tests is nearly full.
fn host() -> EnvOptions {
    EnvOptions::new(17).config("[alerts]\ndisk_free = 1")
}

/// Compares with the committed screen; what differs from run to run is replaced, and broken lines are joined, for
/// where they break depends on the length of what was replaced.
#[track_caller]
fn shown(env: &TestEnv, name: &str, screen: &str) {
    let widest = screen.lines().max_by_key(|line| line.chars().count()).unwrap_or_default();
    // Paths of the test are longer than those of a host.
    assert!(widest.chars().count() <= 80 || widest.contains('/'), "wider than 80 columns: {widest}");
    assert!(!screen.contains('\x1b'), "no colours where nobody sees them: {screen:?}");
    let mut joined = String::new();
    for line in screen.lines() {
        match line.strip_prefix("   ").filter(|rest| !rest.starts_with(' ') && !rest.starts_with("->")) {
            Some(rest) if joined.ends_with('\n') => {
                joined.pop();
                joined += &format!(" {rest}\n");
            }
            _ => joined += &format!("{line}\n"),
        }
    }
    let root = env.root.path().display().to_string();
    let text = joined.replace(&root, "ROOT");
    let mut settings = insta::Settings::clone_current();
    for (pattern, with) in [
        (r"^[^\s:]+: ", "HOST: "),
        (r"\d{8}T\d{6}Z-full-[0-9a-f]{4}", "ID"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "TIME"),
        (r"[0-9A-F]{24}", "SEGMENT"),
        (r"\b[0-9A-F]+/[0-9A-F]{2,8}\b", "LSN"),
        (r"\d+(\.\d+)? (B|KiB|MiB|GiB|TiB)\b", "SIZE"),
        (r"\b\d+(days?|h|m) \d+(h|m|s)\b", "SPAN"),
        (r"\b\d+\.\ds\b|\b\d+(s|m|h|days?)\b", "SPAN"),
        (r"\d+ %", "N %"),
        (r"\b\d+ WAL (files wait|file waits)", "N WAL files wait"),
        (r"\.s\.PGSQL\.\d+", "SOCKET"),
        (r"SPAN\s+$", "SPAN"),
    ] {
        settings.add_filter(pattern, with);
    }
    settings.bind(|| insta::assert_snapshot!(name, text));
}

fn json(pgkeep: &Pgkeep) -> Value {
    pgkeep.clone().global("--json").run(["status"]).json()
}

/// What the agent knows, once that is so.
#[track_caller]
fn when(env: &TestEnv, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    eventually_some(what, SOON, || Some(json(&env.pgkeep)).filter(&is))
}

/// The screen, once all of this is on it: what was true of a look before may not be of this one.
#[track_caller]
fn screen_with(env: &TestEnv, code: i32, words: &[&str]) -> String {
    eventually_some(&format!("the screen has {words:?}"), SOON, || {
        let out = env.pgkeep.run(["status"]);
        let shows = out.code == Some(code) && words.iter().all(|word| out.stdout.contains(word));
        shows.then(|| out.stdout.clone())
    })
}

fn keys(document: &Value) -> Vec<&str> {
    document["status"]["troubles"].as_array().unwrap().iter().map(|t| t["key"].as_str().unwrap()).collect()
}

fn main_cluster(document: &Value) -> &Value {
    &document["snapshot"]["clusters"]["main"]
}

#[test]
fn the_screen_before_set_up_says_what_is_missing_and_how_to_make_it() {
    let env = host().uninitialised().build();
    let screen = env.pgkeep.run(["status"]).exits(4);
    shown(&env, "before_set_up", &screen.stdout);
    let document = json(&env.pgkeep);
    assert_eq!(keys(&document), ["agent-down", "store-unreachable:repo", "archiving-off:main"]);
    assert!(env.repo().list().is_empty(), "looking made nothing");
}

#[test]
fn the_screen_of_a_healthy_host_and_of_one_whose_store_is_down() {
    let env = host().build();
    let agent = env.start_agent();
    env.backup();
    // The backup told the agent; nobody waits for its next look.
    when(&env, "the agent knows everything and nothing waits", |document| {
        let main = main_cluster(document);
        document["status"]["healthy"] == true
            && main["backups"]["last_full"].is_object()
            && main["archive"]["archived_to"].is_string()
            && main["server"]["asked_at"].is_string()
            && main["tail"]["current_at"].is_string()
    });
    // The server itself writes a little now and then, which is then shipped.
    shown(&env, "healthy", &screen_with(&env, 0, &["nothing as of", "nothing waits", "live tail"]));

    let repo = env.repo().path().to_path_buf();
    let away = repo.with_extension("away");
    std::fs::rename(&repo, &away).unwrap();
    let refused = env.pg.switch_wal();
    when(&env, "the agent has seen that the store is down", |document| {
        keys(document).contains(&"store-unreachable:repo")
            && main_cluster(document)["archive"]["failure"].is_object()
            && main_cluster(document)["archive"]["waiting_files"] != 0
    });
    shown(&env, "store_down", &screen_with(&env, 4, &["safe up to", "the oldest for"]));

    std::fs::rename(&away, &repo).unwrap();
    when(&env, "it is well again", |document| document["status"]["healthy"] == true);
    // PostgreSQL, which is asked without an agent, tries again what was refused only after a while, or at the next file.
    let next = env.pg.switch_wal();
    env.pg.wait_archived(&refused);
    env.pg.wait_archived(&next);
    agent.kill();
    let down = env.pgkeep.run(["status"]).exits(4);
    assert!(down.stdout.contains("NO AGENT") && down.stdout.contains("systemctl restart pgkeep"), "{down}");
    let document = when(&env, "all else is as it was", |document| keys(document) == ["agent-down"]);
    assert!(main_cluster(&document)["backups"]["last_full"].is_object());
    assert_eq!(document["status"]["clusters"][0]["loss"]["kind"], "commits");
}

/// The agent finds that it was away when the job's time came, and runs it at once.
fn missed_yesterday(env: &TestEnv) {
    use std::os::unix::fs::{MetadataExt, chown};
    let config = Config::load(&env.config_path).unwrap();
    let (job, file) = (&config.jobs[0], env.state.join("agent.db"));
    let memory = Memory { handled_to: clock::now().minus(Duration::from_hours(48)), retry: None };
    let state = State::open(&file).unwrap();
    runs::remember(&state, &job.name, &job.schedule.to_string(), &memory).unwrap();
    drop(state);
    let owner = std::fs::metadata(&env.state).unwrap();
    for entry in std::fs::read_dir(&env.state).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.file_name().unwrap().to_string_lossy().starts_with("agent.db") {
            chown(&entry, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
    }
}

#[test]
fn the_screen_while_a_backup_runs_is_drawn_again_until_ctrl_c() {
    let job = "[[job]]\nname = \"nightly\"\nkind = \"full\"\nschedule = \"0 2 * * *\"\njitter = \"0s\"";
    let env = host().config(job).build();
    missed_yesterday(&env);
    // Held in the middle, until the test has seen it.
    let held = env.pgkeep.clone().failpoint("backup-after-first-pack", "sleep(120000)");
    let agent = Agent::start_as(&env, &held);
    // What was archived before the agent came it need not know: a segment of its own.
    env.pg.switch_wal();
    when(&env, "the backup has copied something", |document| {
        let running = &document["snapshot"]["jobs"]["nightly"]["running"];
        let main = main_cluster(document);
        running["done_bytes"].as_u64().is_some_and(|done| done > 0)
            && main["server"]["asked_at"].is_string()
            && main["backups"]["seen_at"].is_string()
            && main["archive"]["archived_to"].is_string()
            && main["archive"]["waiting_files"] == 0
            && main["tail"]["current_at"].is_string()
    });
    shown(&env, "while_a_backup_runs", &screen_with(&env, 4, &["nothing waits", "RUNS for"]));

    let drawn = env.root.file("drawn", 0o644, "");
    let file = std::fs::File::create(&drawn).unwrap();
    let mut watching = env.pgkeep.command(["status", "--watch", "1"]).stdout(file).spawn().unwrap();
    eventually("it is drawn again", SOON, || {
        std::fs::read_to_string(&drawn).unwrap().matches("TROUBLE").count() >= 2
    });
    kill(Pid::from_raw(watching.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(watching.wait().unwrap().code(), Some(0));
    agent.kill();
}
