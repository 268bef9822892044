//! Under a session on a local socket: everything passes as it comes, but the rows of a COPY, which are gathered into
//! large pieces before anything else has touched them.
//!
//! The driver takes a server's bytes 8 kB at a time and hands every row on by itself, which costs as much as
//! compressing it; and the server waits meanwhile, because a local socket holds less than a millisecond of rows.
//! The rules are those of PostgreSQL's documentation, "Message Formats": a byte for the type, four for the length with
//! itself, and of COPY's messages one `CopyData` for each row.
//!
//! Bound: one piece that is gathered and one that waits. Who takes the pieces is waited for, and so is the server.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use super::Piece;
use crate::util::buffers::{Buffer, Buffers};

const HEADER: usize = 5;
const COPY_DATA: u8 = b'd';
const COPY_DONE: u8 = b'c';
const DONE: &[u8] = &[COPY_DONE, 0, 0, 0, 4];
const COMMAND_COMPLETE: u8 = b'C';
/// Enough for statements and their answers.
const USUAL: usize = 8 << 10;
/// More than a local socket holds.
const WHILE_COPYING: usize = 256 << 10;
/// Longest message that is looked into: the tag of a finished command.
const TAG_BYTES: usize = 64;

/// Between the stream and the session.
#[derive(Clone, Default)]
pub(super) struct Diversion(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    to: Option<Gathering>,
    said: Option<u64>,
}

struct Gathering {
    piece_bytes: usize,
    buffers: Buffers,
    piece: Buffer,
    rows: u64,
    pieces: PollSender<Piece>,
}

impl Diversion {
    /// From now on rows go where this leads, in pieces of so many bytes.
    pub(super) fn begin(&self, piece_bytes: usize) -> mpsc::Receiver<Piece> {
        let (sender, pieces) = mpsc::channel(1);
        let buffers = Buffers::default();
        let piece = buffers.with_room(piece_bytes);
        let to = Gathering { piece_bytes, piece, buffers, rows: 0, pieces: PollSender::new(sender) };
        *self.state() = State { to: Some(to), said: None };
        pieces
    }

    /// Rows are left to the driver again.
    pub(super) fn end(&self) {
        self.state().to = None;
    }

    /// How many rows the server says that it has sent: known when the COPY has ended.
    pub(super) fn said(&self) -> Option<u64> {
        self.state().said
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gathering {
    /// How many of a row's bytes were taken: some, if there are any.
    fn poll_take(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<usize> {
        if self.piece.len() == self.piece_bytes {
            ready!(self.poll_hand_over(context));
        }
        let taken = bytes.len().min(self.piece_bytes - self.piece.len());
        self.piece.extend(&bytes[..taken]);
        Poll::Ready(taken)
    }

    /// At the end: what is less than a piece.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.piece.is_empty() && self.rows == 0 { Poll::Ready(()) } else { self.poll_hand_over(context) }
    }

    fn poll_hand_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // Nobody wants the rows any more: whoever gave up knows why, and they are thrown away.
        let wanted = ready!(self.pieces.poll_reserve(context)).is_ok();
        let full = std::mem::replace(&mut self.piece, self.buffers.with_room(self.piece_bytes));
        let piece = Piece { rows: std::mem::take(&mut self.rows), bytes: full.share() };
        if wanted {
            let _ = self.pieces.send_item(piece);
        }
        Poll::Ready(())
    }
}

/// Where in the server's messages it is.
#[derive(Debug, Clone, Copy)]
enum At {
    Header,
    /// So many bytes of a row are still to come.
    Row(usize),
    /// So many bytes for the driver are.
    Passing(usize),
}

/// What a step has come to.
enum Step {
    Done,
    /// It needs more bytes of the server, or more room for the driver's.
    Stuck,
}

/// The stream.
pub(in crate::postgres) struct Tap<S> {
    inner: S,
    diversion: Diversion,
    at: At,
    /// Of the server.
    held: Held,
    /// `CopyDone` waits until the server has said how many rows there were, so that whoever hears of the end can ask.
    kept: &'static [u8],
}

/// Bytes that were read and are not done with.
#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

impl Held {
    fn left(&self) -> &[u8] {
        &self.bytes[self.from..self.to]
    }

    /// Room behind what is left; all that there will be is `size` bytes, unless more are left already.
    fn room(&mut self, size: usize) -> &mut [u8] {
        self.bytes.copy_within(self.from..self.to, 0);
        self.to -= self.from;
        self.from = 0;
        let size = size.max(self.to + USUAL);
        if self.bytes.len() != size {
            self.bytes.resize(size, 0);
            self.bytes.shrink_to_fit();
        }
        &mut self.bytes[self.to..]
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Tap<S> {
    pub(super) fn new(inner: S) -> (Self, Diversion) {
        let diversion = Diversion::default();
        let (at, held) = (At::Header, Held::default());
        (Self { inner, diversion: diversion.clone(), at, held, kept: &[] }, diversion)
    }

    fn poll_step(
        &mut self,
        state: &mut State,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<Step> {
        match (self.at, &mut state.to) {
            (At::Header, None) => {
                let Some((_, whole)) = self.header() else { return Poll::Ready(Step::Stuck) };
                self.at = At::Passing(whole);
            }
            (At::Header, Some(to)) => {
                let Some((kind, whole)) = self.header() else { return Poll::Ready(Step::Stuck) };
                match kind {
                    COPY_DATA if whole >= HEADER => {
                        self.held.from += HEADER;
                        self.at = At::Row(whole - HEADER);
                    }
                    COPY_DONE if whole == DONE.len() => {
                        ready!(to.poll_flush(context));
                        self.held.from += whole;
                        self.kept = DONE;
                    }
                    COMMAND_COMPLETE if (HEADER..=TAG_BYTES).contains(&whole) => {
                        let Some(message) = self.held.left().get(..whole) else {
                            return Poll::Ready(Step::Stuck);
                        };
                        state.said = rows_of(&message[HEADER..]);
                        self.at = At::Passing(whole);
                    }
                    _ => self.at = At::Passing(whole),
                }
            }
            (At::Row(rest), to) => {
                let left = self.held.left();
                let here = &left[..rest.min(left.len())];
                let took = match to.as_mut() {
                    Some(to) => ready!(to.poll_take(context, here)),
                    // Given up in the middle of a row: the driver has not seen its header and shall not see its end.
                    None => here.len(),
                };
                self.held.from += took;
                self.at = At::Row(rest - took);
                if took == rest {
                    self.at = At::Header;
                    if let Some(to) = to {
                        to.rows += 1;
                    }
                } else if took == 0 {
                    return Poll::Ready(Step::Stuck);
                }
            }
            (At::Passing(rest), _) => {
                let kept = self.kept.split_off(..self.kept.len().min(out.remaining())).unwrap_or_default();
                out.put_slice(kept);
                let left = self.held.left();
                let here = rest.min(left.len()).min(out.remaining());
                out.put_slice(&left[..here]);
                self.held.from += here;
                self.at = if here == rest { At::Header } else { At::Passing(rest - here) };
                if here == 0 {
                    return Poll::Ready(Step::Stuck);
                }
            }
        }
        Poll::Ready(Step::Done)
    }

    /// The type of the next message, and its length with all.
    fn header(&self) -> Option<(u8, usize)> {
        let header = self.held.left().first_chunk::<HEADER>()?;
        let body = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        Some((header[0], body as usize + 1))
    }

    /// More from the server; false at its end.
    fn poll_fill(&mut self, size: usize, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut room = ReadBuf::new(self.held.room(size));
        ready!(Pin::new(&mut self.inner).poll_read(context, &mut room))?;
        let new = room.filled().len();
        self.held.to += new;
        Poll::Ready(Ok(new > 0))
    }
}

/// `COPY 12` with its end.
fn rows_of(tag: &[u8]) -> Option<u64> {
    std::str::from_utf8(tag).ok()?.trim_end_matches('\0').strip_prefix("COPY ")?.parse().ok()
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = out.filled().len();
        let diversion = this.diversion.clone();
        let mut state = diversion.state();
        loop {
            match this.poll_step(&mut state, context, out) {
                Poll::Ready(Step::Done) => {}
                _ if out.filled().len() > before => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Step::Stuck) => {
                    let size = if state.to.is_some() { WHILE_COPYING } else { USUAL };
                    if !ready!(this.poll_fill(size, context))? {
                        // Whoever reads finds out whether something was still to come.
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[kind], &length[..], body].concat()
    }

    /// What comes of a COPY with these rows between other messages, its bytes cut into pieces of these lengths.
    async fn copied(rows: &[Vec<u8>], cuts: &[usize], piece_bytes: usize, driver_room: usize) -> Copied {
        let before = [message(b'H', &[0; 7]), message(b'N', b"a notice")].concat();
        let after = [message(COPY_DONE, b""), message(b'C', format!("COPY {}\0", rows.len()).as_bytes())];
        let after = [after.concat(), message(b'Z', b"T")].concat();
        let sent =
            [before.clone(), rows.iter().flat_map(|row| message(COPY_DATA, row)).collect(), after.clone()];
        let (mut server, stream) = duplex(1 << 20);
        let (mut tap, diversion) = Tap::new(stream);
        let mut pieces = diversion.begin(piece_bytes);
        let (sent, cuts) = (sent.concat(), cuts.to_vec());
        let serve = async move {
            let (mut rest, mut cuts) = (&sent[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let here = cuts.next().copied().unwrap_or(usize::MAX).clamp(1, rest.len());
                server.write_all(&rest[..here]).await.unwrap();
                rest = &rest[here..];
                tokio::task::yield_now().await;
            }
        };
        let drive = async move {
            let (mut all, mut room) = (Vec::new(), vec![0; driver_room]);
            loop {
                match tap.read(&mut room).await.unwrap() {
                    0 => return all,
                    n => all.extend_from_slice(&room[..n]),
                }
            }
        };
        let take = async {
            let (mut bytes, mut counted) = (Vec::new(), 0);
            while counted < rows.len() as u64 {
                let piece = pieces.recv().await.unwrap();
                assert!(piece.bytes.len() <= piece_bytes);
                bytes.extend_from_slice(&piece.bytes);
                counted += piece.rows;
            }
            (bytes, counted)
        };
        let ((), driver, (bytes, counted)) = tokio::join!(serve, drive, take);
        assert_eq!(driver, [before, after].concat());
        Copied { bytes, counted, said: diversion.said() }
    }

    #[derive(Debug, PartialEq)]
    struct Copied {
        bytes: Vec<u8>,
        counted: u64,
        said: Option<u64>,
    }

    proptest! {
        #[test]
        fn rows_are_gathered_and_all_else_passes_however_the_bytes_are_cut(
            rows in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..40),
            cuts in prop::collection::vec(1_usize..60, 1..10),
            piece_bytes in 1_usize..100,
            driver_room in 1_usize..30,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let copied = runtime.block_on(copied(&rows, &cuts, piece_bytes, driver_room));
            let whole = Copied { bytes: rows.concat(), counted: rows.len() as u64, said: Some(rows.len() as u64) };
            prop_assert_eq!(copied, whole);
        }
    }

    fn pair() -> (DuplexStream, Tap<DuplexStream>, Diversion) {
        let (server, stream) = duplex(1 << 20);
        let (tap, diversion) = Tap::new(stream);
        (server, tap, diversion)
    }

    #[tokio::test]
    async fn without_a_diversion_everything_passes() {
        let (mut server, mut tap, diversion) = pair();
        let all = [message(b'1', b""), message(COPY_DATA, b"row"), message(COPY_DONE, b"")].concat();
        server.write_all(&all).await.unwrap();
        let mut passed = vec![0; all.len()];
        tap.read_exact(&mut passed).await.unwrap();
        assert_eq!((passed, diversion.said()), (all, None));
    }

    #[tokio::test]
    async fn a_failed_copy_is_the_drivers_and_said_to_nobody_as_complete() {
        let (mut server, mut tap, diversion) = pair();
        let mut pieces = diversion.begin(100);
        let error = message(b'E', b"SFATAL\0");
        server.write_all(&[message(COPY_DATA, b"row"), error.clone()].concat()).await.unwrap();
        let mut passed = vec![0; error.len()];
        tap.read_exact(&mut passed).await.unwrap();
        assert_eq!((passed, diversion.said()), (error, None));
        assert!(pieces.try_recv().is_err());
    }

    #[tokio::test]
    async fn what_nobody_takes_any_more_is_thrown_away_and_the_rest_passes() {
        let (mut server, mut tap, diversion) = pair();
        let pieces = diversion.begin(4);
        let row = message(COPY_DATA, b"a row of some bytes");
        let (begun, rest) = row.split_at(9);
        server.write_all(begun).await.unwrap();
        let mut passed = [0; 6];
        let waits = tokio::time::timeout(std::time::Duration::from_millis(20), tap.read(&mut passed)).await;
        assert!(waits.is_err(), "there is nothing for the driver");
        drop(pieces);
        diversion.end();
        let ready = message(b'Z', b"I");
        server.write_all(&[rest, &ready].concat()).await.unwrap();
        tap.read_exact(&mut passed).await.unwrap();
        assert_eq!(passed[..], ready);
    }

    #[tokio::test]
    async fn the_server_waits_for_whoever_takes_the_rows() {
        let (mut server, mut tap, diversion) = pair();
        let mut pieces = diversion.begin(4);
        server.write_all(&message(COPY_DATA, b"01234567890123")).await.unwrap();
        let mut room = [0; 9];
        let short = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(short, tap.read(&mut room)).await.is_err());
        assert_eq!(pieces.recv().await.unwrap().bytes, "0123");
        assert!(pieces.try_recv().is_err(), "one waits, one is gathered");
        assert!(tokio::time::timeout(short, tap.read(&mut room)).await.is_err());
        assert_eq!(pieces.recv().await.unwrap().bytes, "4567");
    }
}
