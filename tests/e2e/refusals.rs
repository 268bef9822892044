//! What people read when pgkeep refuses: the whole message, golden. Each says what to do next.

use std::path::Path;

use crate::support::{Build, EnvOptions, Ledger, PgOptions, Pgkeep, Ran, Stop, TestEnv};

/// The error as it was printed, with what differs from run to run taken out.
#[track_caller]
fn refusal(env: &TestEnv, ran: &Ran) -> String {
    assert!(matches!(ran.code, Some(1..=4)), "{ran}");
    let from = ran.stderr.find("error[").unwrap_or_else(|| panic!("no error in {ran}"));
    let text = ran.stderr[from..].trim_end().replace(&env.root.path().display().to_string(), "[ROOT]");
    assert!(text.contains("\nhint: "), "it does not say what to do next: {ran}");
    format!("exit {}\n{text}", ran.code.unwrap())
}

macro_rules! refuses {
    ($env:expr, $ran:expr, $name:literal) => {{
        let text = refusal(&$env, &$ran);
        insta::with_settings!({filters => [
            (r"\d{8}T\d{6}Z-full-[0-9a-f]{4}", "[BACKUP]"),
            (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?\+00", "[TIME]"),
            (r"\d+/[0-9A-F]{5,8}\b", "[LSN]"),
            (r"\b\d{18,20}\b", "[SYSTEM]"),
            (r"\bPID \d+|process \d+|pid \d+", "process [PID]"),
            (r"\d+(\.\d+)? [KMGT]iB", "[SIZE]"),
            (r"/[\w/-]+/pg/(\d+)/bin", "[PG]/$1/bin"),
            (r"RW[A-Za-z0-9+/=]{50,}", "[KEY]"),
            (r"\b[0-9A-F]{16}\b", "[KEYID]"),
            (r"\b[0-9A-F]{24}\b", "[SEGMENT]"),
        ]}, { insta::assert_snapshot!($name, text) });
    }};
}

fn side(dir: &Path, to: &str) -> Vec<String> {
    ["restore", "--yes", "--target-dir", dir.to_str().unwrap(), "--to", to].map(str::to_owned).to_vec()
}

#[test]
fn targets_and_places() {
    let env = EnvOptions::new(17).pg(|pg| pg.segment_mib(1)).build();
    let mut ledger = Ledger::create(&env.pg);
    env.backup();
    ledger.write(&env.pg, 2);
    env.pg.switch_and_archive();
    let dir = env.side_dir("side");
    let to = |target: &str| env.pgkeep.run(side(&dir, target));
    refuses!(env, to("2001-01-01 00:00:00+00"), "a_time_before_the_first_moment");
    refuses!(env, to("2099-01-01 00:00:00+00"), "a_time_after_the_last_commit");
    refuses!(env, to("lsn:0/1000"), "an_lsn_before_the_first_moment");
    refuses!(env, to("lsn:FF/0"), "an_lsn_after_the_end");
    refuses!(env, to("xid:99999999"), "a_transaction_that_never_was");
    refuses!(env, to("name:nowhere"), "a_restore_point_that_never_was");
    refuses!(env, to("yesterday"), "a_target_that_is_none");
    let unknown = |args: &[&str]| {
        env.pgkeep.run(side(&dir, "latest").iter().map(String::as_str).chain(args.iter().copied()))
    };
    refuses!(env, unknown(&["--backup", "20260101T000000Z-full-abcd"]), "an_unknown_backup");
    refuses!(env, unknown(&["--timeline", "9"]), "an_unknown_timeline");
    refuses!(env, env.pgkeep.run(["restore", "--to", "latest"]), "nobody_to_ask");
    let full = env.root.dir("full", 0o755);
    std::fs::write(full.join("photo.jpg"), "x").unwrap();
    refuses!(env, env.pgkeep.run(side(&full, "latest")), "a_directory_that_is_not_empty");
    refuses!(env, env.pgkeep.run(side(&env.pg.data, "latest")), "the_directory_of_a_running_server");
    let other = env.with_config("tools.toml", |text| text.replace("/pg/17/bin", "/pg/16/bin"));
    refuses!(env, other.run(side(&dir, "latest")), "tools_of_another_major");
    env.pg.stop(Stop::Fast);
    let foreign = PgOptions::new(Build::of(17)).name("foreign").create(&env.root);
    let foreign = env.with_config("foreign.toml", |text| {
        text.replace(env.pg.data.to_str().unwrap(), foreign.data.to_str().unwrap())
    });
    refuses!(env, foreign.run(["restore", "--to", "latest", "--yes"]), "another_clusters_data_directory");
    assert_eq!(dir.read_dir().unwrap().count(), 0, "nothing was written");
}

#[test]
fn keys_and_configuration() {
    let env = EnvOptions::new(18).pg(|pg| pg.segment_mib(1)).build();
    let id = env.backup();
    let dir = env.side_dir("side");
    let latest = |pgkeep: &Pgkeep| pgkeep.run(side(&dir, "backup"));
    let unknown = env.with_config("unknown.toml", |text| text + "\n[restore]\nlook_behind = 3\n");
    refuses!(env, latest(&unknown), "an_unknown_key");
    let two =
        env.with_config("two.toml", |text| text + "\n[cluster.other]\nconnection = \"host=/nowhere\"\n");
    refuses!(env, latest(&two), "several_clusters_and_none_named");
    let open = env.root.file("open.txt", 0o644, &std::fs::read_to_string(&env.identity_file).unwrap());
    let identity = |name: &str, path: &str| {
        env.with_config(name, |text| text.replace(env.identity_file.to_str().unwrap(), path))
    };
    refuses!(env, latest(&identity("open.toml", open.to_str().unwrap())), "an_identity_that_others_can_read");
    refuses!(env, latest(&identity("none.toml", "/nowhere/identity.txt")), "an_identity_that_is_not_there");
    let empty = env.root.dir("empty", 0o700);
    let nowhere = env.with_config("nowhere.toml", |text| {
        text.replace(env.repo().path().to_str().unwrap(), empty.to_str().unwrap())
    });
    refuses!(env, latest(&nowhere), "a_root_without_pgkeep_json");
    // Two repositories, of which the second is required and not there.
    let down = env.with_config("down.toml", |text| {
        format!(
            "{text}\n[[repository]]\nname = \"far\"\nurl = \"file://{}\"\n",
            env.root.join("absent").display()
        )
    });
    refuses!(env, latest(&down), "a_required_repository_that_is_down");
    // A host without this host's key, which trusts nobody.
    let stranger = env.root.dir("stranger", 0o700);
    let stranger = env.with_config("stranger.toml", |text| {
        text.replace(env.state.to_str().unwrap(), stranger.to_str().unwrap())
    });
    refuses!(env, latest(&stranger), "only_untrusted_backups");
    let named = stranger.run(side(&dir, "backup").into_iter().chain(["--backup".to_owned(), id]));
    refuses!(env, named, "an_untrusted_backup");
    assert_eq!(dir.read_dir().unwrap().count(), 0, "nothing was written");
}
