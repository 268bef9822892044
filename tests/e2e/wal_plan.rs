//! A recovery that pgkeep planned is given what its plan holds, and nothing else: by `wal fetch` alone, and by the
//! server of a running restore.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use pgkeep::archive::serve::{FetchServer, SOCKET, Settings};
use pgkeep::archive::source::Source;
use pgkeep::codec::Identities;
use pgkeep::model::{Lsn, SegmentName, TimelineId, WalFileName};
use pgkeep::postgres::history::{Ancestor, History};
use pgkeep::repository::continuity::reach;
use pgkeep::repository::keys::wal::WalObjectName;
use pgkeep::repository::recovery_plan::{FILE_NAME, RecoveryPlan};
use pgkeep::repository::wal_object::{WalObjects, settle_heads};

use crate::support::{Build, EnvOptions, Ledger, Pg, TestEnv, eventually};
use crate::wal_place::{
    after, digest_of, fetch, fetched, inside, listing, place, push, put_object, runtime, segment_size,
    segments, wal_file,
};

fn small(major: u32) -> EnvOptions {
    EnvOptions::new(major).pg(|pg| pg.segment_mib(1).conf("wal_keep_size = '200MB'"))
}
fn name(text: &str) -> SegmentName {
    SegmentName::parse(text).unwrap()
}
/// Plans a recovery from `start` along `history` to the archive's end.
async fn make_plan(env: &TestEnv, start: Lsn, history: &History) -> RecoveryPlan {
    let inside = inside(env).await;
    let (listing, size, path) = (listing(&inside).await, segment_size(env), history.path());
    RecoveryPlan::new(
        inside.cluster.clone(),
        inside.root.system,
        size,
        "2026-11-21T02:00:00Z".parse().unwrap(),
        "latest".to_owned(),
        &path,
        &reach(&listing, size, &path, start),
        listing.histories().map(|(t, objects)| (t, objects[0].digest)).collect(),
        &listing,
        &BTreeMap::new(),
        vec![inside.repository.name.clone()],
    )
}

/// Writes it where a restore would, with the signal that puts it in force.
fn put_in_force(data: &Path, plan: &RecoveryPlan) {
    for (file, bytes) in [(FILE_NAME, plan.to_json().unwrap()), ("recovery.signal", Vec::new())] {
        std::fs::write(data.join(file), bytes).unwrap();
        crate::support::root::Ids::server().own(&data.join(file));
    }
}

fn plan(env: &TestEnv, first: &str, history: &History) -> RecoveryPlan {
    let start = name(first).start(segment_size(env)).plus(40);
    let plan = runtime().block_on(make_plan(env, start, history));
    put_in_force(&env.pg.data, &plan);
    plan
}

fn first_timeline() -> History {
    History::without_ancestors(TimelineId::FIRST)
}

/// So many archived segments and their bytes; the server has ended.
fn archived(env: &TestEnv, count: usize) -> (Vec<String>, Vec<Vec<u8>>) {
    let names = segments(env, count);
    let bytes = names.iter().map(|n| std::fs::read(wal_file(env, n)).unwrap()).collect();
    for name in &names {
        push(env, &env.pgkeep, name).ok();
    }
    env.pg.kill9();
    (names, bytes)
}

#[track_caller]
fn delivers(env: &TestEnv, name: &str, expected: &[u8]) {
    let ran = fetch(env, &env.pgkeep, name).ok();
    assert!(std::fs::read(fetched(env)).unwrap() == expected, "other bytes: {ran}");
}
#[track_caller]
fn ends_with(env: &TestEnv, name: &str, status: i32) -> crate::support::Ran {
    let ran = fetch(env, &env.pgkeep, name).exits(status);
    assert!(!fetched(env).exists());
    ran
}

#[test]
fn what_the_plan_holds_is_delivered_or_the_fetch_fails() {
    let env = place(small(17));
    let (names, bytes) = archived(&env, 5);
    plan(&env, &names[1], &first_timeline());
    for n in 1..5 {
        delivers(&env, &names[n], &bytes[n]);
    }
    ends_with(&env, &names[0], 200);
    ends_with(&env, &after(&env, &names[4], 1), 1);
    ends_with(&env, &after(&env, &names[4], 2), 1);
    ends_with(&env, "00000002.history", 1);
    let removed = env.repo().find(&["/wal/", &names[2]]);
    let stored = env.repo().read(&removed);
    env.repo().delete(&removed);
    ends_with(&env, &names[2], 200).says("is in the plan of this recovery and not in the archive");
    env.repo().write(&removed, &stored);
    env.repo().flip_a_bit(&removed);
    ends_with(&env, &names[2], 200);
    // The plan's end needs no store; what it holds does.
    env.repo().delete("pgkeep.json");
    ends_with(&env, &names[3], 200).says("not-a-repository");
    ends_with(&env, &after(&env, &names[4], 1), 1);
    // Later WAL than the plan knows is none of this recovery's.
}

#[test]
fn a_plan_counts_only_while_its_signal_is_there_and_only_for_its_cluster() {
    let env = place(small(17));
    let (names, bytes) = archived(&env, 3);
    let mut plan = plan(&env, &names[1], &first_timeline());
    ends_with(&env, &names[0], 200);
    env.root.file("main/standby.signal", 0o600, "");
    delivers(&env, &names[0], &bytes[0]);
    std::fs::remove_file(env.pg.data.join("standby.signal")).unwrap();
    std::fs::remove_file(env.pg.data.join("recovery.signal")).unwrap();
    delivers(&env, &names[0], &bytes[0]);
    plan.system_identifier.0 += 1;
    put_in_force(&env.pg.data, &plan);
    ends_with(&env, &names[1], 200).says("another cluster");
    std::fs::write(env.pg.data.join(FILE_NAME), "{").unwrap();
    ends_with(&env, &names[1], 200);
    ends_with(&env, "00000009.history", 200);
}

#[test]
fn every_history_file_is_delivered_and_a_used_id_without_one_has_a_stand_in() {
    let env = place(small(17));
    let (names, _) = archived(&env, 2);
    let history = b"1\t0/700000\tno recovery target specified\n";
    env.root.file("main/pg_wal/00000004.history", 0o600, "");
    std::fs::write(wal_file(&env, "00000004.history"), history).unwrap();
    push(&env, &env.pgkeep, "00000004.history").ok();
    std::fs::remove_file(wal_file(&env, "00000004.history")).unwrap();
    plan(&env, &names[0], &first_timeline());
    delivers(&env, "00000004.history", history);
    for id in ["00000002.history", "00000003.history"] {
        fetch(&env, &env.pgkeep, id).ok();
        let text = std::fs::read_to_string(fetched(&env)).unwrap();
        assert!(text.starts_with('#') && text.lines().count() == 1, "{text}");
    }
    ends_with(&env, "00000005.history", 1);
    ends_with(&env, "000000040000000000000001", 1);
}

#[test]
fn where_the_child_has_nothing_its_parents_switch_segment_ends_at_the_fork() {
    let env = place(small(17));
    let (names, bytes) = archived(&env, 3);
    let size = segment_size(&env);
    let switch = name(&names[1]).start(size).plus(5000);
    let ancestors = vec![Ancestor { timeline: TimelineId(1), switch, reason: String::new() }];
    let history = History { timeline: TimelineId(2), ancestors };
    plan(&env, &names[0], &history);
    delivers(&env, &names[0], &bytes[0]);
    let mut cut = bytes[1].clone();
    cut[5000..].fill(0);
    delivers(&env, &names[1], &cut);
    let child = |name: &str| name.replacen("00000001", "00000002", 1);
    ends_with(&env, &child(&names[1]), 1);
    ends_with(&env, &names[2], 1);
}

#[test]
fn the_tail_is_joined_from_heads_and_padded_with_zeros() {
    let env = place(small(17));
    let (names, bytes) = archived(&env, 3);
    let last = env.repo().find(&["/wal/", &names[2]]);
    env.repo().delete(&last);
    let head = |from: usize, to: usize, content: &[u8]| {
        let name = WalObjectName::Head {
            segment: name(&names[2]),
            from: u32::try_from(from).unwrap(),
            to: u32::try_from(to).unwrap(),
            digest: digest_of(content),
        };
        put_object(&env, name, content);
    };
    head(0, 9000, &bytes[2][..9000]);
    head(8192, 20000, &bytes[2][8192..20000]);
    plan(&env, &names[0], &first_timeline());
    let mut expected = bytes[2].clone();
    expected[20000..].fill(0);
    delivers(&env, &names[2], &expected);
    ends_with(&env, &after(&env, &names[2], 1), 1);
    // A head of another server's: it reaches farthest, and its overlap is not equal.
    let mut foreign = bytes[2][10000..30000].to_vec();
    foreign[0] ^= 1;
    head(10000, 30000, &foreign);
    delivers(&env, &names[2], &expected);
    // A plan that leans on it fails rather than end elsewhere; one made from settled heads leaves it out.
    plan(&env, &names[0], &first_timeline());
    ends_with(&env, &names[2], 200);
    runtime().block_on(async {
        let inside = inside(&env).await;
        let mut listing = listing(&inside).await;
        let identities = Some(Identities::load(&env.identity_file).unwrap());
        let objects = WalObjects::new(std::slice::from_ref(&inside.repository), identities);
        let notes = settle_heads(&objects, &mut listing).await.unwrap();
        assert_eq!(notes.len(), 1, "{notes:?}");
        let size = segment_size(&env);
        let start = name(&names[0]).start(size);
        let settled = reach(&listing, size, &first_timeline().path(), start);
        assert_eq!(settled.end, name(&names[2]).start(size).plus(20000));
    });
}

mod served_by_a_running_restore {
    use super::*;

    fn server(env: &TestEnv, plan: &RecoveryPlan, look_ahead: usize) -> impl Future<Output = FetchServer> {
        let identities = Identities::load(&env.identity_file).unwrap();
        let (data, plan) = (env.pg.data.clone(), plan.clone());
        let inside = inside(env);
        async move {
            let inside = inside.await;
            let listing = listing(&inside).await;
            let source = Source::opened(
                std::slice::from_ref(&inside.repository),
                &inside.cluster,
                inside.root.system,
                Some(identities),
                Duration::from_secs(1),
            );
            let deadline = Duration::from_secs(20);
            let settings =
                Settings { plan, listing, source, data_directory: data.clone(), look_ahead, deadline };
            let server = FetchServer::start(settings).unwrap();
            // As a restore that runs as root would: the data directory's owner connects.
            crate::support::root::Ids::server().own(&data.join(SOCKET));
            crate::support::root::Ids::server().own(&data.join("pgkeep.spool"));
            server
        }
    }
    fn spooled(env: &TestEnv) -> Vec<String> {
        let entries = std::fs::read_dir(env.pg.data.join("pgkeep.spool")).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn segments_are_ready_before_they_are_asked_for_and_the_spool_stays_bounded() {
        let env = place(small(17));
        let (names, bytes) = archived(&env, 8);
        let plan = plan(&env, &names[0], &first_timeline());
        let runtime = runtime();
        let server = runtime.block_on(server(&env, &plan, 2));
        let progress = server.progress();
        let ready = |from: usize, to: usize| {
            eventually("the next segments are ready", Duration::from_secs(20), || {
                spooled(&env) == names[from..to]
            });
        };
        ready(0, 3);
        // With the store gone only the spool can deliver.
        let held: Vec<_> = names.iter().map(|n| env.repo().find(&["/wal/", n])).collect();
        delivers(&env, &names[0], &bytes[0]);
        ready(1, 3);
        let stored = env.repo().read(&held[1]);
        env.repo().delete(&held[1]);
        delivers(&env, &names[1], &bytes[1]);
        env.repo().write(&held[1], &stored);
        assert_eq!(progress.borrow().last_served, Some(name(&names[1])));
        assert_eq!(progress.borrow().segments_served, 2);
        // A jump ahead, and back.
        delivers(&env, &names[6], &bytes[6]);
        ready(7, 8);
        delivers(&env, &names[2], &bytes[2]);
        ends_with(&env, &after(&env, &names[7], 1), 1);
        let stored = env.repo().read(&held[5]);
        env.repo().delete(&held[5]);
        ends_with(&env, &names[5], 200);
        assert!(progress.borrow().failed.is_some());
        // What failed ahead of its time is tried again when it is asked for.
        delivers(&env, &names[4], &bytes[4]);
        env.repo().write(&held[5], &stored);
        delivers(&env, &names[5], &bytes[5]);
        runtime.block_on(server.stop()).unwrap();
        assert!(!env.pg.data.join(SOCKET).exists() && !env.pg.data.join("pgkeep.spool").exists());
        delivers(&env, &names[4], &bytes[4]);
    }

    #[test]
    fn when_it_has_died_the_fetch_works_by_itself() {
        let env = place(small(17));
        let (names, bytes) = archived(&env, 3);
        plan(&env, &names[0], &first_timeline());
        // What a killed server leaves: its socket file, on which nobody listens.
        let left = std::os::unix::net::UnixListener::bind(env.pg.data.join(SOCKET)).unwrap();
        crate::support::root::Ids::server().own(&env.pg.data.join(SOCKET));
        drop(left);
        delivers(&env, &names[1], &bytes[1]);
        // One that dies in the middle of an answer.
        std::fs::remove_file(env.pg.data.join(SOCKET)).unwrap();
        let dying = std::os::unix::net::UnixListener::bind(env.pg.data.join(SOCKET)).unwrap();
        crate::support::root::Ids::server().own(&env.pg.data.join(SOCKET));
        let death = std::thread::spawn(move || drop(dying.accept().unwrap()));
        delivers(&env, &names[2], &bytes[2]);
        death.join().unwrap();
    }

    fn replay_reaches_the_archives_end_and_never_opens_short_of_it(build: Build) {
        let env = place(EnvOptions::on(build).pg(|pg| pg.segment_mib(1)));
        env.turn_archiving_on();
        let mut ledger = Ledger::create(&env.pg);
        ledger.write(&env.pg, 3);
        let copy = Pg::standby_of(&env.pg, "copy");
        for _ in 0..4 {
            ledger.write(&env.pg, 10);
            env.pg.switch_and_archive();
        }
        env.pg.kill9();
        let label = std::fs::read_to_string(copy.data.join("backup_label")).unwrap();
        let start = label.split_whitespace().nth(3).unwrap().parse::<Lsn>().unwrap();
        let plan = runtime().block_on(make_plan(&env, start, &first_timeline()));
        std::fs::remove_file(copy.data.join("standby.signal")).unwrap();
        for entry in std::fs::read_dir(copy.data.join("pg_wal")).unwrap().flatten() {
            if WalFileName::parse(entry.file_name().to_str().unwrap()).is_some() {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
        put_in_force(&copy.data, &plan);
        let command =
            env.pgkeep.clone().global("--cluster").global("main").shell_command("wal fetch %f \"%p\"");
        copy.add_conf(&format!("archive_mode = off\nhot_standby = off\nrestore_command = '{command}'"));
        let middle = plan.timelines[0].last.unwrap().previous(segment_size(&env)).unwrap();
        let key = env.repo().find(&["/wal/", &middle.to_string()]);
        let stored = env.repo().read(&key);
        env.repo().delete(&key);
        let why = copy.try_start().expect_err("the server opened short of the archive's end");
        assert!(why.contains("is in the plan of this recovery and not in the archive"), "{why}");
        env.repo().write(&key, &stored);
        copy.start();
        eventually("recovery has ended", Duration::from_mins(1), || {
            copy.one("select pg_is_in_recovery()") == "f"
        });
        ledger.assert_ends_at(&copy, ledger.last_id());
        assert_eq!(copy.one("select timeline_id from pg_control_checkpoint()"), "2");
    }

    #[test]
    fn postgres_14_replays_by_plan() {
        replay_reaches_the_archives_end_and_never_opens_short_of_it(Build::of(14));
    }
    #[test]
    fn postgres_18_replays_by_plan() {
        replay_reaches_the_archives_end_and_never_opens_short_of_it(Build::of(18));
    }
}
