//! Keeps a recovery's tablespaces where the plan wants them, whatever the WAL says.
//!
//! Replaying `CREATE TABLESPACE` makes a link to the path in the record. In a side instance that is production's live
//! directory, and dropping a table there removes production's file; on another host the path does not exist and
//! recovery dies of it. pgkeep serves the WAL itself, so it rewrites the record on the way: its path is replaced (an
//! empty one makes the tablespace in place, a directory below `pg_tblspc`, inside the instance), the rest is filled
//! with zeros, and the CRC is computed anew. Lengths and positions stay as they are, so nothing else changes.
//!
//! Sources: `xl_tblspc_create_rec` of `commands/tablespace.h`, `create_tablespace_directories` of `tablespace.c` (an
//! empty location means in place, since 14.5), `XLogRecordAssemble` (CRC over the body, then the header before it).

use serde::{Deserialize, Serialize};

use super::page::{LONG_HEADER, PAGE_BYTES, SHORT_HEADER};
use super::record::{HEADER_BYTES, Record};
use crate::error::{Code, Error, Result};
use crate::model::{Lsn, SegmentSize};

/// Bytes of WAL that are served changed. The original is kept so that the change is applied to nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    pub at: Lsn,
    #[serde(with = "hex")]
    pub old: Vec<u8>,
    #[serde(with = "hex")]
    pub new: Vec<u8>,
}

/// A tablespace that the WAL creates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    pub oid: u32,
    pub path: String,
    pub lsn: Lsn,
    header: [u8; HEADER_BYTES],
    body: Vec<u8>,
}

/// `rmgr`'s data begins after `(255, length)`, or after `(254, four bytes of length)`.
const SHORT_DATA: u8 = 255;
const LONG_DATA: u8 = 254;
const OID_BYTES: usize = 4;
const CRC_AT: usize = 20;

impl Created {
    /// Keeps what is needed to rewrite the record later. `oid` and `path` are what it was understood to say.
    pub fn keep(record: &Record<'_>, oid: u32, path: String) -> Self {
        Self { oid, path, lsn: record.lsn, header: header_bytes(record), body: record.body().to_vec() }
    }

    /// The changes that make this record create the tablespace at `path` (empty: in place).
    pub fn redirect(&self, path: &str, size: SegmentSize) -> Result<Vec<Patch>> {
        let refused = |what: String, hint: &str| {
            Error::new(Code::TablespaceOutside, what)
                .at(format!("CREATE TABLESPACE {} in {} at {}", self.oid, self.path, self.lsn))
                .hint(hint)
        };
        let strange = || {
            refused(
                "the record that creates this tablespace cannot be rewritten".to_owned(),
                "restore to a moment before it",
            )
        };
        let room = self.path.len();
        if path.len() > room {
            return Err(refused(
                format!("`{path}` is longer than the path that it replaces"),
                &format!("map it to a path of at most {room} bytes, for example through a symbolic link"),
            ));
        }
        let start = self.path_at().ok_or_else(strange)?;
        let mut body = self.body.clone();
        let slot = body.get_mut(start..start + room).ok_or_else(strange)?;
        if *slot != *self.path.as_bytes() || crc(&self.header, &self.body) != stored_crc(&self.header) {
            return Err(strange());
        }
        slot.fill(0);
        slot[..path.len()].copy_from_slice(path.as_bytes());
        let mut header = self.header;
        let sum = crc(&header, &body);
        header[CRC_AT..].copy_from_slice(&sum.to_le_bytes());
        let old = [&self.header[..], &self.body].concat();
        let new = [&header[..], &body].concat();
        Ok(changed_runs(self.lsn, &old, &new, size))
    }

    /// Where the path begins in the body.
    fn path_at(&self) -> Option<usize> {
        match self.body.first() {
            Some(&SHORT_DATA) => Some(2 + OID_BYTES),
            Some(&LONG_DATA) => Some(5 + OID_BYTES),
            _ => None,
        }
    }
}

fn header_bytes(record: &Record<'_>) -> [u8; HEADER_BYTES] {
    let h = &record.header;
    let mut bytes = [0; HEADER_BYTES];
    bytes[0..4].copy_from_slice(&h.total_len.to_le_bytes());
    bytes[4..8].copy_from_slice(&h.xid.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&h.prev.0.to_le_bytes());
    bytes[16] = h.info;
    bytes[17] = h.rmgr.0;
    bytes[CRC_AT..].copy_from_slice(&h.crc.to_le_bytes());
    bytes
}

fn stored_crc(header: &[u8; HEADER_BYTES]) -> u32 {
    u32::from_le_bytes([header[20], header[21], header[22], header[23]])
}

fn crc(header: &[u8; HEADER_BYTES], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(body), &header[..CRC_AT])
}

/// The record's bytes lie between page headers: each byte's place, and consecutive changed ones as one patch.
fn changed_runs(start: Lsn, old: &[u8], new: &[u8], size: SegmentSize) -> Vec<Patch> {
    let mut patches: Vec<Patch> = Vec::new();
    let mut at = start;
    for (old, new) in old.iter().zip(new) {
        at = past_header(at, size);
        if old != new {
            match patches.last_mut().filter(|p| p.at.plus(p.new.len() as u64) == at) {
                Some(patch) => {
                    patch.old.push(*old);
                    patch.new.push(*new);
                }
                None => patches.push(Patch { at, old: vec![*old], new: vec![*new] }),
            }
        }
        at = at.plus(1);
    }
    patches
}

/// At a page's first byte: the first byte after its header.
fn past_header(at: Lsn, size: SegmentSize) -> Lsn {
    if !at.0.is_multiple_of(PAGE_BYTES as u64) {
        return at;
    }
    at.plus(if size.offset_of(at) == 0 { LONG_HEADER } else { SHORT_HEADER } as u64)
}

/// The part of a patch that lies in `[start, end)`: its offset from `start`, the old bytes and the new.
pub fn part_within(patch: &Patch, start: Lsn, end: Lsn) -> Option<(u64, &[u8], &[u8])> {
    let from = patch.at.max(start);
    let to = patch.at.plus(patch.new.len() as u64).min(end);
    if from >= to {
        return None;
    }
    let skip = usize::try_from(from.since(patch.at)).ok()?;
    let len = usize::try_from(to.since(from)).ok()?;
    Some((from.since(start), patch.old.get(skip..skip + len)?, patch.new.get(skip..skip + len)?))
}

/// The error where the bytes are not those that were planned to be changed.
pub fn not_as_planned(patch: &Patch) -> Error {
    Error::new(Code::WalDamaged, "the segment does not hold the tablespace record that the plan rewrites")
        .at(patch.at)
        .hint("make the plan anew: run the restore again")
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        use std::fmt::Write;
        let mut text = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        s.serialize_str(&text)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(d)?;
        let digits: Option<Vec<u8>> =
            text.chars().map(|c| c.to_digit(16).and_then(|n| u8::try_from(n).ok())).collect();
        match digits {
            Some(digits) if digits.len() % 2 == 0 => {
                Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
            }
            _ => Err(serde::de::Error::custom("no hexadecimal bytes")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;
    const PATH: &str = "/srv/production/fast";

    /// The record at `lsn` as PostgreSQL lays it out.
    fn created(lsn: u64) -> Created {
        let mut body = vec![SHORT_DATA, u8::try_from(OID_BYTES + PATH.len() + 1).unwrap()];
        body.extend(16385u32.to_le_bytes());
        body.extend(PATH.as_bytes());
        body.push(0);
        let mut header = [0; HEADER_BYTES];
        header[0..4].copy_from_slice(&u32::try_from(HEADER_BYTES + body.len()).unwrap().to_le_bytes());
        header[17] = 5;
        let sum = crc(&header, &body);
        header[CRC_AT..].copy_from_slice(&sum.to_le_bytes());
        Created { oid: 16385, path: PATH.to_owned(), lsn: Lsn(lsn), header, body }
    }
    /// Lays the record into WAL from `start` on, and says where each byte went.
    fn laid_out(created: &Created, start: Lsn, bytes: usize) -> Vec<u8> {
        let mut wal = vec![0xEE; bytes];
        let mut at = created.lsn;
        for byte in created.header.iter().chain(&created.body) {
            at = past_header(at, SIZE);
            if let Some(slot) =
                at.0.checked_sub(start.0).and_then(|o| wal.get_mut(usize::try_from(o).unwrap()))
            {
                *slot = *byte;
            }
            at = at.plus(1);
        }
        wal
    }
    fn read_back(created: &Created, start: Lsn, wal: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut at = created.lsn;
        let mut bytes = Vec::new();
        for _ in 0..HEADER_BYTES + created.body.len() {
            at = past_header(at, SIZE);
            bytes.push(wal[usize::try_from(at.since(start)).unwrap()]);
            at = at.plus(1);
        }
        let body = bytes.split_off(HEADER_BYTES);
        (bytes, body)
    }

    /// As whoever delivers a segment does it.
    fn apply(patches: &[Patch], start: Lsn, bytes: &mut [u8]) -> Result<()> {
        for patch in patches {
            let end = start.plus(bytes.len() as u64);
            let Some((offset, old, new)) = part_within(patch, start, end) else { continue };
            let place = usize::try_from(offset).unwrap();
            let there = &mut bytes[place..place + old.len()];
            if there != old {
                return Err(not_as_planned(patch));
            }
            there.copy_from_slice(new);
        }
        Ok(())
    }

    #[test]
    fn the_path_becomes_empty_and_the_crc_right_wherever_the_pages_break() {
        let segment = 3 * SIZE.bytes();
        let page = PAGE_BYTES as u64;
        for lsn in
            (segment + 2 * page - 80..segment + 2 * page).step_by(8).chain([segment + 40, segment + 4096])
        {
            let created = created(lsn);
            let mut wal = laid_out(&created, Lsn(segment), 4 * PAGE_BYTES);
            apply(&created.redirect("", SIZE).unwrap(), Lsn(segment), &mut wal).unwrap();
            let (header, body) = read_back(&created, Lsn(segment), &wal);
            let header: [u8; HEADER_BYTES] = header.try_into().unwrap();
            assert_eq!(crc(&header, &body), stored_crc(&header), "at {lsn:x}");
            assert!(body[6..].iter().all(|b| *b == 0), "at {lsn:x}");
            assert_eq!(body[..6], created.body[..6]);
        }
    }

    #[test]
    fn a_record_across_two_segments_is_changed_in_both() {
        let boundary = 3 * SIZE.bytes();
        let created = created(boundary - 40);
        let patches = created.redirect("/x", SIZE).unwrap();
        let (before, after) = (Lsn(boundary - SIZE.bytes()), Lsn(boundary));
        let size = usize::try_from(SIZE.bytes()).unwrap();
        let mut first = laid_out(&created, before, size);
        let mut second = laid_out(&created, after, PAGE_BYTES);
        apply(&patches, before, &mut first).unwrap();
        apply(&patches, after, &mut second).unwrap();
        first.extend(second);
        let (header, body) = read_back(&created, before, &first);
        assert_eq!(crc(&header.clone().try_into().unwrap(), &body), stored_crc(&header.try_into().unwrap()));
        assert_eq!(&body[6..9], b"/x\0");
    }

    #[test]
    fn only_the_planned_bytes_are_replaced() {
        let created = created(0x0300_0100);
        let patches = created.redirect("", SIZE).unwrap();
        let mut other = vec![0; PAGE_BYTES];
        assert_eq!(apply(&patches, Lsn(0x0300_0000), &mut other).unwrap_err().code(), Code::WalDamaged);
        apply(&patches, Lsn(0x0500_0000), &mut other).unwrap();
    }

    #[test]
    fn a_longer_path_is_refused_with_the_room_there_is() {
        let error = created(0x0300_0100).redirect("/srv/production/faster", SIZE).unwrap_err();
        assert_eq!(error.code(), Code::TablespaceOutside);
        assert!(error.hint_text().unwrap().contains("at most 20 bytes"));
    }

    #[test]
    fn patches_read_back_from_json() {
        let patches = created(0x0300_0100).redirect("", SIZE).unwrap();
        let text = serde_json::to_string(&patches).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Patch>>(&text).unwrap(), patches);
        for broken in ["\"0\"", "\"0g\"", "\"é0\""] {
            assert!(
                serde_json::from_str::<Patch>(&format!(r#"{{"at":"0/0","old":{broken},"new":""}}"#)).is_err()
            );
        }
    }
}
