//! WAL objects, one by one: what a restore would read of each name is there and is what the name says.
//!
//! What no restore reads is not read here either: contents that their writer marked damaged, and heads of segments that
//! are there as a whole.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::finding::{Checked, Kind};
use super::keys::Keys;
use super::reading::{Stream, Trouble, Watch};
use crate::codec::{from_io, open_wal_object};
use crate::model::{Digest, SegmentName, ShortDigest, WalFileName};
use crate::postgres::history::History;
use crate::repository::Repository;
use crate::repository::continuity::{HeadRange, head_chain};
use crate::repository::documents::SystemDocument;
use crate::repository::keys::wal::WalRoot;
use crate::repository::wal_listing::{StoredCopy, WalListing};
use crate::wal::{PAGE_BYTES, PageHeader, SegmentChecker};

const PIECE: usize = 128 << 10;
/// No honest history file is larger.
const LARGEST_HISTORY: usize = 16 << 20;

/// The WAL of one system identifier in one repository.
#[derive(Debug, Clone)]
pub(super) struct WalHoldings {
    pub(super) root: WalRoot,
    pub(super) document: SystemDocument,
    pub(super) listing: WalListing,
}

/// What one object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Content {
    File(WalFileName, ShortDigest),
    Head { segment: SegmentName, from: u32, to: u32, digest: ShortDigest },
}

impl Content {
    pub(super) fn digest(self) -> ShortDigest {
        match self {
            Self::File(_, digest) | Self::Head { digest, .. } => digest,
        }
    }
    /// The segment that it is of; None for a history file.
    pub(super) fn segment(self) -> Option<SegmentName> {
        match self {
            Self::File(WalFileName::Segment(s) | WalFileName::Partial(s), _)
            | Self::Head { segment: s, .. } => Some(s),
            Self::File(..) => None,
        }
    }
    /// Its copies in a listing; none where nobody has it, or its writer marked it damaged.
    pub(super) fn copies(self, listing: &WalListing) -> Vec<StoredCopy> {
        match self {
            Self::File(file, digest) => {
                let sound = listing.object(file, digest).filter(|object| !object.damaged);
                sound.map(|object| object.copies.clone()).unwrap_or_default()
            }
            Self::Head { segment, from, to, digest } => {
                let range = HeadRange { from, to, digest };
                let head = listing.heads(segment).iter().find(|head| HeadRange::from(*head) == range);
                head.map(|head| head.copies.clone()).unwrap_or_default()
            }
        }
    }
    /// Takes it out of a listing: nothing may lean on it.
    pub(super) fn forget(self, listing: &mut WalListing) {
        match self {
            Self::File(file, digest) => listing.remove_object(file, digest),
            Self::Head { segment, from, to, digest } => {
                listing.remove_head(segment, HeadRange { from, to, digest });
            }
        }
    }
}

/// One content with its copies in this repository.
#[derive(Debug, Clone)]
pub(super) struct WalItem {
    pub(super) document: Arc<SystemDocument>,
    pub(super) content: Content,
    /// Replacements first.
    pub(super) copies: Vec<StoredCopy>,
}

impl WalItem {
    /// The object's own key, not that of a replacement.
    pub(super) fn key(&self) -> &str {
        let own = self.copies.iter().find(|copy| !copy.healed).or_else(|| self.copies.first());
        own.map_or("", |copy| &copy.key)
    }
    pub(super) fn bytes(&self) -> u64 {
        self.copies.first().map_or(0, |copy| copy.bytes)
    }

    /// Reads it: one good copy is enough.
    pub(super) fn check(
        &self,
        repository: &Repository,
        keys: &Keys,
        watch: &Watch,
        deep: bool,
    ) -> Checked<()> {
        let mut last = Err(Trouble::wrong(Kind::Missing, "the object is not there"));
        for copy in &self.copies {
            last = self.check_copy(repository, keys, watch, &copy.key, deep);
            if matches!(last, Ok(()) | Err(Trouble::Store(_))) {
                return last;
            }
        }
        last
    }

    fn check_copy(
        &self,
        repository: &Repository,
        keys: &Keys,
        watch: &Watch,
        key: &str,
        deep: bool,
    ) -> Checked<()> {
        let stream = Stream::open(repository, [key.to_owned()], watch);
        let read = self.read(stream.clone(), keys, key, deep);
        // Whatever could not be opened: had the store failed, nothing is wrong with the object.
        stream.finish()?;
        read
    }

    fn read(&self, stream: Stream, keys: &Keys, key: &str, deep: bool) -> Checked<()> {
        let (_, mut plain) = open_wal_object(stream, key, keys.data.as_deref())?;
        let mut look = Look::new(self, deep);
        let mut piece = vec![0; PIECE];
        loop {
            let n = plain.read(&mut piece).map_err(|e| from_io("the object cannot be opened", key, e))?;
            if n == 0 {
                return look.finish();
            }
            look.feed(&piece[..n]);
        }
    }
}

/// What passes of a file's plain bytes.
struct Look<'i> {
    item: &'i WalItem,
    sha256: Sha256,
    bytes: u64,
    /// The first page; all of it, for a history file.
    head: Vec<u8>,
    checker: Option<SegmentChecker>,
}

impl<'i> Look<'i> {
    fn new(item: &'i WalItem, deep: bool) -> Self {
        let document = &item.document;
        let checker = match item.content {
            Content::File(WalFileName::Segment(segment), _) if deep => {
                Some(SegmentChecker::new(segment, document.wal_segment_bytes, document.system_identifier))
            }
            _ => None,
        };
        Self { item, sha256: Sha256::new(), bytes: 0, head: Vec::new(), checker }
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
        let history = matches!(self.item.content, Content::File(WalFileName::History(_), _));
        let wanted = if history { LARGEST_HISTORY } else { PAGE_BYTES };
        let room = wanted.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..room]);
        if let Some(checker) = &mut self.checker {
            checker.feed(bytes);
        }
    }

    fn finish(self) -> Checked<()> {
        let digest = Digest(self.sha256.clone().finalize().into()).short();
        if digest != self.item.content.digest() {
            let what = match self.identity() {
                Some(other) => format!("its content is not what its name says: it is {other}"),
                None => "its content is not what its name says".to_owned(),
            };
            return Err(Trouble::wrong(Kind::Damaged, what));
        }
        let expected = match self.item.content {
            Content::File(WalFileName::Segment(_) | WalFileName::Partial(_), _) => {
                Some(self.item.document.wal_segment_bytes.bytes())
            }
            Content::Head { from, to, .. } => Some(u64::from(to - from)),
            Content::File(..) => None,
        };
        if expected.is_some_and(|expected| expected != self.bytes) {
            return Err(Trouble::wrong(Kind::Damaged, format!("it holds {} bytes of WAL", self.bytes)));
        }
        self.foreign()?;
        if let Content::File(WalFileName::History(timeline), _) = self.item.content {
            History::parse(timeline, &self.head)?;
        }
        let Some(checker) = self.checker else { return Ok(()) };
        match checker.finish()?.finding() {
            Some((lsn, reason)) => {
                Err(Trouble::wrong(Kind::Damaged, format!("its records are damaged at {lsn}: {reason}")))
            }
            None => Ok(()),
        }
    }

    /// The segment that the bytes begin, by their own words.
    fn identity(&self) -> Option<String> {
        let header = PageHeader::parse(&self.head)?;
        header.major()?;
        let system = header.identity?.system;
        if system != self.item.document.system_identifier {
            return Some(format!("WAL of system identifier {system}"));
        }
        let size = self.item.document.wal_segment_bytes;
        let segment = SegmentName::containing(header.timeline, header.address, size);
        (Some(segment) != self.item.content.segment()).then(|| format!("segment {segment}"))
    }

    /// Another cluster's WAL under a name that is its own: two clusters archive into one place.
    fn foreign(&self) -> Checked<()> {
        let from_start = match self.item.content {
            Content::File(WalFileName::Segment(_), _) => true,
            Content::Head { from, .. } => from == 0,
            Content::File(..) => false,
        };
        let ours = self.item.document.system_identifier;
        match PageHeader::parse(&self.head).filter(|h| h.major().is_some()).and_then(|h| h.identity) {
            Some(identity) if from_start && identity.system != ours => Err(Trouble::wrong(
                Kind::Foreign,
                format!("it is WAL of system identifier {}", identity.system),
            )),
            _ => Ok(()),
        }
    }
}

impl WalHoldings {
    /// What a restore may read, of these segments or of all.
    pub(super) fn items(&self, only: Option<&BTreeSet<SegmentName>>) -> Vec<WalItem> {
        let document = Arc::new(self.document.clone());
        let wanted = |segment: Option<SegmentName>| match (only, segment) {
            (None, _) => true,
            (Some(only), Some(segment)) => only.contains(&segment),
            (Some(_), None) => false,
        };
        let mut items = Vec::new();
        for (file, objects) in self.listing.files() {
            for object in objects.iter().filter(|object| !object.damaged) {
                let content = Content::File(file, object.digest);
                if wanted(content.segment()) {
                    let (document, copies) = (Arc::clone(&document), object.copies.clone());
                    items.push(WalItem { document, content, copies });
                }
            }
        }
        let headed = self.listing.all_headed().filter(|segment| !self.listing.has_segment(*segment));
        for segment in headed.filter(|segment| wanted(Some(*segment))) {
            for range in head_chain(self.listing.heads(segment)) {
                let HeadRange { from, to, digest } = range;
                let content = Content::Head { segment, from, to, digest };
                let copies = content.copies(&self.listing);
                items.push(WalItem { document: Arc::clone(&document), content, copies });
            }
        }
        items
    }
}
