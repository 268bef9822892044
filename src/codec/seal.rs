//! The way in: plain → zstd → age → count and digest → the writer given.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

use super::zstd_frames::ZstdFrames;
use super::{Protection, WalObjectHeader, from_io};
use crate::error::{Error, Result};
use crate::model::Digest;

/// Ends an object that is not encrypted: a zstd skippable frame of eight bytes. Without it a stream cut between
/// two frames would look whole; age has an authenticated end of its own.
pub(super) const END_MARK: [u8; 16] = *b"\x5f\x2a\x4d\x18\x08\x00\x00\x00pgk-end\n";

/// What was written, and what became of it. Only a finished writer yields one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    pub plain_bytes: u64,
    pub stored_bytes: u64,
    pub plain_sha256: Digest,
    pub stored_sha256: Digest,
}

/// Counts and digests what passes.
struct Tally<W: Write> {
    inner: W,
    bytes: u64,
    /// None when nobody asks for it.
    sha256: Option<Sha256>,
}

impl<W: Write> Tally<W> {
    fn new(inner: W) -> Self {
        Self { inner, bytes: 0, sha256: Some(Sha256::new()) }
    }
}
impl<W: Write> Write for Tally<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write_all(bytes)?;
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

enum Cipher<W: Write> {
    Plain(Tally<W>),
    Age(Box<age::stream::StreamWriter<Tally<W>>>),
}
impl<W: Write> Write for Cipher<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(w) => w.write(bytes),
            Self::Age(w) => w.write(bytes),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(w) => w.flush(),
            Self::Age(w) => w.flush(),
        }
    }
}

/// Writes one sealed object. Dropping it without [`SealWriter::finish`] leaves a stream that no reader accepts.
pub struct SealWriter<W: Write> {
    frames: ZstdFrames<Cipher<W>>,
    /// None when the caller digests the plain bytes himself (packs: each member has its own digest).
    plain_sha256: Option<Sha256>,
    plain_bytes: u64,
}

impl<W: Write> SealWriter<W> {
    /// A header is for WAL objects; it is the first frame inside age.
    pub fn new(
        inner: W,
        protection: &Protection,
        level: i32,
        header: Option<&WalObjectHeader>,
    ) -> Result<Self> {
        Self::over(Tally::new(inner), protection, level, header)
    }

    /// For bytes whose digest is known and whose stored form nobody compares: neither digest of [`Sealed`] is taken.
    pub fn undigested(
        inner: W,
        protection: &Protection,
        level: i32,
        header: Option<&WalObjectHeader>,
    ) -> Result<Self> {
        let tally = Tally { inner, bytes: 0, sha256: None };
        Ok(Self::over(tally, protection, level, header)?.without_plain_digest())
    }

    /// For a stream that is stored in parts with digests of their own: of the plain bytes alone.
    pub fn plain_digest_only(inner: W, protection: &Protection, level: i32) -> Result<Self> {
        Self::over(Tally { inner, bytes: 0, sha256: None }, protection, level, None)
    }

    fn over(
        tally: Tally<W>,
        protection: &Protection,
        level: i32,
        header: Option<&WalObjectHeader>,
    ) -> Result<Self> {
        let cipher = match protection {
            Protection::Plain => Cipher::Plain(tally),
            Protection::Age(recipients) => {
                let writer = recipients.encryptor()?.wrap_output(tally).map_err(cannot_seal)?;
                Cipher::Age(Box::new(writer))
            }
        };
        let mut frames = ZstdFrames::new(cipher, level).map_err(cannot_seal)?;
        if let Some(header) = header {
            frames.raw(&header.frame()?).map_err(cannot_seal)?;
        }
        Ok(Self { frames, plain_sha256: Some(Sha256::new()), plain_bytes: 0 })
    }

    /// For packs: the digest of the plain stream is not taken (its members have their own), which saves a pass of
    /// SHA-256 over every byte. [`Sealed::plain_sha256`] is then that of nothing.
    pub fn without_plain_digest(mut self) -> Self {
        self.plain_sha256 = None;
        self
    }

    /// These bytes as a frame of their own, without a copy.
    pub fn write_frame(&mut self, bytes: &[u8]) -> Result<()> {
        self.frames.frame(bytes).map_err(cannot_seal)?;
        if let Some(sha256) = &mut self.plain_sha256 {
            sha256.update(bytes);
        }
        self.plain_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Ends the current zstd frame and says where, in the compressed stream inside age, the next one starts.
    pub fn next_frame(&mut self) -> Result<u64> {
        self.frames.end_frame().map_err(cannot_seal)
    }

    /// Plain bytes taken so far.
    pub fn plain_bytes(&self) -> u64 {
        self.plain_bytes
    }

    /// Ends the stream. The caller still has to finish what it wrote into.
    pub fn finish(mut self) -> Result<(W, Sealed)> {
        if self.plain_bytes == 0 {
            // An empty file is one empty frame: zero bytes of compressed data would be no stream at all.
            self.frames.begin_frame();
        }
        self.frames.end_frame().map_err(cannot_seal)?;
        debug_assert!(!self.frames.is_empty());
        let tally = match self.frames.into_inner() {
            Cipher::Plain(mut tally) => {
                tally.write_all(&END_MARK).map_err(cannot_seal)?;
                tally
            }
            Cipher::Age(writer) => writer.finish().map_err(cannot_seal)?,
        };
        let sealed = Sealed {
            plain_bytes: self.plain_bytes,
            stored_bytes: tally.bytes,
            plain_sha256: Digest(self.plain_sha256.unwrap_or_default().finalize().into()),
            stored_sha256: Digest(tally.sha256.unwrap_or_default().finalize().into()),
        };
        Ok((tally.inner, sealed))
    }
}

impl<W: Write> Write for SealWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.frames.write_all(bytes)?;
        if let Some(sha256) = &mut self.plain_sha256 {
            sha256.update(bytes);
        }
        self.plain_bytes += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.frames.flush()
    }
}

fn cannot_seal(error: io::Error) -> Error {
    if error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Error>)
        || error.raw_os_error().is_some()
    {
        return from_io("cannot write the object", "", error);
    }
    Error::internal("cannot compress or encrypt").because(error)
}
