//! What the archive holds, from listings alone: no object is read.
//!
//! Listings of several repositories are merged; each stored copy says where it lies. Names that the format does not
//! know are passed over. A listing that fails is an error, never an empty listing.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Result;
use crate::model::{RepoName, SegmentName, ShortDigest, TimelineId, Timestamp, WalFileName};
use crate::repository::continuity::HeadRange;
use crate::repository::keys::wal::{WalObjectName, WalRoot};
use crate::storage::{ObjectInfo, Storage};

/// One stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCopy {
    pub repo: RepoName,
    pub key: String,
    /// As stored.
    pub bytes: u64,
    /// By the store's clock.
    pub modified: Option<Timestamp>,
    /// A replacement of a damaged object; tried before the original.
    pub healed: bool,
}

/// One content of a file: the name may have several, each with its own digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalObject {
    pub digest: ShortDigest,
    /// Marked as damaged by its writer.
    pub damaged: bool,
    /// Healed ones first; never empty.
    pub copies: Vec<StoredCopy>,
}

/// The bytes `[from, to)` of a segment that was being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadObject {
    pub from: u32,
    pub to: u32,
    pub digest: ShortDigest,
    pub copies: Vec<StoredCopy>,
}

/// The WAL of one system identifier (or a part of it, as loaded).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WalListing {
    files: BTreeMap<WalFileName, Vec<WalObject>>,
    heads: BTreeMap<SegmentName, Vec<HeadObject>>,
    /// Contents marked damaged, whether or not the object itself is there.
    marks: BTreeMap<SegmentName, BTreeSet<ShortDigest>>,
}

impl WalListing {
    /// Everything of this system identifier in one repository.
    pub async fn load(repo: &RepoName, storage: &dyn Storage, root: &WalRoot) -> Result<Self> {
        Self::load_prefix(repo, storage, root, root.prefix()).await
    }
    /// The directory that holds `segment` (4 GiB of WAL).
    pub async fn load_log(
        repo: &RepoName,
        storage: &dyn Storage,
        root: &WalRoot,
        segment: SegmentName,
    ) -> Result<Self> {
        Self::load_prefix(repo, storage, root, &root.log_prefix(segment)).await
    }
    /// One file; with a segment come its marks and heads.
    pub async fn load_file(
        repo: &RepoName,
        storage: &dyn Storage,
        root: &WalRoot,
        file: WalFileName,
    ) -> Result<Self> {
        Self::load_prefix(repo, storage, root, &root.file_prefix(file)).await
    }
    /// All history files.
    pub async fn load_histories(repo: &RepoName, storage: &dyn Storage, root: &WalRoot) -> Result<Self> {
        Self::load_prefix(repo, storage, root, &root.history_prefix()).await
    }
    async fn load_prefix(
        repo: &RepoName,
        storage: &dyn Storage,
        root: &WalRoot,
        prefix: &str,
    ) -> Result<Self> {
        let mut listing = Self::default();
        for info in storage.list(prefix, None).await? {
            listing.add(repo, root, info);
        }
        Ok(listing)
    }

    /// Takes one object of a listing; ignores what the format does not name.
    pub fn add(&mut self, repo: &RepoName, root: &WalRoot, info: ObjectInfo) {
        let Some(key) = root.parse(&info.key) else { return };
        let copy = StoredCopy {
            repo: repo.clone(),
            key: info.key,
            bytes: info.bytes,
            modified: info.modified,
            healed: key.healed.is_some(),
        };
        match key.name {
            WalObjectName::Damaged { segment, digest } => self.add_mark(segment, digest),
            WalObjectName::DamagedSignature { .. } => {}
            WalObjectName::Head { segment, from, to, digest } => {
                self.add_head(segment, HeadObject { from, to, digest, copies: vec![copy] });
            }
            name => {
                if let Some(file) = name.file() {
                    self.add_object(file, name.digest(), vec![copy]);
                }
            }
        }
    }

    fn add_mark(&mut self, segment: SegmentName, digest: ShortDigest) {
        self.marks.entry(segment).or_default().insert(digest);
        for object in self.files.get_mut(&WalFileName::Segment(segment)).into_iter().flatten() {
            object.damaged |= object.digest == digest;
        }
    }

    fn add_object(&mut self, file: WalFileName, digest: ShortDigest, copies: Vec<StoredCopy>) {
        let damaged = match file {
            WalFileName::Segment(s) => self.marks.get(&s).is_some_and(|m| m.contains(&digest)),
            _ => false,
        };
        let objects = self.files.entry(file).or_default();
        match objects.iter_mut().find(|o| o.digest == digest) {
            Some(object) => {
                object.copies.extend(copies);
                object.copies.sort_by_key(|c| !c.healed);
            }
            None => objects.push(WalObject { digest, damaged, copies }),
        }
    }

    fn add_head(&mut self, segment: SegmentName, head: HeadObject) {
        let heads = self.heads.entry(segment).or_default();
        let same = |h: &&mut HeadObject| (h.from, h.to, h.digest) == (head.from, head.to, head.digest);
        match heads.iter_mut().find(same) {
            Some(known) => {
                known.copies.extend(head.copies);
                known.copies.sort_by_key(|c| !c.healed);
            }
            None => heads.push(head),
        }
    }

    /// Adds another repository's listing, or another directory's.
    pub fn merge(&mut self, other: Self) {
        for (segment, digests) in other.marks {
            for digest in digests {
                self.add_mark(segment, digest);
            }
        }
        for (file, objects) in other.files {
            for object in objects {
                self.add_object(file, object.digest, object.copies);
            }
        }
        for (segment, heads) in other.heads {
            for head in heads {
                self.add_head(segment, head);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.heads.is_empty()
    }
    /// Every content of this file, damaged ones too.
    pub fn objects(&self, file: WalFileName) -> &[WalObject] {
        self.files.get(&file).map_or(&[], Vec::as_slice)
    }
    pub fn object(&self, file: WalFileName, digest: ShortDigest) -> Option<&WalObject> {
        self.objects(file).iter().find(|o| o.digest == digest)
    }
    /// The contents of this file that nobody marked damaged.
    pub fn sound(&self, file: WalFileName) -> impl Iterator<Item = &WalObject> {
        self.objects(file).iter().filter(|o| !o.damaged)
    }
    /// True when a whole segment of this name is there that nobody marked damaged.
    pub fn has_segment(&self, segment: SegmentName) -> bool {
        self.sound(WalFileName::Segment(segment)).next().is_some()
    }
    /// The damage marks of a segment.
    pub fn damage_marks(&self, segment: SegmentName) -> impl Iterator<Item = ShortDigest> {
        self.marks.get(&segment).into_iter().flatten().copied()
    }
    /// The segments that have damage marks.
    pub fn marked(&self) -> impl Iterator<Item = SegmentName> {
        self.marks.keys().copied()
    }
    /// In no particular order.
    pub fn heads(&self, segment: SegmentName) -> &[HeadObject] {
        self.heads.get(&segment).map_or(&[], Vec::as_slice)
    }
    /// Every file, in order of name; segments come first.
    pub fn files(&self) -> impl Iterator<Item = (WalFileName, &[WalObject])> {
        self.files.iter().map(|(name, objects)| (*name, objects.as_slice()))
    }
    /// The segments of one timeline in order, damaged ones too.
    pub fn segments(&self, timeline: TimelineId) -> impl Iterator<Item = (SegmentName, &[WalObject])> {
        let bound = |log, seg| WalFileName::Segment(SegmentName { timeline, log, seg });
        self.files.range(bound(0, 0)..=bound(u32::MAX, u32::MAX)).filter_map(|(name, objects)| match name {
            WalFileName::Segment(s) => Some((*s, objects.as_slice())),
            _ => None,
        })
    }
    /// The segments of one timeline that have heads, in order.
    pub fn headed(&self, timeline: TimelineId) -> impl Iterator<Item = SegmentName> {
        let bound = |log, seg| SegmentName { timeline, log, seg };
        self.heads.range(bound(0, 0)..=bound(u32::MAX, u32::MAX)).map(|(s, _)| *s)
    }
    /// All segments that have heads.
    pub fn all_headed(&self) -> impl Iterator<Item = SegmentName> {
        self.heads.keys().copied()
    }
    /// Forgets a content that turned out not to be what its name says.
    pub fn remove_object(&mut self, file: WalFileName, digest: ShortDigest) {
        if let Some(objects) = self.files.get_mut(&file) {
            objects.retain(|object| object.digest != digest);
            if objects.is_empty() {
                self.files.remove(&file);
            }
        }
    }
    /// Forgets a head that turned out to be another server's.
    pub fn remove_head(&mut self, segment: SegmentName, head: HeadRange) {
        if let Some(heads) = self.heads.get_mut(&segment) {
            heads.retain(|known| HeadRange::from(known) != head);
        }
    }
    /// The timelines that have a history file, with its contents.
    pub fn histories(&self) -> impl Iterator<Item = (TimelineId, &[WalObject])> {
        self.files.iter().filter_map(|(name, objects)| match name {
            WalFileName::History(t) => Some((*t, objects.as_slice())),
            _ => None,
        })
    }
    /// Every timeline that anything here speaks of.
    pub fn timelines(&self) -> BTreeSet<TimelineId> {
        let heads = self.heads.keys().map(|s| s.timeline);
        self.files.keys().map(|f| f.timeline()).chain(heads).collect()
    }
    pub fn highest_timeline(&self) -> Option<TimelineId> {
        self.timelines().last().copied()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::{ClusterName, SystemId};
    use crate::repository::keys::wal::Sealing;

    pub(crate) fn root() -> WalRoot {
        WalRoot::new(&ClusterName::parse("main").unwrap(), SystemId(42))
    }
    fn repo(name: &str) -> RepoName {
        RepoName::parse(name).unwrap()
    }
    /// A listing as a repository with these objects would give it.
    pub(crate) fn listing(names: &[WalObjectName]) -> WalListing {
        let mut listing = WalListing::default();
        for name in names {
            listing.add(&repo("a"), &root(), info(*name));
        }
        listing
    }
    fn info(name: WalObjectName) -> ObjectInfo {
        ObjectInfo { key: root().key(name, Sealing::Encrypted), bytes: 9, modified: None }
    }
    fn segment(text: &str) -> SegmentName {
        SegmentName::parse(text).unwrap()
    }

    #[test]
    fn a_mark_counts_whether_it_is_listed_before_or_after_its_segment() {
        let segment = segment("000000010000000000000007");
        let (bad, good) = (ShortDigest([1; 16]), ShortDigest([2; 16]));
        let file = WalFileName::Segment(segment);
        let mut names = vec![
            WalObjectName::Segment { segment, digest: bad },
            WalObjectName::Damaged { segment, digest: bad },
        ];
        for _ in 0..2 {
            names.reverse();
            let mut l = listing(&names);
            assert!(l.object(file, bad).unwrap().damaged);
            assert!(!l.has_segment(segment));
            l.merge(listing(&[WalObjectName::Segment { segment, digest: good }]));
            assert_eq!(l.sound(file).map(|o| o.digest).collect::<Vec<_>>(), [good]);
        }
    }

    #[test]
    fn repositories_merge_into_copies_of_one_content() {
        let name = WalObjectName::Segment {
            segment: segment("000000010000000000000007"),
            digest: ShortDigest([1; 16]),
        };
        let mut a = listing(&[name]);
        let mut b = WalListing::default();
        b.add(&repo("b"), &root(), info(name));
        let mut healed = info(name);
        healed.key.push_str(".healed-00000001");
        b.add(&repo("b"), &root(), healed);
        a.merge(b);
        let copies = &a.objects(name.file().unwrap())[0].copies;
        let places: Vec<_> = copies.iter().map(|c| (c.repo.as_str(), c.healed)).collect();
        assert_eq!(places, [("b", true), ("a", false), ("b", false)]);
    }

    #[test]
    fn the_highest_timeline_is_found_wherever_it_is_named() {
        let digest = ShortDigest([0; 16]);
        let l = listing(&[
            WalObjectName::Segment { segment: segment("000000020000000000000007"), digest },
            WalObjectName::History { timeline: TimelineId(12), digest },
            WalObjectName::Head { segment: segment("0000000B0000000000000007"), from: 0, to: 8, digest },
        ]);
        assert_eq!(l.highest_timeline(), Some(TimelineId(12)));
        assert_eq!(l.timelines().len(), 3);
        assert_eq!(l.segments(TimelineId(2)).count(), 1);
        assert_eq!(l.segments(TimelineId(11)).count(), 0);
        assert_eq!(l.headed(TimelineId(11)).count(), 1);
    }
}
