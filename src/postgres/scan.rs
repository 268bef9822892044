//! What of a data directory belongs into a base backup: every file, empty directory and tablespace link, with what
//! is left out and why.
//!
//! The rules are those of `pg_basebackup` (PostgreSQL's `basebackup.c`: `excludeFiles`, `excludeDirContents`,
//! `sendDir`) and of PITFALLS: [`rules`] decides by name alone and is pure, this module only lists. Beyond
//! `pg_basebackup`, `backup_label.old`, `tablespace_map.old` and pgkeep's own files are left out.
//!
//! Failure: a directory or file that cannot be looked at fails the scan, whatever the reason, except that it
//! vanished meanwhile: PostgreSQL drops files while we look. Foreign files are taken; what can not be stored
//! (sockets, pipes, links outside `pg_tblspc`) is left out with a note, as `pg_basebackup` does with a warning.

mod of_database;
mod rules;

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use of_database::{DatabaseFile, FIRST_OF_USERS, OfDatabase, of_database};
pub use rules::{Fork, RelationFile};
use rules::{Place, Verdict};

use crate::error::{Code, Error, Result};
use crate::model::Timestamp;

/// One member of the backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanEntry {
    /// Relative to the data directory, as `backup_manifest` names it (`pg_tblspc/<oid>/PG_…` inside tablespaces).
    /// Bytes: not every name is UTF-8.
    pub path: PathBuf,
    /// Where to read it.
    pub absolute: PathBuf,
    pub kind: EntryKind,
    /// Bytes when it was listed; 0 for what is no file.
    pub size: u64,
    /// Permission bits (`0o7777`).
    pub mode: u32,
    pub modified: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// Must exist again; whether anything is in it is said by the other entries.
    Directory,
    /// A file of a relation: it consists of pages with (if enabled) checksums.
    Relation(RelationFile),
    /// `global/pg_control`: copied last.
    ControlFile,
    /// Any other file.
    File,
    /// `pg_tblspc/<oid>`, a link to `target`.
    Tablespace { oid: u32, target: PathBuf },
}

impl ScanEntry {
    pub fn is_file(&self) -> bool {
        matches!(self.kind, EntryKind::Relation(_) | EntryKind::ControlFile | EntryKind::File)
    }
    pub fn has_pages(&self) -> bool {
        matches!(self.kind, EntryKind::Relation(_))
    }
}

/// A name that was left out for a reason that a person should see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    pub path: PathBuf,
    pub why: SkipReason,
    /// Where a link leads.
    pub target: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// A link outside `pg_tblspc`, for example `postgresql.conf -> /etc/…`: keep its target in another way.
    Link,
    /// A socket, pipe or device.
    Special,
    /// A link in `pg_tblspc` whose target is gone: the tablespace was dropped meanwhile.
    DanglingTablespace,
}

/// A listing at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// Sorted by path, a directory before what is in it.
    pub entries: Vec<ScanEntry>,
    pub skipped: Vec<Skipped>,
}

impl Scan {
    pub fn files(&self) -> impl Iterator<Item = &ScanEntry> {
        self.entries.iter().filter(|e| e.is_file())
    }
    pub fn total_bytes(&self) -> u64 {
        self.files().map(|e| e.size).sum()
    }
    pub fn tablespaces(&self) -> impl Iterator<Item = (u32, &Path)> {
        self.entries.iter().filter_map(|e| match &e.kind {
            EntryKind::Tablespace { oid, target } => Some((*oid, target.as_path())),
            _ => None,
        })
    }
}

/// Lists `data_directory`. `version_directory` is `PG_<major>_<catalog version>`
/// ([`super::ServerFacts::tablespace_version_directory`]): other servers' directories in a tablespace are not ours.
/// Blocks; call it from a blocking thread.
pub fn scan(data_directory: &Path, version_directory: &str) -> Result<Scan> {
    let mut walk = Walk {
        root: data_directory,
        version_directory: OsStr::new(version_directory),
        inside: tablespaces_inside(data_directory)?,
        scan: Scan::default(),
    };
    walk.directory(Path::new(""), data_directory, Place::Root)?;
    walk.scan.entries.sort_by(|a, b| a.path.as_os_str().as_bytes().cmp(b.path.as_os_str().as_bytes()));
    walk.scan.skipped.sort_by(|a, b| a.path.cmp(&b.path));
    if !walk.scan.entries.iter().any(|e| e.kind == EntryKind::ControlFile) {
        return Err(Error::new(
            Code::NotReady,
            "this is no data directory of PostgreSQL: global/pg_control is missing",
        )
        .at(data_directory.display()));
    }
    Ok(walk.scan)
}

struct Walk<'a> {
    root: &'a Path,
    version_directory: &'a OsStr,
    /// Tablespaces that lie inside the data directory, relative to it: their content is listed under `pg_tblspc`.
    inside: HashSet<PathBuf>,
    scan: Scan,
}

impl Walk<'_> {
    /// Lists what is in `absolute`; the directory itself was entered by the caller.
    fn directory(&mut self, relative: &Path, absolute: &Path, place: Place) -> Result<()> {
        let mut listed = Vec::new();
        let entries = match std::fs::read_dir(absolute) {
            Ok(entries) => entries,
            Err(e) if vanished(&e) && place != Place::Root => return Ok(()),
            Err(e) => return Err(unreadable(absolute, e)),
        };
        for entry in entries {
            let name = match entry {
                Ok(entry) => entry.file_name(),
                Err(e) if vanished(&e) => continue,
                Err(e) => return Err(unreadable(absolute, e)),
            };
            let path = absolute.join(&name);
            match std::fs::symlink_metadata(&path) {
                Ok(meta) => listed.push((name, path, meta)),
                Err(e) if vanished(&e) => {}
                Err(e) => return Err(unreadable(&path, e)),
            }
        }
        let unlogged = rules::unlogged(place, listed.iter().map(|(name, ..)| name.as_bytes()));
        for (name, path, meta) in listed {
            if rules::is_unlogged_content(place, name.as_bytes(), &unlogged) {
                continue;
            }
            self.name(relative, place, &name, &path, &meta)?;
        }
        Ok(())
    }

    fn name(
        &mut self,
        above: &Path,
        place: Place,
        name: &OsString,
        path: &Path,
        meta: &Metadata,
    ) -> Result<()> {
        let relative = above.join(name);
        let kind = meta.file_type();
        let verdict = rules::decide(place, name.as_bytes());
        let foreign = place == Place::TablespaceRoot && name != self.version_directory;
        if verdict == Verdict::LeaveOut || foreign {
            return Ok(());
        }
        if kind.is_dir() {
            return self.subdirectory(&relative, path, meta, place, verdict);
        }
        if kind.is_symlink() {
            return self.link(relative, path, place, verdict);
        }
        if !kind.is_file() {
            debug_assert!(
                kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device()
            );
            self.skip(relative, SkipReason::Special, None);
            return Ok(());
        }
        let kind = match rules::relation(place, name.as_bytes()) {
            _ if relative == Path::new("global/pg_control") => EntryKind::ControlFile,
            Some(relation) => EntryKind::Relation(relation),
            None => EntryKind::File,
        };
        self.enter(relative, path, kind, meta);
        Ok(())
    }

    fn subdirectory(
        &mut self,
        relative: &Path,
        path: &Path,
        meta: &Metadata,
        place: Place,
        verdict: Verdict,
    ) -> Result<()> {
        let name = relative.file_name().unwrap_or_default().to_owned();
        let content = rules::place_inside(place, name.as_bytes(), self.version_directory.as_bytes());
        self.enter(relative.to_path_buf(), path, EntryKind::Directory, meta);
        match verdict {
            Verdict::WalDirectory => {
                self.wal_directories(relative, path)?;
            }
            Verdict::KeepEmpty => {}
            _ if self.inside.contains(relative) => {}
            _ => self.directory(relative, path, content)?,
        }
        Ok(())
    }

    /// `pg_wal` comes back empty but for these two.
    fn wal_directories(&mut self, relative: &Path, path: &Path) -> Result<()> {
        for name in ["archive_status", "summaries"] {
            let path = path.join(name);
            match std::fs::metadata(&path) {
                Ok(meta) if meta.is_dir() => {
                    self.enter(relative.join(name), &path, EntryKind::Directory, &meta);
                }
                Ok(_) => {}
                Err(e) if vanished(&e) => {}
                Err(e) => return Err(unreadable(&path, e)),
            }
        }
        Ok(())
    }

    fn link(&mut self, relative: PathBuf, path: &Path, place: Place, verdict: Verdict) -> Result<()> {
        let target = match std::fs::read_link(path) {
            Ok(target) => target,
            Err(e) if vanished(&e) => return Ok(()),
            Err(e) => return Err(unreadable(path, e)),
        };
        let meta = match std::fs::metadata(path) {
            Ok(meta) => Some(meta),
            Err(e) if vanished(&e) => None,
            Err(e) => return Err(unreadable(path, e)),
        };
        match (place, verdict, meta) {
            // A pg_wal (or pg_stat_tmp, …) on another disk becomes a plain directory.
            (_, Verdict::WalDirectory | Verdict::KeepEmpty, Some(meta)) if meta.is_dir() => {
                self.enter(relative.clone(), path, EntryKind::Directory, &meta);
                if verdict == Verdict::WalDirectory {
                    self.wal_directories(&relative, path)?;
                }
                Ok(())
            }
            (Place::TablespaceLinks, _, Some(meta)) if meta.is_dir() => {
                let oid = relative.file_name().and_then(OsStr::to_str).and_then(|n| n.parse().ok());
                let Some(oid) = oid else {
                    self.skip(relative, SkipReason::Link, Some(target));
                    return Ok(());
                };
                self.enter(relative.clone(), path, EntryKind::Tablespace { oid, target }, &meta);
                self.directory(&relative, path, Place::TablespaceRoot)
            }
            (Place::TablespaceLinks, ..) => {
                self.skip(relative, SkipReason::DanglingTablespace, Some(target));
                Ok(())
            }
            _ => {
                self.skip(relative, SkipReason::Link, Some(target));
                Ok(())
            }
        }
    }

    fn enter(&mut self, path: PathBuf, absolute: &Path, kind: EntryKind, meta: &Metadata) {
        debug_assert!(absolute.starts_with(self.root));
        let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        self.scan.entries.push(ScanEntry {
            path,
            absolute: absolute.to_path_buf(),
            size: if meta.is_file() { meta.len() } else { 0 },
            kind,
            mode: meta.mode() & 0o7777,
            modified: Timestamp(modified.into()),
        });
    }

    fn skip(&mut self, path: PathBuf, why: SkipReason, target: Option<PathBuf>) {
        self.scan.skipped.push(Skipped { path, why, target });
    }
}

/// Tablespace directories that lie inside the data directory (PostgreSQL warns about them and allows them).
fn tablespaces_inside(root: &Path) -> Result<HashSet<PathBuf>> {
    let links = root.join("pg_tblspc");
    let entries = match std::fs::read_dir(&links) {
        Ok(entries) => entries,
        Err(e) if vanished(&e) => return Ok(HashSet::new()),
        Err(e) => return Err(unreadable(&links, e)),
    };
    let root = std::fs::canonicalize(root).map_err(|e| unreadable(root, e))?;
    let mut inside = HashSet::new();
    for entry in entries {
        let path = entry.map_err(|e| unreadable(&links, e))?.path();
        if !path.is_symlink() {
            continue;
        }
        let Ok(target) = std::fs::canonicalize(&path) else { continue };
        if let Ok(relative) = target.strip_prefix(&root) {
            inside.insert(relative.to_path_buf());
        }
    }
    Ok(inside)
}

fn vanished(e: &std::io::Error) -> bool {
    e.kind() == ErrorKind::NotFound
}

fn unreadable(path: &Path, e: std::io::Error) -> Error {
    let denied = e.kind() == ErrorKind::PermissionDenied;
    let error = Error::io("cannot read a part of the data directory", path, e);
    if denied { error.hint("run pgkeep as root or as the owner of the data directory") } else { error }
}

#[cfg(test)]
mod tests;
