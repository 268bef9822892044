//! After the stop: the last pack, the manifest, the index and the configuration's archive.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::copy::{CopyResult, Destination, PackDone};
use super::file::add_bytes;
use super::outside;
use crate::codec::{Protection, SealWriter, from_io};
use crate::error::{Code, Error, Result};
use crate::model::Timestamp;
use crate::postgres::BackupStop;
use crate::postgres::control_file::{ControlFile, RELATIVE_PATH};
use crate::repository::fanout::FanOut;
use crate::repository::index::{BackupIndex, IndexedMember};
use crate::repository::keys::backup;
use crate::repository::manifest::{Manifest, ManifestFile};
use crate::repository::pack::PackWriter;
use crate::repository::record::ObjectEntry;

const CONTROL_TRIES: u32 = 20;
const CONTROL_PAUSE: Duration = Duration::from_millis(50);

/// `global/pg_control` as it was at one moment, and what it says.
pub(super) struct ControlCopy {
    pub(super) bytes: Vec<u8>,
    pub(super) control: ControlFile,
}

/// Reads the whole file; a torn read (the server writes it without a lock that we could take) fails its CRC and is
/// tried again.
pub(super) fn read_control(data_directory: &Path) -> Result<ControlCopy> {
    let path = data_directory.join(RELATIVE_PATH);
    let mut tries = 0;
    loop {
        let bytes = std::fs::read(&path).map_err(|e| Error::io("cannot read pg_control", &path, e))?;
        match ControlFile::parse(&bytes) {
            Ok(control) => return Ok(ControlCopy { bytes, control }),
            Err(e) if tries == CONTROL_TRIES => return Err(e.at(path.display())),
            Err(_) => tries += 1,
        }
        std::thread::sleep(CONTROL_PAUSE);
    }
}

/// What is left to be written.
pub(super) struct Finish<'a> {
    pub(super) destination: &'a Destination,
    /// Manifest and index are also for the host's metadata key.
    pub(super) metadata: &'a Protection,
    pub(super) data_directory: &'a Path,
    pub(super) stop: &'a BackupStop,
    pub(super) control: &'a ControlCopy,
    pub(super) now: Timestamp,
}

/// A sealed object that is durable in every required repository.
fn seal(
    finish: &Finish<'_>,
    key: &str,
    protection: &Protection,
    write: impl FnOnce(&mut SealWriter<FanOut>) -> std::io::Result<()>,
) -> Result<ObjectEntry> {
    let fan = finish.destination.open(key);
    let mut seal = SealWriter::new(fan, protection, finish.destination.level, None)?;
    write(&mut seal).map_err(|e| from_io("cannot write the object", key, e))?;
    let (fan, sealed) = seal.finish()?;
    finish.destination.targets.take(fan.finish(&sealed)?);
    Ok(ObjectEntry { key: key.to_owned(), bytes: sealed.stored_bytes, sha256: sealed.stored_sha256 })
}

fn pack_object(
    finish: &Finish<'_>,
    key: &str,
    write: impl FnOnce(&mut PackWriter<FanOut>) -> Result<()>,
) -> Result<(ObjectEntry, Vec<crate::repository::pack::PackedMember>)> {
    let destination = finish.destination;
    let mut pack = PackWriter::new(destination.open(key), &destination.protection, destination.level)?;
    write(&mut pack)?;
    let (fan, done) = pack.finish()?;
    destination.targets.take(fan.finish(&done.sealed)?);
    let entry = ObjectEntry {
        key: key.to_owned(),
        bytes: done.sealed.stored_bytes,
        sha256: done.sealed.stored_sha256,
    };
    Ok((entry, done.members))
}

/// The last pack: label and map byte for byte as PostgreSQL gave them, `pg_control` last of all, so that a copy that
/// was unpacked halfway cannot be started.
pub(super) fn last_pack(finish: &Finish<'_>, copied: &mut CopyResult) -> Result<()> {
    let meta = std::fs::metadata(finish.data_directory)
        .map_err(|e| Error::io("cannot see whose the data directory is", finish.data_directory, e))?;
    let owner = (meta.uid(), meta.gid());
    let number = copied.packs.iter().map(|p| p.number).max().unwrap_or(0) + 1;
    let key = backup::pack(number, finish.destination.protection.suffix());
    let mut files: Vec<ManifestFile> = Vec::new();
    let (entry, members) = pack_object(finish, &key, |pack| {
        let mut add = |name: &str, bytes: &[u8]| -> Result<()> {
            files.push(add_bytes(name, bytes, owner, finish.now, pack)?);
            Ok(())
        };
        add("backup_label", &finish.stop.label)?;
        if !finish.stop.tablespace_map.is_empty() {
            add("tablespace_map", &finish.stop.tablespace_map)?;
        }
        add(RELATIVE_PATH, &finish.control.bytes)
    })?;
    copied.files.extend(files);
    copied.packs.push(PackDone { number, entry, members });
    copied.packs.sort_by_key(|pack| pack.number);
    Ok(())
}

pub(super) fn manifest(finish: &Finish<'_>, manifest: &Manifest) -> Result<ObjectEntry> {
    let key = backup::manifest(finish.metadata.suffix());
    seal(finish, &key, finish.metadata, |out| manifest.write(out))
}

/// The places of all members.
pub(super) fn index_of(packs: &[PackDone]) -> Result<BackupIndex> {
    let mut members = Vec::new();
    for (position, pack) in packs.iter().enumerate() {
        let position = u32::try_from(position).map_err(|_| {
            Error::new(Code::BackupFailed, "the backup has more packs than an index can name")
        })?;
        members.extend(pack.members.iter().map(|m| IndexedMember::new(position, m.clone())));
    }
    Ok(BackupIndex::new(packs.iter().map(|p| p.entry.key.clone()).collect(), members))
}

pub(super) fn index(finish: &Finish<'_>, index: &BackupIndex) -> Result<ObjectEntry> {
    let key = backup::index(finish.metadata.suffix());
    seal(finish, &key, finish.metadata, |out| serde_json::to_writer(out, index).map_err(Into::into))
}

/// The configuration from outside; no object when all of it is in the data directory.
pub(super) fn configuration(finish: &Finish<'_>, files: &[PathBuf]) -> Result<Option<ObjectEntry>> {
    if files.is_empty() {
        return Ok(None);
    }
    let key = backup::config(finish.destination.protection.suffix());
    pack_object(finish, &key, |tar| outside::write(files, tar)).map(|(entry, _)| Some(entry))
}
