//! `pgkeep restore database`: one database of a dump, made anew, beside or in place of the one that has its name.

use clap::Args as ClapArgs;

use super::flags::Consent;
use super::not_confirmed;
use crate::archive::source;
use crate::cli::context::{Context, Outcome};
use crate::cli::report::{error_text, to_stderr};
use crate::error::{Code, Error, Result};
use crate::model::Timestamp;
use crate::postgres::as_owner;
use crate::restore::database::plan::{self, DatabasePlan};
use crate::restore::database::report::DatabaseReport;
use crate::restore::database::{self, DatabaseRequest, DatabaseTask};
use crate::restore::logical::Wanted;
use crate::util::clock;

/// Brings one database of a dump back: under its name if that is free, under another, or (--replace) in place of the
/// one that has it.
// One flag per option of the command line.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The database, as it was called when it was dumped.
    #[arg(value_name = "DB")]
    database: String,
    /// Which dump: its id, latest, or a time (the newest dump that is not younger; without a zone it is UTC).
    #[arg(long, value_name = "ID|latest|TIME")]
    from: String,
    /// What it is called now.
    #[arg(long = "as", value_name = "NAME")]
    rename: Option<String>,
    /// Put it in place of the database of this name, which is kept as NAME_before_TIME; asks for the name.
    #[arg(long)]
    replace: bool,
    /// With --replace: drop the old database when the new one is whole, instead of keeping it.
    #[arg(long)]
    overwrite: bool,
    /// With --replace: end the sessions that are connected to the old database.
    #[arg(long)]
    terminate: bool,
    /// Make the roles and tablespaces that are missing, from the dump; what exists is not altered.
    #[arg(long)]
    globals: bool,
    /// Everything belongs to the role of the connection; owners and grants are left out.
    #[arg(long)]
    no_owner: bool,
    /// Everything in the database's own tablespace.
    #[arg(long)]
    no_tablespaces: bool,
    /// Connect so, for example "host=/run/postgresql user=postgres".
    #[arg(long, value_name = "CONNINFO")]
    connection: Option<String>,
    /// The server is another cluster than the one that was dumped.
    #[arg(long)]
    into_another_cluster: bool,
    /// How many programs and connections work at once (default: as many as pay off).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: Option<u16>,
    #[command(flatten)]
    consent: Consent,
}

pub fn run(ctx: &Context, args: &Args) -> Result<Outcome> {
    let now = clock::now();
    let request = request(args, now)?;
    request.check()?;
    let config = ctx.load_config()?;
    let cluster = ctx.cluster(&config)?;
    // Before root is given up: the identity may be root's alone.
    let identities = source::identities(&config)?;
    as_owner::become_owner(&cluster.connection, cluster.data_directory.as_deref())?;
    let runtime = ctx.runtime()?;
    let task = DatabaseTask {
        config: &config,
        cluster,
        only: ctx.repo.as_ref(),
        request: &request,
        trusted: args.consent.trusted()?,
        identities,
        now,
        progress: ctx.progress(),
        priority: crate::util::priority::Priority::Usual,
        cancel: ctx.cancel.clone(),
    };
    let done = runtime.block_on(work(ctx, args, &task));
    // A store that hangs must not hold the process.
    runtime.shutdown_background();
    match done? {
        None => Ok(Outcome::Done),
        Some(report) => conclude(ctx, &report),
    }
}

async fn work(ctx: &Context, args: &Args, task: &DatabaseTask<'_>) -> Result<Option<DatabaseReport>> {
    let prepared = tokio::select! {
        prepared = Box::pin(database::prepare(task)) => prepared?,
        () = ctx.cancel.cancelled() => return Err(Error::new(Code::Cancelled, "ended by a signal; nothing was done")),
    };
    if args.consent.dry_run {
        if ctx.json {
            ctx.print_json(&prepared.plan)?;
        } else {
            ctx.print(&plan::text(&prepared.plan))?;
        }
        return Ok(None);
    }
    ctx.say(&plan::text(&prepared.plan));
    confirm(ctx, args, &prepared.plan)?;
    Box::pin(database::execute(task, prepared)).await.map(Some)
}

fn request(args: &Args, now: Timestamp) -> Result<DatabaseRequest> {
    let (from, zone_assumed) = Wanted::parse(&args.from, now)?;
    Ok(DatabaseRequest {
        database: args.database.clone(),
        from,
        zone_assumed,
        target: args.rename.clone().unwrap_or_else(|| args.database.clone()),
        replace: args.replace,
        overwrite: args.overwrite,
        terminate: args.terminate,
        globals: args.globals,
        no_owner: args.no_owner,
        no_tablespaces: args.no_tablespaces,
        other_cluster: args.into_another_cluster,
        connection: args.connection.clone(),
        jobs: args.jobs.map(usize::from),
    })
}

/// Nothing is touched before this has said yes.
fn confirm(ctx: &Context, args: &Args, plan: &DatabasePlan) -> Result<()> {
    if args.consent.yes {
        return Ok(());
    }
    let (question, expected) = if plan.existing.is_some() {
        (format!("Database {} is replaced. Type its name to go on: ", plan.becomes), plan.becomes.as_str())
    } else {
        ("Carry this plan out? Type yes: ".to_owned(), "yes")
    };
    if ctx.ask(&question)? == expected { Ok(()) } else { Err(not_confirmed()) }
}

fn conclude(ctx: &Context, report: &DatabaseReport) -> Result<Outcome> {
    if ctx.json {
        ctx.print_json(report)?;
    } else {
        ctx.print(&report.text())?;
    }
    for note in &report.notes {
        ctx.say(&format!("note: {note}"));
    }
    for warning in &report.warnings {
        to_stderr(&format!("WARNING: {warning}"));
    }
    if !report.differ.is_empty() {
        let tables: Vec<String> = report.differ.iter().map(ToString::to_string).collect();
        let what = format!("{} tables did not come back as they were dumped", report.differ.len());
        let error = Error::new(Code::RowsDiffer, what).at(tables.join("; ")).hint(format!(
            "the restored database is {}; what was there before is untouched",
            report.database
        ));
        to_stderr(&error_text(&error));
    }
    Ok(if report.holds() { Outcome::Done } else { Outcome::Finding })
}
