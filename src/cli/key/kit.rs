//! `pgkeep key kit`: everything that a restore from nothing needs, for a safe.
//!
//! Order: the identity, while this process may still read it → what the kit will hold, and whether the identity opens what is
//! stored → the passphrase → the kit, under its name when it is whole → a record in the repositories, as the server's owner.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use serde_json::json;
use zeroize::Zeroizing;

use crate::cli::context::{Context, Outcome};
use crate::cli::{passphrase, report};
use crate::codec::Identities;
use crate::config::{Config, EncryptionConfig};
use crate::error::{Code, Error, Result};
use crate::postgres::as_owner;
use crate::repository::access;
use crate::util::clock;
use crate::verify::kit::make::{self, Draft};
use crate::verify::kit::{Contents, Kit, record};

/// Writes a recovery kit: what a person needs to restore from nothing, the identity encrypted to a passphrase.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Where the kit is written: a new directory, or a tar file where the name ends in .tar.
    #[arg(long, value_name = "DIR|FILE.tar")]
    out: PathBuf,
    /// The identity, where the configuration names none that is here; - reads standard input.
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Read the passphrase from the first line of this file instead of asking for it twice.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Make a kit without an identity. It CANNOT restore: whoever uses it must have the identity from elsewhere.
    #[arg(long, conflicts_with_all = ["identity", "passphrase_file"])]
    without_identity: bool,
}

pub fn run(ctx: &Context, args: &Args) -> Result<Outcome> {
    let config = ctx.load_config()?;
    config.require_encryption()?;
    if std::fs::symlink_metadata(&args.out).is_ok() {
        return Err(crate::verify::kit::files::taken(&args.out));
    }
    let identities =
        if args.without_identity { None } else { identities(&config, args.identity.as_deref())? };
    // Before root is given up, and before anything is asked.
    let signer = access::host_key(&config);
    let draft = ctx.block_on_light(make::draft(&config, ctx.repo.as_ref(), identities, clock::now()))??;
    let passphrase = if draft.needs_passphrase() {
        let passphrase =
            passphrase::new(args.passphrase_file.as_deref(), "Passphrase for the kit's identity: ")?;
        if let Some(warning) = passphrase.judge()? {
            report::to_stderr(&format!("WARNING: {warning}"));
        }
        Some(passphrase)
    } else {
        None
    };
    let (notes, untried) = (draft.notes.clone(), draft.untried);
    let Written { kit, remembered } = write(ctx, &config, args, draft, passphrase.as_ref(), signer)?;
    let notes = notes.into_iter().chain(remembered).collect::<Vec<_>>();
    conclude(ctx, &args.out, &kit, &notes)?;
    Ok(if untried { Outcome::Finding } else { Outcome::Done })
}

/// The given one, else the configured one, if it is here. None where nothing is encrypted.
fn identities(config: &Config, given: Option<&Path>) -> Result<Option<Identities>> {
    let EncryptionConfig::Recipients { identity_file, .. } = &config.encryption else { return Ok(None) };
    if given == Some(Path::new("-")) {
        let mut text = Zeroizing::new(String::new());
        let read = std::io::stdin().take(1 << 20).read_to_string(&mut text);
        read.map_err(|e| Error::io("cannot read the identity", Path::new("standard input"), e))?;
        return Identities::parse(&text, "standard input").map(Some);
    }
    let configured = identity_file.as_deref().filter(|path| path.exists());
    match given.or(configured) {
        Some(path) => Identities::load(path).map(Some),
        None => Err(Error::new(Code::Key, "there is no identity on this host, and a kit without one cannot restore")
            .at(config.path.display())
            .hint(
                "bring it for this once: --identity FILE, or --identity - and standard input; --without-identity makes a kit \
                 that needs the identity from elsewhere",
            )
            .see("key-lost.md")),
    }
}

struct Written {
    kit: Kit,
    /// What went wrong with remembering it; the kit is whole all the same.
    remembered: Vec<String>,
}

fn write(
    ctx: &Context,
    config: &Config,
    args: &Args,
    mut draft: Draft,
    passphrase: Option<&crate::codec::Passphrase>,
    signer: Result<crate::repository::signature::HostKey>,
) -> Result<Written> {
    let repositories = std::mem::take(&mut draft.repositories);
    let kit = draft.finish(passphrase)?;
    kit.write(&args.out)?;
    let mut remembered = Vec::new();
    let key = match signer {
        Ok(key) => key,
        Err(e) => {
            remembered.push(format!("`pgkeep check` will not know of this kit: this host cannot sign: {e}"));
            return Ok(Written { kit, remembered });
        }
    };
    // What is written into a repository has the owner that everything there has.
    let cluster = ctx.cluster(config).or_else(|e| config.clusters.first().ok_or(e))?;
    if let Err(error) = as_owner::become_owner(&cluster.connection, cluster.data_directory.as_deref()) {
        tracing::debug!(%error, "not as the server's owner");
    }
    let targets: Vec<_> = repositories.iter().collect();
    let stored = ctx.block_on_light(async {
        let mut outcomes = Vec::new();
        for cluster in &config.clusters {
            outcomes.extend(record::put(&targets, &cluster.name, &kit.contents, &key).await?);
        }
        Ok::<_, Error>(outcomes)
    })?;
    let failed = match stored {
        Ok(outcomes) => outcomes
            .into_iter()
            .filter_map(|(name, stored)| Some(format!("in {name}: {}", stored.err()?)))
            .collect(),
        Err(e) => vec![e.to_string()],
    };
    remembered.extend(failed.into_iter().map(|e| format!("`pgkeep check` may not know of this kit: {e}")));
    Ok(Written { kit, remembered })
}

fn conclude(ctx: &Context, out: &Path, kit: &Kit, notes: &[String]) -> Result<()> {
    let Contents { fingerprint, opens, proved, .. } = &kit.contents;
    for note in notes {
        report::to_stderr(&format!("WARNING: {note}"));
    }
    let complete = kit.contents.is_complete();
    if !complete {
        report::to_stderr(
            "WARNING: THIS KIT CANNOT RESTORE BY ITSELF: it holds no identity. Keep the identity in a place of its own.",
        );
    }
    if ctx.json {
        let files: Vec<&str> = kit.names().map(|(name, _)| name).collect();
        return ctx.print_json(&json!({
            "path": out, "made_at": kit.contents.made_at, "complete": complete, "recipients_fingerprint": fingerprint,
            "opens": opens, "proved": proved, "files": files, "notes": notes,
        }));
    }
    let mut lines = vec![format!("recovery kit  {}", out.display()), format!("fingerprint   {fingerprint}")];
    let tried = proved.iter().map(|one| format!("opens         {} in {}", one.backup, one.repository));
    lines.extend(tried);
    ctx.print(&lines.join("\n"))?;
    if complete {
        ctx.say(&format!(
            "Put it into a safe, the passphrase elsewhere. Prove it: pgkeep drill --kit {} --scratch-dir DIR",
            out.display()
        ));
    }
    Ok(())
}
