//! Base backups: index and manifest fit together, and every pack holds just the files that they say, byte for byte.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use super::finding::{Checked, Kind};
use super::reading::{Trouble, drain};
use crate::codec::from_io;
use crate::error::{Code, Error, Result};
use crate::model::Digest;
use crate::repository::index::BackupIndex;
use crate::repository::keys::backup;
use crate::repository::manifest::Manifest;
use crate::repository::pack::MemberKind;
use crate::repository::pack_read::{ReadHead, each_member};
use crate::repository::record::BackupRecord;

const PIECE: usize = 128 << 10;
/// No honest manifest is larger: 250 bytes for each of four million files.
const LARGEST_MANIFEST: u64 = 1 << 30;

/// A file as index and manifest describe it.
#[derive(Debug, Clone, Copy)]
struct Member {
    pack: u32,
    size: u64,
    /// None for directories, which no manifest has, and where there is no manifest.
    sha256: Option<Digest>,
}

/// What index and manifest say together.
#[derive(Debug)]
pub(super) struct BaseFacts {
    packs: Vec<String>,
    /// Of each pack.
    counts: Vec<usize>,
    members: HashMap<Vec<u8>, Member>,
}

/// Reads a manifest whole.
pub(super) fn read_manifest(opened: impl Read, place: &str) -> Result<Manifest> {
    let mut bytes = Vec::new();
    let mut opened = opened.take(LARGEST_MANIFEST);
    opened.read_to_end(&mut bytes).map_err(|e| from_io("the manifest cannot be opened", place, e))?;
    Manifest::parse(&bytes, place)
}

/// Reads an index to its end.
pub(super) fn read_index(mut opened: impl Read, place: &str) -> Result<BackupIndex> {
    let index = BackupIndex::read(&mut opened, place)?;
    drain(&mut opened)?;
    Ok(index)
}

impl BaseFacts {
    /// Holds index, manifest and record against each other; without a manifest what is left of them.
    pub(super) fn of(
        record: &BackupRecord,
        index: BackupIndex,
        manifest: Option<&Manifest>,
    ) -> Checked<Self> {
        let wrong = |what: String| Err(Trouble::wrong(Kind::Inconsistent, what));
        let recorded: BTreeSet<&str> =
            record.objects.iter().map(|o| o.key.as_str()).filter(|key| backup::is_pack(key)).collect();
        let indexed: BTreeSet<&str> = index.packs.iter().map(String::as_str).collect();
        if let Some(key) = recorded.symmetric_difference(&indexed).next() {
            return wrong(format!("{key} is in only one of the record and the index"));
        }
        if manifest.and_then(|m| m.system_identifier).is_some_and(|id| id != record.system_identifier) {
            return Err(Trouble::wrong(Kind::Foreign, "the manifest is another cluster's"));
        }
        let mut counts = vec![0; index.packs.len()];
        let mut members = HashMap::with_capacity(index.members.len());
        for member in index.members {
            if let Some(count) = usize::try_from(member.pack).ok().and_then(|at| counts.get_mut(at)) {
                *count += 1;
            }
            let name = member.name.as_bytes().to_vec();
            let fact = Member { pack: member.pack, size: member.size, sha256: None };
            if members.insert(name, fact).is_some() {
                return wrong(format!("the index has {} twice", member.name.lossy()));
            }
        }
        for file in manifest.iter().flat_map(|manifest| &manifest.files) {
            match members.get_mut(file.name.as_bytes()) {
                Some(member) if member.size == file.size => member.sha256 = Some(file.sha256),
                Some(member) => {
                    let (name, has) = (file.name.lossy(), member.size);
                    return wrong(format!(
                        "{name} has {} bytes in the manifest and {has} in its pack",
                        file.size
                    ));
                }
                None => return wrong(format!("the manifest has {}, and no pack", file.name.lossy())),
            }
        }
        Ok(Self { packs: index.packs, counts, members })
    }

    /// Reads a pack, every file of it.
    pub(super) fn check_pack(&self, key: &str, opened: impl Read, place: &str) -> Checked<()> {
        let Some(number) = self.packs.iter().position(|pack| pack == key) else {
            return Err(Trouble::wrong(Kind::Inconsistent, "the index does not have this pack"));
        };
        let mut seen = 0;
        let mut inconsistent = None;
        let read = each_member(opened, place, |head, body| {
            seen += 1;
            if let Some(what) = self.member(number, head, body)? {
                inconsistent = Some(what);
                return Err(Error::new(Code::Damaged, "the pack contradicts the manifest"));
            }
            Ok(())
        });
        if let Some(what) = inconsistent {
            return Err(Trouble::wrong(Kind::Inconsistent, what));
        }
        read?;
        match self.counts.get(number) {
            Some(count) if *count == seen => Ok(()),
            count => {
                let expected = count.copied().unwrap_or(0);
                let what = format!("it holds {seen} files, and the index says {expected}");
                Err(Trouble::wrong(Kind::Inconsistent, what))
            }
        }
    }

    /// What is wrong with a file, if anything.
    fn member(&self, pack: usize, head: &ReadHead, body: &mut dyn Read) -> Result<Option<String>> {
        let name = String::from_utf8_lossy(&head.name).into_owned();
        let Some(fact) = self.members.get(&head.name) else {
            return Ok(Some(format!("the index does not have {name}")));
        };
        if usize::try_from(fact.pack) != Ok(pack) {
            return Ok(Some(format!("the index has {name} in another pack")));
        }
        if head.kind == MemberKind::Directory {
            return Ok(None);
        }
        let (bytes, sha256) = digest(body)?;
        if bytes != fact.size || fact.sha256.is_some_and(|expected| expected != sha256) {
            return Ok(Some(format!("{name} is not the file that the manifest describes")));
        }
        Ok(None)
    }
}

fn digest(body: &mut dyn Read) -> Result<(u64, Digest)> {
    let mut sha256 = Sha256::new();
    let (mut piece, mut bytes) = (vec![0; PIECE], 0);
    loop {
        match body.read(&mut piece) {
            Ok(0) => return Ok((bytes, Digest(sha256.finalize().into()))),
            Ok(n) => {
                sha256.update(&piece[..n]);
                bytes += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(from_io("the pack cannot be read", "", e)),
        }
    }
}
