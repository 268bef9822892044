//! A zstd encoder of several frames over one writer, with the content checksum on and frames that end where the
//! caller says.

use std::io::{self, Write};

use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, get_error_name};

/// Compressed bytes leave in pieces of this size: large enough that age's 64 KiB chunks stay whole.
const OUT_BYTES: usize = 128 << 10;

pub(super) struct ZstdFrames<W: Write> {
    inner: W,
    context: CCtx<'static>,
    out: Vec<u8>,
    /// Compressed bytes handed on so far.
    written: u64,
    /// True once the current frame has begun.
    open: bool,
}

fn failed(code: usize) -> io::Error {
    io::Error::other(format!("zstd: {}", get_error_name(code)))
}

impl<W: Write> ZstdFrames<W> {
    pub(super) fn new(inner: W, level: i32) -> io::Result<Self> {
        let mut context = CCtx::try_create().ok_or_else(|| io::Error::other("zstd: no memory"))?;
        context.set_parameter(CParameter::CompressionLevel(level)).map_err(failed)?;
        context.set_parameter(CParameter::ChecksumFlag(true)).map_err(failed)?;
        Ok(Self { inner, context, out: Vec::with_capacity(OUT_BYTES), written: 0, open: false })
    }

    /// Bytes as they are, between frames (a skippable frame).
    pub(super) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        debug_assert!(!self.open, "raw bytes inside a frame");
        self.inner.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn step(&mut self, input: &mut InBuffer<'_>, end: ZSTD_EndDirective) -> io::Result<usize> {
        self.out.clear();
        let mut output = OutBuffer::around(&mut self.out);
        let left = self.context.compress_stream2(&mut output, input, end).map_err(failed)?;
        let made = output.pos();
        if made > 0 {
            self.inner.write_all(&self.out[..made])?;
            self.written += made as u64;
        }
        Ok(left)
    }

    /// Ends the frame, if one is open, and says at which compressed offset the next one starts.
    pub(super) fn end_frame(&mut self) -> io::Result<u64> {
        while self.open {
            self.open = self.step(&mut InBuffer::around(&[]), ZSTD_EndDirective::ZSTD_e_end)? > 0;
        }
        Ok(self.written)
    }

    /// Begins a frame that will hold exactly so many plain bytes: zstd fits its tables to them, and the frame
    /// says its size. A frame that ends with another count is an error.
    pub(super) fn begin_sized(&mut self, plain_bytes: u64) -> io::Result<()> {
        debug_assert!(!self.open, "a frame inside a frame");
        self.context.set_pledged_src_size(Some(plain_bytes)).map_err(failed)?;
        self.open = true;
        Ok(())
    }

    /// True when nothing at all was written, not even an empty frame.
    pub(super) fn is_empty(&self) -> bool {
        self.written == 0 && !self.open
    }
    /// Begins a frame even if no byte will follow, so that a stream is never empty.
    pub(super) fn begin_frame(&mut self) {
        self.open = true;
    }
    pub(super) fn into_inner(self) -> W {
        self.inner
    }
}

impl<W: Write> Write for ZstdFrames<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        self.open = true;
        let mut input = InBuffer::around(bytes);
        while input.pos() < bytes.len() {
            self.step(&mut input, ZSTD_EndDirective::ZSTD_e_continue)?;
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
