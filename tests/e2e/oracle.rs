//! The oracle: a ledger of commits, each with its number, time and place in WAL known, says for every recovery target
//! which row must be the last one. A restore is right when the ledger ends there, from row 1 on without a hole, and
//! nowhere else.

mod agent_deaths;
mod debian;
mod failover;
mod furniture;
mod holes;
mod idle;
mod standby;
mod stores;
mod targets;
mod timelines;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use pgkeep::model::{Inclusion, Lsn, Target, Timestamp};
use serde_json::Value;

use crate::support::{Ledger, Pg, Pgkeep, Ran, Stop, TestEnv};

/// The code of a target that lies outside of what can be reached.
const UNREACHABLE: &str = "target-unreachable";

/// A side instance that pgkeep has restored. Dropped, it is killed and its directory removed: a test makes many.
struct Side {
    pg: Pg,
    dir: PathBuf,
    /// The report of the restore.
    report: Value,
}

impl Drop for Side {
    fn drop(&mut self) {
        self.pg.kill9();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// `pgkeep restore ARGS --target-dir DIR`, with a fresh directory of a short name.
#[track_caller]
fn side_with(env: &TestEnv, pgkeep: &Pgkeep, args: &[&str]) -> Side {
    let (dir, ran) = attempt(env, pgkeep, args);
    let report = ran.ok().json();
    Side { pg: env.side(&dir), dir, report }
}

#[track_caller]
fn side(env: &TestEnv, args: &[&str]) -> Side {
    side_with(env, &env.pgkeep, args)
}

/// The same where it may fail.
#[track_caller]
fn attempt(env: &TestEnv, pgkeep: &Pgkeep, args: &[&str]) -> (PathBuf, Ran) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let dir = env.side_dir(&format!("side{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    let words = ["restore", "--yes", "--target-dir", dir.to_str().unwrap()];
    let ran = pgkeep.clone().global("--json").run(words.iter().chain(args));
    (dir, ran)
}

/// `--to TARGET`, with `--before` where it is meant.
fn words(target: &Target, inclusion: Inclusion) -> Vec<String> {
    let mut words = vec!["--to".to_owned(), target.to_string()];
    if target.has_inclusion() && inclusion == Inclusion::Before {
        words.push("--before".to_owned());
    }
    words
}

/// Restores to the target beside the running server; the ledger must end exactly where its numbers say.
#[track_caller]
fn ends_exactly(env: &TestEnv, ledger: &Ledger, target: &Target, inclusion: Inclusion) {
    ends_exactly_with(env, &env.pgkeep, ledger, target, inclusion, &[]);
}

#[track_caller]
fn ends_exactly_with(
    env: &TestEnv,
    pgkeep: &Pgkeep,
    ledger: &Ledger,
    target: &Target,
    inclusion: Inclusion,
    more: &[&str],
) {
    let words = words(target, inclusion);
    let args: Vec<&str> = words.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let side = side_with(env, pgkeep, &args);
    holds_exactly(ledger, &side.pg, &side.report, ledger.expect_last(target, inclusion));
}

/// The server holds the rows 1 to `last`, `last` is the very commit that the ledger knows (and not one of the same
/// number on another timeline), and the report names it.
#[track_caller]
fn holds_exactly(ledger: &Ledger, pg: &Pg, report: &Value, last: u32) {
    ledger.assert_ends_at(pg, last);
    assert_eq!(pg.one("select pg_is_in_recovery()"), "f");
    is_the_commit(ledger, pg, last);
    let kept = &report["last_commit_kept"];
    assert_eq!(kept["xid"], u64::from(ledger.entry(last).xid.0), "the report's last commit: {report:#}");
}

/// Row `last` was written between its predecessor's commit and its own, so it is not its namesake of another timeline.
#[track_caller]
fn is_the_commit(ledger: &Ledger, pg: &Pg, last: u32) {
    let entry = ledger.entry(last);
    let after =
        if last > 1 { ledger.entry(last - 1).at } else { Timestamp::from_postgres_micros(0).unwrap() };
    let (after, at) = (after.postgres(), entry.at.postgres());
    let found = pg.one(&format!("select at > '{after}' and at <= '{at}' from ledger where id = {last}"));
    assert_eq!(found, "t", "row {last} is not the one that was committed at {at} after {after}");
}

/// The refusal of a target outside the window, which changes nothing.
#[track_caller]
fn refused(env: &TestEnv, args: &[&str]) -> Ran {
    let (dir, ran) = attempt(env, &env.pgkeep, args);
    let ran = ran.fails_with(UNREACHABLE, 3);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "something was written before the refusal");
    ran
}

/// `backup.json` of a backup.
fn record(env: &TestEnv, id: &str) -> Value {
    env.pgkeep.clone().global("--json").run(["show", id]).ok().json()["record"].take()
}

fn lsn(record: &Value, field: &str) -> Lsn {
    record[field].as_str().unwrap_or_else(|| panic!("no {field} in {record:#}")).parse().unwrap()
}

/// In-place restores report beside the data directory as they do on stdout.
#[track_caller]
fn in_place(pgkeep: &Pgkeep, args: &[&str]) -> Value {
    pgkeep.clone().global("--json").run(["restore", "--in-place", "--yes"].iter().chain(args)).ok().json()
}

/// Stops the source: what follows has to do without it.
fn host_is_lost(env: &TestEnv) {
    env.pg.stop(Stop::Immediate);
    std::fs::remove_dir_all(&env.pg.data).unwrap();
}
