//! The kinds `dump`, `schema` and `tables`, in this process.

use async_trait::async_trait;

use super::kind::{JobContext, JobKind, JobReport};
use crate::backup::{LogicalReport, LogicalRequest, LogicalWork, TablesWork, logical};
use crate::error::Result;
use crate::model::{DatabasePattern, TableFilter, TablePattern};
use crate::util::human;

pub(super) struct Logical {
    work: LogicalWork,
    databases: Vec<DatabasePattern>,
}

impl Logical {
    pub(super) fn dump(databases: &[DatabasePattern], tables: &[TablePattern]) -> Self {
        Self { work: LogicalWork::Dump { tables: tables.to_vec() }, databases: databases.to_vec() }
    }
    pub(super) fn schema(databases: &[DatabasePattern]) -> Self {
        Self { work: LogicalWork::Schema, databases: databases.to_vec() }
    }
    /// How many connections is the configuration's to say, when the run begins.
    pub(super) fn tables(
        databases: &[DatabasePattern],
        tables: &[TablePattern],
        filters: &[TableFilter],
    ) -> Self {
        let (tables, filters) = (tables.to_vec(), filters.to_vec());
        let work = LogicalWork::Tables(TablesWork { tables, filters, connections: 1 });
        Self { work, databases: databases.to_vec() }
    }
}

#[async_trait]
impl JobKind for Logical {
    async fn run(&self, cx: &JobContext) -> Result<JobReport> {
        let mut work = self.work.clone();
        if let LogicalWork::Tables(tables) = &mut work {
            tables.connections = cx.config.dump.connections;
            if tables.tables.is_empty() {
                tables.tables.clone_from(&cx.config.dump.tables);
            }
        }
        let request = LogicalRequest {
            config: &cx.config,
            cluster: &cx.cluster,
            work,
            databases: self.databases.clone(),
            only: None,
            label: Some(cx.label.clone()),
            clock: cx.clock.clone(),
            progress: cx.progress.clone(),
            cancel: cx.cancel.clone(),
            still_wanted: cx.still_wanted.clone(),
        };
        let done = Box::pin(logical(request)).await?;
        for note in done.notes.iter().chain(&done.left_out) {
            tracing::warn!(job = %cx.job.name, "{note}");
        }
        Ok(report(&done))
    }
}

fn report(done: &LogicalReport) -> JobReport {
    let record = &done.record;
    let mut text = format!("{}, {} stored", human::size(record.bytes_raw), human::size(record.bytes_stored));
    for repository in &done.repositories {
        if let Err(why) = &repository.published {
            text.push_str(&format!("; not in {}: {why}", repository.name));
        }
    }
    let finding = done.left_out.first().map(|first| match done.left_out.len() {
        1 => first.clone(),
        n => format!("{n} warnings; the first: {first}"),
    });
    JobReport {
        finding,
        text,
        backup: Some(record.id.to_string()),
        bytes_raw: Some(record.bytes_raw),
        bytes_stored: Some(record.bytes_stored),
    }
}
