//! `pgkeep init`: from nothing to a set-up that `check` can prove. On an existing configuration it makes only what is
//! missing, so it can be run again at any time; after `pg_upgrade` it adds the entry of the new system identifier.
//!
//! Order: files and directories (as root, for `/etc` is root's) → become the owner of PostgreSQL's files → this host's
//! keys → the role → the connection → the repositories' entries → PostgreSQL's settings. What was made is said at the
//! end, also when a later step failed: nothing of it has to be undone.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::context::{Context, Outcome};
use crate::config::{Config, EncryptionConfig};
use crate::error::{Code, Error, Result};
use crate::model::ClusterName;
use crate::postgres::as_owner;
use crate::postgres::conninfo::ConnInfo;
use crate::postgres::facts::ServerFacts;
use crate::postgres::session::Session;
use crate::repository::access::KeyFiles;
use crate::repository::host_keys;

pub mod archiving;
mod configuration;
mod places;
mod service;
mod stores;

use archiving::Change;
use configuration::{NewConfiguration, quoted};
use places::Places;

/// Makes the configuration, the keys and the repository; only what is missing.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools)] // switches of a command line
pub struct Args {
    /// How PostgreSQL is reached (libpq's syntax). [default: host=/var/run/postgresql dbname=postgres, user postgres]
    #[arg(long, value_name = "CONNINFO")]
    connection: Option<String>,
    /// The data directory, where it cannot be asked of the server.
    #[arg(long, value_name = "DIR")]
    data_directory: Option<PathBuf>,
    /// PostgreSQL's programs, where they are not found by themselves.
    #[arg(long, value_name = "DIR")]
    bin_directory: Option<PathBuf>,
    /// Where this host keeps its own keys. [default: /var/lib/pgkeep]
    #[arg(long, value_name = "DIR")]
    state_directory: Option<PathBuf>,
    /// Where backups go: file:///srv/pgkeep or s3://bucket/prefix.
    #[arg(long, value_name = "URL")]
    repository: Option<String>,
    /// S3: the region.
    #[arg(long)]
    region: Option<String>,
    /// S3: the server, for stores other than AWS.
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// S3: the bucket's name in the path.
    #[arg(long)]
    path_style: bool,
    /// S3: certificates trusted besides the system's.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// S3: the profile of the credentials.
    #[arg(long)]
    profile: Option<String>,
    /// Encrypt to this public key instead of making an identity; may be given several times.
    #[arg(long, value_name = "AGE1…")]
    recipient: Vec<String>,
    /// Where a new identity is written. [default: identity.txt beside the configuration]
    #[arg(long, value_name = "FILE", conflicts_with = "recipient")]
    identity: Option<PathBuf>,
    /// Write `none` to store everything in the clear.
    #[arg(long, value_name = "none", value_parser = ["none"], conflicts_with_all = ["recipient", "identity"])]
    encryption: Option<String>,
    /// Set PostgreSQL's settings (ALTER SYSTEM) instead of printing them.
    #[arg(long)]
    apply: bool,
    /// With --apply: take the place of another tool that archives now.
    #[arg(long, requires = "apply")]
    replace: bool,
    /// Make the least-privilege role that the connection names.
    #[arg(long)]
    create_role: bool,
    /// With --create-role and --apply: how a superuser connects. [default: the connection, as the server's owner]
    #[arg(long, value_name = "CONNINFO")]
    admin: Option<String>,
}

/// What was made and what is left to do.
struct Report {
    config_path: PathBuf,
    made: Vec<String>,
    identity: Option<PathBuf>,
    host_key: String,
    changes: Vec<Change>,
    applied: bool,
    pending_restart: Vec<String>,
    notes: Vec<String>,
    next: String,
}

pub fn run(ctx: &Context, args: &Args) -> Result<Outcome> {
    let mut places = Places { owner: None, made: Vec::new() };
    let done = work(ctx, args, &mut places);
    if done.is_err() && !places.made.is_empty() {
        ctx.say(&format!(
            "made so far (run the same command again to go on):\n  {}",
            places.made.join("\n  ")
        ));
    }
    let report = done?;
    if ctx.json {
        ctx.print_json(&document(&report))?;
    } else {
        ctx.print(&text(&report))?;
    }
    Ok(Outcome::Done)
}

fn work(ctx: &Context, args: &Args, places: &mut Places) -> Result<Report> {
    let identity = configuration(ctx, args, places)?;
    let config = ctx.load_config()?;
    config.require_encryption()?;
    let cluster = ctx.cluster(&config)?;
    let directory = cluster.data_directory.as_deref();
    places.owner = owner(&cluster.connection, directory)?;
    places.directories(&config)?;
    let next = service::Next::prepare(&config, places)?;
    as_owner::become_owner(&cluster.connection, directory)?;
    let keys = host_keys::make_missing(&KeyFiles::of(&config))?;
    places.made.extend(keys.iter().map(|path| format!("key {}", path.display())));
    ctx.block_on_light(with_server(ctx, args, &config, places))?.map(|mut report| {
        // Said each time, for as long as it lies here.
        report.identity = identity.or_else(|| identity_here(&config));
        report.made.clone_from(&places.made);
        report.next = next.text();
        report
    })
}

/// The configured identity, where it lies on this host.
fn identity_here(config: &Config) -> Option<PathBuf> {
    match &config.encryption {
        EncryptionConfig::Recipients { identity_file: Some(path), .. } if path.exists() => Some(path.clone()),
        _ => None,
    }
}

/// As root, whose server this is; else nobody becomes anybody.
fn owner(connection: &str, directory: Option<&Path>) -> Result<Option<crate::postgres::privilege::Owner>> {
    if nix::unistd::geteuid().is_root() { as_owner::owner(connection, directory).map(Some) } else { Ok(None) }
}

/// Writes the configuration where none is; gives the path of the identity that was made for it.
fn configuration(ctx: &Context, args: &Args, places: &mut Places) -> Result<Option<PathBuf>> {
    let path = &ctx.config_path;
    if path.exists() {
        return same_as_there(ctx, args, path).map(|()| None);
    }
    let url = args.repository.clone().ok_or_else(|| {
        Error::new(Code::Usage, "there is no configuration yet, and --repository was not given")
            .at(path.display())
            .hint("pgkeep init --repository file:///srv/pgkeep, or --repository s3://bucket/prefix --region REGION")
    })?;
    let connection = args.connection.clone().unwrap_or_else(|| default_connection(args.create_role));
    places.owner = owner(&connection, args.data_directory.as_deref())?;
    // Written down, so that a restore knows it when the server is gone.
    let data_directory = match &args.data_directory {
        Some(given) => Some(given.clone()),
        None => as_owner::data_directory(&connection)?,
    };
    let fresh = args.recipient.is_empty() && args.encryption.is_none();
    let identity = fresh.then(|| {
        let beside = || path.with_file_name("identity.txt");
        args.identity.clone().map_or_else(beside, |p| std::path::absolute(&p).unwrap_or(p))
    });
    let new = |recipients| NewConfiguration {
        cluster: ctx.cluster.as_ref().map_or_else(|| "main".to_owned(), ToString::to_string),
        connection: connection.clone(),
        data_directory: data_directory.clone(),
        bin_directory: args.bin_directory.clone(),
        state_directory: args.state_directory.clone(),
        repository: ctx.repo.as_ref().map_or_else(|| "main".to_owned(), ToString::to_string),
        url: url.clone(),
        store: store_keys(args),
        recipients,
        identity_file: identity.clone(),
    };
    // Faults in what was typed come out before anything is written.
    Config::parse(path, &new(None).text())?;
    let recipients = match (&identity, &args.encryption) {
        (Some(file), _) => Some(vec![places.identity(file)?]),
        (None, None) => Some(args.recipient.clone()),
        (None, Some(_)) => None,
    };
    let text = new(recipients).text();
    Config::parse(path, &text)?;
    places.configuration(path, &text)?;
    Ok(identity)
}

/// On an existing configuration what was typed must be what is there: it is never changed, and never ignored either.
fn same_as_there(ctx: &Context, args: &Args, path: &Path) -> Result<()> {
    let config = ctx.load_config()?;
    let differs = |what: &str| {
        Err(Error::new(Code::Usage, format!("there is a configuration already, and it has another {what}"))
            .at(path.display())
            .hint("it is not changed here: edit it, then run `pgkeep init` again"))
    };
    let cluster = ctx.cluster(&config)?;
    if args.connection.as_ref().is_some_and(|given| *given != cluster.connection) {
        return differs("connection");
    }
    if args.repository.as_ref().is_some_and(|url| !config.repositories.iter().any(|r| r.store.url == *url)) {
        return differs("repository");
    }
    let recipients = match &config.encryption {
        EncryptionConfig::Recipients { recipients, .. } => recipients.as_slice(),
        EncryptionConfig::None | EncryptionConfig::Unset => &[],
    };
    if !args.recipient.iter().all(|given| recipients.contains(given)) {
        return differs("recipient");
    }
    if args.encryption.is_some() && config.encryption != EncryptionConfig::None {
        return differs("encryption");
    }
    Ok(())
}

fn default_connection(create_role: bool) -> String {
    let user = if create_role { "pgkeep" } else { "postgres" };
    format!("host=/var/run/postgresql user={user} dbname=postgres")
}

fn store_keys(args: &Args) -> Vec<(&'static str, String)> {
    let mut keys = Vec::new();
    let ca_file = args.ca_file.as_ref().map(|path| path.display().to_string());
    let texts = [
        ("region", &args.region),
        ("endpoint", &args.endpoint),
        ("ca_file", &ca_file),
        ("profile", &args.profile),
    ];
    for (key, value) in texts {
        keys.extend(value.as_ref().map(|value| (key, quoted(value))));
    }
    if args.path_style {
        keys.push(("path_style", "true".to_owned()));
    }
    keys
}

/// Everything that needs the server or a store.
async fn with_server(ctx: &Context, args: &Args, config: &Config, places: &mut Places) -> Result<Report> {
    let cluster = ctx.cluster(config)?;
    let mut notes = Vec::new();
    let admin = if args.create_role || args.admin.is_some() {
        Some(superuser(args, &cluster.connection).await?)
    } else {
        None
    };
    if args.create_role
        && let Some(admin) = &admin
    {
        let role = ConnInfo::resolve(&cluster.connection)?.user;
        admin.ensure_role(&role).await?;
        notes.push(format!("role {role} has what it needs"));
    }
    let session = crate::postgres::connect::connect(&cluster.connection)
        .await
        .map_err(|e| if args.create_role { with_peer_hint(e, &cluster.connection) } else { e })?;
    let facts = session.facts().await?;
    config.refuse_roots_inside(&facts.data_directory)?;
    stores::prepare(ctx, config, &cluster.name, &facts, places, &mut notes).await?;
    let command = own_command(ctx, &cluster.name)?;
    let changes = archiving::changes(&facts, &command);
    let applied = args.apply && !changes.is_empty();
    if applied {
        apply(args, admin.as_ref().unwrap_or(&session), &facts, &changes).await?;
    }
    Ok(Report {
        config_path: config.path.clone(),
        made: Vec::new(),
        identity: None,
        host_key: host_keys::own_public_key(config)?.map_or_else(String::new, |key| key.line()),
        changes,
        applied,
        pending_restart: if applied { session.pending_restart().await? } else { Vec::new() },
        notes,
        next: String::new(),
    })
}

/// This program's `archive_command`.
pub fn own_command(ctx: &Context, cluster: &ClusterName) -> Result<String> {
    let program = std::env::current_exe()
        .map_err(|e| Error::io("cannot find this program's own path", Path::new("/proc/self/exe"), e))?;
    Ok(archiving::archive_command(&program, &ctx.config_path, cluster))
}

async fn superuser(args: &Args, connection: &str) -> Result<Session> {
    let mut info = ConnInfo::resolve(args.admin.as_deref().unwrap_or(connection))?;
    if args.admin.is_none() {
        info.user = crate::postgres::privilege::Owner::current()?.label();
    }
    crate::postgres::connect::connect_to(&info)
        .await
        .map_err(|e| e.while_doing("cannot connect as a superuser (--admin CONNINFO says how)"))
}

/// A new role is known to SQL, and not yet to `pg_hba.conf`.
fn with_peer_hint(error: Error, connection: &str) -> Error {
    let role = ConnInfo::resolve(connection).map_or_else(|_| "pgkeep".to_owned(), |info| info.user);
    let owner =
        crate::postgres::privilege::Owner::current().map_or_else(|_| "postgres".to_owned(), |o| o.label());
    error.hint(format!(
        "the role is made, and PostgreSQL must let it in. In pg_hba.conf, above the other `local` lines:\n  local \
         all {role} peer map=pgkeep\nin pg_ident.conf:\n  pgkeep {owner} {role}\nthen reload PostgreSQL and run \
         this again"
    ))
}

async fn apply(args: &Args, session: &Session, facts: &ServerFacts, changes: &[Change]) -> Result<()> {
    if let Some(other) = archiving::other_archiver(facts)
        && !args.replace
    {
        return Err(Error::new(Code::Refused, format!("another tool archives this server: {other}"))
            .at(session.place())
            .hint("its backups would end: add --replace if that is what you want"));
    }
    for change in changes {
        session.alter_system(change.name, &change.value).await.map_err(|e| {
            if e.code() == Code::NotReady {
                e.hint(
                    "only a superuser may: run this as root, give --admin CONNINFO, or leave out --apply and \
                        put the printed lines into postgresql.conf",
                )
            } else {
                e
            }
        })?;
    }
    session.reload().await
}

fn document(report: &Report) -> serde_json::Value {
    json!({
        "config": report.config_path,
        "made": report.made,
        "identity_file": report.identity,
        "host_key": report.host_key,
        "settings": report.changes,
        "applied": report.applied,
        "pending_restart": report.pending_restart,
        "notes": report.notes,
    })
}

fn text(report: &Report) -> String {
    let mut lines = Vec::new();
    if report.made.is_empty() {
        lines.push("everything was there already".to_owned());
    }
    lines.extend(report.made.iter().map(|what| format!("made {what}")));
    lines.extend(report.notes.iter().cloned());
    lines.push(String::new());
    settings_text(report, &mut lines);
    if let Some(path) = &report.identity {
        lines.push(format!(
            "\nIMPORTANT: {} opens every backup. Copy it to two safe places that are not this host,\nthen remove it \
             here: backing up needs only the public key that is in the configuration.",
            path.display()
        ));
    }
    lines.push(format!(
        "\nFor the configuration of other hosts that restore these backups:\n{}",
        super::key::trust_lines(&report.host_key)
    ));
    lines.push(format!("\n{}", report.next));
    lines.join("\n")
}

fn settings_text(report: &Report, lines: &mut Vec<String>) {
    if report.changes.is_empty() {
        lines.push("PostgreSQL's settings are right.".to_owned());
        return;
    }
    lines.push(if report.applied {
        "PostgreSQL's settings were changed:".to_owned()
    } else {
        "PostgreSQL's settings to change (postgresql.conf, or run `pgkeep init --apply`):".to_owned()
    });
    for change in &report.changes {
        let now = if change.now.is_empty() { "unset" } else { &change.now };
        let value = change.value.replace('\'', "''");
        let restart = if change.restart { ", needs a restart" } else { "" };
        lines.push(format!("  {} = '{value}'    # now: {now}{restart}", change.name));
    }
    let restart = report.changes.iter().any(|c| c.restart) || !report.pending_restart.is_empty();
    lines.push(match (report.applied, restart) {
        (true, true) => "Now restart PostgreSQL: archiving begins with the restart.".to_owned(),
        (true, false) => "They are in force.".to_owned(),
        (false, true) => "Then restart PostgreSQL.".to_owned(),
        (false, false) => "Then reload PostgreSQL.".to_owned(),
    });
}
