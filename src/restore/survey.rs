//! Looks at the place of a restore: what is in the way, who runs it, what room there is. Reads only.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use super::place::{DirectoryState, Disk, OldTablespace, PlaceFacts, Role};
use super::request::{Place, Request};
use super::{aside, marker, settings};
use crate::config::ClusterConfig;
use crate::error::{Code, Error, Result};
use crate::model::PgMajor;
use crate::postgres::control_file::{ClusterState, ControlFile};
use crate::postgres::privilege::Owner;
use crate::postgres::service::{self, Service};
use crate::postgres::settings as conf;
use crate::postgres::tools::Tools;
use crate::util::{durable, host};

/// The data directory that is meant: the given one, the configured one, or that of the server that answers.
pub async fn data_directory(request: &Request, cluster: &ClusterConfig) -> Result<PathBuf> {
    data_directory_of(&request.place, cluster).await
}

/// The same for a place.
pub async fn data_directory_of(place: &Place, cluster: &ClusterConfig) -> Result<PathBuf> {
    if let Place::Directory(dir) = place {
        return Ok(dir.clone());
    }
    if let Some(dir) = &cluster.data_directory {
        return Ok(dir.clone());
    }
    let asked = async {
        // As root nobody is let in by `peer`; whoever owns the server's files is.
        crate::postgres::as_owner::connect_as_owner(&cluster.connection, None).await?.facts().await
    };
    match asked.await {
        Ok(facts) => Ok(facts.data_directory),
        Err(e) => {
            Err(Error::new(Code::Config, "the server does not answer, and no data directory is configured")
                .at(format!("cluster {}", cluster.name))
                .hint(format!(
                    "set data_directory in [cluster.{}]: it is what a restore in place replaces",
                    cluster.name
                ))
                .because(e))
        }
    }
}

/// Whose the restored files will be: of whom they are now, else `postgres`, else who runs this.
pub fn owner(data_directory: &Path) -> Result<Owner> {
    if data_directory.exists() {
        let found = Owner::of(data_directory)?;
        if !found.uid.is_root() {
            return Ok(found);
        }
    }
    let current = Owner::current()?;
    if !current.uid.is_root() {
        return Ok(current);
    }
    Owner::named("postgres").map_err(|e| {
        e.hint(
            "PostgreSQL does not run as root: run pgkeep as the server's user, or make the user `postgres`",
        )
    })
}

/// What the data directory is.
pub fn state(data_directory: &Path) -> Result<DirectoryState> {
    let unreadable = |e| Error::io("cannot look into the directory", data_directory, e);
    let entries = match std::fs::read_dir(data_directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(DirectoryState::Absent),
        Err(e) => return Err(unreadable(e)),
    };
    let mut example = None;
    for entry in entries {
        let name = entry.map_err(unreadable)?.file_name();
        // A file system of its own has this from the first day on; a restore killed before its marker was in place
        // leaves a temporary.
        if name != "lost+found" && !durable::is_temporary(&name) {
            example.get_or_insert(name);
        }
    }
    let Some(example) = example else { return Ok(DirectoryState::Empty) };
    if let Some(left) = marker::read(data_directory)?
        && !marker::was_started(data_directory)
    {
        return Ok(DirectoryState::Leftover { plan: left.plan, filled: left.filled });
    }
    let Ok(version) = std::fs::read_to_string(data_directory.join("PG_VERSION")) else {
        return Ok(DirectoryState::Other { example: example.to_string_lossy().into_owned() });
    };
    let control = match ControlFile::read(data_directory) {
        Ok(control) => control,
        Err(e) => return Ok(DirectoryState::Unreadable { why: e.to_string() }),
    };
    Ok(DirectoryState::Cluster {
        system: control.system,
        major: PgMajor(version.trim().parse().unwrap_or(0)),
        role: role(control.state),
        bytes: bytes_below(data_directory),
    })
}

fn role(state: ClusterState) -> Role {
    match state {
        ClusterState::InArchiveRecovery | ClusterState::ShutDownInRecovery => Role::InRecovery,
        _ => Role::Primary,
    }
}

/// Of regular files; what cannot be looked at counts nothing, for this is for people.
fn bytes_below(directory: &Path) -> u64 {
    let files = walkdir::WalkDir::new(directory).into_iter().filter_map(std::result::Result::ok);
    files.filter(|e| e.file_type().is_file()).filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
}

/// The manager of the server in the data directory, for a restore in place.
pub async fn service(
    cluster: &ClusterConfig,
    data_directory: &Path,
    owner: &Owner,
    tools: &Tools,
) -> Result<Service> {
    let commands = service::Commands {
        stop: cluster.service.stop.clone(),
        start: cluster.service.start.clone(),
        status: cluster.service.status.clone(),
    };
    Service::detect(commands, data_directory, owner.clone(), tools.clone()).await
}

/// The facts about a place, given what was found out before. `tablespace_homes` are the directories that tablespaces
/// of the plan may go to; `version_directory` is `PG_<major>_<catalog>`, where it is known.
pub fn facts(
    data_directory: &Path,
    state: DirectoryState,
    owner: &Owner,
    tablespace_homes: &[PathBuf],
    version_directory: Option<&str>,
    in_place: bool,
) -> Result<PlaceFacts> {
    let old_tablespaces = if in_place { old_tablespaces(data_directory)? } else { Vec::new() };
    let wal_directory = std::fs::read_link(data_directory.join("pg_wal")).ok().filter(|_| in_place);
    let homes = old_tablespaces.iter().map(|t| &t.location).chain(tablespace_homes);
    let mut version_directories: Vec<PathBuf> = Vec::new();
    if let (Some(version), true) = (version_directory, in_place) {
        for home in homes {
            let inside = home.join(version);
            if inside.is_dir() && !version_directories.contains(&inside) {
                version_directories.push(inside);
            }
        }
    }
    let mut disks = vec![disk(data_directory)?];
    for home in tablespace_homes.iter().chain(&wal_directory) {
        disks.push(disk(home)?);
    }
    let movable = wal_directory.iter().chain(&version_directories);
    let earlier_incidents = aside::earlier(movable.map(PathBuf::as_path).chain([data_directory]));
    Ok(PlaceFacts {
        host: host::name(),
        owner: owner.label(),
        data_directory: data_directory.to_path_buf(),
        state,
        running: None,
        service: String::new(),
        wal_directory,
        old_tablespaces,
        version_directories,
        earlier_incidents,
        disks,
        member_bytes: Vec::new(),
    })
}

fn old_tablespaces(data_directory: &Path) -> Result<Vec<OldTablespace>> {
    let directory = data_directory.join("pg_tblspc");
    let Ok(entries) = std::fs::read_dir(&directory) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| Error::io("cannot list the tablespaces", &directory, e))?;
        let oid = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok());
        if let (Some(oid), Ok(location)) = (oid, std::fs::read_link(entry.path())) {
            found.push(OldTablespace { oid, location: directory.join(location) });
        }
    }
    found.sort_by_key(|t| t.oid);
    Ok(found)
}

/// Configuration outside of the data directory stays as it is: a recovery target in it would be a second one, which is
/// fatal to PostgreSQL after the backup was fetched.
pub fn refuse_stale_targets(service: &Service) -> Result<()> {
    let main = service.config_file();
    if main.starts_with(&service.data_directory) || !main.exists() {
        return Ok(());
    }
    for file in conf::files(&main)? {
        let text = std::fs::read(&file).map_err(|e| Error::io("cannot read the configuration", &file, e))?;
        let lines = conf::parse(&String::from_utf8_lossy(&text));
        let stale = lines
            .iter()
            .find(|l| settings::TARGET_SETTINGS.contains(&l.name.as_str()) && !l.value.is_empty());
        if let Some(line) = stale {
            return Err(Error::new(Code::Refused, format!("{} is set from an earlier recovery", line.name))
                .at(file.display())
                .hint("take that line out, then run the restore again: two recovery targets are fatal to PostgreSQL"));
        }
    }
    Ok(())
}

/// A tablespace of a side instance goes only where nothing is; in place, what is not PostgreSQL's own is in the way.
pub fn refuse_used_homes(request: &Request, homes: &[PathBuf], facts: &PlaceFacts) -> Result<()> {
    for home in homes {
        let used = std::fs::read_dir(home).is_ok_and(|mut entries| entries.next().is_some());
        let theirs = facts.version_directories.iter().any(|v| v.starts_with(home));
        let leftover = matches!(facts.state, DirectoryState::Leftover { .. });
        let ours =
            request.place == Place::InPlace && theirs || home.starts_with(&facts.data_directory) || leftover;
        let mapped = request.map.values().any(|m| m == home);
        if used && !ours && (mapped || request.place != Place::InPlace) {
            return Err(Error::new(
                Code::NotEmpty,
                "a directory that a tablespace is mapped to is not empty",
            )
            .at(home.display())
            .hint("map it to a directory that is empty or does not exist"));
        }
    }
    Ok(())
}

/// Of the file system that `path` is on, or will be on.
pub fn disk(path: &Path) -> Result<Disk> {
    let mut there = path;
    while !there.exists() {
        there = there.parent().unwrap_or(Path::new("/"));
    }
    let device =
        std::fs::metadata(there).map_err(|e| Error::io("cannot look at the file system", there, e))?.dev();
    let stat = statvfs(there).map_err(|e| {
        Error::new(Code::Io, "cannot ask the file system for its room").at(there.display()).because(e)
    })?;
    let available = stat.blocks_available().saturating_mul(stat.fragment_size());
    Ok(Disk { path: path.to_path_buf(), device, available })
}
