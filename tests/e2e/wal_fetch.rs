//! `wal fetch` never lies: 0 is delivered, 1 is a proof, and everything else is 200.

use std::time::{Duration, Instant};

use age::secrecy::ExposeSecret as _;
use nix::sys::signal::Signal;

use crate::support::{EnvOptions, Fault, FaultProxy, Pgkeep, Ran, Rule, S3, TestEnv};
use pgkeep::model::SegmentName;
use pgkeep::repository::keys::wal::WalObjectName;

use crate::wal_place::{
    Tmpfs, after, behind_a_proxy, digest_of, fetch, fetched, place, push, put_object, segments, wal_file,
};

fn small(major: u32) -> EnvOptions {
    EnvOptions::new(major).pg(|pg| pg.segment_mib(1))
}
/// Delivered, and byte for byte what was archived.
#[track_caller]
fn delivers(env: &TestEnv, pgkeep: &Pgkeep, name: &str, expected: &[u8]) -> Ran {
    let ran = fetch(env, pgkeep, name).ok();
    assert!(std::fs::read(fetched(env)).unwrap() == expected, "other bytes: {ran}");
    nothing_else_in_pg_wal(env);
    ran
}
/// This status, and nothing where PostgreSQL would look.
#[track_caller]
fn ends_with(env: &TestEnv, pgkeep: &Pgkeep, name: &str, status: i32) -> Ran {
    let ran = fetch(env, pgkeep, name).exits(status);
    assert!(!fetched(env).exists(), "{ran}");
    nothing_else_in_pg_wal(env);
    ran
}
fn nothing_else_in_pg_wal(env: &TestEnv) {
    for entry in std::fs::read_dir(env.pg.data.join("pg_wal")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        assert!(!name.starts_with(".pgkeep"), "left behind: {name}");
    }
}
/// Three archived segments, of which pg_wal has no copies any more, and their bytes.
fn three(env: &TestEnv) -> (Vec<String>, Vec<Vec<u8>>) {
    let names = segments(env, 3);
    let bytes = names.iter().map(|n| std::fs::read(wal_file(env, n)).unwrap()).collect();
    for name in &names {
        push(env, &env.pgkeep, name).ok();
    }
    env.pg.kill9();
    for name in &names {
        std::fs::remove_file(wal_file(env, name)).unwrap();
    }
    (names, bytes)
}

#[test]
fn what_is_archived_is_delivered_and_what_never_was_does_not_exist() {
    let env = place(small(17));
    let (names, bytes) = three(&env);
    for (name, bytes) in names.iter().zip(&bytes) {
        delivers(&env, &env.pgkeep, name, bytes);
    }
    for name in [
        &after(&env, &names[2], 1),
        "00000002.history",
        "000000020000000000000007",
        &format!("{}.partial", names[2]),
    ] {
        ends_with(&env, &env.pgkeep, name, 1);
    }
}

#[test]
fn a_hole_is_not_an_end_unless_pg_wal_has_a_whole_copy_or_a_standby_asks() {
    let env = place(small(17));
    let (names, bytes) = three(&env);
    env.repo().delete(&env.repo().find(&["/wal/", &names[1]]));
    ends_with(&env, &env.pgkeep, &names[1], 200).says("wal-hole");
    env.root.file(&format!("main/pg_wal/{}", names[1]), 0o600, "");
    std::fs::write(wal_file(&env, &names[1]), &bytes[1]).unwrap();
    ends_with(&env, &env.pgkeep, &names[1], 1).says("a whole copy lies in pg_wal");
    // A copy whose records end early may be the very end that the archive goes beyond.
    let mut early = bytes[1].clone();
    early[8192..].fill(0);
    std::fs::write(wal_file(&env, &names[1]), &early).unwrap();
    ends_with(&env, &env.pgkeep, &names[1], 200);
    std::fs::remove_file(wal_file(&env, &names[1])).unwrap();
    env.root.file("main/standby.signal", 0o600, "");
    ends_with(&env, &env.pgkeep, &names[1], 1).says("the standby asks again");
}

#[test]
fn a_timeline_with_segments_and_without_its_history_is_not_skipped() {
    let env = place(small(17));
    let (names, _) = three(&env);
    let key = env.repo().find(&["/wal/", &names[0]]);
    let moved = key
        .replace("/00000001/", "/00000002/")
        .replace(&names[0], &names[0].replacen("00000001", "00000002", 1));
    env.repo().write(&moved, &env.repo().read(&key));
    ends_with(&env, &env.pgkeep, "00000002.history", 200);
    ends_with(&env, &env.pgkeep, "00000003.history", 1);
}

#[test]
fn damage_is_never_served_and_a_healed_copy_is() {
    let env = place(small(17));
    let (names, bytes) = three(&env);
    let key = env.repo().find(&["/wal/", &names[0]]);
    let good = env.repo().read(&key);
    env.repo().flip_a_bit(&key);
    ends_with(&env, &env.pgkeep, &names[0], 200);
    for cut in [0, 1, 100, good.len() / 2, good.len() - 1] {
        env.repo().write(&key, &good[..cut]);
        ends_with(&env, &env.pgkeep, &names[0], 200);
    }
    env.repo().write(&format!("{key}.healed-0123abcd"), &good);
    delivers(&env, &env.pgkeep, &names[0], &bytes[0]);
    // Another segment's bytes under this name: whole, and not what the name says.
    let other = env.repo().read(&env.repo().find(&["/wal/", &names[2]]));
    let second = env.repo().find(&["/wal/", &names[1]]);
    env.repo().write(&second, &other);
    ends_with(&env, &env.pgkeep, &names[1], 200).says("not what its name says");
}

#[test]
fn a_segment_marked_damaged_is_not_served_until_a_sound_one_is_there() {
    let env = place(small(17));
    let names = segments(&env, 2);
    let path = wal_file(&env, &names[1]);
    let good = std::fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[4000] ^= 0x10;
    std::fs::write(&path, &bad).unwrap();
    push(&env, &env.pgkeep, &names[1]).ok();
    ends_with(&env, &env.pgkeep, &names[1], 200).says("marked damaged");
    std::fs::write(&path, &good).unwrap();
    push(&env, &env.pgkeep, &names[1]).ok();
    delivers(&env, &env.pgkeep, &names[1], &good);
}

#[test]
fn of_two_contents_the_one_that_continues_its_predecessor_is_taken_and_nothing_is_guessed() {
    let env = place(small(17));
    let (names, bytes) = three(&env);
    let segment = SegmentName::parse(&names[1]).unwrap();
    let other = |content: &[u8]| {
        put_object(&env, WalObjectName::Segment { segment, digest: digest_of(content) }, content);
    };
    // Another history: its first record names another predecessor.
    let mut stranger = bytes[1].clone();
    stranger[40 + 8] ^= 0xff;
    other(&stranger);
    delivers(&env, &env.pgkeep, &names[1], &bytes[1]);
    // One that nobody can read is no rival; where the other one is the stranger's, it may be the one.
    let key = env.repo().find(&["/wal/", &names[1], &digest_of(&bytes[1]).to_string()]);
    let junk = key.replace(&digest_of(&bytes[1]).to_string(), &digest_of(b"junk").to_string());
    env.repo().write(&junk, b"junk");
    delivers(&env, &env.pgkeep, &names[1], &bytes[1]);
    let kept = env.repo().read(&key);
    env.repo().delete(&key);
    ends_with(&env, &env.pgkeep, &names[1], 200).says("none that can be read continues").says("--heal");
    env.repo().write(&key, &kept);
    env.repo().delete(&junk);
    // One that differs only after its last record: both continue.
    let mut twin = bytes[1].clone();
    *twin.last_mut().unwrap() ^= 1;
    other(&twin);
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let undecided = ends_with(&env, &env.pgkeep, &names[1], 200).says("wal-conflict").says("the-other-host");
    undecided.says(&host);
    // Without the segment before there is nothing to compare with.
    let first = SegmentName::parse(&names[0]).unwrap();
    let mut twin = bytes[0].clone();
    *twin.last_mut().unwrap() ^= 1;
    put_object(&env, WalObjectName::Segment { segment: first, digest: digest_of(&twin) }, &twin);
    ends_with(&env, &env.pgkeep, &names[0], 200).says("the segment before it is not there");
}

#[test]
fn a_full_disk_here_is_a_failure_and_leaves_nothing() {
    let env = place(small(17));
    let (names, _) = three(&env);
    let small = env.root.dir("main/small", 0o700);
    let tmpfs = Tmpfs::mount(&small, "256k");
    let ran = env.pgkeep.clone().dir(&env.pg.data).run(["wal", "fetch", &names[0], "small/RECOVERYXLOG"]);
    ran.exits(200).says("disk is full");
    assert_eq!(std::fs::read_dir(&small).unwrap().count(), 0);
    drop(tmpfs);
}

mod before_the_archive_is_asked {
    use super::*;

    #[test]
    fn wrong_arguments_are_200() {
        let env = place(small(17));
        let pgkeep = env.pgkeep.clone().dir(&env.pg.data);
        let name = "000000010000000000000001";
        for args in [
            vec!["wal", "fetch"],
            vec!["wal", "fetch", name],
            vec!["wal", "fetch", name, "pg_wal/X", "more"],
            vec!["wal", "fetch", "--nonsense", name, "pg_wal/X"],
            vec!["--nonsense", "wal", "fetch", name, "pg_wal/X"],
            vec!["wal", "fetch", "not-a-wal-file", "pg_wal/X"],
            vec!["wal", "fetch", "../../etc/passwd", "pg_wal/X"],
            vec!["wal", "fetch", "--help"],
            vec!["--cluster", "NO", "wal", "fetch", name, "pg_wal/X"],
            vec!["--cluster", "other", "wal", "fetch", name, "pg_wal/X"],
            vec!["--repo", "other", "wal", "fetch", name, "pg_wal/X"],
            vec!["wal", "fetch", name, "no/such/directory/X"],
        ] {
            pgkeep.run(&args).exits(200);
        }
        // Somewhere else than in a data directory.
        env.pgkeep.clone().run(["wal", "fetch", name, "/tmp/pgkeep-no-such"]).exits(200);
    }

    #[test]
    fn a_broken_configuration_or_a_missing_key_is_200() {
        let env = place(small(17));
        let (names, _) = three(&env);
        let identity = env.identity_file.display().to_string();
        let unreadable = env.with_config("no-identity.toml", |t| t.replace(&identity, "/no/such/identity"));
        let without = env.with_config("without.toml", |t| {
            t.lines().filter(|l| !l.starts_with("identity_file")).collect::<Vec<_>>().join("\n")
        });
        let other = age::x25519::Identity::generate();
        let wrong_file = env.root.file("other.txt", 0o600, other.to_string().expose_secret());
        let wrong =
            env.with_config("wrong.toml", |t| t.replace(&identity, &wrong_file.display().to_string()));
        let open_file =
            env.root.file("open.txt", 0o644, &std::fs::read_to_string(&env.identity_file).unwrap());
        let open = env.with_config("open.toml", |t| t.replace(&identity, &open_file.display().to_string()));
        let syntax = env.with_config("syntax.toml", |t| t + "\n[[[");
        let unknown = env.with_config("unknown.toml", |t| t + "\n[archive]\nno_such_key = 1\n");
        let absent = Pgkeep::with_config(&env.root.join("no-such.toml"));
        // Also for a file that does not exist: a missing key must not look like a missing file.
        for name in [names[0].as_str(), "00000002.history"] {
            for pgkeep in [&unreadable, &without, &open, &syntax, &unknown, &absent] {
                ends_with(&env, pgkeep, name, 200);
            }
        }
        ends_with(&env, &wrong, &names[0], 200).says("wrong-key");
    }

    #[test]
    fn a_panic_is_200() {
        let env = place(small(17));
        let (names, _) = three(&env);
        let panicking = env.pgkeep.clone().failpoint("fetch-panic", "panic");
        ends_with(&env, &panicking, &names[0], 200);
        let failing = env.pgkeep.clone().failpoint("fetch-panic", "return(error)");
        ends_with(&env, &failing, &names[0], 200);
        ends_with(&env, &env.pgkeep.clone().env("FAILPOINTS", "nonsense"), &names[0], 200);
    }

    #[test]
    fn an_unmounted_repository_is_200() {
        let env = place(small(17));
        let (names, _) = three(&env);
        env.repo().delete("pgkeep.json");
        for name in [names[0].as_str(), "00000002.history"] {
            ends_with(&env, &env.pgkeep, name, 200).says("not-a-repository");
        }
        env.root.file("main/standby.signal", 0o600, "");
        ends_with(&env, &env.pgkeep, &names[0], 1).says("the standby asks again");
    }
}

mod several_repositories {
    use super::*;

    #[test]
    fn an_optional_one_that_is_down_blocks_nothing_and_a_required_one_is_not_missing() {
        let store = S3::fresh_bucket();
        let proxy = FaultProxy::before(store.endpoint());
        let endpoint = proxy.endpoint();
        let env =
            place(small(17).dir_repository("near", true).s3_repository_at("far", false, store, &endpoint));
        let (names, bytes) = three(&env);
        proxy.all(Fault::Stall);
        let ran = delivers(&env, &env.pgkeep, &names[0], &bytes[0]);
        assert!(ran.took < Duration::from_secs(3), "{ran}");
        let ran = ends_with(&env, &env.pgkeep, "00000002.history", 1);
        assert!(ran.took < Duration::from_secs(6), "{ran}");
        // What only the optional one has is delivered when it answers.
        proxy.calm();
        let key = env.store("near").find(&["/wal/", &names[1]]);
        env.store("near").delete(&key);
        delivers(&env, &env.pgkeep, &names[1], &bytes[1]);
        // The required one fails: what the optional one lacks is not missing, what it has is delivered.
        env.store("near").delete("pgkeep.json");
        ends_with(&env, &env.pgkeep, &after(&env, &names[2], 1), 200);
        delivers(&env, &env.pgkeep, &names[0], &bytes[0]);
    }
}

mod over_s3 {
    use super::*;

    #[test]
    fn a_store_that_fails_is_200_and_for_a_standby_1_within_seconds() {
        let (env, proxy) = behind_a_proxy(small(17).config("[archive]\nfetch_deadline = \"2s\""));
        let (names, bytes) = three(&env);
        let faults = [Fault::Stall, Fault::Status(500), Fault::Status(403), Fault::ResetBefore];
        let failing = |name: &str, status: i32| {
            let ran = ends_with(&env, &env.pgkeep, name, status);
            assert!(ran.took < Duration::from_secs(8), "{ran}");
        };
        for (standby, status) in [(false, 200), (true, 1)] {
            if standby {
                env.root.file("main/standby.signal", 0o600, "");
            }
            for fault in faults {
                proxy.all(fault);
                failing(&names[0], status);
            }
            proxy.calm();
            proxy.rule(Rule::always(Fault::StallMidway).path(&names[0]).method("GET"));
            failing(&names[0], status);
            // Half of what is left, every time: it comes together in the end.
            proxy.rule(Rule::always(Fault::CutBody).path(&names[0]).method("GET"));
            delivers(&env, &env.pgkeep, &names[0], &bytes[0]);
            proxy.down();
            failing("00000002.history", status);
            proxy.up();
            proxy.calm();
            delivers(&env, &env.pgkeep, &names[0], &bytes[0]);
        }
    }

    #[test]
    fn a_body_that_is_shorter_than_was_stored_is_never_taken_for_the_file() {
        let (env, proxy) = behind_a_proxy(small(17).config("[archive]\nfetch_deadline = \"2s\""));
        let (names, _) = three(&env);
        let segment = format!("{}-", names[0]);
        proxy.rule(Rule::always(Fault::ShortBody).method("GET").path(&segment));
        ends_with(&env, &env.pgkeep, &names[0], 200);
    }

    #[test]
    fn a_body_that_breaks_once_is_carried_on_with() {
        let (env, proxy) = behind_a_proxy(small(17).config("[archive]\nfetch_deadline = \"2s\""));
        let (names, bytes) = three(&env);
        for fault in [Fault::CutBody, Fault::Status(503), Fault::ResetBefore] {
            proxy.rule(Rule::always(fault).method("GET").path(&names[0]).times(1));
            delivers(&env, &env.pgkeep, &names[0], &bytes[0]);
        }
    }

    #[test]
    fn sigterm_ends_it_as_sigterm() {
        let (env, proxy) = behind_a_proxy(small(17).config("[archive]\nfetch_deadline = \"2s\""));
        let (names, _) = three(&env);
        proxy.all(Fault::Stall);
        let running =
            env.pgkeep.clone().dir(&env.pg.data).spawn(["wal", "fetch", &names[0], "pg_wal/RECOVERYXLOG"]);
        let start = Instant::now();
        while proxy.counts().struck == 0 && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
        }
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait().signal, Some(Signal::SIGTERM as i32));
    }
}
