//! Names that the user chose, and PostgreSQL's major version.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);
        impl $name {
            /// 1–63 characters of `[a-z0-9_-]`, beginning with a letter or digit: safe as a path component, a
            /// key and a label.
            pub fn parse(text: &str) -> Option<Self> {
                let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
                let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
                (first && text.len() <= 63 && text.bytes().all(good)).then(|| Self(text.to_owned()))
            }
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.pad(&self.0) }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> { s.serialize_str(&self.0) }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!(
                    "`{text}` is not a valid name: 1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit")))
            }
        }
    };
}
name_type!(
    /// `[cluster.NAME]`, and the first component of its keys.
    ClusterName
);
name_type!(
    /// `[[repository]] name = "…"`.
    RepoName
);
name_type!(
    /// `[[job]] name = "…"`.
    JobName
);

/// PostgreSQL's major version: 14 to 18.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PgMajor(pub u32);

impl PgMajor {
    pub const SUPPORTED: std::ops::RangeInclusive<u32> = 14..=18;
    pub fn is_supported(self) -> bool {
        Self::SUPPORTED.contains(&self.0)
    }
    /// From `server_version_num` (180006 → 18).
    pub fn from_version_num(number: u32) -> Self {
        Self(number / 10_000)
    }
}
impl fmt::Display for PgMajor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_safe_in_a_path() {
        assert!(ClusterName::parse("main-2_a").is_some());
        for text in ["", ".", "..", "a/b", "-a", "_a", "Main", "ä", &"a".repeat(64)] {
            assert!(ClusterName::parse(text).is_none(), "{text:?}");
        }
    }
}
