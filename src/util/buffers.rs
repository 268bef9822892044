//! Large buffers that are used again while there is work. Fresh memory comes as pages of 4 KiB that the kernel clears one
//! by one when they are touched, and is in no cache. What they hold begins at a multiple of [`ALIGNMENT`], as long as it fits
//! into the room that was asked for, so that it can be written past the page cache.
//!
//! Bound: as many as were in use at once. When the last one comes back all are freed, so that a process at rest is small.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Of what a buffer holds.
pub const ALIGNMENT: usize = 4096;

/// Where they wait. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Buffers(Arc<Mutex<Rack>>);

#[derive(Debug, Default)]
struct Rack {
    free: Vec<Vec<u8>>,
    in_use: usize,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Buffer {
    /// What it holds comes after `before`.
    bytes: Vec<u8>,
    before: usize,
    home: Buffers,
}

impl Buffers {
    /// An empty one to write into, with room for so much at least.
    pub fn with_room(&self, room: usize) -> Buffer {
        let mut bytes = self.take();
        bytes.clear();
        bytes.reserve(room + ALIGNMENT);
        let before = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        bytes.resize(before, 0);
        Buffer { bytes, before, home: self.clone() }
    }

    fn take(&self) -> Vec<u8> {
        let mut rack = self.rack();
        rack.in_use += 1;
        rack.free.pop().unwrap_or_default()
    }

    fn rack(&self) -> std::sync::MutexGuard<'_, Rack> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffer {
    /// Bytes that it holds.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.before
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
    /// Shared, and back home when the last of those who share it has let go.
    pub fn share(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut rack = self.home.rack();
        rack.in_use -= 1;
        rack.free.push(bytes);
        if rack.in_use == 0 {
            rack.free = Vec::new();
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.before..]
    }
}
impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_while_others_are_in_use_and_freed_after_the_last() {
        let buffers = Buffers::default();
        let kept = buffers.with_room(10);
        let mut first = buffers.with_room(100);
        first.write_all(b"abc").unwrap();
        let place = first.as_ref().as_ptr();
        drop(first);
        let mut again = buffers.with_room(90);
        again.write_all(b"d").unwrap();
        assert_eq!((again.as_ref().as_ptr(), again.as_ref()), (place, &b"d"[..]));
        assert_eq!(place.addr() % ALIGNMENT, 0);
        let shared = again.share();
        let copy = shared.clone();
        drop((shared, kept));
        assert_eq!(buffers.rack().in_use, 1);
        drop(copy);
        let rack = buffers.rack();
        assert_eq!((rack.in_use, rack.free.capacity()), (0, 0));
    }
}
