//! Nothing leaks (promise 5): what is in the database is found nowhere in a repository's bytes, nothing is written in
//! the clear by accident, and no secret is ever printed.

use std::io::Read as _;
use std::path::Path;

use crate::support::{EnvOptions, Ledger, Pgkeep, RawStore, Stop, TestEnv};

mod secrets;

/// Upper and lower case, so that no hexadecimal digest contains it.
const MARKER: &str = "KanarienvogelQx7";

/// The marker into everything that a backup or WAL carries: rows, TOAST, index, comment, names, configuration inside
/// and outside the data directory, the backup's files, restore points.
fn spread_the_marker(env: &TestEnv) -> Ledger {
    let mut ledger = Ledger::with_marker(&env.pg, MARKER);
    ledger.write(&env.pg, 5);
    let session = env.pg.session();
    session.sql(&format!("create table \"{MARKER}_table\" (t text primary key, big text)"));
    session.sql(&format!("alter table \"{MARKER}_table\" alter column big set storage external"));
    session.sql(&format!(
        "insert into \"{MARKER}_table\" select '{MARKER}' || n, \
         (select string_agg('{MARKER}' || md5(i::text), '') from generate_series(1, 200) i) \
         from generate_series(1, 50) n"
    ));
    session.sql(&format!("comment on table \"{MARKER}_table\" is 'about {MARKER}'"));
    session.sql(&format!("create database \"{MARKER}_database\""));
    session.sql(&format!("alter system set cluster_name = '{MARKER}'"));
    let outside = env.root.file("outside.conf", 0o644, &format!("leak.canary = '{MARKER}'\n"));
    env.pg.add_conf(&format!("include '{}'\nleak.inside = '{MARKER}'", outside.display()));
    for file in [format!("{MARKER}.txt"), "pg_hba.conf".to_owned()] {
        let path = env.pg.data.join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::write(&path, format!("{text}\n# {MARKER}\n")).unwrap();
        crate::support::root::Ids::server().own(&path);
    }
    env.pg.reload();
    ledger.restore_point(&env.pg, &format!("before {MARKER}"));
    ledger
}

/// A backup in the middle of marked work, and everything archived.
fn back_up(env: &TestEnv) {
    let mut ledger = spread_the_marker(env);
    env.pg.switch_and_archive();
    env.backup();
    ledger.write(&env.pg, 5);
    env.pg.switch_and_archive();
}

/// Keys of the objects in which the marker can be read: in the name, in the stored bytes, or behind any place that
/// looks like the beginning of a zstd frame.
fn readable(store: &RawStore) -> Vec<String> {
    let holds = |bytes: &[u8]| bytes.windows(MARKER.len()).any(|w| w == MARKER.as_bytes());
    let decompressed = |bytes: &[u8]| {
        let frames = (0..bytes.len().saturating_sub(3)).filter(|at| bytes[*at..].starts_with(&ZSTD_MAGIC));
        frames.into_iter().any(|at| holds(&unzstd(&bytes[at..])))
    };
    let found = |key: &String| {
        let bytes = store.read(key);
        holds(key.as_bytes()) || holds(&bytes) || decompressed(&bytes)
    };
    store.list().into_iter().filter(found).collect()
}

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// What one frame decompresses to, as far as it goes.
fn unzstd(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if let Ok(decoder) = zstd::stream::read::Decoder::with_buffer(bytes) {
        let _ = decoder.single_frame().read_to_end(&mut out);
    }
    out
}

fn options(major: u32) -> EnvOptions {
    EnvOptions::new(major).pg(|pg| pg.segment_mib(1))
}

#[test]
fn what_is_in_the_database_is_nowhere_in_the_bytes_of_a_directory_or_a_bucket() {
    let env = options(17).dir_repository("dir", true).s3_repository("s3", true).build();
    back_up(&env);
    for name in ["dir", "s3"] {
        let store = env.store(name);
        let keys = store.list();
        for kind in
            ["data/00001.tar.zst.age", "config.tar.zst.age", "manifest.json.zst.age", "index.json.zst.age"]
        {
            assert!(keys.iter().any(|k| k.ends_with(kind)), "{kind} in {keys:#?}");
        }
        assert!(keys.iter().filter(|k| k.starts_with("main/wal/")).count() > 2, "{keys:#?}");
        assert_eq!(readable(store), Vec::<String>::new(), "in {name}");
    }
    // Nor where pgkeep keeps its own things.
    let state = RawStore::Dir(env.state.clone());
    assert_eq!(readable(&state), Vec::<String>::new(), "in the state directory");
}

#[test]
fn with_encryption_none_the_same_search_finds_it_in_every_kind_of_object() {
    let env = options(17).plain().build();
    back_up(&env);
    let found = readable(env.repo());
    for kind in ["/data/", "/config.tar.zst", "/manifest.json.zst", "/index.json.zst", "/wal/"] {
        assert!(found.iter().any(|k| k.contains(kind)), "{kind} in {found:#?}");
    }
}

/// The configuration without a word about encryption, and with an empty list of recipients.
fn without_recipients(env: &TestEnv) -> [Pgkeep; 2] {
    let cut = |text: String, instead: &str| {
        let from = text.find("[encryption]").unwrap();
        text[..from].to_owned() + instead
    };
    [
        env.with_config("unset.toml", |text| cut(text, "")),
        env.with_config("empty.toml", |text| cut(text, "[encryption]\nrecipients = []\n")),
    ]
}

#[test]
fn without_recipients_every_command_that_would_write_refuses_and_writes_nothing() {
    let env = options(16).build();
    env.pg.sql("create table t as select 1 as n");
    env.backup();
    let segment = env.pg.switch_and_archive();
    let state = RawStore::Dir(env.state.clone());
    let look = || (env.repo().snapshot(), state.snapshot(), env.pg.one("select pg_current_wal_insert_lsn()"));
    let before = look();
    let segment = format!("pg_wal/{segment}");
    for pgkeep in without_recipients(&env) {
        let pgkeep = pgkeep.dir(&env.pg.data);
        let side = env.root.join("side").display().to_string();
        let commands: [&[&str]; 7] = [
            &["init"],
            &["init", "--apply"],
            &["wal", "push", &segment],
            &["backup", "full"],
            &["backup"],
            &["check"],
            &["restore", "--to", "latest", "--in-place", "--yes"],
        ];
        for command in commands {
            let ran = pgkeep.run(command).exits(2);
            assert!(
                ran.stderr.contains("error[encryption-unset]") || ran.stderr.contains("error[config]"),
                "{ran}"
            );
            assert!(ran.stderr.contains("recipients"), "{ran}");
            assert_eq!(look(), before, "after {command:?}");
        }
        assert!(!Path::new(&side).exists());
    }
    assert!(env.pg.is_running());
}

#[test]
fn a_repository_is_not_even_begun_without_recipients() {
    let env = options(18).uninitialised().build();
    for pgkeep in without_recipients(&env) {
        for command in [&["init"][..], &["init", "--apply"]] {
            pgkeep.run(command).exits(2);
            assert_eq!(env.repo().list(), Vec::<String>::new());
            assert_eq!(RawStore::Dir(env.state.clone()).list(), Vec::<String>::new());
        }
    }
}

#[test]
fn a_host_without_the_identity_backs_up_and_reads_nothing_back() {
    let env = options(15).pg(|pg| pg.conf("max_wal_size = '64MB'")).build();
    std::fs::remove_file(&env.identity_file).unwrap();
    let mut ledger = Ledger::with_marker(&env.pg, MARKER);
    ledger.write(&env.pg, 5);
    let segment = env.pg.switch_and_archive();
    env.backup();
    let out = env.root.dir("out", 0o700).join("segment");
    let out = out.to_str().unwrap();
    env.pgkeep.clone().dir(&env.pg.data).run(["wal", "fetch", &segment, out]).exits(200);
    assert!(!Path::new(out).exists());
    env.pg.stop(Stop::Fast);
}
