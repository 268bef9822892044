//! Budget, memory, marks, and the ends of a run.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{fill, options, segments, verify};
use crate::support::eventually;

fn checked(said: &super::Said) -> (u64, u64) {
    let repository = &said.json["repositories"][0];
    let number = |v: &serde_json::Value| v.as_u64().unwrap();
    (number(&repository["checked"]["bytes"]), number(&repository["left"]["objects"]))
}

#[test]
fn a_budget_comes_round_and_forgets_no_damage() {
    let env = options(18).build();
    let id = fill(&env);
    let whole = checked(&verify(&env.pgkeep, &[]).assert_clean()).0;
    let segment = segments(env.repo())[1].1.clone();
    env.repo().flip_a_bit(&segment);
    let budget = format!("{}KiB", whole / 1024 / 4 + 1);
    let mut runs = 0;
    let first = loop {
        runs += 1;
        let said = verify(&env.pgkeep, &["--budget", &budget]);
        assert!(checked(&said).1 > 0, "{said:#?}");
        if !said.findings().is_empty() {
            break said;
        }
        assert!(runs < 12, "the budget does not come round: {said:#?}");
    };
    first.names("damaged", &segment);
    // From now on it is looked at each time, whatever else is due.
    for _ in 0..2 {
        verify(&env.pgkeep, &["--budget", "1KiB"]).names("damaged", &segment);
    }
    env.repo().flip_a_bit(&segment);
    verify(&env.pgkeep, &["--budget", "1KiB"]).assert_clean();
    // What was looked at is told where the backup is.
    let shown = env.pgkeep.run(["show", &id]).ok();
    assert!(shown.stdout.contains("verified"), "{shown}");
}

#[test]
fn a_mark_follows_what_becomes_of_a_backup() {
    let env = options(16).build();
    let id = fill(&env);
    let marks = || {
        let keys = env.repo().list_under(&format!("main/marks/{id}/"));
        keys.into_iter()
            .filter(|k| !k.contains(".minisig"))
            .map(|k| k.split_once('-').unwrap().1.to_owned())
            .collect::<Vec<_>>()
    };
    verify(&env.pgkeep, &[]).assert_clean();
    verify(&env.pgkeep, &[]).assert_clean();
    assert_eq!(marks().len(), 1, "{:?}", marks());
    let pack = env.repo().find(&["-full-", "/data/00001"]);
    env.repo().flip_a_bit(&pack);
    verify(&env.pgkeep, &[&id]).names("damaged", &pack);
    verify(&env.pgkeep, &[&id]).names("damaged", &pack);
    assert_eq!(marks().len(), 2, "{:?}", marks());
    assert!(env.pgkeep.run(["show", &id]).ok().stdout.contains("failed-verification"));
    env.repo().flip_a_bit(&pack);
    verify(&env.pgkeep, &[&id]).assert_clean();
    assert_eq!(marks().len(), 3, "{:?}", marks());
    env.fsck_deep().assert_whole();
}

#[test]
fn what_is_asked_for_is_looked_at_and_what_is_not_there_is_an_error() {
    let env = options(15).build();
    let id = fill(&env);
    let wal = verify(&env.pgkeep, &["--wal", "--deep"]).assert_clean();
    assert_eq!(wal.json["repositories"][0]["checked"]["backup_objects"], 0);
    let one = verify(&env.pgkeep, &[&id]).assert_clean();
    assert_eq!(one.json["repositories"][0]["checked"]["backups"], 1);
    env.pgkeep.run(["verify", "20200101T000000Z-full-0000"]).fails_with("no-backup", 3);
    env.pgkeep.run(["verify", "--budget", "much"]).exits(2);
    let text = env.pgkeep.run(["verify"]).ok();
    assert!(text.stdout.contains("nothing wrong"), "{text}");
}

#[test]
fn the_job_finds_damage_and_the_alert_names_it_with_its_page() {
    let job = "[[job]]\nname = \"integrity\"\nkind = \"verify\"\nschedule = \"0 0 1 1 *\"\n[alerts]\ncheck_interval = \"1s\"\n";
    let env = options(18).config(job).agent("http = \"127.0.0.1:0\"").build();
    let id = fill(&env);
    let agent = env.start_agent();
    env.pgkeep.run(["jobs", "run", "integrity"]).ok().says("read");
    let dump = env.repo().find(&["/dump/"]);
    env.repo().flip_a_bit(&dump);
    let ran = env.pgkeep.run(["jobs", "run", "integrity"]);
    assert!(ran.stdout.contains(&dump) || ran.stderr.contains(&dump), "{ran}");
    env.pgkeep.run(["jobs", "integrity"]).says(&dump);
    let open = || {
        let alerts = env.pgkeep.clone().global("--json").run(["alerts"]).stdout;
        alerts.contains("repository-damaged")
            && alerts.contains(&dump)
            && alerts.contains("repository-damaged.md")
    };
    eventually("the alert", Duration::from_secs(20), open);
    // What was wrong and is right again ends it.
    env.repo().flip_a_bit(&dump);
    env.pgkeep.run(["jobs", "run", "integrity"]).ok();
    let shown = env.pgkeep.clone().global("--json").run(["jobs"]).ok().json();
    assert_eq!(shown["jobs"][0]["last"]["outcome"], "done", "{shown}");
    assert!(env.pgkeep.run(["show", &id]).ok().stdout.contains("verified"));
    agent.terminate();
}

#[test]
fn one_that_is_ended_goes_on_where_it_was() {
    let env = options(18).build();
    fill(&env);
    // Killed before it wrote anything down: as if it had not been.
    let dead = env.pgkeep.clone().failpoint("verify-before-report", "return(kill)");
    let _ = dead.run(["verify"]).was_killed();
    assert!(env.repo().list_under("main/reports/").is_empty());
    // Ended in order: what was read is remembered, and the next run begins with the rest.
    let halting = env.pgkeep.clone().failpoint("verify-after-object", "2*off->1*return(stop)->off");
    let running = halting.spawn(["verify"]);
    eventually("the third object", Duration::from_secs(20), || running.is_stopped());
    running.signal(Signal::SIGTERM);
    running.signal(Signal::SIGCONT);
    let ran = running.wait();
    assert_eq!(ran.code, Some(1), "{ran}");
    let report =
        env.repo().list_under("main/reports/").into_iter().find(|k| !k.contains(".minisig")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&env.repo().read(&report)).unwrap();
    let (read, complete) = (report["counts"]["bytes"].as_u64().unwrap(), &report["complete"]);
    assert!(read > 0 && complete == false, "{report:#}");
    let rest = verify(&env.pgkeep, &["--budget", "1KiB"]).assert_clean();
    assert!(rest.json["repositories"][0]["oldest_check"].is_null(), "some were never checked: {rest:#?}");
    verify(&env.pgkeep, &[]).assert_clean();
}
