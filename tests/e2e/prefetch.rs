//! A standby that follows the archive through `wal fetch` and the agent: what is received ahead is served when it is still
//! what the archive says, and whatever becomes of agent and store, the standby waits and goes on.

use std::path::PathBuf;
use std::time::Duration;

use pgkeep::model::SegmentName;
use pgkeep::repository::keys::wal::WalObjectName;

use crate::support::root::Ids;
use crate::support::{Agent, EnvOptions, Fault, FaultProxy, Ledger, Pg, Pgkeep, S3, TestEnv, eventually};
use crate::wal_place::{after, digest_of, fetch, fetched, place, push, put_object, segments, wal_file};

const SOON: Duration = Duration::from_secs(30);

fn small() -> EnvOptions {
    EnvOptions::new(17).pg(|pg| pg.segment_mib(1))
}
fn spool(env: &TestEnv) -> PathBuf {
    env.state.join("pgkeep.prefetch.main")
}
#[track_caller]
fn wait_spooled(env: &TestEnv, name: &str) {
    eventually(&format!("{name} is received ahead"), SOON, || spool(env).join(name).exists());
}
#[track_caller]
fn delivers(env: &TestEnv, name: &str, expected: &[u8]) {
    let ran = fetch(env, &env.pgkeep, name).ok();
    assert!(std::fs::read(fetched(env)).unwrap() == expected, "other bytes: {ran}");
}
/// Archived segments, of which pg_wal has no copies any more, and their bytes; the server is down.
fn archived(env: &TestEnv, count: usize) -> Vec<(String, Vec<u8>)> {
    let names = segments(env, count);
    for name in &names {
        push(env, &env.pgkeep, name).ok();
    }
    env.pg.kill9();
    let take = |name: String| {
        let bytes = std::fs::read(wal_file(env, &name)).unwrap();
        std::fs::remove_file(wal_file(env, &name)).unwrap();
        (name, bytes)
    };
    names.into_iter().map(take).collect()
}
/// Moves the only repository away, so that nobody but the spool can have what is delivered.
fn without_the_store<T>(env: &TestEnv, work: impl FnOnce() -> T) -> T {
    let away = env.repo().path().with_extension("away");
    std::fs::rename(env.repo().path(), &away).unwrap();
    let done = work();
    std::fs::rename(&away, env.repo().path()).unwrap();
    done
}

#[test]
fn the_segments_after_the_one_that_was_asked_for_are_there_before_they_are_asked_for() {
    let env = place(small());
    let all = archived(&env, 5);
    let agent = env.start_agent();
    delivers(&env, &all[0].0, &all[0].1);
    all[1..].iter().for_each(|(name, _)| wait_spooled(&env, name));
    without_the_store(&env, || {
        all[1..4].iter().for_each(|(name, bytes)| delivers(&env, name, bytes));
        // What is not there is not the agent's to say.
        let next = after(&env, &all[4].0, 1);
        fetch(&env, &env.pgkeep, &next).exits(200);
        env.root.file("main/standby.signal", 0o600, "");
        fetch(&env, &env.pgkeep, &next).exits(1).says("the standby asks again");
    });
    fetch(&env, &env.pgkeep, &after(&env, &all[4].0, 1)).exits(1);
    assert!(spool(&env).exists());
    agent.terminate().exits(0);
    assert!(!spool(&env).exists(), "the spool is gone with the agent");
    delivers(&env, &all[4].0, &all[4].1);
}

#[test]
fn a_spooled_file_that_was_changed_or_left_by_an_earlier_agent_is_never_served() {
    let env = place(small());
    let all = archived(&env, 4);
    let agent = env.start_agent();
    delivers(&env, &all[0].0, &all[0].1);
    all[1..].iter().for_each(|(name, _)| wait_spooled(&env, name));
    // The bytes of another one, of the same length.
    let spooled = spool(&env).join(&all[1].0);
    std::fs::write(&spooled, &all[3].1).unwrap();
    delivers(&env, &all[1].0, &all[1].1);
    agent.kill();
    std::fs::write(spool(&env).join(&all[2].0), &all[3].1).unwrap();
    let junk = spool(&env).join(after(&env, &all[3].0, 1));
    std::fs::write(&junk, &all[3].1).unwrap();
    Ids::server().own(&junk);
    delivers(&env, &all[2].0, &all[2].1);
    let agent = env.start_agent();
    delivers(&env, &all[2].0, &all[2].1);
    assert!(!junk.exists(), "what an earlier agent left is removed");
    drop(agent);
}

#[test]
fn a_segment_of_which_a_second_content_came_later_is_not_served_from_the_spool() {
    let env = place(small());
    let all = archived(&env, 3);
    let _agent = env.start_agent();
    delivers(&env, &all[0].0, &all[0].1);
    wait_spooled(&env, &all[2].0);
    // A twin that differs only after the last record: nobody can tell which is right.
    let mut twin = all[1].1.clone();
    *twin.last_mut().unwrap() ^= 1;
    let segment = SegmentName::parse(&all[1].0).unwrap();
    put_object(&env, WalObjectName::Segment { segment, digest: digest_of(&twin) }, &twin);
    // The listing from before is believed for half a minute at most; a question for something else makes a new one.
    fetch(&env, &env.pgkeep, &after(&env, &all[0].0, 5)).exits(1);
    fetch(&env, &env.pgkeep, &all[1].0).exits(200).says("wal-conflict");
}

#[test]
fn a_silent_store_is_answered_within_seconds_through_the_agent_too() {
    let store = S3::fresh_bucket();
    let proxy = FaultProxy::before(store.endpoint());
    let options = small().s3_repository_at("s3", true, store, &proxy.endpoint());
    let env = place(options.config("[archive]\nfetch_deadline = \"3s\"\n[prefetch]\nsize = \"1MiB\""));
    let all = archived(&env, 4);
    let _agent = env.start_agent();
    delivers(&env, &all[0].0, &all[0].1);
    wait_spooled(&env, &all[1].0);
    assert!(!spool(&env).join(&all[2].0).exists(), "no more than was configured");
    proxy.all(Fault::Stall);
    delivers(&env, &all[1].0, &all[1].1);
    let ran = fetch(&env, &env.pgkeep, &all[3].0).exits(200);
    assert!(ran.took < Duration::from_secs(20), "{ran}");
    env.root.file("main/standby.signal", 0o600, "");
    let ran = fetch(&env, &env.pgkeep, &all[3].0).exits(1).says("the standby asks again");
    assert!(ran.took < Duration::from_secs(15), "{ran}");
    proxy.calm();
    delivers(&env, &all[3].0, &all[3].1);
}

/// A standby that streams from nobody, and the configuration of its host.
fn follower(env: &TestEnv, change: impl FnOnce(String) -> String) -> (Pg, Pgkeep) {
    let standby = Pg::standby_of(&env.pg, "standby");
    let auto = standby.data.join("postgresql.auto.conf");
    let text = std::fs::read_to_string(&auto).unwrap();
    let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("primary_conninfo")).collect();
    std::fs::write(&auto, kept.join("\n") + "\n").unwrap();
    let here = |text: String| {
        text.replace(&env.pg.conninfo(), &standby.conninfo())
            .replace(env.pg.data.to_str().unwrap(), standby.data.to_str().unwrap())
    };
    let pgkeep = env.with_config("standby.toml", here);
    let fetching = env.with_config("fetching.toml", |text| change(here(text)));
    let command = fetching.shell_command("wal fetch %f \"%p\"");
    standby.add_conf(&format!("restore_command = '{command}'\nwal_retrieve_retry_interval = '200ms'"));
    (standby, pgkeep)
}
#[track_caller]
fn wait_rows(standby: &Pg, rows: u32) {
    let all = format!("{rows} rows are on the standby: {}", standby.log_tail());
    eventually(&all, SOON, || {
        let counted = standby.try_sql("select count(*) from ledger");
        counted.is_ok_and(|found| found[0][0].as_deref() == Some(&rows.to_string()))
    });
}
/// Rows in some segments of their own, archived.
fn write_archived(env: &TestEnv, ledger: &mut Ledger) -> u32 {
    for _ in 0..3 {
        ledger.write(&env.pg, 2);
        env.pg.switch_and_archive();
    }
    ledger.last_id()
}

#[test]
fn a_standby_follows_the_archive_through_the_agent_alone_and_waits_while_it_is_dead() {
    let env = small().build();
    let mut ledger = Ledger::create(&env.pg);
    ledger.write(&env.pg, 1);
    // Its own fetches find no repository: every segment comes from the agent.
    let repository = env.repo().path().to_str().unwrap().to_owned();
    let (standby, pgkeep) = follower(&env, |text| text.replace(&repository, "/nowhere/at/all"));
    let agent = Agent::start_as(&env, &pgkeep);
    let rows = write_archived(&env, &mut ledger);
    standby.start();
    wait_rows(&standby, rows);
    agent.kill();
    let rows = write_archived(&env, &mut ledger);
    eventually("it asks and is told to wait", SOON, || standby.log_tail().contains("the standby asks again"));
    assert!(standby.is_running());
    let agent = Agent::start_as(&env, &pgkeep);
    wait_rows(&standby, rows);
    drop(agent);
}

#[test]
fn a_standby_outlives_agent_and_store_and_is_promoted_with_all_that_was_archived() {
    let env = EnvOptions::new(14).pg(|pg| pg.segment_mib(1)).build();
    let mut ledger = Ledger::create(&env.pg);
    ledger.write(&env.pg, 1);
    let (standby, pgkeep) = follower(&env, |text| text);
    let agent = Agent::start_as(&env, &pgkeep);
    standby.start();
    let rows = write_archived(&env, &mut ledger);
    wait_rows(&standby, rows);
    agent.kill();
    let rows = write_archived(&env, &mut ledger);
    wait_rows(&standby, rows);
    let _agent = Agent::start_as(&env, &pgkeep);
    let rows = write_archived(&env, &mut ledger);
    wait_rows(&standby, rows);
    let before = standby.log_text().matches("the standby asks again").count();
    without_the_store(&env, || {
        eventually("it is told to wait", SOON, || {
            standby.log_text().matches("the standby asks again").count() > before
        });
        assert!(standby.is_running());
    });
    let rows = write_archived(&env, &mut ledger);
    wait_rows(&standby, rows);
    standby.promote();
    ledger.assert_ends_at(&standby, rows);
}
