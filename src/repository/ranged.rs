//! An object as a blocking `Read + Seek` over ranged reads: the head once, then what was announced, in one request.

use std::io::{self, Read, Seek, SeekFrom};

use bytes::Bytes;
use tokio::runtime::Handle;

use super::Repository;
use crate::codec::{SeekableSource, into_io};
use crate::storage;

/// age's header with a dozen recipients is shorter.
const HEAD: u64 = 4 << 10;

/// Reads anywhere in one object. For blocking threads only. Holds the head and one range in memory.
pub struct RangedObject {
    runtime: Handle,
    repository: Repository,
    key: String,
    bytes: u64,
    position: u64,
    /// How much the next request outside the head brings.
    expected: u64,
    window: (u64, Bytes),
}

impl RangedObject {
    /// `bytes` is the object's length, known from `backup.json`. Must be called inside a runtime.
    pub fn open(repository: &Repository, key: &str, bytes: u64) -> Self {
        Self::open_on(&Handle::current(), repository, key, bytes)
    }
    pub fn open_on(runtime: &Handle, repository: &Repository, key: &str, bytes: u64) -> Self {
        Self {
            runtime: runtime.clone(),
            repository: repository.clone(),
            key: key.to_owned(),
            bytes,
            position: 0,
            expected: HEAD,
            window: (0, Bytes::new()),
        }
    }

    fn fetch(&mut self) -> io::Result<()> {
        let length = if self.position == 0 { HEAD } else { self.expected };
        let range = self.position..self.position.saturating_add(length).min(self.bytes);
        let wanted = range.end - range.start;
        let storage = self.repository.storage.clone();
        let bytes = self
            .runtime
            .block_on(async { storage::collect(storage.get(&self.key, Some(range)).await?, wanted).await });
        self.window = (self.position, bytes.map_err(into_io)?);
        Ok(())
    }
}

impl SeekableSource for RangedObject {
    fn expect(&mut self, stored_bytes: u64) {
        self.expected = stored_bytes.max(HEAD);
    }
}

impl Read for RangedObject {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.position >= self.bytes {
            return Ok(0);
        }
        let inside = |(from, bytes): &(u64, Bytes), at: u64| {
            at.checked_sub(*from)
                .and_then(|skip| usize::try_from(skip).ok())
                .filter(|skip| *skip < bytes.len())
        };
        if inside(&self.window, self.position).is_none() {
            self.fetch()?;
        }
        let skip = inside(&self.window, self.position).ok_or(io::ErrorKind::UnexpectedEof)?;
        let n = (self.window.1.len() - skip).min(buffer.len());
        buffer[..n].copy_from_slice(&self.window.1[skip..skip + n]);
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for RangedObject {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.bytes.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
