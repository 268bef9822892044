//! Reading packs: a whole one as a stream of members, or one member alone in ranged reads.

use std::io::{self, Read};

use tar::{Archive, EntryType};

use super::Repository;
use super::body_reader::BodyReader;
use super::index::IndexedMember;
use super::ranged::RangedObject;
use super::tar_header::MemberKind;
use crate::codec::{Identities, Opened, from_io, open_frame, open_sealed};
use crate::error::{Code, Error, Result};
use tokio::runtime::Handle;

/// A member's head as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadHead {
    /// Relative; checked: no absolute path, no `..`.
    pub name: Vec<u8>,
    pub kind: MemberKind,
    pub mode: u32,
    pub modified: u64,
    pub size: u64,
}

/// Opens the pack at the full key `key` of one repository. For blocking threads.
pub fn open_pack(
    runtime: &Handle,
    repository: &Repository,
    key: &str,
    identities: Option<&Identities>,
) -> Result<Opened<BodyReader>> {
    open_sealed(BodyReader::open_on(runtime, repository, key, None), key, identities)
}

/// Gives every member of a pack to `take`, in order. The reader of a member may be left half read. When this is Ok
/// the pack has been read to its authenticated end.
pub fn each_member<R: Read>(
    pack: R,
    place: &str,
    mut take: impl FnMut(&ReadHead, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let damaged = |e| from_io("the pack cannot be read", place, e);
    let mut archive = Archive::new(pack);
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let head = read_head(&entry, place)?;
        take(&head, &mut entry)?;
    }
    // tar stops at its end mark; age and zstd say at theirs whether everything was there.
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(damaged)?;
    Ok(())
}

fn read_head<R: Read>(entry: &tar::Entry<'_, R>, place: &str) -> Result<ReadHead> {
    let header = entry.header();
    let damaged = |e| from_io("the pack cannot be read", place, e);
    let kind = match header.entry_type() {
        EntryType::Regular => MemberKind::File,
        EntryType::Directory => MemberKind::Directory,
        other => {
            return Err(Error::new(
                Code::Damaged,
                format!("a member of a kind that no backup has: {other:?}"),
            )
            .at(place));
        }
    };
    let mut name = entry.path_bytes().into_owned();
    if name.last() == Some(&b'/') {
        name.pop();
    }
    let inside =
        !name.is_empty() && name.split(|b| *b == b'/').all(|part| !matches!(part, b"" | b"." | b".."));
    if !inside {
        return Err(Error::new(Code::Damaged, "a member's name leaves the directory").at(place));
    }
    Ok(ReadHead {
        name,
        kind,
        mode: header.mode().map_err(damaged)? & 0o7777,
        modified: header.mtime().map_err(damaged)?,
        size: entry.size(),
    })
}

/// One member alone: its head and its bytes. `key` is the pack's full key, `stored_bytes` the pack's length from
/// `backup.json`. For blocking threads.
pub fn read_member(
    runtime: &Handle,
    repository: &Repository,
    key: &str,
    stored_bytes: u64,
    identities: Option<&Identities>,
    member: &IndexedMember,
) -> Result<(ReadHead, Vec<u8>)> {
    let source = RangedObject::open_on(runtime, repository, key, stored_bytes);
    let frame = open_frame(source, key, identities, member.offset, member.length)?;
    let damaged = |e| from_io("the member cannot be read", key, e);
    let mut archive = Archive::new(frame);
    let entry = archive.entries().map_err(damaged)?.next();
    let mut entry = entry
        .ok_or_else(|| Error::new(Code::Damaged, "the index points at nothing").at(key))?
        .map_err(damaged)?;
    let head = read_head(&entry, key)?;
    if head.name != member.name.as_bytes() || head.size != member.size {
        return Err(Error::new(Code::Damaged, "the index points at another member").at(key));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(head.size).unwrap_or(0));
    entry.read_to_end(&mut bytes).map_err(damaged)?;
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(damaged)?;
    Ok((head, bytes))
}
