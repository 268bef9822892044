//! The run as a whole: database after database, globals, index, publication.

use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::patience::Tries;
use super::preflight::{self, Ready};
use super::{LogicalReport, LogicalRequest, LogicalWork, dump, globals, schema, tables};
use crate::backup::copy::Destination;
use crate::backup::full::cancelled;
use crate::backup::publish::{self, RepositoryResult};
use crate::codec::{SealWriter, from_io};
use crate::error::{Code, Error, Result};
use crate::model::{BackupId, TableFilter, TablePattern, Timestamp};
use crate::repository::documents::FORMAT;
use crate::repository::keys::backup;
use crate::repository::logical_index::{IndexedDatabase, IndexedGlobals, LogicalIndex};
use crate::repository::record::{BackupRecord, LogicalBackup, ObjectEntry};
use crate::util::clock::Stopwatch;
use crate::util::{failpoint, host};

/// What is typed as in SQL is folded as in SQL.
const QUOTES: &str = "names are in lower case unless they stand in double quotes: \"Order\"";

fn not_called(pattern: &TablePattern) -> String {
    let text = pattern.to_string();
    let folded = !text.contains('"') && text.chars().any(char::is_uppercase);
    let why = if folded { format!(" ({QUOTES})") } else { String::new() };
    format!("no table is called {text}{why}")
}

pub(super) struct Run<'a> {
    pub(super) request: &'a LogicalRequest<'a>,
    pub(super) ready: Ready,
    pub(super) destination: Arc<Destination>,
    started_at: Timestamp,
}

/// What a database brought; its objects are durable.
pub(super) struct DatabasePart {
    pub(super) indexed: IndexedDatabase,
    pub(super) objects: Vec<ObjectEntry>,
    pub(super) bytes_raw: u64,
    /// What PostgreSQL's programs warned of.
    pub(super) warnings: Vec<String>,
    /// What a person should know, though nothing is missing.
    pub(super) notes: Vec<String>,
    /// The patterns of tables, as given, that chose something here.
    pub(super) matched: Vec<String>,
}

/// All of it, on its way to the record.
#[derive(Default)]
struct Gathered {
    databases: Vec<IndexedDatabase>,
    globals: Option<IndexedGlobals>,
    objects: Vec<ObjectEntry>,
    bytes_raw: u64,
    warnings: Vec<String>,
    notes: Vec<String>,
}

/// Takes a logical backup. Ok means published in every required repository; look at [`LogicalReport::left_out`] for what
/// is not in it.
pub async fn logical(request: LogicalRequest<'_>) -> Result<LogicalReport> {
    let watch = Stopwatch::start();
    let writers = if let LogicalWork::Tables(work) = &request.work { work.connections } else { 1 };
    let ready = preflight::run(&request, writers + 1).await?;
    let started_at = request.clock.now();
    let id = BackupId::new(started_at, request.work.kind(), rand::random());
    let destination = Arc::new(Destination {
        cluster: request.cluster.name.clone(),
        id,
        targets: Arc::clone(&ready.targets),
        protection: ready.keys.protection.clone(),
        level: request.config.dump.compression,
        runtime: Handle::current(),
    });
    let run = Run { request: &request, ready, destination, started_at };
    let mut gathered = run.databases().await?;
    if !matches!(request.work, LogicalWork::Tables(_)) {
        run.globals(&mut gathered).await?;
    }
    run.index(&mut gathered).await?;
    let mut notes = run.ready.notes.clone();
    notes.append(&mut gathered.notes);
    let (record, warnings) = run.record(gathered)?;
    if request.cancel.is_cancelled() {
        return Err(cancelled());
    }
    publish::publish(&run.destination.targets, &record, &run.ready.keys.host_key, request.clock.now())
        .await?;
    Ok(LogicalReport {
        record,
        repositories: RepositoryResult::of(&run.destination.targets),
        left_out: warnings,
        notes,
        took: watch.elapsed(),
    })
}

impl Run<'_> {
    /// For one piece of the work.
    pub(super) fn tries<'t>(&'t self, doing: &'t str) -> Tries<'t> {
        let request = self.request;
        Tries::new(&request.config.dump, &*request.progress, &request.cancel, doing)
    }

    async fn databases(&self) -> Result<Gathered> {
        let mut gathered = Gathered::default();
        let mut matched = HashSet::new();
        for database in &self.ready.databases {
            let part = match &self.request.work {
                LogicalWork::Dump { tables } => dump::database(self, database, tables).await?,
                LogicalWork::Schema => Some(schema::database(self, database).await?),
                LogicalWork::Tables(work) => tables::database(self, database, work).await?,
            };
            if let Some(part) = part {
                matched.extend(part.matched.iter().cloned());
                gathered.take(part);
                failpoint::reach("dump-after-database")?;
            }
        }
        if gathered.databases.is_empty() {
            let patterns: Vec<String> = self.patterns().iter().map(ToString::to_string).collect();
            return Err(Error::new(Code::Usage, "no table is called so")
                .at(patterns.join(", "))
                .hint(QUOTES));
        }
        // A critical table that was renamed must not go missing without a word.
        let missed = self.patterns().iter().filter(|p| !matched.contains(&p.to_string()));
        gathered.warnings.extend(missed.map(not_called));
        let unused = self.filters().iter().filter(|f| !gathered.has_table(f));
        let unused: Vec<String> =
            unused.map(|f| format!("no table for the condition on {}", f.tables)).collect();
        gathered.warnings.extend(unused);
        Ok(gathered)
    }

    fn patterns(&self) -> &[TablePattern] {
        match &self.request.work {
            LogicalWork::Dump { tables } => tables,
            LogicalWork::Schema => &[],
            LogicalWork::Tables(work) => &work.tables,
        }
    }

    fn filters(&self) -> &[TableFilter] {
        if let LogicalWork::Tables(work) = &self.request.work { &work.filters } else { &[] }
    }

    async fn globals(&self, gathered: &mut Gathered) -> Result<()> {
        let globals = globals::globals(self).await?;
        gathered.globals = Some(globals.indexed);
        gathered.objects.extend(globals.objects);
        gathered.bytes_raw += globals.plain_bytes;
        gathered.warnings.extend(globals.warnings);
        Ok(())
    }

    /// Not for a schema: its objects say everything.
    async fn index(&self, gathered: &mut Gathered) -> Result<()> {
        if matches!(self.request.work, LogicalWork::Schema) {
            return Ok(());
        }
        let index = LogicalIndex {
            format: FORMAT,
            kind: self.request.work.kind(),
            tool_version: self.ready.tool.version.clone(),
            globals: gathered.globals.clone(),
            databases: gathered.databases.clone(),
            warnings: gathered.warnings.clone(),
        };
        let (destination, metadata) = (self.destination.clone(), self.ready.keys.metadata.clone());
        let stored = blocking(&self.request.cancel, move || {
            let key = backup::index(metadata.suffix());
            let mut seal = SealWriter::new(destination.open(&key), &metadata, destination.level, None)?;
            serde_json::to_writer(&mut seal, &index)
                .map_err(std::io::Error::from)
                .and_then(|()| seal.flush())
                .map_err(|e| from_io("cannot write the index", &key, e))?;
            let (fan, sealed) = seal.finish()?;
            destination.targets.take(fan.finish(&sealed)?);
            Ok(ObjectEntry { key, bytes: sealed.stored_bytes, sha256: sealed.stored_sha256 })
        });
        gathered.objects.push(stored.await?);
        Ok(())
    }

    fn record(&self, gathered: Gathered) -> Result<(BackupRecord, Vec<String>)> {
        let Gathered { databases, objects, bytes_raw, warnings, .. } = gathered;
        let first = databases.iter().min_by_key(|d| d.snapshot_lsn);
        let first = first.ok_or_else(|| Error::internal("a backup of no database"))?;
        let version = self.ready.session.version_num();
        let record = BackupRecord {
            format: FORMAT,
            id: self.destination.id.clone(),
            kind: self.request.work.kind(),
            cluster: self.destination.cluster.clone(),
            host: host::name(),
            pgkeep_version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            finished_at: self.request.clock.now(),
            pg_version: format!("{}.{}", version / 10_000, version % 10_000),
            system_identifier: self.ready.system,
            recipients: self.destination.protection.recipient_names(),
            codec: self.destination.protection.codec_name().to_owned(),
            bytes_raw,
            bytes_stored: objects.iter().map(|o| o.bytes).sum(),
            objects,
            label: self.request.label.clone(),
            base: None,
            logical: Some(LogicalBackup {
                databases: databases.iter().map(|d| d.name.clone()).collect(),
                snapshot_lsn: first.snapshot_lsn,
                snapshot_at: first.snapshot_at,
                tool_version: self.ready.tool.version.clone(),
                tables: databases.iter().map(|d| d.tables.len() as u64).sum(),
                rows: databases.iter().map(IndexedDatabase::rows).sum(),
                warnings: warnings.len() as u64,
            }),
        };
        Ok((record, warnings))
    }
}

impl Gathered {
    fn has_table(&self, filter: &TableFilter) -> bool {
        let mut tables = self.databases.iter().flat_map(|d| &d.tables);
        tables.any(|t| filter.tables.matches(&t.schema, &t.name))
    }

    fn take(&mut self, part: DatabasePart) {
        let name = &part.indexed.name;
        self.warnings.extend(part.warnings.into_iter().map(|warning| format!("{name}: {warning}")));
        self.notes.extend(part.notes.into_iter().map(|note| format!("{name}: {note}")));
        self.databases.push(part.indexed);
        self.objects.extend(part.objects);
        self.bytes_raw += part.bytes_raw;
    }
}

/// Runs work on a blocking thread; whoever cancels does not wait for it.
pub(super) async fn blocking<T: Send + 'static>(
    cancel: &CancellationToken,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let work = tokio::task::spawn_blocking(work);
    tokio::select! {
        done = work => done.map_err(|e| Error::internal("a thread of the backup panicked").because(e))?,
        () = cancel.cancelled() => Err(cancelled()),
    }
}
