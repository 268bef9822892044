//! Tells somebody what a store is asked and how it answers: each try with its time, and the bytes that pass. A
//! decorator like the others; it stands right around the driver, below the retries, so that a store that is down is
//! seen at the first refused try and not when patience ends.
//!
//! A long upload is one operation; its time is what was spent inside the store, not the caller's own. A `get` ends when
//! its body begins. "It does not exist" and "it exists already" are answers, not failures.
//!
//! Cancellation: an operation whose future is dropped is told as given up, with the time it had taken.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::{Body, Key, ObjectInfo, Storage, Stored, Upload};
use crate::error::{Code, Error, Result};
use crate::util::clock::Stopwatch;

/// What a store is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    Head,
    Get,
    Put,
    Upload,
    List,
    Delete,
    Sweep,
}

impl Operation {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Get => "get",
            Self::Put => "put",
            Self::Upload => "upload",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Sweep => "sweep",
        }
    }
}

/// How an operation ended.
#[derive(Debug, Clone, Copy)]
pub enum Ending<'a> {
    /// The store answered.
    Answered,
    Failed(&'a Error),
    /// Nobody waited any longer.
    GivenUp,
}

/// Who is told. Called between a store's answer and its user: no waiting, no work.
pub trait Observer: Send + Sync + 'static {
    fn ended(&self, operation: Operation, took: Duration, ending: Ending<'_>);
    /// A body that had begun well failed on its way.
    fn body_failed(&self, error: &Error);
    /// Bytes handed to the store.
    fn sent(&self, bytes: u64);
    /// Bytes of bodies that arrived.
    fn received(&self, bytes: u64);
}

/// The decorator.
pub struct Observed {
    inner: Arc<dyn Storage>,
    observer: Arc<dyn Observer>,
}

impl Observed {
    pub fn new(inner: Arc<dyn Storage>, observer: Arc<dyn Observer>) -> Self {
        Self { inner, observer }
    }

    async fn watch<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let watch = Watch { observer: &*self.observer, operation, begun: Stopwatch::start(), over: false };
        let result = call.await;
        watch.end(result.as_ref().err());
        result
    }
}

/// The store did its part, even if it said no.
fn ending(error: Option<&Error>) -> Ending<'_> {
    match error {
        Some(e) if !matches!(e.code(), Code::ObjectMissing | Code::ObjectExists) => Ending::Failed(e),
        _ => Ending::Answered,
    }
}

/// One operation under way.
struct Watch<'a> {
    observer: &'a dyn Observer,
    operation: Operation,
    begun: Stopwatch,
    over: bool,
}

impl Watch<'_> {
    fn end(mut self, error: Option<&Error>) {
        self.over = true;
        self.observer.ended(self.operation, self.begun.elapsed(), ending(error));
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.observer.ended(self.operation, self.begun.elapsed(), Ending::GivenUp);
        }
    }
}

struct ObservedUpload {
    /// None once it was finished or aborted.
    inner: Option<Box<dyn Upload>>,
    observer: Arc<dyn Observer>,
    /// Inside the store, of the calls that have returned.
    spent: Duration,
    /// Of a call that has not.
    calling: Option<Stopwatch>,
    told: bool,
}

impl ObservedUpload {
    fn call(&mut self) {
        self.calling = Some(Stopwatch::start());
    }
    fn returned(&mut self) {
        self.spent += self.calling.take().map_or(Duration::ZERO, |call| call.elapsed());
    }
    /// Its end, once.
    fn tell(&mut self, ending: Ending<'_>) {
        self.returned();
        if !std::mem::replace(&mut self.told, true) {
            self.observer.ended(Operation::Upload, self.spent, ending);
        }
    }
    fn take(&mut self) -> Result<Box<dyn Upload>> {
        self.inner.take().ok_or_else(|| Error::internal("an upload was used after its end"))
    }
}

impl Drop for ObservedUpload {
    fn drop(&mut self) {
        self.tell(Ending::GivenUp);
    }
}

#[async_trait]
impl Upload for ObservedUpload {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        let bytes = chunk.len() as u64;
        self.call();
        let written = match &mut self.inner {
            Some(inner) => inner.write(chunk).await,
            None => Err(Error::internal("an upload was used after its end")),
        };
        self.returned();
        match &written {
            Ok(()) => self.observer.sent(bytes),
            // What remains is to abort it.
            Err(e) => self.tell(ending(Some(e))),
        }
        written
    }
    async fn finish(mut self: Box<Self>) -> Result<Stored> {
        let inner = self.take()?;
        self.call();
        let finished = inner.finish().await;
        self.tell(ending(finished.as_ref().err()));
        finished
    }
    async fn abort(mut self: Box<Self>) -> Result<()> {
        let inner = self.take()?;
        self.call();
        let aborted = inner.abort().await;
        self.tell(Ending::GivenUp);
        aborted
    }
}

#[async_trait]
impl Storage for Observed {
    fn location(&self) -> &str {
        self.inner.location()
    }
    async fn head(&self, key: &Key) -> Result<Option<ObjectInfo>> {
        self.watch(Operation::Head, self.inner.head(key)).await
    }
    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<Body> {
        let body = self.watch(Operation::Get, self.inner.get(key, range)).await?;
        let (arrived, failed) = (Arc::clone(&self.observer), Arc::clone(&self.observer));
        Ok(body
            .inspect_ok(move |piece| arrived.received(piece.len() as u64))
            .inspect_err(move |e| failed.body_failed(e))
            .boxed())
    }
    async fn put(&self, key: &Key, body: Bytes) -> Result<Stored> {
        let bytes = body.len() as u64;
        let stored = self.watch(Operation::Put, self.inner.put(key, body)).await?;
        self.observer.sent(bytes);
        Ok(stored)
    }
    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        let mut upload = ObservedUpload {
            inner: None,
            observer: Arc::clone(&self.observer),
            spent: Duration::ZERO,
            calling: Some(Stopwatch::start()),
            told: false,
        };
        match self.inner.upload(key).await {
            Ok(inner) => {
                upload.inner = Some(inner);
                upload.returned();
                Ok(Box::new(upload))
            }
            Err(e) => {
                upload.tell(ending(Some(&e)));
                Err(e)
            }
        }
    }
    async fn list(&self, prefix: &str, start_after: Option<&Key>) -> Result<Vec<ObjectInfo>> {
        self.watch(Operation::List, self.inner.list(prefix, start_after)).await
    }
    async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>> {
        self.watch(Operation::List, self.inner.list_dirs(prefix)).await
    }
    async fn delete(&self, key: &Key) -> Result<()> {
        self.watch(Operation::Delete, self.inner.delete(key)).await
    }
    async fn sweep_unfinished(&self, older_than: Duration) -> Result<u64> {
        self.watch(Operation::Sweep, self.inner.sweep_unfinished(older_than)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;
    use crate::storage::directory::Directory;
    use crate::storage::faults::{Fault, Faulty, Op};

    #[derive(Default)]
    struct Diary(Mutex<Vec<String>>);

    impl Diary {
        fn note(&self, line: String) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
        fn take(&self) -> Vec<String> {
            std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
        }
    }

    impl Observer for Diary {
        fn ended(&self, operation: Operation, _: Duration, ending: Ending<'_>) {
            let how = match ending {
                Ending::Answered => "answered".to_owned(),
                Ending::Failed(e) => format!("failed with {}", e.code().as_str()),
                Ending::GivenUp => "given up".to_owned(),
            };
            self.note(format!("{} {how}", operation.as_str()));
        }
        fn body_failed(&self, error: &Error) {
            self.note(format!("body failed with {}", error.code().as_str()));
        }
        fn sent(&self, bytes: u64) {
            self.note(format!("sent {bytes}"));
        }
        fn received(&self, bytes: u64) {
            self.note(format!("received {bytes}"));
        }
    }

    fn observed() -> (tempfile::TempDir, Faulty, Observed, Arc<Diary>) {
        let root = tempfile::tempdir().unwrap();
        let faulty = Faulty::new(Arc::new(Directory::open(root.path(), 0o600, 0o700).unwrap()));
        let diary = Arc::new(Diary::default());
        let observer: Arc<dyn Observer> = diary.clone();
        (root, faulty.clone(), Observed::new(Arc::new(faulty), observer), diary)
    }

    #[tokio::test]
    async fn what_the_store_says_no_to_is_an_answer_and_a_lost_answer_is_a_failure() {
        let (_root, faulty, store, diary) = observed();
        store.put("a", Bytes::from_static(b"four")).await.unwrap();
        assert_eq!(diary.take(), ["put answered", "sent 4"]);
        store.put("a", Bytes::from_static(b"four")).await.unwrap_err();
        store.head("b").await.unwrap();
        let _ = store.get("b", None).await.err().unwrap();
        assert_eq!(diary.take(), ["put answered", "head answered", "get answered"]);
        faulty.always(Op::List, Some(Fault::Before(Code::StoreUnavailable)));
        store.list("", None).await.unwrap_err();
        assert_eq!(diary.take(), ["list failed with store-unavailable"]);
    }

    #[tokio::test]
    async fn a_body_counts_its_bytes_and_the_place_where_it_breaks() {
        let (_root, faulty, store, diary) = observed();
        store.put("a", Bytes::from_static(b"four")).await.unwrap();
        diary.take();
        let _ = super::super::get_bytes(&store, "a", 10).await.unwrap();
        assert_eq!(diary.take(), ["get answered", "received 4"]);
        faulty.always(Op::Get, Some(Fault::BrokenBody(3)));
        super::super::get_bytes(&store, "a", 10).await.unwrap_err();
        assert_eq!(diary.take(), ["get answered", "received 3", "body failed with store-unavailable"]);
    }

    #[tokio::test]
    async fn an_upload_ends_once_whichever_way() {
        let (_root, faulty, store, diary) = observed();
        let mut upload = store.upload("a").await.unwrap();
        upload.write(Bytes::from_static(b"four")).await.unwrap();
        assert_eq!(diary.take(), ["sent 4"]);
        upload.finish().await.unwrap();
        assert_eq!(diary.take(), ["upload answered"]);

        store.upload("b").await.unwrap().abort().await.unwrap();
        drop(store.upload("c").await.unwrap());
        assert_eq!(diary.take(), ["upload given up", "upload given up"]);

        faulty.always(Op::Write, Some(Fault::Before(Code::StoreUnavailable)));
        let mut upload = store.upload("d").await.unwrap();
        upload.write(Bytes::from_static(b"x")).await.unwrap_err();
        upload.abort().await.unwrap();
        assert_eq!(diary.take(), ["upload failed with store-unavailable"]);
    }

    #[tokio::test]
    async fn a_store_that_hangs_until_nobody_waits_is_told_as_given_up() {
        let (_root, faulty, store, diary) = observed();
        faulty.always(Op::Head, Some(Fault::Stall(Duration::from_mins(1))));
        tokio::time::timeout(Duration::from_millis(5), store.head("a")).await.unwrap_err();
        faulty.always(Op::Finish, Some(Fault::Stall(Duration::from_mins(1))));
        let upload = store.upload("a").await.unwrap();
        tokio::time::timeout(Duration::from_millis(5), upload.finish()).await.unwrap_err();
        assert_eq!(diary.take(), ["head given up", "upload given up"]);
    }
}
