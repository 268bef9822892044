//! A side instance harms nobody, whatever production's WAL and configuration say (promise 7).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::support::{EnvOptions, Ledger, Pg, Stop, TestEnv};

const PAGE: u64 = 8192;

/// Every file, directory and link below, with what it holds.
fn digests(roots: &[PathBuf]) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = roots.iter().flat_map(|root| walkdir::WalkDir::new(root).into_iter().map(|e| e.unwrap()));
    entries
        .map(|entry| {
            let path = entry.path().to_owned();
            let kind = entry.file_type();
            let what = if kind.is_symlink() {
                std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else if kind.is_file() {
                Sha256::digest(std::fs::read(&path).unwrap()).to_vec()
            } else {
                Vec::new()
            };
            (path, what)
        })
        .collect()
}

/// The processes of the server in `data`.
fn processes(data: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir("/proc").unwrap().flatten().map(|e| e.path());
    let pids = all.filter(|p| p.file_name().unwrap().to_str().unwrap().parse::<u32>().is_ok());
    pids.filter(|p| std::fs::read_link(p.join("cwd")).is_ok_and(|cwd| cwd == data)).collect()
}

/// What the processes of a server hold open: paths, and the inodes of sockets.
fn open_files(data: &Path) -> (BTreeSet<PathBuf>, BTreeSet<String>) {
    let (mut paths, mut sockets) = (BTreeSet::new(), BTreeSet::new());
    for process in processes(data) {
        for fd in std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
            let Ok(target) = std::fs::read_link(fd.path()) else { continue };
            let text = target.to_string_lossy().into_owned();
            match text.strip_prefix("socket:[") {
                Some(inode) => drop(sockets.insert(inode.trim_end_matches(']').to_owned())),
                None => drop(paths.insert(target)),
            }
        }
    }
    (paths, sockets)
}

/// Inodes of all sockets of TCP, whatever their state.
fn tcp_sockets() -> BTreeSet<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|t| std::fs::read_to_string(t).unwrap_or_default());
    let lines = tables.iter().flat_map(|t| t.lines().skip(1));
    lines.filter_map(|l| l.split_whitespace().nth(9).map(str::to_owned)).collect()
}

/// It holds nothing open outside its directory, and knows no network.
#[track_caller]
fn keeps_to_itself(env: &TestEnv, side: &Pg) {
    let (paths, sockets) = open_files(&side.data);
    assert!(!paths.is_empty() && !sockets.is_empty());
    let outside: Vec<_> =
        paths.iter().filter(|p| p.starts_with(env.root.path()) && !p.starts_with(&side.data)).collect();
    assert!(outside.is_empty(), "open outside {}: {outside:?}", side.data.display());
    assert!(sockets.is_disjoint(&tcp_sockets()), "a side instance speaks TCP");
}

/// Creates tablespaces until the record of one lies across the border of two pages of WAL; their directories.
fn tablespace_across_pages(env: &TestEnv) -> Vec<PathBuf> {
    let pg = &env.pg;
    let mut directories = Vec::new();
    let mut into_statement = 0;
    for n in 0..12 {
        let dir = env.root.dir(&format!("across-{n}-{}", "x".repeat(60)), 0o700);
        let session = pg.session();
        let position = || parse_lsn(&session.one("select pg_current_wal_insert_lsn()"));
        // A filler that puts the record some 70 bytes before the next border.
        let at = (position() + into_statement) % PAGE;
        let fill = (2 * PAGE - 70 - at) % PAGE;
        if n > 0 && fill > 120 {
            session.sql(&format!("select pg_logical_emit_message(false, 'f', repeat('f', {}))", fill - 50));
        }
        let begin = position();
        session.sql(&format!("create tablespace across_{n} location '{}'", dir.display()));
        let end = session.one("select pg_current_wal_flush_lsn()");
        directories.push(dir);
        let mut log = pg.build.tool("pg_waldump");
        log.args(["-r", "Tablespace", "-s", &lsn_text(begin), "-e", &end, "-p"]).arg(pg.data.join("pg_wal"));
        let log = log.output().unwrap();
        let text = String::from_utf8_lossy(&log.stdout).into_owned();
        let record = text.lines().find(|l| l.contains("CREATE")).unwrap_or_else(|| panic!("{log:?}"));
        let field = |name: &str| record.split(name).nth(1).unwrap().trim_start().to_owned();
        let start = parse_lsn(field("lsn:").split(',').next().unwrap());
        let length: u64 =
            field("rec/tot):").split(',').next().unwrap().split('/').nth(1).unwrap().trim().parse().unwrap();
        if start % PAGE + length > PAGE {
            return directories;
        }
        into_statement = start - begin;
    }
    panic!("no record of 12 lay across a border");
}

fn parse_lsn(text: &str) -> u64 {
    text.parse::<pgkeep::model::Lsn>().unwrap().0
}
fn lsn_text(lsn: u64) -> String {
    pgkeep::model::Lsn(lsn).to_string()
}

/// Lines of a configuration that would do harm, or keep a server from starting, beside production.
fn dangerous_settings(env: &TestEnv) -> String {
    let root = env.root.path().display();
    format!(
        "external_pid_file = '{root}/production.pid'\nlogging_collector = on\nlog_directory = '{root}/logs'\n\
         ssl = on\nssl_cert_file = '{root}/none.crt'\nshared_buffers = '4TB'\nhuge_pages = on\n\
         listen_addresses = '*'\nunix_socket_directories = '{root}/main.s'\narchive_mode = always\n\
         archive_cleanup_command = 'touch {root}/cleaned'\nrecovery_end_command = 'touch {root}/ended'\n\
         shared_preload_libraries = 'pg_stat_statements'\ninclude '{root}/extra.conf'\n\
         stats_temp_directory = '{root}/logs'\nprimary_conninfo = 'host=/nowhere'\n"
    )
}

/// A production with tablespaces, databases and moves between them, before and after the backup; its directories.
fn production(major: u32) -> (TestEnv, Ledger, Vec<PathBuf>) {
    let preload = "shared_preload_libraries = 'pg_stat_statements'";
    let env = EnvOptions::new(major).pg(|pg| pg.segment_mib(1).conf(preload)).build();
    let space = |name: &str| {
        let home = env.root.dir(&format!("ts-{name}"), 0o700);
        env.pg.sql(&format!("create tablespace {name} location '{}'", home.display()));
        home
    };
    let mut ledger = Ledger::create(&env.pg);
    let mut homes = vec![env.pg.data.clone(), space("older")];
    env.pg.sql("create table a tablespace older as select generate_series(1, 100) as i");
    env.pg.sql("create extension pg_stat_statements");
    ledger.write(&env.pg, 2);
    let conf = std::fs::read_to_string(env.pg.data.join("postgresql.conf")).unwrap();
    // As the backup finds it: the running server knows nothing of it.
    let extra = env.root.file("extra.conf", 0o644, "port = 5433\nlog_filename = 'production.log'\n");
    env.pg.add_conf(&dangerous_settings(&env));
    env.pgkeep.run(["backup", "full"]).ok();
    std::fs::write(env.pg.data.join("postgresql.conf"), conf).unwrap();
    std::fs::remove_file(extra).unwrap();
    homes.push(space("newer"));
    homes.push(space("gone"));
    env.pg.sql("create table b tablespace newer as select generate_series(1, 200) as i");
    env.pg.sql("create table c tablespace gone as select 1 as i");
    env.pg.sql("alter table all in tablespace gone set tablespace newer");
    env.pg.sql("drop tablespace gone");
    env.pg.sql("alter tablespace newer rename to moved");
    env.pg.sql("alter table a set tablespace moved");
    if major >= 15 {
        env.pg.sql("create database copied strategy file_copy tablespace older");
        env.pg.sql("create database logged strategy wal_log tablespace moved");
    } else {
        env.pg.sql("create database copied tablespace older");
        env.pg.sql("create database logged tablespace moved");
    }
    env.pg.sql("alter database copied set tablespace moved");
    homes.extend(tablespace_across_pages(&env));
    ledger.write(&env.pg, 3);
    env.pg.switch_and_archive();
    (env, ledger, homes)
}

fn nobody_is_harmed(major: u32) {
    let (env, mut ledger, homes) = production(major);
    // Down, so that whatever changes was changed by somebody else.
    env.pg.stop(Stop::Fast);
    let (files, archive) = (digests(&homes), env.repo().snapshot());

    let dir = env.side_dir("side");
    let text = dir.to_str().unwrap();
    env.pgkeep.run(["restore", "--to", "latest", "--target-dir", text, "--yes"]).ok();
    let side = env.side(&dir);
    ledger.assert_ends_at(&side, 5);
    assert_eq!(side.one("select count(*) from a"), "100");
    assert_eq!(side.one("select count(*) from b"), "200");
    for database in ["copied", "logged"] {
        assert_eq!(side.session_in(database).one("select current_database()"), database);
    }
    assert_eq!(side.one("show archive_mode"), "off");
    assert_eq!(side.one("show listen_addresses"), "");
    assert_eq!(side.one("show shared_preload_libraries"), "pg_stat_statements");
    keeps_to_itself(&env, &side);
    side.sql("create table own as select generate_series(1, 1000) as i");
    let across = side.sql("select spcname from pg_tablespace where spcname like 'across%'");
    assert!(!across.is_empty());
    let drops = across.iter().map(|row| format!("drop tablespace {}", row[0].clone().unwrap()));
    let all =
        ["drop table a", "drop table b", "drop table c", "drop database copied", "drop database logged"];
    let all = all.into_iter().chain(["drop tablespace older", "drop tablespace moved"]).map(str::to_owned);
    for statement in all.chain(drops).chain(["select pg_switch_wal()".to_owned(), "checkpoint".to_owned()]) {
        side.sql(&statement);
    }
    keeps_to_itself(&env, &side);
    unharmed(&env, &homes, &files, &archive);

    // Both at once, and the end of the side instance, which somebody restarted by hand meanwhile.
    side.stop(Stop::Fast);
    side.start();
    unharmed(&env, &homes, &files, &archive);
    env.pgkeep.run(["restore", "discard", "--yes", "--target-dir", text]).ok();
    assert!(!side.is_running());
    unharmed(&env, &homes, &files, &archive);
    env.pg.start();
    ledger.write(&env.pg, 1);
    ledger.assert_ends_at(&env.pg, 6);
    assert_eq!(env.pg.one("select (select count(*) from a) + (select count(*) from b)"), "300");
}

#[track_caller]
fn unharmed(
    env: &TestEnv,
    homes: &[PathBuf],
    files: &BTreeMap<PathBuf, Vec<u8>>,
    archive: &BTreeMap<String, String>,
) {
    let now = digests(homes);
    let differ = |(path, what): &(&PathBuf, &Vec<u8>)| now.get(*path) != Some(*what);
    let changed: Vec<_> = files.iter().filter(differ).map(|(path, _)| path).collect();
    assert!(changed.is_empty(), "changed or gone: {changed:?}");
    let new: Vec<_> = now.keys().filter(|path| !files.contains_key(*path)).collect();
    assert!(new.is_empty(), "came into production's directories: {new:?}");
    assert!(env.repo().snapshot() == *archive, "the archive was changed");
    for trace in ["production.pid", "logs", "cleaned", "ended"] {
        assert!(!env.root.join(trace).exists(), "{trace}: a setting of production took effect");
    }
}

#[test]
fn a_side_instance_of_14_harms_nothing_of_production() {
    nobody_is_harmed(14);
}
#[test]
fn a_side_instance_of_18_harms_nothing_of_production() {
    nobody_is_harmed(18);
}

/// Recovery stops where production was given more connections than the recovering server has, unless it is prepared.
#[test]
fn production_may_have_been_given_more_connections_after_the_backup() {
    let env = EnvOptions::new(17).pg(|pg| pg.segment_mib(1)).build();
    let mut ledger = Ledger::create(&env.pg);
    env.backup();
    ledger.write(&env.pg, 1);
    env.pg.add_conf("max_connections = 77\nmax_worker_processes = 21\nmax_prepared_transactions = 9");
    env.pg.restart();
    ledger.write(&env.pg, 2);
    env.pg.switch_and_archive();
    let dir = env.side_dir("side");
    env.pgkeep.run(["restore", "--to", "latest", "--target-dir", dir.to_str().unwrap(), "--yes"]).ok();
    ledger.assert_ends_at(&env.side(&dir), 3);
    env.pg.kill9();
    env.pgkeep.run(["restore", "--to", "latest", "--yes"]).ok();
    ledger.assert_ends_at(&env.pg, 3);
}
