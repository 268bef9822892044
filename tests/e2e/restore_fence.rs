//! A side instance touches nothing outside its own directory, whatever the WAL says (promise 7).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::TestEnv;

fn digests(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files =
        walkdir::WalkDir::new(root).into_iter().map(|e| e.unwrap()).filter(|e| e.file_type().is_file());
    files.map(|e| (e.path().to_owned(), std::fs::read(e.path()).unwrap())).collect()
}

fn neighbours_stay_unharmed(major: u32) {
    let env = TestEnv::new(major);
    let home = env.root.dir("before", 0o700);
    env.pg.sql(&format!("create tablespace older location '{}'", home.display()));
    env.pg.sql("create table a tablespace older as select generate_series(1, 100) as i");
    env.backup();
    let newer = env.root.dir("newer", 0o700);
    env.pg.sql(&format!("create tablespace newer location '{}'", newer.display()));
    env.pg.sql("create table b tablespace newer as select generate_series(1, 200) as i");
    env.pg.sql("create database inside tablespace newer");
    env.pg.switch_and_archive();
    env.pg.sql("checkpoint");
    let before = (digests(&home), digests(&newer));

    let dir = env.side_dir("side");
    let plan = ["restore", "--to", "latest", "--target-dir", dir.to_str().unwrap()];
    let shown = env.pgkeep.run(plan.iter().chain(&["--dry-run"])).ok();
    assert!(shown.stdout.contains("pg_tblspc/"), "{}", shown.stdout);
    env.pgkeep.run(plan.iter().chain(&["--yes"])).ok();
    let side = env.side(&dir);
    assert_eq!(side.one("select count(*)::text from a"), "100");
    assert_eq!(side.one("select count(*)::text from b"), "200");
    for statement in [
        "drop table a",
        "drop table b",
        "drop database inside",
        "drop tablespace older",
        "drop tablespace newer",
        "checkpoint",
    ] {
        side.sql(statement);
    }
    assert!(before == (digests(&home), digests(&newer)), "production's files were touched");
    assert_eq!(env.pg.one("select count(*)::text from b"), "200");
    env.pgkeep.run(["restore", "discard", "--yes", "--target-dir", dir.to_str().unwrap()]).ok();
    assert!(before == (digests(&home), digests(&newer)));
}

#[test]
fn production_is_unharmed_by_what_is_dropped_in_a_side_instance_of_14() {
    neighbours_stay_unharmed(14);
}

#[test]
fn production_is_unharmed_by_what_is_dropped_in_a_side_instance_of_18() {
    neighbours_stay_unharmed(18);
}
