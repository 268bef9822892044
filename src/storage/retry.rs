//! Tries again what may pass: an unreachable store, a damaged or cut-short answer. Exponential pauses with jitter
//! under one deadline per operation; everything else is returned at once.
//!
//! * A `put` whose first try took effect though its answer was lost must succeed: when a later try finds the key
//!   taken, the stored bytes are compared with ours.
//! * A body that breaks is asked for again from the byte reached, for the rest of the same length.
//! * Each part of an upload is retried by the driver, which gets the same [`RetryPolicy`]: nobody else has its bytes.
//!
//! Cancellation: dropping the future ends it between or within tries; nothing runs on.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{Body, Key, ObjectInfo, Storage, Stored, Upload, place};
use crate::error::{Code, Error, Result};

/// The failed try after which somebody may wonder why nothing happens: a few seconds.
const TELL_AFTER: u32 = 5;

/// How long and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// For the operation with all its tries and pauses.
    pub deadline: Duration,
    pub first_pause: Duration,
    pub longest_pause: Duration,
    /// Tries that may end in `StoreLied`: a store that lies every time is broken, not busy.
    pub lies: u32,
}

impl RetryPolicy {
    pub fn within(deadline: Duration) -> Self {
        Self {
            deadline,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(10),
            lies: 4,
        }
    }

    /// Calls `attempt` (1, 2, …) until it succeeds, fails for good, or the deadline has come.
    pub async fn run<T, F, A>(&self, mut attempt: A) -> Result<T>
    where
        F: Future<Output = Result<T>>,
        A: FnMut(u32) -> F,
    {
        let start = Instant::now();
        let end = start + self.deadline;
        let mut pauses = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(self.first_pause)
            .with_max_delay(self.longest_pause)
            .without_max_times()
            .build();
        let (mut last, mut lies) = (None, 0);
        for tries in 1.. {
            let Ok(result) = tokio::time::timeout_at(end, attempt(tries)).await else {
                return Err(gave_up(last, tries, self.deadline));
            };
            let error = match result {
                Err(e) if e.code() == Code::StoreUnavailable => e,
                Err(e) if e.code() == Code::StoreLied && lies + 1 < self.lies => {
                    lies += 1;
                    e
                }
                Err(e) if tries > 1 => return Err(after_tries(e, tries, start)),
                done => return done,
            };
            if tries == TELL_AFTER {
                let left = humantime::format_duration(Duration::from_secs(
                    end.saturating_duration_since(Instant::now()).as_secs(),
                ));
                tracing::warn!("the store fails and is asked again, for {left} at most: {error}");
            } else {
                tracing::debug!(%error, tries, "the store will be asked again");
            }
            let pause = pauses.next().unwrap_or(self.longest_pause);
            if Instant::now() + pause >= end {
                return Err(after_tries(error, tries, start));
            }
            tokio::time::sleep(pause).await;
            last = Some(error);
        }
        Err(Error::internal("tries ran out of numbers"))
    }
}

fn gave_up(last: Option<Error>, tries: u32, deadline: Duration) -> Error {
    let within = humantime::format_duration(deadline);
    match last {
        Some(e) => e.while_doing(format!("the store did not do it within {within}, tries: {tries}")),
        None => Error::new(Code::StoreUnavailable, format!("the store did not answer within {within}"))
            .hint("look at the network and at the store, or allow it more time"),
    }
}

fn after_tries(error: Error, tries: u32, start: Instant) -> Error {
    // Callers branch on these; the tries are no part of the story.
    if matches!(error.code(), Code::ObjectMissing | Code::ObjectExists) || tries == 1 {
        return error;
    }
    let took = start.elapsed().as_secs_f32();
    error.while_doing(format!("the store failed, tries: {tries} in {took:.1} s"))
}

/// After `ObjectExists` on a try that was not the first: `Ok` when what lies there are our own bytes.
pub(super) async fn own_write(
    storage: &dyn Storage,
    key: &Key,
    body: &Bytes,
    exists: Error,
) -> Result<Stored> {
    let ours = Stored { bytes: body.len() as u64 };
    if storage.head(key).await?.is_none_or(|found| found.bytes != ours.bytes) {
        return Err(exists);
    }
    let mut theirs = Sha256::new();
    let mut stored = storage.get(key, None).await?;
    while let Some(piece) = stored.try_next().await? {
        theirs.update(&piece);
    }
    if theirs.finalize() == Sha256::digest(body) { Ok(ours) } else { Err(exists) }
}

/// A `put` with retries on any store, which knows its own lost answers.
pub(super) async fn put(
    storage: &dyn Storage,
    policy: &RetryPolicy,
    key: &Key,
    body: Bytes,
) -> Result<Stored> {
    let body = &body;
    policy
        .run(|tries| async move {
            match storage.put(key, body.clone()).await {
                Err(e) if e.code() == Code::ObjectExists && tries > 1 => {
                    own_write(storage, key, body, e).await
                }
                done => done,
            }
        })
        .await
}

/// The decorator.
pub struct Retry {
    inner: Arc<dyn Storage>,
    policy: RetryPolicy,
}

impl Retry {
    pub fn new(inner: Arc<dyn Storage>, policy: RetryPolicy) -> Self {
        Self { inner, policy }
    }
}

/// A body that carries on where it broke.
struct Resuming {
    inner: Arc<dyn Storage>,
    policy: RetryPolicy,
    key: String,
    body: Body,
    /// The next byte of the object; and the end, once it is known.
    at: u64,
    end: Option<u64>,
    /// Since the last byte that arrived: breaks, those among them that were lies, and when it began.
    breaks: u32,
    lies: u32,
    broken_since: Option<Instant>,
}

impl Resuming {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.body.try_next().await {
                // An empty piece is no progress.
                Ok(Some(piece)) if piece.is_empty() => {}
                Ok(Some(piece)) => {
                    self.at += piece.len() as u64;
                    (self.breaks, self.lies, self.broken_since) = (0, 0, None);
                    return Ok(Some(piece));
                }
                Ok(None) => return Ok(None),
                Err(e) => self.resume(e).await?,
            }
        }
    }

    async fn resume(&mut self, broken: Error) -> Result<()> {
        self.lies += u32::from(broken.code() == Code::StoreLied);
        let passing = matches!(broken.code(), Code::StoreUnavailable | Code::StoreLied);
        let since = *self.broken_since.get_or_insert_with(Instant::now);
        if !passing || self.lies >= self.policy.lies || since.elapsed() >= self.policy.deadline {
            return Err(broken);
        }
        if self.breaks > 0 {
            let pause = self.policy.first_pause * 2_u32.pow(self.breaks.min(16));
            tokio::time::sleep(pause.min(self.policy.longest_pause)).await;
        }
        self.breaks += 1;
        tracing::debug!(error = %broken, key = self.key, at = self.at, "a body broke; asking for the rest");
        let (storage, key, at) = (&*self.inner, self.key.as_str(), self.at);
        let end = match self.end {
            Some(end) => end,
            None => self.policy.run(|_| length(storage, key)).await?,
        };
        if at > end {
            return Err(broken);
        }
        self.end = Some(end);
        self.body = if at == end {
            futures::stream::empty().boxed()
        } else {
            self.policy.run(|_| storage.get(key, Some(at..end))).await?
        };
        Ok(())
    }
}

async fn length(storage: &dyn Storage, key: &Key) -> Result<u64> {
    match storage.head(key).await? {
        Some(info) => Ok(info.bytes),
        None => {
            Err(Error::new(Code::ObjectMissing, "the object vanished while it was read")
                .at(place(storage, key)))
        }
    }
}

#[async_trait]
impl Storage for Retry {
    fn location(&self) -> &str {
        self.inner.location()
    }
    async fn head(&self, key: &Key) -> Result<Option<ObjectInfo>> {
        self.policy.run(|_| self.inner.head(key)).await
    }
    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<Body> {
        let body = self.policy.run(|_| self.inner.get(key, range.clone())).await?;
        let resuming = Resuming {
            inner: Arc::clone(&self.inner),
            policy: self.policy,
            key: key.to_owned(),
            body,
            at: range.as_ref().map_or(0, |r| r.start),
            end: range.map(|r| r.end),
            breaks: 0,
            lies: 0,
            broken_since: None,
        };
        Ok(futures::stream::try_unfold(resuming, |mut resuming| async move {
            Ok(resuming.next().await?.map(|piece| (piece, resuming)))
        })
        .boxed())
    }
    async fn put(&self, key: &Key, body: Bytes) -> Result<Stored> {
        put(&*self.inner, &self.policy, key, body).await
    }
    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        self.policy.run(|_| self.inner.upload(key)).await
    }
    async fn list(&self, prefix: &str, start_after: Option<&Key>) -> Result<Vec<ObjectInfo>> {
        self.policy.run(|_| self.inner.list(prefix, start_after)).await
    }
    async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>> {
        self.policy.run(|_| self.inner.list_dirs(prefix)).await
    }
    async fn delete(&self, key: &Key) -> Result<()> {
        self.policy.run(|_| self.inner.delete(key)).await
    }
    async fn sweep_unfinished(&self, older_than: Duration) -> Result<u64> {
        self.policy.run(|_| self.inner.sweep_unfinished(older_than)).await
    }
}

#[cfg(test)]
mod tests;
