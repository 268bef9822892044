//! A backup opens without pgkeep (promise 10): the commands of the runbook, as they stand on its page, with Debian's
//! age, zstd, tar and minisign and the server's own programs.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::root::Ids;
use crate::support::runbook::{Runbook, bash, described};
use crate::support::{EnvOptions, Ledger, RawStore, Stop, TestEnv};

const ALL_STEPS: [u32; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

/// What a person at the keyboard has.
struct Rescue<'e> {
    env: &'e TestEnv,
    /// The repository, or the copy of a bucket.
    repo: PathBuf,
    backup: String,
    target: PathBuf,
}

impl<'e> Rescue<'e> {
    fn new(env: &'e TestEnv, backup: &str) -> Self {
        let repo = match env.repo() {
            RawStore::Dir(root) => root.clone(),
            bucket @ RawStore::S3 { .. } => copied(bucket, env),
        };
        Self { env, repo, backup: backup.to_owned(), target: env.root.join("rescue") }
    }
    fn values(&self) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let host_key = std::fs::read_to_string(self.env.state.join("keys/host.pub")).unwrap();
        vec![
            ("REPO", text(&self.repo)),
            ("CLUSTER", "main".to_owned()),
            ("BACKUP", self.backup.clone()),
            ("IDENTITY", text(&self.env.identity_file)),
            ("HOST_KEY", host_key.lines().nth(1).unwrap().to_owned()),
            ("TIMELINE", "1".to_owned()),
            ("TARGET", text(&self.target)),
            ("TABLESPACES", text(&self.env.root.join("rescue-spaces"))),
            ("WORK", text(&self.env.root.join("rescue-work"))),
            ("PGBIN", text(&self.programs())),
        ]
    }
    /// The server's programs, which find their libraries as a package's would.
    fn programs(&self) -> PathBuf {
        let build = &self.env.pg.build;
        let Some(lib) = &build.lib else { return build.bin.clone() };
        let dir = self.env.root.dir("programs", 0o755);
        for name in ["pg_verifybackup", "pg_ctl", "psql"] {
            let (lib, bin) = (lib.display(), build.bin.join(name));
            let text = format!("#!/bin/sh\nLD_LIBRARY_PATH={lib} exec {} \"$@\"\n", bin.display());
            self.env.root.file(&format!("programs/{name}"), 0o755, &text);
        }
        dir
    }
    fn run(&self, steps: &[u32]) -> std::process::Output {
        let script = Runbook::named("opening-a-backup-without-pgkeep").script(&self.values(), steps);
        bash(&self.env.root, &script)
    }
    #[track_caller]
    fn follow(&self, steps: &[u32]) -> String {
        let output = self.run(steps);
        let said = described(&output);
        let log = std::fs::read_to_string(self.env.root.join("rescue-work/server.log")).unwrap_or_default();
        assert!(output.status.success(), "{said}\n{log}");
        said
    }
    #[track_caller]
    fn fails(&self, steps: &[u32]) -> String {
        let output = self.run(steps);
        assert!(!output.status.success(), "{}", described(&output));
        described(&output)
    }
}

/// Every object of a bucket as a file, which is what any S3 program makes of it.
fn copied(bucket: &RawStore, env: &TestEnv) -> PathBuf {
    let dir = RawStore::Dir(env.root.dir("copy", 0o755));
    for key in bucket.list() {
        dir.write(&key, &bucket.read(&key));
    }
    dir.path().to_owned()
}

/// Files of names that break careless tools, in a directory that is no business of PostgreSQL's.
fn odd_files(data: &Path) -> Vec<PathBuf> {
    let dir = data.join("odd dir");
    let long = "l".repeat(120);
    let deep = dir.join(&long).join(&long).join("d".repeat(200));
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::create_dir(dir.join("empty")).unwrap();
    let long_file = "m".repeat(120);
    let names: [&[u8]; 9] = [
        b"with space",
        "ünïcödé".as_bytes(),
        b"new\nline",
        "n\u{e9}w\nline".as_bytes(),
        b"tab\tand\\backslash",
        b"not\xffutf8\xfe",
        b"-rf",
        b"quote\"'s",
        long_file.as_bytes(),
    ];
    let mut files: Vec<PathBuf> = names.iter().map(|name| dir.join(OsStr::from_bytes(name))).collect();
    files.push(deep.join("f".repeat(250)));
    for (number, file) in files.iter().enumerate() {
        std::fs::write(file, format!("odd {number}")).unwrap();
    }
    files.push(dir.join("nothing in it"));
    std::fs::write(files.last().unwrap(), "").unwrap();
    for entry in walkdir::WalkDir::new(&dir) {
        Ids::server().own(entry.unwrap().path());
    }
    files.into_iter().map(|file| file.strip_prefix(data).unwrap().to_owned()).collect()
}

/// Tablespaces beside, inside and in place of the data directory's own; rows in each.
fn tablespaces(env: &TestEnv) {
    let beside = env.root.dir("a space", 0o700);
    let session = env.pg.session();
    session.sql(&format!("create tablespace beside location '{}'", beside.display()));
    session.sql("create table in_beside tablespace beside as select generate_series(1, 5000) n");
    session.sql("set allow_in_place_tablespaces = on");
    session.sql("create tablespace inplace location ''");
    session.sql("create table in_place tablespace inplace as select generate_series(1, 300) n");
}

/// Production is gone: nothing of it can be leant on.
fn lose_the_host(env: &TestEnv) {
    env.pg.kill9();
    for name in ["main", "a space", "main.etc"] {
        let path = env.root.join(name);
        if path.exists() {
            std::fs::rename(&path, env.root.join(format!("{name}.lost"))).unwrap();
        }
    }
}

fn opens_by_hand(options: EnvOptions) {
    let env = options.pg(|pg| pg.segment_mib(1).conf("wal_keep_size = '64MB'")).build();
    tablespaces(&env);
    let odd = odd_files(&env.pg.data);
    let mut ledger = Ledger::create(&env.pg);
    ledger.write(&env.pg, 20);
    let writer = ledger.write_in_background(&env.pg, Duration::from_millis(3));
    let backup = env.backup();
    let mut ledger = writer.stop();
    ledger.write(&env.pg, 20);
    env.pg.switch_and_archive();
    let archived = ledger.last_id();
    ledger.write(&env.pg, 5);

    let rescue = Rescue::new(&env, &backup);
    let record: serde_json::Value = serde_json::from_slice(
        &std::fs::read(rescue.repo.join(format!("main/backups/{backup}/backup.json"))).unwrap(),
    )
    .unwrap();
    let first = record["wal_first"].as_str().unwrap();
    let original = std::fs::read(env.pg.data.join("pg_wal").join(first)).unwrap();
    lose_the_host(&env);

    let said = rescue.follow(&ALL_STEPS);
    assert!(said.contains("backup successfully verified"), "{said}");
    assert!(said.contains("open on timeline 2") && !said.contains("A HOLE"), "{said}");
    let pg = env.side(&rescue.target);
    ledger.assert_ends_at(&pg, archived);
    assert_eq!(pg.one("select count(*) from in_beside"), "5000");
    assert_eq!(pg.one("select count(*) from in_place"), "300");
    let oid = pg.one("select oid from pg_tablespace where spcname = 'beside'");
    let link = std::fs::read_link(rescue.target.join("pg_tblspc").join(&oid)).unwrap();
    assert_eq!(link, env.root.join("rescue-spaces").join(&oid));
    for (number, name) in odd.iter().enumerate() {
        let expected = if number + 1 == odd.len() { String::new() } else { format!("odd {number}") };
        assert_eq!(
            std::fs::read_to_string(rescue.target.join(name)).unwrap(),
            expected,
            "{}",
            name.display()
        );
    }
    assert!(rescue.target.join("odd dir/empty").is_dir());
    assert!(std::fs::read(env.root.join("rescue-work").join(first)).unwrap() == original, "{first}");
    pg.stop(Stop::Fast);
}

#[test]
fn a_backup_of_14_with_its_configuration_outside_opens_by_hand() {
    opens_by_hand(EnvOptions::new(14).pg(crate::support::PgOptions::conf_outside));
}
#[test]
fn an_unencrypted_backup_of_15_opens_by_hand() {
    opens_by_hand(EnvOptions::new(15).plain());
}
#[test]
fn a_backup_of_16_out_of_a_bucket_opens_by_hand() {
    opens_by_hand(EnvOptions::new(16).s3_repository("s3", true));
}
#[test]
fn a_backup_of_17_opens_by_hand() {
    opens_by_hand(EnvOptions::new(17));
}
#[test]
fn a_backup_of_18_with_its_configuration_outside_opens_by_hand() {
    opens_by_hand(EnvOptions::new(18).pg(crate::support::PgOptions::conf_outside));
}
#[test]
fn a_backup_of_debians_15_opens_by_hand() {
    opens_by_hand(
        EnvOptions::on(crate::support::Build::debian()).pg(crate::support::PgOptions::conf_outside),
    );
}

/// A small encrypted backup, to be broken.
fn to_be_broken(major: u32) -> (TestEnv, String) {
    let env = EnvOptions::new(major).pg(|pg| pg.segment_mib(1)).build();
    env.pg.sql("create table t as select generate_series(1, 5000) n");
    let backup = env.backup();
    (env, backup)
}

fn flip_last_byte(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn one_flipped_byte_of_what_was_unpacked_is_found(major: u32) {
    let (env, backup) = to_be_broken(major);
    let rescue = Rescue::new(&env, &backup);
    rescue.follow(&[1, 2, 3]);
    let table = env.pg.one("select pg_relation_filepath('t')");
    let verify = || {
        let output = env.pg.build.tool("pg_verifybackup").arg("-n").arg(&rescue.target).output().unwrap();
        (output.status.success(), described(&output))
    };
    assert!(verify().0);
    for victim in [table.as_str(), "backup_label", "global/pg_control", "PG_VERSION"] {
        let path = rescue.target.join(victim);
        flip_last_byte(&path);
        let (ok, says) = verify();
        assert!(!ok && says.contains(victim), "{says}");
        flip_last_byte(&path);
        std::fs::rename(&path, env.root.join("gone")).unwrap();
        let (ok, says) = verify();
        assert!(!ok && says.contains(victim), "{says}");
        std::fs::rename(env.root.join("gone"), &path).unwrap();
    }
    assert!(verify().0);
    flip_last_byte(&rescue.target.join("backup_manifest"));
    assert!(!verify().0);
}

#[test]
fn pg_verifybackup_of_14_finds_one_flipped_byte_in_what_was_unpacked() {
    one_flipped_byte_of_what_was_unpacked_is_found(14);
}
#[test]
fn pg_verifybackup_of_18_finds_one_flipped_byte_in_what_was_unpacked() {
    one_flipped_byte_of_what_was_unpacked_is_found(18);
}

#[test]
fn a_damaged_or_forged_repository_stops_whoever_opens_it_by_hand() {
    let (env, backup) = to_be_broken(17);
    let rescue = Rescue::new(&env, &backup);
    let store = env.repo();
    let backup = format!("main/backups/{backup}/");
    let restored = |key: &str, damage: &dyn Fn(), check: &dyn Fn()| {
        let whole = store.read(key);
        damage();
        check();
        store.write(key, &whole);
    };
    let anew = || {
        let _ = std::fs::remove_dir_all(&rescue.target);
    };
    let pack = store.list_under(&format!("{backup}data/")).remove(0);
    restored(&pack, &|| store.flip_a_bit(&pack), &|| {
        assert!(rescue.fails(&[1, 2]).contains("FAILED"));
        // age itself notices, whoever skips the second step.
        assert!(rescue.fails(&[1, 3]).contains("age: error"));
        anew();
    });
    restored(&pack, &|| store.truncate(&pack, store.read(&pack).len() - 1), &|| {
        rescue.fails(&[1, 3]);
        anew();
    });
    let record = format!("{backup}backup.json");
    let forged =
        String::from_utf8(store.read(&record)).unwrap().replace("\"kind\": \"full\"", "\"kind\": \"incr\"");
    restored(&record, &|| store.write(&record, forged.as_bytes()), &|| {
        assert!(rescue.fails(&[1, 2]).contains("Signature verification failed"));
    });
    rescue.follow(&[1, 2, 3]);
}

#[test]
fn a_hole_in_the_wal_is_shown_to_whoever_opens_it_by_hand_and_an_absent_repository_opens_nothing() {
    let (env, backup) = to_be_broken(16);
    for _ in 0..3 {
        env.pg.switch_and_archive();
    }
    let rescue = Rescue::new(&env, &backup);
    let store = env.repo();
    let segments: Vec<String> =
        store.list_under("main/wal/").into_iter().filter(|k| k.contains("/00000001/")).collect();
    let middle = &segments[segments.len() - 2];
    let whole = store.read(middle);
    store.delete(middle);
    let said = rescue.follow(&[1, 6]);
    assert!(said.contains("A HOLE"), "{said}");
    store.write(middle, &whole);
    assert!(!rescue.follow(&[1, 6]).contains("A HOLE"));

    env.pg.kill9();
    rescue.follow(&[1, 2, 3, 4, 5]);
    let parked = env.root.join("parked");
    let script = Runbook::named("opening-a-backup-without-pgkeep").script(&rescue.values(), &[1, 6]);
    // The disk is unmounted between the sixth step and the seventh.
    let unmounted = format!("{script}mv '{}' '{}'\n", rescue.repo.display(), parked.display());
    let rest = Runbook::named("opening-a-backup-without-pgkeep").script(&rescue.values(), &[7]);
    let output = bash(&env.root, &(unmounted + &rest));
    let log = std::fs::read_to_string(env.root.join("rescue-work/server.log")).unwrap();
    assert!(
        !output.status.success() && log.contains("could not restore file"),
        "{}\n{log}",
        described(&output)
    );
    assert!(!log.contains("archive recovery complete"), "{log}");
}
