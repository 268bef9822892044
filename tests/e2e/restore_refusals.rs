//! Refusals that need a place or an archive of their own; the others are in `refusals.rs`.

use crate::support::{Ledger, Ran, TestEnv};

fn side_restore(env: &TestEnv, target: &str, dir: &std::path::Path) -> Ran {
    env.pgkeep.run(["restore", "--to", target, "--target-dir", dir.to_str().unwrap(), "--yes"])
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
    let ran = side_restore(&env, "latest", &dir).fails_with("target-unreachable", 3);
    assert!(ran.stderr.contains(&format!("the archive has a hole: {lost} is missing")), "{}", ran.stderr);
    let target =
        ran.stderr.split("--to ").find(|s| s.starts_with("lsn:")).unwrap().split('`').next().unwrap();
    side_restore(&env, target, &dir).ok();
    ledger.assert_ends_at(&env.side(&dir), 2);
}

#[test]
fn too_little_room_is_found_out_first_and_a_foreign_directory_is_not_discarded() {
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
    let ran = side_restore(&env, "backup", &small);
    let unmounted = std::process::Command::new("umount").arg(&small).status().unwrap();
    assert!(unmounted.success());
    let refused = ran.fails_with("no-space", 3);
    assert!(
        refused.stderr.contains("there is not enough room: ") && refused.stderr.contains("--map OID=DIR")
    );

    let photos = env.root.dir("photos", 0o755);
    std::fs::write(photos.join("photo.jpg"), "x").unwrap();
    let discard = ["restore", "discard", "--yes", "--target-dir", photos.to_str().unwrap()];
    env.pgkeep.run(discard).fails_with("refused", 3);
    assert!(photos.join("photo.jpg").exists());
}
