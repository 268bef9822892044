//! A place for the tests of `wal push` and `wal fetch`: repositories made with the library, and real segments to ship.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pgkeep::config::Config;
use pgkeep::model::{ClusterName, Digest, PgMajor, SegmentName, SegmentSize, ShortDigest};
use pgkeep::postgres::control_file::ControlFile;
use pgkeep::repository::configured::{self, Patience};
use pgkeep::repository::keys::wal::{WalObjectName, WalRoot};
use pgkeep::repository::signature::HostKey;
use pgkeep::repository::wal_listing::WalListing;
use pgkeep::repository::wal_object::{Plain, Sealer, store};
use pgkeep::repository::{self, Repository, SystemDocument, add_cluster, add_system};

use sha2::Digest as _;

use crate::support::root::Ids;
use crate::support::{EnvOptions, FaultProxy, Pgkeep, Ran, S3, TestEnv};

/// A running server that archives nowhere yet, and its repositories, made without `pgkeep init`.
pub fn place(options: EnvOptions) -> TestEnv {
    let options =
        options.uninitialised().pg(|pg| pg.conf("archive_mode = on").conf("archive_command = 'false'"));
    let env = options.build();
    make_repositories(&env);
    make_host_key(&env);
    env
}

/// The same with its one repository in a bucket, behind a network that misbehaves on demand.
pub fn behind_a_proxy(options: EnvOptions) -> (TestEnv, FaultProxy) {
    let store = S3::fresh_bucket();
    let proxy = FaultProxy::before(store.endpoint());
    let endpoint = proxy.endpoint();
    (place(options.s3_repository_at("s3", true, store, &endpoint)), proxy)
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn make_repositories(env: &TestEnv) {
    let config = Config::load(&env.config_path).unwrap();
    let cluster = ClusterName::parse("main").unwrap();
    let control = ControlFile::read(&env.pg.data).unwrap();
    let system = SystemDocument {
        system_identifier: control.system,
        pg_major: PgMajor(env.pg.build.major),
        wal_segment_bytes: control.wal_segment_size,
    };
    let now = "2026-11-21T02:00:00Z".parse().unwrap();
    runtime().block_on(async {
        for settings in &config.repositories {
            let storage = configured::open_store(settings, Patience::default()).await.unwrap();
            repository::create(&*storage, "a-test", now).await.unwrap();
            let opened = Repository::open(settings.name.clone(), true, Arc::clone(&storage)).await.unwrap();
            add_cluster(&opened, &cluster).await.unwrap();
            add_system(&opened, &cluster, &system).await.unwrap();
        }
    });
    for settings in &config.repositories {
        if let Some(path) = settings.store.url.strip_prefix("file://") {
            own_all(Path::new(path));
        }
    }
}

fn make_host_key(env: &TestEnv) {
    let files = HostKey::generate().unwrap().files().unwrap();
    env.root.dir("state/keys", 0o700);
    env.root.file("state/keys/host.key", 0o600, &files.secret);
    env.root.file("state/keys/host.pub", 0o644, &files.public);
}

fn own_all(path: &Path) {
    for entry in walkdir::WalkDir::new(path).into_iter().flatten() {
        Ids::server().own(entry.path());
    }
}

/// Makes the server fill `count` segments and ends it; their names, in order. The files stay in pg_wal.
pub fn segments(env: &TestEnv, count: usize) -> Vec<String> {
    env.pg.sql("create table if not exists filler (n int, t text)");
    let names = (0..count).map(|n| {
        env.pg.sql(&format!(
            "insert into filler select i, md5(i::text) from generate_series(1, {}) i",
            500 + n
        ));
        env.pg.switch_wal()
    });
    names.collect()
}

pub fn wal_file(env: &TestEnv, name: &str) -> PathBuf {
    env.pg.data.join("pg_wal").join(name)
}

/// As PostgreSQL calls it: in the data directory, with a relative path.
pub fn push(env: &TestEnv, pgkeep: &Pgkeep, name: &str) -> Ran {
    pgkeep.clone().dir(&env.pg.data).run(["wal", "push", &format!("pg_wal/{name}")])
}

/// As PostgreSQL calls it; the file would be `pg_wal/RECOVERYXLOG`.
pub fn fetch(env: &TestEnv, pgkeep: &Pgkeep, name: &str) -> Ran {
    let _ = std::fs::remove_file(fetched(env));
    pgkeep.clone().dir(&env.pg.data).run(["wal", "fetch", name, "pg_wal/RECOVERYXLOG"])
}

pub fn fetched(env: &TestEnv) -> PathBuf {
    env.pg.data.join("pg_wal/RECOVERYXLOG")
}

pub fn segment_size(env: &TestEnv) -> SegmentSize {
    ControlFile::read(&env.pg.data).unwrap().wal_segment_size
}

/// The name of the segment so many after `name`.
pub fn after(env: &TestEnv, name: &str, steps: u64) -> String {
    let (segment, size) = (SegmentName::parse(name).unwrap(), segment_size(env));
    SegmentName::numbered(segment.timeline, segment.number(size) + steps, size).to_string()
}

/// The repository as the library sees it.
pub struct Inside {
    pub config: Config,
    pub repository: Repository,
    pub root: WalRoot,
    pub cluster: ClusterName,
}

pub async fn inside(env: &TestEnv) -> Inside {
    let config = Config::load(&env.config_path).unwrap();
    let storage = configured::open_store(&config.repositories[0], Patience::default()).await.unwrap();
    let repository = Repository::open(config.repositories[0].name.clone(), true, storage).await.unwrap();
    let cluster = ClusterName::parse("main").unwrap();
    let root = WalRoot::new(&cluster, ControlFile::read(&env.pg.data).unwrap().system);
    Inside { config, repository, root, cluster }
}

pub async fn listing(inside: &Inside) -> WalListing {
    WalListing::load(&inside.repository.name, &*inside.repository.storage, &inside.root).await.unwrap()
}

pub fn digest_of(bytes: &[u8]) -> ShortDigest {
    Digest(sha2::Sha256::digest(bytes).into()).short()
}

/// Writes an object past all of `wal push`'s checks, as another server would have.
pub fn put_object(env: &TestEnv, name: WalObjectName, content: &[u8]) {
    runtime().block_on(async {
        let inside = inside(env).await;
        let protection = configured::protection(&inside.config).unwrap();
        let mut sealer = Sealer::new(protection, 1, "2026-11-21T02:00:00Z".parse().unwrap());
        "the-other-host".clone_into(&mut sealer.header.host);
        let (plain, patience) = (Plain::Bytes(content.to_vec().into()), Duration::from_secs(5));
        let placed =
            store(&[&inside.repository], &inside.root, name, plain, &sealer, patience).await.unwrap();
        assert!(placed.into_iter().all(|(_, placed)| placed.is_ok()));
    });
    own_all(env.repo().path());
}

/// What an object holds, opened with `age` and `zstd` alone.
pub fn opened_by_hand(env: &TestEnv, key: &str) -> Vec<u8> {
    let stored = env.root.file("stored.tmp", 0o600, "");
    std::fs::write(&stored, env.repo().read(key)).unwrap();
    let script = format!("age -d -i {} {} | zstd -dcq", env.identity_file.display(), stored.display());
    let done = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

/// A small file system of its own.
pub struct Tmpfs(PathBuf);
impl Tmpfs {
    pub fn mount(path: &Path, size: &str) -> Self {
        let ids = Ids::server();
        let options = format!("size={size},mode=0700,uid={},gid={}", ids.uid, ids.gid);
        Self::run(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs", path.to_str().unwrap()]);
        Self(path.to_owned())
    }
    pub fn resize(&self, size: &str) {
        Self::run(&["mount", "-o", &format!("remount,size={size}"), self.0.to_str().unwrap()]);
    }
    fn run(words: &[&str]) {
        let done = std::process::Command::new(words[0]).args(&words[1..]).output().unwrap();
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}
impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}
