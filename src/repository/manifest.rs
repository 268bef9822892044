//! PostgreSQL's `backup_manifest`, versions 1 and 2 (`src/backend/backup/backup_manifest.c` writes it,
//! `src/common/parse_manifest.c` reads it, chapter "Backup Manifest Format" of the manual describes it).
//!
//! The last line carries the SHA-256 of all bytes before it, which readers check first.

use std::io::{self, Write};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::index::{MemberName, from_hex, to_hex};
use crate::error::{Code, Error, Result};
use crate::model::{Digest, Lsn, PgMajor, SystemId, TimelineId, Timestamp};

/// A file of the backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFile {
    pub name: MemberName,
    pub size: u64,
    pub modified: Timestamp,
    pub sha256: Digest,
}

/// WAL that makes the backup consistent, on one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalRange {
    pub timeline: TimelineId,
    pub start: Lsn,
    pub end: Lsn,
}

/// A whole manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Present from version 2, that is PostgreSQL 17.
    pub system_identifier: Option<SystemId>,
    pub files: Vec<ManifestFile>,
    pub wal_ranges: Vec<WalRange>,
}

struct Digesting<W: Write> {
    inner: W,
    sha256: Sha256,
}
impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.sha256.update(&bytes[..n]);
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Manifest {
    /// The system identifier that this major's manifest carries.
    pub fn system_identifier_for(major: PgMajor, id: SystemId) -> Option<SystemId> {
        (major.0 >= 17).then_some(id)
    }

    /// Writes it as PostgreSQL does, byte for byte in form.
    pub fn write(&self, out: impl Write) -> io::Result<()> {
        let mut out = Digesting { inner: out, sha256: Sha256::new() };
        let version = if self.system_identifier.is_some() { 2 } else { 1 };
        writeln!(out, "{{ \"PostgreSQL-Backup-Manifest-Version\": {version},")?;
        if let Some(id) = self.system_identifier {
            writeln!(out, "\"System-Identifier\": {id},")?;
        }
        write!(out, "\"Files\": [")?;
        for (number, file) in self.files.iter().enumerate() {
            write!(out, "{}\n{{ ", if number == 0 { "" } else { "," })?;
            match std::str::from_utf8(file.name.as_bytes()) {
                Ok(text) => write!(out, "\"Path\": {}, ", serde_json::to_string(text)?)?,
                Err(_) => write!(out, "\"Encoded-Path\": \"{}\", ", to_hex(file.name.as_bytes()))?,
            }
            write!(
                out,
                "\"Size\": {}, \"Last-Modified\": \"{}\", \"Checksum-Algorithm\": \"SHA256\", \
                 \"Checksum\": \"{}\" }}",
                file.size,
                file.modified.0.format("%Y-%m-%d %H:%M:%S GMT"),
                file.sha256
            )?;
        }
        write!(out, "\n],\n\"WAL-Ranges\": [")?;
        for (number, range) in self.wal_ranges.iter().enumerate() {
            write!(
                out,
                "{}\n{{ \"Timeline\": {}, \"Start-LSN\": \"{}\", \"End-LSN\": \"{}\" }}",
                if number == 0 { "" } else { "," },
                range.timeline,
                range.start,
                range.end
            )?;
        }
        write!(out, "\n],\n")?;
        let digest = Digest(out.sha256.clone().finalize().into());
        writeln!(out.inner, "\"Manifest-Checksum\": \"{digest}\"}}")
    }

    /// Reads a manifest whose checksum fits; `place` is for messages.
    pub fn parse(bytes: &[u8], place: &str) -> Result<Self> {
        let wrong = |what: &str| Error::new(Code::Damaged, what).at(place);
        let body = bytes.strip_suffix(b"\n").ok_or_else(|| wrong("the manifest is cut off"))?;
        let last_line = body.iter().rposition(|b| *b == b'\n').map(|at| at + 1);
        let covered = &bytes[..last_line.ok_or_else(|| wrong("the manifest is cut off"))?];
        let parsed: Parsed =
            serde_json::from_slice(bytes).map_err(|e| wrong("the manifest cannot be read").because(e))?;
        if Digest::of(covered) != parsed.checksum {
            return Err(wrong("the manifest's checksum does not fit"));
        }
        match (parsed.version, parsed.system_identifier) {
            (1, None) | (2, Some(_)) => {}
            _ => return Err(wrong("a manifest of an unknown version")),
        }
        let files =
            parsed.files.into_iter().map(|f| f.check().ok_or_else(|| wrong("a file's entry is wrong")));
        Ok(Self {
            system_identifier: parsed.system_identifier.map(SystemId),
            files: files.collect::<Result<_>>()?,
            wal_ranges: parsed
                .wal_ranges
                .into_iter()
                .map(|r| WalRange { timeline: r.timeline, start: r.start, end: r.end })
                .collect(),
        })
    }
}

#[derive(Deserialize)]
struct Parsed {
    #[serde(rename = "PostgreSQL-Backup-Manifest-Version")]
    version: u32,
    #[serde(rename = "System-Identifier")]
    system_identifier: Option<u64>,
    #[serde(rename = "Files")]
    files: Vec<ParsedFile>,
    #[serde(rename = "WAL-Ranges")]
    wal_ranges: Vec<ParsedRange>,
    #[serde(rename = "Manifest-Checksum")]
    checksum: Digest,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ParsedFile {
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    size: u64,
    #[serde(rename = "Last-Modified")]
    last_modified: String,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: String,
    checksum: Digest,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ParsedRange {
    timeline: TimelineId,
    #[serde(rename = "Start-LSN")]
    start: Lsn,
    #[serde(rename = "End-LSN")]
    end: Lsn,
}

impl ParsedFile {
    fn check(self) -> Option<ManifestFile> {
        let name = match (self.path, self.encoded_path) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(hex)) => from_hex(&hex)?,
            _ => return None,
        };
        let modified =
            chrono::NaiveDateTime::parse_from_str(&self.last_modified, "%Y-%m-%d %H:%M:%S GMT").ok()?;
        let entry = ManifestFile {
            name: MemberName::new(name),
            size: self.size,
            modified: Timestamp(modified.and_utc()),
            sha256: self.checksum,
        };
        (self.algorithm == "SHA256").then_some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(system_identifier: Option<SystemId>) -> Manifest {
        let file = |name: &[u8]| ManifestFile {
            name: MemberName::new(name),
            size: 3,
            modified: "2026-11-21T02:03:04Z".parse().unwrap(),
            sha256: Digest([7; 32]),
        };
        Manifest {
            system_identifier,
            files: vec![file(b"PG_VERSION"), file(b"q\"uote\\\n\xc3\xa4"), file(b"bad\xff")],
            wal_ranges: vec![WalRange { timeline: TimelineId(2), start: Lsn(0x28), end: Lsn(1 << 32) }],
        }
    }

    #[test]
    fn a_manifest_reads_back_in_both_versions() {
        for id in [None, Some(SystemId(u64::MAX))] {
            let mut bytes = Vec::new();
            manifest(id).write(&mut bytes).unwrap();
            assert_eq!(Manifest::parse(&bytes, "m").unwrap(), manifest(id));
        }
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_noticed() {
        let mut bytes = Vec::new();
        manifest(Some(SystemId(7))).write(&mut bytes).unwrap();
        for length in 0..bytes.len() {
            assert!(Manifest::parse(&bytes[..length], "m").is_err(), "{length}");
        }
        let last_line = bytes.len() - 88;
        for at in 0..last_line {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Manifest::parse(&changed, "m").is_err(), "{at}");
        }
    }
}
