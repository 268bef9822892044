//! Writing to and reading from real directories.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::catalog::Catalog;
use super::fanout::{FanOut, PATIENCE, put_everywhere};
use super::index::IndexedMember;
use super::pack::{FinishedPack, MemberHead, MemberKind, PackWriter};
use super::pack_read::{each_member, open_pack, read_member};
use super::record::{BackupRecord, BaseBackup, ObjectEntry, PageErrors};
use super::signature::{HostKey, Trust, Verdict};
use super::{Repository, SystemDocument, add_system, create, keys, open, systems};
use crate::codec::{DEFAULT_LEVEL, GeneratedIdentity, Protection, Recipients, Sealed};
use crate::error::{Code, Error, Result};
use crate::model::{ClusterName, PgMajor, RepoName, SegmentSize, SystemId, Timestamp};
use crate::storage::{self, Body, ObjectInfo, Storage, StoreSettings, Stored, Upload};

pub(super) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}
fn name(text: &str) -> RepoName {
    RepoName::parse(text).unwrap()
}
pub(super) fn main_cluster() -> ClusterName {
    ClusterName::parse("main").unwrap()
}

pub(super) async fn directory(dir: &std::path::Path, repo: &str, required: bool) -> Repository {
    std::fs::create_dir_all(dir).unwrap();
    let settings = StoreSettings::new(format!("file://{}", dir.display()));
    let storage = storage::open(&settings).await.unwrap();
    create(&*storage, "0123abcd", at("2026-11-21T02:00:00Z")).await.unwrap();
    Repository::open(name(repo), required, storage).await.unwrap()
}

#[tokio::test]
async fn a_root_without_its_document_is_no_repository_and_a_newer_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let settings = StoreSettings::new(format!("file://{}", dir.path().display()));
    let storage = storage::open(&settings).await.unwrap();
    let error = Repository::open(name("a"), true, storage.clone()).await.unwrap_err();
    assert_eq!(error.code(), Code::NotARepository);
    assert!(error.hint_text().unwrap().contains("pgkeep init"));
    storage
        .put(keys::ROOT, Bytes::from_static(br#"{"format":2,"id":"x","created":"2026-11-21T02:00:00Z"}"#))
        .await
        .unwrap();
    let error = Repository::open(name("a"), true, storage).await.unwrap_err();
    assert_eq!(error.code(), Code::FormatTooNew);
}

#[tokio::test]
async fn making_a_repository_twice_keeps_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let repo = directory(dir.path(), "a", true).await;
    let again = create(&*repo.storage, "other", at("2027-01-01T00:00:00Z")).await.unwrap();
    assert_eq!(again.id, "0123abcd");
}

#[tokio::test]
async fn only_listed_system_identifiers_are_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let repo = directory(dir.path(), "a", true).await;
    let document = SystemDocument {
        system_identifier: SystemId(u64::MAX),
        pg_major: PgMajor(18),
        wal_segment_bytes: SegmentSize::DEFAULT,
    };
    for _ in 0..2 {
        add_system(&repo, &main_cluster(), &document).await.unwrap();
    }
    assert_eq!(systems(&repo, &main_cluster()).await.unwrap(), std::slice::from_ref(&document));
    let other = SystemDocument { pg_major: PgMajor(17), ..document };
    assert_eq!(add_system(&repo, &main_cluster(), &other).await.unwrap_err().code(), Code::ObjectExists);
    let error = open::system(&repo, &main_cluster(), SystemId(1)).await.unwrap_err();
    assert_eq!(error.code(), Code::UnknownSystem);
}

/// A pack with an ordinary, a long, a non-UTF-8, an empty member and a directory.
fn members() -> Vec<(Vec<u8>, MemberKind, Vec<u8>)> {
    let long = format!("pg_tblspc/16400/PG_18_202506291/{}/{}", "d".repeat(120), "f".repeat(200));
    vec![
        (b"base".to_vec(), MemberKind::Directory, vec![]),
        (b"base/5/16384".to_vec(), MemberKind::File, (0..300_000u32).flat_map(u32::to_le_bytes).collect()),
        (long.into_bytes(), MemberKind::File, b"far down".to_vec()),
        (b"odd\xff\xfename".to_vec(), MemberKind::File, vec![9; 513]),
        ("wörter".as_bytes().to_vec(), MemberKind::File, vec![1; 512]),
        (b"empty".to_vec(), MemberKind::File, vec![]),
    ]
}

fn pack_into<W: Write>(inner: W, protection: &Protection) -> (W, FinishedPack) {
    let mut pack = PackWriter::new(inner, protection, DEFAULT_LEVEL).unwrap();
    for (name, kind, bytes) in members() {
        let head = MemberHead {
            name: &name,
            kind,
            mode: if kind == MemberKind::Directory { 0o750 } else { 0o640 },
            uid: 0,
            gid: 0,
            modified: 1_700_000_000,
            size: bytes.len() as u64,
        };
        pack.member(&head, &bytes).unwrap();
    }
    pack.finish().unwrap()
}

fn key_pair() -> (GeneratedIdentity, Protection) {
    let key = GeneratedIdentity::new();
    let protection = Protection::Age(Recipients::parse(&[key.recipient()]).unwrap());
    (key, protection)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_is_read_whole_and_by_the_member_from_every_repository_it_was_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let repos = [
        directory(&dir.path().join("a"), "a", true).await,
        directory(&dir.path().join("b"), "b", false).await,
    ];
    let (key, protection) = key_pair();
    let ids = key.identities().unwrap();
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Handle::current();
        let object = "main/backups/x/data/00001.tar.zst.age";
        let targets: Vec<&Repository> = repos.iter().collect();
        let (fan, finished) = pack_into(FanOut::begin(&targets, object), &protection);
        let outcomes = fan.finish(&finished.sealed).unwrap();
        assert!(outcomes.len() == 2 && outcomes.iter().all(|(_, stored)| stored.is_ok()));
        for repo in &repos {
            let mut found = Vec::new();
            let opened = open_pack(&runtime, repo, object, Some(&ids)).unwrap();
            each_member(opened, object, |head, reader| {
                let mut bytes = Vec::new();
                reader.read_to_end(&mut bytes).unwrap();
                found.push((head.name.clone(), head.kind, bytes));
                Ok(())
            })
            .unwrap();
            assert!(found == members());
            for (packed, wanted) in finished.members.iter().zip(members()) {
                let member = IndexedMember::new(0, packed.clone());
                let stored = finished.sealed.stored_bytes;
                let (head, bytes) = read_member(&runtime, repo, object, stored, Some(&ids), &member).unwrap();
                assert!((head.name, head.kind, bytes) == wanted);
            }
        }
    })
    .await
    .unwrap();
}

#[test]
fn a_pack_opens_with_age_zstd_and_tar_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (key, protection) = key_pair();
    let (identity, object, out) =
        (dir.path().join("id.txt"), dir.path().join("p.tar.zst.age"), dir.path().join("out"));
    std::fs::write(&identity, key.file_text().as_bytes()).unwrap();
    std::fs::write(&object, pack_into(Vec::new(), &protection).0).unwrap();
    std::fs::create_dir(&out).unwrap();
    let mut age = Command::new("age")
        .args(["-d", "-i"])
        .args([&identity, &object])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut zstd = Command::new("zstd")
        .args(["-d", "-q"])
        .stdin(age.stdout.take().unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let tar =
        Command::new("tar").arg("x").arg("-C").arg(&out).stdin(zstd.stdout.take().unwrap()).output().unwrap();
    assert!(age.wait().unwrap().success() && zstd.wait().unwrap().success());
    assert!(tar.status.success() && tar.stderr.is_empty(), "{}", String::from_utf8_lossy(&tar.stderr));
    for (name, kind, bytes) in members() {
        use std::os::unix::ffi::OsStrExt;
        let path = out.join(std::ffi::OsStr::from_bytes(&name));
        match kind {
            MemberKind::Directory => assert!(path.is_dir()),
            MemberKind::File => assert!(std::fs::read(&path).unwrap() == bytes, "{}", path.display()),
        }
    }
}

#[test]
fn a_member_of_another_length_than_announced_is_refused() {
    let head =
        MemberHead { name: b"f", kind: MemberKind::File, mode: 0o600, uid: 0, gid: 0, modified: 0, size: 3 };
    for bytes in [&b"ab"[..], b"abcd"] {
        let mut pack = PackWriter::new(Vec::new(), &Protection::Plain, DEFAULT_LEVEL).unwrap();
        assert!(pack.member(&head, bytes).is_err());
    }
    for name in [&b"../x"[..], b"/x", b"a//b", b"", b"a/./b"] {
        let mut pack = PackWriter::new(Vec::new(), &Protection::Plain, DEFAULT_LEVEL).unwrap();
        assert!(pack.begin(&MemberHead { name, ..head }).is_err());
    }
}

/// A store whose uploads hang, or fail at the first chunk.
struct Faulty {
    hang: bool,
}
struct FaultyUpload(bool);

#[async_trait::async_trait]
impl Upload for FaultyUpload {
    async fn write(&mut self, _: Bytes) -> Result<()> {
        if self.0 {
            std::future::pending::<()>().await;
        }
        Err(Error::new(Code::StoreUnavailable, "injected"))
    }
    async fn finish(self: Box<Self>) -> Result<Stored> {
        if self.0 {
            std::future::pending::<()>().await;
        }
        Err(Error::new(Code::StoreUnavailable, "injected"))
    }
    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
#[async_trait::async_trait]
impl Storage for Faulty {
    fn location(&self) -> &'static str {
        "test:"
    }
    async fn head(&self, _: &str) -> Result<Option<ObjectInfo>> {
        Ok(None)
    }
    async fn get(&self, _: &str, _: Option<std::ops::Range<u64>>) -> Result<Body> {
        Err(Error::new(Code::ObjectMissing, "nothing"))
    }
    async fn put(&self, _: &str, _: Bytes) -> Result<Stored> {
        if self.hang {
            std::future::pending::<()>().await;
        }
        Err(Error::new(Code::StoreUnavailable, "injected"))
    }
    async fn upload(&self, _: &str) -> Result<Box<dyn Upload>> {
        Ok(Box::new(FaultyUpload(self.hang)))
    }
    async fn list(&self, _: &str, _: Option<&str>) -> Result<Vec<ObjectInfo>> {
        Ok(vec![])
    }
    async fn list_dirs(&self, _: &str) -> Result<Vec<String>> {
        Ok(vec![])
    }
    async fn delete(&self, _: &str) -> Result<()> {
        Ok(())
    }
    async fn sweep_unfinished(&self, _: Duration) -> Result<u64> {
        Ok(0)
    }
}
fn faulty(required: bool, hang: bool) -> Repository {
    let storage: Arc<dyn Storage> = Arc::new(Faulty { hang });
    Repository { name: name("faulty"), required, storage, id: "x".into() }
}

/// 40 MiB to a sound directory and one more repository; the outcome and how long it took.
async fn write_with(other: Repository) -> (Result<Vec<super::fanout::Outcome>>, Duration) {
    let dir = tempfile::tempdir().unwrap();
    let sound = directory(dir.path(), "sound", true).await;
    let started = Instant::now();
    let result = tokio::task::spawn_blocking(move || {
        let mut fan = FanOut::begin(&[&sound, &other], "k");
        let chunk = vec![7u8; 1 << 20];
        let mut sha256 = <sha2::Sha256 as sha2::Digest>::new();
        for _ in 0..40 {
            fan.write_all(&chunk).map_err(|e| crate::codec::from_io("cannot write", "", e))?;
            sha2::Digest::update(&mut sha256, &chunk);
        }
        let digest = crate::model::Digest(sha2::Digest::finalize(sha256).into());
        fan.finish(&Sealed {
            plain_bytes: 0,
            stored_bytes: 40 << 20,
            plain_sha256: digest,
            stored_sha256: digest,
        })
    })
    .await
    .unwrap();
    (result, started.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_optional_repository_that_hangs_or_fails_is_abandoned_and_reported() {
    for hang in [true, false] {
        let (result, took) = write_with(faulty(false, hang)).await;
        let outcomes = result.unwrap();
        assert!(outcomes[0].1.is_ok() && outcomes[1].1.is_err(), "{outcomes:?}");
        assert!(took < PATIENCE * 3 + Duration::from_secs(3), "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_repository_that_fails_ends_the_work_with_its_error() {
    let (result, _) = write_with(faulty(true, false)).await;
    assert_eq!(result.unwrap_err().code(), Code::StoreUnavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_took_something_else_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let sound = directory(dir.path(), "sound", true).await;
    let result = tokio::task::spawn_blocking(move || {
        let mut fan = FanOut::begin(&[&sound], "k");
        fan.write_all(b"abc").unwrap();
        let digest = crate::model::Digest([0; 32]);
        fan.finish(&Sealed { plain_bytes: 3, stored_bytes: 4, plain_sha256: digest, stored_sha256: digest })
    });
    assert_eq!(result.await.unwrap().unwrap_err().code(), Code::StoreLied);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_write_leaves_no_object() {
    let dir = tempfile::tempdir().unwrap();
    let sound = directory(dir.path(), "sound", true).await;
    let storage = sound.storage.clone();
    tokio::task::spawn_blocking(move || {
        let mut fan = FanOut::begin(&[&sound], "main/k");
        fan.write_all(&vec![1; 9 << 20]).unwrap();
    })
    .await
    .unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(storage.list("main/", None).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_object_reaches_all_that_answer() {
    let dir = tempfile::tempdir().unwrap();
    let sound = directory(dir.path(), "sound", true).await;
    let slow = faulty(false, true);
    let outcomes =
        put_everywhere(&[&slow, &sound], "k", &Bytes::from_static(b"x"), Duration::from_millis(100)).await;
    assert!(outcomes[0].1.is_ok() && outcomes[0].0 == name("sound"));
    assert_eq!(outcomes[1].1.as_ref().unwrap_err().code(), Code::StoreUnavailable);
}

pub(super) fn record() -> BackupRecord {
    let base = BaseBackup {
        timeline: crate::model::TimelineId(1),
        start_lsn: "0/3000028".parse().unwrap(),
        stop_lsn: "0/5000100".parse().unwrap(),
        stop_time: at("2026-11-21T02:03:00.5Z"),
        wal_first: crate::model::SegmentName::parse("000000010000000000000003").unwrap(),
        wal_last: crate::model::SegmentName::parse("000000010000000000000005").unwrap(),
        wal_segment_bytes: SegmentSize::DEFAULT,
        from_standby: false,
        data_checksums: true,
        page_errors: vec![PageErrors { file: "base/5/16384".into(), blocks: vec![3] }],
        parent: None,
        tablespaces: vec![super::record::TablespaceEntry { oid: 16400, location: "/srv/fast".into() }],
        requires: vec![],
    };
    BackupRecord {
        format: 1,
        id: crate::model::BackupId::parse("20261121T020000Z-full-3f9a").unwrap(),
        kind: crate::model::BackupKind::Full,
        cluster: main_cluster(),
        host: "db1".into(),
        pgkeep_version: "0.1.0".into(),
        started_at: at("2026-11-21T02:00:00Z"),
        finished_at: at("2026-11-21T02:04:00Z"),
        pg_version: "18.6".into(),
        system_identifier: SystemId(7_512_345_678_901_234_567),
        recipients: vec!["age1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs3290gq".into()],
        codec: "zstd+age".into(),
        bytes_raw: 40_000_000,
        bytes_stored: 8_000_000,
        objects: vec![ObjectEntry {
            key: "data/00001.tar.zst.age".into(),
            bytes: 7_999_000,
            sha256: crate::model::Digest([0xab; 32]),
        }],
        label: Some("before the migration".into()),
        base: Some(base),
        logical: None,
    }
}

const GOLDEN: &[u8] = include_bytes!("../../tests/fixtures/format1/backup.json");

#[test]
fn a_record_of_format_1_keeps_its_form() {
    assert_eq!(String::from_utf8(record().to_bytes().unwrap()).unwrap(), String::from_utf8_lossy(GOLDEN));
    assert_eq!(BackupRecord::parse(GOLDEN, "golden").unwrap(), record());
    assert!(record().is_damaged());
    assert_eq!(record().major(), Some(PgMajor(18)));
}

#[test]
fn a_record_that_makes_no_sense_is_damaged() {
    let golden = String::from_utf8_lossy(GOLDEN);
    for (what, with, code) in [
        ("\"format\": 1", "\"format\": 2", Code::FormatTooNew),
        ("\"start_lsn\": \"0/3000028\",", "", Code::Damaged),
        ("\"0/5000100\"", "\"0/1\"", Code::Damaged),
        ("data/00001", "../00001", Code::Damaged),
        ("\"kind\": \"full\"", "\"kind\": \"dump\"", Code::Damaged),
        ("\"kind\": \"full\"", "\"kind\": \"odd\"", Code::Damaged),
    ] {
        let text = golden.replace(what, with);
        assert_ne!(text, golden, "{what}");
        assert_eq!(BackupRecord::parse(text.as_bytes(), "x").unwrap_err().code(), code, "{what}");
    }
    let newer = golden.replacen('{', "{ \"later\": {\"x\": 1},", 1);
    assert_eq!(BackupRecord::parse(newer.as_bytes(), "x").unwrap(), record());
}

#[tokio::test]
async fn the_catalog_shows_what_is_trusted_what_is_not_and_what_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let repo = directory(dir.path(), "a", true).await;
    let host = HostKey::generate().unwrap();
    let ids = ["20261121T020000Z-full-0001", "20261122T020000Z-full-0002", "20261123T020000Z-full-0003"];
    let put = async |key: String, bytes: Vec<u8>| repo.storage.put(&key, Bytes::from(bytes)).await.unwrap();
    for (number, id) in ids.iter().enumerate() {
        let id = crate::model::BackupId::parse(id).unwrap();
        let key = keys::backup::record(&main_cluster(), &id);
        let bytes = BackupRecord { id: id.clone(), ..record() }.to_bytes().unwrap();
        match number {
            0 => {
                let signature = host.sign(&bytes, "backup.json", at("2026-11-21T02:00:00Z")).unwrap();
                put(keys::backup::signature(&main_cluster(), &id), signature.into_bytes()).await;
                put(key, bytes).await;
            }
            1 => _ = put(key, bytes).await,
            _ => _ = put(key, b"{}".to_vec()).await,
        }
    }
    put("main/backups/20261124T020000Z-full-0004/data/00001.tar.zst".into(), vec![1; 10]).await;
    put("main/backups/stray".into(), vec![1]).await;
    let marked = crate::model::BackupId::parse(ids[0]).unwrap();
    put(keys::marks::mark(&main_cluster(), &marked, at("2026-11-25T00:00:00Z"), "pinned"), b"{}".to_vec())
        .await;

    let catalog = Catalog::load(&repo, &main_cluster(), &Trust::new([host.public().clone()])).await.unwrap();
    let shown: Vec<_> = catalog.backups.iter().map(|e| (e.record.id.as_str(), e.is_trusted())).collect();
    assert_eq!(shown, [(ids[0], true), (ids[1], false)]);
    assert!(matches!(&catalog.backups[1].trust, Verdict::Untrusted(why) if why.contains("not signed")));
    assert_eq!(catalog.backups[0].marks[0].mark, "pinned");
    assert_eq!(catalog.unreadable.len(), 1);
    assert!(catalog.unreadable[0].0.contains(ids[2]));
    assert_eq!(catalog.unpublished.values().collect::<Vec<_>>(), [&10]);
    assert!(catalog.newest_base(|_| true).is_none(), "a damaged backup is chosen by nothing");
}
