//! Side instances: the main road of `restore --target-dir`.

use pgkeep::model::{Inclusion, Target};

use crate::support::{Ledger, TestEnv};

/// A backup between ledger rows, everything archived.
fn ledger_with_backup(env: &TestEnv) -> Ledger {
    let mut ledger = Ledger::create(&env.pg);
    ledger.write(&env.pg, 3);
    env.backup();
    ledger.write(&env.pg, 3);
    ledger.restore_point(&env.pg, "here");
    ledger.write(&env.pg, 3);
    env.pg.switch_and_archive();
    ledger
}

fn side_restores(env: &TestEnv, ledger: &Ledger, name: &str, target: &Target, inclusion: Inclusion) {
    let dir = env.side_dir(name);
    let text = target.to_string();
    let mut args = vec!["restore", "--to", &text, "--target-dir", dir.to_str().unwrap(), "--yes"];
    if target.has_inclusion() && inclusion == Inclusion::Before {
        args.push("--before");
    }
    let ran = env.pgkeep.run(&args).ok();
    ledger.assert_ends_at(&env.side(&dir), ledger.expect_last(target, inclusion));
    assert!(ran.stdout.contains("connect with: psql"), "{}", ran.stdout);
    env.pgkeep.run(["restore", "discard", "--yes", "--target-dir", dir.to_str().unwrap()]).ok();
    assert!(!dir.join("PG_VERSION").exists());
}

#[test]
fn a_side_instance_ends_exactly_at_every_kind_of_target() {
    let env = TestEnv::new(18);
    let ledger = ledger_with_backup(&env);
    let row = ledger.entry(5).clone();
    for (name, target) in [
        ("latest", Target::Latest),
        ("time", Target::Time(row.at)),
        ("xid", Target::Xid(row.xid)),
        ("lsn", Target::Lsn(row.end)),
        ("name", Target::Name("here".into())),
    ] {
        side_restores(&env, &ledger, name, &target, Inclusion::After);
        if target.has_inclusion() {
            side_restores(&env, &ledger, &format!("{name}-b"), &target, Inclusion::Before);
        }
    }
}
