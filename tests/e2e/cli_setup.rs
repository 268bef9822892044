//! `init`, `check` and `key`: from nothing to a proven set-up.

use std::path::PathBuf;
use std::sync::Arc;

use crate::support::{Build, EnvOptions, Pg, PgOptions, Pgkeep, Root, TestEnv, User};

/// A server that nobody has set up, and the places that `init` will fill.
struct Bare {
    pg: Pg,
    root: Arc<Root>,
    config: PathBuf,
}

fn bare(major: u32) -> Bare {
    let root = Root::new();
    let pg = PgOptions::new(Build::of(major)).create(&root);
    pg.start();
    let config = root.join("etc/pgkeep.toml");
    Bare { pg, root, config }
}

impl Bare {
    fn pgkeep(&self) -> Pgkeep {
        Pgkeep::with_config(&self.config)
    }
    fn place(&self, name: &str) -> String {
        self.root.join(name).display().to_string()
    }
    fn connection(&self, user: &str) -> String {
        self.pg.conninfo().replace("user=postgres", &format!("user={user}"))
    }
    fn init_args(&self, user: &str) -> Vec<String> {
        let words =
            ["init", "--connection", &self.connection(user), "--state-directory", &self.place("state")];
        let mut args: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        args.extend(["--bin-directory".into(), self.pg.build.bin.display().to_string()]);
        args.extend(["--repository".into(), format!("file://{}", self.place("repo"))]);
        args
    }
}

fn states(check: &serde_json::Value) -> Vec<(String, String, String)> {
    let word = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
    let list = check["checks"].as_array().unwrap();
    list.iter().map(|f| (word(&f["check"]), word(&f["state"]), word(&f["what"]))).collect()
}

fn from_nothing_to_a_proven_set_up(major: u32, user: User) {
    let bare = bare(major);
    let pgkeep = bare.pgkeep().user(user);
    let mut args = bare.init_args("keeper");
    args.extend(["--create-role".into(), "--apply".into(), "--admin".into(), bare.connection("postgres")]);
    let said = pgkeep.run(&args).ok().says("Now restart PostgreSQL").says("IMPORTANT").says("[trust]");
    assert!(!said.stdout.contains("AGE-SECRET-KEY"), "{said}");
    bare.pg.restart();
    let check = pgkeep.clone().global("--json").run(["check"]).ok().json();
    assert_eq!(check["failed"], 0, "{check:#}");
    let arrived = states(&check).into_iter().find(|(c, ..)| c == "archive, main").unwrap();
    assert!(arrived.2.contains("decrypted, the same bytes"), "{arrived:?}");
    // Twice in a row is fine, and changes nothing.
    let before = std::fs::read_to_string(&bare.config).unwrap();
    pgkeep.run(["init"]).ok().says("everything was there already").says("settings are right");
    assert_eq!(std::fs::read_to_string(&bare.config).unwrap(), before);
    // A restore on another host needs the identity; here it can go, and check still compares what it can.
    std::fs::remove_file(bare.root.join("etc/identity.txt")).unwrap();
    let check = pgkeep.clone().global("--json").run(["check"]).ok().json();
    let arrived = states(&check).into_iter().find(|(c, ..)| c == "archive, main").unwrap();
    assert!(arrived.2.contains("its name has the digest of the file in pg_wal"), "{arrived:?}");
    assert!(
        !bare.root.join("repo/check").exists()
            || walkdir::WalkDir::new(bare.root.join("repo/check"))
                .into_iter()
                .flatten()
                .all(|e| !e.file_type().is_file())
    );
}

#[test]
fn init_and_check_set_up_a_host_as_its_unprivileged_user() {
    from_nothing_to_a_proven_set_up(18, User::Postgres);
}

#[test]
fn init_and_check_set_up_a_host_as_root_with_files_of_the_servers_owner() {
    from_nothing_to_a_proven_set_up(14, User::Caller);
}

#[test]
fn init_prints_the_settings_and_changes_nothing_without_apply() {
    let bare = bare(16);
    let args = bare.init_args("postgres");
    let said =
        bare.pgkeep().run(&args).ok().says("archive_mode = 'on'").says("wal push %p").says("Then restart");
    assert!(said.stdout.contains("--cluster main wal push %p"), "{said}");
    assert_eq!(bare.pg.one("show archive_mode"), "off");
    assert_eq!(bare.pg.one("select count(*) from pg_file_settings where name = 'archive_command'"), "0");
    bare.pgkeep().run(["check"]).fails_with("check-failed", 4).says("archive_mode is off, should be on");
}

#[test]
fn another_tool_that_archives_is_not_pushed_aside_silently() {
    let bare = bare(17);
    bare.pg.add_conf("archive_mode = on\narchive_command = 'other-tool push %p'");
    bare.pg.restart();
    let mut args = bare.init_args("postgres");
    args.push("--apply".into());
    bare.pgkeep().run(&args).fails_with("refused", 3).says("other-tool push %p").says("--replace");
    assert_eq!(bare.pg.one("show archive_command"), "other-tool push %p");
    bare.pgkeep().run(["check"]).exits(4).says("another tool archives this server");
    bare.pgkeep().run(["init", "--apply", "--replace"]).ok();
    let auto = std::fs::read_to_string(bare.pg.data.join("postgresql.auto.conf")).unwrap();
    assert!(auto.contains("wal push %p"), "{auto}");
}

#[test]
fn a_root_that_holds_something_else_is_not_made_a_repository() {
    let bare = bare(15);
    bare.root.dir("repo", 0o755);
    bare.root.dir("repo/photos", 0o755);
    bare.pgkeep().run(bare.init_args("postgres")).fails_with("not-empty", 3).says("photos");
    assert!(!bare.root.join("repo/pgkeep.json").exists());
}

#[test]
fn storing_in_the_clear_must_be_typed_and_is_said_again() {
    let bare = bare(18);
    let mut args = bare.init_args("postgres");
    args.extend(["--encryption".into(), "none".into()]);
    bare.pgkeep().run(&args).ok();
    assert!(std::fs::read_to_string(&bare.config).unwrap().contains("encryption = \"none\""));
    bare.pgkeep().run(["check"]).exits(4).says("everything is stored in the clear");
}

#[test]
fn a_role_without_rights_gets_the_statements_that_it_needs() {
    let env = EnvOptions::new(18).build();
    env.pg.sql("create role weak login; grant pg_read_all_settings to weak");
    let weak = env.with_config("weak.toml", |text| text.replace("user=postgres", "user=weak"));
    weak.run(["check"]).exits(4).says("GRANT EXECUTE ON FUNCTION pg_catalog.pg_switch_wal() TO \"weak\"");
}

#[test]
fn check_finds_a_repository_that_is_not_one_and_goes_on() {
    let env = TestEnv::new(18);
    std::fs::rename(env.root.join("repo/pgkeep.json"), env.root.join("repo/pgkeep.away")).unwrap();
    let ran = env.pgkeep.run(["check"]).exits(4).says("not-a-repository").says("unmounted disk");
    assert!(ran.stdout.contains("tools: PostgreSQL 18"), "{ran}");
}

#[test]
fn check_finds_an_identity_that_opens_nothing() {
    let env = TestEnv::new(18);
    let other = env.root.join("other.txt");
    env.pgkeep.run(["key", "new", "--output", &other.display().to_string()]).ok();
    let wrong = env.with_config("wrong.toml", |text| {
        text.replace(&env.identity_file.display().to_string(), &other.display().to_string())
    });
    wrong.run(["check", "--no-segment"]).exits(4).says("opens none of the recipients");
    wrong.run(["key", "show"]).ok().says("opens NONE of the recipients");
    env.pgkeep.run(["key", "show"]).ok().says("opens 1 of 1 recipients");
}

#[test]
fn check_works_against_a_real_s3_server_and_says_what_it_can_do() {
    let env = EnvOptions::new(17).s3_repository("eu", true).build();
    let check = env.pgkeep.clone().global("--json").run(["check"]).ok().json();
    let said: Vec<String> = states(&check).into_iter().map(|(_, _, what)| what).collect();
    assert!(said.iter().any(|what| what.contains("conditional writes")), "{said:#?}");
    assert!(said.iter().any(|what| what.contains("checksum headers")), "{said:#?}");
    assert!(said.iter().any(|what| what.contains("the same bytes")), "{said:#?}");
}

#[test]
fn a_new_identity_never_overwrites_one() {
    let root = Root::new();
    let file = root.join("identity.txt").display().to_string();
    let made = Pgkeep::bare().run(["key", "new", "--output", &file]).ok();
    assert!(made.stdout.starts_with("age1"), "{made}");
    let before = std::fs::read(&file).unwrap();
    Pgkeep::bare().run(["key", "new", "--output", &file]).fails_with("key", 2).says("never overwritten");
    assert_eq!(std::fs::read(&file).unwrap(), before);
}
