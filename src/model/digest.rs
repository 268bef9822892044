//! SHA-256 digests: whole (64 hex digits) for stored objects, the first half (32) in the names of WAL objects.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || !digits.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b)) {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}

/// A SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
    pub fn short(self) -> ShortDigest {
        let mut head = [0; 16];
        head.copy_from_slice(&self.0[..16]);
        ShortDigest(head)
    }
    pub fn parse(text: &str) -> Option<Self> {
        unhex(text).map(Self)
    }
}
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

/// The first 16 bytes of a SHA-256: 32 lower-case hex digits in a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortDigest(pub [u8; 16]);

impl ShortDigest {
    pub fn parse(text: &str) -> Option<Self> {
        unhex(text).map(Self)
    }
}
impl fmt::Display for ShortDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> { s.collect_str(self) }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                $name::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no digest")))
            }
        }
    )*};
}
as_text!(Digest, ShortDigest);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_read_back_and_nothing_else_does() {
        let d = Digest([0xa5; 32]);
        assert_eq!(Digest::parse(&d.to_string()), Some(d));
        assert_eq!(d.short().to_string(), "a5".repeat(16));
        assert_eq!(ShortDigest::parse(&"A5".repeat(16)), None);
        assert_eq!(ShortDigest::parse(&"a5".repeat(15)), None);
        assert_eq!(ShortDigest::parse(&"é".repeat(16)), None);
    }
}
