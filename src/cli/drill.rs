//! `pgkeep drill`: a restore in earnest, from the repository and the identity alone, that proves itself and goes away.

mod kit;

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

use super::context::{Context, Outcome};
use crate::agent::control::{Request, client};
use crate::archive::source;
use crate::codec::Identities;
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::model::{Inclusion, Target};
use crate::postgres::privilege;
use crate::repository::configured::{self, Patience};
use crate::repository::signature::PublicHostKey;
use crate::restore::{production, settings, survey};
use crate::util::clock::{self, Clock};
use crate::util::priority::Priority;
use crate::verify::drill::{self, Drill, Moment};
use crate::verify::keep::{self, Written};
use crate::verify::report::{self, FromKit, Kind, Report};
use crate::verify::restore_test;

/// Rehearses the whole disaster: restores to a random second beside production, proves it, times it, removes it.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// random (a second of what can be recovered), latest, a time (without a zone it is UTC), lsn:…, xid:…, name:… or
    /// backup.
    #[arg(long, value_name = "TARGET", default_value = "random")]
    to: String,
    /// Which random second: the same seed chooses the same one of the same window.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Stop just before the target; for a time, xid: and lsn:.
    #[arg(long)]
    before: bool,
    /// From this recovery kit alone, a directory or a tar file: nothing of this host's configuration, keys or state is used.
    /// Needs --scratch-dir; the report goes there, too.
    #[arg(long, value_name = "DIR|FILE.tar")]
    kit: Option<PathBuf>,
    /// Read the kit's passphrase from the first line of this file instead of asking for it.
    #[arg(long, value_name = "FILE", requires = "kit")]
    passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// What a drill and a restore test have in common.
#[derive(Debug, ClapArgs)]
pub struct Common {
    /// Where the instance is made. A drill needs the room of the whole cluster; a restore test proves what there is room for.
    #[arg(long, value_name = "DIR")]
    scratch_dir: Option<PathBuf>,
    /// Where the report is written, instead of reports in the state directory.
    #[arg(long, value_name = "DIR")]
    report_dir: Option<PathBuf>,
    /// Believe backups signed with this key (RW…), for this once.
    #[arg(long, value_name = "KEY")]
    trust: Vec<String>,
}

pub fn run(ctx: &Context, args: &Args) -> Result<Outcome> {
    let moment = moment(args)?;
    let Some(place) = &args.kit else {
        return carry_out(ctx, Kind::Drill, moment, &args.common, Origin::of_host(ctx)?);
    };
    let scratch = args.common.scratch_dir.clone().map(|dir| absolute("--scratch-dir", dir)).transpose()?;
    let (file, trusted) = (args.passphrase_file.as_deref(), args.common.trusted()?);
    let origin = kit::origin(ctx, place, file, scratch.as_deref(), &trusted)?;
    carry_out(ctx, Kind::Drill, moment, &args.common, origin)
}

impl Common {
    fn trusted(&self) -> Result<Vec<PublicHostKey>> {
        self.trust.iter().map(|key| PublicHostKey::parse(key)).collect()
    }
}

/// What a drill is carried out from.
pub struct Origin {
    config: Config,
    /// For PostgreSQL's `restore_command`.
    config_path: PathBuf,
    identities: Option<Identities>,
    kit: Option<FromKit>,
    /// Goes away with it.
    private: Option<tempfile::TempDir>,
}

impl Origin {
    /// This host's own configuration. Before root is given up: the identity may be root's alone.
    pub fn of_host(ctx: &Context) -> Result<Self> {
        let config = ctx.load_config()?;
        let identities = source::identities(&config)?;
        let config_path = ctx.config_path().to_owned();
        Ok(Self { config, config_path, identities, kit: None, private: None })
    }
}

/// A drill or a restore test, its report written and shown.
pub fn carry_out(
    ctx: &Context,
    kind: Kind,
    moment: Moment,
    args: &Common,
    origin: Origin,
) -> Result<Outcome> {
    let Origin { config, config_path, identities, kit, private } = origin;
    let cluster = ctx.cluster(&config)?;
    let scratch = production::scratch_directory(&config, args.scratch_dir.as_deref());
    let scratch = absolute("--scratch-dir", scratch)?;
    let report_dir = args.report_dir.clone().map(|dir| absolute("--report-dir", dir)).transpose()?;
    let report_dir = report_dir.or_else(|| kit.as_ref().map(|_| scratch.clone()));
    // Before the runtime's threads begin: this process does nothing else.
    Priority::low_if(config.proof.low_priority).of_this_thread();
    let owner = survey::owner(&scratch)?;
    let runtime = ctx.runtime()?;
    privilege::become_owner(owner.clone())?;
    let drill = Drill {
        config: &config,
        cluster,
        only: ctx.repo.as_ref(),
        kind,
        moment,
        scratch,
        trusted: args.trusted()?,
        identities,
        fetch_command: settings::fetch_command(&config_path, &cluster.name, ctx.repo.as_ref())?,
        owner,
        clock: Clock::system(),
        progress: ctx.progress(),
        cancel: ctx.cancel.clone(),
        known_loss: None,
    };
    let done = runtime.block_on(async {
        let mut report = match kind {
            Kind::Drill => Box::pin(drill::run(&drill)).await?,
            Kind::RestoreTest => Box::pin(restore_test::run(&drill)).await?,
        };
        report.kit = kit;
        // What was found is shown, whatever becomes of its files.
        let written = write(ctx, &config, &mut report, report_dir.as_deref()).await;
        let written = written.map_err(|e| report.notes.push(format!("the report was not written: {e}"))).ok();
        if report.kit.is_none() {
            client::tell(&config.agent.socket, &Request::BackupNews).await;
        }
        Ok::<_, Error>((report, written))
    });
    runtime.shutdown_background();
    drop(private);
    let (report, written) = done?;
    conclude(ctx, &report, written.as_ref())
}

/// A random second; which one, if nobody says.
pub fn random(seed: Option<u64>) -> Moment {
    Moment::Random { seed: seed.unwrap_or_else(|| u64::from(rand::random::<u32>())) }
}

fn moment(args: &Args) -> Result<Moment> {
    let inclusion = if args.before { Inclusion::Before } else { Inclusion::After };
    if args.to == "random" {
        if args.before {
            return Err(Error::new(Code::Usage, "`--before` means nothing for a random second")
                .hint("leave it out, or give a target with --to"));
        }
        return Ok(random(args.seed));
    }
    if args.seed.is_some() {
        return Err(Error::new(Code::Usage, "`--seed` is for a random second")
            .at(format!("--to {}", args.to))
            .hint("leave it out, or leave out --to"));
    }
    let parsed = Target::parse(&args.to, clock::now())?;
    if args.before && !parsed.target.has_inclusion() {
        return Err(Error::new(Code::Usage, "`--before` means nothing for this target")
            .at(format!("--to {}", args.to))
            .hint("it is for times, xid: and lsn: only"));
    }
    Ok(Moment::Given { target: parsed.target, inclusion, zone_assumed: parsed.zone_assumed })
}

fn absolute(option: &str, path: PathBuf) -> Result<PathBuf> {
    if path.is_absolute() {
        return Ok(path);
    }
    Err(Error::new(Code::Usage, format!("`{option}` needs an absolute path")).at(path.display()))
}

/// Into the repositories that were drilled from, and on this host. Stores that have gone away meanwhile do not take the
/// result away.
async fn write(
    ctx: &Context,
    config: &Config,
    report: &mut Report,
    directory: Option<&Path>,
) -> Result<Written> {
    if let Some(directory) = directory.filter(|_| report.kit.is_some()) {
        // Nobody could believe it there: a kit holds no key that signs.
        report.notes.push("the report is not in the repositories: a recovery kit cannot sign".to_owned());
        return keep::on_this_host(report, directory);
    }
    let opened = configured::open_all(config, ctx.repo.as_ref(), Patience::default()).await?;
    let (repositories, down) = opened.into_parts();
    for (name, _, error) in down {
        report.notes.push(format!("the report is not in repository {name}: {error}"));
    }
    keep::write(config, &repositories, report, directory).await
}

/// For people on standard error, the report on standard output; 4 unless everything was proved.
fn conclude(ctx: &Context, report: &Report, written: Option<&Written>) -> Result<Outcome> {
    if ctx.json {
        ctx.print_json(report)?;
    } else {
        ctx.print(&report::markdown(report))?;
        if let Some(written) = written {
            ctx.print(&format!("\nThe same as a page: {}", written.html.display()))?;
        }
    }
    if report.outcome == report::Outcome::Passed {
        return Ok(Outcome::Done);
    }
    for finding in report.findings() {
        super::report::to_stderr(&format!("WARNING: {finding}"));
    }
    ctx.say("see: runbooks/drill-failed.md");
    Ok(Outcome::Finding)
}
