//! Faults on demand, for tests of what lies above: the n-th call of an operation fails before or after it took
//! effect, hangs, or delivers a body that ends early. A decorator like the others; without a script it changes
//! nothing, and it counts calls.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

use super::{Body, Key, ObjectInfo, Storage, Stored, Upload};
use crate::error::{Code, Error, Result};

/// What can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    Head,
    Get,
    Put,
    Upload,
    Write,
    Finish,
    Abort,
    List,
    ListDirs,
    Delete,
    Sweep,
}

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An error; the store has not been asked.
    Before(Code),
    /// An error though the store has done it: the lost answer.
    After(Code),
    /// No answer for this long, then the call goes through.
    Stall(Duration),
    /// `get`: this many bytes, then `StoreLied`.
    ShortBody(u64),
    /// `get`: this many bytes, then `StoreUnavailable`, as when the connection breaks.
    BrokenBody(u64),
}

#[derive(Default)]
struct Script {
    /// Keyed by the call's number, from 1.
    faults: HashMap<(Op, u32), Fault>,
    every: HashMap<Op, Fault>,
    calls: HashMap<Op, u32>,
}

/// The decorator. Clones share the script and the counts.
#[derive(Clone)]
pub struct Faulty {
    inner: Arc<dyn Storage>,
    script: Arc<Mutex<Script>>,
}

impl Faulty {
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner, script: Arc::default() }
    }
    /// The `nth` call (from 1) of `op` fails so.
    pub fn on(self, op: Op, nth: u32, fault: Fault) -> Self {
        self.script().faults.insert((op, nth), fault);
        self
    }
    /// From now on every call of `op` fails so, or None: none does.
    pub fn always(&self, op: Op, fault: Option<Fault>) {
        match fault {
            Some(fault) => self.script().every.insert(op, fault),
            None => self.script().every.remove(&op),
        };
    }
    /// How often `op` was called.
    pub fn calls(&self, op: Op) -> u32 {
        self.script().calls.get(&op).copied().unwrap_or(0)
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn next(&self, op: Op) -> Option<Fault> {
        let mut script = self.script();
        let nth = script.calls.entry(op).or_default();
        *nth += 1;
        let nth = *nth;
        script.faults.remove(&(op, nth)).or_else(|| script.every.get(&op).copied())
    }

    /// Runs `call` under the fault that is due.
    async fn play<T>(&self, op: Op, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        Self::suffer(op, self.next(op), call).await
    }

    async fn suffer<T>(
        op: Op,
        fault: Option<Fault>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        match fault {
            Some(Fault::Before(code)) => Err(failure(op, code)),
            Some(Fault::After(code)) => {
                call.await?;
                Err(failure(op, code))
            }
            Some(Fault::Stall(pause)) => {
                tokio::time::sleep(pause).await;
                call.await
            }
            Some(Fault::ShortBody(_) | Fault::BrokenBody(_)) | None => call.await,
        }
    }
}

fn failure(op: Op, code: Code) -> Error {
    Error::new(code, format!("scripted fault of {op:?}"))
}

/// `keep` bytes of the body, then an error.
fn cut(body: Body, keep: u64, code: Code) -> Body {
    let pieces = body.scan(keep, |left, piece| {
        let piece = piece.map(|bytes| {
            let take = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= take as u64;
            bytes.slice(..take)
        });
        let over = *left == 0;
        async move { Some((piece, over)) }
    });
    let failure = move || Err(failure(Op::Get, code));
    pieces
        .flat_map(move |(piece, over)| {
            let ends = over.then(failure);
            futures::stream::iter(std::iter::once(piece).chain(ends))
        })
        // Nothing after the first error.
        .scan(false, |failed, piece| {
            let before = std::mem::replace(failed, *failed || piece.is_err());
            async move { (!before).then_some(piece) }
        })
        .boxed()
}

struct FaultyUpload {
    inner: Box<dyn Upload>,
    faults: Faulty,
}

#[async_trait]
impl Upload for FaultyUpload {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.faults.play(Op::Write, self.inner.write(chunk)).await
    }
    async fn finish(self: Box<Self>) -> Result<Stored> {
        let Self { inner, faults } = *self;
        faults.play(Op::Finish, inner.finish()).await
    }
    async fn abort(self: Box<Self>) -> Result<()> {
        let Self { inner, faults } = *self;
        faults.play(Op::Abort, inner.abort()).await
    }
}

#[async_trait]
impl Storage for Faulty {
    fn location(&self) -> &str {
        self.inner.location()
    }
    async fn head(&self, key: &Key) -> Result<Option<ObjectInfo>> {
        self.play(Op::Head, self.inner.head(key)).await
    }
    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<Body> {
        let fault = self.next(Op::Get);
        let body = Self::suffer(Op::Get, fault, self.inner.get(key, range)).await?;
        Ok(match fault {
            Some(Fault::ShortBody(keep)) => cut(body, keep, Code::StoreLied),
            Some(Fault::BrokenBody(keep)) => cut(body, keep, Code::StoreUnavailable),
            _ => body,
        })
    }
    async fn put(&self, key: &Key, body: Bytes) -> Result<Stored> {
        self.play(Op::Put, self.inner.put(key, body)).await
    }
    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        let inner = self.play(Op::Upload, self.inner.upload(key)).await?;
        Ok(Box::new(FaultyUpload { inner, faults: self.clone() }))
    }
    async fn list(&self, prefix: &str, start_after: Option<&Key>) -> Result<Vec<ObjectInfo>> {
        self.play(Op::List, self.inner.list(prefix, start_after)).await
    }
    async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>> {
        self.play(Op::ListDirs, self.inner.list_dirs(prefix)).await
    }
    async fn delete(&self, key: &Key) -> Result<()> {
        self.play(Op::Delete, self.inner.delete(key)).await
    }
    async fn sweep_unfinished(&self, older_than: Duration) -> Result<u64> {
        self.play(Op::Sweep, self.inner.sweep_unfinished(older_than)).await
    }
}
