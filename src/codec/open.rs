//! The way out: stored bytes → age → zstd → plain. A reader gets what was written, or an error.
//!
//! Only a reader that has seen the end (`read` gave 0) knows that the object is whole.

use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom};

use age::stream::StreamReader;

use super::protection::is_encrypted;
use super::seal::END_MARK;
use super::{Identities, WalObjectHeader, from_io, header, into_io};
use crate::error::{Code, Error, Result};

/// age's chunks on the wire: 64 KiB of data and a tag each.
const AGE_CHUNK: u64 = 64 << 10;
const AGE_CHUNK_STORED: u64 = AGE_CHUNK + 16;
const BUFFER: usize = 128 << 10;

/// Marks the faults of the source, so that they are not taken for damage of the bytes.
struct Source<R>(R);
impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

/// Passes everything through and demands that the last bytes be the end mark.
struct UntilMark<R> {
    inner: R,
    tail: Vec<u8>,
}
impl<R: Read> Read for UntilMark<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if n == 0 && !buffer.is_empty() {
            let whole = self.tail == END_MARK;
            return if whole { Ok(0) } else { Err(invalid("the object is cut off")) };
        }
        let keep = END_MARK.len();
        self.tail.extend_from_slice(&buffer[n.saturating_sub(keep)..n]);
        self.tail.drain(..self.tail.len().saturating_sub(keep));
        Ok(n)
    }
}

enum Cleartext<R: Read> {
    Plain(UntilMark<Source<R>>),
    Age(Box<StreamReader<BufReader<Source<R>>>>),
}
impl<R: Read> Read for Cleartext<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(r) => r.read(buffer),
            Self::Age(r) => r.read(buffer),
        }
    }
}

type Compressed<R> = BufReader<io::Chain<Cursor<Vec<u8>>, Cleartext<R>>>;

/// The plain bytes of a sealed object. Errors that it yields as `io::Error` carry an [`Error`] with its code;
/// [`super::from_io`] takes it out.
pub struct Opened<R: Read> {
    place: String,
    inner: zstd::stream::read::Decoder<'static, Compressed<R>>,
}

impl<R: Read> Read for Opened<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner
            .read(buffer)
            .map_err(|e| into_io(from_io("the object cannot be read back", &self.place, e)))
    }
}

/// Opens a whole object; the key's suffix says how it was stored.
pub fn open_sealed<R: Read>(source: R, key: &str, identities: Option<&Identities>) -> Result<Opened<R>> {
    let clear = clear(source, key, identities)?;
    decoder(key, clear, Vec::new())
}

/// The same for a WAL object, whose header comes first.
pub fn open_wal_object<R: Read>(
    source: R,
    key: &str,
    identities: Option<&Identities>,
) -> Result<(Option<WalObjectHeader>, Opened<R>)> {
    let mut clear = clear(source, key, identities)?;
    let (header, head) =
        header::take(&mut clear).map_err(|e| from_io("the object's header cannot be read", key, e))?;
    Ok((header, decoder(key, clear, head)?))
}

fn decoder<R: Read>(key: &str, clear: Cleartext<R>, head: Vec<u8>) -> Result<Opened<R>> {
    let stream = BufReader::with_capacity(BUFFER, Cursor::new(head).chain(clear));
    let inner = zstd::stream::read::Decoder::with_buffer(stream)
        .map_err(|e| Error::internal("no zstd decoder").because(e))?;
    Ok(Opened { place: key.to_owned(), inner })
}

fn clear<R: Read>(source: R, key: &str, identities: Option<&Identities>) -> Result<Cleartext<R>> {
    let source = Source(source);
    if !is_encrypted(key)? {
        return Ok(Cleartext::Plain(UntilMark { inner: source, tail: Vec::new() }));
    }
    let buffered = BufReader::with_capacity(BUFFER, source);
    Ok(Cleartext::Age(Box::new(decrypt(buffered, key, identities)?)))
}

fn decrypt<B: BufRead>(source: B, key: &str, identities: Option<&Identities>) -> Result<StreamReader<B>> {
    let Some(identities) = identities.filter(|ids| !ids.is_empty()) else {
        return Err(Error::new(Code::WrongKey, "the object is encrypted and there is no identity")
            .at(key)
            .hint("set [encryption] identity_file to the file with the AGE-SECRET-KEY-1… line"));
    };
    let decryptor = age::Decryptor::new_buffered(source).map_err(|e| age_error(e, key))?;
    decryptor.decrypt(identities.iter()).map_err(|e| age_error(e, key))
}

/// Whether these identities open an object, by its first bytes alone: its header names whom it is for, and is
/// authenticated by the key that they unwrap. `head` must hold all of the header, 64 KiB do. What is not encrypted opens.
pub fn unlocks(head: &[u8], key: &str, identities: Option<&Identities>) -> Result<()> {
    if is_encrypted(key)? {
        decrypt(head, key, identities)?;
    }
    Ok(())
}

fn age_error(error: age::DecryptError, key: &str) -> Error {
    match error {
        age::DecryptError::NoMatchingKeys => Error::new(
            Code::WrongKey,
            "the identity does not open this object",
        )
        .at(key)
        .hint("use the identity that belongs to the recipients in backup.json (`pgkeep show ID` lists them)"),
        age::DecryptError::Io(cause) => from_io("the object cannot be read back", key, cause),
        other => Error::new(Code::Damaged, "the object's encryption header is damaged")
            .at(key)
            .because(said(&other)),
    }
}

/// In our words: age looks for its own in a file of its source tree, and panics where a build without optimisation runs as
/// somebody who may not read that.
fn said(error: &age::DecryptError) -> &'static str {
    match error {
        age::DecryptError::InvalidMac => "its header was changed",
        age::DecryptError::InvalidHeader => "its header cannot be read",
        age::DecryptError::UnknownFormat => "it is not an age file of a version that is known",
        age::DecryptError::DecryptionFailed | age::DecryptError::KeyDecryptionFailed => {
            "its key cannot be decrypted"
        }
        _ => "it cannot be decrypted",
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A stored object that can be read from anywhere, in ranged reads.
pub trait SeekableSource: Read + Seek {
    /// The next read begins at `stored_from` and needs about so many bytes: what one ranged read should bring.
    fn expect(&mut self, stored_bytes: u64);
}

/// How many stored bytes cover `length` bytes of the compressed stream from `offset` on.
fn stored_span(offset: u64, length: u64) -> u64 {
    let chunks = (offset + length).div_ceil(AGE_CHUNK) - offset / AGE_CHUNK;
    chunks.max(1) * AGE_CHUNK_STORED
}

/// A stretch of whole zstd frames of a sealed object: `length` bytes from `offset` on, both in the compressed stream inside age.
/// The source is asked for its head (age's header) and for the chunks that hold the frame, no more.
pub fn open_frame<'s, S: SeekableSource + 's>(
    mut source: S,
    key: &str,
    identities: Option<&Identities>,
    offset: u64,
    length: u64,
) -> Result<impl Read + use<'s, S>> {
    let place = key.to_owned();
    let damaged = |e| from_io("the member cannot be read back", key, e);
    let frame: Box<dyn Read + 's> = if is_encrypted(key)? {
        source.expect(stored_span(offset, length));
        // No larger buffer than age's header needs: the source itself reads in large pieces.
        let mut stream = decrypt(BufReader::with_capacity(512, source), key, identities)?;
        // Seeking exactly to a chunk's border makes age read the object's last chunk first.
        let border = offset > 0 && offset.is_multiple_of(AGE_CHUNK);
        stream.seek(SeekFrom::Start(offset - u64::from(border))).map_err(damaged)?;
        if border {
            stream.read_exact(&mut [0]).map_err(damaged)?;
        }
        Box::new(stream.take(length))
    } else {
        source.expect(length);
        source.seek(SeekFrom::Start(offset)).map_err(damaged)?;
        Box::new(source.take(length))
    };
    let inner =
        zstd::stream::read::Decoder::new(frame).map_err(|e| Error::internal("no zstd decoder").because(e))?;
    Ok(Frame { place, inner })
}

struct Frame<R: BufRead> {
    place: String,
    inner: zstd::stream::read::Decoder<'static, R>,
}
impl<R: BufRead> Read for Frame<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner
            .read(buffer)
            .map_err(|e| into_io(from_io("the member cannot be read back", &self.place, e)))
    }
}
