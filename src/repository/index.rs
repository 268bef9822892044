//! `index.json`: where each member of a base backup lies, and what its files are called in SQL.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::documents::FORMAT;
use super::pack::PackedMember;
use super::record::PageErrors;
use crate::error::{Code, Error, Result};

/// A file's name in JSON: a string, or `{"hex": "…"}` where the bytes are not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberName(Vec<u8>);

impl MemberName {
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
    /// For messages.
    pub fn lossy(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum NameForm {
    Text(String),
    Hex { hex: String },
}

/// Lower-case hex.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

/// Hex of either case.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pair = |p: &[u8]| u8::from_str_radix(std::str::from_utf8(p).ok()?, 16).ok();
    let hex = digits.len().is_multiple_of(2) && digits.iter().all(u8::is_ascii_hexdigit);
    if hex { digits.chunks(2).map(pair).collect() } else { None }
}

impl Serialize for MemberName {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => s.serialize_str(text),
            Err(_) => NameForm::Hex { hex: to_hex(&self.0) }.serialize(s),
        }
    }
}
impl<'de> Deserialize<'de> for MemberName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match NameForm::deserialize(d)? {
            NameForm::Text(text) => Ok(Self(text.into_bytes())),
            NameForm::Hex { hex } => {
                from_hex(&hex).map(Self).ok_or_else(|| serde::de::Error::custom("a name that is no hex"))
            }
        }
    }
}

/// `[name, pack, offset, length, size]`: `pack` counts from 0 in `packs`; the others as in [`PackedMember`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedMember {
    pub name: MemberName,
    pub pack: u32,
    pub offset: u64,
    pub length: u64,
    pub size: u64,
}

impl IndexedMember {
    pub fn new(pack: u32, member: PackedMember) -> Self {
        let PackedMember { name, offset, length, size } = member;
        Self { name: MemberName(name), pack, offset, length, size }
    }
}
impl Serialize for IndexedMember {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        (&self.name, self.pack, self.offset, self.length, self.size).serialize(s)
    }
}
impl<'de> Deserialize<'de> for IndexedMember {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let (name, pack, offset, length, size) = Deserialize::deserialize(d)?;
        Ok(Self { name, pack, offset, length, size })
    }
}

/// `index.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupIndex {
    pub format: u32,
    /// Keys relative to the backup's directory.
    pub packs: Vec<String>,
    pub members: Vec<IndexedMember>,
    /// `base/5/16384` → `app.public.users`; empty where the names could not be asked for.
    #[serde(default)]
    pub relations: BTreeMap<String, String>,
    /// PostgreSQL's settings at the time of the backup that a restore may need.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    #[serde(default)]
    pub page_errors: Vec<PageErrors>,
}

impl BackupIndex {
    pub fn new(packs: Vec<String>, members: Vec<IndexedMember>) -> Self {
        let (relations, settings) = (BTreeMap::new(), BTreeMap::new());
        Self { format: FORMAT, packs, members, relations, settings, page_errors: Vec::new() }
    }

    /// Reads an index and checks that every member is in a pack that exists; `place` is for messages.
    pub fn read(source: impl Read, place: &str) -> Result<Self> {
        let index: Self = serde_json::from_reader(BufReader::new(source))
            .map_err(|e| Error::new(Code::Damaged, "the index cannot be read").at(place).because(e))?;
        if index.format > FORMAT {
            return Err(Error::new(Code::FormatTooNew, "the index was written by a newer pgkeep").at(place));
        }
        if index.members.iter().any(|m| m.pack as usize >= index.packs.len()) {
            return Err(Error::new(Code::Damaged, "the index names a pack that is not there").at(place));
        }
        Ok(index)
    }

    pub fn member(&self, name: &[u8]) -> Option<&IndexedMember> {
        self.members.iter().find(|m| m.name.as_bytes() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> BackupIndex {
        let member =
            |name: &[u8], offset| PackedMember { name: name.to_vec(), offset, length: 99, size: 8192 };
        let mut index = BackupIndex::new(
            vec!["data/00001.tar.zst.age".into()],
            vec![
                IndexedMember::new(0, member(b"base/5/16384", 0)),
                IndexedMember::new(0, member(b"odd\xff\"name", 99)),
            ],
        );
        index.relations.insert("base/5/16384".into(), "app.public.users".into());
        index
    }

    #[test]
    fn an_index_keeps_its_form() {
        let text = serde_json::to_string(&index()).unwrap();
        let golden = r#"{"format":1,"packs":["data/00001.tar.zst.age"],"members":[["base/5/16384",0,0,99,8192],[{"hex":"6f6464ff226e616d65"},0,99,99,8192]],"relations":{"base/5/16384":"app.public.users"},"settings":{},"page_errors":[]}"#;
        assert_eq!(text, golden);
        assert_eq!(BackupIndex::read(golden.as_bytes(), "x").unwrap(), index());
    }

    #[test]
    fn an_index_that_points_outside_its_packs_is_refused() {
        let text = serde_json::to_string(&index()).unwrap().replace(",0,99,99,", ",1,99,99,");
        assert_eq!(BackupIndex::read(text.as_bytes(), "x").unwrap_err().code(), Code::Damaged);
        let text = serde_json::to_string(&index()).unwrap().replace("\"format\":1", "\"format\":2");
        assert_eq!(BackupIndex::read(text.as_bytes(), "x").unwrap_err().code(), Code::FormatTooNew);
    }
}
