//! A write of unknown length: one `PUT` while it fits a part, else a multipart upload with parts beside each other.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::multipart::Multipart;
use super::{S3, Storage, Stored, Upload};
use crate::error::{Code, Error, Result};
use crate::storage::retry;

pub(super) struct S3Upload {
    s3: S3,
    key: String,
    /// The part being filled. It is sent when more is to come: the last part may be as small as it likes.
    filling: BytesMut,
    multipart: Option<Multipart>,
    bytes: u64,
    /// A `write` was dropped halfway or has failed: what follows would not be what the caller thinks.
    broken: bool,
}

impl S3Upload {
    pub(super) fn new(s3: S3, key: &str) -> Self {
        Self { s3, key: key.to_owned(), filling: BytesMut::new(), multipart: None, bytes: 0, broken: false }
    }

    async fn fill(&mut self, mut chunk: Bytes) -> Result<()> {
        while !chunk.is_empty() {
            let sent = self.multipart.as_ref().map_or(0, Multipart::parts);
            let size = part_size(self.s3.0.part_size, sent);
            if self.filling.len() >= size {
                self.send().await?;
                continue;
            }
            if self.filling.capacity() == 0 && chunk.len() + self.filling.len() >= size {
                self.filling.reserve(size);
            }
            let piece = chunk.split_to(chunk.len().min(size - self.filling.len()));
            self.filling.extend_from_slice(&piece);
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<()> {
        let part = std::mem::take(&mut self.filling).freeze();
        let multipart = match &mut self.multipart {
            Some(multipart) => multipart,
            none => none.insert(Multipart::begin(&self.s3, &self.key).await?),
        };
        multipart.send(part).await
    }

    /// The object is there with our length; anything else is a lie of the store.
    async fn confirm(&self) -> Result<()> {
        let (s3, key, bytes) = (&self.s3, self.key.as_str(), self.bytes);
        let lied =
            |what: String| Err(Error::new(Code::StoreLied, what).at(format!("{}/{key}", s3.location())));
        s3.0.policy
            .run(|_| async move {
                match s3.head(key).await? {
                    Some(found) if found.bytes == bytes => Ok(()),
                    Some(found) => lied(format!("{bytes} bytes were written, the store has {}", found.bytes)),
                    None => lied("the store confirmed the object and does not have it".into()),
                }
            })
            .await
    }
}

/// Bytes of the next part when `sent` are on their way. One size up to part 8,000 (62 GiB of 8 MiB; some stores
/// insist on equal parts), then doubling every 250, so that 10,000 parts hold a terabyte.
fn part_size(base: usize, sent: i32) -> usize {
    let steps = if sent < 8000 { 0 } else { 1 + (sent - 8000) / 250 };
    base << steps.clamp(0, 8)
}

#[async_trait]
impl Upload for S3Upload {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        if std::mem::replace(&mut self.broken, true) {
            return Err(Error::internal("an upload was written to after it had failed"));
        }
        self.bytes += chunk.len() as u64;
        self.fill(chunk).await?;
        self.broken = false;
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Stored> {
        if self.broken {
            return Err(Error::internal("an upload was finished after it had failed"));
        }
        let stored = Stored { bytes: self.bytes };
        if self.multipart.is_some() {
            self.send().await?;
        }
        if let Some(multipart) = self.multipart.take() {
            multipart.complete().await?;
        } else {
            let body = std::mem::take(&mut self.filling).freeze();
            let (s3, key) = (&self.s3, self.key.as_str());
            let put = retry::put(s3, &s3.0.policy, key, body.clone()).await?;
            if put != stored {
                return Err(Error::internal("an upload and its put disagree"));
            }
            if let Err(lied) = self.confirm().await {
                if lied.code() != Code::StoreLied || s3.0.conditional_writes {
                    return Err(lied);
                }
                // Such a store lets a slower writer of the same name come after us: one that was killed with its
                // request on the way, sealed anew and so of another length. What it left is written once more.
                s3.0.policy.run(|_| s3.write(key, body.clone())).await?;
                self.confirm().await?;
            }
            return Ok(stored);
        }
        self.confirm().await?;
        Ok(stored)
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        match self.multipart.take() {
            Some(multipart) => multipart.abort().await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_parts_hold_a_terabyte_and_the_first_ones_are_alike() {
        let base = 8 << 20;
        assert!((0..8000).all(|n| part_size(base, n) == base));
        let all: u64 = (0..10_000).map(|n| part_size(base, n) as u64).sum();
        assert!(all > 1 << 40, "{all}");
        // 64 GiB never needs parts beyond 16 MiB.
        let first: u64 = (0..8250).map(|n| part_size(base, n) as u64).sum();
        assert!(first >= 64 << 30);
    }
}
