//! Writes a report: JSON into the repositories, signed where this host has its key; JSON, Markdown and HTML on this host.
//! A repository that does not take it is told in a note: the proof is made all the same.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::report::{Report, html, markdown};
use crate::config::Config;
use crate::error::Result;
use crate::repository::{Repository, access, documents, reports};
use crate::restore::past;
use crate::util::durable;

/// Where a report was written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Written {
    pub json: PathBuf,
    pub markdown: PathBuf,
    pub html: PathBuf,
}

/// `directory` instead of the one in the state directory. What went wrong in a repository comes back as notes, which the
/// report on this host has too.
pub async fn write(
    config: &Config,
    repositories: &[Repository],
    report: &mut Report,
    directory: Option<&Path>,
) -> Result<Written> {
    store(config, repositories, report).await?;
    let usual = past::directory(config, &report.cluster);
    on_this_host(report, directory.unwrap_or(&usual))
}

/// JSON, Markdown and HTML in this directory, and nowhere else.
pub fn on_this_host(report: &Report, directory: &Path) -> Result<Written> {
    durable::make_dirs(directory, 0o700)?;
    let stem = directory.join(format!("{}-{}", report.started_at.compact_micros(), report.kind.as_str()));
    let name = |extension: &str| {
        let mut name = stem.clone().into_os_string();
        name.push(extension);
        PathBuf::from(name)
    };
    let written = Written { json: name(".json"), markdown: name(".md"), html: name(".html") };
    durable::atomic_replace(&written.markdown, markdown(report).as_bytes(), 0o600)?;
    durable::atomic_replace(&written.html, html(report).as_bytes(), 0o600)?;
    durable::atomic_replace(&written.json, &documents::to_bytes(report)?, 0o600)?;
    Ok(written)
}

async fn store(config: &Config, repositories: &[Repository], report: &mut Report) -> Result<()> {
    let key = match access::host_key(config) {
        Ok(key) => Some(key),
        Err(e) => {
            report.notes.push(format!("the report is not signed, so other hosts do not count it: {e}"));
            None
        }
    };
    let bytes = Bytes::from(documents::to_bytes(report)?);
    let targets: Vec<&Repository> = repositories.iter().collect();
    let (cluster, at, kind) = (report.cluster.clone(), report.started_at, report.kind.as_str());
    let outcomes = reports::put(&targets, &cluster, at, kind, &bytes, key.as_ref()).await?;
    for (repository, stored) in outcomes {
        if let Err(e) = stored {
            report.notes.push(format!("the report is not in repository {repository}: {e}"));
        }
    }
    Ok(())
}
