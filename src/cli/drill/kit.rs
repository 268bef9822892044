//! `pgkeep drill --kit`: the drill from an empty environment. Of this host it uses PostgreSQL's programs, the scratch directory and
//! the variables that the kit's instructions name; neither its configuration nor its state directory nor its identity.

use std::path::{Path, PathBuf};

use super::Origin;
use crate::cli::context::Context;
use crate::cli::passphrase;
use crate::codec::{GeneratedIdentity, Identities};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::postgres::privilege;
use crate::repository::access;
use crate::repository::configured::{self, Patience};
use crate::repository::signature::PublicHostKey;
use crate::restore::survey;
use crate::util::durable;
use crate::verify::kit::{CONFIGURATION, Contents, HOME, Kit, proof};
use crate::verify::report::FromKit;

/// Reads and checks the kit, opens its identity, and lays its configuration where `wal fetch` finds it: in a directory that
/// is removed with the returned value. Gives up root.
pub fn origin(
    ctx: &Context,
    place: &Path,
    passphrase_file: Option<&Path>,
    scratch: Option<&Path>,
    trusted: &[PublicHostKey],
) -> Result<Origin> {
    let Some(scratch) = scratch else {
        return Err(Error::new(Code::Usage, "a drill from a kit needs to be told where it may work")
            .hint("add --scratch-dir DIR, with room for the whole cluster: the host's own configuration is not used"));
    };
    let kit = Kit::read(place)?;
    ctx.say(&format!("recovery kit {}, whole", kit.contents.words()));
    let identities = kit.identities(|| passphrase::existing(passphrase_file, "Passphrase of the kit: "))?;
    let owner = survey::owner(scratch)?;
    privilege::become_owner(owner)?;
    let private = tempfile::Builder::new()
        .prefix("pgkeep-kit-")
        .tempdir()
        .map_err(|e| Error::io("cannot make a directory for the kit", std::env::temp_dir(), e))?;
    let config = lay_out(&kit, private.path())?;
    let cluster = ctx.cluster(&config)?;
    for repository in configured::selected(&config, ctx.repo.as_ref())? {
        // A missing variable is said before anything is tried.
        access::store_settings(&repository).map_err(|e| {
            let step =
                "step 5 of the kit's INSTRUCTIONS.md says which; --repo NAME uses one repository alone";
            e.while_doing(format!("the keys of repository {} are not there", repository.name)).hint(step)
        })?;
    }
    let tried = try_newest(ctx, &config, &kit.contents, identities.as_ref(), trusted, &cluster.name);
    for note in ctx.block_on_light(tried)?? {
        ctx.say(&format!("WARNING: {note}"));
    }
    let Contents { made_at, host, fingerprint, .. } = &kit.contents;
    let from = FromKit { made_at: *made_at, host: host.clone(), fingerprint: fingerprint.clone() };
    let config_path = private.path().join(CONFIGURATION);
    Ok(Origin { config, config_path, identities, kit: Some(from), private: Some(private) })
}

/// The configuration with a state directory of its own, its certificates beside it. `wal fetch`, which PostgreSQL calls, does not
/// work without an identity; what this drill recovers it is served by the drill, so it gets one that opens nothing.
fn lay_out(kit: &Kit, private: &Path) -> Result<Config> {
    let text = kit.text(CONFIGURATION)?;
    let mut table: toml::Table = text.parse().map_err(|e| {
        Error::new(Code::Damaged, "the kit's configuration cannot be read").at(CONFIGURATION).because(e)
    })?;
    let quoted = |path: &Path| toml::Value::String(path.display().to_string());
    table.insert("state_directory".to_owned(), quoted(private));
    if let Some(toml::Value::Table(encryption)) = table.get_mut("encryption") {
        let opens_nothing = private.join("opens-nothing.txt");
        durable::write_new(&opens_nothing, GeneratedIdentity::new().file_text().as_bytes(), 0o600)?;
        encryption.insert("identity_file".to_owned(), quoted(&opens_nothing));
    }
    if let Some(toml::Value::Table(clusters)) = table.get_mut("cluster") {
        for cluster in clusters.iter_mut().filter_map(|(_, cluster)| cluster.as_table_mut()) {
            // Of the host where the kit was made; here they may lie elsewhere.
            let there = |value: &toml::Value| value.as_str().is_some_and(|path| Path::new(path).is_dir());
            if !cluster.get("bin_directory").is_some_and(there) {
                cluster.remove("bin_directory");
            }
        }
    }
    if let Some(toml::Value::Array(repositories)) = table.get_mut("repository") {
        for repository in repositories.iter_mut().filter_map(toml::Value::as_table_mut) {
            let Some(installed) = repository.get("ca_file").and_then(toml::Value::as_str) else { continue };
            let file = installed.strip_prefix(HOME).unwrap_or(installed).trim_start_matches('/').to_owned();
            let copy: PathBuf = private.join(&file);
            durable::write_new(&copy, kit.text(&file)?.as_bytes(), 0o600)?;
            repository.insert("ca_file".to_owned(), quoted(&copy));
        }
    }
    let path = private.join(CONFIGURATION);
    let text =
        toml::to_string_pretty(&table).map_err(|e| Error::internal("the kit's configuration").because(e))?;
    durable::write_new(&path, text.as_bytes(), 0o600)?;
    Config::load(&path)
}

/// Whether the kit still opens what is written. A store that does not answer is left to the drill, which says more of it.
async fn try_newest(
    ctx: &Context,
    config: &Config,
    kit: &Contents,
    identities: Option<&Identities>,
    trusted: &[PublicHostKey],
    cluster: &crate::model::ClusterName,
) -> Result<Vec<String>> {
    let trust = access::trust_with(config, trusted)?;
    let opened = configured::open_all(config, ctx.repo.as_ref(), Patience::default()).await?;
    let mut notes = Vec::new();
    for repository in opened.available() {
        match proof::try_backups(repository, cluster, &trust, identities).await {
            Ok(tried) => notes.extend(tried.notes),
            Err(e) if e.code() == Code::WrongKey => {
                return Err(Error::new(
                    Code::WrongKey,
                    format!("this kit is too old: its identity does not open the newest backups ({})", kit.words()),
                )
                .at(&repository.name)
                .because(e)
                .hint("the recipients have changed since: make a new kit where the new identity is, pgkeep key kit --out …"));
            }
            Err(e) => notes.push(format!("repository {}: {e}", repository.name)),
        }
    }
    Ok(notes)
}
