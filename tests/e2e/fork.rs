//! The fork: a server is promoted, and its host is lost before the first segment of the new timeline was full. A
//! recovery ends on the new timeline, or exactly where it begins, and never past that on the dead one.

use std::path::Path;
use std::process::Command;

use crate::support::root::Ids;
use crate::support::{EnvOptions, Ledger, Pg, Ran, TestEnv, eventually};

/// A server with small segments, a backup after row 2, rows up to 4 archived, 5 and 6 in the segment being written.
fn place(major: u32) -> (TestEnv, Ledger) {
    let env = EnvOptions::new(major).pg(|pg| pg.segment_mib(1)).build();
    let mut ledger = Ledger::create(&env.pg);
    ledger.write(&env.pg, 2);
    env.backup();
    ledger.write(&env.pg, 2);
    env.pg.switch_and_archive();
    ledger.write(&env.pg, 2);
    (env, ledger)
}

/// Makes a standby of the server, which crashed, and promotes it. (A clean stop would end and archive the segment.)
fn fail_over(pg: &Pg, settings: &str) {
    if pg.is_running() {
        pg.kill9();
    }
    let signal = pg.data.join("standby.signal");
    std::fs::write(&signal, "").unwrap();
    Ids::server().own(&signal);
    pg.add_conf(settings);
    pg.start();
    pg.promote();
}
const ALONE: &str = "restore_command = 'false'";

/// A second server from the first one's files, which is down.
fn twin(env: &TestEnv, name: &str) -> Pg {
    let data = env.root.join(name);
    let copied = Command::new("cp").arg("-a").arg(&env.pg.data).arg(&data).status().unwrap();
    assert!(copied.success());
    let twin = env.side(&data);
    let sockets = env.root.dir(&format!("{name}.s"), 0o755);
    twin.add_conf(&format!("unix_socket_directories = '{}'", sockets.display()));
    twin
}

/// The host is gone: nothing of its data directory is left.
fn lose(env: &TestEnv) {
    env.pg.kill9();
    std::fs::remove_dir_all(&env.pg.data).unwrap();
    // Its lock too: on this host its process id may belong to somebody else by now.
    for entry in std::fs::read_dir(env.root.join("main.s")).unwrap().flatten() {
        std::fs::remove_file(entry.path()).unwrap();
    }
}

fn timeline(pg: &Pg) -> String {
    pg.one("select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)")
}

#[track_caller]
fn in_place(env: &TestEnv, target: &str) -> Ran {
    env.pgkeep.run(["restore", "--to", target, "--yes"]).ok()
}

/// A side restore with these arguments ends at `last` rows of this ledger.
#[track_caller]
fn beside(env: &TestEnv, name: &str, args: &[&str], ledger: &Ledger, last: u32) -> (Ran, Pg) {
    let dir = env.side_dir(name);
    let common = ["restore", "--yes", "--target-dir", dir.to_str().unwrap()];
    let ran = env.pgkeep.run(common.iter().chain(args)).ok();
    let side = env.side(&dir);
    ledger.assert_ends_at(&side, last);
    (ran, side)
}

/// Every timeline that has a history file in the archive, each with one.
#[track_caller]
fn histories(env: &TestEnv) -> Vec<String> {
    let mut ids: Vec<String> = env
        .repo()
        .list()
        .iter()
        .filter_map(|key| Some(key.split_once("/history/")?.1.get(..8)?.to_owned()))
        .collect();
    ids.sort();
    let all = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), all, "a timeline id was taken twice: {:?}", env.repo().list());
    ids
}

/// Keys of WAL objects whose names contain `part`.
fn wal_keys(env: &TestEnv, part: &str) -> Vec<String> {
    env.repo().list().into_iter().filter(|k| k.contains("/wal/") && k.contains(part)).collect()
}

/// The restored cluster archives, is lost again, and comes back whole on a timeline that nobody had.
fn life_goes_on(env: &TestEnv, ledger: &mut Ledger, expected_timeline: &str) {
    ledger.write(&env.pg, 2);
    env.pg.switch_and_archive();
    lose(env);
    in_place(env, "latest");
    ledger.assert_ends_at(&env.pg, ledger.last_id());
    assert_eq!(timeline(&env.pg), expected_timeline);
    histories(env);
}

fn a_saved_head_is_the_end_of_the_new_timeline(major: u32) {
    let (env, mut ledger) = place(major);
    fail_over(&env.pg, ALONE);
    ledger.write(&env.pg, 3);
    env.pg.wait_archived("00000002.history");
    env.pg.kill9();
    // What pg_wal alone has becomes a head before anything is moved; then the host is lost for good.
    env.pgkeep.run(["restore", "--to", "latest", "--yes", "--no-start"]).ok();
    assert_eq!(wal_keys(&env, "/00000002/").len(), wal_keys(&env, ".head-").len(), "no whole segment");
    assert!(!wal_keys(&env, ".head-").is_empty());
    std::fs::remove_dir_all(&env.pg.data).unwrap();
    in_place(&env, "latest");
    ledger.assert_ends_at(&env.pg, 9);
    assert_eq!(timeline(&env.pg), "00000003");
    life_goes_on(&env, &mut ledger, "00000004");
    assert_eq!(histories(&env), ["00000002", "00000003", "00000004"]);
    // And back onto a row of timeline 2, which only the head has.
    let target = format!("xid:{}", ledger.entry(8).xid);
    beside(&env, "side", &["--to", &target], &ledger, 8);
}

#[test]
fn the_head_that_was_saved_of_the_new_timeline_is_recovered_on_14() {
    a_saved_head_is_the_end_of_the_new_timeline(14);
}
#[test]
fn the_head_that_was_saved_of_the_new_timeline_is_recovered_on_18() {
    a_saved_head_is_the_end_of_the_new_timeline(18);
}

/// Rows up to 6 are common. A twin was promoted there and lost with two rows more; of it only history (and
/// `.partial`) were archived. The old server went on: rows 7 to 10 of the dead timeline are in the archive.
fn dead_timeline_went_on(major: u32) -> (TestEnv, Ledger) {
    let (env, mut ledger) = place(major);
    env.pg.kill9();
    let promoted = twin(&env, "twin");
    fail_over(&promoted, ALONE);
    assert_eq!(timeline(&promoted), "00000002");
    ledger.clone().write(&promoted, 2);
    promoted.wait_archived("00000002.history");
    eventually("the old segment is archived", std::time::Duration::from_secs(30), || {
        !wal_keys(&env, ".partial-").is_empty()
    });
    promoted.kill9();
    env.pg.start();
    ledger.write(&env.pg, 3);
    env.pg.switch_and_archive();
    ledger.write(&env.pg, 1);
    env.pg.switch_and_archive();
    (env, ledger)
}

fn ends_exactly_at_the_fork(major: u32) {
    let (env, mut ledger) = dead_timeline_went_on(major);
    let warns = |ran: &Ran| {
        let first = ran.stderr.lines().find(|l| l.starts_with("WARNING") || l.starts_with("Plan")).unwrap();
        assert!(first.starts_with("WARNING: timeline 1 holds a later commit"), "{ran}");
        assert!(first.contains("--timeline 1"), "{ran}");
    };
    let (ran, side) = beside(&env, "with-partial", &["--to", "latest"], &ledger, 6);
    warns(&ran);
    assert_eq!(timeline(&side), "00000003");
    drop(side);
    for key in wal_keys(&env, ".partial-") {
        env.repo().delete(&key);
    }
    let (ran, side) = beside(&env, "history-only", &["--to", "latest"], &ledger, 6);
    warns(&ran);
    drop(side);
    // The dead timeline's rows come back only for whoever says so, and take no id that is in use.
    let (_, side) = beside(&env, "dead", &["--to", "latest", "--timeline", "1"], &ledger, 10);
    assert_eq!(timeline(&side), "00000003");
    drop(side);

    // In place, over the old server with its own WAL of the dead timeline.
    env.pg.kill9();
    warns(&in_place(&env, "latest"));
    ledger.rewind_to(6);
    ledger.assert_ends_at(&env.pg, 6);
    assert_eq!(timeline(&env.pg), "00000003");
    life_goes_on(&env, &mut ledger, "00000004");
}

#[test]
fn of_a_new_timeline_without_wal_only_the_fork_is_reached_on_14() {
    ends_exactly_at_the_fork(14);
}
#[test]
fn of_a_new_timeline_without_wal_only_the_fork_is_reached_on_18() {
    ends_exactly_at_the_fork(18);
}

fn the_partial_segment_leads_to_the_fork(major: u32) {
    let (env, mut ledger) = place(major);
    fail_over(&env.pg, ALONE);
    ledger.clone().write(&env.pg, 3);
    env.pg.wait_archived("00000002.history");
    eventually("the old segment is archived", std::time::Duration::from_secs(30), || {
        !wal_keys(&env, ".partial-").is_empty()
    });
    lose(&env);
    in_place(&env, "latest");
    ledger.assert_ends_at(&env.pg, 6);
    assert_eq!(timeline(&env.pg), "00000003");
    life_goes_on(&env, &mut ledger, "00000004");
}

#[test]
fn the_partial_segment_alone_leads_to_the_fork_on_14() {
    the_partial_segment_leads_to_the_fork(14);
}
#[test]
fn the_partial_segment_alone_leads_to_the_fork_on_18() {
    the_partial_segment_leads_to_the_fork(18);
}

#[test]
fn where_wal_is_missing_before_the_fork_the_last_lsn_that_works_is_named() {
    let (env, ledger) = place(16);
    fail_over(&env.pg, ALONE);
    env.pg.wait_archived("00000002.history");
    eventually("the old segment is archived", std::time::Duration::from_secs(30), || {
        !wal_keys(&env, ".partial-").is_empty()
    });
    lose(&env);
    for key in wal_keys(&env, ".partial-") {
        env.repo().delete(&key);
    }
    let dir = env.side_dir("side");
    let latest = ["restore", "--to", "latest", "--yes", "--target-dir", dir.to_str().unwrap()];
    let ran = env.pgkeep.run(latest).fails_with("target-unreachable", 3).says("history says");
    let target =
        ran.stderr.split('`').find_map(|s| s.strip_prefix("--to ")).unwrap_or_else(|| panic!("{ran}"));
    beside(&env, "side", &["--to", target], &ledger, 4);
}

#[test]
fn a_failed_over_standby_counts_though_the_old_primary_went_on_longer() {
    let (env, mut dead) = place(17);
    let standby = Pg::standby_of(&env.pg, "standby");
    standby.start();
    dead.write(&env.pg, 1);
    let sent = env.pg.one("select pg_current_wal_lsn()");
    eventually("the standby has everything", std::time::Duration::from_secs(30), || {
        standby.one(&format!("select pg_last_wal_replay_lsn() >= '{sent}'")) == "t"
    });
    standby.promote();
    let mut living = dead.clone();
    living.write(&standby, 3);
    standby.switch_and_archive();
    let unfinished = living.clone().write(&standby, 2);
    dead.write(&env.pg, 5);
    env.pg.switch_and_archive();
    standby.kill9();

    let (ran, side) = beside(&env, "living", &["--to", "latest"], &living, 10);
    ran.says("WARNING: timeline 1 holds a later commit");
    assert_eq!(timeline(&side), "00000003");
    drop(side);
    // A row of the dead timeline is not on the way, a row of the living one is, by every kind of target.
    let dir = env.side_dir("no");
    let target = format!("lsn:{}", dead.entry(12).end.max(unfinished.end).plus(1 << 24));
    let args = ["restore", "--yes", "--to", &target, "--target-dir", dir.to_str().unwrap()];
    env.pgkeep.run(args).fails_with("target-unreachable", 3);
    let target = living.entry(9).at.to_string();
    beside(&env, "time", &["--to", &target], &living, 9);
    let target = dead.entry(9).at.to_string();
    beside(&env, "dead", &["--to", &target, "--timeline", "1"], &dead, 9);
    beside(&env, "end", &["--to", "latest", "--timeline", "1"], &dead, 12);
}

#[test]
fn a_junk_promotion_in_between_leaves_a_gap_that_is_never_filled() {
    let (env, mut ledger) = place(18);
    env.pg.kill9();
    // Somebody's rehearsal archived into the place of production.
    let junk = twin(&env, "junk");
    fail_over(&junk, ALONE);
    let mut rehearsed = ledger.clone();
    rehearsed.write(&junk, 2);
    junk.switch_and_archive();
    junk.wait_archived("00000002.history");
    junk.kill9();
    // Production goes on, and fails over itself: its fetches tell it that id 2 is taken.
    env.pg.start();
    ledger.write(&env.pg, 3);
    env.pg.switch_and_archive();
    let fetch = env.pgkeep.clone().global("--cluster").global("main").shell_command("wal fetch %f \"%p\"");
    fail_over(&env.pg, &format!("restore_command = '{fetch}'\nrecovery_target_timeline = 'current'"));
    assert_eq!(timeline(&env.pg), "00000003");
    ledger.write(&env.pg, 2);
    env.pg.switch_and_archive();
    env.pg.wait_archived("00000003.history");
    let whole = ledger.last_id();
    lose(&env);

    let (_, side) = beside(&env, "rehearsal", &["--to", "latest", "--timeline", "2"], &rehearsed, 8);
    assert_eq!(timeline(&side), "00000004");
    drop(side);
    // Even without its history nobody takes id 2: its segments are there.
    env.repo().delete(&env.repo().find(&["/history/00000002."]));
    let (_, side) = beside(&env, "first", &["--to", "latest", "--timeline", "1"], &ledger, 9);
    assert_eq!(timeline(&side), "00000004");
    drop(side);

    in_place(&env, "latest");
    ledger.assert_ends_at(&env.pg, whole);
    assert_eq!(timeline(&env.pg), "00000004");
    let conf = std::fs::read_to_string(env.pg.data.join("postgresql.auto.conf")).unwrap();
    assert!(!conf.contains("recovery_target_timeline = 2"), "{conf}");
    life_goes_on(&env, &mut ledger, "00000005");
    exists_and_is_small(&env.pg.data);
}

/// Nothing of the recovery is left in the data directory.
fn exists_and_is_small(data: &Path) {
    for left in ["recovery.signal", "standby.signal", "pgkeep.spool", "pgkeep.fetch.sock"] {
        assert!(!data.join(left).exists(), "{left} was left behind");
    }
}
