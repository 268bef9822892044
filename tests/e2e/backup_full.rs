//! `backup full` against real servers: what is stored opens with age, zstd and tar alone and pleases
//! `pg_verifybackup`; what goes wrong publishes nothing.

mod crash;
mod layout;
mod opened;
mod pages;
mod refusals;
mod several;

use std::process::Command;

use self::opened::{backup, fill, published, unpack};
use crate::support::{Build, EnvOptions, TestEnv};

fn the_tools_open_a_backup(build: Build) {
    let env = EnvOptions::on(build).build();
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
        assert!(env.repo().list_under("main/wal/").iter().any(|k| k.contains(segment)), "{segment}");
    }
    signature_is_minisigns(&env, &id);
    the_index_names_every_file(&env, &id);
}

/// The host's metadata key opens it, without the identity; it knows each file's place and its relation.
fn the_index_names_every_file(env: &TestEnv, id: &str) {
    use pgkeep::codec::{Identities, open_sealed};
    use pgkeep::repository::index::BackupIndex;
    let metadata = std::fs::read_to_string(env.state.join("keys/metadata.key")).unwrap();
    let ids = Identities::parse(&metadata, "metadata.key").unwrap();
    let key = format!("main/backups/{id}/index.json.zst.age");
    let stored = env.repo().read(&key);
    let index = BackupIndex::read(open_sealed(&stored[..], &key, Some(&ids)).unwrap(), &key).unwrap();
    let path = env.pg.one("select pg_relation_filepath('filled')");
    assert_eq!(index.relations[&path], "postgres.public.filled");
    assert!(index.member(path.as_bytes()).is_some_and(|m| m.size > 0 && m.length > 0));
    assert_eq!(index.members.last().unwrap().name.as_bytes(), b"global/pg_control");
    assert_eq!(index.settings["max_connections"], "30");
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
    the_tools_open_a_backup(Build::of(14));
}
#[test]
fn tools_alone_open_a_backup_of_postgres_15() {
    the_tools_open_a_backup(Build::of(15));
}
#[test]
fn tools_alone_open_a_backup_of_postgres_16() {
    the_tools_open_a_backup(Build::of(16));
}
#[test]
fn tools_alone_open_a_backup_of_postgres_17() {
    the_tools_open_a_backup(Build::of(17));
}
#[test]
fn tools_alone_open_a_backup_of_postgres_18() {
    the_tools_open_a_backup(Build::of(18));
}
#[test]
fn tools_alone_open_a_backup_of_debians_postgres() {
    the_tools_open_a_backup(Build::debian());
}
