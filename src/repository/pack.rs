//! Packs: one tar stream inside zstd inside age, each member in zstd frames of its own.
//!
//! `age -d | zstd -d | tar x` opens one; a member alone is read by its frame's place, which [`PackWriter`] notes for
//! the index. A pack that was not finished yields no [`FinishedPack`], so no record can name it.

use std::io::Write;

use crate::codec::{Protection, SealWriter, Sealed, from_io};
use crate::error::{Error, Result};

pub use super::tar_header::{MemberHead, MemberKind};
use super::tar_header::{encode, padding};

/// A pack closes once it holds so many plain bytes.
pub const PACK_BYTES: u64 = 256 << 20;

const ZEROS: [u8; 1024] = [0; 1024];

/// Where a member lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedMember {
    pub name: Vec<u8>,
    /// Of its first frame, tar header included, in the compressed stream inside age.
    pub offset: u64,
    /// Of all its frames.
    pub length: u64,
    /// Plain bytes of the file.
    pub size: u64,
}

/// A complete pack.
#[derive(Debug)]
pub struct FinishedPack {
    pub sealed: Sealed,
    pub members: Vec<PackedMember>,
}

/// Writes one pack into `W`.
pub struct PackWriter<W: Write> {
    seal: SealWriter<W>,
    members: Vec<PackedMember>,
    /// Bytes of the open member that are still to come.
    missing: u64,
    open: bool,
}

impl<W: Write> PackWriter<W> {
    pub fn new(inner: W, protection: &Protection, level: i32) -> Result<Self> {
        let seal = SealWriter::new(inner, protection, level, None)?.without_plain_digest();
        Ok(Self { seal, members: Vec::new(), missing: 0, open: false })
    }

    /// True when the pack should be closed.
    pub fn is_full(&self) -> bool {
        self.seal.plain_bytes() >= PACK_BYTES
    }
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Begins a member; exactly `head.size` bytes must follow through [`PackWriter::data`].
    pub fn begin(&mut self, head: &MemberHead<'_>) -> Result<()> {
        if self.open {
            return Err(Error::internal("a pack's member inside another"));
        }
        let blocks = encode(head)?;
        let offset = self.seal.next_frame()?;
        self.put(&blocks)?;
        self.members.push(PackedMember { name: head.name.to_vec(), offset, length: 0, size: head.size });
        self.missing = head.size;
        self.open = true;
        Ok(())
    }

    /// The next bytes of the open member.
    pub fn data(&mut self, bytes: &[u8]) -> Result<()> {
        let left = self.missing.checked_sub(bytes.len() as u64);
        self.missing = left.ok_or_else(|| Error::internal("a pack's member is longer than announced"))?;
        self.put(bytes)
    }

    /// Ends the member.
    pub fn end(&mut self) -> Result<()> {
        if self.missing > 0 || !self.open {
            return Err(Error::internal("a pack's member is shorter than announced"));
        }
        let size = self.members.last().map_or(0, |m| m.size);
        let fill = usize::try_from(padding(size)).unwrap_or(0);
        self.put(&ZEROS[..fill])?;
        let end = self.seal.next_frame()?;
        if let Some(member) = self.members.last_mut() {
            member.length = end - member.offset;
        }
        self.open = false;
        Ok(())
    }

    /// A whole small member.
    pub fn member(&mut self, head: &MemberHead<'_>, bytes: &[u8]) -> Result<()> {
        self.begin(head)?;
        self.data(bytes)?;
        self.end()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.seal.write_all(bytes).map_err(|e| from_io("cannot write the pack", "", e))
    }

    /// The end of the archive, of zstd and of age. `W` still has to be finished.
    pub fn finish(mut self) -> Result<(W, FinishedPack)> {
        if self.open {
            return Err(Error::internal("a pack is finished inside a member"));
        }
        self.seal.next_frame()?;
        self.put(&ZEROS)?;
        let (inner, sealed) = self.seal.finish()?;
        Ok((inner, FinishedPack { sealed, members: self.members }))
    }
}
