//! What a kit must not be, and what one must not be believed.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use age::secrecy::ExposeSecret as _;

use super::{PASSPHRASE, drill_from, kit, passphrase_file};
use crate::support::runbook::bash;
use crate::support::{Ledger, Pgkeep, TestEnv};

/// A server with a backup, and WAL after it.
fn backed_up() -> TestEnv {
    let env = TestEnv::new(18);
    Ledger::create(&env.pg).write(&env.pg, 2);
    env.backup();
    env.pg.switch_and_archive();
    env
}

#[test]
fn a_kit_that_could_not_restore_is_refused_unless_somebody_asks_for_it_and_then_says_so() {
    let env = backed_up();
    // An identity that opens nothing of what is written.
    let other = age::x25519::Identity::generate();
    let other = env.root.file("other.txt", 0o600, other.to_string().expose_secret());
    let refused = kit(&env, "kit", &["--identity", other.to_str().unwrap()]);
    refused.fails_with("wrong-key", 1).says("none of the recipients");
    // One that opens what is written from now on, and not the backups that are there.
    let rotated = age::x25519::Identity::generate();
    let file = env.root.file("rotated.txt", 0o600, rotated.to_string().expose_secret());
    let pgkeep = env.with_config("rotated.toml", |text| {
        text.replace(&env.recipient, &rotated.to_public().to_string())
            .replace(env.identity_file.to_str().unwrap(), file.to_str().unwrap())
    });
    let out = env.root.join("kit").display().to_string();
    let passphrase = passphrase_file(&env);
    let args = ["key", "kit", "--out", &out, "--passphrase-file", &passphrase];
    pgkeep.run(args).fails_with("wrong-key", 1).says("does not open the backup");
    // A passphrase that is guessed, or that others may read.
    let weak = env.root.file("weak", 0o600, "hunter2\n");
    let weak = ["key", "kit", "--out", &out, "--passphrase-file", weak.to_str().unwrap()];
    env.pgkeep.run(weak).fails_with("key", 2).says("too short");
    std::fs::set_permissions(&passphrase, PermissionsExt::from_mode(0o644)).unwrap();
    env.pgkeep.run(args).fails_with("key", 2).says("read by others");
    assert!(!env.root.join("kit").exists(), "nothing was written");

    let ran = env.pgkeep.run(["key", "kit", "--without-identity", "--out", &out]).ok();
    assert!(ran.stderr.contains("CANNOT RESTORE"), "{ran}");
    let page = std::fs::read_to_string(env.root.join("kit/INSTRUCTIONS.md")).unwrap();
    assert!(page.contains("CANNOT RESTORE") && page.contains(&env.recipient), "{page}");
    drill_from(&env, "kit", &Pgkeep::bare(), &[]).fails_with("key", 2).says("without an identity");
    let check = env.pgkeep.run(["check", "--no-segment"]);
    check.says("it holds no identity and cannot restore");
}

#[test]
fn a_kit_is_whole_or_not_there_and_one_that_was_changed_is_not_used() {
    let env = backed_up();
    env.pgkeep.run(["check", "--no-segment"]).says("recovery kit: none has been made");
    for name in ["kit", "kit.tar"] {
        let out = env.root.join(name).display().to_string();
        let args = ["key", "kit", "--out", &out, "--passphrase-file", &passphrase_file(&env)];
        env.pgkeep.clone().failpoint("kit-before-name", "return(kill)").run(args).was_killed();
        assert!(!env.root.join(name).exists());
        kit(&env, name, &[]).ok();
        kit(&env, name, &[]).fails_with("not-empty", 3);
        let mode = std::fs::metadata(&out).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if name == "kit" { 0o700 } else { 0o600 });
    }
    let check = env.pgkeep.run(["check", "--no-segment"]);
    assert!(check.stdout.contains("ok    recovery kit: made"), "{check}");

    // Debian's own tools read it.
    let place = env.root.join("kit");
    let script = format!(
        "cd {} && sha256sum -c --quiet SHA256SUMS && printf '%s\\n' '{PASSPHRASE}' | script -qec 'age -d identity.age' /dev/null",
        place.display()
    );
    let output = bash(&env.root, &script);
    let opened = String::from_utf8_lossy(&output.stdout).into_owned();
    let identity = std::fs::read_to_string(&env.identity_file).unwrap();
    assert!(output.status.success() && opened.contains(identity.trim()), "{opened}");

    let pgkeep = Pgkeep::bare();
    let file = env.root.file("wrong", 0o600, "incorrect horse battery staple\n");
    let scratch = env.root.dir("kit-scratch", 0o700);
    let wrong = ["drill", "--kit", place.to_str().unwrap(), "--scratch-dir", scratch.to_str().unwrap()];
    let wrong = [&wrong[..], &["--passphrase-file", file.to_str().unwrap()]].concat();
    pgkeep.run(&wrong).fails_with("key", 2).says("the passphrase is wrong");
    pgkeep.run(&wrong[..3]).fails_with("usage", 2).says("--scratch-dir");
    let config = place.join("pgkeep.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("required = true", "required = false")).unwrap();
    drill_from(&env, "kit", &pgkeep, &[]).fails_with("damaged", 1).says("pgkeep.toml was changed");
    std::fs::write(&config, text).unwrap();
    std::fs::remove_file(place.join("runbooks/key-lost.md")).unwrap();
    drill_from(&env, "kit", &pgkeep, &[]).fails_with("damaged", 1).says("runbooks/key-lost.md is missing");
    assert_eq!(scratch.read_dir().unwrap().count(), 0);
}

#[test]
fn a_kit_from_before_the_recipients_changed_says_that_it_is_too_old() {
    let env = backed_up();
    kit(&env, "kit", &[]).ok();
    let next = age::x25519::Identity::generate();
    let pgkeep =
        env.with_config("next.toml", |text| text.replace(&env.recipient, &next.to_public().to_string()));
    pgkeep.run(["backup", "full"]).ok();
    let old = drill_from(&env, "kit", &Pgkeep::bare(), &[]);
    old.fails_with("wrong-key", 1).says("too old").says("pgkeep key kit");
    pgkeep.run(["check", "--no-segment"]).says("opens nothing of what is written now");
}

#[test]
fn a_passphrase_is_typed_twice_and_never_shown() {
    let env = backed_up();
    let typed = |first: &str, second: &str| {
        let out = env.root.join("typed");
        let _ = std::fs::remove_dir_all(&out);
        let command = env.pgkeep.shell_command(&format!("key kit --out {}", out.display()));
        let mut script = Command::new("script");
        script.args(["-qec", &command, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("{first}\n{second}\n").as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (String::from_utf8_lossy(&output.stdout).into_owned(), out.join("identity.age").exists())
    };
    let (said, made) = typed(PASSPHRASE, "something else entirely");
    assert!(said.contains("the two passphrases differ") && !made, "{said}");
    let (said, made) = typed(PASSPHRASE, PASSPHRASE);
    assert!(said.contains("recovery kit") && made, "{said}");
}
