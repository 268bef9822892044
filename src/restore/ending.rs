//! `restore promote` and `restore discard`: how a recovery that waits, or a side instance, ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::marker::Side;
use super::new_timeline::NewTimeline;
use super::request::Place;
use super::{connect, finish, marker, recover, survey};
use crate::config::{ClusterConfig, Config};
use crate::error::{Code, Error, Result};
use crate::model::{Lsn, PgMajor, TimelineId};
use crate::postgres::control_file::ControlFile;
use crate::postgres::instance::{self, Instance, StopMode};
use crate::postgres::privilege::{self, Owner};
use crate::postgres::service::running_server;
use crate::postgres::tools::Tools;
use crate::repository::configured::{self, Patience};
use crate::repository::keys::wal::WalRoot;
use crate::repository::recovery_plan::FILE_NAME as PLAN_FILE;
use crate::util::progress::Progress;

const PROMOTES_WITHIN: Duration = Duration::from_hours(1);
const STOPS_WITHIN: Duration = Duration::from_mins(5);

/// A recovery that was ended.
pub struct Promoted {
    pub data_directory: PathBuf,
    pub timeline: TimelineId,
    pub fork: Lsn,
    /// What a person should know.
    pub note: Option<String>,
}

/// Ends a paused recovery, of a side instance or in place.
pub async fn promote(
    config: &Config,
    cluster: &ClusterConfig,
    target_dir: Option<&Path>,
    progress: &Arc<dyn Progress>,
) -> Result<Promoted> {
    let data_directory = match target_dir {
        Some(directory) => directory.to_path_buf(),
        None => survey::data_directory_of(&Place::InPlace, cluster).await?,
    };
    if !data_directory.join("PG_VERSION").exists() {
        return Err(Error::new(Code::Refused, "there is no database in this directory")
            .at(data_directory.display())
            .hint("nothing was touched; check the directory"));
    }
    let owner = Owner::of(&data_directory)?;
    privilege::become_owner(owner.clone())?;
    if running_server(&data_directory)?.is_none() {
        return Err(Error::new(Code::NotReady, "no server runs there")
            .at(data_directory.display())
            .hint("start it first; recovery then goes on to its target"));
    }
    if !instance::in_recovery(&data_directory)? {
        return Err(Error::new(Code::NotReady, "the server is not in recovery")
            .at(data_directory.display())
            .hint("it is open for writing already: there is nothing to promote"));
    }
    if !data_directory.join(PLAN_FILE).exists() {
        return Err(Error::new(
            Code::Refused,
            "this recovery is none of `pgkeep restore`: it may be a standby",
        )
        .at(data_directory.display())
        .hint("to promote a standby, use `pg_ctl promote` or its cluster manager"));
    }
    let tools = tools(&data_directory, cluster, target_dir.is_some()).await?;
    progress.phase("promoting");
    let log = data_directory.join(recover::SIDE_LOG);
    let mut server = Instance::running(&tools, &data_directory, &owner, &log);
    server.promote(PROMOTES_WITHIN).await?;
    let (timeline, fork) = recover::new_timeline(&data_directory)?;
    finish::clear_recovery(&data_directory)?;
    let mut note = None;
    if target_dir.is_none() {
        let control = ControlFile::read(&data_directory)?;
        let (repositories, _) = configured::open_all(config, None, Patience::default()).await?.required()?;
        let new = NewTimeline {
            data_directory: &data_directory,
            repositories: &repositories,
            root: &WalRoot::new(&cluster.name, control.system),
            size: control.wal_segment_size,
            timeline,
            fork,
            progress: &**progress,
        };
        note = new.archive(connect::to(&data_directory, cluster, &owner, true).await).await?;
    }
    Ok(Promoted { data_directory, timeline, fork, note })
}

async fn tools(data_directory: &Path, cluster: &ClusterConfig, side: bool) -> Result<Tools> {
    let known = if side { marker::Side::read(data_directory)? } else { None };
    let version = std::fs::read_to_string(data_directory.join("PG_VERSION"))
        .map_err(|e| Error::io("cannot read the version of the cluster", data_directory, e))?;
    let major = PgMajor(version.trim().parse().unwrap_or(0));
    let configured = known.map(|k| k.bin_directory).or_else(|| cluster.bin_directory.clone());
    let running = crate::postgres::service::server_program(data_directory);
    Tools::find(major, configured.as_deref(), running.as_deref()).await
}

/// The side instance in this directory; anything else is not touched.
pub fn look(directory: &Path) -> Result<Side> {
    let unfinished = || -> Result<bool> { Ok(marker::read(directory)?.is_some()) };
    match Side::read(directory)? {
        Some(side) => Ok(side),
        None if unfinished()? => Err(not_ours(directory).hint(
            "an unfinished restore lies there: run the same `pgkeep restore` again, which removes it first",
        )),
        None => Err(not_ours(directory)),
    }
}

fn not_ours(directory: &Path) -> Error {
    Error::new(Code::Refused, "this is no side instance that pgkeep made")
        .at(directory.display())
        .hint("nothing was touched; check the directory")
}

/// Stops the side instance and removes its directory, with the tablespaces that were mapped outside of it.
pub async fn discard(directory: &Path, side: &Side) -> Result<()> {
    let owner = Owner::of(directory)?;
    privilege::become_owner(owner.clone())?;
    if running_server(directory)?.is_some() {
        let tools = Tools::find(side.pg_major, Some(&side.bin_directory), None).await?;
        let mut server = Instance::running(&tools, directory, &owner, &side.log_file);
        server.stop(StopMode::Immediate, STOPS_WITHIN).await?;
    }
    for outside in &side.outside {
        remove(outside)?;
    }
    remove(directory)
}

/// The directory's content, and the directory where its parent is ours too.
fn remove(directory: &Path) -> Result<()> {
    let failed = |e| Error::io("cannot remove the side instance", directory, e);
    match std::fs::remove_dir_all(directory) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        // Empty, in a parent of somebody else's.
        Err(_) if directory.read_dir().is_ok_and(|mut entries| entries.next().is_none()) => Ok(()),
        Err(e) => Err(failed(e)),
    }
}
