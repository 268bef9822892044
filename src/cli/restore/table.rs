//! `pgkeep restore table`: single tables, from any moment, while production goes on.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;

use super::flags::{Consent, Moment};
use super::{fetch_command, not_confirmed};
use crate::archive::source;
use crate::cli::context::{Context, Outcome};
use crate::config::value::duration as parse_duration;
use crate::config::{ClusterConfig, Config};
use crate::error::{Code, Error, Result};
use crate::model::{BackupId, TableName, Target, Timestamp, table_name};
use crate::postgres::{as_owner, privilege};
use crate::restore::logical::Wanted;
use crate::restore::production;
use crate::restore::request::{Action, Place as RestorePlace, Request};
use crate::restore::table::place::{self, Place};
use crate::restore::table::plan;
use crate::restore::table::report::TableReport;
use crate::restore::table::request::{From, TableRequest};
use crate::restore::table::{self, Job};
use crate::util::clock;

/// Brings single tables back: as copies beside them, or (--replace) in their place.
// One flag per option of the command line.
#[allow(clippy::struct_excessive_bools, clippy::struct_field_names)]
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// SCHEMA.TABLE as in SQL: app.users, '"Odd Name"."x"'.
    #[arg(required = true, value_name = "TABLE")]
    tables: Vec<TableName>,
    /// The moment: latest, a time (without a zone it is UTC; also "10 minutes ago"), lsn:…, xid:…, name:… or backup.
    #[arg(long, value_name = "TARGET")]
    to: Option<String>,
    /// Instead of a moment: a dump or an export of tables, by its id, latest, or a time (the newest that is not younger).
    #[arg(long, value_name = "ID|latest|TIME", conflicts_with_all = ["to", "backup", "after", "before", "timeline"])]
    from: Option<String>,
    /// The database that the tables were in; without it that of the cluster's connection.
    #[arg(long, value_name = "DB")]
    database: Option<String>,
    /// Another database to bring them into.
    #[arg(long, value_name = "DB")]
    into: Option<String>,
    /// What the copy is called, instead of TABLE_restored.
    #[arg(long = "as", value_name = "NAME")]
    rename: Option<String>,
    /// Exchange the rows of the table itself (or make it again, if it is gone) instead of making a copy.
    #[arg(long)]
    replace: bool,
    /// With --replace: columns that the table has got since stay, filled with their defaults.
    #[arg(long)]
    keep_new_columns: bool,
    /// The tables belong to the role of the connection; the old owner and grants are left out.
    #[arg(long)]
    no_owner: bool,
    /// Connect to production so, for example "host=/run/postgresql user=app_owner".
    #[arg(long, value_name = "CONNINFO")]
    connection: Option<String>,
    /// Production is another cluster than the one that was backed up.
    #[arg(long)]
    into_another_cluster: bool,
    /// How long production may be waited for where somebody holds a lock.
    #[arg(long, value_name = "SPAN", default_value = "5s")]
    lock_timeout: String,
    /// How often it is tried again after that; in between production is left alone for four times as long.
    #[arg(long, value_name = "N", default_value_t = 20)]
    lock_retries: u32,
    /// Where the side instance is made; it needs the room of the whole cluster.
    #[arg(long, value_name = "DIR")]
    scratch_dir: Option<PathBuf>,
    /// From this base backup instead of the newest that fits.
    #[arg(long, value_name = "ID")]
    backup: Option<BackupId>,
    #[command(flatten)]
    moment: Moment,
    #[command(flatten)]
    consent: Consent,
}

pub fn run(ctx: &Context, args: &Args) -> Result<Outcome> {
    let now = clock::now();
    let config = ctx.load_config()?;
    let cluster = ctx.cluster(&config)?;
    let request = request(args, &config, cluster, now)?;
    request.check()?;
    // Before root is given up: the identity may be root's alone.
    let identities = source::identities(&config)?;
    let owner = as_owner::owner(&cluster.connection, cluster.data_directory.as_deref())?;
    let runtime = ctx.runtime()?;
    privilege::become_owner(owner.clone())?;
    let job = Job {
        config: &config,
        cluster,
        only: ctx.repo.as_ref(),
        request: &request,
        trusted: args.consent.trusted()?,
        identities,
        fetch_command: fetch_command(ctx, &config)?,
        owner,
        now,
        progress: ctx.progress(),
        cancel: ctx.cancel.clone(),
    };
    let done = runtime.block_on(work(ctx, args, &job));
    runtime.shutdown_background();
    match done? {
        None => Ok(Outcome::Done),
        Some(report) => conclude(ctx, &report),
    }
}

async fn work(ctx: &Context, args: &Args, job: &Job<'_>) -> Result<Option<TableReport>> {
    if !args.consent.dry_run {
        remove_leftovers(ctx, job.request).await?;
    }
    let planned = table::prepare(job).await?;
    if args.consent.dry_run {
        if ctx.json {
            ctx.print_json(&planned.plan)?;
        } else {
            ctx.print(&plan::text(&planned.plan))?;
        }
        return Ok(None);
    }
    ctx.say(&plan::text(&planned.plan));
    if !args.consent.yes && ctx.ask("Carry this plan out? Type yes: ")? != "yes" {
        return Err(not_confirmed());
    }
    let place = Place::make(&job.request.work, &job.owner).await?;
    let done = table::execute(job, planned, &place).await;
    let directory = place.directory.clone();
    let removed = place.remove().await.map_err(|e| place::left_behind(&directory, &e));
    match (done, removed) {
        (Ok(mut report), Err(e)) => {
            report.findings.push(e.to_string());
            Ok(Some(report))
        }
        (Err(e), Err(also)) => {
            ctx.say(&format!("WARNING: {also}"));
            Err(e)
        }
        (done, Ok(())) => done.map(Some),
    }
}

async fn remove_leftovers(ctx: &Context, request: &TableRequest) -> Result<()> {
    let Some(scratch) = request.work.parent() else { return Ok(()) };
    for removed in place::remove_leftovers(scratch).await? {
        ctx.say(&format!("note: removed what an earlier, killed restore left: {}", removed.display()));
    }
    Ok(())
}

fn request(args: &Args, config: &Config, cluster: &ClusterConfig, now: Timestamp) -> Result<TableRequest> {
    let scratch = production::scratch_directory(config, args.scratch_dir.as_deref());
    if !scratch.is_absolute() {
        return Err(Error::new(Code::Usage, "`--scratch-dir` needs an absolute path").at(scratch.display()));
    }
    let work = place::choose(&scratch, place::Purpose::Table, now);
    let database = match &args.database {
        Some(database) => database.clone(),
        None => production::usual_database(cluster)?,
    };
    let lock_timeout = parse_duration(&args.lock_timeout).filter(|span| *span >= Duration::from_millis(1));
    Ok(TableRequest {
        tables: args.tables.clone(),
        from: source_of(args, &work, now)?,
        into: args.into.clone().unwrap_or_else(|| database.clone()),
        database,
        connection: args.connection.clone(),
        rename: args.rename.as_deref().map(table_name::parse_identifier).transpose()?,
        replace: args.replace,
        keep_new_columns: args.keep_new_columns,
        no_owner: args.no_owner,
        other_cluster: args.into_another_cluster,
        lock_retries: args.lock_retries,
        lock_timeout: lock_timeout.ok_or_else(|| {
            Error::new(Code::Usage, "`--lock-timeout` needs a span of time")
                .at(&args.lock_timeout)
                .hint("for example 30s")
        })?,
        work,
    })
}

fn source_of(args: &Args, work: &std::path::Path, now: Timestamp) -> Result<From> {
    if let Some(text) = &args.from {
        let (wanted, zone_assumed) = Wanted::parse(text, now)?;
        return Ok(From::Backup(wanted, zone_assumed));
    }
    let text = args.to.as_deref().ok_or_else(|| {
        Error::new(Code::Usage, "`pgkeep restore table` needs --to TARGET or --from ID").hint(
            "for example --to \"10 minutes ago\" or --to \"2026-11-21 14:25:00+00\"; `pgkeep window` shows what can \
             be reached",
        )
    })?;
    let parsed = Target::parse(text, now)?;
    let moment = Request {
        target: parsed.target,
        zone_assumed: parsed.zone_assumed,
        inclusion: args.moment.inclusion(),
        timeline: args.moment.timeline(),
        backup: args.backup.clone(),
        place: RestorePlace::Directory(place::data_directory(work)),
        action: Action::Promote,
        map: std::collections::BTreeMap::new(),
        overwrite: false,
        standby: false,
        no_start: false,
        port: None,
        socket_dir: place::socket_directory(work),
    };
    moment.check(args.moment.is_explicit())?;
    Ok(From::Moment(Box::new(moment)))
}

fn conclude(ctx: &Context, report: &TableReport) -> Result<Outcome> {
    if ctx.json {
        ctx.print_json(report)?;
    } else {
        ctx.print(&report.text())?;
    }
    for note in &report.notes {
        ctx.say(&format!("note: {note}"));
    }
    for finding in &report.findings {
        crate::cli::report::to_stderr(&format!("WARNING: {finding}"));
    }
    Ok(if report.findings.is_empty() { Outcome::Done } else { Outcome::Finding })
}

/// `restore discard --leftovers`.
pub fn discard_leftovers(ctx: &Context, scratch_dir: Option<&std::path::Path>) -> Result<Outcome> {
    let config = ctx.load_config()?;
    let cluster = ctx.cluster(&config)?;
    let scratch = production::scratch_directory(&config, scratch_dir);
    let owner = as_owner::owner(&cluster.connection, cluster.data_directory.as_deref())?;
    privilege::become_owner(owner)?;
    let removed = ctx.block_on(place::remove_leftovers(&scratch))??;
    let mut lines: Vec<String> = removed.iter().map(|path| format!("removed {}", path.display())).collect();
    if lines.is_empty() {
        lines.push(format!("nothing was left in {}", scratch.display()));
    }
    ctx.print(&lines.join("\n"))?;
    Ok(Outcome::Done)
}
