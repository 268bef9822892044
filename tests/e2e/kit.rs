//! The recovery kit: with nothing but it, its passphrase and the repository a cluster comes back, by its own instructions.

mod refused;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::runbook::{Runbook, bash, described};
use crate::support::{EnvOptions, Ledger, Pgkeep, Ran, Stop, TestEnv};

const PASSPHRASE: &str = "correct horse battery staple";
const TOKEN: &str = "Planted-Token-Zitronenfalter";

/// Receivers of alerts, whose secrets must not be in a kit; and the disk of a test machine is nobody's but ours.
const MORE: &str = "[proof]\nreserve = \"64MiB\"\n[[alert_sink]]\nname = \"pager\"\nkind = \"webhook\"\n\
    url = { command = \"echo https://Planted-Token-Zitronenfalter.example\" }\n\
    authorization = { command = \"echo Planted-Token-Zitronenfalter\" }\n\
    [heartbeat]\nurl = { command = \"echo https://Planted-Token-Zitronenfalter.example/beat\" }\n";

fn passphrase_file(env: &TestEnv) -> String {
    env.root.file("passphrase", 0o600, &format!("{PASSPHRASE}\n")).display().to_string()
}

fn kit(env: &TestEnv, name: &str, more: &[&str]) -> Ran {
    let out = env.root.join(name).display().to_string();
    let file = passphrase_file(env);
    let args = [&["key", "kit", "--out", &out, "--passphrase-file", &file][..], more];
    env.pgkeep.run(args.concat())
}

/// From an environment in which nothing of this host's is configured.
fn drill_from(env: &TestEnv, name: &str, pgkeep: &Pgkeep, more: &[&str]) -> Ran {
    let (place, scratch) = (env.root.join(name), env.root.dir("kit-scratch", 0o700));
    let (place, scratch) = (place.display().to_string(), scratch.display().to_string());
    let file = passphrase_file(env);
    let args = ["drill", "--kit", &place, "--scratch-dir", &scratch, "--passphrase-file", &file];
    pgkeep.clone().global("--json").run([&args[..], more].concat())
}

/// All bytes of a kit.
fn bytes(place: &Path) -> Vec<u8> {
    let files = walkdir::WalkDir::new(place).into_iter().map(Result::unwrap);
    files
        .filter(|entry| entry.file_type().is_file())
        .flat_map(|entry| std::fs::read(entry.path()).unwrap())
        .collect()
}

/// Secrets of the host, by what they are.
fn secrets(env: &TestEnv) -> Vec<(&'static str, String)> {
    let text = |path: PathBuf| std::fs::read_to_string(path).unwrap();
    let last = |text: String| text.lines().rfind(|line| !line.is_empty()).unwrap().to_owned();
    vec![
        ("identity", last(text(env.identity_file.clone()))),
        ("host key", last(text(env.state.join("keys/host.key")))),
        ("metadata key", last(text(env.state.join("keys/metadata.key")))),
        ("passphrase", PASSPHRASE.to_owned()),
        ("token", TOKEN.to_owned()),
    ]
}

#[track_caller]
fn assert_without(place: &Path, secrets: &[(&'static str, String)]) {
    let all = bytes(place);
    assert!(all.len() > 10_000);
    for (what, secret) in secrets {
        let found = all.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "the {what} is in the kit");
    }
}

/// The page's own commands, on a host whose `/etc/pgkeep` is the root of the test and where somebody types the passphrase and agrees.
fn instructions(env: &TestEnv, kit: &Path, steps: &[u32]) -> String {
    let page = std::fs::read_to_string(kit.join("INSTRUCTIONS.md")).unwrap();
    let kit = ("KIT", kit.display().to_string());
    let script = Runbook::parse(&page).script(&[kit], steps);
    // Where it was before: PostgreSQL's own settings name it.
    let etc = env.root.path().display().to_string();
    let script = script.replace("/etc/pgkeep", &etc);
    let there = format!("sed -i 's#/etc/pgkeep#{etc}#' {etc}/pgkeep.toml\npgkeep config check");
    let script = script.replace("pgkeep config check", &there).replace("chown postgres:", "chown $(id -un):");
    let script = script.replace("-o postgres", "-o $(id -un)");
    let agreed = "pgkeep restore --to latest\n";
    assert_eq!(script.contains(agreed), steps.contains(&7), "{script}");
    let script = script.replace(agreed, "pgkeep restore --to latest --yes\n");
    let bin = env.pgkeep.bin().parent().unwrap().display();
    format!(
        "set -eu\nexport PATH={bin}:$PATH PGKEEP_CONFIG={etc}/pgkeep.toml\n\
         age() {{ printf '%s\\n' '{PASSPHRASE}' | script -qec \"age $*\" /dev/null; }}\n{script}"
    )
}

#[test]
fn a_host_that_lost_everything_comes_back_by_following_the_kits_instructions() {
    let env = EnvOptions::new(18).config(MORE).pg(|pg| pg.segment_mib(1)).build();
    let mut ledger = Ledger::create(&env.pg);
    ledger.write(&env.pg, 2);
    let backup = env.backup();
    let made = kit(&env, "kit", &[]).ok();
    assert!(made.stdout.contains(&backup) && made.stderr.contains("drill --kit"), "{made}");
    ledger.write(&env.pg, 4);
    env.pg.switch_and_archive();
    let place = env.root.join("kit");
    assert_without(&place, &secrets(&env));

    env.pg.stop(Stop::Immediate);
    std::fs::remove_dir_all(&env.pg.data).unwrap();
    forget(&env);
    let output = bash(&env.root, &instructions(&env, &place, &[1, 3, 4, 6, 7]));
    let said = described(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("identity.age: OK") && said.contains("INSTRUCTIONS.md: OK"), "{said}");
    ledger.assert_ends_at(&env.pg, ledger.last_id());

    // Life goes on, on a timeline whose history the kit must open, too.
    ledger.write(&env.pg, 2);
    env.pg.switch_and_archive();
    forget(&env);
    let anywhere = Pgkeep::bare().env("PGKEEP_CONFIG", "/nonexistent/pgkeep.toml");
    let report = drill_from(&env, "kit", &anywhere, &["--to", "latest"]).ok().json();
    assert_eq!(report["outcome"], "passed", "{report:#}");
    assert_eq!(report["recovered"]["timeline"], 2);
    let contents: Value = serde_json::from_slice(&std::fs::read(place.join("kit.json")).unwrap()).unwrap();
    assert_eq!(report["kit"]["fingerprint"], contents["fingerprint"]);
    assert_eq!(report["kit"]["made_at"], contents["made_at"]);
    // Reports and nothing else: no instance, and nothing of the kit's.
    let left = env.root.join("kit-scratch").read_dir().unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<String> = left.map(|name| name.into_string().unwrap()).collect();
    assert!(left.len() == 3 && left.iter().all(|name| name.contains("-drill.")), "{left:?}");
    assert!(!env.state.exists() && !env.config_path.exists());
}

/// Everything of pgkeep's on this host.
fn forget(env: &TestEnv) {
    let _ = std::fs::remove_dir_all(&env.state);
    for file in [&env.identity_file, &env.config_path] {
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn a_kit_of_a_bucket_holds_no_access_keys_and_takes_them_from_the_variables_that_it_names() {
    let env = EnvOptions::new(18).config(MORE).pg(|pg| pg.segment_mib(1)).s3_repository("eu-1", true).build();
    let mut ledger = Ledger::create(&env.pg);
    ledger.write(&env.pg, 2);
    env.backup();
    ledger.write(&env.pg, 2);
    env.pg.switch_and_archive();
    // A host that only backs up: its identity comes through a pipe, and never lies on its disk.
    let moved = env.root.join("elsewhere.txt");
    std::fs::rename(&env.identity_file, &moved).unwrap();
    let out = env.root.join("kit.tar").display().to_string();
    let file = passphrase_file(&env);
    let refused = env.pgkeep.run(["key", "kit", "--out", &out, "--passphrase-file", &file]);
    refused.fails_with("key", 2).says("no identity on this host").says("--identity");
    kit(&env, "kit.tar", &["--identity", moved.to_str().unwrap()]).ok();
    std::fs::rename(&moved, &env.identity_file).unwrap();

    let server = env.repo().s3().server();
    let mut planted = secrets(&env);
    planted.push(("access key", server.access_key.clone()));
    planted.push(("secret key", server.secret_key.clone()));
    assert_without(&env.root.join("kit.tar"), &planted);

    let anywhere = Pgkeep::bare().env("AWS_ACCESS_KEY_ID", &server.access_key);
    let without = drill_from(&env, "kit.tar", &anywhere, &["--to", "latest"]);
    without.fails_with("key", 2).says("KIT_EU_1_ACCESS_KEY_ID").says("INSTRUCTIONS.md");
    let with = Pgkeep::bare()
        .env("KIT_EU_1_ACCESS_KEY_ID", &server.access_key)
        .env("KIT_EU_1_SECRET_ACCESS_KEY", &server.secret_key);
    let report = drill_from(&env, "kit.tar", &with, &["--to", "latest"]).ok().json();
    assert_eq!(report["outcome"], "passed", "{report:#}");
    the_page_leads_to_the_bucket(&env);
}

/// By the page's own commands; somebody types the keys, and PostgreSQL finds them in files from then on.
fn the_page_leads_to_the_bucket(env: &TestEnv) {
    let server = env.repo().s3().server();
    let (root, kit) = (env.root.path().display(), env.root.join("pgkeep-recovery-kit"));
    let typed = format!("{}\n{}\n", server.access_key, server.secret_key);
    let unpacked = bash(&env.root, &format!("tar -C {root} -xf {root}/kit.tar"));
    assert!(unpacked.status.success(), "{}", described(&unpacked));
    forget(env);
    let page = instructions(env, &kit, &[1, 3, 4, 5]);
    let afterwards = "unset KIT_EU_1_ACCESS_KEY_ID KIT_EU_1_SECRET_ACCESS_KEY";
    let look = Runbook::parse(&std::fs::read_to_string(kit.join("INSTRUCTIONS.md")).unwrap());
    let look = look.script(&[("KIT", kit.display().to_string())], &[6]);
    let output = bash(&env.root, &format!("{{\n{page}\n{afterwards}\n{look}\n}} <<'TYPED'\n{typed}TYPED\n"));
    let said = described(&output);
    assert!(output.status.success() && said.contains("Plan of the restore"), "{said}");
    let file = env.root.join("KIT_EU_1_SECRET_ACCESS_KEY");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), server.secret_key);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}
