//! `pgkeep backup [full|dump|schema|tables]`.

mod logical;
mod summary;

use clap::{Args, ValueEnum};

use self::summary::Summary;
use super::context::{Context, Outcome};
use super::report;
use crate::agent::control::{Request, client};
use crate::backup::{FullReport, FullRequest, full};
use crate::error::{Code, Error, Result};
use crate::postgres::as_owner;
use crate::repository::access;
use crate::util::clock::Clock;

/// Takes one backup now.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// What to take.
    #[arg(value_enum, default_value_t = Kind::Full)]
    pub kind: Kind,
    /// Words to find it by, kept in backup.json and in PostgreSQL's backup_label.
    #[arg(long, value_name = "TEXT", value_parser = label)]
    pub label: Option<String>,
    /// Packs written at once (default: `workers` of `[backup]`). For full.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: Option<u16>,
    #[command(flatten)]
    pub logical: logical::Options,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A full base backup of the cluster.
    Full,
    /// Databases by pg_dump, with roles, tablespaces and the schema as text.
    Dump,
    /// The schema of databases as text, with roles and tablespaces.
    Schema,
    /// Tables as CSV, all of one database from one moment, with their definitions.
    Tables,
}

/// `PostgreSQL`'s own limit, and nothing that would break a line of `backup_label`.
fn label(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 1024 || text.chars().any(char::is_control) {
        return Err("a label is 1 to 1024 bytes without control characters".to_owned());
    }
    Ok(text.to_owned())
}

pub fn run(ctx: &Context, args: &BackupArgs) -> Result<Outcome> {
    let config = ctx.load_config()?;
    let cluster = ctx.cluster(&config)?;
    args.refuse_what_does_not_fit()?;
    // Refused before anybody is asked anything.
    access::protection(&config)?;
    // As root: from here on as the owner of the data directory, so that its files and the repository's have one owner.
    as_owner::become_owner(&cluster.connection, cluster.data_directory.as_deref())?;
    if args.kind != Kind::Full {
        return logical::run(ctx, args, &config, cluster);
    }
    let request = FullRequest {
        config: &config,
        cluster,
        only: ctx.repo.as_ref(),
        label: args.label.clone(),
        workers: args.workers.map_or(config.backup.workers, usize::from),
        clock: Clock::system(),
        progress: ctx.progress(),
        cancel: ctx.cancel.clone(),
        still_wanted: None,
    };
    let runtime = ctx.runtime()?;
    let done = runtime.block_on(full(request));
    if done.is_ok() {
        runtime.block_on(client::tell(&config.agent.socket, &Request::BackupNews));
    }
    // A store that hangs must not hold the process: what is unfinished is aborted or left unreferenced.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    let done = done?;
    if ctx.json {
        ctx.print_json(&done.json()?)?;
    } else {
        ctx.print(&summary(&done))?;
    }
    if !done.record.is_damaged() {
        return Ok(Outcome::Done);
    }
    report::to_stderr(&report::error_text(&damaged(&done)));
    Ok(Outcome::Finding)
}

impl BackupArgs {
    /// An option that the kind does not know is a mistake, never passed over.
    fn refuse_what_does_not_fit(&self) -> Result<()> {
        let wrong = match self.kind {
            Kind::Full => self.logical.given_for(&[]),
            Kind::Dump => self.logical.given_for(&["--database", "--table"]),
            Kind::Schema => self.logical.given_for(&["--database"]),
            Kind::Tables => self.logical.given_for(&["--database", "--table", "--where", "--connections"]),
        };
        let wrong =
            wrong.or_else(|| (self.kind != Kind::Full && self.workers.is_some()).then_some("--workers"));
        let Some(option) = wrong else { return Ok(()) };
        let kind = self.kind.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
        Err(Error::new(Code::Usage, format!("{option} is not for `backup {kind}`"))
            .hint("`pgkeep backup --help` says which option belongs to which kind"))
    }
}

fn damaged(done: &FullReport) -> Error {
    let errors = done.record.base.as_ref().map_or(&[][..], |b| &b.page_errors);
    let blocks: usize = errors.iter().map(|e| e.blocks.len()).sum();
    let files: Vec<String> = errors.iter().take(5).map(|e| format!("{} {:?}", e.file, e.blocks)).collect();
    Error::new(Code::PagesDamaged, format!("{blocks} pages in {} files fail their checksum", errors.len()))
        .at(files.join(", "))
        .hint(
            "the backup is published and marked as damaged, and nothing leans on it: look at the disk, find the \
             table (pg_filenode_relation), and restore it from an older backup",
        )
}

fn summary(done: &FullReport) -> String {
    let record = &done.record;
    let mut summary = Summary::of(record);
    summary.size(&format!(" in {} files", done.files));
    summary.time(done.took);
    if let Some(base) = &record.base {
        let from = if base.from_standby { "a standby" } else { "the primary" };
        summary.line("from", format!("{from}, PostgreSQL {}, timeline {}", record.pg_version, base.timeline));
        summary.line(
            "wal",
            format!("{} to {} ({} to {})", base.start_lsn, base.stop_lsn, base.wal_first, base.wal_last),
        );
        summary.line("consistent", format!("from {} on", base.stop_time.human()));
    }
    summary.repositories(&done.repositories);
    summary.each("warning", &done.warnings);
    summary.text()
}
