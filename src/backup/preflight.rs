//! What must be right before anything is touched.

use std::path::PathBuf;
use std::time::Duration;

use super::lock::{self, ClusterLock};
use super::targets::Targets;
use super::{archiving, full::FullRequest};
use crate::codec::Protection;
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::model::{BackupKind, ClusterName, RepoName};
use crate::postgres::control_file::ControlFile;
use crate::postgres::{ConnInfo, ServerFacts, Session, connect_to};
use crate::repository::signature::HostKey;
use crate::repository::{Repository, access, keys, open};
use crate::storage::StoreSettings;

/// What a backup is written with.
pub(super) struct Keys {
    pub(super) protection: Protection,
    /// Of manifest and index: readable by this host too, where it has its metadata key.
    pub(super) metadata: Protection,
    pub(super) host_key: HostKey,
}

impl Keys {
    /// Before anything is asked of anybody: what would be stored in the clear by accident is refused. And whether this
    /// host lacks a metadata key.
    pub(super) fn open(config: &Config) -> Result<(Self, bool)> {
        let protection = access::protection(config)?;
        let (metadata, no_metadata_key) = access::metadata_protection(config)?;
        Ok((Self { protection, metadata, host_key: access::host_key(config)? }, no_metadata_key))
    }
}

/// Everything that the backup works with.
pub(super) struct Ready {
    pub(super) keys: Keys,
    pub(super) targets: Targets,
    /// The session that will hold the backup.
    pub(super) session: Session,
    pub(super) facts: ServerFacts,
    pub(super) data_directory: PathBuf,
    pub(super) lock: ClusterLock,
    pub(super) wal_root: keys::wal::WalRoot,
    /// What a person should know, though it stops nothing.
    pub(super) warnings: Vec<String>,
}

/// No single write takes that long: its object has at most 64 GiB.
const ABANDONED: Duration = Duration::from_hours(72);
/// S3 parts that all uploads of a run may hold in memory together, beside the fan-out's own chunks.
const PART_MEMORY: u64 = 96 << 20;

pub(super) async fn run(request: &FullRequest<'_>) -> Result<Ready> {
    let config = request.config;
    let (keys, no_metadata_key) = Keys::open(config)?;
    let mut warnings = Vec::new();
    if no_metadata_key {
        warnings.push(
            "this host has no metadata key: without the identity it will not be able to take incrementals or show \
             exact windows (`pgkeep init` makes one)"
                .to_owned(),
        );
    }

    request.progress.phase("checking the server and the repositories");
    let session = connect_to(&ConnInfo::resolve(&request.cluster.connection)?).await?;
    let facts = session.facts().await?;
    let data_directory = data_directory(request, &facts)?;
    config.refuse_roots_inside(&data_directory)?;
    archiving::check_settings(&facts)?;
    if facts.in_recovery && !facts.full_page_writes() {
        return Err(Error::new(
            Code::NotReady,
            "full_page_writes is off: a backup from this standby would be torn",
        )
        .hint("set full_page_writes = on on the primary"));
    }

    let targets = repositories(request, &facts).await?;
    let lock = lock::take(request.cluster, &facts).await?;
    if let Some(note) = &lock.note {
        request.progress.note(note);
        warnings.push(note.clone());
    }
    if let Some(still_wanted) = &request.still_wanted {
        still_wanted().await?;
    }
    // Under the lock, nobody else's running backup can be taken for a leftover.
    leftovers(&request.cluster.name, &targets, BackupKind::is_base, &mut warnings).await?;
    sweep(&targets, &mut warnings).await;
    let wal_root = keys::wal::WalRoot::new(&request.cluster.name, facts.system_identifier);
    Ok(Ready { keys, targets, session, facts, data_directory, lock, wal_root, warnings })
}

/// The server's data directory, which must be on this host and be this server's.
fn data_directory(request: &FullRequest<'_>, facts: &ServerFacts) -> Result<PathBuf> {
    let directory = facts.data_directory.clone();
    if let Some(configured) = &request.cluster.data_directory {
        let same = match (configured.canonicalize(), directory.canonicalize()) {
            (Ok(configured), Ok(directory)) => configured == directory,
            _ => *configured == directory,
        };
        if !same {
            return Err(Error::new(
                Code::ForeignCluster,
                format!(
                    "the connection leads to a server with data directory {}, the configuration says {}",
                    directory.display(),
                    configured.display()
                ),
            )
            .hint("correct `connection` or `data_directory` of this cluster"));
        }
    }
    let control = ControlFile::read(&directory).map_err(|e| {
        e.while_doing(
            "cannot read the server's data directory; a base backup is taken on the server's own host",
        )
    })?;
    if control.system != facts.system_identifier {
        return Err(Error::new(
            Code::ForeignCluster,
            format!(
                "the data directory here has system identifier {}, the server at the connection {}",
                control.system, facts.system_identifier
            ),
        )
        .at(directory.display())
        .hint("the connection leads to another host or server; run the backup there"));
    }
    Ok(directory)
}

async fn repositories(request: &FullRequest<'_>, facts: &ServerFacts) -> Result<Targets> {
    // Each worker may finish one pack while it writes the next.
    let targets = open_targets(request.config, request.only, 2 * request.workers.max(1)).await?;
    for repository in targets.current() {
        if let Err(e) = listed(&repository, request, facts).await {
            if repository.required {
                return Err(e);
            }
            targets.drop_out(&repository.name, e);
        }
    }
    Ok(targets)
}

/// Opens the repositories so that `writers` objects on their way at once keep within the memory.
pub(super) async fn open_targets(
    config: &Config,
    only: Option<&RepoName>,
    writers: usize,
) -> Result<Targets> {
    let count = if only.is_some() { 1 } else { config.repositories.len().max(1) };
    let uploads = writers.max(1) as u64 * count as u64;
    let bounded = |settings: &mut StoreSettings| {
        let parts = usize::try_from(PART_MEMORY / (uploads * settings.part_size)).unwrap_or(1);
        settings.parts_in_flight = parts.saturating_sub(1).clamp(1, settings.parts_in_flight.max(1));
    };
    let opened = access::open_repositories(config, only, bounded).await?;
    let (available, unavailable) = opened.required()?;
    Ok(Targets::new(available, unavailable))
}

/// The repository must know this system identifier, as the server that it is.
async fn listed(repository: &Repository, request: &FullRequest<'_>, facts: &ServerFacts) -> Result<()> {
    let entry = open::system(repository, &request.cluster.name, facts.system_identifier).await?;
    if entry.wal_segment_bytes != facts.wal_segment_size || entry.pg_major != facts.major {
        return Err(Error::new(
            Code::ForeignCluster,
            format!(
                "the repository knows system identifier {} as PostgreSQL {} with {} byte segments",
                entry.system_identifier,
                entry.pg_major,
                entry.wal_segment_bytes.bytes()
            ),
        )
        .at(repository.storage.location()));
    }
    Ok(())
}

/// Unfinished writes of killed runs (temporaries, multipart uploads, which cost money) that nobody has touched for days,
/// whoever's they are. A store that does not let us costs room, not the backup.
pub(super) async fn sweep(targets: &Targets, warnings: &mut Vec<String>) {
    for repository in targets.current() {
        if let Err(e) = repository.storage.sweep_unfinished(ABANDONED).await {
            warnings.push(format!("unfinished writes in repository {} were not swept: {e}", repository.name));
        }
    }
}

/// Objects of backups that were never published: found and said, never touched (`expire` deletes).
/// Of the kinds that the lock keeps apart: another one may be running.
pub(super) async fn leftovers(
    cluster: &ClusterName,
    targets: &Targets,
    ours: impl Fn(BackupKind) -> bool,
    warnings: &mut Vec<String>,
) -> Result<()> {
    for repository in targets.current() {
        let found = crate::repository::catalog::unpublished(&repository, cluster).await;
        match found {
            Ok(found) => warnings
                .extend(found.iter().filter(|(id, _)| ours(id.kind())).map(|(id, bytes)| {
                format!(
                    "{id} in repository {} was never published: {} left behind by a backup that was stopped",
                    repository.name,
                    crate::util::human::size(*bytes)
                )
            })),
            Err(e) if repository.required => return Err(e),
            Err(e) => targets.drop_out(&repository.name, e),
        }
    }
    Ok(())
}
