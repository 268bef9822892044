//! `pgkeep.restoring`: this directory is being restored. As long as it is there, what lies beside it was made by pgkeep
//! and is not whole; the next run removes it and begins anew. `pg_control` comes last, so PostgreSQL does not start on it
//! either. `pgkeep.side.json`: this directory is a side instance of pgkeep's, which `restore discard` may remove.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{ClusterName, PgMajor, SystemId};
use crate::postgres::control_file::RELATIVE_PATH;
use crate::util::durable;

const RESTORING: &str = "pgkeep.restoring";
const SIDE: &str = "pgkeep.side.json";

/// What the marker says: the first line is the plan's id, the others are directories of tablespaces that the unfinished
/// restore filled (what was in them before had been moved aside by then).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    pub plan: String,
    pub filled: Vec<PathBuf>,
}

/// The unfinished restore; none where there is no marker.
pub fn read(data_directory: &Path) -> Result<Option<Unfinished>> {
    let path = data_directory.join(RESTORING);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let mut lines = text.lines();
            let plan = lines.next().unwrap_or_default().to_owned();
            Ok(Some(Unfinished { plan, filled: lines.map(PathBuf::from).collect() }))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("cannot read the marker of an unfinished restore", &path, e)),
    }
}

pub fn place(data_directory: &Path, plan: &str, fills: &[&PathBuf]) -> Result<()> {
    let mut text = format!("{plan}\n");
    for directory in fills {
        text.push_str(&directory.display().to_string());
        text.push('\n');
    }
    durable::atomic_replace(&data_directory.join(RESTORING), text.as_bytes(), 0o600)
}

pub fn remove(data_directory: &Path) -> Result<()> {
    durable::remove_file(&data_directory.join(RESTORING))
}

/// True when the directory was whole but for its marker and PostgreSQL has been started on it since: then it is
/// somebody's database and no leftover. PostgreSQL takes `backup_label` away as its recovery begins (xlog.c,
/// `StartupXLOG`).
pub fn was_started(data_directory: &Path) -> bool {
    data_directory.join(RELATIVE_PATH).exists() && !data_directory.join("backup_label").exists()
}

/// Removes everything that an unfinished restore left, `pg_control` first and the marker last: killed in between, it
/// cannot be started and is still a leftover.
pub fn clear_leftover(data_directory: &Path) -> Result<()> {
    durable::remove_file(&data_directory.join(RELATIVE_PATH))?;
    let failed = |e| Error::io("cannot remove what an unfinished restore left", data_directory, e);
    for entry in std::fs::read_dir(data_directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if name == RESTORING || name == "lost+found" {
            continue;
        }
        let kind = entry.file_type().map_err(failed)?;
        let path = entry.path();
        if kind.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }
            .map_err(failed)?;
    }
    Ok(())
}

/// What `restore promote` and `restore discard` need to know of a side instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    pub cluster: ClusterName,
    pub system_identifier: SystemId,
    pub pg_major: PgMajor,
    pub bin_directory: PathBuf,
    pub log_file: PathBuf,
    /// Mapped tablespaces outside of the directory, which are removed with it.
    pub outside: Vec<PathBuf>,
}

impl Side {
    pub fn write(&self, data_directory: &Path) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::internal("a side instance's description is not JSON").because(e))?;
        durable::atomic_replace(&data_directory.join(SIDE), &bytes, 0o600)
    }
    /// None where there is no side instance of pgkeep's.
    pub fn read(data_directory: &Path) -> Result<Option<Self>> {
        let path = data_directory.join(SIDE);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
                Error::new(crate::error::Code::Damaged, "the description of the side instance cannot be read")
                    .at(path.display())
                    .because(e)
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("cannot read the description of the side instance", &path, e)),
        }
    }
}
