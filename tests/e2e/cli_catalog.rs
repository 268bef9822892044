//! `list`, `show`, `window`, and how errors look: what people and programs read.

use crate::support::{EnvOptions, Ledger, Pgkeep, Ran, Root, TestEnv};

/// Compares with the committed output; what differs from run to run is replaced.
fn shown(env: &TestEnv, name: &str, text: &str) {
    let root = env.root.path().display().to_string();
    let system = env.pg.one("select system_identifier from pg_control_system()");
    let text = text.replace(&root, "ROOT").replace(&system, "SYSTEM").replace(&env.recipient, "RECIPIENT");
    let mut settings = insta::Settings::clone_current();
    for (pattern, with) in [
        (r"\d{8}T\d{6}Z-full-[0-9a-f]{4}", "ID"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "TIME"),
        (r"[0-9A-F]{24}", "SEGMENT"),
        (r"\b[0-9A-F]+/[0-9A-F]{2,8}\b", "LSN"),
        (r"\d+(\.\d+)? (B|KiB|MiB|GiB)\b", "SIZE"),
        (r"\b\d+\.\ds\b", "SPAN"),
        (r"\d+\.\d:1", "RATIO"),
        (r"host +[^,\n]*, pgkeep \d+\.\d+\.\d+", "host HOST, pgkeep VERSION"),
        (r"PostgreSQL \d\d\.\d+", "PostgreSQL VERSION"),
        (r"\b\d+ objects", "N objects"),
        (r" {2,}", "  "),
    ] {
        settings.add_filter(pattern, with);
    }
    settings.bind(|| insta::assert_snapshot!(name, text));
}

fn both(ran: &Ran) -> String {
    format!("status {}\n--- stdout\n{}--- stderr\n{}", ran.code.unwrap_or(-1), ran.stdout, ran.stderr)
}

#[test]
fn the_catalog_one_backup_and_the_window_are_shown_to_people_and_programs() {
    let env = EnvOptions::new(18).build();
    let nothing = env.pgkeep.run(["list"]).ok();
    assert!(nothing.stdout.contains("no backups of cluster main yet"), "{nothing}");
    let id = env.backup();
    let mut ledger = Ledger::create(&env.pg);
    let last = ledger.write(&env.pg, 3);
    env.pg.switch_and_archive();

    shown(&env, "list", &env.pgkeep.run(["list"]).ok().stdout);
    shown(&env, "show", &env.pgkeep.run(["show", &id]).ok().stdout);
    shown(&env, "window", &env.pgkeep.run(["window"]).ok().stdout);

    let json = env.pgkeep.clone().global("--json");
    let list = json.run(["list"]).ok().json();
    assert_eq!(
        (list["backups"][0]["id"].as_str(), list["backups"][0]["state"].as_str()),
        (Some(&*id), Some("ok"))
    );
    assert_eq!(json.run(["show", &id]).ok().json()["record"]["id"].as_str(), Some(&*id));
    let window = json.run(["window"]).ok().json();
    let range = &window["systems"][0]["timelines"][0]["ranges"][0];
    let shown: pgkeep::model::Timestamp = range["last_commit"].as_str().unwrap().parse().unwrap();
    assert_eq!(shown, last.at, "{range:#}");
}

#[test]
fn without_the_identity_the_window_has_positions_and_no_commit_times() {
    let env = TestEnv::new(17);
    env.backup();
    env.pg.switch_and_archive();
    std::fs::remove_file(&env.identity_file).unwrap();
    let window = env.pgkeep.clone().global("--json").run(["window"]).ok().json();
    assert_eq!(window["systems"][0]["commit_times"], false);
    let range = &window["systems"][0]["timelines"][0]["ranges"][0];
    assert!(range["last_commit"].is_null() && range["last_stored"].is_string(), "{range:#}");
    env.pgkeep.run(["window"]).ok().says("by the store's clock; commit times need the identity");
}

#[test]
fn a_missing_and_a_damaged_segment_are_shown_as_holes() {
    let env = EnvOptions::new(16).pg(|pg| pg.segment_mib(1)).build();
    env.backup();
    let gone = env.pg.switch_and_archive();
    env.pg.sql("create table t as select 1");
    env.pg.switch_and_archive();
    env.repo().delete(&env.repo().find(&["/wal/", &format!("/{gone}-")]));
    let said = env.pgkeep.run(["window"]).ok().says("HOLE from");
    assert!(said.stdout.contains(&format!("{gone} is missing")), "{said}");
}

#[test]
fn a_backup_of_a_host_that_is_not_trusted_is_listed_as_such() {
    let env = TestEnv::new(15);
    env.backup();
    // Another host: the same repository, keys of its own.
    let other = env.with_config("other.toml", |text| text.replace("/state\"", "/other-state\""));
    env.root.dir("other-state", 0o700);
    other.run(["init"]).ok();
    other.run(["list"]).ok().says("untrusted (its signer is not among the trusted hosts)");
    let key = std::fs::read_to_string(env.state.join("keys/host.pub")).unwrap();
    let line = key.lines().nth(1).unwrap().to_owned();
    let told = env.with_config("told.toml", |text| {
        text.replace("/state\"", "/other-state\"") + &format!("\n[trust]\nhosts = [\"{line}\"]\n")
    });
    let list = told.global("--json").run(["list"]).ok().json();
    assert_eq!(list["backups"][0]["trusted"], true, "{list:#}");
}

#[test]
fn a_required_repository_that_does_not_answer_is_said_and_never_taken_for_empty() {
    let env = EnvOptions::new(18).dir_repository("a", true).dir_repository("b", true).build();
    let id = env.backup();
    std::fs::rename(env.root.join("b"), env.root.join("b.away")).unwrap();
    let list = env.pgkeep.run(["list"]).exits(4).says("required repository b is not seen here");
    assert!(list.stdout.contains(&id), "{list}");
    std::fs::rename(env.root.join("a"), env.root.join("a.away")).unwrap();
    env.pgkeep.run(["list"]).fails_with("not-a-repository", 1);
}

#[test]
fn errors_look_alike_and_say_what_to_do() {
    let env = EnvOptions::new(18).uninitialised().build();
    let of = |pgkeep: &Pgkeep, args: &[&str]| both(&pgkeep.run(args));
    let mut said = Vec::new();
    let unknown = env.with_config("unknown.toml", |text| text.replace("connection", "conection"));
    said.push(of(&unknown, &["list"]));
    let unset = env.with_config("unset.toml", |text| text.split("[encryption]").next().unwrap().to_owned());
    said.push(of(&unset, &["backup"]));
    said.push(of(&unset, &["init"]));
    said.push(of(&env.pgkeep, &["list"]));
    said.push(of(&env.pgkeep.clone().global("--json"), &["list"]));
    said.push(of(&env.pgkeep, &["show", "yesterday"]));
    said.push(of(&env.pgkeep, &["list", "--repo", "nowhere"]));
    said.push(of(&env.pgkeep, &["list", "--cluster", "nowhere"]));
    said.push(of(&Pgkeep::with_config(&env.root.join("absent.toml")), &["list"]));
    std::fs::set_permissions(&env.identity_file, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .unwrap();
    said.push(of(&env.pgkeep, &["list"]));
    shown(&env, "errors", &said.join("\n"));
}

#[test]
fn wrong_usage_is_2_and_help_and_version_are_0() {
    let root = Root::new();
    let bare = Pgkeep::bare().dir(root.path());
    bare.run(["lst"]).exits(2);
    bare.run::<&str>([]).exits(2);
    assert!(bare.run(["--version"]).ok().stdout.starts_with("pgkeep "));
    insta::assert_snapshot!("help", bare.run(["--help"]).ok().stdout);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let root = Root::new();
    let bare = Pgkeep::bare().dir(root.path());
    let shell = format!("'{}' config example | head -n 1; echo ${{PIPESTATUS[0]}}", bare.bin().display());
    let output = std::process::Command::new("bash").args(["-c", &shell]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.ends_with("\n0\n"), "{said} {}", String::from_utf8_lossy(&output.stderr));
}
