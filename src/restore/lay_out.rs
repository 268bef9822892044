//! The directory tree that the packs are laid into, and what is put into it besides them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::fetch_packs::CONTROL_LATER;
use super::plan::{RestorePlan, TablespacePlace};
use super::settings::SideKind;
use super::{marker, rights, settings, tablespaces};
use crate::error::{Error, Result};
use crate::postgres::control_file::{ControlFile, RELATIVE_PATH};
use crate::postgres::privilege::Owner;
use crate::postgres::settings as conf;
use crate::repository::recovery_plan::FILE_NAME as PLAN_FILE;
use crate::util::durable;
use crate::wal::WalSettings;

/// Directories that a server needs and that a backup of any tool may lack, for they are empty.
const NEEDED: [&str; 4] = ["pg_wal/archive_status", "pg_tblspc", "pg_replslot", "global"];

/// Makes the data directory with its marker, tablespaces and links. What an unfinished restore left is removed.
pub async fn prepare(plan: &RestorePlan, owner: &Owner) -> Result<()> {
    let data = &plan.place.data_directory;
    rights::make_directory(data, owner).await?;
    let fills: Vec<&PathBuf> = tablespaces::directories(&plan.tablespaces).map(|(_, path, _)| path).collect();
    marker::place(data, &plan.id, &fills)?;
    marker::clear_leftover(data)?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |e| Error::io("cannot prepare the data directory", path, e)
    };
    for directory in ["pg_tblspc", "global"] {
        make(&data.join(directory))?;
    }
    if let Some(wal) = &plan.place.wal_directory {
        clear(wal)?;
        rights::make_directory(wal, owner).await?;
        std::os::unix::fs::symlink(wal, data.join("pg_wal")).map_err(failed(wal))?;
    }
    for tablespace in &plan.tablespaces {
        let link = data.join("pg_tblspc").join(tablespace.oid.to_string());
        match &tablespace.becomes {
            TablespacePlace::Directory(path) => {
                rights::make_directory(path, owner).await?;
                if !tablespace.from_wal {
                    std::os::unix::fs::symlink(path, &link).map_err(failed(&link))?;
                }
            }
            TablespacePlace::InPlace if !tablespace.from_wal => make(&link)?,
            TablespacePlace::InPlace => {}
        }
    }
    NEEDED.iter().try_for_each(|directory| make(&data.join(directory)))
}

fn make(path: &Path) -> Result<()> {
    let failed = |e| Error::io("cannot make the directory", path, e);
    std::fs::create_dir_all(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(failed)
}

/// A separate pg_wal that an unfinished restore made: the one before it was moved aside.
fn clear(directory: &Path) -> Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(e)
            if e.kind() != std::io::ErrorKind::NotFound
                && directory.read_dir().is_ok_and(|mut d| d.next().is_some()) =>
        {
            Err(Error::io("cannot clear the WAL directory", directory, e))
        }
        _ => Ok(()),
    }
}

/// What recovery needs besides the members: the tablespace map, the plan, the settings, the signal.
pub fn equip(plan: &RestorePlan, side: Option<&SideFiles>) -> Result<()> {
    let data = &plan.place.data_directory;
    let map = tablespaces::map_file(&plan.tablespaces);
    if !map.is_empty() {
        durable::atomic_replace(&data.join("tablespace_map"), map.as_bytes(), 0o600)?;
    }
    if plan.place.in_place {
        drop_stale_targets(data)?;
    }
    if let Some(side) = side {
        side_files(data, plan, side)?;
    }
    if let Some(recovery) = &plan.recovery {
        durable::atomic_replace(&data.join(PLAN_FILE), &recovery.to_json()?, 0o600)?;
    }
    let add: Vec<(&str, String)> =
        plan.server.settings.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
    conf::edit_file(&data.join("postgresql.auto.conf"), &conf::RECOVERY_SETTINGS, &add, "recovery")?;
    let (signal, other) = if plan.server.standby {
        ("standby.signal", "recovery.signal")
    } else {
        ("recovery.signal", "standby.signal")
    };
    durable::remove_file(&data.join(other))?;
    durable::atomic_replace(&data.join(signal), b"", 0o600)?;
    let mode = std::fs::metadata(data.join("global")).map_or(0o700, |m| m.permissions().mode() & 0o7777);
    // The data directory's own mode goes with that of what is in it: PostgreSQL takes 0700 and 0750.
    let mode = if mode & 0o050 == 0o050 { 0o750 } else { 0o700 };
    std::fs::set_permissions(data, std::fs::Permissions::from_mode(mode))
        .map_err(|e| Error::io("cannot set the mode of the data directory", data, e))
}

/// The restored configuration may carry the target of an earlier recovery, and two targets are fatal.
fn drop_stale_targets(data: &Path) -> Result<()> {
    let path = data.join("postgresql.conf");
    if path.exists() { conf::edit_file(&path, &settings::TARGET_SETTINGS, &[], "recovery") } else { Ok(()) }
}

/// What a side instance is configured with.
pub struct SideFiles {
    pub preload: Vec<String>,
    /// What replayed WAL asks for beyond what the restored server had.
    pub asked: Option<WalSettings>,
    pub kind: SideKind,
    /// Some of its databases are.
    pub hollow: bool,
    pub marker: marker::Side,
}

fn side_files(data: &Path, plan: &RestorePlan, side: &SideFiles) -> Result<()> {
    let mut control = control_later(data)?;
    if let Some(asked) = side.asked {
        control.settings = control.settings.most(asked);
    }
    let files = [
        ("postgresql.conf", settings::side_conf(plan, &control, side)),
        ("postgresql.auto.conf", String::new()),
        ("pg_hba.conf", settings::SIDE_HBA.to_owned()),
        ("pg_ident.conf", String::new()),
    ];
    for (name, text) in files {
        let (path, kept) = (data.join(name), data.join(format!("{name}.restored")));
        if path.exists() && !kept.exists() {
            durable::rename_over(&path, &kept)?;
        }
        durable::atomic_replace(&path, text.as_bytes(), 0o600)?;
    }
    side.marker.write(data)
}

/// The restored `pg_control`, before it has its name.
pub fn control_later(data: &Path) -> Result<ControlFile> {
    let path = data.join(CONTROL_LATER);
    let bytes =
        std::fs::read(&path).map_err(|e| Error::io("cannot read the restored pg_control", &path, e))?;
    ControlFile::parse(&bytes).map_err(|e| e.at(path.display()))
}

/// Makes everything durable, once for each file system that was written to.
pub fn make_durable(plan: &RestorePlan) -> Result<()> {
    let data = &plan.place.data_directory;
    let mut roots: Vec<&PathBuf> = vec![data];
    roots.extend(plan.place.wal_directory.as_ref());
    roots.extend(tablespaces::directories(&plan.tablespaces).map(|(_, path, _)| path));
    roots.into_iter().try_for_each(|root| durable::sync_file_system(root))
}

/// From here on PostgreSQL can start on it: `pg_control` gets its name, then the marker goes.
pub fn complete(data: &Path) -> Result<()> {
    durable::rename_over(&data.join(CONTROL_LATER), &data.join(RELATIVE_PATH))?;
    crate::util::failpoint::reach("restore-after-control")?;
    marker::remove(data)
}
