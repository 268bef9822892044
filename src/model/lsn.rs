//! Positions and identities inside PostgreSQL's write-ahead log.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Code, Error};

/// A byte position in the WAL. Printed and stored as PostgreSQL's `X/X`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    pub const ZERO: Lsn = Lsn(0);
    pub const MAX: Lsn = Lsn(u64::MAX);
    pub const fn plus(self, bytes: u64) -> Lsn {
        Lsn(self.0.saturating_add(bytes))
    }
    /// Bytes from `earlier` to `self`, 0 when it is not earlier.
    pub const fn since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong =
            || Error::new(Code::Usage, format!("`{text}` is not an LSN")).hint("an LSN looks like 0/3000060");
        let (high, low) = text.split_once('/').ok_or_else(wrong)?;
        let part = |s: &str| {
            let hex = !s.is_empty() && s.len() <= 8 && s.bytes().all(|b| b.is_ascii_hexdigit());
            if hex { u64::from_str_radix(s, 16).ok() } else { None }
        };
        match (part(high), part(low)) {
            (Some(high), Some(low)) => Ok(Lsn(high << 32 | low)),
            _ => Err(wrong()),
        }
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A timeline id: 1 after initdb, hexadecimal in file names, decimal in settings and JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimelineId(pub u32);

impl TimelineId {
    pub const FIRST: TimelineId = TimelineId(1);
    /// The eight hex digits that file names carry.
    pub fn hex(self) -> String {
        format!("{:08X}", self.0)
    }
    pub fn from_hex(text: &str) -> Option<Self> {
        let hex = text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
        if hex { u32::from_str_radix(text, 16).ok().filter(|id| *id > 0).map(Self) } else { None }
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// PostgreSQL's system identifier; decimal, a string in JSON (it does not fit a double).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemId(pub u64);

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
impl FromStr for SystemId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        text.parse()
            .map(SystemId)
            .map_err(|_| Error::new(Code::Usage, format!("`{text}` is not a system identifier")))
    }
}
impl Serialize for SystemId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for SystemId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A 32-bit transaction id as WAL records and `recovery_target_xid` carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Xid(pub u32);

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_lsn_reads_back_as_it_was_printed(raw: u64) {
            prop_assert_eq!(Lsn(raw).to_string().parse::<Lsn>().unwrap(), Lsn(raw));
        }
    }

    #[test]
    fn what_is_no_lsn_is_refused() {
        for text in ["", "/", "0", "0/", "/0", "0/G", "0/123456789", "+1/0", " 0/0", "0/0 "] {
            assert!(text.parse::<Lsn>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn timeline_ids_are_hexadecimal_in_names() {
        assert_eq!(TimelineId(26).hex(), "0000001A");
        assert_eq!(TimelineId::from_hex("0000001A"), Some(TimelineId(26)));
        assert_eq!(TimelineId::from_hex("0000001a"), None);
        assert_eq!(TimelineId::from_hex("00000000"), None);
    }
}
