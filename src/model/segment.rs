//! Names of the files in `pg_wal` (PostgreSQL's `xlog_internal.h`).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::lsn::{Lsn, TimelineId};

/// `wal_segment_size`: a power of two from 1 MiB to 1 GiB, set at initdb.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct SegmentSize(u32);

impl SegmentSize {
    pub const DEFAULT: SegmentSize = SegmentSize(16 << 20);
    pub const fn new(bytes: u32) -> Option<Self> {
        let allowed = bytes.is_power_of_two() && bytes >= 1 << 20 && bytes <= 1 << 30;
        if allowed { Some(Self(bytes)) } else { None }
    }
    pub const fn bytes(self) -> u64 {
        self.0 as u64
    }
    /// How many segments share one "log" (the middle eight digits): 4 GiB / size.
    pub const fn per_log(self) -> u64 {
        (1 << 32) / self.0 as u64
    }
    pub const fn number_of(self, lsn: Lsn) -> u64 {
        lsn.0 / self.0 as u64
    }
    /// The offset of `lsn` in its segment.
    pub const fn offset_of(self, lsn: Lsn) -> u64 {
        lsn.0 % self.0 as u64
    }
}
impl TryFrom<u32> for SegmentSize {
    type Error = String;
    fn try_from(bytes: u32) -> Result<Self, String> {
        Self::new(bytes).ok_or_else(|| format!("{bytes} is no WAL segment size"))
    }
}
impl From<SegmentSize> for u32 {
    fn from(size: SegmentSize) -> u32 {
        size.0
    }
}

/// A segment's name: 24 upper-case hex digits, timeline, log, segment. Which LSN it starts at depends on the
/// segment size, so that is an argument wherever it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    pub timeline: TimelineId,
    pub log: u32,
    pub seg: u32,
}

impl SegmentName {
    pub fn parse(text: &str) -> Option<Self> {
        let upper =
            text.len() == 24 && text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
        if !upper {
            return None;
        }
        let part = |from: usize| text.get(from..from + 8).and_then(|s| u32::from_str_radix(s, 16).ok());
        Some(Self { timeline: TimelineId::from_hex(text.get(..8)?)?, log: part(8)?, seg: part(16)? })
    }
    /// The segment of `timeline` that holds the byte at `lsn`.
    pub fn containing(timeline: TimelineId, lsn: Lsn, size: SegmentSize) -> Self {
        Self::numbered(timeline, size.number_of(lsn), size)
    }
    #[allow(clippy::cast_possible_truncation)] // the log part of any 64-bit LSN fits 32 bits
    pub fn numbered(timeline: TimelineId, number: u64, size: SegmentSize) -> Self {
        Self { timeline, log: (number / size.per_log()) as u32, seg: (number % size.per_log()) as u32 }
    }
    /// The running number of the segment, counted from LSN 0.
    pub fn number(self, size: SegmentSize) -> u64 {
        u64::from(self.log) * size.per_log() + u64::from(self.seg)
    }
    /// False when the last eight digits are beyond what this segment size allows.
    pub fn fits(self, size: SegmentSize) -> bool {
        u64::from(self.seg) < size.per_log()
    }
    pub fn start(self, size: SegmentSize) -> Lsn {
        Lsn(self.number(size) * size.bytes())
    }
    /// The first byte after it.
    pub fn end(self, size: SegmentSize) -> Lsn {
        self.start(size).plus(size.bytes())
    }
    pub fn next(self, size: SegmentSize) -> Self {
        Self::numbered(self.timeline, self.number(size) + 1, size)
    }
    pub fn previous(self, size: SegmentSize) -> Option<Self> {
        self.number(size).checked_sub(1).map(|n| Self::numbered(self.timeline, n, size))
    }
    pub fn on(self, timeline: TimelineId) -> Self {
        Self { timeline, ..self }
    }
    /// The directory digits of the repository: the "log".
    pub fn log_hex(self) -> String {
        format!("{:08X}", self.log)
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.0, self.log, self.seg)
    }
}
impl Serialize for SegmentName {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for SegmentName {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no WAL segment name")))
    }
}

/// Everything that PostgreSQL hands to `archive_command` or asks of `restore_command`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalFileName {
    Segment(SegmentName),
    /// `<segment>.partial`: the last, incomplete segment of the old timeline at a promotion.
    Partial(SegmentName),
    /// `<segment>.<offset>.backup`: where a base backup began; `offset` is the start LSN's offset in the segment.
    BackupHistory(SegmentName, u32),
    /// `<TLI>.history`.
    History(TimelineId),
}

impl WalFileName {
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(segment) = SegmentName::parse(text) {
            return Some(Self::Segment(segment));
        }
        let (stem, suffix) = text.split_once('.')?;
        match suffix {
            "history" => TimelineId::from_hex(stem).map(Self::History),
            "partial" => SegmentName::parse(stem).map(Self::Partial),
            _ => {
                let offset = suffix.strip_suffix(".backup")?;
                let hex = offset.len() == 8
                    && offset.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
                let offset = hex.then(|| u32::from_str_radix(offset, 16).ok())??;
                SegmentName::parse(stem).map(|s| Self::BackupHistory(s, offset))
            }
        }
    }
    pub fn timeline(self) -> TimelineId {
        match self {
            Self::Segment(s) | Self::Partial(s) | Self::BackupHistory(s, _) => s.timeline,
            Self::History(t) => t,
        }
    }
    pub fn segment(self) -> Option<SegmentName> {
        match self {
            Self::Segment(s) | Self::Partial(s) | Self::BackupHistory(s, _) => Some(s),
            Self::History(_) => None,
        }
    }
}

impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(s) => write!(f, "{s}"),
            Self::Partial(s) => write!(f, "{s}.partial"),
            Self::BackupHistory(s, offset) => write!(f, "{s}.{offset:08X}.backup"),
            Self::History(t) => write!(f, "{}.history", t.hex()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sizes() -> impl Strategy<Value = SegmentSize> {
        (20u32..=30).prop_map(|n| SegmentSize::new(1 << n).unwrap())
    }

    proptest! {
        #[test]
        fn a_segment_holds_the_lsn_it_was_made_for(lsn: u64, tli in 1u32.., size in sizes()) {
            let name = SegmentName::containing(TimelineId(tli), Lsn(lsn), size);
            prop_assert!(name.fits(size));
            prop_assert!(name.start(size) <= Lsn(lsn));
            prop_assert!(lsn - name.start(size).0 < size.bytes());
            prop_assert_eq!(SegmentName::parse(&name.to_string()), Some(name));
        }

        #[test]
        fn names_of_every_kind_read_back(lsn: u64, tli in 1u32.., off: u32, size in sizes()) {
            let s = SegmentName::containing(TimelineId(tli), Lsn(lsn), size);
            for name in [WalFileName::Segment(s), WalFileName::Partial(s), WalFileName::BackupHistory(s, off),
                         WalFileName::History(TimelineId(tli))] {
                prop_assert_eq!(WalFileName::parse(&name.to_string()), Some(name));
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = WalFileName::parse(&text);
        }
    }

    #[test]
    fn the_log_part_wraps_at_four_gibibytes() {
        let mib = SegmentSize::new(1 << 20).unwrap();
        let last = SegmentName::parse("000000010000000000000FFF").unwrap();
        assert_eq!(last.next(mib).to_string(), "000000010000000100000000");
        let last = SegmentName::parse("0000000100000000000000FF").unwrap();
        assert_eq!(last.next(SegmentSize::DEFAULT).to_string(), "000000010000000100000000");
        let gib = SegmentSize::new(1 << 30).unwrap();
        let last = SegmentName::parse("000000010000000000000003").unwrap();
        assert_eq!(last.next(gib).to_string(), "000000010000000100000000");
    }

    #[test]
    fn what_is_no_wal_file_is_refused() {
        for text in [
            "",
            "x",
            "00000001000000000000000",
            "00000001000000000000000a",
            "000000010000000000000001.PARTIAL",
            "000000010000000000000001.28.backup",
            "1.history",
            "00000000.history",
            "é00000010000000000000001",
            "000000010000000000000001.partial.x",
        ] {
            assert_eq!(WalFileName::parse(text), None, "{text:?}");
        }
    }
}
