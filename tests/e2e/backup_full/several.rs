//! Several repositories, and backups from a standby.

use super::opened::{backup, fill, published, record};
use crate::support::{EnvOptions, Pg, TestEnv};

fn two(major: u32, second_required: bool) -> TestEnv {
    EnvOptions::new(major).dir_repository("eu", true).dir_repository("us", second_required).build()
}

#[test]
fn every_repository_gets_the_same_bytes() {
    let env = two(18, true);
    fill(&env.pg, 1000);
    let id = backup(&env).ok().json()["id"].as_str().unwrap().to_owned();
    let (eu, us) = (env.store("eu"), env.store("us"));
    let under = format!("main/backups/{id}/");
    assert_eq!(eu.list_under(&under), us.list_under(&under));
    for key in eu.list_under(&under) {
        assert!(eu.read(&key) == us.read(&key), "{key}");
    }
}

#[test]
fn an_optional_repository_that_is_gone_is_reported_and_a_required_one_fails_the_backup() {
    let env = two(17, false);
    env.store("us").delete("pgkeep.json");
    let ran = backup(&env).ok();
    let us =
        ran.json()["repositories"].as_array().unwrap().iter().find(|r| r["name"] == "us").unwrap().clone();
    assert_eq!((us["published"].clone(), us["code"].clone()), (false.into(), "not-a-repository".into()));
    assert_eq!((published(env.store("eu")).len(), published(env.store("us")).len()), (1, 0));
    env.store("eu").delete("pgkeep.json");
    backup(&env).fails_with("not-a-repository", 1).says("required");
}

#[test]
fn a_repository_without_the_wal_does_not_get_the_record() {
    let env = two(16, false);
    // Its WAL goes nowhere from now on, its backups still could.
    let command = env.archive_command().replace(" wal push", " --repo eu wal push");
    env.pg.add_conf(&format!("archive_command = '{command}'"));
    env.pg.reload();
    let ran = backup(&env).ok();
    let us =
        ran.json()["repositories"].as_array().unwrap().iter().find(|r| r["name"] == "us").unwrap().clone();
    assert_eq!(us["code"], "wal-hole");
    assert!(published(env.store("us")).is_empty());
}

#[test]
fn only_the_named_repository_is_written_to() {
    let env = two(15, true);
    env.pgkeep.clone().global("--repo").global("us").run(["backup"]).ok();
    assert_eq!((published(env.store("eu")).len(), published(env.store("us")).len()), (0, 1));
}

/// pgkeep on a standby of the server, with the way to the primary configured or not.
fn from_a_standby(major: u32, primary_configured: bool) {
    let env = EnvOptions::new(major).build();
    fill(&env.pg, 1000);
    let standby = Pg::standby_of(&env.pg, "standby");
    standby.start();
    let primary = if primary_configured {
        format!("primary = \"{}\"\n[[repository]]", env.pg.conninfo())
    } else {
        "[[repository]]".to_owned()
    };
    let pgkeep = env.with_config("standby.toml", |text| {
        text.replace(&env.pg.conninfo(), &standby.conninfo())
            .replace(env.pg.data.to_str().unwrap(), standby.data.to_str().unwrap())
            .replacen("[[repository]]", &primary, 1)
    });
    env.pg.sql("checkpoint");
    let ran = pgkeep.global("--json").run(["backup", "full"]).ok();
    let id = ran.json()["id"].as_str().unwrap().to_owned();
    let record = record(env.repo(), &id);
    assert_eq!(record["from_standby"], true);
    let last = record["wal_last"].as_str().unwrap();
    assert!(env.repo().list_under("main/wal/").iter().any(|k| k.contains(last)));
    super::opened::unpack(&env, &id);
}

#[test]
fn a_backup_from_a_standby_of_postgres_14_asks_the_primary_for_a_switch() {
    from_a_standby(14, true);
}
#[test]
fn a_backup_from_a_standby_of_postgres_16_finds_the_primary_by_itself() {
    from_a_standby(16, false);
}
#[test]
fn a_backup_from_a_standby_of_postgres_18_asks_the_primary_for_a_switch() {
    from_a_standby(18, true);
}

#[test]
fn a_promotion_during_the_backup_ruins_it() {
    let env = EnvOptions::new(17).build();
    let standby = Pg::standby_of(&env.pg, "standby");
    standby.start();
    let pgkeep = env.with_config("standby.toml", |text| {
        text.replace(&env.pg.conninfo(), &standby.conninfo())
            .replace(env.pg.data.to_str().unwrap(), standby.data.to_str().unwrap())
            .replacen("[[repository]]", &format!("primary = \"{}\"\n[[repository]]", env.pg.conninfo()), 1)
    });
    let running = super::opened::halted_at(&pgkeep, "backup-before-stop");
    standby.promote();
    running.signal(nix::sys::signal::Signal::SIGCONT);
    running.wait().exits(1).says("promoted");
    assert!(published(env.repo()).is_empty());
}

#[test]
fn a_backup_in_a_bucket_has_the_same_objects() {
    let env = EnvOptions::new(17).dir_repository("eu", true).s3_repository("s3", true).build();
    fill(&env.pg, 1000);
    let id = backup(&env).ok().json()["id"].as_str().unwrap().to_owned();
    let under = format!("main/backups/{id}/");
    assert_eq!(env.store("eu").list_under(&under), env.store("s3").list_under(&under));
    for key in env.store("eu").list_under(&under) {
        assert!(env.store("eu").read(&key) == env.store("s3").read(&key), "{key}");
    }
}

/// With the grants that `init --create-role` gives and nothing more.
fn as_the_least_privileged_role(major: u32) {
    let env = EnvOptions::new(major).build();
    fill(&env.pg, 1000);
    for statement in pgkeep::postgres::roles::create_role(pgkeep::model::PgMajor(major), "keeper") {
        env.pg.sql(&statement);
    }
    let pgkeep = env.with_config("keeper.toml", |text| text.replace("user=postgres", "user=keeper"));
    pgkeep.run(["backup"]).ok();
    assert_eq!(published(env.repo()).len(), 1);
}

#[test]
fn no_superuser_is_needed_on_postgres_14() {
    as_the_least_privileged_role(14);
}
#[test]
fn no_superuser_is_needed_on_postgres_18() {
    as_the_least_privileged_role(18);
}

#[test]
fn root_works_as_the_owner_of_the_data_directory() {
    use std::os::unix::fs::MetadataExt;
    let env = EnvOptions::new(16).build();
    let owner = std::fs::metadata(&env.pg.data).unwrap().uid();
    env.pgkeep.clone().user(crate::support::User::Caller).run(["backup"]).ok();
    for key in env.repo().list_under("main/backups/") {
        assert_eq!(std::fs::metadata(env.repo().path().join(&key)).unwrap().uid(), owner, "{key}");
    }
}
