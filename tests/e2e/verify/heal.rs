//! What one repository has damaged or lost comes back from another, and restores read it.

use super::{fill, options, segments, verify};
use crate::support::RawStore;

#[test]
fn what_is_damaged_or_missing_comes_back_from_another_repository_and_restores_read_it() {
    let env = options(18).dir_repository("eu", true).dir_repository("us", true).build();
    let id = fill(&env);
    verify(&env.pgkeep, &[]).assert_clean();
    let eu = env.store("eu");
    let wal: Vec<String> = segments(eu).into_iter().map(|(_, key)| key).collect();
    let pack = eu.find(&["-full-", "/data/00001"]);
    let index = eu.find(&["-full-", "/index.json"]);
    let dump = eu.find(&["/dump/"]);
    let record = format!("main/backups/{id}/backup.json");
    let before = eu.list();
    eu.flip_a_bit(&pack);
    eu.truncate(&index, 10);
    eu.delete(&dump);
    eu.flip_a_bit(&wal[1]);
    eu.delete(&wal[2]);
    let said = verify(&env.pgkeep, &["--repo", "eu"]);
    assert_eq!(said.code, 4);
    let said = verify(&env.pgkeep, &["--repo", "eu", "--heal"]).assert_clean();
    let healed: Vec<&str> = said.json["repositories"][0]["healed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|healed| healed["replacement"].as_str().unwrap())
        .collect();
    assert_eq!(healed.len(), 5, "{said:#?}");
    assert!(healed.contains(&dump.as_str()) && healed.contains(&wal[2].as_str()), "{healed:?}");
    let beside = |key: &str| healed.iter().any(|h| h.starts_with(&format!("{key}.healed-")));
    assert!(beside(&pack) && beside(&index) && beside(&wal[1]), "{healed:?}");
    // Nothing was overwritten or removed.
    assert!(before.iter().all(|key| eu.exists(key)));
    verify(&env.pgkeep, &[]).assert_clean();
    restores(&env, "healed");

    // The record itself, and its signature.
    eu.flip_a_bit(&record);
    verify(&env.pgkeep, &["--repo", "eu"]).names(kind_of_record(eu, &record), &record);
    verify(&env.pgkeep, &["--repo", "eu", "--heal"]);
    verify(&env.pgkeep, &["--repo", "eu"]).assert_clean();
    restores(&env, "record");
    eu.delete(&record);
    verify(&env.pgkeep, &["--repo", "eu", "--heal"]);
    verify(&env.pgkeep, &["--repo", "eu"]).assert_clean();
    assert!(eu.exists(&record));
}

/// A flipped bit may make it unreadable, or only untrusted.
fn kind_of_record(store: &RawStore, record: &str) -> &'static str {
    let parsed = serde_json::from_slice::<serde_json::Value>(&store.read(record));
    if parsed.is_ok() { "untrusted" } else { "damaged" }
}

fn restores(env: &crate::support::TestEnv, name: &str) {
    let dir = env.side_dir(name);
    let to = dir.to_str().unwrap();
    env.pgkeep.run(["--repo", "eu", "restore", "--to", "latest", "--target-dir", to, "--yes"]).ok();
    assert_eq!(env.side(&dir).one("select count(*) from t"), "2203");
    env.pgkeep.run(["restore", "discard", "--yes", "--target-dir", to]).ok();
    env.pgkeep
        .run(["--repo", "eu", "restore", "database", "postgres", "--from", "latest", "--as", name, "--yes"])
        .ok();
    assert_eq!(env.pg.session_in(name).one("select count(*) from t"), "2200");
}

#[test]
fn a_copy_that_is_damaged_too_is_not_taken() {
    let env = options(17).dir_repository("eu", true).dir_repository("us", false).build();
    fill(&env);
    let (eu, us) = (env.store("eu"), env.store("us"));
    let pack = eu.find(&["-full-", "/data/00001"]);
    let segment = segments(eu)[1].1.clone();
    for key in [&pack, &segment] {
        eu.flip_a_bit(key);
        us.truncate(key, 50);
    }
    let said = verify(&env.pgkeep, &["--repo", "eu", "--heal"]);
    said.names("damaged", &pack);
    said.names("damaged", &segment);
    assert!(!eu.list().iter().any(|key| key.contains(".healed-")), "{:?}", eu.list());
    assert!(said.json.to_string().contains("no other repository has a good copy"), "{said:#?}");
}
