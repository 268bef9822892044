//! Pages that fail their checksum, and files that cannot be read.

use std::fs::File;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use nix::sys::signal::Signal;

use super::opened::{backup, backup_halted_at, file_of, fill, published, record};
use crate::support::EnvOptions;

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0xFF], at).unwrap();
}

#[test]
fn a_damaged_page_is_named_and_the_backup_is_published_as_damaged() {
    let env = EnvOptions::new(17).build();
    fill(&env.pg, 5_000);
    let path = file_of(&env.pg, "filled");
    flip(&path, 2 * 8192 + 5000);
    let ran = backup(&env).fails_with("pages-damaged", 4);
    let id = ran.json()["id"].as_str().unwrap().to_owned();
    let relative = path.strip_prefix(&env.pg.data).unwrap().to_str().unwrap();
    let record = record(env.repo(), &id);
    assert_eq!(record["page_errors"], serde_json::json!([{ "file": relative, "blocks": [2] }]));
}

#[test]
fn without_checksums_no_page_is_judged() {
    let env = EnvOptions::new(18).pg(|pg| pg.checksums(false)).build();
    fill(&env.pg, 5_000);
    flip(&file_of(&env.pg, "filled"), 2 * 8192 + 5000);
    let id = backup(&env).ok().json()["id"].as_str().unwrap().to_owned();
    assert_eq!(record(env.repo(), &id)["data_checksums"], false);
}

#[test]
fn a_torn_page_that_the_backups_own_wal_repairs_is_accepted() {
    let env = EnvOptions::new(16).build();
    fill(&env.pg, 5_000);
    let path = file_of(&env.pg, "filled");
    let running = backup_halted_at(&env, "backup-after-start");
    // Changed after the start, so that WAL has the whole page; on disk it is torn.
    env.pg.sql("update filled set word = 'changed' where i = 1; checkpoint");
    flip(&path, 8192 - 100);
    running.signal(Signal::SIGCONT);
    let id = running.wait().ok().json()["id"].as_str().unwrap().to_owned();
    assert_eq!(record(env.repo(), &id)["page_errors"], serde_json::json!([]));
}

#[test]
fn a_file_that_cannot_be_read_fails_the_backup() {
    let env = EnvOptions::new(15).build();
    fill(&env.pg, 100);
    let path = file_of(&env.pg, "filled");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).unwrap();
    backup(&env).fails_with("io", 1).says(path.file_name().unwrap().to_str().unwrap());
    assert!(published(env.repo()).is_empty());
}

#[test]
fn a_table_that_is_dropped_meanwhile_is_left_out() {
    let env = EnvOptions::new(14).build();
    fill(&env.pg, 100);
    env.pg.sql("checkpoint");
    let path = file_of(&env.pg, "filled");
    let running = backup_halted_at(&env, "backup-after-start");
    env.pg.sql("drop table filled; checkpoint");
    assert!(!path.exists() || path.metadata().unwrap().len() == 0);
    running.signal(Signal::SIGCONT);
    running.wait().ok();
    assert_eq!(published(env.repo()).len(), 1);
}
