//! Data directories of every shape.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::opened::{backup, fill, open_with_tools, unpack};
use crate::support::{EnvOptions, Stop};

#[test]
fn a_tablespace_in_place_is_a_directory_of_the_backup() {
    for major in [14, 18] {
        let env = EnvOptions::new(major).build();
        // A developer's setting; it came to 14 with 14.5.
        let sql = "set allow_in_place_tablespaces = on; create tablespace here location ''";
        let session = env.pg.session();
        for statement in sql.split("; ") {
            session.sql(statement);
        }
        env.pg.sql("create table inside tablespace here as select 1 as one");
        let id = backup(&env).ok().json()["id"].as_str().unwrap().to_owned();
        let unpacked = unpack(&env, &id);
        let oid = env.pg.one("select oid from pg_tablespace where spcname = 'here'");
        assert_eq!(unpacked.record["tablespaces"][0]["location"], format!("pg_tblspc/{oid}"));
        let path = env.pg.one("select pg_relation_filepath('inside')");
        assert!(path.starts_with(&format!("pg_tblspc/{oid}/PG_")) && unpacked.dir.join(path).exists());
    }
}

#[test]
fn a_pg_wal_that_is_a_link_becomes_an_empty_directory_and_modes_are_kept() {
    let env = EnvOptions::new(17).pg(|pg| pg.initdb_arg("--allow-group-access")).build();
    env.pg.stop(Stop::Fast);
    let elsewhere = env.root.dir("wal-elsewhere", 0o750);
    let wal = env.pg.data.join("pg_wal");
    let moved = Command::new("bash")
        .args(["-c", "mv \"$1\"/* \"$2\"/ && rmdir \"$1\"", "-"])
        .args([&wal, &elsewhere])
        .status()
        .unwrap();
    assert!(moved.success());
    symlink(&elsewhere, &wal).unwrap();
    env.pg.start();
    let id = backup(&env).ok().json()["id"].as_str().unwrap().to_owned();
    let unpacked = unpack(&env, &id);
    let mode = |path: &str| {
        std::fs::symlink_metadata(unpacked.dir.join(path)).unwrap().permissions().mode() & 0o7777
    };
    assert!(unpacked.dir.join("pg_wal").is_dir() && !unpacked.dir.join("pg_wal").is_symlink());
    assert_eq!((mode("base"), mode("PG_VERSION")), (0o750, 0o640));
    assert!(std::fs::read_dir(unpacked.dir.join("pg_wal")).unwrap().all(|e| e.unwrap().path().is_dir()));
}

#[test]
fn configuration_outside_the_data_directory_is_kept_in_an_archive_of_its_own() {
    let env = EnvOptions::new(16).build();
    env.pg.stop(Stop::Fast);
    let outside = env.root.dir("etc", 0o755);
    env.root.dir("etc/conf.d", 0o755);
    env.root.file("etc/conf.d/10-extra.conf", 0o644, "work_mem = '5MB'\n");
    std::fs::rename(env.pg.data.join("pg_hba.conf"), outside.join("pg_hba.conf")).unwrap();
    env.pg.add_conf(&format!("hba_file = '{0}/pg_hba.conf'\ninclude_dir = '{0}/conf.d'", outside.display()));
    env.pg.start();
    let id = backup(&env).ok().json()["id"].as_str().unwrap().to_owned();
    let into = env.root.dir("config", 0o755);
    open_with_tools(&env, &format!("main/backups/{id}/config.tar.zst.age"), &into, true);
    let inside = |path: &Path| into.join(path.strip_prefix("/").unwrap());
    assert!(inside(&outside.join("pg_hba.conf")).exists());
    assert!(inside(&outside.join("conf.d/10-extra.conf")).exists());
}

#[test]
fn without_encryption_the_same_objects_are_plain_zstd() {
    let env = EnvOptions::new(18).plain().build();
    fill(&env.pg, 1000);
    let id = backup(&env).ok().json()["id"].as_str().unwrap().to_owned();
    let unpacked = unpack(&env, &id);
    assert_eq!(unpacked.record["codec"], "zstd");
    assert_eq!(unpacked.record["recipients"], serde_json::json!([]));
}

#[test]
fn with_encryption_a_marker_is_nowhere_in_the_stored_bytes() {
    let env = EnvOptions::new(17).build();
    env.pg.sql("create table secret as select 'pgkeep-marker-of-this-test' as word");
    env.pg.add_conf("cluster_name = 'pgkeep-marker-of-this-test'");
    backup(&env).ok();
    assert_eq!(env.repo().containing(b"pgkeep-marker-of-this-test"), Vec::<String>::new());
}

#[test]
fn links_out_of_the_data_directory_are_kept_or_named_and_what_cannot_be_read_fails_the_backup() {
    let env = EnvOptions::new(15).build();
    env.root.dir("beside", 0o755);
    env.root.file("beside/kept.conf", 0o644, "# kept\n");
    symlink("../beside/kept.conf", env.pg.data.join("kept.conf")).unwrap();
    symlink("../beside", env.pg.data.join("to-a-directory")).unwrap();
    symlink("/nonexistent", env.pg.data.join("to-nothing")).unwrap();
    nix::unistd::mkfifo(&env.pg.data.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let report = backup(&env).ok().json();
    let warnings = report["warnings"].to_string();
    for name in ["to-a-directory", "to-nothing", "pipe"] {
        assert!(warnings.contains(name), "{name}: {warnings}");
    }
    assert!(!warnings.contains("kept.conf"), "{warnings}");
    let id = report["id"].as_str().unwrap();
    let tar = env.repo().find(&[id, "config.tar"]);
    assert!(!tar.is_empty());

    // Nobody but root may look into it; the program runs as the servers' user.
    let hidden = env.pg.data.join("hidden");
    std::fs::create_dir(&hidden).unwrap();
    std::fs::set_permissions(&hidden, PermissionsExt::from_mode(0o700)).unwrap();
    let before = env.repo().list_under("main/backups/");
    let refused = backup(&env).exits(1);
    assert!(refused.stderr.contains("hidden"), "{refused}");
    let published = |keys: &[String]| keys.iter().filter(|k| k.ends_with("backup.json")).count();
    assert_eq!(published(&env.repo().list_under("main/backups/")), published(&before));
}
