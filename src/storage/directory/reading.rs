//! Bodies from files: opened once, read in pieces on the blocking pool.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;
use futures::StreamExt;

use super::{Body, Key, Root, joined};
use crate::error::{Code, Error, Result};

/// One piece of a body.
const PIECE: u64 = 1 << 20;

pub(super) struct Reader {
    file: File,
    path: PathBuf,
    left: u64,
}

impl Reader {
    /// Blocks. Says `ObjectMissing` only when the root is there and the object is not.
    pub(super) fn open(root: &Root, key: &Key, range: Option<Range<u64>>) -> Result<Self> {
        let path = root.path_of(key)?;
        let missing = || {
            Error::new(Code::ObjectMissing, "the object does not exist")
                .at(format!("{}/{key}", root.location))
        };
        let Some(found) = root.look(key, &path)? else { return Err(missing()) };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(missing()),
            Err(e) => return Err(Error::io("cannot open the file", &path, e)),
        };
        let range = range.unwrap_or(0..found.bytes);
        if range.start > range.end || range.end > found.bytes {
            let what = format!("bytes {}..{} asked of an object of {}", range.start, range.end, found.bytes);
            return Err(Error::new(Code::StoreLied, what).at(format!("{}/{key}", root.location)));
        }
        if range.start > 0 {
            file.seek(SeekFrom::Start(range.start))
                .map_err(|e| Error::io("cannot seek in the file", &path, e))?;
        }
        Ok(Self { file, path, left: range.end - range.start })
    }

    /// None at the end of the range; a file that ends before it is an error. Blocks.
    fn piece(&mut self) -> Result<Option<Bytes>> {
        let want = self.left.min(PIECE);
        if want == 0 {
            return Ok(None);
        }
        let mut piece = Vec::with_capacity(usize::try_from(want).unwrap_or(0));
        let got = (&mut self.file)
            .take(want)
            .read_to_end(&mut piece)
            .map_err(|e| Error::io("cannot read the file", &self.path, e))?;
        if got as u64 != want {
            return Err(Error::new(Code::StoreLied, "the file became shorter while it was read")
                .at(self.path.display()));
        }
        self.left -= want;
        Ok(Some(Bytes::from(piece)))
    }

    pub(super) fn into_body(self) -> Body {
        futures::stream::try_unfold(self, |mut reader| async move {
            joined(
                tokio::task::spawn_blocking(move || {
                    reader.piece().map(|piece| piece.map(|bytes| (bytes, reader)))
                })
                .await,
            )
        })
        .boxed()
    }
}
