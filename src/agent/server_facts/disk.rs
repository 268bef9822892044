//! What pg_wal takes of its disk, from the directory itself: the server may be down, or its disk full.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use tokio::task::JoinHandle;

use crate::config::ClusterConfig;
use crate::error::{Code, Error, Result};
use crate::postgres::as_owner;

/// A network file system may not answer for ever.
const WITHIN: Duration = Duration::from_secs(10);

/// One look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Bytes of the files in pg_wal.
    pub pg_wal: u64,
    /// Bytes of the file system that pg_wal really is on.
    pub disk: u64,
    /// Of them, what is left to users other than root.
    pub free: u64,
}

/// Looks at one cluster's pg_wal; at most one look is under way.
pub struct Disk {
    cluster: ClusterConfig,
    /// Where the data directory was, so that it is found while the server is down.
    known: Option<PathBuf>,
    looking: Option<JoinHandle<Result<(PathBuf, Seen)>>>,
}

impl Disk {
    pub fn new(cluster: ClusterConfig) -> Self {
        Self { cluster, known: None, looking: None }
    }

    pub async fn look(&mut self) -> Result<Seen> {
        let (cluster, known) = (&self.cluster, &self.known);
        let looking = self.looking.get_or_insert_with(|| {
            let (cluster, known) = (cluster.clone(), known.clone());
            tokio::task::spawn_blocking(move || {
                let data_directory = find(&cluster, known)?;
                measure(&data_directory.join("pg_wal")).map(|seen| (data_directory, seen))
            })
        });
        let Ok(ended) = tokio::time::timeout(WITHIN, looking).await else {
            let what = format!("the disk of pg_wal does not answer within {} s", WITHIN.as_secs());
            return Err(Error::new(Code::Io, what).at(format!("cluster {}", self.cluster.name)));
        };
        self.looking = None;
        let (data_directory, seen) =
            ended.map_err(|e| Error::internal("a look at the disk panicked").because(e))??;
        self.known = Some(data_directory);
        Ok(seen)
    }
}

fn find(cluster: &ClusterConfig, known: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(configured) = &cluster.data_directory {
        return Ok(configured.clone());
    }
    let running = as_owner::data_directory(&cluster.connection)?;
    running.or(known).ok_or_else(|| Error::new(Code::NotReady, "cannot tell where the data directory is"))
}

/// Sizes as the files say: of a segment that is set aside and not written yet, too.
fn measure(pg_wal: &Path) -> Result<Seen> {
    let cannot = |e| Error::io("cannot look at pg_wal", pg_wal, e);
    let mut pg_wal_bytes = 0;
    for entry in std::fs::read_dir(pg_wal).map_err(cannot)? {
        // PostgreSQL renames and removes meanwhile.
        let metadata = match entry.and_then(|entry| entry.metadata()) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.map_err(cannot)?,
        };
        if metadata.is_file() {
            pg_wal_bytes += metadata.len();
        }
    }
    let disk = statvfs(pg_wal).map_err(|e| cannot(e.into()))?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.fragment_size());
    Ok(Seen { pg_wal: pg_wal_bytes, disk: bytes(disk.blocks()), free: bytes(disk.blocks_available()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_pg_wal_are_summed_through_a_link_and_its_directories_left_out() {
        let root = tempfile::tempdir().unwrap();
        let real = root.path().join("real");
        std::fs::create_dir_all(real.join("archive_status")).unwrap();
        std::fs::write(real.join("000000010000000000000001"), vec![0; 5000]).unwrap();
        std::fs::write(real.join("00000002.history"), "x").unwrap();
        std::fs::write(real.join("archive_status/000000010000000000000001.ready"), "long enough").unwrap();
        let link = root.path().join("pg_wal");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let seen = measure(&link).unwrap();
        assert_eq!(seen.pg_wal, 5001);
        assert!(seen.free <= seen.disk && seen.disk > 0, "{seen:?}");
    }

    #[test]
    fn what_cannot_be_looked_at_is_an_error_and_no_zero() {
        let root = tempfile::tempdir().unwrap();
        let error = measure(&root.path().join("pg_wal")).unwrap_err();
        assert!(error.to_string().contains("cannot look at pg_wal"), "{error}");
    }
}
