//! Limits on what one store is asked to do: requests at once, and bytes per second in either direction.
//!
//! A permit is held only while a request is being made, never while the caller works: holding one for the life of
//! a body or an upload could make two tasks wait for each other. The bandwidth is one account per direction for
//! all users; who comes later waits for those before, up to a second's worth passes at once.
//!
//! Cancellation: a waiter that is dropped leaves the queue; what it had reserved is lost to nobody but time.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::{Body, Key, ObjectInfo, Storage, Stored, Upload};
use crate::error::{Error, Result};

/// An account of bytes over time.
#[derive(Debug)]
struct Bandwidth {
    bytes_per_second: u64,
    /// When all that was promised so far will have passed.
    paid_until: Mutex<Instant>,
}

impl Bandwidth {
    fn new(bytes_per_second: u64) -> Arc<Self> {
        Arc::new(Self { bytes_per_second: bytes_per_second.max(1), paid_until: Mutex::new(Instant::now()) })
    }

    /// Until when the next `bytes` have to wait.
    fn reserve(&self, bytes: usize, now: Instant) -> Instant {
        const BURST: Duration = Duration::from_secs(1);
        let mut paid = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = (*paid).max(now.checked_sub(BURST).unwrap_or(now));
        *paid = begin + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        *paid
    }

    async fn pass(this: Option<&Arc<Self>>, bytes: usize) {
        if let Some(bandwidth) = this {
            tokio::time::sleep_until(bandwidth.reserve(bytes, Instant::now())).await;
        }
    }
}

/// The decorator.
pub struct Limited {
    inner: Arc<dyn Storage>,
    permits: Arc<Semaphore>,
    up: Option<Arc<Bandwidth>>,
    down: Option<Arc<Bandwidth>>,
}

impl Limited {
    /// `concurrency` requests at once (at least 1); bytes per second up and down, None without limit.
    pub fn new(inner: Arc<dyn Storage>, concurrency: usize, up: Option<u64>, down: Option<u64>) -> Self {
        let permits = Arc::new(Semaphore::new(concurrency.clamp(1, Semaphore::MAX_PERMITS)));
        Self { inner, permits, up: up.map(Bandwidth::new), down: down.map(Bandwidth::new) }
    }
}

async fn permit(permits: &Semaphore) -> Result<SemaphorePermit<'_>> {
    permits.acquire().await.map_err(|e| Error::internal("a limit was closed").because(e))
}

struct LimitedUpload {
    inner: Box<dyn Upload>,
    permits: Arc<Semaphore>,
    up: Option<Arc<Bandwidth>>,
}

#[async_trait]
impl Upload for LimitedUpload {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        Bandwidth::pass(self.up.as_ref(), chunk.len()).await;
        let _permit = permit(&self.permits).await?;
        self.inner.write(chunk).await
    }
    async fn finish(self: Box<Self>) -> Result<Stored> {
        let _permit = permit(&self.permits).await?;
        self.inner.finish().await
    }
    async fn abort(self: Box<Self>) -> Result<()> {
        self.inner.abort().await
    }
}

#[async_trait]
impl Storage for Limited {
    fn location(&self) -> &str {
        self.inner.location()
    }
    async fn head(&self, key: &Key) -> Result<Option<ObjectInfo>> {
        let _permit = permit(&self.permits).await?;
        self.inner.head(key).await
    }
    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<Body> {
        let body = {
            let _permit = permit(&self.permits).await?;
            self.inner.get(key, range).await?
        };
        let Some(down) = self.down.clone() else { return Ok(body) };
        Ok(body
            .and_then(move |piece| {
                let down = Arc::clone(&down);
                async move {
                    Bandwidth::pass(Some(&down), piece.len()).await;
                    Ok(piece)
                }
            })
            .boxed())
    }
    async fn put(&self, key: &Key, body: Bytes) -> Result<Stored> {
        Bandwidth::pass(self.up.as_ref(), body.len()).await;
        let _permit = permit(&self.permits).await?;
        self.inner.put(key, body).await
    }
    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        let _permit = permit(&self.permits).await?;
        let inner = self.inner.upload(key).await?;
        Ok(Box::new(LimitedUpload { inner, permits: Arc::clone(&self.permits), up: self.up.clone() }))
    }
    async fn list(&self, prefix: &str, start_after: Option<&Key>) -> Result<Vec<ObjectInfo>> {
        let _permit = permit(&self.permits).await?;
        self.inner.list(prefix, start_after).await
    }
    async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>> {
        let _permit = permit(&self.permits).await?;
        self.inner.list_dirs(prefix).await
    }
    async fn delete(&self, key: &Key) -> Result<()> {
        let _permit = permit(&self.permits).await?;
        self.inner.delete(key).await
    }
    async fn sweep_unfinished(&self, older_than: Duration) -> Result<u64> {
        let _permit = permit(&self.permits).await?;
        self.inner.sweep_unfinished(older_than).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::directory::Directory;
    use crate::storage::faults::{Fault, Faulty, Op};

    #[test]
    fn bytes_pass_at_the_agreed_rate_after_a_second_of_burst() {
        let start = Instant::now() + Duration::from_secs(100);
        let bandwidth = Bandwidth { bytes_per_second: 1000, paid_until: Mutex::new(start) };
        let now = start + Duration::from_mins(1);
        // A long pause saves up one second's worth, not sixty.
        assert_eq!(bandwidth.reserve(1000, now), now);
        assert_eq!(bandwidth.reserve(500, now), now + Duration::from_millis(500));
        assert_eq!(bandwidth.reserve(2000, now), now + Duration::from_millis(2500));
    }

    #[tokio::test]
    async fn no_more_requests_are_made_at_once_than_allowed_and_open_bodies_count_for_none() {
        let root = tempfile::tempdir().unwrap();
        let faulty = Faulty::new(Arc::new(Directory::open(root.path(), 0o600, 0o700).unwrap()));
        let store = Limited::new(Arc::new(faulty.clone()), 2, None, None);
        store.put("a", Bytes::from_static(b"x")).await.unwrap();
        let mut bodies = Vec::new();
        let mut uploads = Vec::new();
        for n in 0..4 {
            bodies.push(store.get("a", None).await.unwrap());
            uploads.push(store.upload(&format!("b/{n}")).await.unwrap());
        }
        faulty.always(Op::Head, Some(Fault::Stall(Duration::from_millis(30))));
        let start = Instant::now();
        let heads = futures::future::join_all((0..8).map(|_| store.head("a"))).await;
        assert!(heads.into_iter().all(|head| head.unwrap().is_some()));
        assert!(start.elapsed() >= Duration::from_millis(4 * 30), "{:?}", start.elapsed());
    }
}
