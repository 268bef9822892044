//! What cannot be done is refused before anything is touched, and the refusal says what to do next.

use crate::support::{Build, Ledger, PgOptions, Stop, TestEnv};

fn stderr_of(env: &TestEnv, args: &[&str], status: i32) -> String {
    let ran = env.pgkeep.run(args).exits(status);
    ran.stderr
        .lines()
        .filter(|l| !l.starts_with("looking") && !l.starts_with("finding"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn targets_outside_the_window_name_the_window() {
    let env = TestEnv::new(18);
    let mut ledger = Ledger::create(&env.pg);
    env.backup();
    ledger.write(&env.pg, 2);
    env.pg.switch_and_archive();
    let dir = env.side_dir("side");
    let side = dir.to_str().unwrap();
    for (target, what) in [
        ("2001-01-01 00:00:00+00", "before the first moment"),
        ("lsn:0/1000", "before the first moment"),
        ("2099-01-01 00:00:00+00", "no transaction ended after this time"),
        ("lsn:FF/0", "the archive ends before the target"),
        ("xid:99999999", "no transaction 99999999 ended"),
        ("name:nowhere", "no restore point `nowhere`"),
    ] {
        let said = stderr_of(&env, &["restore", "--to", target, "--target-dir", side, "--yes"], 3);
        assert!(said.contains("error[target-unreachable]") && said.contains(what), "{said}");
        assert!(said.contains("what can be reached is from "), "{said}");
        assert!(
            said.contains("see: runbooks/restore-to-a-moment.md") || said.contains("restore-to-a-moment.md"),
            "{said}"
        );
    }
    assert_eq!(dir.read_dir().unwrap().count(), 0, "nothing was written");
}

#[test]
fn a_hole_before_the_latest_is_refused_with_an_lsn_that_works() {
    let env = TestEnv::new(17);
    let mut ledger = Ledger::create(&env.pg);
    env.backup();
    ledger.write(&env.pg, 2);
    env.pg.switch_and_archive();
    ledger.write(&env.pg, 2);
    let lost = env.pg.switch_and_archive();
    ledger.write(&env.pg, 2);
    env.pg.switch_and_archive();
    env.repo().delete(&env.repo().find(&[&lost, "-"]));
    let dir = env.side_dir("side");
    let side = dir.to_str().unwrap();
    let said = stderr_of(&env, &["restore", "--to", "latest", "--target-dir", side, "--yes"], 3);
    assert!(said.contains(&format!("{lost} is missing")), "{said}");
    let target = said.split("--to ").find(|s| s.starts_with("lsn:")).unwrap().split('`').next().unwrap();
    env.pgkeep.run(["restore", "--to", target, "--target-dir", side, "--yes"]).ok();
    ledger.assert_ends_at(&env.side(&dir), 2);
}

#[test]
fn a_place_that_is_in_use_is_never_touched() {
    let env = TestEnv::new(16);
    Ledger::create(&env.pg).write(&env.pg, 1);
    env.backup();
    let dir = env.root.dir("full", 0o755);
    std::fs::write(dir.join("photo.jpg"), "x").unwrap();
    let said =
        stderr_of(&env, &["restore", "--to", "backup", "--target-dir", dir.to_str().unwrap(), "--yes"], 3);
    assert!(said.contains("error[not-empty]"), "{said}");
    let data = env.pg.data.to_str().unwrap();
    let said = stderr_of(&env, &["restore", "--to", "backup", "--target-dir", data, "--yes"], 3);
    assert!(said.contains("error[server-running]"), "{said}");
    assert!(env.pg.is_running() && dir.join("photo.jpg").exists());
}

#[test]
fn another_clusters_data_directory_is_not_overwritten_even_with_yes() {
    let env = TestEnv::new(16);
    Ledger::create(&env.pg).write(&env.pg, 1);
    env.backup();
    env.pg.stop(Stop::Fast);
    let foreign = PgOptions::new(Build::of(16)).name("foreign").create(&env.root);
    let control = std::fs::read(foreign.data.join("global/pg_control")).unwrap();
    let config = env.with_config("foreign.toml", |text| {
        text.replace(env.pg.data.to_str().unwrap(), foreign.data.to_str().unwrap())
    });
    for extra in [None, Some("--overwrite")] {
        let args = ["restore", "--to", "latest", "--yes"].into_iter().chain(extra);
        let ran = config.run(args).exits(3);
        assert!(ran.stderr.contains("error[foreign-cluster]"), "{}", ran.stderr);
    }
    assert_eq!(std::fs::read(foreign.data.join("global/pg_control")).unwrap(), control);
}

#[test]
fn nothing_happens_without_a_confirmation() {
    let env = TestEnv::new(18);
    Ledger::create(&env.pg).write(&env.pg, 1);
    env.backup();
    env.pg.switch_and_archive();
    let ran = env.pgkeep.run(["restore", "--to", "latest"]).exits(3);
    assert!(ran.stderr.contains("error[not-confirmed]"), "{}", ran.stderr);
    assert!(ran.stderr.contains("Plan of the restore"), "the plan was shown: {}", ran.stderr);
    assert!(env.pg.is_running());
}

#[test]
fn too_little_room_and_tools_of_another_major_are_found_out_first() {
    let env = TestEnv::new(17);
    Ledger::create(&env.pg).write(&env.pg, 1);
    env.backup();
    let small = env.root.dir("small", 0o700);
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=8m,mode=0700,uid=postgres", "tmpfs"])
        .arg(&small)
        .status()
        .unwrap();
    assert!(mounted.success(), "this test mounts a small file system and needs to run as root");
    let said =
        stderr_of(&env, &["restore", "--to", "backup", "--target-dir", small.to_str().unwrap(), "--yes"], 3);
    let unmounted = std::process::Command::new("umount").arg(&small).status().unwrap();
    assert!(unmounted.success());
    assert!(said.contains("error[no-space]") && said.contains("available"), "{said}");

    let other = env.with_config("tools.toml", |text| text.replace("/pg/17/bin", "/pg/16/bin"));
    let dir = env.side_dir("side");
    let ran =
        other.run(["restore", "--to", "backup", "--target-dir", dir.to_str().unwrap(), "--yes"]).exits(1);
    assert!(ran.stderr.contains("error[tools]"), "{}", ran.stderr);
}

#[test]
fn an_untrusted_backup_is_never_chosen() {
    let env = TestEnv::new(15);
    Ledger::create(&env.pg).write(&env.pg, 1);
    let id = env.backup();
    env.pg.switch_and_archive();
    env.repo().delete(&env.repo().find(&["backup.json.minisig"]));
    let dir = env.side_dir("side");
    let side = dir.to_str().unwrap();
    let ran = env.pgkeep.run(["restore", "--to", "latest", "--target-dir", side, "--yes"]).exits(3);
    assert!(ran.stderr.contains("untrusted"), "{}", ran.stderr);
    let ran = env.pgkeep.run(["restore", "--to", "latest", "--backup", &id, "--target-dir", side, "--yes"]);
    ran.fails_with("untrusted", 3);
}
