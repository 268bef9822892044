//! Jobs as they stand in a file.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::config::Config;

const HEAD: &str = r#"encryption = "none"
[cluster.main]
connection = "host=/tmp"
[[repository]]
name = "disk"
url = "file:///srv/pgkeep"
"#;

fn parse(jobs: &str) -> crate::error::Result<Vec<JobConfig>> {
    Ok(Config::parse(Path::new("/etc/pgkeep/pgkeep.toml"), &format!("{HEAD}{jobs}"))?.jobs)
}

#[test]
fn a_job_needs_a_name_a_kind_and_a_schedule() {
    let jobs = parse("[[job]]\nname = \"nightly\"\nkind = \"full\"\nschedule = \"0 2 * * *\"\n").unwrap();
    let [job] = jobs.as_slice() else { panic!("{jobs:?}") };
    assert_eq!((job.name.as_str(), job.cluster.as_str(), &job.work), ("nightly", "main", &JobWork::Full));
    assert_eq!(job.schedule.to_string(), "0 2 * * * UTC");
    assert_eq!((job.retries, job.catch_up, job.run_on), (2, true, RunOn::Any));
}

#[test]
fn everything_about_a_job_can_be_said() {
    let jobs = parse(
        r#"[[job]]
name = "hourly"
kind = "full"
cluster = "main"
schedule = "0  8-18 * * 1-5"
time_zone = "Europe/Berlin"
jitter = "2m"
retries = 0
retry_after = "10s"
deadline = "3h"
catch_up = false
run_on = "standby"
standby_grace = "1m"
"#,
    )
    .unwrap();
    let job = &jobs[0];
    assert_eq!(job.schedule.to_string(), "0 8-18 * * 1-5 Europe/Berlin");
    assert_eq!((job.jitter, job.deadline), (Duration::from_mins(2), Duration::from_hours(3)));
    assert_eq!((job.retries, job.retry_after), (0, Duration::from_secs(10)));
    assert_eq!(
        (job.catch_up, job.run_on, job.standby_grace),
        (false, RunOn::Standby, Duration::from_mins(1))
    );
}

#[test]
fn every_fault_of_a_job_is_at_its_line() {
    let error = parse(
        r#"[[job]]
name = "Nightly"
kind = "ful"
schedule = "0 0 30 2 *"
[[job]]
name = "a"
kind = "full"
schedule = "0 25 * * *"
time_zone = "Europe/Berlim"
cluster = "mian"
[[job]]
name = "a"
kind = "full"
schedule = "0 0 2 * * *"
run_on = "replica"
jitter = "5"
databases = ["app"]
[[job]]
"#,
    )
    .unwrap_err();
    insta::assert_snapshot!(error.what());
}

#[test]
fn with_several_clusters_a_job_names_its_own() {
    let job = "[[job]]\nname = \"a\"\nkind = \"full\"\nschedule = \"@daily\"\n";
    let second = "[cluster.other]\nconnection = \"host=/tmp\"\n";
    let error = parse(&format!("{second}{job}")).unwrap_err();
    assert!(
        error.what().contains("job.a.cluster: is missing; several are configured: main, other"),
        "{error}"
    );
    let jobs = parse(&format!("{second}{job}cluster = \"other\"\n")).unwrap();
    assert_eq!(jobs[0].cluster.as_str(), "other");
}

#[test]
fn logical_kinds_choose_databases_and_tables_and_a_base_backup_knows_neither() {
    let job = |keys: &str| parse(&format!("[[job]]\nname = \"x\"\nschedule = \"@daily\"\n{keys}\n"));
    let work = |keys: &str| job(keys).unwrap().remove(0).work;
    let databases = vec![DatabasePattern::parse("app*").unwrap()];
    let tables = vec![TablePattern::parse("users").unwrap()];
    assert_eq!(
        work("kind = \"dump\"\ndatabases = [\"app*\"]\ntables = [\"users\"]"),
        JobWork::Dump { databases: databases.clone(), tables: tables.clone() }
    );
    assert_eq!(work("kind = \"schema\"\ndatabases = [\"app*\"]"), JobWork::Schema { databases });
    assert_eq!(
        work("kind = \"tables\"\ntables = [\"users\"]"),
        JobWork::Tables { databases: vec![], tables: tables.clone(), filters: vec![] }
    );
    let filters = vec![TableFilter::parse("users=active and id > 7").unwrap()];
    assert_eq!(
        work("kind = \"tables\"\ntables = [\"users\"]\nwhere = [\"users=active and id > 7\"]"),
        JobWork::Tables { databases: vec![], tables, filters }
    );
    for wrong in [
        "kind = \"full\"\ndatabases = [\"app\"]",
        "kind = \"schema\"\ntables = [\"users\"]",
        "kind = \"incr\"",
        "kind = \"dump\"\nwhere = [\"users=active\"]",
        "kind = \"tables\"\nwhere = [\"users\"]",
    ] {
        assert!(job(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_verification_makes_no_backup_and_has_keys_of_its_own() {
    let job = |keys: &str| parse(&format!("[[job]]\nname = \"x\"\nschedule = \"@daily\"\n{keys}\n"));
    let plain = job("kind = \"verify\"").unwrap().remove(0).work;
    assert_eq!(plain, JobWork::Verify(VerifyWork::default()));
    assert_eq!((plain.kind(), plain.backup_kind()), ("verify", None));
    let all = "kind = \"verify\"\nrepository = \"disk\"\nbudget = \"50GiB\"\ndeep = true\nheal = true";
    let repository = RepoName::parse("disk");
    let work = VerifyWork { repository, budget: Some(50 << 30), deep: true, heal: true };
    assert_eq!(job(all).unwrap().remove(0).work, JobWork::Verify(work));
    for wrong in [
        "kind = \"full\"\ndeep = true",
        "kind = \"verify\"\ndatabases = [\"a\"]",
        "kind = \"verify\"\nrepository = \"A B\"",
    ] {
        assert!(job(wrong).is_err(), "{wrong}");
    }
}
