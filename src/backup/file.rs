//! One file on its way into a pack: read once, its pages checked, digested.
//!
//! PostgreSQL goes on working meanwhile: a file is copied up to the size first seen; one that shrank is filled up
//! with zeros, as `pg_basebackup` does, and replay truncates it again; one that is gone was dropped, and is skipped.
//! Whatever else cannot be read fails the backup.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use sha2::{Digest as _, Sha256};

use super::pages::{PageCheck, Suspect};
use crate::error::{Error, Result};
use crate::model::{Digest, Timestamp};
use crate::postgres::{EntryKind, ScanEntry};
use crate::repository::index::MemberName;
use crate::repository::manifest::ManifestFile;
use crate::repository::pack::{MemberHead, MemberKind, PackWriter};

/// Small enough for the processor's cache, so that checksum, digest and compression find it there.
pub(super) const BUFFER: usize = 256 << 10;

/// A file that went into a pack.
pub(super) struct Copied {
    pub(super) file: ManifestFile,
    pub(super) suspects: Vec<Suspect>,
}

pub(super) fn name_of(entry: &ScanEntry) -> MemberName {
    MemberName::new(entry.path.as_os_str().as_bytes())
}

/// A directory, or a tablespace's link as one.
pub(super) fn copy_directory<W: Write>(entry: &ScanEntry, pack: &mut PackWriter<W>) -> Result<()> {
    let meta = match std::fs::metadata(&entry.absolute) {
        Ok(meta) => meta,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("cannot read a directory", &entry.absolute, e)),
    };
    let head = MemberHead {
        name: entry.path.as_os_str().as_bytes(),
        kind: MemberKind::Directory,
        mode: entry.mode,
        uid: meta.uid(),
        gid: meta.gid(),
        modified: seconds(meta.mtime()),
        size: 0,
    };
    pack.member(&head, &[])
}

/// None when PostgreSQL dropped the file meanwhile. `step` is told each piece's length and may end the work.
pub(super) fn copy_file<W: Write>(
    entry: &ScanEntry,
    checksums: bool,
    pack: &mut PackWriter<W>,
    buffer: &mut [u8],
    step: &dyn Fn(u64) -> Result<()>,
) -> Result<Option<Copied>> {
    let unreadable = |e| {
        Error::io("cannot read a file of the data directory", &entry.absolute, e)
            .hint("a backup without it would be worthless: make it readable for this user, or restore it")
    };
    let mut file = match File::open(&entry.absolute) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable(e)),
    };
    let meta = file.metadata().map_err(unreadable)?;
    let size = meta.len();
    let name = name_of(entry);
    pack.begin(&MemberHead {
        name: name.as_bytes(),
        kind: MemberKind::File,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        modified: seconds(meta.mtime()),
        size,
    })?;
    let mut pages = match &entry.kind {
        EntryKind::Relation(relation) if checksums => PageCheck::of(relation),
        _ => None,
    };
    let mut sha256 = Sha256::new();
    let mut offset = 0;
    while offset < size {
        let want = usize::try_from((size - offset).min(buffer.len() as u64)).unwrap_or(buffer.len());
        let piece = &mut buffer[..want];
        let got = fill(&mut file, piece).map_err(unreadable)?;
        if let Some(pages) = &mut pages {
            pages.check(&file, offset, &mut piece[..got]);
        }
        piece[got..].fill(0);
        sha256.update(&*piece);
        pack.data(piece)?;
        offset += want as u64;
        step(want as u64)?;
    }
    pack.end()?;
    let modified = Timestamp::from_unix_seconds(meta.mtime()).unwrap_or(entry.modified);
    let file = ManifestFile { name, size, modified, sha256: Digest(sha256.finalize().into()) };
    Ok(Some(Copied { file, suspects: pages.map(|p| p.suspects).unwrap_or_default() }))
}

/// As many bytes as there are, up to the buffer's length.
fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

fn seconds(since_1970: i64) -> u64 {
    u64::try_from(since_1970).unwrap_or(0)
}

/// A file made of bytes in memory (label, map, `pg_control`).
pub(super) fn add_bytes<W: Write>(
    name: &str,
    bytes: &[u8],
    owner: (u32, u32),
    modified: Timestamp,
    pack: &mut PackWriter<W>,
) -> Result<ManifestFile> {
    let head = MemberHead {
        name: OsStr::new(name).as_bytes(),
        kind: MemberKind::File,
        mode: 0o600,
        uid: owner.0,
        gid: owner.1,
        modified: seconds(modified.0.timestamp()),
        size: bytes.len() as u64,
    };
    pack.member(&head, bytes)?;
    Ok(ManifestFile {
        name: MemberName::new(name),
        size: bytes.len() as u64,
        modified,
        sha256: Digest::of(bytes),
    })
}
