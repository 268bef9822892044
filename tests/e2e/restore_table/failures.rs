//! Whatever goes wrong: nothing in production has changed, the error is clear, the side instance goes away.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::shop::{self, DATABASE, look, moment, restoring, waits_for};
use super::{side_is_gone, table_args};
use crate::support::{EnvOptions, TestEnv, eventually, eventually_some};
use crate::wal_place::Tmpfs;

const STEPS: [&str; 5] = [
    "table-after-side",
    "table-after-begin",
    "table-after-definitions",
    "table-after-rows",
    "table-before-commit",
];
const LOST: [&str; 3] = ["app.customers", "app.orders", "app.events"];

/// Customers are gone, orders and events damaged.
fn damaged(major: u32) -> TestEnv {
    let env = EnvOptions::new(major).pg(|pg| pg.segment_mib(1)).build();
    shop::open(&env);
    moment(&env, "good");
    let shop = env.pg.session_in(DATABASE);
    shop.sql("drop table app.customers cascade; delete from app.orders where id > 7; truncate app.events");
    env
}

fn args<'a>(more: &[&'a str]) -> Vec<&'a str> {
    table_args(&LOST, &[&["--to", "name:good", "--replace"][..], more].concat())
}

fn places(env: &TestEnv) -> Vec<PathBuf> {
    env.state.join("scratch").read_dir().unwrap().flatten().map(|e| e.path()).collect()
}

#[test]
fn a_failure_changes_nothing_and_leaves_nothing() {
    let env = damaged(18);
    let before = look(&env.pg);
    for step in ["table-after-side", "table-before-commit"] {
        let ran = env.pgkeep.clone().failpoint(step, "return(error)").run(args(&[])).exits(1);
        assert!(
            step == "table-after-side" || ran.stderr.contains("nothing in production has changed"),
            "{ran}"
        );
        side_is_gone(&env);
        assert_eq!(look(&env.pg), before, "{step}");
    }
}

#[test]
fn killed_at_any_step_nothing_is_changed_and_the_next_run_cleans_up() {
    let env = damaged(14);
    let before = look(&env.pg);
    for step in STEPS {
        let killed = env.pgkeep.clone().failpoint(step, "return(kill)").run(args(&[]));
        killed.was_killed();
        assert_eq!(places(&env).len(), 1, "{step}: the next run has not removed what the last one left");
        assert_eq!(look(&env.pg), before, "{step}");
    }
    let left = places(&env).remove(0);
    let pid_file = std::fs::read_to_string(left.join("data/postmaster.pid")).unwrap();
    let server = Pid::from_raw(pid_file.lines().next().unwrap().parse().unwrap());
    kill(server, None).expect("the side instance of a killed restore goes on");
    env.pgkeep.run(["restore", "discard", "--leftovers"]).ok().says("removed ");
    eventually("its server is gone", Duration::from_secs(30), || kill(server, None).is_err());
    side_is_gone(&env);
    env.pgkeep.run(["restore", "discard", "--leftovers"]).ok().says("nothing was left");
    env.pgkeep.run(args(&[])).exits(4).says("app.customers is there again, 50 rows");
}

/// Production's orders let no row in as long as somebody holds a lock of ours.
fn with_a_gate(env: &TestEnv) {
    env.pg.session_in(DATABASE).sql(
        "create function app.gate() returns bool language plpgsql as $$ begin \
         perform pg_advisory_xact_lock_shared(42); return true; end $$; \
         alter table app.orders add constraint gate check (app.gate()) not valid",
    );
}

#[test]
fn a_connection_lost_in_copy_and_a_signal_leave_production_as_it_was() {
    let env = damaged(18);
    with_a_gate(&env);
    let before = look(&env.pg);
    let gate = env.pg.session_in(DATABASE);
    gate.sql("select pg_advisory_lock(42)");
    let in_copy = || {
        let running = env.pgkeep.spawn(args(&["--lock-timeout", "2min"]));
        eventually("it waits in COPY", Duration::from_mins(1), || waits_for(&env.pg, "advisory"));
        running
    };
    let running = in_copy();
    let process = restoring(&env.pg).unwrap();
    env.pg.sql(&format!("select pg_terminate_backend({process})"));
    let ran = running.wait().exits(1).says("cannot write the rows of app.orders");
    assert!(ran.stderr.contains("nothing in production has changed"), "{ran}");
    side_is_gone(&env);
    assert_eq!(look(&env.pg), before);

    let running = in_copy();
    running.signal(Signal::SIGINT);
    running.wait().fails_with("cancelled", 1).says("nothing in production has changed");
    side_is_gone(&env);
    // The server's work ends with us: its locks are free although the gate is still closed.
    assert_eq!(look(&env.pg), before);

    let running = in_copy();
    running.signal(Signal::SIGKILL);
    running.wait().was_killed();
    assert_eq!(look(&env.pg), before);
    env.pgkeep.run(["restore", "discard", "--leftovers"]).ok();
    side_is_gone(&env);
}

#[test]
fn production_never_queues_behind_a_restore_for_long_and_the_restore_comes_again() {
    let env = damaged(18);
    let before = look(&env.pg);
    let report = env.pg.session_in(DATABASE);
    report.sql("begin; select count(*) from app.orders");
    let refused =
        env.pgkeep.run(args(&["--lock-timeout", "200ms", "--lock-retries", "1"])).fails_with("busy", 1);
    for words in
        ["idle in transaction", "on app.orders", "--lock-timeout", "nothing in production has changed"]
    {
        assert!(refused.stderr.contains(words), "no {words:?} in {refused}");
    }
    side_is_gone(&env);
    assert_eq!(look(&env.pg), before);
    let running = env.pgkeep.spawn(args(&["--lock-timeout", "1s"]));
    eventually("it waits for the lock", Duration::from_mins(1), || waits_for(&env.pg, "relation"));
    eventually("it lets go", Duration::from_secs(30), || restoring(&env.pg).is_none());
    report.sql("commit");
    running.wait().exits(4).says("tried again in").says("app.orders has its 300 rows again (it had 7)");
}

#[test]
fn a_disk_that_fills_up_under_the_side_instance_ends_the_restore_and_nothing_else() {
    let env = damaged(18);
    let before = look(&env.pg);
    let scratch = env.root.dir("small", 0o700);
    let _tmpfs = Tmpfs::mount(&scratch, "400m");
    let dir = scratch.to_str().unwrap();
    let running = env
        .pgkeep
        .clone()
        .failpoint("restore-after-control", "return(stop)")
        .spawn(args(&["--scratch-dir", dir]));
    eventually("it stands still", Duration::from_mins(1), || running.is_stopped());
    // As root: to the last block.
    let filler = std::fs::File::create(scratch.join("filler")).unwrap();
    let mut rest: &std::fs::File = &filler;
    while std::io::Write::write_all(&mut rest, &[7; 8192]).is_ok() {}
    running.signal(Signal::SIGCONT);
    let ran = running.wait().exits(1);
    assert!(ran.stderr.contains("error["), "{ran}");
    let left = eventually_some("the side instance is gone", Duration::from_secs(10), || {
        let left: Vec<_> = scratch.read_dir().unwrap().flatten().map(|e| e.file_name()).collect();
        (left == ["filler"]).then_some(left)
    });
    assert_eq!(left.len(), 1);
    assert_eq!(look(&env.pg), before);
}
