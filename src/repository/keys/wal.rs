//! Keys of WAL objects (FORMAT.md, "Keys"): what a segment, a head, a history file is called below
//! `<cluster>/wal/<system-id>/`, and back. Parsing is strict, and a name that is not understood is nobody's: readers
//! pass over it.

use std::fmt;

use crate::model::{ClusterName, SegmentName, ShortDigest, SystemId, TimelineId, WalFileName};

/// What a key under `wal/` stands for. The digest is of the plain file (of the plain range, for a head).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalObjectName {
    Segment {
        segment: SegmentName,
        digest: ShortDigest,
    },
    /// Written before a segment whose records fail their CRC.
    Damaged {
        segment: SegmentName,
        digest: ShortDigest,
    },
    /// The signature of that mark.
    DamagedSignature {
        segment: SegmentName,
        digest: ShortDigest,
    },
    /// The bytes `[from, to)` of a segment that was still being written.
    Head {
        segment: SegmentName,
        from: u32,
        to: u32,
        digest: ShortDigest,
    },
    Partial {
        segment: SegmentName,
        digest: ShortDigest,
    },
    BackupHistory {
        segment: SegmentName,
        offset: u32,
        digest: ShortDigest,
    },
    History {
        timeline: TimelineId,
        digest: ShortDigest,
    },
}

impl WalObjectName {
    /// The object that holds one whole file of PostgreSQL's.
    pub fn of_file(name: WalFileName, digest: ShortDigest) -> Self {
        match name {
            WalFileName::Segment(segment) => Self::Segment { segment, digest },
            WalFileName::Partial(segment) => Self::Partial { segment, digest },
            WalFileName::BackupHistory(segment, offset) => Self::BackupHistory { segment, offset, digest },
            WalFileName::History(timeline) => Self::History { timeline, digest },
        }
    }
    /// The file of PostgreSQL's that it holds; none for marks and heads.
    pub fn file(self) -> Option<WalFileName> {
        match self {
            Self::Segment { segment, .. } => Some(WalFileName::Segment(segment)),
            Self::Partial { segment, .. } => Some(WalFileName::Partial(segment)),
            Self::BackupHistory { segment, offset, .. } => Some(WalFileName::BackupHistory(segment, offset)),
            Self::History { timeline, .. } => Some(WalFileName::History(timeline)),
            Self::Damaged { .. } | Self::DamagedSignature { .. } | Self::Head { .. } => None,
        }
    }
    pub fn digest(self) -> ShortDigest {
        match self {
            Self::Segment { digest, .. }
            | Self::Damaged { digest, .. }
            | Self::DamagedSignature { digest, .. }
            | Self::Head { digest, .. }
            | Self::Partial { digest, .. }
            | Self::BackupHistory { digest, .. }
            | Self::History { digest, .. } => digest,
        }
    }
    /// True for what is sealed (compressed, and encrypted if the repository is); marks are plain JSON.
    fn is_sealed(self) -> bool {
        !matches!(self, Self::Damaged { .. } | Self::DamagedSignature { .. })
    }
    /// The last component, without the suffix that says what was done to it.
    fn stem(self) -> String {
        match self {
            Self::Segment { segment, digest } => format!("{segment}-{digest}"),
            Self::Damaged { segment, digest } => format!("{segment}-{digest}.damaged.json"),
            Self::DamagedSignature { segment, digest } => format!("{segment}-{digest}.damaged.json.minisig"),
            Self::Head { segment, from, to, digest } => {
                format!("{segment}.head-{from:08x}-{to:08x}-{digest}")
            }
            Self::Partial { .. } | Self::BackupHistory { .. } | Self::History { .. } => {
                let file = self.file().map(|f| f.to_string()).unwrap_or_default();
                format!("{file}-{}", self.digest())
            }
        }
    }
}

/// In which form an object's bytes lie there; the suffix of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sealing {
    /// `.zst.age`
    Encrypted,
    /// `.zst`, only with `encryption = "none"`.
    Compressed,
}

impl Sealing {
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Encrypted => ".zst.age",
            Self::Compressed => ".zst",
        }
    }
}

/// A key that was understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalKey {
    pub name: WalObjectName,
    /// None for marks, which are plain.
    pub sealing: Option<Sealing>,
    /// A replacement of a damaged object: the first 8 hex digits of its stored bytes' SHA-256.
    pub healed: Option<u32>,
}

/// `<cluster>/wal/`
pub fn all(cluster: &ClusterName) -> String {
    format!("{cluster}/wal/")
}

/// Where the WAL of one system identifier lies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WalRoot {
    prefix: String,
    pub system: SystemId,
}

impl WalRoot {
    pub fn new(cluster: &ClusterName, system: SystemId) -> Self {
        Self { prefix: format!("{cluster}/wal/{system}/"), system }
    }
    /// Everything of this system identifier.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
    /// All history files.
    pub fn history_prefix(&self) -> String {
        format!("{}history/", self.prefix)
    }
    /// One timeline's directory.
    pub fn timeline_prefix(&self, timeline: TimelineId) -> String {
        format!("{}{}/", self.prefix, timeline.hex())
    }
    /// The directory that holds `segment`.
    pub fn log_prefix(&self, segment: SegmentName) -> String {
        format!("{}{}/", self.timeline_prefix(segment.timeline), segment.log_hex())
    }
    /// Every object that belongs to this file: of a segment also its marks, heads, partial and backup files.
    pub fn file_prefix(&self, file: WalFileName) -> String {
        match file {
            WalFileName::History(t) => format!("{}{}.history-", self.history_prefix(), t.hex()),
            WalFileName::Segment(s) | WalFileName::Partial(s) | WalFileName::BackupHistory(s, _) => {
                format!("{}{s}", self.log_prefix(s))
            }
        }
    }
    /// The key of a new object. `sealing` is ignored for marks.
    pub fn key(&self, name: WalObjectName, sealing: Sealing) -> String {
        let directory = match name {
            WalObjectName::History { .. } => self.history_prefix(),
            WalObjectName::Segment { segment, .. }
            | WalObjectName::Damaged { segment, .. }
            | WalObjectName::DamagedSignature { segment, .. }
            | WalObjectName::Head { segment, .. }
            | WalObjectName::Partial { segment, .. }
            | WalObjectName::BackupHistory { segment, .. } => self.log_prefix(segment),
        };
        let suffix = if name.is_sealed() { sealing.suffix() } else { "" };
        format!("{directory}{}{suffix}", name.stem())
    }
    /// What `key` stands for; None for everything that this format does not name, or that lies in a directory other
    /// than its own.
    pub fn parse(&self, key: &str) -> Option<WalKey> {
        let (directory, file) = key.strip_prefix(&self.prefix)?.rsplit_once('/')?;
        let parsed = parse_file(file)?;
        let home = match parsed.name {
            WalObjectName::History { .. } => directory == "history",
            other => other.segment().is_some_and(|s| {
                directory.split_once('/') == Some((s.timeline.hex().as_str(), s.log_hex().as_str()))
            }),
        };
        home.then_some(parsed)
    }
}

impl fmt::Display for WalRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix)
    }
}

impl WalObjectName {
    /// The segment that it belongs to; None for a history file.
    pub fn segment(self) -> Option<SegmentName> {
        match self {
            Self::Segment { segment, .. }
            | Self::Damaged { segment, .. }
            | Self::DamagedSignature { segment, .. }
            | Self::Head { segment, .. }
            | Self::Partial { segment, .. }
            | Self::BackupHistory { segment, .. } => Some(segment),
            Self::History { .. } => None,
        }
    }
}

fn parse_file(file: &str) -> Option<WalKey> {
    if let Some(stem) = file.strip_suffix(".damaged.json") {
        let (segment, digest) = segment_and_digest(stem)?;
        return Some(mark(WalObjectName::Damaged { segment, digest }));
    }
    if let Some(stem) = file.strip_suffix(".damaged.json.minisig") {
        let (segment, digest) = segment_and_digest(stem)?;
        return Some(mark(WalObjectName::DamagedSignature { segment, digest }));
    }
    let (file, healed) = match file.rsplit_once(".healed-") {
        Some((rest, digits)) => (rest, Some(lower_hex(digits)?)),
        None => (file, None),
    };
    let (stem, sealing) = if let Some(stem) = file.strip_suffix(Sealing::Encrypted.suffix()) {
        (stem, Sealing::Encrypted)
    } else {
        (file.strip_suffix(Sealing::Compressed.suffix())?, Sealing::Compressed)
    };
    Some(WalKey { name: parse_stem(stem)?, sealing: Some(sealing), healed })
}

fn mark(name: WalObjectName) -> WalKey {
    WalKey { name, sealing: None, healed: None }
}

fn parse_stem(stem: &str) -> Option<WalObjectName> {
    if let Some((segment, range)) = stem.split_once(".head-") {
        let mut parts = range.split('-');
        let (from, to) = (lower_hex(parts.next()?)?, lower_hex(parts.next()?)?);
        let digest = ShortDigest::parse(parts.next()?)?;
        let segment = SegmentName::parse(segment)?;
        return (parts.next().is_none() && from < to).then_some(WalObjectName::Head {
            segment,
            from,
            to,
            digest,
        });
    }
    let (file, digest) = stem.split_once('-')?;
    Some(WalObjectName::of_file(WalFileName::parse(file)?, ShortDigest::parse(digest)?))
}

fn segment_and_digest(stem: &str) -> Option<(SegmentName, ShortDigest)> {
    let (segment, digest) = stem.split_once('-')?;
    Some((SegmentName::parse(segment)?, ShortDigest::parse(digest)?))
}

/// Exactly eight lower-case hex digits.
fn lower_hex(digits: &str) -> Option<u32> {
    let hex = digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if hex { u32::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn root() -> WalRoot {
        WalRoot::new(&ClusterName::parse("main").unwrap(), SystemId(7_311_245_123_098))
    }
    fn segment() -> SegmentName {
        SegmentName::parse("0000000A0000000100000007").unwrap()
    }
    fn digest() -> ShortDigest {
        ShortDigest([0xab; 16])
    }

    #[test]
    fn keys_are_spelt_as_the_format_says() {
        let (segment, digest) = (segment(), digest());
        let d = "ab".repeat(16);
        let seg = "main/wal/7311245123098/0000000A/00000001/0000000A0000000100000007";
        for (name, text) in [
            (WalObjectName::Segment { segment, digest }, format!("{seg}-{d}.zst.age")),
            (WalObjectName::Damaged { segment, digest }, format!("{seg}-{d}.damaged.json")),
            (WalObjectName::DamagedSignature { segment, digest }, format!("{seg}-{d}.damaged.json.minisig")),
            (
                WalObjectName::Head { segment, from: 0, to: 0x00ab_cdef, digest },
                format!("{seg}.head-00000000-00abcdef-{d}.zst.age"),
            ),
            (WalObjectName::Partial { segment, digest }, format!("{seg}.partial-{d}.zst.age")),
            (
                WalObjectName::BackupHistory { segment, offset: 0x28, digest },
                format!("{seg}.00000028.backup-{d}.zst.age"),
            ),
            (
                WalObjectName::History { timeline: TimelineId(10), digest },
                format!("main/wal/7311245123098/history/0000000A.history-{d}.zst.age"),
            ),
        ] {
            assert_eq!(root().key(name, Sealing::Encrypted), text);
            assert_eq!(root().parse(&text).map(|k| (k.name, k.healed)), Some((name, None)));
        }
    }

    #[test]
    fn a_replacement_and_an_unencrypted_object_stand_for_the_same_file() {
        let name = WalObjectName::Segment { segment: segment(), digest: digest() };
        let key = root().key(name, Sealing::Compressed);
        assert_eq!(root().parse(&key).unwrap().sealing, Some(Sealing::Compressed));
        let healed = root().parse(&format!("{key}.healed-0123abcd")).unwrap();
        assert_eq!((healed.name, healed.healed), (name, Some(0x0123_abcd)));
    }

    #[test]
    fn what_the_format_does_not_name_is_nobodys() {
        let good =
            root().key(WalObjectName::Segment { segment: segment(), digest: digest() }, Sealing::Encrypted);
        let d = "ab".repeat(16);
        let dir = "main/wal/7311245123098/0000000A/00000001";
        for key in [
            String::new(),
            good.replace("/00000001/", "/00000002/"),
            good.replace("/0000000A/", "/0000000B/"),
            good.replace("main/", "mail/"),
            good.replace(".zst.age", ""),
            good.replace(".zst.age", ".zst.age.tmp"),
            good.replace(".zst.age", ".zst.age.healed-0123ABCD"),
            good.replace("abab", "ABAB"),
            format!("{dir}/0000000A0000000100000007.head-00000008-00000008-{d}.zst"),
            format!("{dir}/0000000A0000000100000007.head-8-00000009-{d}.zst"),
            format!("{dir}/0000000A0000000100000007.bogus-{d}.zst"),
            format!("{dir}/0000000A.history-{d}.zst"),
            format!("main/wal/7311245123098/index/0000000A0000000100000007-{d}.zst"),
            format!("{dir}/x/0000000A0000000100000007-{d}.zst"),
        ] {
            assert_eq!(root().parse(&key), None, "{key}");
        }
        assert!(root().parse(&good).is_some());
    }

    proptest! {
        #[test]
        fn no_key_makes_the_parser_panic(tail: String) {
            let _ = root().parse(&tail);
            let _ = root().parse(&format!("{}{tail}", root().prefix()));
        }
    }
}
