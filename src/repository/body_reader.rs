//! An object's body as a blocking `Read`: the store's chunks come through a bounded channel.

use std::io::{self, Read};
use std::ops::Range;

use bytes::{Buf, Bytes};
use futures::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Repository;
use crate::codec::into_io;
use crate::error::Result;

/// Chunks read ahead.
const QUEUE: usize = 4;

/// Reads one object, or a range of it. For blocking threads only. Dropping it ends the transfer.
pub struct BodyReader {
    mailbox: mpsc::Receiver<Result<Bytes>>,
    current: Bytes,
    task: JoinHandle<()>,
}

impl BodyReader {
    /// Must be called inside a runtime.
    pub fn open(repository: &Repository, key: &str, range: Option<Range<u64>>) -> Self {
        Self::open_on(&Handle::current(), repository, key, range)
    }

    pub fn open_on(runtime: &Handle, repository: &Repository, key: &str, range: Option<Range<u64>>) -> Self {
        let (sender, mailbox) = mpsc::channel(QUEUE);
        let (storage, key) = (repository.storage.clone(), key.to_owned());
        let task = runtime.spawn(async move {
            let mut body = match storage.get(&key, range).await {
                Ok(body) => body,
                Err(error) => {
                    let _ = sender.send(Err(error)).await;
                    return;
                }
            };
            while let Some(chunk) = body.next().await {
                let last = chunk.is_err();
                if sender.send(chunk).await.is_err() || last {
                    return;
                }
            }
        });
        Self { mailbox, current: Bytes::new(), task }
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !buffer.is_empty() {
            match self.mailbox.blocking_recv() {
                Some(chunk) => self.current = chunk.map_err(into_io)?,
                None => return Ok(0),
            }
        }
        let n = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}

impl Drop for BodyReader {
    fn drop(&mut self) {
        self.task.abort();
    }
}
