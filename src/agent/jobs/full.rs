//! The kind `full`: a base backup, in this process.

use async_trait::async_trait;

use super::kind::{JobContext, JobKind, JobReport};
use crate::backup::{FullReport, FullRequest, full};
use crate::error::Result;
use crate::util::human;

pub(super) struct Full;

#[async_trait]
impl JobKind for Full {
    async fn run(&self, cx: &JobContext) -> Result<JobReport> {
        let request = FullRequest {
            config: &cx.config,
            cluster: &cx.cluster,
            only: None,
            label: Some(cx.label.clone()),
            workers: cx.config.backup.workers,
            clock: cx.clock.clone(),
            progress: cx.progress.clone(),
            cancel: cx.cancel.clone(),
            still_wanted: cx.still_wanted.clone(),
        };
        let done = Box::pin(full(request)).await?;
        for warning in &done.warnings {
            tracing::warn!(job = %cx.job.name, "{warning}");
        }
        Ok(report(&done))
    }
}

fn report(done: &FullReport) -> JobReport {
    let record = &done.record;
    let mut text = format!("{}, {} stored", human::size(record.bytes_raw), human::size(record.bytes_stored));
    for repository in &done.repositories {
        if let Err(why) = &repository.published {
            text.push_str(&format!("; not in {}: {why}", repository.name));
        }
    }
    JobReport {
        finding: damage(done),
        text,
        backup: Some(record.id.to_string()),
        bytes_raw: Some(record.bytes_raw),
        bytes_stored: Some(record.bytes_stored),
    }
}

fn damage(done: &FullReport) -> Option<String> {
    let errors = done.record.base.as_ref().map_or(&[][..], |base| &base.page_errors);
    let blocks: usize = errors.iter().map(|file| file.blocks.len()).sum();
    let first = errors.first()?;
    Some(format!("{blocks} pages in {} files fail their checksum, first in {}", errors.len(), first.file))
}
