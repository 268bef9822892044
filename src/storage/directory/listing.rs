//! Listings of a directory tree, in the order of keys. Complete, or an error.

use std::ffi::OsStr;
use std::fs::{self, DirEntry, FileType};
use std::io;
use std::path::Path;

use super::{Key, ObjectInfo, Root, info, linked};
use crate::error::{Code, Error, Result};
use crate::util::durable;

impl Root {
    pub(super) fn list(&self, prefix: &str, start_after: Option<&Key>) -> Result<Vec<ObjectInfo>> {
        self.must_exist()?;
        let mut walk = Walk { prefix, start_after, found: Vec::new() };
        let above = prefix.rsplit_once('/').map_or("", |(above, _)| above);
        let slash = if above.is_empty() { "" } else { "/" };
        walk.directory(&self.directory_of(above)?, &format!("{above}{slash}"))?;
        walk.found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        // A disk that vanished while we looked would have made the listing short.
        self.must_exist()?;
        Ok(walk.found)
    }

    /// Directories that hold an object, however deep: an empty one is no more there than in S3.
    pub(super) fn list_dirs(&self, prefix: &str) -> Result<Vec<String>> {
        self.must_exist()?;
        let above = prefix.trim_end_matches('/');
        let mut names = Vec::new();
        for (name, kind, entry) in entries(&self.directory_of(above)?, above.is_empty())? {
            if kind.is_dir() && holds_object(&entry.path())? {
                names.push(name);
            }
        }
        names.sort_unstable();
        self.must_exist()?;
        Ok(names)
    }
}

struct Walk<'a> {
    prefix: &'a str,
    start_after: Option<&'a Key>,
    found: Vec<ObjectInfo>,
}

impl Walk<'_> {
    /// `above`: the key of `path` with its slash, empty for the root.
    fn directory(&mut self, path: &Path, above: &str) -> Result<()> {
        for (name, kind, entry) in entries(path, above.is_empty())? {
            let key = format!("{above}{name}");
            if kind.is_dir() {
                let below = key + "/";
                if self.may_hold(&below) {
                    self.directory(&entry.path(), &below)?;
                }
            } else if kind.is_file() {
                if key.starts_with(self.prefix) && self.start_after.is_none_or(|after| key.as_str() > after) {
                    match entry.metadata() {
                        Ok(metadata) => self.found.push(info(key, &metadata)),
                        // Deleted since.
                        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                        Err(e) => return Err(Error::io("cannot look at the file", entry.path(), e)),
                    }
                }
            } else {
                return Err(linked(&entry.path()));
            }
        }
        Ok(())
    }

    fn may_hold(&self, below: &str) -> bool {
        let matches = below.starts_with(self.prefix) || self.prefix.starts_with(below);
        matches && self.start_after.is_none_or(|after| below > after || after.starts_with(below))
    }
}

/// The entries that can be objects or lead to some. A directory that is not there has none.
fn entries(path: &Path, at_root: bool) -> Result<Vec<(String, FileType, DirEntry)>> {
    let cannot = |e| Error::io("cannot list the directory", path, e);
    let listing = match fs::read_dir(path) {
        Ok(listing) => listing,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(cannot(e)),
    };
    let mut entries = Vec::new();
    for entry in listing {
        let entry = entry.map_err(cannot)?;
        let name = entry.file_name();
        if is_foreign(&name, at_root) {
            continue;
        }
        let kind = entry.file_type().map_err(cannot)?;
        let name = name.into_string().map_err(|name| {
            Error::new(Code::Io, "a name that is not UTF-8 does not belong into a repository")
                .at(path.join(name).display())
        })?;
        entries.push((name, kind, entry));
    }
    Ok(entries)
}

/// Our unfinished writes, what NFS keeps of deleted files that are still open, and the file system's own directory.
fn is_foreign(name: &OsStr, at_root: bool) -> bool {
    durable::is_temporary(name)
        || name.as_encoded_bytes().starts_with(b".nfs")
        || (at_root && name == "lost+found")
}

fn holds_object(path: &Path) -> Result<bool> {
    let entries = entries(path, false)?;
    if entries.iter().any(|(_, kind, _)| !kind.is_dir()) {
        return Ok(true);
    }
    for (_, _, entry) in entries {
        if holds_object(&entry.path())? {
            return Ok(true);
        }
    }
    Ok(false)
}
