//! The first frame of every WAL object: who archived it, with what, when.
//!
//! A zstd skippable frame (magic 0x184D2A50, little endian, then the length, then JSON) inside age. `zstd -d`
//! passes over it.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::model::Timestamp;

/// RFC 8878: skippable frames have the magic numbers 0x184D2A50 to 0x184D2A5F.
pub(super) const HEADER_MAGIC: u32 = 0x184D_2A50;
const LONGEST: usize = 64 << 10;

/// Which host archived a WAL file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalObjectHeader {
    pub host: String,
    pub pgkeep_version: String,
    pub archived_at: Timestamp,
}

impl WalObjectHeader {
    pub(super) fn frame(&self) -> Result<Vec<u8>> {
        let json =
            serde_json::to_vec(self).map_err(|e| Error::internal("a header that is no JSON").because(e))?;
        let length = u32::try_from(json.len()).ok().filter(|_| json.len() <= LONGEST);
        let length = length.ok_or_else(|| Error::internal("a WAL object's header is too long"))?;
        let mut frame = Vec::with_capacity(8 + json.len());
        frame.extend_from_slice(&HEADER_MAGIC.to_le_bytes());
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(&json);
        Ok(frame)
    }
}

/// Takes the header off the front of a compressed stream. Without one, the bytes that were looked at come back.
pub(super) fn take(stream: &mut impl Read) -> io::Result<(Option<WalObjectHeader>, Vec<u8>)> {
    let mut head = Vec::with_capacity(8);
    stream.by_ref().take(8).read_to_end(&mut head)?;
    let Some((magic, length)) = split(&head).filter(|(magic, _)| *magic == HEADER_MAGIC) else {
        return Ok((None, head));
    };
    debug_assert_eq!(magic, HEADER_MAGIC);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the object's header is too long"));
    }
    let mut json = vec![0; length];
    stream.read_exact(&mut json)?;
    let header = serde_json::from_slice(&json).map_err(|e| {
        super::into_io(Error::new(Code::Damaged, "the object's header cannot be read").because(e))
    })?;
    Ok((Some(header), Vec::new()))
}

fn split(head: &[u8]) -> Option<(u32, u32)> {
    let word = |from: usize| head.get(from..from + 4)?.try_into().ok().map(u32::from_le_bytes);
    Some((word(0)?, word(4)?))
}
