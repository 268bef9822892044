//! Objects of backups, one stream at a time, and the list of everything that a run may read.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::base::{BaseFacts, read_index, read_manifest};
use super::finding::{Checked, Kind};
use super::keys::Keys;
use super::logical::{LogicalFacts, has_index};
use super::reading::{Found, Stream, Trouble, Watch, drain};
use super::wal::WalItem;
use crate::codec::{Identities, Opened, open_sealed};
use crate::model::ClusterName;
use crate::repository::Repository;
use crate::repository::keys::backup;
use crate::repository::record::{BackupRecord, ObjectEntry};

/// One thing that is read.
#[derive(Clone)]
pub(super) enum Item {
    Stream(StreamItem),
    Wal(WalItem),
}

impl Item {
    /// The whole key.
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Stream(stream) => &stream.key,
            Self::Wal(wal) => wal.key(),
        }
    }
    /// What is remembered together: the directory of a backup, or of 4 GiB of WAL.
    pub(super) fn unit(&self) -> &str {
        match self {
            Self::Stream(stream) => &stream.check.directory,
            Self::Wal(wal) => wal.key().rsplit_once('/').map_or("", |(directory, _)| directory),
        }
    }
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Stream(stream) => stream.parts.iter().map(|part| part.bytes).sum(),
            Self::Wal(wal) => wal.bytes(),
        }
    }
    /// Blocks.
    pub(super) fn check(
        &self,
        repository: &Repository,
        keys: &Keys,
        watch: &Watch,
        deep: bool,
    ) -> Checked<()> {
        match self {
            Self::Stream(stream) => stream.check.run(repository, keys, watch, &stream.parts),
            Self::Wal(wal) => wal.check(repository, keys, watch, deep),
        }
    }
}

/// A stream of a backup: an object, with its continuations where it has some.
#[derive(Clone)]
pub(super) struct StreamItem {
    pub(super) check: Arc<BackupCheck>,
    key: String,
    pub(super) parts: Vec<ObjectEntry>,
}

/// What the objects of one backup are held against.
pub(super) struct BackupCheck {
    pub(super) record: BackupRecord,
    cluster: ClusterName,
    directory: String,
    /// Whole keys that the store lists, replacements among them.
    listed: BTreeSet<String>,
    /// False where it is known that no identity here opens the data.
    opens: bool,
    facts: Mutex<Option<Arc<Facts>>>,
}

/// Whether what is in an object can be seen here.
#[derive(Clone, Copy)]
enum Opening<'i> {
    Closed,
    With(Option<&'i Identities>),
}

enum Facts {
    Base(BaseFacts),
    Logical(LogicalFacts),
    /// They cannot be opened here, or are found to be wrong by themselves.
    Unknown,
}

impl BackupCheck {
    pub(super) fn new(
        record: BackupRecord,
        cluster: &ClusterName,
        listed: BTreeSet<String>,
        opens: bool,
    ) -> Arc<Self> {
        let directory = backup::directory(cluster, &record.id).trim_end_matches('/').to_owned();
        let facts = Mutex::new(None);
        Arc::new(Self { record, cluster: cluster.clone(), directory, listed, opens, facts })
    }

    /// Every stream whose objects are all there.
    pub(super) fn items(self: &Arc<Self>, absent: &BTreeSet<String>) -> Vec<Item> {
        let continued =
            |key: &str| key.rsplit_once(".part").is_some_and(|(stem, _)| self.record.object(stem).is_some());
        let heads = self.record.objects.iter().filter(|entry| !continued(&entry.key));
        let streams = heads.map(|entry| {
            let parts: Vec<ObjectEntry> = self.record.parts(&entry.key).into_iter().cloned().collect();
            StreamItem { check: Arc::clone(self), key: self.whole(&entry.key), parts }
        });
        let there =
            |item: &StreamItem| item.parts.iter().all(|part| !absent.contains(&self.whole(&part.key)));
        streams.filter(there).map(Item::Stream).collect()
    }

    pub(super) fn whole(&self, relative: &str) -> String {
        backup::object(&self.cluster, &self.record.id, relative)
    }

    /// Where an object is read: its replacement, if there is one.
    fn place(&self, entry: &ObjectEntry, healed: bool) -> String {
        let own = self.whole(&entry.key);
        let other = backup::healed(&own, entry.sha256);
        if healed && self.listed.contains(&other) { other } else { own }
    }

    fn run(&self, repository: &Repository, keys: &Keys, watch: &Watch, parts: &[ObjectEntry]) -> Checked<()> {
        let Some(first) = parts.first() else { return Ok(()) };
        let key = first.key.as_str();
        let metadata = backup::is_index(key) || backup::is_manifest(key);
        let opens = if metadata { keys.opens_metadata(key) } else { self.opens && keys.opens_data(key) };
        if !opens {
            return self.stored(repository, watch, parts, Opening::Closed, |_| Ok(()));
        }
        let identities = if metadata { &keys.metadata } else { &keys.data };
        let place = repository.place(&self.whole(key));
        if backup::is_manifest(key) {
            let read = |opened| Ok(read_manifest(opened, &place).map(|_| ())?);
            return self.stored(repository, watch, parts, Opening::With(identities.as_deref()), read);
        }
        if backup::is_index(key) {
            self.stored(repository, watch, parts, Opening::With(identities.as_deref()), |mut opened| {
                drain(&mut opened)?;
                Ok(())
            })?;
            return match *self.load(repository, keys, watch)? {
                // A pack was read first and has done without: what is wrong is told here, so it is looked at again.
                Facts::Unknown => self.read_facts(repository, keys, watch).map(|_| ()),
                Facts::Base(_) | Facts::Logical(_) => Ok(()),
            };
        }
        let facts = match self.load(repository, keys, watch) {
            Err(Trouble::Store(error)) => return Err(Trouble::Store(error)),
            // Told where it was found.
            Err(Trouble::Wrong(..)) => Arc::new(Facts::Unknown),
            Ok(facts) => facts,
        };
        self.stored(
            repository,
            watch,
            parts,
            Opening::With(identities.as_deref()),
            |mut opened| match &*facts {
                Facts::Base(base) if backup::is_pack(key) => base.check_pack(key, opened, &place),
                Facts::Logical(logical) => logical.check(key, opened),
                Facts::Base(_) | Facts::Unknown => {
                    drain(&mut opened)?;
                    Ok(())
                }
            },
        )
    }

    /// What index and manifest say; read once.
    fn load(&self, repository: &Repository, keys: &Keys, watch: &Watch) -> Checked<Arc<Facts>> {
        let mut loaded = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(facts) = &*loaded {
            return Ok(Arc::clone(facts));
        }
        let facts = self.read_facts(repository, keys, watch);
        let keep = match &facts {
            Ok(facts) => Some(Arc::clone(facts)),
            Err(Trouble::Wrong(..)) => Some(Arc::new(Facts::Unknown)),
            Err(Trouble::Store(_)) => None,
        };
        *loaded = keep;
        facts
    }

    fn read_facts(&self, repository: &Repository, keys: &Keys, watch: &Watch) -> Checked<Arc<Facts>> {
        let find = |is: fn(&str) -> bool| self.record.objects.iter().find(|entry| is(&entry.key));
        let base = self.record.kind.is_base();
        let Some(index) = find(backup::is_index) else {
            if base || has_index(self.record.kind) {
                return Err(Trouble::wrong(Kind::Inconsistent, "the record names no index"));
            }
            return Ok(Arc::new(Facts::Unknown));
        };
        if !keys.opens_metadata(&index.key) {
            return Ok(Arc::new(Facts::Unknown));
        }
        let identities = keys.metadata.as_deref();
        let place = repository.place(&self.whole(&index.key));
        if !base {
            let read = |opened| LogicalFacts::read(opened, &self.record, &place);
            return Ok(Arc::new(Facts::Logical(self.sound(repository, watch, index, identities, read)?)));
        }
        let Some(manifest) = find(backup::is_manifest) else {
            return Err(Trouble::wrong(Kind::Inconsistent, "the record names no manifest"));
        };
        let read = |opened| Ok(read_index(opened, &place)?);
        let index = self.sound(repository, watch, index, identities, read)?;
        let place = repository.place(&self.whole(&manifest.key));
        let read = |opened| Ok(read_manifest(opened, &place)?);
        let manifest = match self.sound(repository, watch, manifest, identities, read) {
            Ok(manifest) => Some(manifest),
            // Told of the manifest itself; index and packs are held against each other without it.
            Err(Trouble::Wrong(..)) => None,
            Err(Trouble::Store(error)) => return Err(Trouble::Store(error)),
        };
        Ok(Arc::new(Facts::Base(BaseFacts::of(&self.record, index, manifest.as_ref())?)))
    }

    /// What `read` makes of an object, whose stored bytes are the record's: by others' bytes nothing is judged.
    fn sound<T>(
        &self,
        repository: &Repository,
        watch: &Watch,
        entry: &ObjectEntry,
        identities: Option<&Identities>,
        read: impl Fn(Opened<Stream>) -> Checked<T>,
    ) -> Checked<T> {
        let quiet = Watch { progress: Arc::new(crate::util::progress::Silent), ..watch.clone() };
        let parts: Vec<ObjectEntry> = self.record.parts(&entry.key).into_iter().cloned().collect();
        let made = Mutex::new(None);
        self.stored(repository, &quiet, &parts, Opening::With(identities), |opened| {
            let value = read(opened)?;
            *made.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
            Ok(())
        })?;
        let made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
        made.ok_or_else(|| Trouble::wrong(Kind::Inconsistent, "the record names no bytes of it"))
    }

    /// Reads a stream: its stored bytes must be the record's, and what it holds is judged by `read`.
    fn stored(
        &self,
        repository: &Repository,
        watch: &Watch,
        parts: &[ObjectEntry],
        opening: Opening<'_>,
        read: impl Fn(Opened<Stream>) -> Checked<()>,
    ) -> Checked<()> {
        let places = |healed| parts.iter().map(|part| self.place(part, healed)).collect::<Vec<_>>();
        let (preferred, own) = (places(true), places(false));
        let tried = self.stored_at(repository, watch, parts, &preferred, opening, &read);
        if preferred != own && matches!(tried, Err(Trouble::Wrong(..))) {
            return self.stored_at(repository, watch, parts, &own, opening, &read);
        }
        tried
    }

    fn stored_at(
        &self,
        repository: &Repository,
        watch: &Watch,
        parts: &[ObjectEntry],
        places: &[String],
        opening: Opening<'_>,
        read: &impl Fn(Opened<Stream>) -> Checked<()>,
    ) -> Checked<()> {
        let Some(key) = places.first() else { return Ok(()) };
        let stream = Stream::open(repository, places.iter().cloned(), watch);
        let judged = match opening {
            Opening::Closed => Ok(()),
            Opening::With(identities) => match open_sealed(stream.clone(), key, identities) {
                Ok(opened) => read(opened),
                Err(error) => Err(error.into()),
            },
        };
        let found = stream.finish()?;
        // What the bytes are says more than that they cannot be opened.
        self.compare(parts, &found)?;
        judged
    }

    fn compare(&self, parts: &[ObjectEntry], found: &[Found]) -> Checked<()> {
        for (part, found) in parts.iter().zip(found) {
            if found.bytes != part.bytes {
                let what = format!("it has {} bytes, and {} were stored", found.bytes, part.bytes);
                return Err(Trouble::wrong(Kind::WrongLength, what));
            }
            if found.sha256 != part.sha256 {
                let other = self.record.objects.iter().find(|entry| entry.sha256 == found.sha256);
                let what = match other {
                    Some(other) => format!("it holds the bytes of {}", other.key),
                    None => "its bytes are not those that were stored".to_owned(),
                };
                return Err(Trouble::wrong(Kind::Damaged, what));
            }
        }
        Ok(())
    }
}
