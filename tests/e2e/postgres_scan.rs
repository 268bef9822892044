//! What the scan takes is exactly what `pg_basebackup` takes.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;

use pgkeep::postgres::{EntryKind, connect, scan};

use crate::support::{Build, Pg, PgOptions, Root};

/// Every kind of thing that a scan has an opinion about; the session keeps the temporary table alive.
fn furnish(pg: &Pg, root: &Root) -> crate::support::sql::Session {
    pg.sql("create table plain as select generate_series(1, 50000) i");
    pg.sql("create unlogged table fleeting as select generate_series(1, 50000) i");
    pg.sql("create database other");
    for name in ["outside", "dropped"] {
        root.dir(name, 0o700);
        pg.sql(&format!("create tablespace {name} location '{}'", root.join(name).display()));
    }
    pg.sql("drop tablespace dropped");
    std::fs::create_dir(root.join("outside/PG_9.6_201608131")).unwrap();
    std::fs::write(root.join("outside/PG_9.6_201608131/1"), "foreign").unwrap();
    let inner = pg.data.join("inner");
    std::fs::create_dir(&inner).unwrap();
    crate::support::root::Ids::server().own(&inner);
    pg.sql(&format!("create tablespace inner_space location '{}'", inner.display()));
    pg.sql("create table spaced tablespace outside as select generate_series(1, 50000) i");
    pg.sql("create unlogged table spaced_fleeting tablespace outside as select 1 i");
    pg.sql("create table inner_table tablespace inner_space as select 1 i");
    let session = pg.session();
    session.sql("set allow_in_place_tablespaces = on");
    session.sql("create tablespace placed location ''");
    pg.sql("create table placed_table tablespace placed as select 1 i");
    pg.sql("create database spaced_db tablespace outside");
    pg.sql("vacuum analyze plain");
    session.sql("create temporary table passing as select generate_series(1, 1000) i");
    session.sql("checkpoint");
    std::fs::write(pg.data.join("foreign.txt"), "foreign").unwrap();
    std::fs::create_dir_all(pg.data.join("foreign/empty")).unwrap();
    std::fs::create_dir(pg.data.join("base/pgsql_tmp")).ok();
    std::fs::write(pg.data.join("base/pgsql_tmp/pgsql_tmp1.0"), "x").unwrap();
    symlink("/etc/hostname", pg.data.join("linked.conf")).unwrap();
    for entry in walkdir::WalkDir::new(&pg.data).into_iter().flatten() {
        if !entry.path_is_symlink() {
            crate::support::root::Ids::server().own(entry.path());
        }
    }
    session
}

async fn the_scan_agrees_with_pg_basebackup(build: Build) {
    let root = Root::new();
    let pg = PgOptions::new(build).conf("wal_keep_size = 100").create(&root);
    pg.start();
    let _session = furnish(&pg, &root);
    let target = root.join("copy");
    let map = |from: &Path, name: &str| {
        format!("--tablespace-mapping={}={}", from.display(), root.join(name).display())
    };
    let mut copy = pg.build.tool("pg_basebackup");
    copy.args(["-X", "none", "-c", "fast", "-N", "-U", "postgres", "-D"])
        .arg(&target)
        .arg("-h")
        .arg(pg.socket().0);
    copy.arg(map(&root.join("outside"), "copy-outside")).arg(map(&pg.data.join("inner"), "copy-inner"));
    let copied = copy.output().unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));

    let facts = connect(&pg.conninfo()).await.unwrap().facts().await.unwrap();
    let found = scan(&facts.data_directory, &facts.tablespace_version_directory()).unwrap();

    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(target.join("backup_manifest")).unwrap()).unwrap();
    let theirs: BTreeSet<String> = manifest["Files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["Path"].as_str().unwrap().to_owned())
        // They are made by the backup itself.
        .filter(|path| path != "backup_label" && path != "tablespace_map")
        .collect();
    let ours: BTreeSet<String> = found.files().map(|e| e.path.display().to_string()).collect();
    assert_eq!(ours.difference(&theirs).collect::<Vec<_>>(), Vec::<&String>::new(), "only we take these");
    assert_eq!(
        theirs.difference(&ours).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "only pg_basebackup takes these"
    );

    let directories = |from: &Path| -> BTreeSet<String> {
        walkdir::WalkDir::new(from)
            .into_iter()
            .flatten()
            .filter(|e| e.file_type().is_dir() && e.path() != from)
            .map(|e| e.path().strip_prefix(from).unwrap().display().to_string())
            .collect()
    };
    let ours: BTreeSet<String> = found
        .entries
        .iter()
        .filter(|e| e.kind == EntryKind::Directory && !links_to(&found, &e.path))
        .map(|e| e.path.display().to_string())
        .collect();
    assert_eq!(ours, directories(&target), "directories, the empty ones too");
    assert_eq!(found.tablespaces().count(), 2);
    assert_eq!(
        found.skipped.iter().map(|s| s.path.display().to_string()).collect::<Vec<_>>(),
        ["linked.conf"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_survives_files_that_vanish_under_it() {
    let root = Root::new();
    let pg = PgOptions::new(Build::of(16)).create(&root);
    pg.start();
    let facts = connect(&pg.conninfo()).await.unwrap().facts().await.unwrap();
    let session = pg.session();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                session.sql("create table passing (i int primary key, t text)");
                session.sql("drop table passing");
                session.sql("checkpoint");
            }
        });
        for _ in 0..100 {
            let found = scan(&facts.data_directory, &facts.tablespace_version_directory());
            if found.is_err() {
                done.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            found.unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// True for what lies behind a tablespace's link, which a walk over the copy does not follow.
fn links_to(found: &pgkeep::postgres::Scan, path: &Path) -> bool {
    found.tablespaces().any(|(oid, _)| path.starts_with(format!("pg_tblspc/{oid}")))
}

#[tokio::test]
async fn the_scan_agrees_with_pg_basebackup_14() {
    the_scan_agrees_with_pg_basebackup(Build::of(14)).await;
}
#[tokio::test]
async fn the_scan_agrees_with_pg_basebackup_15() {
    the_scan_agrees_with_pg_basebackup(Build::of(15)).await;
}
#[tokio::test]
async fn the_scan_agrees_with_pg_basebackup_16() {
    the_scan_agrees_with_pg_basebackup(Build::of(16)).await;
}
#[tokio::test]
async fn the_scan_agrees_with_pg_basebackup_17() {
    the_scan_agrees_with_pg_basebackup(Build::of(17)).await;
}
#[tokio::test]
async fn the_scan_agrees_with_pg_basebackup_18() {
    the_scan_agrees_with_pg_basebackup(Build::of(18)).await;
}
#[tokio::test]
async fn the_scan_agrees_with_debians_pg_basebackup() {
    the_scan_agrees_with_pg_basebackup(Build::debian()).await;
}
