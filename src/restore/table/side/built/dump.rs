//! Definitions and rows from the archive of a dump.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::not_in;
use crate::codec::Identities;
use crate::error::{Error, Result};
use crate::model::{PgMajor, TableName};
use crate::postgres::archive_format::{Head, Toc, TocEntry};
use crate::postgres::conninfo::ConnInfo;
use crate::postgres::restore_tool::{LeaveOut, RestoreTool};
use crate::repository::Repository;
use crate::repository::logical_index::IndexedTable;
use crate::restore::database::globals::Needs;
use crate::restore::database::lists;
use crate::restore::database::load::Load;
use crate::restore::logical::StoredStream;
use crate::restore::logical::choose::ChosenBackup;
use crate::restore::table::Job;

/// An archive, opened as far as its head.
pub struct Dump {
    tool: RestoreTool,
    stream: StoredStream,
    head: Arc<Head>,
    wanted: HashSet<u32>,
    bytes: u64,
}

/// The archive, and the asked tables with their parts as the index has them.
pub async fn open(
    job: &Job<'_>,
    repository: &Repository,
    chosen: &ChosenBackup,
    major: PgMajor,
    bin_directory: Option<&Path>,
    identities: Option<&Identities>,
) -> Result<(Dump, Vec<IndexedTable>)> {
    let tool = RestoreTool::find(major, bin_directory, None).await?;
    let record = &chosen.held.record;
    let relative = chosen.database.dump.as_deref().unwrap_or_default();
    let stream = StoredStream::new(repository, &job.cluster.name, record, relative, identities)?;
    stream.check_length().await?;
    let from = stream.clone();
    let head = tokio::task::spawn_blocking(move || Head::read(from.open()?).map_err(|e| e.at(from.place())));
    let head = head.await.map_err(|e| Error::internal("a reader died").because(e))??;
    let mut members = HashSet::new();
    for table in &job.request.tables {
        let found = definition(&head.toc, table).ok_or_else(|| not_in(chosen, table))?;
        members.insert(found.dump_id);
    }
    let wanted = with_parts(&head.toc, members);
    let data: HashSet<u32> = data_of(&head.toc, &wanted).collect();
    let of_index = chosen.database.tables.iter();
    let tables: Vec<IndexedTable> =
        of_index.filter(|t| t.dump_id.is_some_and(|id| data.contains(&id))).cloned().collect();
    let bytes = tables.iter().map(|t| t.bytes).sum();
    Ok((Dump { tool, stream, head: Arc::new(head), wanted: data, bytes }, tables))
}

fn definition<'t>(toc: &'t Toc, table: &TableName) -> Option<&'t TocEntry> {
    let is = |e: &&TocEntry| e.description == "TABLE" && e.tag == table.name;
    toc.entries.iter().filter(is).find(|e| e.schema.as_deref() == Some(table.schema.as_str()))
}

/// With the children and partitions: those depend on what they are a part of.
fn with_parts(toc: &Toc, mut members: HashSet<u32>) -> HashSet<u32> {
    loop {
        let before = members.len();
        for entry in &toc.entries {
            let of_member = entry.dependencies.iter().any(|id| members.contains(id));
            match entry.description.as_str() {
                "TABLE" if of_member => _ = members.insert(entry.dump_id),
                // Of the whole and of the part.
                "TABLE ATTACH" if of_member => {
                    let part = |id: &&u32| toc.entry(**id).is_some_and(|e| e.tag == entry.tag);
                    members.extend(entry.dependencies.iter().find(part));
                }
                _ => {}
            }
        }
        if members.len() == before {
            return members;
        }
    }
}

fn data_of<'t>(toc: &'t Toc, tables: &'t HashSet<u32>) -> impl Iterator<Item = u32> + 't {
    let of_these = |e: &&TocEntry| e.dependencies.iter().any(|id| tables.contains(id));
    toc.table_data().filter(of_these).map(|e| e.dump_id)
}

impl Dump {
    /// Whom its objects belong to, and to whom they are granted.
    pub fn roles(&self) -> BTreeSet<String> {
        Needs::of(&self.head.toc, false, true).roles
    }

    /// What the programs warned of.
    pub async fn load(&self, job: &Job<'_>, into: &ConnInfo, asleep: &ConnInfo) -> Result<Vec<String>> {
        let load = |info: &ConnInfo| Load {
            tool: &self.tool,
            info: info.clone(),
            stream: &self.stream,
            head: &self.head,
            leave_out: LeaveOut { owners: false, tablespaces: true },
            data_bytes: self.bytes,
            progress: job.progress.clone(),
        };
        let (definitions, rows) = (load(into), load(asleep));
        let steps = Steps::of(&self.head.toc, &self.wanted);
        let mut warnings = definitions.one(&steps.before, "make the definitions").await?;
        warnings.extend(definitions.one(&steps.after, "make indexes and keys").await?);
        warnings.extend(rows.one(&steps.rows, "load the rows").await?);
        warnings.extend(definitions.one(&steps.last, "make triggers and grants").await?);
        Ok(warnings)
    }
}

/// Dump ids, in the archive's order.
struct Steps {
    before: Vec<u32>,
    after: Vec<u32>,
    rows: Vec<u32>,
    last: Vec<u32>,
}

impl Steps {
    fn of(toc: &Toc, wanted: &HashSet<u32>) -> Self {
        let lists = lists::lists(toc, |_| 0, 1);
        let is =
            |id: u32, names: &[&str]| toc.entry(id).is_some_and(|e| names.contains(&e.description.as_str()));
        // What would do something by itself.
        let never = [
            "SUBSCRIPTION",
            "PUBLICATION",
            "PUBLICATION TABLE",
            "PUBLICATION TABLES IN SCHEMA",
            "EVENT TRIGGER",
        ];
        let of_never = |id: u32| {
            let entry = toc.entry(id);
            let about = |e: &TocEntry| never.iter().any(|name| e.tag.starts_with(&format!("{name} ")));
            is(id, &never) || is(id, &["MATERIALIZED VIEW DATA"]) || entry.is_some_and(about)
        };
        let after: Vec<u32> =
            lists.indexes.concat().into_iter().chain(lists.after).filter(|id| !of_never(*id)).collect();
        let triggers = |id: u32| {
            let is_comment = toc.entry(id).is_some_and(|e| e.tag.starts_with("TRIGGER "));
            is(id, &["TRIGGER"]) || is_comment
        };
        let rows = lists.data.concat().into_iter();
        let (fires, after): (Vec<u32>, Vec<u32>) = after.into_iter().partition(|id| triggers(*id));
        Self {
            before: lists.before,
            after,
            rows: rows.filter(|id| wanted.contains(id) || is(*id, &["SEQUENCE SET"])).collect(),
            last: fires.into_iter().chain(lists.last.into_iter().filter(|id| !of_never(*id))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::archive_format::Section;

    fn entry(dump_id: u32, description: &str, tag: &str, dependencies: &[u32]) -> TocEntry {
        TocEntry {
            dump_id,
            has_data: description == "TABLE DATA",
            catalog_oid: 0,
            oid: dump_id,
            tag: tag.to_owned(),
            description: description.to_owned(),
            section: match description {
                "TABLE DATA" | "SEQUENCE SET" => Section::Data,
                "TABLE" | "TABLE ATTACH" => Section::PreData,
                _ => Section::PostData,
            },
            schema: Some("app".to_owned()),
            tablespace: None,
            owner: String::new(),
            definition: None,
            dependencies: dependencies.to_vec(),
        }
    }

    #[test]
    fn a_table_comes_with_its_partitions_and_children_and_triggers_come_after_the_rows() {
        let toc = Toc {
            entries: vec![
                entry(1, "TABLE", "log", &[]),
                entry(2, "TABLE", "log_1", &[]),
                entry(3, "TABLE ATTACH", "log_1", &[1, 2]),
                entry(4, "TABLE", "child", &[2]),
                entry(5, "TABLE", "other", &[]),
                entry(20, "TABLE DATA", "log_1", &[2]),
                entry(21, "TABLE DATA", "child", &[4]),
                entry(22, "TABLE DATA", "other", &[5]),
                entry(23, "SEQUENCE SET", "s", &[]),
                entry(30, "INDEX", "i", &[2]),
                entry(31, "TRIGGER", "log t", &[1]),
                entry(32, "SUBSCRIPTION", "s", &[]),
            ],
        };
        let log = definition(&toc, &TableName::new("app", "log")).unwrap();
        assert!(definition(&toc, &TableName::new("public", "log")).is_none());
        let members = with_parts(&toc, HashSet::from([log.dump_id]));
        assert_eq!(members, HashSet::from([1, 2, 4]));
        let wanted: HashSet<u32> = data_of(&toc, &members).collect();
        let steps = Steps::of(&toc, &wanted);
        assert_eq!(steps.before, [1, 2, 3, 4, 5]);
        assert_eq!((steps.after, steps.rows, steps.last), (vec![30], vec![20, 21, 23], vec![31]));
    }
}
