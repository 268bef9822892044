//! What lengths, digests and signatures cannot tell, in a directory and in a bucket: a WAL record that is wrong inside a segment that
//! was stored as it is, a backup whose parts contradict each other, another's object, objects exchanged, an end that never came.

use serde_json::Value;

use super::{fill, options, segments, verify};
use crate::support::{TestEnv, forge};

/// Where the first record's data is: behind the long page header (40 bytes) and the record's own (24).
const IN_THE_FIRST_RECORD: usize = 66;

fn contents_are_looked_at(env: &TestEnv) {
    let id = fill(env);
    verify(&env.pgkeep, &[]).assert_clean();
    let store = env.repo();

    // Rightly named and sealed: only the record's own CRC tells.
    let wal = segments(store);
    let (forged, undo) = forge::segment(env, &wal[1].1, |plain| plain[IN_THE_FIRST_RECORD] ^= 1);
    verify(&env.pgkeep, &["--wal"]).assert_clean();
    let said = verify(&env.pgkeep, &["--wal", "--deep"]);
    said.names("damaged", &forged);
    said.names("wal-hole", &wal[1].0);
    undo.undo();
    verify(&env.pgkeep, &["--wal", "--deep"]).assert_clean();

    // An index that says another size than the manifest.
    let index = store.find(&[&id, "/index.json"]);
    let undo = forge::object(env, &index, |plain| {
        let mut document: Value = serde_json::from_slice(&plain).unwrap();
        let members = document["members"].as_array_mut().unwrap();
        let member = members.iter_mut().find(|member| member[0] == "PG_VERSION").unwrap();
        member[4] = (member[4].as_u64().unwrap() + 1).into();
        serde_json::to_vec(&document).unwrap()
    });
    let text = verify(&env.pgkeep, &[&id]).names("inconsistent", &id);
    assert!(text.contains("PG_VERSION"), "{text}");
    undo.undo();

    // A pack that holds another file than the manifest describes.
    let words = b"# PostgreSQL configuration file";
    let find = |plain: &[u8]| plain.windows(words.len()).position(|window| window == words);
    let mut packs = store.list().into_iter().filter(|key| key.contains(&id) && key.contains("/data/"));
    let pack = packs.find(|key| find(&forge::plain(env, key)).is_some()).unwrap();
    let undo = forge::object(env, &pack, |mut plain| {
        let at = find(&plain).unwrap();
        plain[at] = b'%';
        plain
    });
    let text = verify(&env.pgkeep, &[&id]).names("inconsistent", &pack);
    assert!(text.contains("postgresql.conf"), "{text}");
    undo.undo();
    verify(&env.pgkeep, &[&id]).assert_clean();
}

fn places_are_looked_at(env: &TestEnv) {
    let store = env.repo();
    let wal = segments(store);
    let undo = forge::for_others(env, &wal[1].1);
    verify(&env.pgkeep, &["--wal"]).names("wrong-key", &wal[1].1);
    undo.undo();
    let (first, second) = (store.read(&wal[1].1), store.read(&wal[2].1));
    store.write(&wal[1].1, &second);
    store.write(&wal[2].1, &first);
    let text = verify(&env.pgkeep, &["--wal"]).names("damaged", &wal[1].1);
    assert!(text.contains(&format!("it is segment {}", wal[2].0)), "{text}");
    store.write(&wal[1].1, &first);
    store.write(&wal[2].1, &second);

    let id = env.backup();
    let record = store.read(&format!("main/backups/{id}/backup.json"));
    let record: Value = serde_json::from_slice(&record).unwrap();
    let named = format!("/{}-", record["wal_last"].as_str().unwrap());
    for key in store.list().into_iter().filter(|key| key.contains(&named)) {
        store.delete(&key);
    }
    verify(&env.pgkeep, &[&id]).names("wal-incomplete", &id);
}

#[test]
fn a_wrong_record_and_parts_that_contradict_each_other_are_found_in_a_directory() {
    let env = options(18).build();
    contents_are_looked_at(&env);
}

#[test]
fn a_wrong_record_contradictions_exchanges_and_an_end_that_never_came_are_found_in_a_bucket() {
    let env = options(18).s3_repository("repo", true).build();
    contents_are_looked_at(&env);
    places_are_looked_at(&env);
}

#[test]
fn heads_that_contradict_each_other_are_found_whether_or_not_a_restore_reads_them() {
    let env = options(18).build();
    fill(&env);
    let segment = env.pg.one("select pg_walfile_name(pg_current_wal_lsn())");
    let bytes: Vec<u8> = (0..400_000_u32).map(|n| (n % 251).to_le_bytes()[0]).collect();
    let ours = |from: usize, to: usize| forge::head(&env, &segment, from, &bytes[from..to]);
    // As a lost answer leaves them, and the one that gathers many.
    for (from, to) in [(0, 100_000), (50_000, 200_000), (100_000, 150_000), (200_000, 210_000), (0, 210_000)]
    {
        ours(from, to);
    }
    verify(&env.pgkeep, &[]).assert_clean();
    let mut others = bytes.clone();
    others[209_999] ^= 1;
    let theirs = |from: usize, to: usize| forge::head(&env, &segment, from, &others[from..to]);
    // One that goes on from there, one within, and one of the same range.
    for (from, to) in [(209_000, 300_000), (209_500, 210_000), (0, 210_000)] {
        let key = theirs(from, to);
        let said = verify(&env.pgkeep, &["--wal"]);
        let conflict = said.findings().into_iter().find(|(kind, _, _)| kind == "conflict");
        let (_, _, text) = conflict.unwrap_or_else(|| panic!("{from} to {to}: {said:#?}"));
        assert!(text.contains("two servers write it") && said.code == 4, "{said:#?}");
        env.repo().delete(&key);
    }
    // Beside the whole segment nobody reads them.
    theirs(0, 1000);
    env.pg.switch_and_archive();
    verify(&env.pgkeep, &["--wal"]).assert_clean();
}
