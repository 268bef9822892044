//! Everything between the stop and the wait for WAL: last pack, manifest, index, configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::copy::{CopyResult, Destination};
use super::finish::{self, ControlCopy, Finish};
use super::walrange::WalNeeded;
use super::{outside, pages};
use crate::codec::Protection;
use crate::error::Result;
use crate::model::Timestamp;
use crate::postgres::facts::STANDBY_SETTINGS;
use crate::postgres::{BackupStop, Scan, ServerFacts};
use crate::repository::manifest::Manifest;
use crate::repository::record::{ObjectEntry, PageErrors, TablespaceEntry};
use crate::util::failpoint;

pub(super) struct Copied {
    pub(super) scan: Scan,
    pub(super) result: CopyResult,
    pub(super) control: ControlCopy,
}

/// A copy that was completed and stopped.
pub(super) struct Done {
    pub(super) stop: BackupStop,
    pub(super) wal: WalNeeded,
    pub(super) objects: Vec<ObjectEntry>,
    pub(super) page_errors: Vec<PageErrors>,
    pub(super) bytes_raw: u64,
    pub(super) files: usize,
    pub(super) vanished: u64,
    pub(super) tablespaces: Vec<TablespaceEntry>,
}

/// What is written after the stop, on a blocking thread.
pub(super) struct Epilogue {
    pub(super) destination: Arc<Destination>,
    pub(super) metadata: Protection,
    pub(super) data_directory: PathBuf,
    pub(super) facts: ServerFacts,
    pub(super) stop: BackupStop,
    pub(super) wal: WalNeeded,
    pub(super) copied: Copied,
    pub(super) tablespaces: Vec<TablespaceEntry>,
    pub(super) relations: BTreeMap<String, String>,
    pub(super) now: Timestamp,
}

impl Epilogue {
    pub(super) fn run(self) -> Result<Done> {
        let Copied { scan, result: mut copied, control } = self.copied;
        let finish = Finish {
            destination: &self.destination,
            metadata: &self.metadata,
            data_directory: &self.data_directory,
            stop: &self.stop,
            control: &control,
            now: self.now,
        };
        finish::last_pack(&finish, &mut copied)?;
        let page_errors = pages::damage(&copied.suspects, self.wal.start, self.wal.stop);
        failpoint::reach("backup-before-manifest")?;
        copied.files.sort_by(|a, b| a.name.cmp(&b.name));
        let manifest = Manifest {
            system_identifier: Manifest::system_identifier_for(
                self.facts.major,
                self.facts.system_identifier,
            ),
            files: std::mem::take(&mut copied.files),
            wal_ranges: self.wal.ranges(),
        };
        let mut index = finish::index_of(&copied.packs)?;
        index.settings = kept_settings(&self.facts);
        index.relations = self.relations;
        index.page_errors.clone_from(&page_errors);
        let mut objects: Vec<ObjectEntry> = copied.packs.iter().map(|p| p.entry.clone()).collect();
        objects.push(finish::manifest(&finish, &manifest)?);
        objects.push(finish::index(&finish, &index)?);
        let outside = outside::files(&self.facts, &self.data_directory, &scan)?;
        objects.extend(finish::configuration(&finish, &outside)?);
        Ok(Done {
            bytes_raw: manifest.files.iter().map(|f| f.size).sum(),
            files: manifest.files.len(),
            vanished: copied.vanished,
            stop: self.stop,
            wal: self.wal,
            objects,
            page_errors,
            tablespaces: self.tablespaces,
        })
    }
}

/// Settings that a restore on another host has to know.
fn kept_settings(facts: &ServerFacts) -> BTreeMap<String, String> {
    const MORE: [&str; 12] = [
        "server_version",
        "data_directory",
        "config_file",
        "hba_file",
        "ident_file",
        "shared_preload_libraries",
        "wal_level",
        "hot_standby",
        "wal_segment_size",
        "data_checksums",
        "port",
        "unix_socket_directories",
    ];
    let kept = STANDBY_SETTINGS.into_iter().chain(MORE);
    kept.map(|name| (name.to_owned(), facts.setting(name).to_owned())).collect()
}
