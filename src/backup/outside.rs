//! Configuration that lies outside the data directory (Debian's `/etc/postgresql`): kept in `config.tar`, under the
//! absolute path without its leading slash.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};
use crate::postgres::scan::{Scan, SkipReason};
use crate::postgres::{ServerFacts, settings};
use crate::repository::fanout::FanOut;
use crate::repository::pack::{MemberHead, MemberKind, PackWriter};

/// The files to keep: the three that the server names, what the first includes, and what links in the data directory
/// lead to. Sorted, without those inside the data directory.
pub(super) fn files(facts: &ServerFacts, data_directory: &Path, scan: &Scan) -> Result<Vec<PathBuf>> {
    let inside = data_directory.canonicalize().unwrap_or_else(|_| data_directory.to_owned());
    let mut found: BTreeSet<PathBuf> = settings::files(&facts.config_file)?.into_iter().collect();
    found.extend([facts.hba_file.clone(), facts.ident_file.clone()]);
    for skipped in scan.skipped.iter().filter(|s| s.why == SkipReason::Link) {
        if let Some(target) = &skipped.target {
            let beside = data_directory.join(&skipped.path);
            found.insert(beside.parent().unwrap_or(data_directory).join(target));
        }
    }
    let mut outside = BTreeSet::new();
    for path in found {
        let real = match path.canonicalize() {
            Ok(real) => real,
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => return Err(unreadable(&path, e)),
        };
        if real.is_file() && !real.starts_with(&inside) {
            // A member's name leads nowhere upwards: a link to `../etc/x` is kept as what it leads to.
            let climbs = path.components().any(|c| c == Component::ParentDir);
            outside.insert(if climbs { real } else { path.components().collect() });
        }
    }
    Ok(outside.into_iter().collect())
}

/// What of the data directory no restore will bring back, as `pg_basebackup` warns too: links to directories and into
/// nothing, sockets, pipes.
pub(super) fn left_out(data_directory: &Path, scan: &Scan) -> Vec<String> {
    let mut said = Vec::new();
    for skipped in &scan.skipped {
        let place = data_directory.join(&skipped.path);
        match (skipped.why, &skipped.target) {
            (SkipReason::Link, Some(target)) if !place.is_file() => said.push(format!(
                "{} is not in the backup: a link to {}, which is no file",
                place.display(),
                target.display()
            )),
            (SkipReason::Special, _) => {
                said.push(format!("{} is not in the backup: a socket, pipe or device", place.display()));
            }
            _ => {}
        }
    }
    said
}

fn unreadable(path: &Path, cause: std::io::Error) -> Error {
    Error::io("cannot read a configuration file of PostgreSQL", path, cause)
        .hint("make it readable for the user that owns the data directory")
}

/// Writes them as members of one tar.
pub(super) fn write(files: &[PathBuf], tar: &mut PackWriter<FanOut>) -> Result<()> {
    for path in files {
        let bytes = std::fs::read(path).map_err(|e| unreadable(path, e))?;
        let meta = std::fs::metadata(path).map_err(|e| unreadable(path, e))?;
        let name = path.as_os_str().as_bytes();
        let head = MemberHead {
            name: name.strip_prefix(b"/").unwrap_or(name),
            kind: MemberKind::File,
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            modified: u64::try_from(meta.mtime()).unwrap_or(0),
            size: bytes.len() as u64,
        };
        tar.member(&head, &bytes)?;
    }
    Ok(())
}
