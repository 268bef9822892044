//! `wal push` that is killed at random, inside a failing disk, or starved, while PostgreSQL goes on writing: every segment
//! arrives, whole and once. (Killed at its named steps: `wal_push.rs`.)

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::Rng as _;

use crate::crash_backup::seeded;
use crate::support::fsck::{Look, names_between, sha256_hex};
use crate::support::{EnvOptions, Injection, TestEnv, eventually};
use crate::wal_place::{Tmpfs, push, segments, wal_file};

const MIB: u64 = 1 << 20;

/// Small segments, and none of them removed: the originals stay to be compared with.
fn keeping(major: u32) -> EnvOptions {
    EnvOptions::new(major)
        .pg(|pg| pg.segment_mib(1).conf("wal_keep_size = '2GB'").conf("max_wal_size = '4GB'"))
}

/// An `archive_command` that kills the push after a while, most times, and says that it failed: PostgreSQL restarts its
/// archiver only every ten seconds when the command itself dies by a signal.
fn killing_command(env: &TestEnv) -> PathBuf {
    let seed: u32 = seeded().random_range(1..30_000);
    let push = env.archive_command().replace("%p", "\"$1\"");
    let script = format!(
        "#!/bin/bash\n# The random numbers of a run that is repeated are the same.\n\
         RANDOM=$(( {seed} + $(wc -l < {log}) ))\necho \"$1\" >> {log}\n\
         (( RANDOM % 4 == 0 )) && exec {push}\n\
         timeout -s KILL 0.$(printf %03d $(( RANDOM % 150 + 1 ))) {push}\n\
         status=$?\n(( status == 137 )) && {{ echo \"$1\" >> {log}.killed; exit 1; }}\nexit $status\n",
        log = env.root.file("pushes", 0o644, "").display()
    );
    env.root.file("kill-the-push", 0o755, &script)
}

/// Every segment of pg_wal up to `last` is archived once, and its stored content is the original's.
pub fn assert_every_segment_is_there(env: &TestEnv, first: &str, last: &str) {
    let look = Look { store: env.repo(), signers: None, identity: Some(&env.identity_file) };
    let found = look.run().assert_whole();
    found.assert_contiguous(first, last, MIB);
    for segment in names_between(first, last, MIB) {
        let original = sha256_hex(&std::fs::read(wal_file(env, &segment)).unwrap());
        let key = &found.segments[&segment][0];
        // `fsck` has compared the content with this digest.
        assert!(key.contains(&original[..32]), "{key} is not the digest {original} of the file");
    }
}

/// Waits until PostgreSQL holds everything to be archived. Each look is a new connection: only by one does a postmaster
/// that nobody calls notice that its archiver may be started again.
fn wait_until_nothing_is_ready(env: &TestEnv) {
    let status = env.pg.data.join("pg_wal/archive_status");
    let is_ready = |name: &std::ffi::OsStr| name.as_encoded_bytes().ends_with(b".ready");
    let start = Instant::now();
    loop {
        env.pg.one("select 1");
        if !std::fs::read_dir(&status).unwrap().flatten().any(|entry| is_ready(&entry.file_name())) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(100), "stuck: {}", env.pg.log_tail());
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn killed_at_random_under_load(options: EnvOptions, pause: Duration) {
    let env = options.build();
    let first = env.pg.switch_and_archive();
    let command = killing_command(&env);
    env.pg.add_conf(&format!("archive_command = '{} %p'", command.display()));
    env.pg.reload();
    let session = env.pg.session();
    session.sql("create table load (n int, t text)");
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        session.sql("insert into load select i, md5(random()::text) from generate_series(1, 1500) i");
        session.sql("update load set t = md5(t) where n % 5 = 0");
        session.sql("select pg_switch_wal(); truncate load");
        std::thread::sleep(pause);
    }
    let killed = std::fs::read_to_string(env.root.join("pushes.killed")).unwrap_or_default().lines().count();
    assert!(killed > 0, "no push was killed");
    let last = env.pg.switch_wal();
    // Archiving goes on as if nothing had been.
    env.turn_archiving_on();
    wait_until_nothing_is_ready(&env);
    assert_every_segment_is_there(&env, &first, &last);
    eprintln!("{killed} pushes were killed, segments {first} to {last}");
}

#[test]
fn killed_at_random_under_load_every_segment_arrives_whole_and_once_in_a_directory() {
    killed_at_random_under_load(keeping(18), Duration::from_millis(50));
}
#[test]
fn killed_at_random_under_load_every_segment_arrives_whole_and_once_in_a_bucket() {
    killed_at_random_under_load(keeping(14).s3_repository("cloud", true), Duration::from_millis(300));
}

#[test]
fn when_the_archiver_and_its_command_are_killed_archiving_goes_on() {
    let env = keeping(14).build();
    let first = env.pg.switch_and_archive();
    // Once; the command itself dies, and with it the archiver, which PostgreSQL starts again within ten seconds.
    let once = env.root.join("killed.once");
    let script = format!(
        "#!/bin/bash\n[ -e {once} ] || {{ touch {once}; export FAILPOINTS='push-after-upload=return(kill)'; }}\nexec {push}\n",
        once = once.display(),
        push = env.archive_command().replace("%p", "\"$1\"")
    );
    let command = env.root.file("kill-once", 0o755, &script);
    env.pg.add_conf(&format!("archive_command = '{} %p'", command.display()));
    env.pg.reload();
    env.pg.switch_wal();
    wait_until_nothing_is_ready(&env);
    assert!(once.exists());
    // By the signal or, where a shell stands between, by 128 and its number: both end the archiver.
    let log = env.pg.log_text();
    assert!(log.contains("terminated by signal 9") || log.contains("with exit code 137"), "{log}");
    let last = env.pg.switch_wal();
    wait_until_nothing_is_ready(&env);
    assert_every_segment_is_there(&env, &first, &last);
}

/// What `switch_wal` made, archived by hand: the server's own archiving is off.
fn by_hand() -> (TestEnv, Vec<String>) {
    let env = keeping(18).build();
    env.pg.add_conf("archive_command = 'false'");
    env.pg.reload();
    let names = segments(&env, 9);
    (env, names)
}

fn is_archived(env: &TestEnv, name: &str) -> bool {
    env.repo().list().iter().any(|key| key.contains(&format!("/{name}-")))
}

#[test]
fn a_failed_sync_at_any_call_is_never_an_archived_segment() {
    let (env, names) = by_hand();
    let mut struck = 0;
    for (nth, name) in names.iter().take(6).enumerate() {
        let disk = Injection::of(&env.root, "fsync,fdatasync", &format!("error=EIO:when={}", nth + 1));
        let ran = push(&env, &disk.wrap(&env.pgkeep), name);
        struck += disk.count();
        assert_eq!(ran.code, Some(i32::from(disk.count() > 0)), "{} calls failed: {ran}", disk.count());
        push(&env, &env.pgkeep, name).ok();
        assert!(is_archived(&env, name));
    }
    assert!(struck >= 2, "a new directory and a new file are at least three calls: {struck}");
    assert_every_segment_is_there(&env, &names[0], &names[5]);
    assert_eq!(env.fsck().unfinished, Vec::<String>::new(), "a failed write leaves no temporary");
}

#[test]
fn killed_inside_any_call_that_writes_it_is_carried_on_by_the_next_try() {
    let (env, names) = by_hand();
    for (call, name) in
        ["fsync", "renameat2", "rename,renameat", "write", "close", "mkdir", "fchmod"].iter().zip(&names)
    {
        for nth in [1, 2] {
            let disk = Injection::on_path(
                &env.root,
                call,
                &format!("signal=KILL:when={nth}"),
                &env.repo().path().join("main"),
            );
            let ran = push(&env, &disk.wrap(&env.pgkeep), name);
            assert!(ran.signal == Some(9) || ran.code == Some(0), "{call} {nth}: {ran}");
            let look = Look { store: env.repo(), signers: None, identity: Some(&env.identity_file) };
            let found = look.run().assert_whole();
            assert!(ran.code != Some(0) || found.segments.contains_key(name), "{call} {nth}: {ran}");
        }
        push(&env, &env.pgkeep, name).ok();
    }
    assert_every_segment_is_there(&env, &names[0], &names[6]);
}

#[test]
fn a_disk_that_fills_up_between_two_segments_delays_and_loses_nothing() {
    let env = keeping(14).build();
    let first = env.pg.switch_and_archive();
    let wal = env.repo().path().join(format!("main/wal/{}", env.pg.system_id()));
    let (log, moved) = (wal.join("00000001/00000000"), env.root.join("moved"));
    std::fs::rename(&log, &moved).unwrap();
    std::fs::create_dir(&log).unwrap();
    let tmpfs = Tmpfs::mount(&log, "300k");
    let session = env.pg.session();
    session.sql("create table load (t text)");
    let fill = || session.sql("insert into load select md5(random()::text) from generate_series(1, 6000)");
    for _ in 0..4 {
        fill();
        env.pg.switch_wal();
    }
    eventually("the disk is full", Duration::from_mins(1), || {
        env.pg.one("select failed_count > 0 from pg_stat_archiver") == "t"
    });
    tmpfs.resize("64m");
    for entry in std::fs::read_dir(&moved).unwrap().flatten() {
        std::fs::copy(entry.path(), log.join(entry.file_name())).unwrap();
    }
    // PostgreSQL rests up to a minute after three failures; a new segment wakes it.
    fill();
    let last = env.pg.switch_wal();
    wait_until_nothing_is_ready(&env);
    assert_every_segment_is_there(&env, &first, &last);
    drop(tmpfs);
}
