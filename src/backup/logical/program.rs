//! One of PostgreSQL's programs, its output sealed as it comes.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use crate::backup::full::cancelled;
use crate::codec::SealWriter;
use crate::error::{Code, Error, Result};
use crate::postgres::dump_tool;
use crate::util::process::{Run, Streamed};
use crate::util::progress::Progress;

/// Read at a time; a pipe holds a MiB.
const BUFFER: usize = 256 << 10;

/// What passes is read and written at once: each byte goes into the seal before anybody sees it.
pub(super) struct Tee<W: Write> {
    source: File,
    out: SealWriter<W>,
    buffer: Vec<u8>,
    at: usize,
    filled: usize,
    progress: Arc<dyn Progress>,
    /// The program's output came to its end.
    ended: Arc<AtomicBool>,
}

impl<W: Write> Tee<W> {
    /// Passes on what is left.
    pub(super) fn drain(&mut self) -> Result<()> {
        loop {
            let n = self.fill_buf().map_err(|e| crate::codec::from_io("cannot pass it on", "", e))?.len();
            if n == 0 {
                return Ok(());
            }
            self.consume(n);
        }
    }
}

impl<W: Write> BufRead for Tee<W> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.filled {
            (self.at, self.filled) = (0, 0);
            let got = loop {
                match self.source.read(&mut self.buffer) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    got => break got?,
                }
            };
            if got == 0 {
                self.ended.store(true, Ordering::Relaxed);
            }
            self.out.write_all(&self.buffer[..got])?;
            self.filled = got;
            self.progress.advance(got as u64);
        }
        Ok(&self.buffer[self.at..self.filled])
    }
    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

impl<W: Write> Read for Tee<W> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(into)?;
        self.consume(n);
        Ok(n)
    }
}

/// What a program that ended with 0 left: what its output was read as, the stream (which the caller ends), and what it
/// warned of.
pub(super) struct Passed<T, W: Write> {
    pub(super) read: T,
    pub(super) out: SealWriter<W>,
    pub(super) warnings: Vec<String>,
}

/// Runs the program into `out`, reading what passes. `doing` completes "cannot …".
pub(super) async fn pass<T, W>(
    run: Run,
    doing: &str,
    out: SealWriter<W>,
    progress: Arc<dyn Progress>,
    cancel: &CancellationToken,
    read: impl FnOnce(&mut Tee<W>) -> Result<T> + Send + 'static,
) -> Result<Passed<T, W>>
where
    T: Send + 'static,
    W: Write + Send + 'static,
{
    let ended = Arc::new(AtomicBool::new(false));
    let told = ended.clone();
    let work = run.stream(move |source| {
        let buffer = vec![0; BUFFER];
        let mut tee = Tee { source, out, buffer, at: 0, filled: 0, progress, ended: told };
        let read = read(&mut tee)?;
        tee.drain()?;
        Ok((read, tee.out))
    });
    let Streamed { finished, read } = tokio::select! {
        done = work => done?,
        () = cancel.cancelled() => return Err(cancelled()),
    };
    let success = finished.status.success();
    match read {
        // What the program broke off is no fault of the stream.
        Err(e) if e.code() == Code::Damaged && ended.load(Ordering::Relaxed) && !success => {
            Err(dump_tool::failure(&finished, doing))
        }
        Err(e) if e.code() == Code::Damaged => {
            Err(Error::new(Code::BackupFailed, format!("cannot {doing}: its output is not whole"))
                .at(&finished.program)
                .because(e))
        }
        Err(e) => Err(e),
        Ok(_) if !success => Err(dump_tool::failure(&finished, doing)),
        Ok((read, out)) => Ok(Passed { read, out, warnings: dump_tool::warnings(&finished.stderr_text()) }),
    }
}
