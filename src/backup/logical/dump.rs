//! One database by `pg_dump`: its archive, read as it passes, and its DDL as text beside it.

use super::opened::{self, Opened};
use super::run::{DatabasePart, Run, blocking};
use super::{globals, outgoing, program, selection};
use crate::error::Result;
use crate::model::TablePattern;
use crate::postgres::TableName;
use crate::postgres::archive_format::{Archive, Contents, Header, Toc, TocEntry};
use crate::postgres::dump_tool::DumpScope;
use crate::postgres::user_tables::{Database, Relation};
use crate::repository::keys::backup;
use crate::repository::logical_index::{IndexedDatabase, IndexedTable, TableKind};
use crate::util::failpoint;

/// None when the patterns choose nothing here.
pub(super) async fn database(
    run: &Run<'_>,
    database: &Database,
    patterns: &[TablePattern],
) -> Result<Option<DatabasePart>> {
    let doing = format!("dump database {}", database.name);
    let mut tries = run.tries(&doing);
    loop {
        match attempt(run, database, patterns, &doing).await {
            Err(error) => tries.again(error).await?,
            done => return done,
        }
    }
}

async fn attempt(
    run: &Run<'_>,
    database: &Database,
    patterns: &[TablePattern],
    doing: &str,
) -> Result<Option<DatabasePart>> {
    let (request, ready) = (run.request, &run.ready);
    let opened = Opened::open(run, database, |all| wanted(all, patterns)).await?;
    let chosen = if patterns.is_empty() { Vec::new() } else { wanted(&opened.relations, patterns)? };
    let matched = selection::matched(&chosen.iter().collect::<Vec<_>>(), patterns);
    let tables: Vec<TableName> = chosen.into_iter().map(|r| r.table).collect();
    if tables.is_empty() && !patterns.is_empty() {
        return Ok(None);
    }
    let scope = DumpScope {
        snapshot: &opened.snapshot.id,
        lock_timeout: request.config.dump.lock_timeout,
        tables: &tables,
    };
    request.progress.phase(&format!("schema of {}", database.name));
    // First: later it might wait behind a migration that waits behind the long dump.
    let (schema, mut warnings) = globals::text(run, ready.tool.schema(&opened.info, &scope), doing).await?;

    request.progress.phase(&format!("dumping {}", database.name));
    let suffix = run.destination.protection.suffix();
    let key = backup::dump(&database.name, suffix);
    let out = outgoing::open(&run.destination, &key, false)?;
    let archive = ready.tool.archive(&opened.info, &scope);
    let (progress, cancel) = (request.progress.clone(), &request.cancel);
    let passed = program::pass(archive, doing, out, progress, cancel, |tee| {
        let mut archive = Archive::open(tee)?;
        let contents = archive.contents()?;
        Ok(Read { header: archive.header, toc: archive.toc, contents })
    })
    .await?;
    failpoint::reach("dump-before-seal")?;
    for warning in passed.warnings {
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    let out = passed.out;
    let stored = blocking(cancel, move || outgoing::finish(out)).await?;
    let schema_key = backup::schema(&database.name, suffix);
    let bytes_raw = stored.plain_bytes + schema.plain_bytes;
    let mut objects = stored.objects;
    objects.extend(globals::store(run, schema, schema_key.clone()).await?);
    let indexed = IndexedDatabase {
        name: database.name.clone(),
        facts: opened::facts(database),
        snapshot_lsn: opened.snapshot.lsn,
        snapshot_at: opened.snapshot.at,
        dump: Some(key),
        schema: schema_key,
        archive_version: Some(passed.read.header.version_text()),
        only_tables: patterns.iter().map(ToString::to_string).collect(),
        large_objects: passed.read.contents.large_objects,
        tables: passed.read.tables(&opened.relations),
    };
    Ok(Some(DatabasePart { indexed, objects, bytes_raw, warnings, notes: Vec::new(), matched }))
}

/// What is read: everything, or the chosen tables with their partitions.
fn wanted(all: &[Relation], patterns: &[TablePattern]) -> Result<Vec<Relation>> {
    if patterns.is_empty() {
        return Ok(all.to_vec());
    }
    let chosen = selection::tables(all, patterns)?;
    Ok(selection::with_partitions(all, &chosen).into_iter().cloned().collect())
}

/// What the archive said of itself as it passed.
struct Read {
    header: Header,
    toc: Toc,
    contents: Contents,
}

impl Read {
    /// The tables with data, by name. In the catalog they have their names in whatever encoding; in the archive in that
    /// of the database.
    fn tables(&self, relations: &[Relation]) -> Vec<IndexedTable> {
        let mut tables: Vec<IndexedTable> = self
            .toc
            .table_data()
            .filter_map(|entry| {
                let block = self.contents.tables.get(&entry.dump_id)?;
                let table = name(entry, relations);
                Some(IndexedTable {
                    schema: table.schema,
                    name: table.name,
                    kind: TableKind::Table,
                    rows: block.rows,
                    bytes: block.bytes,
                    dump_id: Some(entry.dump_id),
                    csv: None,
                    sequences: Vec::new(),
                })
            })
            .collect();
        tables.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
        tables
    }
}

fn name(entry: &TocEntry, relations: &[Relation]) -> TableName {
    let known = relations.iter().find(|r| r.oid == entry.oid).map(|r| r.table.clone());
    known.unwrap_or_else(|| TableName {
        schema: entry.schema.clone().unwrap_or_default(),
        name: entry.tag.clone(),
    })
}
