//! Counts the rows of CSV as COPY writes it: a newline ends a row unless it stands between quotes.

use crate::error::{Code, Error, Result};

/// Takes the file in pieces, cut anywhere.
#[derive(Debug, Default)]
pub(super) struct CsvRows {
    lines: u64,
    /// An odd number of quotes so far: a quote inside a value is doubled and changes nothing.
    quoted: bool,
    /// The last byte did not end a line.
    open: bool,
}

impl CsvRows {
    pub(super) fn take(&mut self, piece: &[u8]) {
        for at in memchr::memchr2_iter(b'"', b'\n', piece) {
            if piece[at] == b'"' {
                self.quoted = !self.quoted;
            } else if !self.quoted {
                self.lines += 1;
            }
        }
        if let Some(last) = piece.last() {
            self.open = self.quoted || *last != b'\n';
        }
    }

    /// Rows below the header.
    pub(super) fn end(&self) -> Result<u64> {
        match self.lines.checked_sub(1) {
            Some(rows) if !self.open => Ok(rows),
            _ => Err(Error::new(Code::BackupFailed, "PostgreSQL's CSV does not end with a whole row")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn count(pieces: &[&[u8]]) -> Option<u64> {
        let mut rows = CsvRows::default();
        for piece in pieces {
            rows.take(piece);
        }
        rows.end().ok()
    }

    #[test]
    fn newlines_between_quotes_end_no_row() {
        assert_eq!(count(&[b"a,b\n1,2\n"]), Some(1));
        assert_eq!(count(&[b"\"a\nb\"\n", b"\"x\n\n\"\"\n\",\n"]), Some(1));
        assert_eq!(count(&[b"a\n"]), Some(0));
        // A table without columns.
        assert_eq!(count(&[b"\n\n\n"]), Some(2));
        for cut in [&b""[..], b"a", b"a\n1", b"a\n\"1\n"] {
            assert_eq!(count(&[cut]), None, "{cut:?}");
        }
    }

    proptest! {
        #[test]
        fn rows_are_counted_wherever_the_pieces_are_cut(
            rows in prop::collection::vec(prop::collection::vec("[a,\"\n\r]{0,4}", 1..3), 1..12), cut in 1..7_usize,
        ) {
            let field = |value: &String| format!("\"{}\"", value.replace('"', "\"\""));
            let line = |row: &Vec<String>| row.iter().map(field).collect::<Vec<_>>().join(",") + "\n";
            let text: String = rows.iter().map(line).collect();
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(cut).collect();
            prop_assert_eq!(count(&pieces), Some(rows.len() as u64 - 1));
        }
    }
}
