//! What is refused before anything is touched.

use super::opened::{backup, published};
use crate::support::{EnvOptions, TestEnv};

fn untouched(env: &TestEnv) {
    assert!(env.repo().list_under("main/backups/").is_empty());
}

#[test]
fn without_recipients_nothing_is_written() {
    let env = EnvOptions::new(17).build();
    let text = env.config_text();
    let begin = text.find("[encryption]").unwrap();
    let end = text[begin..].find("identity_file").unwrap() + begin;
    let rest = text[end..].split_once('\n').unwrap().1;
    let open = env.with_config("open.toml", |_| format!("{}{rest}", &text[..begin]));
    open.run(["backup", "full"]).fails_with("encryption-unset", 2).says("recipients");
    untouched(&env);
}

#[test]
fn kinds_that_do_not_exist_are_wrong_usage() {
    let env = EnvOptions::new(14).build();
    env.pgkeep.run(["backup", "incr"]).exits(2);
    untouched(&env);
}

#[test]
fn archiving_that_is_off_or_fails_is_found_out_before_the_copy() {
    let env = EnvOptions::new(16).build();
    env.pg.add_conf("archive_command = ''");
    env.pg.reload();
    backup(&env).fails_with("not-ready", 1).says("archive_command");
    env.pg.add_conf("archive_command = 'exit 1'");
    env.pg.reload();
    backup(&env).fails_with("not-ready", 1).says("archive command fails");
    env.pg.add_conf("archive_mode = off");
    env.pg.restart();
    backup(&env).fails_with("not-ready", 1).says("archive_mode is off");
    untouched(&env);
    assert!(published(env.repo()).is_empty());
}

#[test]
fn a_server_that_the_repository_does_not_know_is_refused() {
    let env = EnvOptions::new(15).build();
    let key = format!("main/systems/{}.json", env.pg.system_id());
    env.repo().delete(&key);
    backup(&env).fails_with("unknown-system", 1).says("pgkeep init");
    untouched(&env);
}

#[test]
fn an_unmounted_repository_is_not_taken_for_an_empty_one() {
    let env = EnvOptions::new(18).build();
    env.repo().delete("pgkeep.json");
    backup(&env).fails_with("not-a-repository", 1);
    untouched(&env);
}

#[test]
fn another_servers_data_directory_is_refused() {
    let env = EnvOptions::new(17).build();
    let other = env.root.dir("other", 0o700);
    let data = env.pg.data.display().to_string();
    let wrong = env.with_config("wrong.toml", |text| {
        text.replace(
            &format!("data_directory = \"{data}\""),
            &format!("data_directory = \"{}\"", other.display()),
        )
    });
    wrong.run(["backup"]).fails_with("foreign-cluster", 3);
    untouched(&env);
}
