//! What is in the way makes way: moved aside and kept (promise 6), or deleted where `--overwrite` was confirmed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::place::{DirectoryState, PlaceFacts};
use super::plan::Move;
use super::request::{Place, Request};
use super::rights;
use crate::error::{Error, Result};
use crate::model::Timestamp;
use crate::postgres::control_file::RELATIVE_PATH;
use crate::util::durable;

const INCIDENT: &str = "_incident_";

/// What moves where. Pure. Only a restore in place moves anything.
pub fn moves(request: &Request, place: &PlaceFacts, now: Timestamp) -> Vec<Move> {
    if request.place != Place::InPlace {
        return Vec::new();
    }
    let to = |path: &Path| (!request.overwrite).then(|| incident_name(path, now, &place.earlier_incidents));
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

/// `<path>_incident_<time>`; a second incident within the second gets a number.
fn incident_name(path: &Path, now: Timestamp, taken: &[PathBuf]) -> PathBuf {
    let numbered = |number: usize| {
        let mut name = path.as_os_str().to_owned();
        name.push(INCIDENT);
        name.push(now.compact_seconds());
        if number > 1 {
            name.push(format!("_{number}"));
        }
        PathBuf::from(name)
    };
    // One more candidate than there are taken names.
    (1..=taken.len())
        .map(numbered)
        .find(|name| !taken.contains(name))
        .unwrap_or_else(|| numbered(taken.len() + 1))
}

/// What earlier incidents left beside these paths.
pub fn earlier<'a>(paths: impl Iterator<Item = &'a Path>) -> Vec<PathBuf> {
    let parents: BTreeSet<&Path> = paths.filter_map(Path::parent).collect();
    let entries = parents.into_iter().filter_map(|parent| parent.read_dir().ok()).flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains(INCIDENT)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_incidents_of_one_second_get_two_names() {
        let (path, now) = (Path::new("/srv/main"), "2026-11-21T15:00:00Z".parse().unwrap());
        let name = |taken: &[&str]| {
            let taken: Vec<PathBuf> = taken.iter().map(PathBuf::from).collect();
            incident_name(path, now, &taken).display().to_string()
        };
        let first = "/srv/main_incident_20261121T150000Z";
        assert_eq!(name(&[]), first);
        assert_eq!(name(&["/srv/main_incident_20261121T145959Z"]), first);
        assert_eq!(name(&[first]), format!("{first}_2"));
        assert_eq!(name(&[first, &format!("{first}_2")]), format!("{first}_3"));
    }
}
