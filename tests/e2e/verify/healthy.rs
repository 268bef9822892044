//! A repository at work is not accused.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{options, verify};
use crate::support::{EnvOptions, TestEnv};

/// Backups, dumps and WAL go on while it is looked at again and again.
fn stays_clean(env: &TestEnv, looks: usize) {
    env.pg.sql("create table t (n int, m text)");
    env.backup();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                env.pg.sql("insert into t select n, md5(n::text) from generate_series(1, 3000) n");
                env.pg.switch_wal();
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                env.backup();
                env.pgkeep.run(["backup", "dump", "--database", "postgres"]).ok();
            }
        });
        let looked: Vec<_> = (0..looks).map(|_| verify(&env.pgkeep, &[])).collect();
        stop.store(true, Ordering::Release);
        for said in looked {
            said.assert_clean();
        }
    });
}

#[test]
fn nothing_is_found_while_backups_and_wal_come_in() {
    let env = EnvOptions::new(18).pg(|pg| pg.segment_mib(1)).build();
    stays_clean(&env, 4);
}

#[test]
fn nothing_is_found_in_a_bucket_while_the_agent_ships_heads() {
    let env = EnvOptions::new(18).pg(|pg| pg.segment_mib(1)).s3_repository("repo", true).build();
    let agent = env.start_agent();
    stays_clean(&env, 3);
    agent.terminate();
}

#[test]
fn a_timeline_that_was_left_and_a_restored_cluster_are_whole() {
    let env = options(17).build();
    super::fill(&env);
    env.pgkeep.run(["restore", "--to", "latest", "--yes"]).ok();
    env.pg.sql("insert into t values (-1, 'new life')");
    env.pg.switch_and_archive();
    env.backup();
    let said = verify(&env.pgkeep, &["--deep"]).assert_clean();
    assert!(said.json["repositories"][0]["checked"]["wal_objects"].as_u64().unwrap() > 5, "{said:#?}");
    // What says where the new life began is missed, and so is whatever it says in another form.
    let history = env.repo().find(&["/history/00000002.history-"]);
    let bytes = env.repo().read(&history);
    env.repo().delete(&history);
    let text = verify(&env.pgkeep, &["--wal"]).names("missing", "/history/00000002.history");
    assert!(text.contains("restores along timeline"), "{text}");
    for to in [0, 1, bytes.len() - 1] {
        env.repo().write(&history, &bytes[..to]);
        verify(&env.pgkeep, &["--wal"]).names("damaged", &history);
    }
    env.repo().write(&history, &bytes);
    verify(&env.pgkeep, &["--wal"]).assert_clean();
}
