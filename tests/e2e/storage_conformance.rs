//! The contract of `storage`, proved on every driver and with every decorator around it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use pgkeep::error::Code;
use pgkeep::storage::directory::Directory;
use pgkeep::storage::faults::{Fault, Faulty, Op};
use pgkeep::storage::limit::Limited;
use pgkeep::storage::observe::{Ending, Observed, Observer, Operation};
use pgkeep::storage::retry::{Retry, RetryPolicy};
use pgkeep::storage::{self, ObjectInfo, Storage, StoreSettings, Stored, collect, get_bytes};

use crate::support::s3::S3;

/// The smallest part that S3 takes.
const PART: usize = 5 << 20;
const ALL: u64 = u64::MAX;

type Store = Arc<dyn Storage>;

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    runtime().block_on(work)
}

/// Bytes that no compression and no zero page could fake.
fn noise(seed: u64, bytes: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(bytes).collect::<Vec<_>>().into()
}

fn stored(bytes: &[u8]) -> Stored {
    Stored { bytes: bytes.len() as u64 }
}

async fn upload(store: &dyn Storage, key: &str, bytes: &Bytes, chunk: usize) -> Stored {
    let mut upload = store.upload(key).await.unwrap();
    for at in (0..bytes.len()).step_by(chunk) {
        upload.write(bytes.slice(at..bytes.len().min(at + chunk))).await.unwrap();
    }
    upload.finish().await.unwrap()
}

async fn keys(store: &dyn Storage, prefix: &str, after: Option<&str>) -> Vec<String> {
    store.list(prefix, after).await.unwrap().into_iter().map(|o| o.key).collect()
}

/// Everything that a store must do. The store is empty before and after.
async fn conforms(store: Store) {
    let store = &*store;
    assert_eq!(store.list("", None).await.unwrap(), []);
    missing_keys_are_missing(store).await;
    small_objects_come_back(store).await;
    long_objects_come_back(store).await;
    ranges_are_exact(store).await;
    nothing_is_overwritten(store).await;
    unfinished_uploads_leave_nothing(store).await;
    listings_are_ordered_and_by_string_prefix(store).await;
    bad_keys_are_refused(store).await;
    for object in store.list("", None).await.unwrap() {
        store.delete(&object.key).await.unwrap();
        assert_eq!(store.head(&object.key).await.unwrap(), None);
    }
    assert_eq!(store.list("", None).await.unwrap(), []);
    assert_eq!(store.list_dirs("").await.unwrap(), Vec::<String>::new());
}

async fn missing_keys_are_missing(store: &dyn Storage) {
    for key in ["missing", "missing/deep/er"] {
        assert_eq!(store.head(key).await.unwrap(), None);
        let error = store.get(key, None).await.err().unwrap();
        assert_eq!(error.code(), Code::ObjectMissing, "{error}");
        assert!(error.to_string().contains(key), "{error}");
        store.delete(key).await.unwrap();
    }
    assert_eq!(store.list("missing", None).await.unwrap(), []);
    assert_eq!(store.list_dirs("missing/").await.unwrap(), Vec::<String>::new());
}

async fn small_objects_come_back(store: &dyn Storage) {
    for (key, size) in [("empty", 0), ("one", 1), ("a/b-c_d~e.f/x.y", 1000), ("a/~.-_", 70_000)] {
        let bytes = noise(size as u64, size);
        assert_eq!(store.put(key, bytes.clone()).await.unwrap(), stored(&bytes));
        assert_eq!(get_bytes(store, key, ALL).await.unwrap(), bytes);
        let info = store.head(key).await.unwrap().unwrap();
        assert_eq!((info.key.as_str(), info.bytes), (key, size as u64));
        let age = pgkeep::util::clock::now().since(info.modified.unwrap());
        assert!(age < Duration::from_hours(1), "{age:?}");
    }
    let error = get_bytes(store, "a/~.-_", 69_999).await.unwrap_err();
    assert_eq!(error.code(), Code::StoreLied);
    // A directory of keys is no object.
    assert_eq!(store.head("a").await.unwrap(), None);
    assert_eq!(store.get("a", None).await.err().unwrap().code(), Code::ObjectMissing);
}

async fn long_objects_come_back(store: &dyn Storage) {
    let sizes = [0, 1, PART - 1, PART, PART + 1, 3 * PART];
    for (n, size) in sizes.into_iter().enumerate() {
        let (key, bytes) = (format!("long/{size}"), noise(7 + size as u64, size));
        // Chunks that fit parts, and others that never do.
        let chunk = if n % 2 == 0 { 1 << 20 } else { 700_001 };
        assert_eq!(upload(store, &key, &bytes, chunk).await, stored(&bytes));
        assert_eq!(store.head(&key).await.unwrap().unwrap().bytes, size as u64);
        assert!(get_bytes(store, &key, ALL).await.unwrap() == bytes, "{size} bytes came back otherwise");
    }
}

async fn ranges_are_exact(store: &dyn Storage) {
    let bytes = noise(1, 3 << 20);
    store.put("ranges", bytes.clone()).await.unwrap();
    let end = bytes.len() as u64;
    let ranges: [Range<u64>; 6] = [0..1, 1..2, 0..end, end - 1..end, 1_000_000..2_500_000, 5..5];
    for range in ranges {
        let body = store.get("ranges", Some(range.clone())).await.unwrap();
        let got = collect(body, ALL).await.unwrap();
        let want = bytes.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap());
        assert!(got == want, "{range:?}");
    }
    for range in [end - 1..end + 1, end + 1..end + 2] {
        let body = store.get("ranges", Some(range.clone())).await;
        assert_eq!(body.err().unwrap().code(), Code::StoreLied, "{range:?}");
    }
    let none = store.get("no-ranges", Some(0..1)).await;
    assert_eq!(none.err().unwrap().code(), Code::ObjectMissing);
}

async fn nothing_is_overwritten(store: &dyn Storage) {
    let (first, second) = (noise(1, 1000), noise(2, 1000));
    store.put("taken", first.clone()).await.unwrap();
    assert_eq!(store.put("taken", second.clone()).await.unwrap_err().code(), Code::ObjectExists);
    let refused = match store.upload("taken").await {
        Err(e) => e,
        Ok(upload) => upload.finish().await.unwrap_err(),
    };
    assert_eq!(refused.code(), Code::ObjectExists);
    // Two uploads of one key: the one that ends last is refused, small or long.
    for size in [1000, PART + 1] {
        let key = format!("race/{size}");
        let (ours, theirs) = (noise(3, size), noise(4, size));
        let (mut a, mut b) = (store.upload(&key).await.unwrap(), store.upload(&key).await.unwrap());
        a.write(ours.clone()).await.unwrap();
        b.write(theirs).await.unwrap();
        a.finish().await.unwrap();
        assert_eq!(b.finish().await.unwrap_err().code(), Code::ObjectExists);
        assert!(get_bytes(store, &key, ALL).await.unwrap() == ours);
    }
    assert_eq!(get_bytes(store, "taken", ALL).await.unwrap(), first);
}

async fn unfinished_uploads_leave_nothing(store: &dyn Storage) {
    for size in [0, 1000, 2 * PART + 1] {
        let mut aborted = store.upload("gone/aborted").await.unwrap();
        aborted.write(noise(1, size)).await.unwrap();
        assert_eq!(store.head("gone/aborted").await.unwrap(), None);
        aborted.abort().await.unwrap();
        let mut dropped = store.upload("gone/dropped").await.unwrap();
        dropped.write(noise(1, size)).await.unwrap();
        drop(dropped);
        // Given up in the middle of a write.
        let mut halfway = store.upload("gone/halfway").await.unwrap();
        let write = halfway.write(noise(1, size));
        let _ = tokio::time::timeout(Duration::from_millis(1), write).await;
        drop(halfway);
    }
    assert_eq!(store.list("gone/", None).await.unwrap(), []);
    assert_eq!(store.list_dirs("").await.unwrap(), ["a", "long", "race"]);
    store.put("gone/aborted", noise(1, 10)).await.unwrap();
}

async fn listings_are_ordered_and_by_string_prefix(store: &dyn Storage) {
    // In the order of bytes, in which `-` and `.` come before the slash and `0` after it.
    let all = ["l/a-b", "l/a.b", "l/a/b", "l/a/c/d", "l/a0", "l/b/~", "l/é"];
    for key in all.iter().rev() {
        store.put(key, Bytes::from_static(b"x")).await.unwrap_or_else(|e| panic!("{key}: {e}"));
    }
    assert_eq!(keys(store, "l/", None).await, all);
    assert_eq!(keys(store, "l/a", None).await, &all[..5]);
    assert_eq!(keys(store, "l/a/", None).await, &all[2..4]);
    assert_eq!(keys(store, "l/a/c", None).await, &all[3..4]);
    assert_eq!(keys(store, "l/a.b", None).await, &all[1..2]);
    assert_eq!(keys(store, "l/x", None).await, Vec::<String>::new());
    for (n, key) in all.iter().enumerate() {
        assert_eq!(keys(store, "l/", Some(key)).await, &all[n + 1..], "after {key}");
    }
    assert_eq!(keys(store, "l/a", Some("l/a/b0")).await, &all[3..5]);
    assert_eq!(keys(store, "l/a", Some("a")).await, &all[..5]);
    assert_eq!(store.list_dirs("l/").await.unwrap(), ["a", "b"]);
    assert_eq!(store.list_dirs("l/a/").await.unwrap(), ["c"]);
    let listed: Vec<ObjectInfo> = store.list("l/a/b", None).await.unwrap();
    assert_eq!(listed[0].bytes, 1);
    assert!(listed[0].modified.is_some());
}

async fn bad_keys_are_refused(store: &dyn Storage) {
    for key in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "a\0b"] {
        let put = store.put(key, Bytes::new()).await.unwrap_err();
        assert_eq!(put.code(), Code::Damaged, "{key:?}");
        assert!(store.get(key, None).await.is_err() && store.head(key).await.is_err());
        assert!(store.delete(key).await.is_err() && store.upload(key).await.is_err());
    }
    assert!(store.list("../", None).await.is_err() && store.list_dirs("/").await.is_err());
}

/// More keys than fit a page of any S3.
async fn pages_are_joined(store: Store) {
    let names: Vec<String> = (0..1100).map(|n| format!("p/{n:04}/x")).collect();
    let puts = futures::stream::iter(names.iter().map(Ok::<_, pgkeep::error::Error>));
    puts.try_for_each_concurrent(32, |key| {
        let store = Arc::clone(&store);
        async move { store.put(key, Bytes::from_static(b"x")).await.map(drop) }
    })
    .await
    .unwrap();
    assert_eq!(keys(&*store, "p/", None).await, names);
    assert_eq!(keys(&*store, "p/", Some(&names[49])).await, names[50..]);
    assert_eq!(store.list_dirs("p/").await.unwrap().len(), 1100);
}

fn quick_retry() -> RetryPolicy {
    RetryPolicy { first_pause: Duration::from_millis(1), ..RetryPolicy::within(Duration::from_mins(1)) }
}

/// The store under faults that the decorators above hide.
fn troubled(inner: Store) -> Store {
    let mut faulty = Faulty::new(inner);
    for (n, op) in
        [Op::Head, Op::Get, Op::Put, Op::List, Op::ListDirs, Op::Delete, Op::Upload].into_iter().enumerate()
    {
        for nth in 1..40 {
            let fault = match (nth + u32::try_from(n).unwrap()) % 4 {
                0 => Fault::Before(Code::StoreUnavailable),
                1 if op == Op::Get => Fault::ShortBody(u64::from(nth) * 1000),
                // A delete or put that took effect, a listing that was lost.
                1 if op != Op::Upload => Fault::After(Code::StoreUnavailable),
                2 => Fault::Stall(Duration::from_millis(2)),
                _ => continue,
            };
            faulty = faulty.on(op, nth, fault);
        }
    }
    Arc::new(Limited::new(
        Arc::new(Retry::new(Arc::new(faulty), quick_retry())),
        4,
        Some(1 << 30),
        Some(1 << 30),
    ))
}

/// Somebody who is told and does nothing.
struct Deaf;

impl Observer for Deaf {
    fn ended(&self, _: Operation, _: Duration, _: Ending<'_>) {}
    fn body_failed(&self, _: &pgkeep::error::Error) {}
    fn sent(&self, _: u64) {}
    fn received(&self, _: u64) {}
}

fn observed(inner: Store) -> Store {
    Arc::new(Observed::new(inner, Arc::new(Deaf)))
}

fn directory(root: &tempfile::TempDir) -> Store {
    Arc::new(Directory::open(root.path(), 0o600, 0o700).unwrap())
}

/// Settings for the bucket, with its credentials in a file.
pub(crate) fn settings(bucket: &S3, scratch: &tempfile::TempDir) -> StoreSettings {
    let server = bucket.server();
    let file = scratch.path().join("credentials");
    let lines = format!(
        "[default]\naws_access_key_id={}\naws_secret_access_key={}\n",
        server.access_key, server.secret_key
    );
    std::fs::write(&file, lines).unwrap();
    StoreSettings {
        endpoint: Some(server.endpoint.clone()),
        credentials_file: Some(file),
        part_size: PART as u64,
        ..StoreSettings::new(format!("s3://{}/below/here", bucket.bucket()))
    }
}

fn bucket_conforms(change: impl FnOnce(&S3, &mut StoreSettings), wrap: impl FnOnce(Store) -> Store) {
    let (bucket, scratch) = (S3::fresh_bucket(), tempfile::tempdir().unwrap());
    // A neighbour whose name begins alike.
    bucket.put("below/here-too", b"x");
    let mut settings = settings(&bucket, &scratch);
    change(&bucket, &mut settings);
    let runtime = runtime();
    runtime.block_on(async { conforms(wrap(storage::open(&settings).await.unwrap())).await });
    // Dropped uploads are aborted from tasks of their own.
    for _ in 0..100 {
        if bucket.unfinished_uploads().is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(bucket.unfinished_uploads(), Vec::<String>::new());
    assert_eq!(bucket.list(""), ["below/here-too"]);
}

#[test]
fn a_directory_conforms() {
    let root = tempfile::tempdir().unwrap();
    let runtime = runtime();
    runtime.block_on(conforms(directory(&root)));
    // Dropped uploads are removed from tasks of their own, which end with the runtime.
    crate::support::eventually("no temporary or directory is left", Duration::from_secs(10), || {
        std::fs::read_dir(root.path()).unwrap().count() == 0
    });
}

#[test]
fn a_directory_conforms_as_it_is_opened_by_its_url() {
    let root = tempfile::tempdir().unwrap();
    let settings = StoreSettings::new(format!("file://{}", root.path().display()));
    run(async { conforms(storage::open(&settings).await.unwrap()).await });
}

#[test]
fn a_directory_conforms_in_spite_of_passing_faults() {
    let root = tempfile::tempdir().unwrap();
    run(conforms(troubled(directory(&root))));
}

#[test]
fn a_directory_conforms_while_somebody_watches() {
    let root = tempfile::tempdir().unwrap();
    run(conforms(troubled(observed(directory(&root)))));
}

#[test]
fn a_directory_lists_many_keys() {
    let root = tempfile::tempdir().unwrap();
    run(pages_are_joined(directory(&root)));
}

#[test]
fn a_bucket_conforms() {
    bucket_conforms(|_, _| {}, |store| store);
}

#[test]
fn a_bucket_conforms_with_conditional_writes_through_tls() {
    bucket_conforms(
        |bucket, settings| {
            settings.conditional_writes = true;
            settings.endpoint = Some(bucket.server().https_endpoint.clone());
            settings.ca_file = Some(bucket.server().ca_file.clone());
        },
        |store| store,
    );
}

#[test]
fn a_bucket_conforms_in_spite_of_passing_faults() {
    bucket_conforms(|_, _| {}, troubled);
}

#[test]
fn a_bucket_conforms_while_somebody_watches() {
    bucket_conforms(|_, _| {}, observed);
}

#[test]
fn a_bucket_lists_many_keys() {
    let (bucket, scratch) = (S3::fresh_bucket(), tempfile::tempdir().unwrap());
    let settings = settings(&bucket, &scratch);
    run(async { pages_are_joined(storage::open(&settings).await.unwrap()).await });
}
