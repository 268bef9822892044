//! Dumps, schemas and exports: what the index says of them is there, and each stream opens to its end.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

use super::finding::{Checked, Kind};
use super::reading::{Trouble, drain};
use crate::codec::from_io;
use crate::model::{BackupKind, Digest};
use crate::repository::logical_index::LogicalIndex;
use crate::repository::record::BackupRecord;

/// What the index promises.
#[derive(Debug, Default)]
pub(super) struct LogicalFacts {
    /// Digests of the plain CSV files, by key.
    csv: BTreeMap<String, Digest>,
}

impl LogicalFacts {
    /// Reads the index, and holds it against the record.
    pub(super) fn read(mut opened: impl Read, record: &BackupRecord, place: &str) -> Checked<Self> {
        let index = LogicalIndex::read(&mut opened, place)?;
        drain(&mut opened)?;
        if index.kind != record.kind {
            return Err(Trouble::wrong(
                Kind::Inconsistent,
                format!("it is the index of a {} backup", index.kind),
            ));
        }
        let mut facts = Self::default();
        let mut named: Vec<(&str, &str)> = Vec::new();
        named.extend(index.globals.iter().map(|globals| (globals.object.as_str(), "the globals")));
        for database in &index.databases {
            let dump = database.dump.as_deref();
            named.extend(dump.map(|key| (key, database.name.as_str())));
            named.push((&database.schema, &database.name));
            for table in &database.tables {
                if let Some(csv) = &table.csv {
                    named.push((&csv.object, &table.name));
                    facts.csv.insert(csv.object.clone(), csv.sha256);
                }
            }
        }
        match named.iter().find(|(key, _)| record.object(key).is_none()) {
            Some((key, of)) => Err(Trouble::wrong(
                Kind::Inconsistent,
                format!("the index names {key} (of {of}), and the record does not have it"),
            )),
            None => Ok(facts),
        }
    }

    /// Reads a stream to its end.
    pub(super) fn check(&self, key: &str, mut opened: impl Read) -> Checked<()> {
        let Some(expected) = self.csv.get(key) else {
            drain(&mut opened)?;
            return Ok(());
        };
        let mut digesting = Digesting(Sha256::new());
        io::copy(&mut opened, &mut digesting).map_err(|e| from_io("the object cannot be opened", "", e))?;
        if Digest(digesting.0.finalize().into()) == *expected {
            return Ok(());
        }
        Err(Trouble::wrong(Kind::Inconsistent, "the file is not the one that the index describes"))
    }
}

/// Whether backups of this kind have an index.
pub(super) fn has_index(kind: BackupKind) -> bool {
    kind != BackupKind::Schema
}

struct Digesting(Sha256);

impl Write for Digesting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
