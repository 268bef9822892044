//! What is in the way makes way: moved aside and kept (promise 6), or deleted where `--overwrite` was confirmed.

use std::path::{Path, PathBuf};

use super::place::{DirectoryState, PlaceFacts};
use super::plan::Move;
use super::request::{Place, Request};
use super::rights;
use crate::error::{Error, Result};
use crate::model::Timestamp;
use crate::postgres::control_file::RELATIVE_PATH;
use crate::util::durable;

/// What moves where. Pure. Only a restore in place moves anything.
pub fn moves(request: &Request, place: &PlaceFacts, now: Timestamp) -> Vec<Move> {
    if request.place != Place::InPlace {
        return Vec::new();
    }
    let to = |path: &Path| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("_incident_{}", now.compact_seconds()));
        (!request.overwrite).then(|| PathBuf::from(name))
    };
    // What an unfinished restore laid out is nobody's: the originals were moved aside before it began.
    let filled: &[PathBuf] = match &place.state {
        DirectoryState::Leftover { filled, .. } => filled,
        _ => &[],
    };
    let ours = |path: &Path| path.parent().is_some_and(|home| filled.iter().any(|f| f == home));
    let gone = |path: &PathBuf| Move { from: path.clone(), to: to(path).filter(|_| !ours(path)) };
    let mut moves = Vec::new();
    // The data directory first: should it stop here, nothing can be started without its tablespaces. The next run finds
    // those by the places that the backup and the WAL name.
    if matches!(place.state, DirectoryState::Cluster { .. } | DirectoryState::Unreadable { .. }) {
        moves.push(gone(&place.data_directory));
        moves.extend(place.wal_directory.as_ref().map(gone));
    }
    moves.extend(place.version_directories.iter().map(gone));
    moves
}

/// Carries one move out. One that has happened already (by a run that was killed) is fine.
pub async fn carry_out(step: &Move) -> Result<()> {
    match &step.to {
        Some(to) if step.from.exists() => rights::move_directory(&step.from, to).await,
        Some(_) => Ok(()),
        None => {
            // Killed in between, what is left of a data directory cannot be started.
            durable::remove_file(&step.from.join(RELATIVE_PATH))?;
            match std::fs::remove_dir_all(&step.from) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::io("cannot remove what is overwritten", &step.from, e))
                }
                _ => Ok(()),
            }
        }
    }
}
