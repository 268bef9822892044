//! No plaintext on disk but in the side instance, which nobody else can enter and which is gone at the end.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::shop::moment;
use super::side_is_gone;
use crate::support::{EnvOptions, TestEnv, eventually};

const MARKER: &[u8] = b"KanarienvogelRt9";

fn holding_the_marker(dir: &Path, but: &[PathBuf], found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && !but.contains(&path) {
            holding_the_marker(&path, but, found);
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).unwrap_or_default();
            if bytes.windows(MARKER.len()).any(|window| window == MARKER) {
                found.push(path);
            }
        }
    }
}

#[track_caller]
fn the_marker_is_nowhere_but_in(env: &TestEnv, but: &[PathBuf]) {
    let mut found = Vec::new();
    holding_the_marker(env.root.path(), but, &mut found);
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn neither_during_nor_after_is_a_row_readable_outside_of_the_side_instance() {
    let env = EnvOptions::new(18).pg(|pg| pg.segment_mib(1)).build();
    env.pg.sql(
        "create table public.t as select n, 'KanarienvogelRt9' || md5(n::text) as t from generate_series(1, 2000) n",
    );
    env.backup();
    let export = env.pgkeep.clone().global("--json").run(["backup", "tables", "-t", "t"]).ok().json();
    let export = export["id"].as_str().unwrap();
    env.pgkeep.run(["backup", "dump"]).ok();
    moment(&env, "good");
    env.pg.sql("delete from public.t");
    for (from, step) in [
        (["--to", "name:good"], "restore-after-packs"),
        (["--to", "name:good"], "table-after-side"),
        (["--to", "name:good"], "table-before-commit"),
        (["--from", "latest"], "table-after-build"),
        (["--from", export], "table-before-commit"),
    ] {
        let args = [&["restore", "table", "public.t"], from.as_slice(), &["--replace", "--yes"]].concat();
        let running = env.pgkeep.clone().failpoint(step, "return(stop)").spawn(args);
        eventually("it stands still", Duration::from_mins(1), || running.is_stopped());
        let scratch = env.state.join("scratch");
        let places: Vec<PathBuf> = scratch.read_dir().unwrap().flatten().map(|e| e.path()).collect();
        assert_eq!(places.len(), 1, "{places:?}");
        for closed in [&places[0], &places[0].join("data")] {
            let mode = std::fs::metadata(closed).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o700, "{}", closed.display());
        }
        the_marker_is_nowhere_but_in(&env, &[env.pg.data.clone(), places[0].join("data")]);
        running.signal(Signal::SIGCONT);
        let ran = running.wait().ok();
        assert!(!ran.stderr.contains("Kanarienvogel") && !ran.stdout.contains("Kanarienvogel"), "{ran}");
        side_is_gone(&env);
        the_marker_is_nowhere_but_in(&env, std::slice::from_ref(&env.pg.data));
    }
}
