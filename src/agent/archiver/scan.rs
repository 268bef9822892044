//! What `pg_wal/archive_status` says. Blocks. `pg_wal` may be a link, the directory may have been replaced by a restore,
//! and PostgreSQL may be down or in between: each scan begins at the data directory.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::archive::push::Fingerprint;
use crate::error::{Error, Result};
use crate::model::{SegmentName, SegmentSize, SystemId, TimelineId, Timestamp, WalFileName};
use crate::postgres::control_file::{ClusterState, ControlFile};

/// What tells a directory from another of the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(super) fn of(meta: &Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino() }
    }
    pub(super) fn at(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().as_ref().map(Self::of)
    }
}

/// A file that PostgreSQL wants to have archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) name: WalFileName,
    pub(super) fingerprint: Fingerprint,
    /// When it became so.
    pub(super) since: Option<Timestamp>,
}

/// One look.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) system: SystemId,
    pub(super) size: SegmentSize,
    /// With links resolved: what is watched.
    pub(super) status_directory: PathBuf,
    pub(super) identity: Option<Identity>,
    pub(super) ready: Vec<Ready>,
    /// Segments that PostgreSQL was told are archived, or holds to be.
    pub(super) done: Vec<SegmentName>,
    /// Of a primary: the newest timeline whose history it has.
    pub(super) primary_on: Option<TimelineId>,
}

/// The path of a WAL file.
pub(super) fn path_of(data_directory: &Path, name: WalFileName) -> PathBuf {
    data_directory.join("pg_wal").join(name.to_string())
}

/// `also`: what is to be archived though PostgreSQL does not ask for it.
pub(super) fn scan(data_directory: &Path, also: &[WalFileName]) -> Result<Scan> {
    let control = ControlFile::read(data_directory)?;
    let pg_wal = data_directory.join("pg_wal");
    let status = pg_wal.join("archive_status");
    let cannot = |e| Error::io("cannot read what PostgreSQL wants to have archived", &status, e);
    let status_directory = status.canonicalize().map_err(cannot)?;
    let mut scan = Scan {
        system: control.system,
        size: control.wal_segment_size,
        identity: Identity::at(&status_directory),
        status_directory,
        ready: Vec::new(),
        done: Vec::new(),
        primary_on: None,
    };
    let mut newest = None;
    for entry in std::fs::read_dir(&scan.status_directory).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let file = entry.file_name();
        let Some((name, state)) = file.to_str().and_then(|text| text.rsplit_once('.')) else { continue };
        let Some(name) = WalFileName::parse(name) else { continue };
        if let WalFileName::History(timeline) = name {
            newest = newest.max(Some(timeline));
        }
        match state {
            "ready" => {
                let since = entry.metadata().ok().and_then(|m| Timestamp::from_unix_seconds(m.mtime()));
                scan.ready.extend(Ready::at(&pg_wal, name, since));
            }
            "done" => scan.done.extend(match name {
                WalFileName::Segment(segment) => Some(segment),
                _ => None,
            }),
            _ => {}
        }
    }
    scan.ready.extend(also.iter().filter_map(|name| Ready::at(&pg_wal, *name, None)));
    scan.primary_on = newest.filter(|_| control.state == ClusterState::InProduction);
    Ok(scan)
}

impl Ready {
    /// PostgreSQL itself passes over a status whose file has gone.
    fn at(pg_wal: &Path, name: WalFileName, since: Option<Timestamp>) -> Option<Self> {
        let meta = std::fs::metadata(pg_wal.join(name.to_string())).ok()?;
        Some(Self { name, fingerprint: Fingerprint::of(&meta), since })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_without_a_cluster_is_an_error_and_not_an_empty_queue() {
        let dir = tempfile::tempdir().unwrap();
        assert!(scan(dir.path(), &[]).is_err());
    }
}
