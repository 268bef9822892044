//! Backups and WAL that expire are not missed: marked first, then swept, in whatever order. Marks that nobody trusted signed
//! hide nothing, and neither does a trusted one hide damage.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pgkeep::repository::signature::HostKey;
use serde_json::Value;

use super::{Said, fill, options, segments, verify};
use crate::support::{EnvOptions, TestEnv, forge};

fn expiring(said: &Said) -> u64 {
    said.json["repositories"][0]["expiring"].as_u64().unwrap()
}

fn record(env: &TestEnv, id: &str) -> Value {
    serde_json::from_slice(&env.repo().read(&format!("main/backups/{id}/backup.json"))).unwrap()
}

fn remove(env: &TestEnv, keys: &[String]) {
    for key in keys {
        env.repo().delete(key);
    }
}

fn put_back(env: &TestEnv, objects: &[(String, Vec<u8>)]) {
    for (key, bytes) in objects {
        env.repo().write(key, bytes);
    }
}

/// Names and keys of everything that is about a segment of WAL, oldest first.
fn wal(env: &TestEnv) -> Vec<(String, String)> {
    let keys = env.repo().list_under("main/wal/").into_iter();
    let named = keys.filter_map(|key| Some((key.rsplit('/').next()?.get(..24)?.to_owned(), key)));
    named.filter(|(name, _)| name.bytes().all(|b| b.is_ascii_hexdigit())).collect()
}

/// WAL before `until` that none of these backups needs to be consistent.
fn unneeded(env: &TestEnv, kept: &[String], until: &str) -> Vec<String> {
    let text = |record: &Value, name: &str| record[name].as_str().unwrap().to_owned();
    let own: Vec<(String, String)> = kept
        .iter()
        .map(|id| record(env, id))
        .map(|record| (text(&record, "wal_first"), text(&record, "wal_last")))
        .collect();
    let until = text(&record(env, until), "wal_first");
    let needed = |name: &String| own.iter().any(|(first, last)| first <= name && name <= last);
    wal(env).into_iter().filter(|(name, _)| *name < until && !needed(name)).map(|(_, key)| key).collect()
}

/// The objects of a backup in an order in which somebody might delete them.
fn sweep_order(env: &TestEnv, id: &str, order: usize) -> Vec<String> {
    let mut keys = env.repo().list_under(&format!("main/backups/{id}/"));
    let weight = |key: &String| match (key.ends_with("/backup.json"), key.ends_with(".minisig")) {
        (true, _) => [0, 2, 1][order % 3],
        (_, true) => [1, 1, 0][order % 3],
        _ => [2, 0, 2][order % 3],
    };
    keys.sort_by_key(weight);
    keys
}

/// A sweep stops at every step that could matter, and somebody looks.
fn every_state_of_a_sweep_is_no_fault(env: &TestEnv) {
    let first = fill(env);
    let second = env.backup();
    env.pg.sql("insert into t values (1, 'between')");
    env.pg.switch_and_archive();
    let third = env.backup();
    env.pg.sql("insert into t values (2, 'after')");
    env.pg.switch_and_archive();
    let store = env.repo();
    let dump = store.find(&["-dump-", "/backup.json.minisig"]).split('/').nth(2).unwrap().to_owned();
    assert_eq!(expiring(&verify(&env.pgkeep, &[]).assert_clean()), 0);
    let marks = [&second, &dump].map(|id| forge::mark(env, id, "expiring"));
    let said = verify(&env.pgkeep, &[]).assert_clean();
    assert_eq!(expiring(&said), 2);
    assert!(env.pgkeep.run(["verify"]).ok().stdout.contains("2 backups are marked as expiring"));

    for (order, id) in [&second, &second, &second, &dump].into_iter().enumerate() {
        let keys = sweep_order(env, id, order);
        let whole: Vec<(String, Vec<u8>)> = keys.iter().map(|key| (key.clone(), store.read(key))).collect();
        for (at, key) in keys.iter().enumerate() {
            store.delete(key);
            // The first, the second, and all but the last one gone.
            if [0, 1, keys.len() - 2].contains(&at) {
                verify(&env.pgkeep, &[]).assert_clean();
            }
        }
        if order < 2 {
            put_back(env, &whole);
        }
    }
    assert_eq!(expiring(&verify(&env.pgkeep, &[]).assert_clean()), 0);

    // And the WAL behind the first one, which is kept for itself alone: from the middle, then all.
    let gone = unneeded(env, &[first, third.clone()], &third);
    assert!(gone.len() > 3, "{gone:?}");
    store.delete(&gone[1]);
    verify(&env.pgkeep, &[]).assert_clean();
    for key in gone.iter().filter(|key| store.exists(key)) {
        store.delete(key);
    }
    verify(&env.pgkeep, &["--wal"]).assert_clean();
    // Marks go, too, the signature first; what they said is remembered.
    store.delete(&format!("{}.minisig", marks[0]));
    verify(&env.pgkeep, &[]).assert_clean();
    remove(env, &marks);
    store.delete(&format!("{}.minisig", marks[1]));
    verify(&env.pgkeep, &[]).assert_clean();
    // Behind the window's beginning nothing may be missing.
    let (name, key) = segments(store).pop().unwrap();
    store.delete(&key);
    let said = verify(&env.pgkeep, &[]);
    assert!(said.findings().iter().any(|(_, key, _)| key.contains(&name)) && said.code == 4, "{said:#?}");
}

#[test]
fn no_state_of_a_sweep_is_a_finding_and_what_is_kept_is_still_missed() {
    every_state_of_a_sweep_is_no_fault(&options(18).build());
}

#[test]
fn a_mark_hides_neither_damage_nor_what_was_not_to_go() {
    let env = options(17).build();
    let id = fill(&env);
    env.backup();
    verify(&env.pgkeep, &[]).assert_clean();
    let store = env.repo();
    let pack = store.find(&[&id, "/data/00001"]);
    let bytes = store.read(&pack);

    // Nobody whom we trust, the mark of another backup, another mark of this one: findings, and nothing is hidden.
    let stranger = HostKey::generate().unwrap();
    let forged = forge::mark_by(&env, &stranger, &id, "expiring");
    store.delete(&pack);
    let said = verify(&env.pgkeep, &[]);
    said.names("untrusted", &forged);
    said.names("missing", &pack);
    assert_eq!(expiring(&said), 0);
    for file in ["", ".minisig"] {
        store.delete(&format!("{forged}{file}"));
    }
    let dump = store.find(&["-dump-", "/backup.json.minisig"]).split('/').nth(2).unwrap().to_owned();
    let theirs = forge::mark(&env, &dump, "expiring");
    let verified = store.find(&["main/marks/", &id, "-verified.json.minisig"]).replace(".minisig", "");
    for from in [&theirs, &verified] {
        let copied = format!("main/marks/{id}/20261122T000000.000000Z-expiring.json");
        for file in ["", ".minisig"] {
            store.write(&format!("{copied}{file}"), &store.read(&format!("{from}{file}")));
        }
        let said = verify(&env.pgkeep, &[]);
        said.names("inconsistent", &copied);
        said.names("missing", &pack);
        for file in ["", ".minisig"] {
            store.delete(&format!("{copied}{file}"));
        }
    }
    store.write(&pack, &bytes);

    // A trusted mark: what is there is judged as ever, and what is taken back must be whole again.
    forge::mark(&env, &id, "expiring");
    store.flip_a_bit(&pack);
    verify(&env.pgkeep, &[]).names("damaged", &pack);
    store.delete(&pack);
    verify(&env.pgkeep, &[]).assert_clean();
    forge::mark(&env, &id, "pinned");
    verify(&env.pgkeep, &[]).names("missing", &pack);
    store.write(&pack, &bytes);
    verify(&env.pgkeep, &[]).assert_clean();

    // A whole backup that somebody took away, and its record alone with the signature.
    let exported = store.find(&["-tables-", "/backup.json.minisig"]).replace(".minisig", "");
    let whole: Vec<(String, Vec<u8>)> = store
        .list_under(exported.trim_end_matches("backup.json"))
        .into_iter()
        .map(|key| (key.clone(), store.read(&key)))
        .collect();
    for (only, says) in [("/backup.json", "the record is not there"), ("/", "the whole backup was here")] {
        let there: Vec<String> = store.list();
        let gone = whole.iter().map(|(key, _)| key.clone());
        remove(&env, &gone.filter(|key| key.contains(only) && there.contains(key)).collect::<Vec<_>>());
        let text = verify(&env.pgkeep, &[]).names("missing", &exported);
        assert!(text.contains(says), "{text}");
        verify(&env.pgkeep, &[]).names("missing", &exported);
    }
    put_back(&env, &whole);
    verify(&env.pgkeep, &[]).assert_clean();
}

/// What an expirer does, over and over: all base backups but the first, the two newest and those of others go, with their WAL.
/// The marks that it made; they may go when somebody has looked since.
fn expires(env: &TestEnv, round: usize) -> Option<Vec<String>> {
    let store = env.repo();
    let published = |kind: &str| -> Vec<String> {
        let keys = store.list_under("main/backups/").into_iter();
        let records = keys.filter(|key| key.contains(kind) && key.ends_with("/backup.json"));
        records.map(|key| key.split('/').nth(2).unwrap().to_owned()).collect()
    };
    let (bases, dumps) = (published("-full-"), published("-dump-"));
    if bases.len() < 4 {
        return None;
    }
    let (newest, first) =
        (&bases[bases.len() - 2..], |id: &&String| record(env, id)["wal_first"].to_string());
    let window = newest.iter().min_by_key(first).unwrap();
    let gone = [&bases[1..bases.len() - 2], &dumps[..dumps.len().saturating_sub(1)]].concat();
    let marks: Vec<String> = gone.iter().map(|id| forge::mark(env, id, "expiring")).collect();
    let mut wal = unneeded(env, &[&bases[..1], newest].concat(), window);
    if round % 2 == 1 {
        wal.reverse();
        remove(env, &wal);
        wal.clear();
    }
    for (at, id) in gone.iter().enumerate() {
        remove(env, &sweep_order(env, id, round + at));
    }
    remove(env, &wal);
    Some(marks)
}

fn stays_clean_while_it_expires(env: &TestEnv, sweeps: usize) {
    env.pg.sql("create table t (n int, m text)");
    env.backup();
    let agent = env.start_agent();
    let (stop, swept, looks) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let goes_on = || !stop.load(Ordering::Acquire);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while goes_on() {
                env.pg.sql("insert into t select n, md5(n::text) from generate_series(1, 2000) n");
                env.pg.switch_wal();
                std::thread::sleep(Duration::from_millis(400));
            }
        });
        scope.spawn(|| {
            env.pgkeep.run(["backup", "dump", "--database", "postgres"]).ok();
            env.pgkeep.run(["backup", "dump", "--database", "postgres"]).ok();
            while goes_on() {
                env.backup();
            }
        });
        scope.spawn(|| {
            // What was swept by then, and the marks that say so.
            let mut marks: Vec<(usize, Vec<String>)> = Vec::new();
            while goes_on() {
                let looked = looks.load(Ordering::Acquire);
                if let Some(made) = expires(env, swept.load(Ordering::Acquire)) {
                    swept.fetch_add(1, Ordering::AcqRel);
                    marks.push((looks.load(Ordering::Acquire), made));
                }
                // One look may have begun before; the one after it has seen them.
                let (seen, unseen) = marks.into_iter().partition(|(at, _)| looked >= at + 2);
                marks = unseen;
                for mark in seen.into_iter().flat_map(|(_, marks)| marks) {
                    env.repo().delete(&format!("{mark}.minisig"));
                    env.repo().delete(&mark);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let mut looked = Vec::new();
        let until = std::time::Instant::now() + Duration::from_secs(90);
        while (swept.load(Ordering::Acquire) < sweeps || looked.len() < 3)
            && std::time::Instant::now() < until
        {
            looked.push(verify(&env.pgkeep, &[]));
            looks.fetch_add(1, Ordering::AcqRel);
        }
        stop.store(true, Ordering::Release);
        assert!(swept.load(Ordering::Acquire) >= sweeps, "too slow: {looked:#?}");
        for said in looked {
            said.assert_clean();
        }
    });
    verify(&env.pgkeep, &[]).assert_clean();
    agent.terminate();
}

#[test]
fn nothing_is_found_while_backups_come_and_expire() {
    stays_clean_while_it_expires(&EnvOptions::new(18).pg(|pg| pg.segment_mib(1)).build(), 3);
}

#[test]
fn nothing_is_found_in_a_bucket_while_backups_come_and_expire() {
    let env = EnvOptions::new(18).pg(|pg| pg.segment_mib(1)).s3_repository("repo", true).build();
    stays_clean_while_it_expires(&env, 2);
}
