//! Servers that pgkeep starts by itself, and tools of the right major.

use std::path::Path;
use std::time::Duration;

use pgkeep::error::Code;
use pgkeep::model::PgMajor;
use pgkeep::postgres::instance::{Instance, Scratch, ServerState, StartOptions, StopMode, in_recovery};
use pgkeep::postgres::privilege::Owner;
use pgkeep::postgres::{Tools, service};

use crate::support::{Build, Pg, PgOptions, Root, Stop};

const PATIENCE: Duration = Duration::from_mins(1);

async fn tools(build: &Build) -> Tools {
    Tools::find(PgMajor(build.major), Some(&build.bin), None).await.unwrap()
}

fn options(root: &Root, settings: &[(&str, &str)]) -> StartOptions {
    let settings = settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let log_file = root.file("instance.log", 0o600, "");
    StartOptions { settings, log_file }
}

#[tokio::test]
async fn tools_of_another_major_are_refused_and_those_of_the_running_server_are_found() {
    let root = Root::new();
    let build = Build::of(16);
    let error = Tools::find(PgMajor(17), Some(&build.bin), None).await.unwrap_err();
    assert_eq!(error.code(), Code::Tools);
    assert!(error.to_string().contains("tools of PostgreSQL 16, the cluster is of 17"), "{error}");
    let error = Tools::find(PgMajor(16), Some(Path::new("/nonexistent")), None).await.unwrap_err();
    assert_eq!(error.code(), Code::Tools);
    // PostgreSQL 13 is on no machine that runs these tests.
    let error = Tools::find(PgMajor(13), None, None).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("bin_directory"), "{error:?}");

    let pg = PgOptions::new(build.clone()).create(&root);
    pg.start();
    let program = service::server_program(&pg.data).unwrap();
    let found = Tools::find(PgMajor(16), None, Some(&program)).await.unwrap();
    assert_eq!(found.bin_dir, build.bin);
    assert!(found.optional("pg_verifybackup").is_some() && found.optional("pg_combinebackup").is_none());
    let debian = Tools::find(PgMajor(15), None, None).await.unwrap();
    assert_eq!(debian.bin_dir, Path::new("/usr/lib/postgresql/15/bin"));
}

async fn a_scratch_cluster_lives_and_disappears(build: Build) {
    let root = Root::new();
    let owner = Owner::of(root.path()).unwrap();
    let scratch =
        Scratch::create(&tools(&build).await, &owner, root.path(), None, &["--wal-segsize=1"]).await.unwrap();
    let data = scratch.data_directory();
    let session = scratch.connect("postgres").await.unwrap();
    let facts = session.facts().await.unwrap();
    assert_eq!((facts.major.0, facts.data_directory.as_path()), (build.major, data.as_path()));
    assert_eq!(facts.setting("listen_addresses"), "");
    // What the server made belongs to the owner of the directory, not to root.
    assert_eq!(Owner::of(&data.join("postmaster.pid")).unwrap(), owner);
    drop(session);
    scratch.remove().await.unwrap();
    assert!(!data.exists());

    let scratch = Scratch::create(&tools(&build).await, &owner, root.path(), None, &[]).await.unwrap();
    let (data, pid) = (scratch.data_directory(), scratch.instance.pid().unwrap());
    drop(scratch);
    assert!(!data.exists() && !Path::new(&format!("/proc/{pid}")).exists(), "dropping is enough");
}

#[tokio::test]
async fn scratch_clusters_of_postgres_14_disappear() {
    a_scratch_cluster_lives_and_disappears(Build::of(14)).await;
}
#[tokio::test]
async fn scratch_clusters_of_postgres_18_disappear() {
    a_scratch_cluster_lives_and_disappears(Build::of(18)).await;
}
#[tokio::test]
async fn scratch_clusters_of_debians_postgres_disappear() {
    a_scratch_cluster_lives_and_disappears(Build::debian()).await;
}

#[tokio::test]
async fn a_scratch_cluster_that_cannot_be_made_leaves_nothing() {
    let root = Root::new();
    let owner = Owner::of(root.path()).unwrap();
    let before = std::fs::read_dir(root.path()).unwrap().count();
    let made =
        Scratch::create(&tools(&Build::of(17)).await, &owner, root.path(), None, &["--no-such-option"]).await;
    assert_eq!(made.unwrap_err().code(), Code::Tools);
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), before);
}

#[tokio::test]
async fn a_server_that_does_not_start_is_reported_with_its_last_words() {
    let root = Root::new();
    let build = Build::of(18);
    let pg = PgOptions::new(build.clone()).create(&root);
    let owner = Owner::of(&pg.data).unwrap();
    let bad = options(&root, &[("shared_preload_libraries", "no_such_library")]);
    let mut instance = Instance::start(&tools(&build).await, &pg.data, &owner, &bad).unwrap();
    let error = instance.wait_until_open(PATIENCE).await.unwrap_err();
    assert_eq!(error.code(), Code::Service);
    assert!(error.to_string().contains("no_such_library"), "{error}");
    assert!(error.hint_text().unwrap().contains("instance.log"), "{error:?}");
}

/// A standby's data directory without a primary: recovery goes on until it is promoted.
fn eternal_recovery(build: &Build, root: &std::sync::Arc<Root>) -> Pg {
    let primary = PgOptions::new(build.clone()).create(root);
    primary.start();
    primary.sql("create table t as select 1 i");
    let standby = Pg::standby_of(&primary, "standby");
    standby.add_conf("primary_conninfo = ''\nrestore_command = 'false'");
    std::fs::write(standby.data.join("postgresql.auto.conf"), "").unwrap();
    primary.stop(Stop::Fast);
    standby
}

async fn recovery_is_followed_to_its_end(build: Build) {
    let root = Root::new();
    let pg = eternal_recovery(&build, &root);
    let owner = Owner::of(&pg.data).unwrap();
    let socket = root.dir("sock", 0o700).display().to_string();
    for hot in ["on", "off"] {
        let chosen = options(&root, &[("hot_standby", hot), ("unix_socket_directories", &socket)]);
        let mut instance = Instance::start(&tools(&build).await, &pg.data, &owner, &chosen).unwrap();
        let open = instance.wait_until_open(Duration::from_secs(if hot == "on" { 60 } else { 3 })).await;
        if hot == "off" {
            assert_eq!(open.unwrap_err().code(), Code::Service, "it must stay closed");
            assert_eq!(instance.state().unwrap(), ServerState::Recovering);
            instance.stop(StopMode::Fast, PATIENCE).await.unwrap();
            continue;
        }
        open.unwrap();
        assert!(in_recovery(&pg.data).unwrap(), "open is not the same as recovered");
        let early = instance.wait_for_end_of_recovery(Duration::from_millis(300)).await;
        assert!(early.is_err());
        let session = instance.connect("postgres", "postgres").await.unwrap();
        assert!(session.last_replay_lsn().await.unwrap().is_some());
        session.promote(PATIENCE).await.unwrap();
        instance.wait_for_end_of_recovery(PATIENCE).await.unwrap();
        assert_eq!(session.timeline().await.unwrap().0, 2);
        drop(session);
        instance.stop(StopMode::Fast, PATIENCE).await.unwrap();
        assert_eq!(instance.state().unwrap(), ServerState::Down);
        std::fs::write(pg.data.join("standby.signal"), "").unwrap();
        crate::support::root::Ids::server().own(&pg.data.join("standby.signal"));
    }
    // And without any connection, through pg_ctl.
    let chosen = options(&root, &[("hot_standby", "off"), ("unix_socket_directories", &socket)]);
    let mut instance = Instance::start(&tools(&build).await, &pg.data, &owner, &chosen).unwrap();
    crate::support::eventually("recovery has begun", PATIENCE, || {
        instance.state().unwrap() == ServerState::Recovering
    });
    instance.promote(PATIENCE).await.unwrap();
    // Left alone it outlives its value, and another one finds it.
    instance.leave_running();
    let log = instance.log_file.clone();
    drop(instance);
    let mut found = Instance::running(&tools(&build).await, &pg.data, &owner, &log);
    assert_eq!(found.state().unwrap(), ServerState::Open);
    found.stop(StopMode::Immediate, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn recovery_of_postgres_14_is_followed_to_its_end() {
    recovery_is_followed_to_its_end(Build::of(14)).await;
}
#[tokio::test]
async fn recovery_of_postgres_18_is_followed_to_its_end() {
    recovery_is_followed_to_its_end(Build::of(18)).await;
}
