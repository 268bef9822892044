//! Is there room? Pure: what is needed by file system, from the sizes of the backup's members, against what is free.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::place::{DirectoryState, PlaceFacts};
use super::plan::PlannedTablespace;
use super::request::Request;
use super::tablespaces;
use crate::error::{Code, Error, Result};
use crate::model::SegmentSize;
use crate::postgres::instance::limits::SEGMENTS_AT_ONCE;
use crate::repository::record::BackupRecord;
use crate::util::human;

/// Room on one file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    pub path: PathBuf,
    pub needed: u64,
    pub available: u64,
}

/// File systems need room for their own books.
const RESERVE_PERCENT: u64 = 2;

/// Of WAL that lies in pg_wal and in the spool while recovery runs: PostgreSQL keeps up to about `max_wal_size`.
pub fn wal_at_once(segment: SegmentSize) -> u64 {
    SEGMENTS_AT_ONCE * segment.bytes()
}

/// What files of so many bytes take.
pub fn with_books(bytes: u64) -> u64 {
    bytes.saturating_add(bytes.saturating_mul(RESERVE_PERCENT) / 100)
}

pub fn check(
    request: &Request,
    record: &BackupRecord,
    spread: &[PlannedTablespace],
    place: &PlaceFacts,
) -> Result<Vec<Need>> {
    let segment = record.base.as_ref().map_or(SegmentSize::DEFAULT, |b| b.wal_segment_bytes);
    let mut homes: BTreeMap<u32, PathBuf> = BTreeMap::from([(0, place.data_directory.clone())]);
    for (oid, path, _) in tablespaces::directories(spread) {
        homes.insert(oid, path.clone());
    }
    let mut needs: BTreeMap<u64, Need> = BTreeMap::new();
    let mut add = |path: &PathBuf, bytes: u64| {
        let Some(disk) = place.disks.iter().find(|d| d.path == *path) else { return };
        let need = needs.entry(disk.device).or_insert(Need {
            path: path.clone(),
            needed: 0,
            available: disk.available,
        });
        need.needed += bytes;
    };
    for (oid, bytes) in &place.member_bytes {
        // In-place tablespaces lie with the data directory.
        let home = homes.get(oid).unwrap_or(&place.data_directory);
        add(home, with_books(*bytes));
    }
    let wal_home = place.wal_directory.as_ref().unwrap_or(&place.data_directory);
    add(wal_home, wal_at_once(segment));
    if request.overwrite
        && let DirectoryState::Cluster { bytes, .. } = place.state
        && let Some(disk) = place.disks.iter().find(|d| d.path == place.data_directory)
        && let Some(need) = needs.get_mut(&disk.device)
    {
        need.available += bytes;
    }
    match needs.values().find(|n| n.needed > n.available) {
        None => Ok(needs.into_values().collect()),
        Some(short) => Err(Error::new(
            Code::NoSpace,
            format!(
                "there is not enough room: {} needed, {} available",
                human::size(short.needed),
                human::size(short.available)
            ),
        )
        .at(short.path.display())
        .hint("free some space there, restore elsewhere with --target-dir, or move a tablespace with --map OID=DIR")),
    }
}
