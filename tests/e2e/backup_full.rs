//! `backup full` against real servers: what is stored opens with age, zstd and tar alone and pleases
//! `pg_verifybackup`; what goes wrong publishes nothing.

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{Build, EnvOptions, Pg, Ran, RawStore, TestEnv, eventually};

/// What `pgkeep init` does, by hand.
fn make(options: EnvOptions) -> TestEnv {
    use pgkeep::codec::GeneratedIdentity;
    use pgkeep::model::{ClusterName, PgMajor, SegmentSize, SystemId};
    use pgkeep::repository::signature::HostKey;
    use pgkeep::repository::{SystemDocument, access, add_cluster, add_system, create};
    let env = options
        .uninitialised()
        .pg(|pg| pg.conf("archive_mode = on").conf("archive_command = 'false'"))
        .build();
    let keys = env.root.dir("state/keys", 0o700);
    let key = HostKey::generate().unwrap().files().unwrap();
    let metadata = GeneratedIdentity::new();
    for (name, text) in [
        ("host.key", key.secret.as_str()),
        ("host.pub", key.public.as_str()),
        ("metadata.key", metadata.file_text().as_str()),
    ] {
        let path = keys.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    }
    let segment: u32 =
        env.pg.one("select setting from pg_settings where name = 'wal_segment_size'").parse().unwrap();
    let document = SystemDocument {
        system_identifier: SystemId(env.pg.system_id()),
        pg_major: PgMajor(env.pg.build.major),
        wal_segment_bytes: SegmentSize::new(segment).unwrap(),
    };
    let config = pgkeep::config::Config::load(&env.config_path).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for repository in &config.repositories {
            let settings = access::store_settings(repository).unwrap();
            let storage = pgkeep::storage::open(&settings).await.unwrap();
            create(&*storage, "00", "2026-11-21T00:00:00Z".parse().unwrap()).await.unwrap();
            let opened = access::open_repository(&config, &repository.name).await.unwrap();
            let main = ClusterName::parse("main").unwrap();
            add_cluster(&opened, &main).await.unwrap();
            add_system(&opened, &main, &document).await.unwrap();
        }
    });
    let own = Command::new("chown").args(["-R", "postgres:"]).arg(env.root.path()).status().unwrap();
    assert!(own.success());
    env.turn_archiving_on();
    env
}

/// A backup's objects of one repository, unpacked with the tools alone.
struct Unpacked {
    dir: PathBuf,
    record: serde_json::Value,
}

fn record(store: &RawStore, id: &str) -> serde_json::Value {
    serde_json::from_slice(&store.read(&format!("main/backups/{id}/backup.json"))).unwrap()
}

fn published(store: &RawStore) -> Vec<String> {
    store.list_under("main/backups/").into_iter().filter(|k| k.ends_with("/backup.json")).collect()
}

fn open_with_tools(env: &TestEnv, key: &str, into: &Path, tar: bool) {
    let object = env.repo().path().join(key);
    let (identity, object) = (env.identity_file.display(), object.display());
    let decrypt = if key.ends_with(".age") {
        format!("age -d -i {identity} {object} | zstd -dq")
    } else {
        format!("zstd -dqc {object}")
    };
    let into = into.display();
    let end = if tar { format!("| tar x -p -C {into}") } else { format!("> {into}") };
    let script = format!("set -euo pipefail; {decrypt} {end}");
    let ran = Command::new("bash").args(["-c", &script]).stdin(Stdio::null()).output().unwrap();
    assert!(ran.status.success(), "{script}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// As the runbook says; then `pg_verifybackup -n` of the server's own build must accept it.
fn unpack(env: &TestEnv, id: &str) -> Unpacked {
    let record = record(env.repo(), id);
    let dir = env.root.dir(&format!("unpacked-{id}"), 0o700);
    for object in record["objects"].as_array().unwrap() {
        let relative = object["key"].as_str().unwrap();
        let key = format!("main/backups/{id}/{relative}");
        let stored = env.repo().read(&key);
        assert_eq!(object["bytes"], stored.len(), "{key}");
        if relative.starts_with("data/") {
            open_with_tools(env, &key, &dir, true);
        } else if relative.starts_with("manifest.json") {
            open_with_tools(env, &key, &dir.join("backup_manifest"), false);
        }
    }
    let owned = Command::new("chown").args(["-R", "postgres:"]).arg(&dir).status().unwrap();
    assert!(owned.success());
    env.pg.build.run_tool("pg_verifybackup", [Path::new("-n"), &dir]);
    Unpacked { dir, record }
}

fn backup(env: &TestEnv) -> Ran {
    env.pgkeep.clone().global("--json").run(["backup", "full"])
}

fn fill(pg: &Pg, rows: u32) {
    pg.sql(&format!(
        "create table filled as select i, md5(i::text) as word from generate_series(1, {rows}) i;
         create index on filled (word)"
    ));
}

/// The file of a relation, after a checkpoint has written it.
fn file_of(pg: &Pg, relation: &str) -> PathBuf {
    pg.sql("checkpoint");
    pg.data.join(pg.one(&format!("select pg_relation_filepath('{relation}')")))
}

fn the_tools_open_a_backup_and_the_server_starts_on_it(build: Build) {
    let env = make(EnvOptions::on(build));
    fill(&env.pg, 20_000);
    let tablespace = env.root.dir("space", 0o700);
    env.pg.sql(&format!("create tablespace space location '{}'", tablespace.display()));
    env.pg.sql("create table elsewhere tablespace space as select 1 as one");
    env.pg.sql("create unlogged table unlogged as select 1 as one");
    let json = backup(&env).ok().json();
    let id = json["id"].as_str().unwrap().to_owned();
    assert_eq!(published(env.repo()).len(), 1);
    let unpacked = unpack(&env, &id);
    let record = &unpacked.record;
    assert_eq!(record["system_identifier"], env.pg.system_id().to_string());
    assert_eq!(record["from_standby"], false);
    assert_eq!(record["page_errors"].as_array().unwrap().len(), 0);
    assert_eq!(record["tablespaces"][0]["location"], tablespace.to_str().unwrap());
    assert!(!record["recipients"].as_array().unwrap().is_empty());

    // The unlogged table's data stays behind, its init fork does not; directories keep their place.
    let path = env.pg.one("select pg_relation_filepath('unlogged')");
    assert!(!unpacked.dir.join(&path).exists() && unpacked.dir.join(format!("{path}_init")).exists());
    assert!(unpacked.dir.join("pg_wal/archive_status").is_dir() && unpacked.dir.join("pg_replslot").is_dir());
    assert_eq!(std::fs::read_dir(unpacked.dir.join("pg_wal/archive_status")).unwrap().count(), 0);

    // Every segment from the first to the last is in the repository.
    for field in ["wal_first", "wal_last"] {
        let segment = record[field].as_str().unwrap();
        assert_eq!(
            env.repo().list_under("main/wal/").iter().filter(|k| k.contains(segment)).count() > 0,
            true
        );
    }
    signature_is_minisigns(&env, &id);
}

fn signature_is_minisigns(env: &TestEnv, id: &str) {
    let record = env.repo().path().join(format!("main/backups/{id}/backup.json"));
    let ran = Command::new("minisign")
        .args(["-V", "-p"])
        .arg(env.state.join("keys/host.pub"))
        .arg("-m")
        .arg(&record)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn tools_alone_open_a_backup_of_postgres_14() {
    the_tools_open_a_backup_and_the_server_starts_on_it(Build::of(14));
}
#[test]
fn tools_alone_open_a_backup_of_postgres_15() {
    the_tools_open_a_backup_and_the_server_starts_on_it(Build::of(15));
}
#[test]
fn tools_alone_open_a_backup_of_postgres_16() {
    the_tools_open_a_backup_and_the_server_starts_on_it(Build::of(16));
}
#[test]
fn tools_alone_open_a_backup_of_postgres_17() {
    the_tools_open_a_backup_and_the_server_starts_on_it(Build::of(17));
}
#[test]
fn tools_alone_open_a_backup_of_postgres_18() {
    the_tools_open_a_backup_and_the_server_starts_on_it(Build::of(18));
}
#[test]
fn tools_alone_open_a_backup_of_debians_postgres() {
    the_tools_open_a_backup_and_the_server_starts_on_it(Build::debian());
}
