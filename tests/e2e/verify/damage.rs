//! Each kind of damage, on each kind of object.

use std::collections::BTreeMap;

use age::secrecy::ExposeSecret as _;

use super::{Said, fill, options, segments, verify};
use crate::support::{EnvOptions, RawStore, TestEnv};

/// Does something to a store, looks, and undoes it.
struct Lab<'e> {
    env: &'e TestEnv,
    whole: BTreeMap<String, Vec<u8>>,
}

impl<'e> Lab<'e> {
    fn new(env: &'e TestEnv) -> Self {
        verify(&env.pgkeep, &[]).assert_clean();
        let store = env.repo();
        let whole = store.list().into_iter().map(|key| (key.clone(), store.read(&key))).collect();
        Self { env, whole }
    }
    fn store(&self) -> &RawStore {
        self.env.repo()
    }
    #[track_caller]
    fn after(&self, args: &[&str], change: impl FnOnce(&RawStore)) -> Said {
        change(self.store());
        let said = verify(&self.env.pgkeep, args);
        for key in self.store().list() {
            if !self.whole.contains_key(&key) {
                self.store().delete(&key);
            }
        }
        for (key, bytes) in &self.whole {
            if !self.store().exists(key) || self.store().read(key) != *bytes {
                self.store().write(key, bytes);
            }
        }
        said
    }
    /// Of every sort of object that a restore reads, one.
    fn objects(&self) -> Vec<String> {
        let find = |part: &str| {
            let found = self.whole.keys().find(|key| key.contains(part) && !key.ends_with(".minisig"));
            found.unwrap_or_else(|| panic!("nothing like {part}")).clone()
        };
        let parts = ["/data/00001", "/manifest.json", "/dump/", "/csv/", "/globals.sql", "/schema/"];
        let mut objects: Vec<String> = parts.map(find).into();
        for kind in ["-full-", "-dump-", "-tables-"] {
            let of = |key: &&String| key.contains(kind) && key.contains("/index.json");
            objects.push(self.whole.keys().find(of).unwrap().clone());
        }
        objects
    }
}

type Touch<'t> = &'t dyn Fn(&RawStore);

fn bytes_and_presence(env: &TestEnv) {
    let lab = Lab::new(env);
    let (objects, wal) = (lab.objects(), segments(env.repo()));
    let (segment, key) = &wal[1];
    let each = |change: &dyn Fn(&RawStore, &str)| {
        lab.after(&[], |store| objects.iter().chain([key]).for_each(|key| change(store, key)))
    };
    let said = each(&|store, key| store.delete(key));
    said.names("wal-hole", segment);
    for key in &objects {
        said.names("missing", key);
    }
    let said = each(&|store, key| store.flip_a_bit(key));
    for key in objects.iter().chain([key]) {
        said.names("damaged", key);
    }
    said.names("wal-hole", segment);
    let said = each(&|store, key| store.truncate(key, store.read(key).len() / 2));
    for key in &objects {
        said.names("wrong-length", key);
    }
    said.names("damaged", key);
    // A manifest is judged by itself, and what it describes without it.
    let manifest = objects.iter().find(|key| key.contains("/manifest.json")).unwrap();
    let other = env.repo().read(&env.repo().find(&["-dump-", "/index.json"]));
    let alone: [(&str, Touch<'_>); 3] = [
        ("missing", &|store| store.delete(manifest)),
        ("damaged", &|store| store.flip_a_bit(manifest)),
        ("wrong-length", &|store| store.write(manifest, &other)),
    ];
    for (kind, change) in alone {
        let said = lab.after(&[], change);
        let text = said.names(kind, manifest);
        assert!(said.findings().len() == 1 && !text.contains("nothing can be restored"), "{said:#?}");
    }
    // WAL cut at any length, down to nothing.
    for to in [0, 1, 200, 5000] {
        lab.after(&["--wal"], |store| store.truncate(key, to)).names("damaged", key);
    }
    verify(&env.pgkeep, &[]).assert_clean();
}

#[test]
fn what_is_missing_cut_or_changed_is_named_on_every_kind_of_object() {
    let env = options(18).build();
    fill(&env);
    bytes_and_presence(&env);
}

#[test]
fn damage_is_found_in_a_bucket_as_in_a_directory() {
    let env = options(18).s3_repository("repo", true).build();
    fill(&env);
    let lab = Lab::new(&env);
    let wal = segments(env.repo());
    let pack = env.repo().find(&["-full-", "/data/00001"]);
    let dump = env.repo().find(&["/dump/"]);
    let said = lab.after(&[], |store| {
        store.delete(&dump);
        store.flip_a_bit(&pack);
        store.truncate(&wal[1].1, 100);
        store.delete(&wal[2].1);
    });
    said.names("missing", &dump);
    said.names("damaged", &pack);
    said.names("damaged", &wal[1].1);
    said.names("wal-hole", &wal[1].0);
    verify(&env.pgkeep, &[]).assert_clean();
}

#[test]
fn exchanged_and_foreign_objects_are_named_for_what_they_are() {
    let env = options(18).build();
    fill(&env);
    let other = EnvOptions::new(18).pg(|pg| pg.segment_mib(1)).build();
    fill(&other);
    let lab = Lab::new(&env);
    let store = env.repo();
    let packs: Vec<String> =
        store.list().into_iter().filter(|k| k.contains("-full-") && k.contains("/data/")).collect();
    let swap = |a: &str, b: &str| {
        let (a, b) = (a.to_owned(), b.to_owned());
        move |store: &RawStore| {
            let (first, second) = (store.read(&a), store.read(&b));
            store.write(&a, &second);
            store.write(&b, &first);
        }
    };
    let said = lab.after(&[], swap(&packs[0], &packs[1]));
    said.names("wrong-length", &packs[0]);
    let wal = segments(store);
    let said = lab.after(&["--wal"], swap(&wal[1].1, &wal[2].1));
    let text = said.names("damaged", &wal[1].1);
    assert!(text.contains(&format!("it is segment {}", wal[2].0)), "{text}");

    // Another cluster's object under a name of ours.
    let theirs = other.repo();
    let foreign = theirs.read(&segments(theirs)[1].1);
    lab.after(&["--wal"], |store| store.write(&wal[1].1, &foreign)).names("wrong-key", &wal[1].1);
    let foreign = theirs.read(&theirs.find(&["-full-", "/data/00001"]));
    let said = lab.after(&[], |store| store.write(&packs[0], &foreign));
    said.names("wrong-length", &packs[0]);
}

#[test]
fn what_no_trusted_host_signed_is_no_backup_and_no_mark() {
    let env = options(17).build();
    let id = fill(&env);
    let lab = Lab::new(&env);
    let record = format!("main/backups/{id}/backup.json");
    let signature = format!("{record}.minisig");
    let said = lab.after(&[], |store| store.delete(&signature));
    assert!(said.names("untrusted", &record).contains("it is not signed"), "{said:?}");
    lab.after(&[], |store| store.delete(&record)).names("missing", &record);
    let said = lab.after(&[], |store| {
        let text = String::from_utf8(store.read(&record)).unwrap().replace("\"host\"", "\"hose\"");
        store.write(&record, text.as_bytes());
    });
    assert!(!said.findings().is_empty() && said.code == 4, "{said:?}");
    // Of another backup, with a signature that is right for it.
    let dump =
        env.repo().list().into_iter().find(|k| k.contains("-dump-") && k.ends_with("/backup.json")).unwrap();
    let said = lab.after(&[], |store| {
        store.write(&record, &store.read(&dump));
        store.write(&signature, &store.read(&format!("{dump}.minisig")));
    });
    said.names("damaged", &record);

    let mark = format!("main/marks/{id}/20261121T020000.000000Z-pinned.json");
    let said = lab.after(&[], |store| {
        store.write(&mark, format!("{{\"format\":1,\"backup\":\"{id}\"}}").as_bytes());
    });
    said.names("untrusted", &mark);
    let (name, segment) = segments(env.repo())[1].clone();
    let damaged = segment.replace(".zst.age", ".damaged.json");
    let said = lab.after(&[], |store| {
        store.write(&damaged, br#"{"lsn":"0/1","reason":"x","host":"h","found_at":"2026-11-21T02:00:00Z"}"#);
    });
    said.names("untrusted", &damaged);
    said.names("wal-hole", &name);
    let report =
        env.repo().list().into_iter().find(|k| k.contains("/reports/") && !k.contains(".minisig")).unwrap();
    lab.after(&[], |store| store.flip_a_bit(&report)).names("untrusted", &report);
    verify(&env.pgkeep, &[]).assert_clean();
}

#[test]
fn a_base_backup_whose_last_segment_never_came_leads_nowhere() {
    let env = options(18).build();
    env.pg.sql("create table t as select 1");
    let id = env.backup();
    let lab = Lab::new(&env);
    let record: serde_json::Value =
        serde_json::from_slice(&env.repo().read(&format!("main/backups/{id}/backup.json"))).unwrap();
    let last = record["wal_last"].as_str().unwrap().to_owned();
    let named = format!("/{last}-");
    let gone: Vec<String> = env.repo().list().into_iter().filter(|key| key.contains(&named)).collect();
    let said = lab.after(&[], |store| gone.iter().for_each(|key| store.delete(key)));
    let text = said.names("wal-incomplete", &id);
    assert!(text.contains(&last) && text.contains("no restore from it"), "{text}");
    // It was there once, which is remembered.
    said.names("wal-shorter", "/wal/");
    // The same for this backup alone.
    let said = lab.after(&[&id], |store| gone.iter().for_each(|key| store.delete(key)));
    said.names("wal-incomplete", &id);
}

#[test]
fn a_wrong_identity_is_one_finding_and_no_identity_is_unproved() {
    let env = options(18).build();
    let id = fill(&env);
    verify(&env.pgkeep, &[]).assert_clean();
    let right = std::fs::read_to_string(&env.identity_file).unwrap();
    std::fs::remove_file(&env.identity_file).unwrap();
    let said = verify(&env.pgkeep, &[]).assert_clean();
    assert!(said.unproved().contains("WAL objects"), "{said:?}");
    // Objects of backups are compared all the same, and WAL is looked at for holes.
    let key = env.repo().find(&["-full-", "/data/00001"]);
    env.repo().flip_a_bit(&key);
    verify(&env.pgkeep, &[]).names("damaged", &key);
    env.repo().flip_a_bit(&key);
    let (name, segment) = segments(env.repo())[1].clone();
    let bytes = env.repo().read(&segment);
    env.repo().delete(&segment);
    verify(&env.pgkeep, &[]).names("wal-hole", &name);
    env.repo().write(&segment, &bytes);

    let wrong = age::x25519::Identity::generate();
    let path = env.root.file("identity.txt", 0o600, wrong.to_string().expose_secret());
    assert_eq!(path, env.identity_file);
    let said = verify(&env.pgkeep, &[]);
    let text = said.names("wrong-key", &id);
    assert!(text.contains(&env.recipient), "{text}");
    assert!(text.contains("with the right one it can") && !text.contains("no restore uses"), "{text}");
    let text = said.names("wrong-key", "main/wal/");
    assert!(text.contains("none of this WAL can be replayed") && text.contains(&env.recipient), "{text}");
    assert!(!text.contains("pgkeep init"), "{text}");
    assert!(said.stderr.contains("key-lost.md"), "{}", said.stderr);
    assert_eq!(said.findings().len(), 4, "three backups and the WAL: {said:#?}");
    env.root.file("identity.txt", 0o600, &right);
    verify(&env.pgkeep, &[]).assert_clean();
}

type Change<'c> = &'c dyn Fn(&[u8]) -> Vec<u8>;

/// Objects that are read whole: each is named, wherever it is touched. Those that say what the others are: one at a time.
fn edges(lab: &Lab<'_>) {
    let small = |key: &&String| {
        ["backup.json", "/marks/", "/reports/", "/systems/", "cluster.json", "pgkeep.json"]
            .iter()
            .any(|part| key.contains(part))
    };
    let large: Vec<String> = lab.whole.keys().filter(|key| !small(key)).cloned().collect();
    assert!(large.iter().any(|key| key.contains(".backup-")), "{large:?}");
    let flipped = |at: usize, bit: u8| {
        move |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let at = at.min(bytes.len() - 1);
            bytes[at] ^= bit;
            bytes
        }
    };
    let cut = |to: usize| move |bytes: &[u8]| bytes[..to.min(bytes.len() - 1)].to_vec();
    let (first, last, none, one, shorter) =
        (flipped(0, 1), flipped(usize::MAX, 0x80), cut(0), cut(1), cut(usize::MAX));
    let changes: [Change<'_>; 5] = [&first, &last, &none, &one, &shorter];
    for (number, change) in changes.iter().enumerate() {
        let said =
            lab.after(&[], |store| large.iter().for_each(|key| store.write(key, &change(&lab.whole[key]))));
        let findings = said.findings();
        let unnamed: Vec<&String> =
            large.iter().filter(|key| !findings.iter().any(|(_, named, _)| named == *key)).collect();
        assert!(unnamed.is_empty(), "change {number} of {unnamed:?}: {said:#?}");
    }
    let find = |parts: &[&str]| {
        let found = lab
            .whole
            .keys()
            .find(|key| parts.iter().all(|part| key.contains(part)) && !key.ends_with(".minisig"));
        found.unwrap_or_else(|| panic!("{parts:?}")).clone()
    };
    // Independent of each other: a record, another one's signature, a mark, a mark's signature, the last report.
    let signed = [
        find(&["-full-", "/backup.json"]),
        find(&["-dump-", "/backup.json"]) + ".minisig",
        find(&["/marks/", "-full-"]),
        find(&["/marks/", "-tables-"]) + ".minisig",
        lab.whole
            .keys()
            .rfind(|key| key.contains("/reports/") && !key.ends_with(".minisig"))
            .unwrap()
            .clone(),
    ];
    for (number, change) in changes.iter().enumerate() {
        // The end of a signature is a line's end.
        let touched: Vec<&String> =
            signed.iter().filter(|key| !(key.ends_with(".minisig") && [1, 4].contains(&number))).collect();
        let said = lab
            .after(&[], |store| touched.iter().for_each(|key| store.write(key, &change(&lab.whole[*key]))));
        for key in touched {
            let named = key.trim_end_matches(".minisig");
            assert!(
                said.findings().iter().any(|(_, key, _)| key == named),
                "change {number} of {key}: {said:#?}"
            );
        }
    }
    // Unsigned, and plain JSON: what it says is compared with what signed records say.
    let plain = [find(&["main/cluster.json"]), find(&["/systems/"])];
    for change in [changes[0], changes[2], changes[3]] {
        let said =
            lab.after(&[], |store| plain.iter().for_each(|key| store.write(key, &change(&lab.whole[key]))));
        for key in &plain {
            assert!(said.findings().iter().any(|(_, named, _)| named == key), "{key}: {said:#?}");
        }
    }
}

#[test]
fn whatever_is_touched_at_its_edges_is_named() {
    let env = options(16).build();
    fill(&env);
    edges(&Lab::new(&env));
    verify(&env.pgkeep, &[]).assert_clean();
}
