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
        blocks = if name.contains(&b'\n') { gnu_path(&name)? } else { pax_path(&name)? };
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

    extension(Header::new_ustar(), EntryType::XHeader, "PaxHeader", &record)
}

/// GNU's long name, ended by NUL: for a name with a line's end in it, at which many readers of pax records (the `tar`
/// crate among them) take the record to be over.
fn gnu_path(name: &[u8]) -> Result<Vec<u8>> {
    let record = [name, &[0]].concat();
    extension(Header::new_gnu(), EntryType::GNULongName, "@LongLink", &record)
}

/// A member that says more about the next one.
fn extension(mut header: Header, kind: EntryType, name: &str, record: &[u8]) -> Result<Vec<u8>> {
    header
        .set_path(format!("././{name}"))
        .or_else(|_| header.set_path(name))
        .map_err(|e| Error::internal("cannot name a tar extension").because(e))?;
    header.set_mode(0o644);
    header.set_size(record.len() as u64);
    header.set_entry_type(kind);
    header.set_cksum();
    let mut blocks = header.as_bytes().to_vec();
    blocks.extend_from_slice(record);
    let filled = blocks.len().next_multiple_of(512);
    blocks.resize(filled, 0);
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, kind and size as GNU tar's rules read them back.
    fn read_back(blocks: &[u8], size: u64) -> (Vec<u8>, EntryType, u64) {
        let mut archive = tar::Archive::new(blocks);
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.header().size().unwrap(), size);
        (entry.path_bytes().into_owned(), entry.header().entry_type(), entry.size())
    }

    fn head(name: &[u8], kind: MemberKind, size: u64) -> MemberHead<'_> {
        MemberHead { name, kind, mode: 0o600, uid: 26, gid: u32::MAX - 1, modified: 1 << 33, size }
    }

    #[test]
    fn any_name_and_any_length_read_back() {
        let long = [&b"base/"[..], &[b'x'; 400], b"/", &[0xFF; 300]].concat();
        let names: [&[u8]; 7] = [
            b"PG_VERSION",
            &[b'n'; 100],
            &[b'n'; 101],
            &[b'n'; 255],
            b"a b\nc\xff",
            "\u{e9}".as_bytes(),
            &long,
        ];
        // 8 GiB is where ustar's octal digits end.
        for size in [0, 1, 511, 1 << 30, (8 << 30) - 1, 8 << 30, 1 << 45] {
            for name in names {
                let blocks = encode(&head(name, MemberKind::File, size)).unwrap();
                assert_eq!(blocks.len() % 512, 0);
                assert_eq!(read_back(&blocks, size), (name.to_vec(), EntryType::Regular, size));
            }
        }
        let mut directory = [&b"base/"[..], &[b'x'; 400]].concat();
        let blocks = encode(&head(&directory, MemberKind::Directory, 0)).unwrap();
        directory.push(b'/');
        assert_eq!(read_back(&blocks, 0), (directory, EntryType::Directory, 0));
    }

    #[test]
    fn gnu_tar_reads_sizes_beyond_8_gib() {
        use std::process::{Command, Stdio};
        let blocks = encode(&head(b"big", MemberKind::File, (8 << 30) + 5)).unwrap();
        let mut tar = Command::new("tar");
        tar.args(["-t", "-v", "-f", "-"]);
        let mut child =
            tar.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), &blocks).unwrap();
        let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        assert!(said.contains(" 8589934597 ") && said.contains("big"), "{said}");
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_never_written() {
        let names: [&[u8]; 8] = [b"", b"/a", b"a/", b"a//b", b"./a", b"../a", b"a/../b", b"a\0b"];
        for name in names {
            assert!(encode(&head(name, MemberKind::File, 0)).is_err(), "{name:?}");
        }
    }
}
