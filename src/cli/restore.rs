//! `pgkeep restore`: the plan is shown, confirmed, carried out and reported.

mod database;
mod flags;
mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use serde_json::json;

use self::flags::{Consent, Moment};
use super::context::{Context, Outcome};
use crate::archive::source;
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::model::{BackupId, Target};
use crate::postgres::privilege;
use crate::restore::execute::{self, Executed};
use crate::restore::plan::RestorePlan;
use crate::restore::prepare::{self, Prepared, Task};
use crate::restore::request::{Action, Place, Request, parse_map};
use crate::restore::settings::SideKind;
use crate::restore::{ending, settings, show, survey};
use crate::util::clock;

/// Restores a cluster to a moment, in place or beside the running one.
#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    ends: Option<Ends>,
    #[command(flatten)]
    to: To,
}

/// How a restored cluster that waits (or a side instance) ends.
#[derive(Debug, Subcommand)]
enum Ends {
    /// Ends a paused recovery: the cluster opens for writing.
    Promote(Where),
    /// Stops and removes a side instance.
    Discard(Leftover),
    Database(Box<database::Args>),
    Table(Box<table::Args>),
}

#[derive(Debug, ClapArgs)]
struct Where {
    /// The side instance's directory; without it the cluster's own data directory is meant.
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, ClapArgs)]
struct Leftover {
    #[command(flatten)]
    place: Where,
    /// Instead: what killed restores of tables have left in the scratch directory.
    #[arg(long, conflicts_with = "target_dir")]
    leftovers: bool,
    /// The scratch directory, if it is not the configured one.
    #[arg(long, value_name = "DIR", requires = "leftovers")]
    scratch_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ActionArg {
    Promote,
    Pause,
    Shutdown,
}

// One flag per option of the command line.
#[allow(clippy::struct_excessive_bools, clippy::struct_field_names)]
#[derive(Debug, ClapArgs)]
struct To {
    /// latest, a time (without a zone it is UTC; also "10 minutes ago"), lsn:…, xid:…, name:… or backup.
    #[arg(long, value_name = "TARGET")]
    to: Option<String>,
    /// Into the cluster's own data directory; what is there is moved aside. The default.
    #[arg(long, conflicts_with = "target_dir")]
    in_place: bool,
    /// As a side instance into this directory, which must not exist or be empty.
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
    /// From this backup instead of the newest that fits.
    #[arg(long, value_name = "ID")]
    backup: Option<BackupId>,
    #[command(flatten)]
    moment: Moment,
    /// What happens at the target.
    #[arg(long, value_enum, default_value = "promote")]
    action: ActionArg,
    /// Put a tablespace elsewhere.
    #[arg(long, value_name = "OID=DIR")]
    map: Vec<String>,
    /// Delete what is in the way instead of moving it aside; asks for the cluster's name.
    #[arg(long)]
    overwrite: bool,
    /// Make a standby that follows its primary.
    #[arg(long)]
    standby: bool,
    /// Prepare everything and start nothing.
    #[arg(long)]
    no_start: bool,
    /// The side instance's port.
    #[arg(long)]
    port: Option<u16>,
    /// The side instance's socket directory, where its own path is too long.
    #[arg(long, value_name = "DIR")]
    socket_dir: Option<PathBuf>,
    #[command(flatten)]
    consent: Consent,
}

pub fn run(ctx: &Context, args: &Args) -> Result<Outcome> {
    match &args.ends {
        None => restore(ctx, &args.to),
        Some(Ends::Promote(place)) => promote(ctx, place),
        Some(Ends::Discard(what)) if what.leftovers => {
            table::discard_leftovers(ctx, what.scratch_dir.as_deref())
        }
        Some(Ends::Discard(what)) => discard(ctx, &what.place),
        Some(Ends::Database(args)) => database::run(ctx, args),
        Some(Ends::Table(args)) => table::run(ctx, args),
    }
}

fn restore(ctx: &Context, args: &To) -> Result<Outcome> {
    let now = clock::now();
    let request = request(args, now)?;
    let config = ctx.load_config()?;
    let cluster = ctx.cluster(&config)?;
    // Before root is given up: the identity may be root's alone.
    let identities = source::identities(&config)?;
    let runtime = ctx.runtime()?;
    let work = async {
        let data_directory = survey::data_directory(&request, cluster).await?;
        let owner = survey::owner(&data_directory)?;
        privilege::become_owner(owner.clone())?;
        let task = Task {
            config: &config,
            cluster,
            only: ctx.repo.as_ref(),
            request: &request,
            trusted: args.consent.trusted()?,
            identities,
            fetch_command: fetch_command(ctx, &config)?,
            owner,
            data_directory,
            now,
            progress: ctx.progress(),
            priority: crate::util::priority::Priority::Usual,
            side: SideKind::Kept,
            parts: None,
        };
        // The futures of a whole restore are large; they live on the heap.
        let prepared = Box::pin(prepare::run(&task)).await?;
        if args.consent.dry_run {
            show_plan(ctx, &prepared.plan)?;
            return Ok(None);
        }
        ctx.say(&show::text(&prepared.plan));
        confirm(ctx, args, &prepared)?;
        Box::pin(execute::run(&task, prepared)).await.map(Some)
    };
    let done = runtime.block_on(async {
        tokio::select! {
            done = work => done,
            () = ctx.cancel.cancelled() => Err(ended_by_signal(&request)),
        }
    });
    runtime.shutdown_background();
    match done? {
        None => Ok(Outcome::Done),
        Some(executed) => conclude(ctx, &executed),
    }
}

fn request(args: &To, now: crate::model::Timestamp) -> Result<Request> {
    let text = args.to.as_deref().ok_or_else(|| {
        Error::new(Code::Usage, "`pgkeep restore` needs --to TARGET")
            .hint("for example --to latest, or --to \"2026-11-21 14:25:00+00\"; `pgkeep window` shows what can be reached")
    })?;
    let parsed = Target::parse(text, now)?;
    let mut map = BTreeMap::new();
    for text in &args.map {
        let (oid, directory) = parse_map(text)?;
        map.insert(oid, directory);
    }
    let request = Request {
        target: parsed.target,
        zone_assumed: parsed.zone_assumed,
        inclusion: args.moment.inclusion(),
        timeline: args.moment.timeline(),
        backup: args.backup.clone(),
        place: args.target_dir.clone().map_or(Place::InPlace, Place::Directory),
        action: match args.action {
            ActionArg::Promote => Action::Promote,
            ActionArg::Pause => Action::Pause,
            ActionArg::Shutdown => Action::Shutdown,
        },
        map,
        overwrite: args.overwrite,
        standby: args.standby,
        no_start: args.no_start,
        port: args.port,
        socket_dir: args.socket_dir.clone(),
    };
    request.check(args.moment.is_explicit())?;
    Ok(request)
}

fn fetch_command(ctx: &Context, config: &Config) -> Result<String> {
    settings::fetch_command(ctx.config_path(), &ctx.cluster(config)?.name, ctx.repo.as_ref())
}

fn show_plan(ctx: &Context, plan: &RestorePlan) -> Result<()> {
    if ctx.json { ctx.print_json(plan) } else { ctx.print(&show::text(plan)) }
}

/// Nothing is touched before this has said yes.
fn confirm(ctx: &Context, args: &To, prepared: &Prepared) -> Result<()> {
    let plan = &prepared.plan;
    if plan.place.in_place && args.overwrite {
        let answer = if args.consent.yes {
            plan.cluster.to_string()
        } else {
            ctx.ask("--overwrite deletes what is there. Type the cluster's name to go on: ")?
        };
        if answer != plan.cluster.as_str() {
            return Err(not_confirmed());
        }
        return Ok(());
    }
    if args.consent.yes {
        return Ok(());
    }
    let answer = ctx.ask("Carry this plan out? Type yes: ")?;
    if answer == "yes" { Ok(()) } else { Err(not_confirmed()) }
}

fn not_confirmed() -> Error {
    Error::new(Code::NotConfirmed, "the plan was not confirmed, and nothing was done")
        .hint("run it again, or look at the plan with --dry-run")
}

fn ended_by_signal(request: &Request) -> Error {
    let hint = match &request.place {
        Place::InPlace => {
            "run the same command again: it carries on; a recovery that has begun goes on by itself with its plan file"
        }
        Place::Directory(_) => {
            "run the same command again: it removes what is unfinished and begins anew; a server that was started \
             already is removed with `pgkeep restore discard --target-dir DIR`"
        }
    };
    Error::new(Code::Cancelled, "the restore was ended by a signal").hint(hint)
}

fn conclude(ctx: &Context, executed: &Executed) -> Result<Outcome> {
    let Executed { report, written, .. } = executed;
    if ctx.json {
        ctx.print_json(report)?;
    } else {
        let mut lines = vec![format!("done: {}", report.result())];
        if let Some(kept) = &report.last_commit_kept {
            lines.push(format!("last commit kept: {kept}"));
        }
        for step in &report.kept_aside {
            if let Some(to) = &step.to {
                lines.push(format!("kept until you remove it: {}", to.display()));
            }
        }
        lines.push(format!("report: {}", written.display()));
        lines.extend(report.connect.iter().map(|line| format!("connect with: {line}")));
        lines.extend(report.ends_with.iter().map(|line| format!("end it with: {line}")));
        ctx.print(&lines.join("\n"))?;
    }
    for note in &report.notes {
        ctx.say(&format!("note: {note}"));
    }
    if report.holds() {
        return Ok(Outcome::Done);
    }
    for proof in report.proofs.iter().filter(|p| !p.holds) {
        super::report::to_stderr(&format!(
            "WARNING: {} is {}, and {} was planned",
            proof.what, proof.found, proof.planned
        ));
    }
    Ok(Outcome::Finding)
}

fn promote(ctx: &Context, place: &Where) -> Result<Outcome> {
    let config = ctx.load_config()?;
    let cluster = ctx.cluster(&config)?;
    let done =
        ctx.block_on(ending::promote(&config, cluster, place.target_dir.as_deref(), &ctx.progress()))??;
    if let Some(note) = &done.note {
        ctx.say(&format!("note: {note}"));
    }
    if ctx.json {
        ctx.print_json(
            &json!({ "data_directory": done.data_directory, "timeline": done.timeline, "fork": done.fork }),
        )?;
    } else {
        ctx.print(&format!(
            "open for writing on timeline {}, which begins at lsn {}: {}",
            done.timeline,
            done.fork,
            done.data_directory.display()
        ))?;
    }
    Ok(Outcome::Done)
}

fn discard(ctx: &Context, place: &Where) -> Result<Outcome> {
    let Some(directory) = &place.target_dir else {
        return Err(Error::new(Code::Usage, "`restore discard` needs --target-dir DIR").hint(
            "it removes a side instance; a restore in place is undone by stopping PostgreSQL and giving the directory \
             *_incident_* its old name back",
        ));
    };
    let side = ending::look(directory)?;
    if !place.yes {
        let question = format!(
            "Stop and remove the side instance of cluster {} in {}? Type yes: ",
            side.cluster,
            directory.display()
        );
        if ctx.ask(&question)? != "yes" {
            return Err(not_confirmed());
        }
    }
    ctx.block_on(ending::discard(directory, &side))??;
    ctx.print(&format!("removed {}", directory.display()))?;
    Ok(Outcome::Done)
}
