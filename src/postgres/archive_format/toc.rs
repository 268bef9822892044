//! The table of contents: an entry per object of the database, those with data among them.

use std::io::BufRead;

use super::{Fields, damaged};
use crate::error::Result;

/// Entries in the order of the archive, which is the order of a restore.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Toc {
    pub entries: Vec<TocEntry>,
}

/// One object. Names are bytes in the encoding of the database, lossily made text where that is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TocEntry {
    /// What `pg_restore -L` calls it by.
    pub dump_id: u32,
    /// It has a block of data.
    pub has_data: bool,
    pub catalog_oid: u32,
    /// Of TABLE DATA: the table's.
    pub oid: u32,
    /// `users`, `users users_pkey`, `BLOBS`
    pub tag: String,
    /// `TABLE`, `TABLE DATA`, `INDEX`, `FK CONSTRAINT`, `BLOBS`, `ACL` …
    pub description: String,
    pub section: Section,
    pub schema: Option<String>,
    /// None for the database's own.
    pub tablespace: Option<String>,
    pub owner: String,
    /// The SQL, of those entries alone that name roles or the database itself: a restore must know these names.
    pub definition: Option<String>,
    /// Dump ids.
    pub dependencies: Vec<u32>,
}

/// When a restore does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    None,
    PreData,
    Data,
    PostData,
}

impl TocEntry {
    pub fn is_table_data(&self) -> bool {
        self.description == "TABLE DATA"
    }
    /// It is the database's own: its settings, grants, comment or label. `pg_restore` makes these with `--create` only.
    pub fn is_of_database(&self) -> bool {
        match self.description.as_str() {
            "DATABASE" | "DATABASE PROPERTIES" => true,
            "ACL" | "COMMENT" | "SECURITY LABEL" => self.tag.starts_with("DATABASE "),
            _ => false,
        }
    }
}

impl Toc {
    pub fn entry(&self, dump_id: u32) -> Option<&TocEntry> {
        self.entries.iter().find(|e| e.dump_id == dump_id)
    }
    pub fn table_data(&self) -> impl Iterator<Item = &TocEntry> {
        self.entries.iter().filter(|e| e.is_table_data())
    }
}

pub(super) fn read<R: BufRead>(fields: &mut Fields<R>, version: (u8, u8)) -> Result<Toc> {
    let count = fields.positive("the number of entries")?;
    // A lie about the count must not become memory.
    let mut entries = Vec::with_capacity(count.min(10_000) as usize);
    for _ in 0..count {
        entries.push(entry(fields, version)?);
    }
    Ok(Toc { entries })
}

fn entry<R: BufRead>(fields: &mut Fields<R>, version: (u8, u8)) -> Result<TocEntry> {
    let dump_id = fields.positive("a dump id")?;
    let has_data = fields.int()? != 0;
    let (catalog_oid, oid) = (number(&fields.text()?)?, number(&fields.text()?)?);
    let (tag, description) = (fields.text()?, fields.text()?);
    let section = match fields.int()? {
        2 => Section::PreData,
        3 => Section::Data,
        4 => Section::PostData,
        _ => Section::None,
    };
    let definition = if is_definition_kept(&description, &tag) {
        Some(fields.text()?)
    } else {
        fields.skip_string()?;
        None
    };
    // Drop statement, COPY statement.
    fields.skip_string()?;
    fields.skip_string()?;
    let schema = Some(fields.text()?).filter(|s| !s.is_empty());
    let tablespace = Some(fields.text()?).filter(|s| !s.is_empty());
    // Table access method.
    fields.skip_string()?;
    if version >= (1, 16) {
        // The kind of relation.
        fields.int()?;
    }
    let owner = fields.text()?;
    // `WITH OIDS`, of old.
    fields.skip_string()?;
    let mut dependencies = Vec::new();
    while let Some(id) = fields.string()? {
        dependencies.push(number(&String::from_utf8_lossy(&id))?);
    }
    // Where the data lies: a state, and an offset that a pipe does not know.
    fields.byte()?;
    for _ in 0..fields.offset_bytes {
        fields.byte()?;
    }
    Ok(TocEntry {
        dump_id,
        has_data,
        catalog_oid,
        oid,
        tag,
        description,
        section,
        schema,
        tablespace,
        owner,
        definition,
        dependencies,
    })
}

fn is_definition_kept(description: &str, tag: &str) -> bool {
    match description {
        "DATABASE PROPERTIES" | "ACL" | "DEFAULT ACL" | "POLICY" => true,
        "COMMENT" | "SECURITY LABEL" => tag.starts_with("DATABASE "),
        _ => false,
    }
}

/// Ids are written in decimal digits.
fn number(text: &str) -> Result<u32> {
    text.parse().map_err(|_| damaged(format!("`{text}` is no id")))
}
