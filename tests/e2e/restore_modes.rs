//! The other ways to end: a shutdown at the target, nothing started, a standby, overwriting, tablespaces moved, as root,
//! without an optional repository.

use crate::support::{EnvOptions, Ledger, PgOptions, Stop, TestEnv, User};

#[test]
fn a_side_instance_can_be_prepared_only_or_shut_down_at_the_target() {
    let env = TestEnv::new(17);
    let mut ledger = Ledger::create(&env.pg);
    env.backup();
    ledger.write(&env.pg, 3);
    env.pg.switch_and_archive();
    let target = format!("xid:{}", ledger.entry(2).xid);
    let dir = env.side_dir("idle");
    let side = env.side(&dir);
    let at = ["--target-dir", dir.to_str().unwrap(), "--yes", "--port", "5477"];
    env.pgkeep.run(["restore", "--to", &target, "--no-start"].iter().chain(&at)).ok();
    assert!(!side.is_running());
    // Its recovery goes by the plan file alone.
    side.start();
    crate::support::eventually("recovery has ended", std::time::Duration::from_secs(30), || {
        side.one("select pg_is_in_recovery()::text") == "false"
    });
    ledger.assert_ends_at(&side, 2);

    let dir = env.side_dir("stopped");
    let at = ["--target-dir", dir.to_str().unwrap(), "--yes"];
    let ran = env.pgkeep.run(["restore", "--to", &target, "--action", "shutdown"].iter().chain(&at)).ok();
    assert!(ran.stdout.contains("shut down at the target"), "{}", ran.stdout);
    assert!(!env.side(&dir).is_running());
}

#[test]
fn a_standby_follows_its_primary_from_the_backup_on() {
    let env = TestEnv::new(16);
    let mut ledger = Ledger::create(&env.pg);
    env.backup();
    ledger.write(&env.pg, 2);
    env.pg.switch_and_archive();
    let replica = PgOptions::new(env.pg.build.clone()).name("replica").create(&env.root);
    std::fs::remove_dir_all(&replica.data).unwrap();
    let pgkeep = env.with_config("replica.toml", |text| {
        let data = replica.data.display().to_string();
        let primary = env.pg.conninfo();
        text.replace(env.pg.data.to_str().unwrap(), &data)
            .replace("[[repository]]", &format!("primary = \"{primary}\"\n\n[[repository]]"))
    });
    let prepared = pgkeep.run(["restore", "--to", "latest", "--standby", "--no-start", "--yes"]).ok();
    assert!(prepared.stdout.contains("not started"), "{}", prepared.stdout);
    assert!(
        replica.data.join("standby.signal").exists() && !replica.data.join("pgkeep.recovery.json").exists()
    );
    // The restored configuration is the primary's; the replica listens elsewhere.
    let other = env.root.dir("replica-socket", 0o700);
    replica.add_conf(&format!("unix_socket_directories = '{}'\narchive_mode = off", other.display()));
    replica.start();
    ledger.write(&env.pg, 2);
    crate::support::eventually("the standby has the last row", std::time::Duration::from_mins(1), || {
        replica.try_sql("select max(id)::text from ledger").is_ok_and(|r| r[0][0].as_deref() == Some("4"))
    });
    assert_eq!(replica.one("select pg_is_in_recovery()::text"), "true");
}

#[test]
fn overwriting_deletes_what_is_there_and_a_map_moves_a_tablespace() {
    let env = TestEnv::new(14);
    let home = env.root.dir("space", 0o700);
    env.pg.sql(&format!("create tablespace space location '{}'", home.display()));
    env.pg.sql("create table kept tablespace space as select generate_series(1, 100) as i");
    env.backup();
    env.pg.switch_and_archive();
    let oid = env.pg.one("select oid::text from pg_tablespace where spcname = 'space'");
    env.pg.stop(Stop::Fast);
    let elsewhere = env.root.join("elsewhere");
    let map = format!("{oid}={}", elsewhere.display());
    env.pgkeep.run(["restore", "--to", "latest", "--overwrite", "--map", &map, "--yes"]).ok();
    assert_eq!(env.pg.one("select count(*)::text from kept"), "100");
    let link = std::fs::read_link(env.pg.data.join("pg_tblspc").join(&oid)).unwrap();
    assert_eq!(link, elsewhere);
    let names: Vec<_> = env.root.path().read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|n| n.to_str().unwrap().contains("_incident_")), "{names:?}");
}

#[test]
fn root_restores_as_the_owner_and_an_optional_repository_may_be_down() {
    let env = EnvOptions::new(18).dir_repository("near", true).dir_repository("far", false).build();
    let mut ledger = Ledger::create(&env.pg);
    env.backup();
    ledger.write(&env.pg, 2);
    env.pg.switch_and_archive();
    std::fs::rename(env.root.join("far"), env.root.join("gone")).unwrap();
    let dir = env.root.join("made-by-root");
    let ran = env
        .pgkeep
        .clone()
        .user(User::Caller)
        .run(["restore", "--to", "latest", "--target-dir", dir.to_str().unwrap(), "--yes"])
        .ok();
    assert!(ran.stderr.contains("far"), "the repository that is left out is named: {}", ran.stderr);
    ledger.assert_ends_at(&env.side(&dir), 2);
    // The required one is another matter.
    std::fs::rename(env.root.join("gone"), env.root.join("far")).unwrap();
    std::fs::rename(env.root.join("near"), env.root.join("gone")).unwrap();
    let other = env.side_dir("other");
    let args = ["restore", "--to", "latest", "--target-dir", other.to_str().unwrap(), "--yes"];
    let refused = env.pgkeep.run(args).exits(1);
    assert!(refused.stderr.contains("--repo"), "{}", refused.stderr);
    env.pgkeep.clone().global("--repo").global("far").run(args).ok();
    ledger.assert_ends_at(&env.side(&other), 2);
}

#[test]
fn a_stale_target_is_taken_out_and_what_waits_prepared_is_named() {
    let env = EnvOptions::new(16)
        .pg(|pg| {
            pg.segment_mib(1).conf("recovery_target_name = 'long ago'").conf("max_prepared_transactions = 7")
        })
        .build();
    let mut ledger = Ledger::create(&env.pg);
    env.pg.sql("create table held (i int)");
    env.backup();
    ledger.write(&env.pg, 2);
    let session = env.pg.session();
    for statement in ["begin", "insert into held values (1)", "prepare transaction 'waits'"] {
        session.sql(statement);
    }
    drop(session);
    ledger.write(&env.pg, 1);
    env.pg.stop(Stop::Fast);
    let target = format!("lsn:{}", ledger.entry(3).end);
    let ran = env.pgkeep.run(["restore", "--to", &target, "--yes"]).ok();
    ledger.assert_ends_at(&env.pg, 3);
    assert!(ran.stderr.contains("1 prepared transactions have come back"), "{}", ran.stderr);
}

#[test]
fn only_a_recovery_of_pgkeeps_own_is_promoted() {
    let env = TestEnv::new(18);
    let standby = crate::support::Pg::standby_of(&env.pg, "standby");
    standby.start();
    let config = env.with_config("standby.toml", |text| {
        text.replace(env.pg.data.to_str().unwrap(), standby.data.to_str().unwrap())
    });
    config.run(["restore", "promote"]).fails_with("refused", 3);
    assert_eq!(standby.one("select pg_is_in_recovery()::text"), "true");
}
