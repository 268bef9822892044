//! The small plain documents that make a root a repository: `pgkeep.json`, `cluster.json`, `systems/<id>.json`.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::model::{ClusterName, PgMajor, SegmentSize, SystemId, Timestamp};

/// The format that this pgkeep writes and the newest that it reads.
pub const FORMAT: u32 = 1;

/// `pgkeep.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryDocument {
    pub format: u32,
    /// Random; tells two repositories apart whatever their URLs say.
    pub id: String,
    pub created: Timestamp,
}

/// `<cluster>/cluster.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterDocument {
    pub name: ClusterName,
}

/// `<cluster>/systems/<system-id>.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemDocument {
    pub system_identifier: SystemId,
    pub pg_major: PgMajor,
    pub wal_segment_bytes: SegmentSize,
}

/// The bytes of a document: indented JSON with a final newline, for people.
pub fn to_bytes(document: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(document)
        .map_err(|e| Error::internal("a document that is no JSON").because(e))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads a document that carries `format`; a newer format is refused before anything else is looked at.
pub fn parse_versioned<T: for<'de> Deserialize<'de>>(bytes: &[u8], place: &str) -> Result<T> {
    #[derive(Deserialize)]
    struct Versioned {
        format: u32,
    }
    let Versioned { format } = parse(bytes, place)?;
    if format > FORMAT {
        return Err(Error::new(
            Code::FormatTooNew,
            format!("written in format {format}, and this pgkeep reads up to {FORMAT}"),
        )
        .at(place)
        .hint("use the newer pgkeep that wrote it"));
    }
    parse(bytes, place)
}

/// Reads a document; unknown fields are passed over.
pub fn parse<T: for<'de> Deserialize<'de>>(bytes: &[u8], place: &str) -> Result<T> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json)
        .map_err(|e| Error::new(Code::Damaged, "the document cannot be read").at(place).because(e))?;
    json.end()
        .map_err(|e| Error::new(Code::Damaged, "the document has more after its end").at(place).because(e))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_refused_even_if_the_rest_cannot_be_read() {
        let error = parse_versioned::<RepositoryDocument>(br#"{"format":2,"id":7}"#, "x").unwrap_err();
        assert_eq!(error.code(), Code::FormatTooNew);
    }

    #[test]
    fn unknown_fields_are_passed_over_and_garbage_is_damage() {
        let bytes = br#"{"format":1,"id":"a","created":"2026-11-21T02:00:00Z","later":true}"#;
        assert_eq!(parse_versioned::<RepositoryDocument>(bytes, "x").unwrap().id, "a");
        for bytes in
            [&b""[..], b"{", b"{}", b"{\"format\":1,\"id\":\"a\",\"created\":\"2026-11-21T02:00:00Z\"}x"]
        {
            let error = parse_versioned::<RepositoryDocument>(bytes, "x").unwrap_err();
            assert_eq!(error.code(), Code::Damaged);
        }
    }
}
