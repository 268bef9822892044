//! Does this identity open what is stored? The newest trusted backup of each kind is asked, by the header of one object of
//! its data and of one of its metadata: age authenticates a header with the key that the identity unwraps.

use super::Proved;
use crate::codec::{self, Identities};
use crate::error::{Code, Error, Result};
use crate::model::{BackupKind, ClusterName, PgMajor};
use crate::repository::catalog::{Catalog, CatalogEntry};
use crate::repository::signature::Trust;
use crate::repository::{Repository, keys};
use crate::storage;

/// Holds every header with more recipients than anybody has.
const HEAD: u64 = 64 << 10;

/// What came of it in one repository.
#[derive(Debug, Default)]
pub struct Tried {
    pub opened: Vec<Proved>,
    /// Of the newest base backup, else of the newest at all.
    pub postgres: Option<PgMajor>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// A backup that the identity does not open is an error. A repository without backups proves nothing, and says so.
pub async fn try_backups(
    repository: &Repository,
    cluster: &ClusterName,
    trust: &Trust,
    identities: Option<&Identities>,
) -> Result<Tried> {
    let catalog = Catalog::load(repository, cluster, trust).await?;
    let mut tried = Tried::default();
    let trusted: Vec<&CatalogEntry> = catalog.backups.iter().filter(|entry| entry.is_trusted()).collect();
    let newest = |kind: BackupKind| trusted.iter().rev().find(|entry| entry.record.kind == kind);
    for kind in [BackupKind::Full, BackupKind::Dump, BackupKind::Schema, BackupKind::Tables] {
        let Some(entry) = newest(kind) else { continue };
        tried.postgres = tried.postgres.or(entry.record.major());
        open_one(repository, cluster, entry, identities).await?;
        tried.opened.push(Proved {
            repository: repository.name.clone(),
            cluster: cluster.clone(),
            backup: entry.record.id.clone(),
        });
    }
    let name = &repository.name;
    if tried.opened.is_empty() {
        tried.notes.push(format!(
            "repository {name} has no trusted backup of {cluster}: that the identity opens it is not proved"
        ));
    }
    if let Some(identities) = identities {
        let own = identities.recipients();
        let foreign = |entry: &&&CatalogEntry| {
            let recipients = &entry.record.recipients;
            !recipients.is_empty() && !recipients.iter().any(|r| own.contains(r))
        };
        let shut: Vec<&str> = trusted.iter().filter(foreign).map(|e| e.record.id.as_str()).collect();
        if let Some(last) = shut.last() {
            tried.notes.push(format!(
                "{} older backups in {name} need another identity, the newest of them {last}: add it to the identity file as a line of its own",
                shut.len()
            ));
        }
    }
    Ok(tried)
}

async fn open_one(
    repository: &Repository,
    cluster: &ClusterName,
    entry: &CatalogEntry,
    identities: Option<&Identities>,
) -> Result<()> {
    let (id, objects) = (&entry.record.id, &entry.record.objects);
    let is_metadata = |key: &str| keys::backup::is_index(key) || keys::backup::is_manifest(key);
    let data = objects.iter().find(|object| !is_metadata(&object.key));
    let metadata = objects.iter().find(|object| is_metadata(&object.key));
    for object in data.into_iter().chain(metadata) {
        let key = keys::backup::object(cluster, id, &object.key);
        let body = repository.storage.get(&key, Some(0..object.bytes.min(HEAD))).await?;
        let head = storage::collect(body, HEAD).await?;
        let place = repository.place(&key);
        codec::unlocks(&head, &place, identities).map_err(|e| match e.code() {
            Code::WrongKey => {
                Error::new(Code::WrongKey, format!("the identity does not open the backup {id}"))
                    .at(place)
                    .hint(format!(
                        "it is the newest of its kind, and encrypted to {}: bring that identity, too, or take a new one \
                         (pgkeep backup {}) and make the kit again",
                        entry.record.recipients.join(", "),
                        entry.record.kind.as_str()
                    ))
                    .because(e)
            }
            _ => e,
        })?;
    }
    Ok(())
}
