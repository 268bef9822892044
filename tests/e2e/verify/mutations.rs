//! Seeded random mutations: every one that changes what a restore would yield is found.
//!
//! `PGKEEP_TEST_MUTATIONS=500` asks for the full measure, `PGKEEP_TEST_SEED` for another seed. A round changes one object at
//! random (a bit, a length, gone, exchanged, another's bytes) and looks. What is not found must be harmless, and that is
//! proved by a restore: the same rows, and the dump's archive byte for byte.

use std::collections::BTreeMap;

use super::{fill, options, verify};
use crate::support::{RawStore, TestEnv};

/// xorshift64*: good enough to choose, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.roll() % limit.max(1) as u64).unwrap()
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

/// Changes something; says what.
fn mutate(dice: &mut Dice, store: &RawStore, whole: &BTreeMap<String, Vec<u8>>) -> String {
    let keys: Vec<&String> = whole.keys().collect();
    let key = keys[dice.below(keys.len())];
    let bytes = &whole[key];
    match dice.below(10) {
        0 => {
            store.delete(key);
            format!("gone: {key}")
        }
        1 | 2 if !bytes.is_empty() => {
            let to = dice.below(bytes.len());
            store.truncate(key, to);
            format!("cut to {to} of {}: {key}", bytes.len())
        }
        3 => {
            let other = keys[dice.below(keys.len())];
            store.write(key, &whole[other]);
            store.write(other, bytes);
            format!("exchanged: {key} and {other}")
        }
        4 => {
            let other = keys[dice.below(keys.len())];
            store.write(key, &whole[other]);
            format!("overwritten: {key} with {other}")
        }
        5 => {
            let mut more = bytes.clone();
            more.extend_from_slice(&dice.roll().to_le_bytes());
            store.write(key, &more);
            format!("longer: {key}")
        }
        _ => {
            let (at, bit) = (dice.below(bytes.len()), dice.below(8));
            let mut changed = bytes.clone();
            if let Some(byte) = changed.get_mut(at) {
                *byte ^= 1 << bit;
            }
            store.write(key, &changed);
            format!("bit {bit} of byte {at}: {key}")
        }
    }
}

/// What restores yield: the rows at the end of WAL, and those of the dump.
fn yields(env: &TestEnv, name: &str) -> String {
    let dir = env.side_dir(name);
    let to = dir.to_str().unwrap();
    env.pgkeep.run(["restore", "--to", "latest", "--target-dir", to, "--yes"]).ok();
    let rows = "select count(*) || ' ' || md5(string_agg(t::text, ',' order by n, m)) from t";
    let mut seen = env.side(&dir).one(rows);
    env.pgkeep.run(["restore", "discard", "--yes", "--target-dir", to]).ok();
    let into = name.replace('-', "_");
    env.pgkeep.run(["restore", "database", "postgres", "--from", "latest", "--as", &into, "--yes"]).ok();
    seen += "; ";
    seen += env.pg.session_in(&into).one(rows).as_str();
    env.pg.sql(&format!("drop database {into}"));
    seen
}

#[test]
fn every_mutation_that_changes_a_restore_is_found() {
    every_mutation_is_found(&options(18).build(), 8);
}

#[test]
fn every_mutation_of_a_bucket_that_changes_a_restore_is_found() {
    every_mutation_is_found(&options(18).s3_repository("repo", true).build(), 4);
}

fn every_mutation_is_found(env: &TestEnv, usual: u64) {
    let (rounds, seed) = (number("PGKEEP_TEST_MUTATIONS", usual), number("PGKEEP_TEST_SEED", 0x5eed));
    fill(env);
    verify(&env.pgkeep, &[]).assert_clean();
    let store = env.repo();
    let whole: BTreeMap<String, Vec<u8>> =
        store.list().into_iter().map(|key| (key.clone(), store.read(&key))).collect();
    let before = yields(env, "before");
    let mut dice = Dice(seed | 1);
    let (mut found, mut harmless) = (0, Vec::new());
    for round in 0..rounds {
        let what = mutate(&mut dice, store, &whole);
        let ran = env.pgkeep.run(["verify"]);
        match ran.code {
            Some(0) => {
                // Not accused: then nothing of a restore may have changed.
                assert_eq!(
                    yields(env, &format!("round-{round}")),
                    before,
                    "round {round} of {seed:#x}: {what}"
                );
                harmless.push(what);
            }
            // The root's own document cannot be read: nothing else is looked at.
            Some(1) if what.contains("pgkeep.json") => found += 1,
            Some(4) => {
                let said =
                    |name: &str| ran.stdout.lines().any(|l| l.starts_with("FINDING ") && l.contains(name));
                // A signature is told as what it signs, a segment that is gone as the hole that it leaves.
                let named = |key: &str| {
                    let file = key.rsplit('/').next().unwrap();
                    said(key.trim_end_matches(".minisig")) || file.get(..24).is_some_and(&said)
                };
                assert!(what.split(' ').filter(|word| word.contains('/')).any(named), "{what}: {ran}");
                found += 1;
            }
            _ => panic!("round {round} of {seed:#x}: {what}: {ran}"),
        }
        for key in store.list().into_iter().filter(|key| !whole.contains_key(key)) {
            store.delete(&key);
        }
        for (key, bytes) in &whole {
            if !store.exists(key) || store.read(key) != *bytes {
                store.write(key, bytes);
            }
        }
    }
    eprintln!("{rounds} mutations with seed {seed:#x}: {found} found, {} harmless", harmless.len());
    for what in &harmless {
        eprintln!("  harmless: {what}");
    }
    verify(&env.pgkeep, &[]).assert_clean();
}
