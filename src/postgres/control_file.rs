//! `global/pg_control` (`ControlFileData` of `catalog/pg_control.h`), PostgreSQL 14 to 18.
//!
//! Up to PostgreSQL 17 the structure is the same but for what stands in padding; 18 puts one byte before the nonce, so
//! its CRC lies four bytes further on. A file whose CRC does not fit is never interpreted.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::model::{Lsn, PgMajor, SegmentSize, SystemId, TimelineId, Timestamp};
use crate::wal::fields::{i64_at, u32_at, u64_at};

pub use crate::wal::checkpoint::{Checkpoint, WalLevel, WalSettings};

/// Below the data directory.
pub const RELATIVE_PATH: &str = "global/pg_control";

/// PostgreSQL writes the file in place: a reader can meet half of it. `get_controlfile` tries ten times too.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(10);

/// What `pg_control` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFile {
    pub system: SystemId,
    /// `PG_CONTROL_VERSION`: 1300 (14 to 16), 1700, 1800.
    pub control_version: u32,
    pub catalog_version: u32,
    pub state: ClusterState,
    /// When the file was last written, by the server's clock.
    pub written_at: Option<Timestamp>,
    /// Where the latest checkpoint record starts.
    pub checkpoint: Lsn,
    pub checkpoint_copy: Checkpoint,
    pub min_recovery_point: Lsn,
    /// None outside recovery.
    pub min_recovery_timeline: Option<TimelineId>,
    pub backup_start_point: Lsn,
    pub backup_end_point: Lsn,
    pub backup_end_required: bool,
    pub settings: WalSettings,
    pub wal_log_hints: bool,
    pub track_commit_timestamp: bool,
    pub max_align: u32,
    pub block_bytes: u32,
    /// Blocks per file of a relation (131072 for 1 GiB).
    pub relation_segment_blocks: u32,
    pub wal_block_bytes: u32,
    pub wal_segment_size: SegmentSize,
    /// 0: off.
    pub data_checksum_version: u32,
}

/// `DBState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    StartingUp,
    ShutDown,
    ShutDownInRecovery,
    ShuttingDown,
    InCrashRecovery,
    InArchiveRecovery,
    InProduction,
}

impl ControlFile {
    /// Reads `global/pg_control` below `data_directory`; waits up to 0.1 s for a writer to finish. Blocks.
    pub fn read(data_directory: &Path) -> Result<Self> {
        let path = data_directory.join(RELATIVE_PATH);
        let mut tries = 1;
        loop {
            let bytes = std::fs::read(&path).map_err(|e| {
                Error::new(Code::ControlFile, "cannot read pg_control")
                    .at(path.display())
                    .hint("check that this is a PostgreSQL data directory and that this user may read it")
                    .because(e)
            })?;
            match Self::parse(&bytes) {
                Ok(control) => return Ok(control),
                Err(_) if tries < TRIES => {
                    tries += 1;
                    std::thread::sleep(PAUSE);
                }
                Err(e) => return Err(e.at(path.display())),
            }
        }
    }

    /// From the file's bytes (8 KiB; more than the structure's 292 or 296 bytes is not needed).
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let version = u32_at(bytes, 8).ok_or_else(|| wrong("pg_control is too short"))?;
        let crc_at = match version {
            1300 | 1700 => 288,
            1800 => 292,
            _ => {
                return Err(wrong(format!("pg_control has format {version}, which pgkeep does not know"))
                    .hint("pgkeep works with PostgreSQL 14 to 18 on little-endian machines"));
            }
        };
        let (Some(covered), Some(crc)) = (bytes.get(..crc_at), u32_at(bytes, crc_at)) else {
            return Err(wrong("pg_control is too short"));
        };
        if crc32c::crc32c(covered) != crc {
            return Err(wrong("pg_control fails its CRC")
                .hint("the file is damaged or was copied while it was written: take it from a backup"));
        }
        fields(covered, version).ok_or_else(|| wrong("pg_control holds values that cannot be"))
    }

    /// None for a catalog version that no released major has.
    pub fn major(&self) -> Option<PgMajor> {
        match (self.control_version, self.catalog_version) {
            (1300, 202_107_181) => Some(PgMajor(14)),
            (1300, 202_209_061) => Some(PgMajor(15)),
            (1300, 202_307_071) => Some(PgMajor(16)),
            (1700, _) => Some(PgMajor(17)),
            (1800, _) => Some(PgMajor(18)),
            _ => None,
        }
    }
    pub fn data_checksums(&self) -> bool {
        self.data_checksum_version != 0
    }
}

fn wrong(what: impl Into<String>) -> Error {
    Error::new(Code::ControlFile, what)
}

fn fields(b: &[u8], version: u32) -> Option<ControlFile> {
    let flag = |offset: usize| b.get(offset).map(|v| *v != 0);
    let lsn = |offset| u64_at(b, offset).map(Lsn);
    Some(ControlFile {
        system: SystemId(u64_at(b, 0)?),
        control_version: version,
        catalog_version: u32_at(b, 12)?,
        state: ClusterState::from_number(u32_at(b, 16)?)?,
        written_at: Timestamp::from_unix_seconds(i64_at(b, 24)?),
        checkpoint: lsn(32)?,
        checkpoint_copy: Checkpoint::parse(b.get(40..128)?)?,
        min_recovery_point: lsn(136)?,
        min_recovery_timeline: Some(TimelineId(u32_at(b, 144)?)).filter(|t| t.0 > 0),
        backup_start_point: lsn(152)?,
        backup_end_point: lsn(160)?,
        backup_end_required: flag(168)?,
        settings: WalSettings {
            wal_level: WalLevel::from_number(u32_at(b, 172)?),
            max_connections: u32_at(b, 180)?,
            max_worker_processes: u32_at(b, 184)?,
            max_wal_senders: u32_at(b, 188)?,
            max_prepared_transactions: u32_at(b, 192)?,
            max_locks_per_transaction: u32_at(b, 196)?,
        },
        wal_log_hints: flag(176)?,
        track_commit_timestamp: flag(200)?,
        max_align: u32_at(b, 204)?,
        block_bytes: u32_at(b, 216)?,
        relation_segment_blocks: u32_at(b, 220)?,
        wal_block_bytes: u32_at(b, 224)?,
        wal_segment_size: SegmentSize::new(u32_at(b, 228)?)?,
        data_checksum_version: u32_at(b, 252)?,
    })
}

impl ClusterState {
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::StartingUp,
            1 => Self::ShutDown,
            2 => Self::ShutDownInRecovery,
            3 => Self::ShuttingDown,
            4 => Self::InCrashRecovery,
            5 => Self::InArchiveRecovery,
            6 => Self::InProduction,
            _ => return None,
        })
    }
    /// True where the server said that it stopped; a crash leaves `InProduction`.
    pub fn is_stopped(self) -> bool {
        matches!(self, Self::ShutDown | Self::ShutDownInRecovery)
    }
}
/// As `pg_controldata` prints it.
impl fmt::Display for ClusterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StartingUp => "starting up",
            Self::ShutDown => "shut down",
            Self::ShutDownInRecovery => "shut down in recovery",
            Self::ShuttingDown => "shutting down",
            Self::InCrashRecovery => "in crash recovery",
            Self::InArchiveRecovery => "in archive recovery",
            Self::InProduction => "in production",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A control file of a format, with just what makes it valid.
    fn file(version: u32, catalog: u32) -> Vec<u8> {
        let mut b = vec![0; 8192];
        b[..8].copy_from_slice(&7_123_456_789u64.to_le_bytes());
        b[8..12].copy_from_slice(&version.to_le_bytes());
        b[12..16].copy_from_slice(&catalog.to_le_bytes());
        b[16] = 6;
        b[48] = 3;
        b[228..232].copy_from_slice(&(16u32 << 20).to_le_bytes());
        let at = if version == 1800 { 292 } else { 288 };
        let crc = crc32c::crc32c(&b[..at]);
        b[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        b
    }

    #[test]
    fn every_format_is_read_with_its_own_length() {
        for (version, catalog, major) in [
            (1300, 202_107_181, 14),
            (1300, 202_209_061, 15),
            (1300, 202_307_071, 16),
            (1700, 202_406_281, 17),
            (1800, 202_506_291, 18),
        ] {
            let control = ControlFile::parse(&file(version, catalog)).unwrap();
            assert_eq!(control.major(), Some(PgMajor(major)));
            assert_eq!(control.system, SystemId(7_123_456_789));
            assert_eq!(control.checkpoint_copy.timeline, TimelineId(3));
            assert_eq!(control.state.to_string(), "in production");
            assert_eq!(control.wal_segment_size, SegmentSize::DEFAULT);
        }
    }

    #[test]
    fn a_changed_short_or_unknown_file_is_refused() {
        let good = file(1800, 202_506_291);
        for place in [0, 20, 100, 291, 293] {
            let mut bytes = good.clone();
            bytes[place] ^= 1;
            let error = ControlFile::parse(&bytes).unwrap_err();
            assert_eq!(error.code(), Code::ControlFile);
            assert!(error.to_string().contains("CRC"), "{place}: {error}");
        }
        for length in [0, 8, 11, 291, 295] {
            assert!(ControlFile::parse(&good[..length]).unwrap_err().to_string().contains("short"));
        }
        let error = ControlFile::parse(&file(1201, 1)).unwrap_err();
        assert!(error.to_string().contains("format 1201"), "{error}");
        let missing = ControlFile::read(Path::new("/nonexistent")).unwrap_err();
        assert_eq!(missing.place(), Some("/nonexistent/global/pg_control"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(
            changes in prop::collection::vec((0usize..300, any::<u8>()), 0..20),
            length in 0usize..400,
        ) {
            let mut bytes = file(1700, 202_406_281);
            for (place, value) in changes {
                bytes[place] = value;
            }
            bytes[8..12].copy_from_slice(&1700u32.to_le_bytes());
            let crc = crc32c::crc32c(&bytes[..288]);
            bytes[288..292].copy_from_slice(&crc.to_le_bytes());
            let _ = ControlFile::parse(&bytes[..length]);
        }
    }
}
