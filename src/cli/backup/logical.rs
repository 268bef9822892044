//! `pgkeep backup dump|schema|tables`.

use super::summary::Summary;
use super::{BackupArgs, Kind};
use crate::agent::control::{Request, client};
use crate::backup::{LogicalReport, LogicalRequest, LogicalWork, TablesWork, logical};
use crate::cli::context::{Context, Outcome};
use crate::cli::report;
use crate::config::{ClusterConfig, Config};
use crate::error::{Code, Error, Result};
use crate::model::{DatabasePattern, TableFilter, TablePattern};
use crate::util::clock::Clock;

/// Options of the logical kinds.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only these databases, `*` and `?` allowed; repeatable (default: `databases` of `[dump]`). For dump, schema and
    /// tables.
    #[arg(long = "database", short = 'd', value_name = "PATTERN", value_parser = database)]
    databases: Vec<DatabasePattern>,
    /// Only these tables, as in SQL, `*` and `?` allowed; repeatable. For dump; for tables (default: `tables`
    /// of `[dump]`).
    #[arg(long = "table", short = 't', value_name = "PATTERN", value_parser = table)]
    tables: Vec<TablePattern>,
    /// Only rows for which the condition holds, of the tables so named; repeatable. For tables.
    #[arg(long = "where", value_name = "TABLE=CONDITION", value_parser = filter)]
    filters: Vec<TableFilter>,
    /// Tables exported at once (default: `connections` of `[dump]`). For tables.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=32))]
    connections: Option<u16>,
}

fn filter(text: &str) -> Result<TableFilter, String> {
    TableFilter::parse(text)
        .ok_or_else(|| "expected TABLE=CONDITION, as in \"users=active and id > 7\"".to_owned())
}

fn database(text: &str) -> Result<DatabasePattern, String> {
    DatabasePattern::parse(text).ok_or_else(|| "this is no pattern of databases".to_owned())
}

fn table(text: &str) -> Result<TablePattern, String> {
    TablePattern::parse(text)
        .ok_or_else(|| "a table is named as in SQL: users, app.users, '\"Odd.Name\".*'".to_owned())
}

impl Options {
    /// The first option that was given and is not among `allowed`.
    pub(super) fn given_for(&self, allowed: &[&str]) -> Option<&'static str> {
        let given = [
            ("--database", !self.databases.is_empty()),
            ("--table", !self.tables.is_empty()),
            ("--where", !self.filters.is_empty()),
            ("--connections", self.connections.is_some()),
        ];
        given.into_iter().find(|(name, given)| *given && !allowed.contains(name)).map(|(name, _)| name)
    }
}

impl Options {
    fn tables_work(&self, config: &Config) -> Result<TablesWork> {
        let given = if self.tables.is_empty() { &config.dump.tables } else { &self.tables };
        if given.is_empty() {
            return Err(Error::new(Code::Usage, "which tables?")
                .hint("name them with --table, or with `tables` in [dump] of the configuration"));
        }
        Ok(TablesWork {
            tables: given.clone(),
            filters: self.filters.clone(),
            connections: self.connections.map_or(config.dump.connections, usize::from),
        })
    }
}

pub(super) fn run(
    ctx: &Context,
    args: &BackupArgs,
    config: &Config,
    cluster: &ClusterConfig,
) -> Result<Outcome> {
    let options = &args.logical;
    let work = match args.kind {
        Kind::Schema => LogicalWork::Schema,
        Kind::Tables => LogicalWork::Tables(options.tables_work(config)?),
        _ => LogicalWork::Dump { tables: options.tables.clone() },
    };
    let request = LogicalRequest {
        config,
        cluster,
        work,
        databases: options.databases.clone(),
        only: ctx.repo.as_ref(),
        label: args.label.clone(),
        clock: Clock::system(),
        progress: ctx.progress(),
        cancel: ctx.cancel.clone(),
        still_wanted: None,
    };
    let runtime = ctx.runtime_of_one()?;
    let done = runtime.block_on(logical(request));
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
    if done.left_out.is_empty() {
        return Ok(Outcome::Done);
    }
    let what = format!("{} warnings: something may be missing", done.left_out.len());
    let error = Error::new(Code::LeftOut, what).at(&done.record.id).hint(
        "the backup is published, and `pgkeep show` lists the warnings; `pgkeep check` shows which rights the role lacks",
    );
    report::to_stderr(&report::error_text(&error));
    Ok(Outcome::Finding)
}

fn summary(done: &LogicalReport) -> String {
    let record = &done.record;
    let mut summary = Summary::of(record);
    if let Some(logical) = &record.logical {
        summary.line("databases", logical.databases.join(", "));
        if logical.tables > 0 {
            summary.line("tables", format!("{} with {} rows", logical.tables, logical.rows));
        }
        summary.line("snapshot", format!("{} ({})", logical.snapshot_at.human(), logical.snapshot_lsn));
        summary.line("by", &logical.tool_version);
    }
    summary.size("");
    summary.time(done.took);
    summary.repositories(&done.repositories);
    summary.each("warning", &done.left_out);
    summary.each("note", &done.notes);
    summary.text()
}
