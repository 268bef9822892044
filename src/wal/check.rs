//! Is this file the segment that its name says, and are its records sound? What `wal push` asks before it ships.
//!
//! A file that *is* something else is a mismatch, an error: shipping it would put foreign bytes under a good name. A file
//! that is the right one with wrong bytes in it is damaged, a verdict: it is shipped and marked, because refusing it for
//! ever would stop PostgreSQL's archiving. Where the first page is unreadable, the second one decides which it is.
//!
//! What has no verdict: a record that began in the segment before, and one that goes on in the next. What is legal and
//! looks odd: pages of the parent timeline before a switch point, a voided record, anything at all after a switch.

use super::page::{PAGE_BYTES, PageHeader, Pages};
use super::reader::{EndReason, Flow, WalReader};
use crate::error::{Code, Error, Result};
use crate::model::{Lsn, PgMajor, SegmentName, SegmentSize, SystemId, TimelineId};

/// How sound a segment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SegmentVerdict {
    /// Every record that could be judged is right, up to the segment's end or a switch.
    Sound {
        ended: Ended,
        /// Start of the last complete record, if one ends here.
        last_record: Option<Lsn>,
        /// End of it.
        last_record_end: Lsn,
    },
    /// Records end before the segment does, with zeros or a recycled file's bytes after them. PostgreSQL archives such
    /// under a full name only where a standby (`archive_mode = always`) left a timeline; recovery cannot pass it.
    EndsEarly { lsn: Lsn, reason: EndReason },
    /// Bytes that PostgreSQL cannot have written so.
    Damaged { lsn: Lsn, reason: String },
}

/// How a sound segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// At its last byte; `open` is the record that goes on in the next segment.
    Full { open: Option<Lsn> },
    /// At a switch record.
    Switch,
}

impl SegmentVerdict {
    /// False: recovery cannot go through this segment, and `window` shows a hole.
    pub fn is_sound(&self) -> bool {
        matches!(self, Self::Sound { .. })
    }
    /// What to write into the mark: where and why it is not sound.
    pub fn finding(&self) -> Option<(Lsn, String)> {
        match self {
            Self::Sound { .. } => None,
            Self::EndsEarly { lsn, reason } => Some((*lsn, format!("the records end early: {reason}"))),
            Self::Damaged { lsn, reason } => Some((*lsn, reason.clone())),
        }
    }
}

/// Checks one segment, fed in pieces of any size; holds no more than a page and one record that crosses pages.
#[derive(Debug)]
pub struct SegmentChecker {
    name: SegmentName,
    size: SegmentSize,
    system: SystemId,
    fed: u64,
    pages: Pages,
    inner: Inner,
}

#[derive(Debug)]
struct Inner {
    name: SegmentName,
    reader: WalReader,
    address: Lsn,
    major: Option<PgMajor>,
    /// What the first page is not, until the second one has spoken.
    suspicion: Option<String>,
    mismatch: Option<String>,
    damage: Option<(Lsn, String)>,
}

impl SegmentChecker {
    pub fn new(name: SegmentName, size: SegmentSize, system: SystemId) -> Self {
        let start = name.start(size);
        let inner = Inner {
            name,
            reader: WalReader::new(start, size, Some(system)),
            address: start,
            major: None,
            suspicion: None,
            mismatch: None,
            damage: None,
        };
        Self { name, size, system, fed: 0, pages: Pages::default(), inner }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.fed += bytes.len() as u64;
        let (size, system, inner) = (self.size, self.system, &mut self.inner);
        self.pages.split(bytes, &mut |page| inner.page(page, size, system));
    }

    /// `Code::WalMismatch` when the file is not what its name says.
    pub fn finish(self) -> Result<SegmentVerdict> {
        let Self { name, size, fed, inner, .. } = self;
        let refuse = |what: String| {
            Error::new(Code::WalMismatch, format!("the file is not WAL segment {name}: {what}"))
                .hint("it was not written by this server under this name; find out where it came from")
        };
        if fed != size.bytes() {
            return Err(refuse(format!("it has {fed} bytes, a segment has {}", size.bytes())));
        }
        if let Some(what) = inner.mismatch.or(inner.suspicion) {
            return Err(refuse(what));
        }
        if let Some((lsn, reason)) = inner.damage {
            return Ok(SegmentVerdict::Damaged { lsn, reason });
        }
        let switched = inner.reader.is_after_switch();
        let end = inner.reader.finish(&mut |_| Flow::Continue);
        Ok(match end.reason {
            EndReason::OutOfBytes { open } => SegmentVerdict::Sound {
                ended: if switched { Ended::Switch } else { Ended::Full { open } },
                last_record: end.last_record,
                last_record_end: end.lsn,
            },
            EndReason::Damaged { at, fault } => {
                SegmentVerdict::Damaged { lsn: at, reason: fault.to_string() }
            }
            reason => SegmentVerdict::EndsEarly { lsn: end.lsn, reason },
        })
    }
}

impl Inner {
    fn page(&mut self, page: &[u8; PAGE_BYTES], size: SegmentSize, system: SystemId) {
        let address = self.address;
        self.address = address.plus(PAGE_BYTES as u64);
        if self.mismatch.is_some() || self.damage.is_some() {
            return;
        }
        let Some(header) = PageHeader::parse(page) else { return };
        let start = self.name.start(size);
        if address == start {
            match identity_fault(&header, self.name, size, system) {
                Some(IdentityFault::Foreign(what)) => self.mismatch = Some(what),
                Some(IdentityFault::Unclear(what)) => self.suspicion = Some(what),
                None => self.major = header.major(),
            }
        } else if let Some(what) = self.suspicion.take() {
            let belongs = header.major().is_some()
                && header.address == address
                && header.timeline <= self.name.timeline;
            if belongs {
                self.damage = Some((start, format!("the first page's header is wrong: {what}")));
            } else {
                self.mismatch = Some(what);
            }
            return;
        }
        if self.mismatch.is_some() || self.suspicion.is_some() {
            return;
        }
        match self.reader.ended() {
            None => {
                self.reader.page(page, &mut |_| Flow::Continue);
                if !self.reader.is_after_switch() && self.reader.timeline() > Some(self.name.timeline) {
                    self.damage = Some((address, Self::later_timeline(header.timeline)));
                }
            }
            // Zeros or old pages follow the end of WAL; anything else says that something is missing before it.
            Some(EndReason::Zeros | EndReason::Recycled { .. }) => self.after_end(page, &header, address),
            Some(_) => {}
        }
    }

    fn later_timeline(found: TimelineId) -> String {
        format!("the page is of timeline {found}, later than the file's")
    }

    fn after_end(&mut self, page: &[u8; PAGE_BYTES], header: &PageHeader, address: Lsn) {
        let ours = header.major().is_some() && header.major() == self.major;
        let old = ours && header.address < address;
        if !old && page.iter().any(|b| *b != 0) {
            let at = self.reader.reached();
            self.damage = Some((at, format!("the records end here, and WAL goes on at {address}")));
        }
    }
}

enum IdentityFault {
    /// Clearly another cluster's.
    Foreign(String),
    /// Another file, or this one with a wrong first page.
    Unclear(String),
}

/// Compares a first page with the name and the cluster.
fn identity_fault(
    header: &PageHeader,
    name: SegmentName,
    size: SegmentSize,
    system: SystemId,
) -> Option<IdentityFault> {
    use IdentityFault::{Foreign, Unclear};
    if header.major().is_none() {
        return Some(Unclear(format!(
            "its page magic is {:04X}, which PostgreSQL 14 to 18 do not write",
            header.magic
        )));
    }
    let Some(identity) = header.identity.filter(|_| !header.has_unknown_flags()) else {
        return Some(Unclear("its first page does not say what file it begins".to_owned()));
    };
    if identity.system != system {
        return Some(Foreign(format!("it is of system {}, this cluster is {system}", identity.system)));
    }
    if header.timeline > name.timeline || header.timeline.0 == 0 {
        return Some(Unclear(format!("it begins on timeline {}", header.timeline)));
    }
    if header.address != name.start(size) {
        return Some(Unclear(format!("it begins at {}, the name says {}", header.address, name.start(size))));
    }
    if u64::from(identity.segment_bytes) != size.bytes() {
        let found = identity.segment_bytes;
        return Some(Unclear(format!("it is of a segment size of {found} bytes, not {}", size.bytes())));
    }
    (identity.block_bytes as usize != PAGE_BYTES)
        .then(|| Unclear(format!("it has WAL blocks of {} bytes", identity.block_bytes)))
}

/// Checks a segment that is in memory.
pub fn check_segment(
    name: SegmentName,
    bytes: &[u8],
    size: SegmentSize,
    system: SystemId,
) -> Result<SegmentVerdict> {
    let mut checker = SegmentChecker::new(name, size, system);
    checker.feed(bytes);
    checker.finish()
}
