//! What one repository has damaged or lost comes back from another, and restores read it.

use super::{Said, fill, options, segments, verify};
use crate::support::{EnvOptions, RawStore};

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
fn a_lost_record_or_backup_is_missed_where_anything_says_that_it_was_published_and_comes_back_whole() {
    // With patience: what is young may still be on its way.
    let small = EnvOptions::new(17).pg(|pg| pg.segment_mib(1));
    let env = small.dir_repository("eu", true).dir_repository("us", true).build();
    let id = env.backup();
    let eu = env.store("eu");
    let directory = format!("main/backups/{id}/");
    let record = format!("{directory}backup.json");
    let look = |args: &[&str]| verify(&env.pgkeep, &[&["--repo", "eu"], args].concat());
    let notes = |said: &Said| said.json["repositories"][0]["notes"].to_string();
    let untrue = |said: &Said| notes(said).contains("is running") || notes(said).contains("being published");

    // Nobody has looked yet: its signature is just being followed by its record, as far as can be known.
    let bytes = eu.read(&record);
    eu.delete(&record);
    let said = look(&[]).assert_clean();
    assert!(notes(&said).contains("being published") && !notes(&said).contains("is running"), "{said:#?}");
    eu.write(&record, &bytes);
    look(&[]).assert_clean();

    eu.flip_a_bit(&record);
    let said = look(&[]);
    said.names(kind_of_record(eu, &record), &record);
    assert!(!untrue(&said), "{said:#?}");
    eu.delete(&record);
    for args in [&[][..], &[id.as_str()]] {
        let said = look(args);
        let text = said.names("missing", &record);
        assert!(text.contains("--heal` brings it from us") && !untrue(&said), "{said:#?}");
    }
    let said = env.pgkeep.run(["verify", "--repo", "eu", "--heal"]).ok().stdout;
    assert!(
        said.contains("1 healed; nothing else wrong") && said.contains("the next run reads them"),
        "{said}"
    );
    assert_eq!(eu.read(&record), bytes);
    look(&[]).assert_clean();

    // The whole backup: the memory knows it; and when that is lost, too, the other required repository has it.
    let whole = eu.list_under(&directory);
    let remove = |prefix: &str| eu.list_under(prefix).iter().for_each(|key| eu.delete(key));
    remove(&directory);
    for args in [&[][..], &[id.as_str()]] {
        assert!(look(args).names("missing", &record).contains("the whole backup was here"));
    }
    remove("main/reports/");
    remove("main/marks/");
    let text = look(&[&id]).names("missing", &record);
    assert!(text.contains("and us has it"), "{text}");
    let said = look(&[&id, "--heal"]).assert_clean();
    assert_eq!(
        said.json["repositories"][0]["healed"].as_array().unwrap().len(),
        whole.len() - 1,
        "{said:#?}"
    );
    assert_eq!(eu.list_under(&directory), whole);
    look(&[]).assert_clean();
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
