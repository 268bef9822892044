//! The blocks of data: COPY text of tables, large objects.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;

use super::{Archive, damaged};
use crate::error::Result;

/// Types of blocks: `BLK_DATA`, `BLK_BLOBS`.
pub(super) const TABLE: u8 = 1;
pub(super) const LARGE_OBJECTS: u8 = 3;

/// What one entry's data was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Rows of a table; large objects of theirs.
    pub rows: u64,
    /// Bytes of the COPY text, its end mark left out; bytes of the large objects' contents.
    pub bytes: u64,
}

/// What all the data was, by dump id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    pub tables: BTreeMap<u32, Block>,
    pub large_objects: u64,
    pub large_object_bytes: u64,
}

impl<R: BufRead> Archive<R> {
    /// Reads to the end of the source. An archive that is cut off anywhere is an error.
    pub fn contents(&mut self) -> Result<Contents> {
        if !self.header.uncompressed {
            return Err(damaged("the archive is compressed: its rows cannot be counted"));
        }
        let mut contents = Contents::default();
        let with_data = self.toc.entries.iter().filter(|e| e.has_data).map(|e| e.dump_id);
        let mut expected: BTreeSet<u32> = with_data.collect();
        while let Some(kind) = self.fields.byte_or_end()? {
            let id = self.fields.positive("a block's id")?;
            if !expected.remove(&id) {
                return Err(damaged(format!("the archive has a block of data for {id}, where none belongs")));
            }
            match kind {
                TABLE => _ = contents.tables.insert(id, self.table()?),
                LARGE_OBJECTS => {
                    let block = self.large_objects()?;
                    contents.large_objects += block.rows;
                    contents.large_object_bytes += block.bytes;
                }
                other => return Err(damaged(format!("the archive has a block of the unknown type {other}"))),
            }
        }
        match expected.first().and_then(|id| self.toc.entry(*id)) {
            None => Ok(contents),
            Some(lacks) => Err(damaged(format!(
                "the archive ends before the data of {} {}",
                lacks.description, lacks.tag
            ))),
        }
    }

    fn table(&mut self) -> Result<Block> {
        let mut rows = CopyRows::default();
        self.chunks(|piece| rows.take(piece))?;
        rows.end()
    }

    fn large_objects(&mut self) -> Result<Block> {
        let mut block = Block { rows: 0, bytes: 0 };
        while self.fields.positive("a large object's id")? != 0 {
            block.rows += 1;
            self.chunks(|piece| block.bytes += piece.len() as u64)?;
        }
        Ok(block)
    }

    /// Pieces with their lengths before them, up to a length of zero.
    fn chunks(&mut self, mut take: impl FnMut(&[u8])) -> Result<()> {
        loop {
            match self.fields.length()? {
                Some(0) => return Ok(()),
                Some(length) => self.fields.each_piece(length, &mut take)?,
                None => return Err(damaged("a piece of data has no length")),
            }
        }
    }
}

/// Counts the rows of COPY's text format: lines, up to the line `\\.`; a newline or a backslash inside a value is
/// escaped there, so that no row looks like another thing.
#[derive(Default)]
struct CopyRows {
    rows: u64,
    bytes: u64,
    /// The line that goes on, as far as it may still be the end mark.
    line: Line,
    ended: bool,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Line {
    #[default]
    Empty,
    Backslash,
    EndMark,
    Row,
}

impl CopyRows {
    fn take(&mut self, mut piece: &[u8]) {
        while !self.ended && !piece.is_empty() {
            let newline = memchr::memchr(b'\n', piece);
            let line = &piece[..newline.unwrap_or(piece.len())];
            for byte in line.iter().take(3) {
                self.line = match (self.line, byte) {
                    (Line::Empty, b'\\') => Line::Backslash,
                    (Line::Backslash, b'.') => Line::EndMark,
                    _ => Line::Row,
                };
            }
            self.bytes += line.len() as u64;
            let Some(at) = newline else { return };
            if self.line == Line::EndMark {
                self.bytes -= 2;
                self.ended = true;
                return;
            }
            self.rows += 1;
            self.bytes += 1;
            self.line = Line::Empty;
            piece = &piece[at + 1..];
        }
    }

    fn end(self) -> Result<Block> {
        if self.ended {
            return Ok(Block { rows: self.rows, bytes: self.bytes });
        }
        Err(damaged("the data of a table have no end mark"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn count(pieces: &[&[u8]]) -> Option<(u64, u64)> {
        let mut rows = CopyRows::default();
        for piece in pieces {
            rows.take(piece);
        }
        rows.end().ok().map(|block| (block.rows, block.bytes))
    }

    #[test]
    fn rows_are_lines_before_the_end_mark() {
        assert_eq!(count(&[b"1\ta\n", b"2\t\\\\.\n", b"\\.\n\n\n"]), Some((2, 10)));
        assert_eq!(count(&[b"\\.\n\n\n"]), Some((0, 0)));
        // A table without columns has empty lines.
        assert_eq!(count(&[b"\n", b"\n", b"\\.\n\n\n"]), Some((2, 2)));
        // NULL, and a value that begins like the end mark.
        assert_eq!(count(&[b"\\N\n", b"\\\\.\n", b"\\.x\n", b"\\.\n"]), Some((3, 11)));
        assert_eq!(count(&[b"1\ta\n"]), None);
        assert_eq!(count(&[b"1\ta\n\\."]), None);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_pieces_are_cut(
            rows in prop::collection::vec("[a\\\\.N\t]{0,5}", 0..20), cut in 1..9_usize,
        ) {
            let rows: Vec<_> = rows.into_iter().filter(|row| row != "\\.").collect();
            let text = rows.iter().fold(String::new(), |text, row| text + row + "\n");
            let whole = format!("{text}\\.\n\n\n");
            let pieces: Vec<&[u8]> = whole.as_bytes().chunks(cut).collect();
            prop_assert_eq!(count(&pieces), Some((rows.len() as u64, text.len() as u64)));
        }
    }
}
