//! How these tests make a place, take a backup and open it without pgkeep.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Pg, Pgkeep, Ran, RawStore, Running, TestEnv, eventually};

/// A backup's objects of one repository, unpacked with the tools alone.
pub(super) struct Unpacked {
    pub(super) dir: PathBuf,
    pub(super) record: serde_json::Value,
}

pub(super) fn record(store: &RawStore, id: &str) -> serde_json::Value {
    serde_json::from_slice(&store.read(&format!("main/backups/{id}/backup.json"))).unwrap()
}

pub(super) fn published(store: &RawStore) -> Vec<String> {
    store
        .list_under("main/backups/")
        .into_iter()
        .filter(|k| k.rsplit('/').next() == Some("backup.json"))
        .collect()
}

pub(super) fn open_with_tools(env: &TestEnv, key: &str, into: &Path, tar: bool) {
    let object = env.repo().path().join(key);
    let (identity, object) = (env.identity_file.display(), object.display());
    let decrypt = if key.contains(".zst.age") {
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
pub(super) fn unpack(env: &TestEnv, id: &str) -> Unpacked {
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

pub(super) fn backup(env: &TestEnv) -> Ran {
    env.pgkeep.clone().global("--json").run(["backup", "full"])
}

/// A backup that stands still at a step of its own accord.
pub(super) fn backup_halted_at(env: &TestEnv, step: &str) -> Running {
    halted_at(&env.pgkeep, step)
}

pub(super) fn halted_at(pgkeep: &Pgkeep, step: &str) -> Running {
    let running = pgkeep.clone().failpoint(step, "return(stop)").global("--json").spawn(["backup", "full"]);
    let stat = format!("/proc/{}/stat", running.pid());
    eventually(&format!("the backup halts at {step}"), Duration::from_mins(1), || {
        std::fs::read_to_string(&stat).is_ok_and(|text| text.contains(") T "))
    });
    running
}

pub(super) fn fill(pg: &Pg, rows: u32) {
    pg.sql(&format!(
        "create table filled as select i, md5(i::text) as word from generate_series(1, {rows}) i;
         create index on filled (word)"
    ));
}

/// The file of a relation, after a checkpoint has written it.
pub(super) fn file_of(pg: &Pg, relation: &str) -> PathBuf {
    pg.sql("checkpoint");
    pg.data.join(pg.one(&format!("select pg_relation_filepath('{relation}')")))
}
