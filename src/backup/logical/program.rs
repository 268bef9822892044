//! One of PostgreSQL's programs, its output sealed as it comes.
//!
//! Two threads: one reads the pipe and looks at what passes, the other compresses, encrypts and hands on. A frame takes
//! longer to compress than the pipe takes to fill; with one thread the program would stand still meanwhile, and the
//! server behind it.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use tokio_util::sync::CancellationToken;

use crate::backup::full::cancelled;
use crate::codec::{FRAME_BYTES, SealWriter, from_io};
use crate::error::{Code, Error, Result};
use crate::postgres::dump_tool;
use crate::util::process::{Run, Streamed};
use crate::util::progress::Progress;

/// Asked for at a time; a pipe holds a MiB.
const READ: usize = 256 << 10;
/// What is handed over at a time: a frame, which is then compressed where it lies.
const BLOCK: usize = FRAME_BYTES;
/// How long the pipe is left to fill after a read that found little. `pg_dump` writes 4 KiB at a time; whoever waits for
/// them at once is woken tens of thousands of times a second, at the cost of the server's work.
const PAUSE: Duration = Duration::from_millis(1);
/// A pipe of this size does not fill within a pause.
const WIDE: usize = 512 << 10;
/// Blocks that wait to be sealed, beside the one being filled and the one being sealed.
const WAITING: usize = 1;

/// What passes is looked at here and sealed elsewhere; nothing of it counts before both have come to the end.
pub(super) struct Tee {
    source: File,
    block: Vec<u8>,
    at: usize,
    filled: usize,
    pauses: bool,
    found_little: bool,
    full: SyncSender<Vec<u8>>,
    /// Blocks to be filled again.
    empty: Receiver<Vec<u8>>,
    progress: Arc<dyn Progress>,
    /// The program's output came to its end.
    ended: Arc<AtomicBool>,
}

impl Tee {
    /// Passes on what is left.
    pub(super) fn drain(&mut self) -> Result<()> {
        loop {
            let n = self.fill_buf().map_err(|e| from_io("cannot pass it on", "", e))?.len();
            if n == 0 {
                return self.hand_over().map_err(|e| from_io("cannot pass it on", "", e));
            }
            self.consume(n);
        }
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let mut next = self.empty.try_recv().unwrap_or_default();
        next.resize(BLOCK, 0);
        let mut block = std::mem::replace(&mut self.block, next);
        block.truncate(self.filled);
        (self.at, self.filled) = (0, 0);
        // Who seals has failed, and says why.
        self.full.send(block).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl BufRead for Tee {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.filled {
            if self.filled == BLOCK {
                self.hand_over()?;
            }
            if self.pauses && self.found_little {
                std::thread::sleep(PAUSE);
            }
            let until = (self.filled + READ).min(BLOCK);
            let got = loop {
                match self.source.read(&mut self.block[self.filled..until]) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    got => break got?,
                }
            };
            if got == 0 {
                self.ended.store(true, Ordering::Relaxed);
            }
            self.found_little = got < READ / 4;
            self.filled += got;
            self.progress.advance(got as u64);
        }
        Ok(&self.block[self.at..self.filled])
    }
    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

impl Read for Tee {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(into)?;
        self.consume(n);
        Ok(n)
    }
}

/// Zero where it is none.
fn pipe_size(source: &File) -> usize {
    fcntl(source, FcntlArg::F_GETPIPE_SZ).ok().and_then(|size| usize::try_from(size).ok()).unwrap_or(0)
}

/// Up to the last block; that they are all is for the caller to know.
fn seal<W: Write>(
    mut out: SealWriter<W>,
    blocks: &Receiver<Vec<u8>>,
    done: &SyncSender<Vec<u8>>,
) -> Result<SealWriter<W>> {
    while let Ok(block) = blocks.recv() {
        out.write_all(&block).map_err(|e| from_io("cannot pass it on", "", e))?;
        let _ = done.try_send(block);
    }
    Ok(out)
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
    read: impl FnOnce(&mut Tee) -> Result<T> + Send + 'static,
) -> Result<Passed<T, W>>
where
    T: Send + 'static,
    W: Write + Send + 'static,
{
    let ended = Arc::new(AtomicBool::new(false));
    let told = ended.clone();
    let work = run.stream(move |source| {
        let (full, to_seal) = sync_channel(WAITING);
        let (sealed, empty) = sync_channel(WAITING + 1);
        let block = vec![0; BLOCK];
        let pauses = pipe_size(&source) >= WIDE;
        let (at, filled, found_little) = (0, 0, false);
        let mut tee =
            Tee { source, block, at, filled, pauses, found_little, full, empty, progress, ended: told };
        std::thread::scope(|scope| {
            let sealing = scope.spawn(move || seal(out, &to_seal, &sealed));
            let read = read(&mut tee).and_then(|read| tee.drain().map(|()| read));
            // No more blocks come.
            drop(tee);
            let out = sealing.join().map_err(|_| Error::internal("the thread that seals a dump panicked"))?;
            // Its reason is the better one.
            out.and_then(|out| Ok((read?, out)))
        })
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
