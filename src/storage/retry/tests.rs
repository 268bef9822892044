use tempfile::TempDir;

use super::*;
use crate::storage::directory::Directory;
use crate::storage::faults::{Fault, Faulty, Op};
use crate::storage::{collect, get_bytes};

const BUSY: Fault = Fault::Before(Code::StoreUnavailable);

struct Fixture {
    /// Past the script, as another writer reaches it.
    directory: Arc<Directory>,
    faulty: Faulty,
    retry: Retry,
    _root: TempDir,
}

/// A retrying store over a directory with 3 MiB at `there`, under the faults of `script`.
async fn fixture(script: impl FnOnce(Faulty) -> Faulty) -> Fixture {
    let root = tempfile::tempdir().unwrap();
    let directory = Arc::new(Directory::open(root.path(), 0o600, 0o700).unwrap());
    directory.put("there", content()).await.unwrap();
    let faulty = script(Faulty::new(directory.clone()));
    let policy = RetryPolicy {
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(5),
        ..RetryPolicy::within(Duration::from_secs(10))
    };
    Fixture { directory, retry: Retry::new(Arc::new(faulty.clone()), policy), faulty, _root: root }
}

fn content() -> Bytes {
    (0..3_u32 << 20).map(|n| u8::try_from(n % 251).unwrap()).collect::<Vec<_>>().into()
}

#[tokio::test]
async fn what_passes_is_waited_for_and_what_does_not_is_said_at_once() {
    let f = fixture(|f| f.on(Op::Head, 1, BUSY).on(Op::Head, 2, BUSY)).await;
    assert!(f.retry.head("there").await.unwrap().is_some());
    assert_eq!(f.faulty.calls(Op::Head), 3);
    f.faulty.always(Op::List, Some(Fault::Before(Code::StoreDenied)));
    assert_eq!(f.retry.list("", None).await.unwrap_err().code(), Code::StoreDenied);
    assert_eq!(f.faulty.calls(Op::List), 1);
    assert_eq!(f.retry.get("missing", None).await.err().unwrap().code(), Code::ObjectMissing);
    assert_eq!(f.faulty.calls(Op::Get), 1);
}

#[tokio::test]
async fn a_store_that_always_lies_is_not_asked_for_ever() {
    let f = fixture(|f| f).await;
    f.faulty.always(Op::Head, Some(Fault::Before(Code::StoreLied)));
    assert_eq!(f.retry.head("there").await.unwrap_err().code(), Code::StoreLied);
    assert_eq!(f.faulty.calls(Op::Head), f.retry.policy.lies);
}

#[tokio::test]
async fn the_deadline_holds_for_a_silent_store_and_for_a_busy_one() {
    let mut f = fixture(|f| f).await;
    f.retry.policy.deadline = Duration::from_millis(80);
    for fault in [Fault::Stall(Duration::from_mins(10)), BUSY] {
        f.faulty.always(Op::List, Some(fault));
        let start = Instant::now();
        let error = f.retry.list("", None).await.unwrap_err();
        assert_eq!(error.code(), Code::StoreUnavailable);
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
    assert!(f.faulty.calls(Op::List) > 3);
}

#[tokio::test]
async fn a_put_whose_answer_was_lost_succeeds_and_was_done_once() {
    let f = fixture(|f| f.on(Op::Put, 1, Fault::After(Code::StoreUnavailable))).await;
    let stored = f.retry.put("new", Bytes::from_static(b"ours")).await.unwrap();
    assert_eq!(stored.bytes, 4);
    assert_eq!(f.faulty.calls(Op::Put), 2);
    assert_eq!(get_bytes(&f.retry, "new", 10).await.unwrap(), "ours");
}

#[tokio::test]
async fn a_put_never_takes_another_writers_object_for_its_own() {
    // The first try does nothing; by the second, somebody else has written bytes of the same length.
    let f = fixture(|f| f.on(Op::Put, 1, BUSY)).await;
    f.directory.put("new", Bytes::from_static(b"his!")).await.unwrap();
    let error = f.retry.put("new", Bytes::from_static(b"ours")).await.unwrap_err();
    assert_eq!(error.code(), Code::ObjectExists);
    // On the first try even the same bytes are no success of ours.
    let error = f.retry.put("new", Bytes::from_static(b"his!")).await.unwrap_err();
    assert_eq!(error.code(), Code::ObjectExists);
}

#[tokio::test]
async fn a_broken_body_carries_on_from_the_byte_reached() {
    let ranges = [None, Some(0..3 << 20), Some(1_000_000..2_500_000), Some(7..8)];
    for range in ranges {
        let f = fixture(|f| {
            // Each answer brings a bit more; one of them brings nothing.
            let short = [500_000, 0, 1_200_000, 1];
            short.into_iter().zip(1..).fold(f, |f, (keep, nth)| f.on(Op::Get, nth, Fault::ShortBody(keep)))
        })
        .await;
        let body = f.retry.get("there", range.clone()).await.unwrap();
        let want = range.map_or(content(), |r| {
            content().slice(usize::try_from(r.start).unwrap()..usize::try_from(r.end).unwrap())
        });
        assert!(collect(body, u64::MAX).await.unwrap() == want);
    }
}

#[tokio::test]
async fn a_body_that_breaks_before_its_next_byte_every_time_ends_in_an_error() {
    let f = fixture(|f| f).await;
    f.faulty.always(Op::Get, Some(Fault::ShortBody(0)));
    let body = f.retry.get("there", None).await.unwrap();
    assert_eq!(collect(body, u64::MAX).await.unwrap_err().code(), Code::StoreLied);
    assert_eq!(f.faulty.calls(Op::Get), f.retry.policy.lies);
}

#[tokio::test]
async fn a_connection_that_breaks_before_its_next_byte_every_time_ends_at_the_deadline() {
    let mut f = fixture(|f| f).await;
    f.retry.policy.deadline = Duration::from_millis(80);
    f.faulty.always(Op::Get, Some(Fault::BrokenBody(0)));
    let body = f.retry.get("there", None).await.unwrap();
    let start = Instant::now();
    assert_eq!(collect(body, u64::MAX).await.unwrap_err().code(), Code::StoreUnavailable);
    assert!(start.elapsed() < Duration::from_secs(2));
    // With pauses, not as fast as it can.
    assert!(f.faulty.calls(Op::Get) < 60, "{}", f.faulty.calls(Op::Get));
}

#[tokio::test]
async fn an_object_that_vanishes_while_it_is_read_is_an_error_not_an_end() {
    let f = fixture(|f| f.on(Op::Get, 1, Fault::ShortBody(1000))).await;
    let body = f.retry.get("there", None).await.unwrap();
    f.retry.delete("there").await.unwrap();
    assert_eq!(collect(body, u64::MAX).await.unwrap_err().code(), Code::ObjectMissing);
}
