//! An archive with some of the blocks of another: what one `pg_restore` of several is given to read.
//!
//! `pg_restore` looks for the block of an entry by reading on (`_PrintTocData` of `pg_backup_custom.c`, where the input
//! cannot seek), so blocks that it is not asked for may be missing. Header and table of contents go first, byte for byte.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Read, Write};

use super::data::{LARGE_OBJECTS, TABLE};
use super::{Archive, Fields, Header, Toc, damaged};
use crate::error::Result;

/// What comes before the data, as it was read and as it lies in the archive.
#[derive(Debug, Clone)]
pub struct Head {
    pub header: Header,
    pub toc: Toc,
    pub bytes: Vec<u8>,
}

impl Head {
    /// Reads up to where the data begins.
    pub fn read(source: impl BufRead) -> Result<Self> {
        let Archive { fields, header, toc } = Archive::open(Recorder { inner: source, taken: Vec::new() })?;
        Ok(Self { header, toc, bytes: fields.source.taken })
    }
}

/// Keeps what is read through it.
struct Recorder<R> {
    inner: R,
    taken: Vec<u8>,
}

impl<R: BufRead> BufRead for Recorder<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }
    fn consume(&mut self, n: usize) {
        // What is in the buffer comes again without reading.
        if let Ok(buffer) = self.inner.fill_buf() {
            self.taken.extend_from_slice(&buffer[..n.min(buffer.len())]);
        }
        self.inner.consume(n);
    }
}

impl<R: BufRead> Read for Recorder<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(into)?;
        self.taken.extend_from_slice(&into[..n]);
        Ok(n)
    }
}

/// Where blocks go. The first failure is kept, and nothing is written after it.
struct Sink<'o, W> {
    out: &'o mut W,
    failed: Option<io::Error>,
}

impl<W: Write> Sink<'_, W> {
    fn put(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.out.write_all(bytes).err();
        }
    }
    fn int<R>(&mut self, like: &Fields<R>, value: u64) {
        self.put(&[0]);
        for at in 0..like.int_bytes {
            self.put(&[(value >> (8 * at)).to_le_bytes()[0]]);
        }
    }
}

impl<R: BufRead> Archive<R> {
    /// Passes the `wanted` blocks on as they are, and reads no further than the last of them. The outer result is the
    /// archive's, the inner one that of `out`. `seen` is told the bytes of data that were passed on.
    pub fn pass_on(
        &mut self,
        wanted: &BTreeSet<u32>,
        out: &mut impl Write,
        mut seen: impl FnMut(u64),
    ) -> Result<io::Result<()>> {
        let mut missing = wanted.clone();
        let mut sink = Sink { out, failed: None };
        while !missing.is_empty() {
            let Some(kind) = self.fields.byte_or_end()? else {
                let lacks = missing.first().and_then(|id| self.toc.entry(*id));
                let lacks = lacks.map(|e| format!(" of {} {}", e.description, e.tag)).unwrap_or_default();
                return Err(damaged(format!("the archive ends before the data{lacks}")));
            };
            let id = self.fields.positive("a block's id")?;
            let is_wanted = missing.remove(&id);
            let mut to = is_wanted.then_some(&mut sink);
            if let Some(sink) = &mut to {
                sink.put(&[kind]);
                sink.int(&self.fields, u64::from(id));
            }
            match kind {
                TABLE => self.pass_chunks(&mut to, &mut seen)?,
                LARGE_OBJECTS => loop {
                    let object = self.fields.positive("a large object's id")?;
                    if let Some(sink) = &mut to {
                        sink.int(&self.fields, u64::from(object));
                    }
                    if object == 0 {
                        break;
                    }
                    self.pass_chunks(&mut to, &mut seen)?;
                },
                other => return Err(damaged(format!("the archive has a block of the unknown type {other}"))),
            }
            if let Some(error) = sink.failed.take() {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    /// Stops early where `to` takes no more.
    fn pass_chunks<W: Write>(
        &mut self,
        to: &mut Option<&mut Sink<'_, W>>,
        seen: &mut impl FnMut(u64),
    ) -> Result<()> {
        loop {
            let length = self.fields.length()?.ok_or_else(|| damaged("a piece of data has no length"))?;
            let Some(sink) = to.as_mut() else {
                if length == 0 {
                    return Ok(());
                }
                self.fields.each_piece(length, |_| ())?;
                continue;
            };
            sink.int(&self.fields, length);
            if length == 0 {
                return Ok(());
            }
            self.fields.each_piece(length, |piece| sink.put(piece))?;
            seen(length);
            if sink.failed.is_some() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    fn int(value: u32) -> Vec<u8> {
        [&[0][..], &value.to_le_bytes()].concat()
    }
    fn text(value: &str) -> Vec<u8> {
        [int(u32::try_from(value.len()).unwrap()), value.as_bytes().to_vec()].concat()
    }

    /// Version 1.14: a head with three entries, two tables and large objects.
    fn head() -> Vec<u8> {
        let mut bytes = b"PGDMP\x01\x0e\x00\x04\x08\x01".to_vec();
        bytes.extend(int(0));
        (0..7).for_each(|_| bytes.extend(int(0)));
        for name in ["app", "14.1", "14.1"] {
            bytes.extend(text(name));
        }
        bytes.extend(int(3));
        for (id, description) in [(1, "TABLE DATA"), (2, "TABLE DATA"), (3, "BLOBS")] {
            bytes.extend([int(id), int(1)].concat());
            for field in ["1259", "16400", "t", description] {
                bytes.extend(text(field));
            }
            bytes.extend(int(3));
            for field in ["", "", "COPY t FROM stdin;", "public", "", ""] {
                bytes.extend(text(field));
            }
            bytes.extend([text("owner"), text("false")].concat());
            // No dependencies.
            bytes.extend([&[1][..], &1_u32.to_le_bytes()].concat());
            bytes.extend([1, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
        bytes
    }
    fn block(id: u32, rows: &[&str]) -> Vec<u8> {
        let mut bytes = [vec![TABLE], int(id)].concat();
        bytes.extend(rows.iter().flat_map(|row| text(row)));
        bytes.extend(int(0));
        bytes
    }
    fn large_objects() -> Vec<u8> {
        [vec![LARGE_OBJECTS], int(3), int(70_001), text("content"), int(0), int(0)].concat()
    }

    fn passed(of: &[u8], wanted: &[u32]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut archive = Archive::open(of)?;
        archive.pass_on(&wanted.iter().copied().collect(), &mut out, |_| ())?.unwrap();
        Ok(out)
    }

    #[test]
    fn the_head_is_kept_byte_for_byte() {
        let whole = [head(), block(1, &["1\n", "\\.\n"])].concat();
        let read = Head::read(&whole[..]).unwrap();
        assert_eq!((read.bytes, read.toc.entries.len()), (head(), 3));
    }

    #[test]
    fn wanted_blocks_are_passed_on_unchanged_and_nothing_is_read_after_the_last() {
        let (one, two, large) = (block(1, &["1\n", "\\.\n\n\n"]), block(2, &["\\.\n\n\n"]), large_objects());
        let whole = [head(), one.clone(), two.clone(), large.clone()].concat();
        assert_eq!(passed(&whole, &[1, 3]).unwrap(), [one.clone(), large.clone()].concat());
        assert_eq!(passed(&whole, &[2]).unwrap(), two);
        assert!(passed(&whole, &[]).unwrap().is_empty());
        let cut = [head(), one.clone(), b"garbage".to_vec()].concat();
        assert_eq!(passed(&cut, &[1]).unwrap(), one);
    }

    #[test]
    fn an_archive_that_ends_before_a_wanted_block_is_damaged_wherever_it_is_cut() {
        let whole = [head(), block(1, &["1\n", "\\.\n\n\n"]), large_objects()].concat();
        for length in 0..whole.len() {
            let error = passed(&whole[..length], &[1, 3]).unwrap_err();
            assert_eq!(error.code(), Code::Damaged, "cut at {length}");
        }
        assert!(passed(&whole, &[2]).unwrap_err().what().contains("of TABLE DATA t"));
    }

    #[test]
    fn a_reader_that_has_gone_is_no_fault_of_the_archive() {
        let whole = [head(), block(1, &["1\n", "\\.\n\n\n"])].concat();
        let mut room = [0; 8];
        let mut out = &mut room[..];
        let mut archive = Archive::open(&whole[..]).unwrap();
        assert!(archive.pass_on(&BTreeSet::from([1]), &mut out, |_| ()).unwrap().is_err());
    }
}
