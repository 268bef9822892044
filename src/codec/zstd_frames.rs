//! A zstd encoder of several frames over one writer, with the content checksum on and frames that end where the
//! caller says, or when they are full.
//!
//! A frame is compressed in one go from one stretch of memory. zstd's streaming mode keeps its window in a ring and
//! so works on two stretches most of the time, which costs a third of its speed.

use std::cell::Cell;
use std::io::{self, Write};

use zstd::zstd_safe::{CCtx, CParameter, ResetDirective, compress_bound, get_error_name};

/// Plain bytes of a full frame. A longer window would find little more at the levels that are used, and this bounds
/// memory: one such buffer, and one for the result.
pub const FRAME_BYTES: usize = 4 << 20;

pub(super) struct ZstdFrames<W: Write> {
    inner: W,
    tools: Tools,
    /// What the open frame holds so far; its capacity grows with need.
    pending: Vec<u8>,
    /// Compressed bytes handed on so far.
    written: u64,
    /// True once the current frame has begun, even if it is to stay empty.
    open: bool,
}

fn failed(code: usize) -> io::Error {
    io::Error::other(format!("zstd: {}", get_error_name(code)))
}

/// zstd's tables and the result of a frame: megabytes that the next object of this thread uses again.
struct Tools {
    context: CCtx<'static>,
    out: Vec<u8>,
}

thread_local! {
    static SPARE: Cell<Option<Tools>> = const { Cell::new(None) };
}

impl Tools {
    fn for_level(level: i32) -> io::Result<Self> {
        let spare = SPARE.try_with(Cell::take).ok().flatten();
        let mut tools = if let Some(tools) = spare {
            tools
        } else {
            let context = CCtx::try_create().ok_or_else(|| io::Error::other("zstd: no memory"))?;
            Self { context, out: Vec::new() }
        };
        tools.context.reset(ResetDirective::SessionAndParameters).map_err(failed)?;
        tools.context.set_parameter(CParameter::CompressionLevel(level)).map_err(failed)?;
        tools.context.set_parameter(CParameter::ChecksumFlag(true)).map_err(failed)?;
        Ok(tools)
    }

    fn compress(&mut self, bytes: &[u8]) -> io::Result<&[u8]> {
        self.out.clear();
        self.out.reserve(compress_bound(bytes.len()));
        self.context.compress2(&mut self.out, bytes).map_err(failed)?;
        Ok(&self.out)
    }
}

impl<W: Write> ZstdFrames<W> {
    pub(super) fn new(inner: W, level: i32) -> io::Result<Self> {
        Ok(Self { inner, tools: Tools::for_level(level)?, pending: Vec::new(), written: 0, open: false })
    }

    /// Bytes as they are, between frames (a skippable frame).
    pub(super) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        debug_assert!(!self.open, "raw bytes inside a frame");
        self.inner.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Ends the frame, if one is open, and says at which compressed offset the next one starts.
    pub(super) fn end_frame(&mut self) -> io::Result<u64> {
        if self.open {
            self.compress(None)?;
            self.pending.clear();
            self.open = false;
        }
        Ok(self.written)
    }

    /// One frame of just these bytes.
    pub(super) fn frame(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.end_frame()?;
        self.compress(Some(bytes))
    }

    /// One frame of what is pending, or of the caller's own bytes.
    fn compress(&mut self, bytes: Option<&[u8]>) -> io::Result<()> {
        let bytes = bytes.unwrap_or(&self.pending);
        let compressed = self.tools.compress(bytes)?;
        self.inner.write_all(compressed)?;
        self.written += compressed.len() as u64;
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
    /// At the end of the object.
    pub(super) fn into_inner(self) -> W {
        let tools = self.tools;
        // A thread that ends has nobody to keep them for.
        let _ = SPARE.try_with(|spare| spare.set(Some(tools)));
        self.inner
    }
}

impl<W: Write> Write for ZstdFrames<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let take = bytes.len().min(FRAME_BYTES - self.pending.len());
        if take == FRAME_BYTES {
            // A whole frame lies in the caller's memory: no need to copy it.
            self.compress(Some(&bytes[..take]))?;
            return Ok(take);
        }
        self.open = true;
        self.pending.extend_from_slice(&bytes[..take]);
        if self.pending.len() == FRAME_BYTES {
            self.end_frame()?;
        }
        Ok(take)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
