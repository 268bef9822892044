//! Heads of tar members: ustar where it can say it, a pax record for what it cannot.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tar::{EntryType, Header};

use crate::error::{Code, Error, Result};

pub(super) const BLOCK: u64 = 512;

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberKind {
    File,
    Directory,
}

/// What a member's head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberHead<'n> {
    /// Relative, `/`-separated, without a leading or trailing slash; any bytes but NUL.
    pub name: &'n [u8],
    pub kind: MemberKind,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970.
    pub modified: u64,
    /// Bytes that follow; 0 for a directory.
    pub size: u64,
}

/// Zeros that fill up the last block of `size` bytes.
pub(super) fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK) - size
}

/// The blocks before a member's data.
pub(super) fn encode(head: &MemberHead<'_>) -> Result<Vec<u8>> {
    check_name(head.name)?;
    let mut header = Header::new_ustar();
    header.set_mode(head.mode);
    header.set_uid(u64::from(head.uid));
    header.set_gid(u64::from(head.gid));
    header.set_mtime(head.modified);
    // From 8 GiB on, the crate writes base-256 as GNU tar and libarchive do.
    header.set_size(head.size);
    header.set_entry_type(match head.kind {
        MemberKind::File => EntryType::Regular,
        MemberKind::Directory => EntryType::Directory,
    });
    let mut name = head.name.to_vec();
    if head.kind == MemberKind::Directory {
        name.push(b'/');
    }
    let mut blocks = Vec::with_capacity(512);
    let plain = name.is_ascii() && header.set_path(Path::new(OsStr::from_bytes(&name))).is_ok();
    if !plain {
        blocks = pax_path(&name)?;
        let cut: Vec<u8> =
            name.iter().map(|b| if b.is_ascii_graphic() { *b } else { b'_' }).take(99).collect();
        let old = header.as_old_mut();
        old.name.fill(0);
        old.name[..cut.len()].copy_from_slice(&cut);
    }
    header.set_cksum();
    blocks.extend_from_slice(header.as_bytes());
    Ok(blocks)
}

fn check_name(name: &[u8]) -> Result<()> {
    let clean = !name.is_empty()
        && !name.contains(&0)
        && name.split(|b| *b == b'/').all(|part| !matches!(part, b"" | b"." | b".."));
    if clean {
        return Ok(());
    }
    Err(Error::new(Code::Internal, "a file's name cannot be stored").at(String::from_utf8_lossy(name)))
}

/// POSIX pax: an `x` member of records `<length> path=<name>\n`, whose length counts itself.
fn pax_path(name: &[u8]) -> Result<Vec<u8>> {
    let rest = " path=".len() + name.len() + 1;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut record = length.to_string().into_bytes();
    record.extend_from_slice(b" path=");
    record.extend_from_slice(name);
    record.push(b'\n');

    let mut header = Header::new_ustar();
    header
        .set_path("././@PaxHeader")
        .or_else(|_| header.set_path("PaxHeader"))
        .map_err(|e| Error::internal("cannot name a pax header").because(e))?;
    header.set_mode(0o644);
    header.set_size(record.len() as u64);
    header.set_entry_type(EntryType::XHeader);
    header.set_cksum();
    let mut blocks = header.as_bytes().to_vec();
    blocks.extend_from_slice(&record);
    let filled = blocks.len().next_multiple_of(512);
    blocks.resize(filled, 0);
    Ok(blocks)
}
