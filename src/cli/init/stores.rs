//! The repositories' own entries: `pgkeep.json`, the cluster, the system identifier. A required repository that does
//! not answer stops the work; an optional one is said and made the next time.

use std::path::Path;

use crate::cli::context::Context;
use crate::config::{Config, RepositoryConfig};
use crate::error::{Code, Error, Result};
use crate::model::ClusterName;
use crate::postgres::facts::ServerFacts;
use crate::repository::configured::{self, Patience};
use crate::repository::{Repository, SystemDocument, add_cluster, add_system, create, keys};
use crate::storage::Storage;
use crate::util::{clock, durable};

use super::places::Places;

/// Makes what is missing in each selected repository.
pub async fn prepare(
    ctx: &Context,
    config: &Config,
    cluster: &ClusterName,
    facts: &ServerFacts,
    places: &mut Places,
    notes: &mut Vec<String>,
) -> Result<()> {
    let system = SystemDocument {
        system_identifier: facts.system_identifier,
        pg_major: facts.major,
        wal_segment_bytes: facts.wal_segment_size,
    };
    for repository in configured::selected(config, ctx.repo.as_ref())? {
        match one(&repository, cluster, &system).await {
            Ok(made) => places.made.extend(made),
            Err(error) if repository.required => {
                return Err(error.while_doing(format!("cannot prepare the repository {}", repository.name)));
            }
            Err(error) => notes.push(format!(
                "WARNING: the optional repository {} was not prepared: {error}; run `pgkeep init` again when it is back",
                repository.name
            )),
        }
    }
    Ok(())
}

async fn one(
    config: &RepositoryConfig,
    cluster: &ClusterName,
    system: &SystemDocument,
) -> Result<Vec<String>> {
    let mut made = Vec::new();
    let storage = configured::open_store(config, Patience::default()).await?;
    if storage.head(keys::ROOT).await?.is_none() {
        refuse_foreign(config, &*storage).await?;
        create(&*storage, &format!("{:032x}", rand::random::<u128>()), clock::now()).await?;
        made.push(format!("repository {}: {}", config.name, storage.location()));
    }
    let repository = Repository::open(config.name.clone(), config.required, storage).await?;
    if repository.storage.head(&keys::cluster(cluster)).await?.is_none() {
        made.push(format!("repository {}: entry of cluster {cluster}", config.name));
    }
    add_cluster(&repository, cluster).await?;
    if repository.storage.head(&keys::system(cluster, system.system_identifier)).await?.is_none() {
        made.push(format!(
            "repository {}: entry of system identifier {} (PostgreSQL {})",
            config.name, system.system_identifier, system.pg_major
        ));
    }
    add_system(&repository, cluster, system).await?;
    Ok(made)
}

/// A root that holds something else is somebody else's: a wrong bucket, a home directory.
async fn refuse_foreign(config: &RepositoryConfig, storage: &dyn Storage) -> Result<()> {
    let mut there = match config.store.directory() {
        Some(root) => names_in(&root)?,
        None => storage.list_dirs("").await?,
    };
    there.retain(|name| name != "lost+found");
    if there.is_empty() {
        return Ok(());
    }
    there.truncate(5);
    Err(Error::new(Code::NotEmpty, format!("there is something else here already: {}", there.join(", ")))
        .at(storage.location())
        .hint("give pgkeep a directory or a prefix of its own"))
}

fn names_in(root: &Path) -> Result<Vec<String>> {
    let cannot = |e| Error::io("cannot look into the directory", root, e);
    let entries = std::fs::read_dir(root).map_err(cannot)?;
    let names = entries.map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned()).map_err(cannot));
    names.filter(|name| !name.as_ref().is_ok_and(|n| durable::is_temporary(n.as_ref()))).collect()
}
