//! Stopping and starting a server through what manages it, and knowing whether one runs.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pgkeep::error::Code;
use pgkeep::model::PgMajor;
use pgkeep::postgres::instance::wait_until_open;
use pgkeep::postgres::privilege::{self, Owner, Standing};
use pgkeep::postgres::service::{Commands, Manager, Service, running_server};
use pgkeep::postgres::{Tools, connect};

use crate::support::{Build, PgOptions, Root, eventually};

const PATIENCE: Duration = Duration::from_mins(1);

async fn service(data: &Path, build: &Build, commands: Commands) -> Service {
    let tools = Tools::find(PgMajor(build.major), Some(&build.bin), None).await.unwrap();
    Service::detect(commands, data, Owner::of(data).unwrap(), tools).await.unwrap()
}

async fn pg_ctl_stops_and_starts_with_the_options_of_the_last_start(build: Build) {
    let root = Root::new();
    let pg = PgOptions::new(build.clone()).create(&root);
    // Configuration outside the data directory is named only on the command line.
    let outside = root.join("outside.conf");
    std::fs::rename(pg.data.join("postgresql.conf"), &outside).unwrap();
    let mut start = build.tool("pg_ctl");
    start.arg("-D").arg(&pg.data).arg("-l").arg(root.join("log")).args(["-w", "start"]);
    start.arg("-o").arg(format!("-c 'config_file={}' -c work_mem=7MB", outside.display()));
    let started = start.output().unwrap();
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stdout));

    let service = service(&pg.data, &build, Commands::default()).await;
    assert!(matches!(service.manager, Manager::PgCtl { .. }), "{:?}", service.manager);
    assert_eq!(service.config_file(), outside);
    assert_eq!(service.configured("wal_level").unwrap().as_deref(), Some("replica"));
    assert!(service.running().await.unwrap().is_some());
    service.stop(PATIENCE).await.unwrap();
    assert!(service.running().await.unwrap().is_none() && !pg.is_running());
    service.watch_stays_down(Duration::from_millis(300)).await.unwrap();
    service.stop(PATIENCE).await.unwrap();
    service.start().await.unwrap();
    wait_until_open(&pg.data, service.log_file().as_deref(), PATIENCE).await.unwrap();
    let session = connect(&pg.conninfo()).await.unwrap();
    assert_eq!(session.setting("work_mem").await.unwrap().as_deref(), Some("7MB"));
    assert_eq!(session.setting("config_file").await.unwrap().as_deref(), outside.to_str());
    assert_eq!(Owner::of(&pg.data.join("postmaster.pid")).unwrap(), Owner::of(&pg.data).unwrap());
    drop(session);
    service.stop(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn pg_ctl_of_postgres_14_stops_and_starts() {
    pg_ctl_stops_and_starts_with_the_options_of_the_last_start(Build::of(14)).await;
}
#[tokio::test]
async fn pg_ctl_of_postgres_18_stops_and_starts() {
    pg_ctl_stops_and_starts_with_the_options_of_the_last_start(Build::of(18)).await;
}

#[tokio::test]
async fn a_server_that_cannot_start_says_so_with_a_hint() {
    let root = Root::new();
    let build = Build::of(17);
    let pg = PgOptions::new(build.clone()).conf("no_such_setting = on").create(&root);
    let service = service(&pg.data, &build, Commands::default()).await;
    // pg_ctl does not wait, so it may have started it; the wait is what finds out.
    let error = match service.start().await {
        Err(e) => e,
        Ok(()) => wait_until_open(&pg.data, service.log_file().as_deref(), Duration::from_secs(3))
            .await
            .unwrap_err(),
    };
    assert_eq!(error.code(), Code::Service);
    assert!(format!("{error:?}").contains("no_such_setting"), "{error:?}");
}

#[tokio::test]
async fn configured_commands_are_used_and_a_failing_one_is_reported() {
    let root = Root::new();
    let build = Build::of(16);
    let pg = PgOptions::new(build.clone()).create(&root);
    pg.start();
    let mark = root.join("stopped-by");
    let commands = |stop: String| Commands { stop: Some(stop), start: Some("true".into()), status: None };
    let failing = service(&pg.data, &build, commands("echo it is the wrong night >&2; exit 7".into())).await;
    let error = failing.stop(PATIENCE).await.unwrap_err();
    assert_eq!(error.code(), Code::Service);
    assert!(error.to_string().contains("wrong night"), "{error}");
    assert!(pg.is_running());
    let stop =
        format!("id -u > {}; kill -INT $(head -1 {}/postmaster.pid)", mark.display(), pg.data.display());
    let working = service(&pg.data, &build, commands(stop)).await;
    working.stop(PATIENCE).await.unwrap();
    assert!(!pg.is_running());
    let uid = std::fs::read_to_string(mark).unwrap();
    assert_eq!(
        uid.trim(),
        nix::unistd::getuid().to_string(),
        "commands of the host run as who we were started as"
    );
    let half = Commands { stop: Some("true".into()), ..Commands::default() };
    let tools = Tools::find(PgMajor(16), Some(&build.bin), None).await.unwrap();
    let error = Service::detect(half, &pg.data, Owner::of(&pg.data).unwrap(), tools).await.unwrap_err();
    assert_eq!(error.code(), Code::Config);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_something_starts_again_is_noticed() {
    let root = Root::new();
    let build = Build::of(15);
    let pg = PgOptions::new(build.clone()).create(&root);
    pg.start();
    let service = service(&pg.data, &build, Commands::default()).await;
    pg.stop(crate::support::Stop::Fast);
    let (watched, ()) = tokio::join!(service.watch_stays_down(Duration::from_secs(10)), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        tokio::task::block_in_place(|| {
            pg.start();
        });
    });
    let error = watched.unwrap_err();
    assert_eq!(error.code(), Code::ServerRunning, "{error:?}");
}

#[tokio::test]
async fn a_killed_server_is_not_running_though_its_pid_file_says_so() {
    let root = Root::new();
    let pg = PgOptions::new(Build::of(14)).create(&root);
    pg.start();
    assert!(running_server(&pg.data).unwrap().unwrap().pid.is_some());
    // Also when it is reached through another name.
    let link = root.join("link");
    std::os::unix::fs::symlink(&pg.data, &link).unwrap();
    assert!(running_server(&link).unwrap().is_some());
    pg.kill9();
    assert!(pg.data.join("postmaster.pid").exists());
    assert_eq!(running_server(&pg.data).unwrap(), None);
}

#[tokio::test]
async fn patroni_beside_its_data_directory_is_refused_with_the_way_to_pause_it() {
    let root = Root::new();
    let build = Build::of(17);
    let pg = PgOptions::new(build.clone()).create(&root);
    let service = service(&pg.data, &build, Commands::default()).await;
    service.refuse_other_managers().unwrap();
    std::fs::write(pg.data.join("patroni.dynamic.json"), "{}").unwrap();
    service.refuse_other_managers().expect("its file alone is a leftover");
    let script = root.file("patroni", 0o755, "#!/bin/sh\nread forever\n");
    let mut patroni = Command::new("sh").arg(&script).stdin(std::process::Stdio::piped()).spawn().unwrap();
    eventually("it is seen", Duration::from_secs(5), || service.refuse_other_managers().is_err());
    let error = service.refuse_other_managers().unwrap_err();
    patroni.kill().unwrap();
    patroni.wait().unwrap();
    assert_eq!(error.code(), Code::ServerRunning);
    assert!(error.hint_text().unwrap().contains("patronictl pause"), "{error:?}");
}

/// A cluster as Debian makes them; it is dropped at the end.
struct DebianCluster(String);

impl DebianCluster {
    fn create() -> Self {
        let cluster = Self(format!("pgkeeptest{}", std::process::id()));
        let made = Command::new("pg_createcluster").args(["15", &cluster.0, "--", "-N"]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        cluster
    }
    fn data(&self) -> std::path::PathBuf {
        Path::new("/var/lib/postgresql/15").join(&self.0)
    }
}

impl Drop for DebianCluster {
    fn drop(&mut self) {
        let _ = Command::new("pg_dropcluster").args(["--stop", "15", &self.0]).output();
    }
}

#[tokio::test]
async fn debians_clusters_are_stopped_and_started_with_pg_ctlcluster() {
    let cluster = DebianCluster::create();
    let build = Build::debian();
    let data = cluster.data();
    let service = service(&data, &build, Commands::default()).await;
    assert_eq!(service.manager, Manager::PgCtlCluster { version: "15".into(), name: cluster.0.clone() });
    assert_eq!(
        service.config_file(),
        Path::new("/etc/postgresql/15").join(&cluster.0).join("postgresql.conf")
    );
    let port: u16 = service.configured("port").unwrap().unwrap().parse().unwrap();
    service.start().await.unwrap();
    wait_until_open(&data, service.log_file().as_deref(), PATIENCE).await.unwrap();
    let server = service.running().await.unwrap().unwrap();
    assert_eq!(server.pid_file.unwrap().port, port);
    assert!(service.log_file().unwrap().starts_with("/var/log/postgresql"));
    service.stop(PATIENCE).await.unwrap();
    assert!(service.running().await.unwrap().is_none());
    service.watch_stays_down(Duration::from_millis(300)).await.unwrap();
    // Its configuration is enough to know it by when the data are lost.
    let moved = data.with_extension("moved");
    std::fs::rename(&data, &moved).unwrap();
    let tools = Tools::find(PgMajor(15), None, None).await.unwrap();
    let lost = Service::detect(Commands::default(), &data, Owner::named("postgres").unwrap(), tools).await;
    assert_eq!(lost.unwrap().manager, service.manager);
    std::fs::rename(&moved, &data).unwrap();
}

/// The change of the whole process's user must not reach other tests: this one runs in a process of its own.
const ALONE: &str = "postgres_service::as_root_everything_is_done_as_the_owner_alone";

#[test]
fn as_root_everything_is_done_as_the_owner() {
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", ALONE, "--ignored", "--test-threads=1", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&run.stderr)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "changes the user of the whole process; as_root_everything_is_done_as_the_owner runs it"]
async fn as_root_everything_is_done_as_the_owner_alone() {
    let root = Root::new();
    let build = Build::of(18);
    let pg = PgOptions::new(build.clone()).conf("wal_keep_size = 1").create(&root);
    std::fs::write(pg.data.join("pg_hba.conf"), "local all all peer map=owner\n").unwrap();
    std::fs::write(pg.data.join("pg_ident.conf"), "owner postgres postgres\n").unwrap();
    pg.start();
    if !nix::unistd::geteuid().is_root() {
        assert_eq!(privilege::become_owner_of(&pg.data).unwrap(), Standing::Owner);
        return;
    }
    let owner = Owner::of(&pg.data).unwrap();
    assert_eq!(privilege::become_owner_of(&pg.data).unwrap(), Standing::RootAsOwner);
    assert_eq!(privilege::become_owner_of(&pg.data).unwrap(), Standing::RootAsOwner);
    // Every thread, and what they make.
    let made = root.join("made");
    let path = made.clone();
    tokio::spawn(async move { std::fs::write(path, "").unwrap() }).await.unwrap();
    assert_eq!(Owner::of(&made).unwrap(), owner);
    assert!(std::fs::read("/etc/shadow").is_err(), "no right of root is left meanwhile");
    // What the owner may not read fails a scan; it is never passed over.
    let facts = connect(&pg.conninfo()).await.unwrap().facts().await.unwrap();
    let closed = pg.data.join("closed");
    std::fs::create_dir(&closed).unwrap();
    let scan = || pgkeep::postgres::scan(&pg.data, &facts.tablespace_version_directory());
    scan().unwrap();
    std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    let error = scan().unwrap_err();
    assert!(error.code() == Code::Io && error.hint_text().unwrap().contains("owner"), "{error:?}");
    std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    // The server takes us for its owner.
    let session = connect(&pg.conninfo()).await.unwrap();
    drop(session);
    // Tools run as the owner, the host's commands as root.
    let service = service(&pg.data, &build, Commands::default()).await;
    service.stop(PATIENCE).await.unwrap();
    service.start().await.unwrap();
    wait_until_open(&pg.data, None, PATIENCE).await.unwrap();
    let mark = root.join("uid");
    let as_root = Commands {
        stop: Some(format!(
            "grep ^Uid /proc/self/status > {}; kill -INT $(head -1 {}/postmaster.pid)",
            mark.display(),
            pg.data.display()
        )),
        start: Some("true".into()),
        status: None,
    };
    let service = self::service(&pg.data, &build, as_root).await;
    service.stop(PATIENCE).await.unwrap();
    assert_eq!(std::fs::read_to_string(mark).unwrap().trim(), "Uid:\t0\t0\t0\t0");
}
