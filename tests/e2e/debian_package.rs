//! The Debian package, from its installation in a fresh root to its purge.

use std::path::Path;
use std::process::Command;

use crate::support::Build;
use crate::support::pgkeep::shared_binary;

/// Where `scripts/install-test-deps` keeps it.
fn debian_root() -> std::path::PathBuf {
    let home = std::env::var("PGKEEP_TEST_HOME").unwrap_or_else(|_| "/opt/pgkeep-test".to_owned());
    let root = Path::new(&home).join("debian-root");
    assert!(root.exists(), "{} is missing: run scripts/install-test-deps", root.display());
    root
}

#[track_caller]
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    said.into_owned()
}

#[test]
fn the_deb_installs_starts_its_first_run_and_purges_cleanly_in_a_fresh_debian_root() {
    assert!(nix::unistd::geteuid().is_root(), "a package is installed in a root of its own only by root");
    let place = tempfile::Builder::new().prefix("pgk-deb-").tempdir_in("/tmp").unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = output(
        Command::new(source.join("scripts/package"))
            .arg("-o")
            .arg(place.path())
            .env("PGKEEP_BIN", shared_binary()),
    );
    let deb =
        std::fs::read_dir(place.path()).unwrap().next().unwrap_or_else(|| panic!("{made}")).unwrap().path();
    let root = place.path().join("root");
    output(Command::new("cp").args(["-a", "--reflink=auto"]).arg(debian_root()).arg(&root));

    let said = output(
        Command::new("unshare")
            .args(["--mount", "--pid", "--net", "--fork", "--kill-child", "--propagation=private", "bash"])
            .arg(source.join("tests/e2e/debian_package/life.sh"))
            .args([&root, &deb, Build::of(17).bin.parent().unwrap()])
            .stdin(std::process::Stdio::null()),
    );
    let (life, left) = said.split_once("left:\n").unwrap_or_else(|| panic!("{said}"));
    let left = left.split("== done").next().unwrap();
    // Keys and configuration stay, and nothing else.
    let kept = ["etc/pgkeep", "etc/pgkeep/identity.txt", "etc/pgkeep/pgkeep.toml", "var/lib/pgkeep"];
    let keys =
        ["", "/host.key", "/host.pub", "/metadata.key"].map(|name| format!("var/lib/pgkeep/keys{name}"));
    let mut expected: Vec<String> =
        kept.iter().map(ToString::to_string).chain(keys).map(|path| format!("> ./{path}")).collect();
    expected.sort();
    assert_eq!(left.lines().collect::<Vec<_>>(), expected, "{said}");
    assert!(said.contains("kept /var/lib/pgkeep: keys"), "{said}");
    assert!(life.contains("pgkeep: next, as root:"), "{said}");
    assert!(said.contains("WARNING: where archive_command"), "{said}");
}
