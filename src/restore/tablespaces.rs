//! Where every tablespace goes. Pure.
//!
//! In place each stays where it was (or goes where `--map` says). In a side instance those of the backup go below the
//! target directory, and those that the WAL makes are served as in-place tablespaces, whatever path the record names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::place::PlaceFacts;
use super::plan::{PlannedTablespace, TablespacePlace};
use super::request::{Place, Request};
use crate::error::{Code, Error, Result};
use crate::repository::record::BaseBackup;
use crate::wal::redirect::{Created, Patch};

/// Tablespaces of a side instance lie here, below its data directory.
pub const SIDE_DIRECTORY: &str = "tablespaces";

/// The outcome: places, and the records that are rewritten for them.
#[derive(Debug, Clone, PartialEq)]
pub struct Spread {
    pub tablespaces: Vec<PlannedTablespace>,
    pub patches: Vec<Patch>,
}

pub fn plan(request: &Request, base: &BaseBackup, created: &[Created], place: &PlaceFacts) -> Result<Spread> {
    let mut known: BTreeMap<u32, PlannedTablespace> = BTreeMap::new();
    for entry in &base.tablespaces {
        let becomes = of_backup(request, entry.oid, Path::new(&entry.location), &place.data_directory);
        let was = entry.location.clone();
        known.insert(entry.oid, PlannedTablespace { oid: entry.oid, was, becomes, from_wal: false });
    }
    let mut patches = Vec::new();
    for made in created {
        let (becomes, written) = of_wal(request, made);
        if let Some(path) = written {
            patches.extend(made.redirect(&path, base.wal_segment_bytes)?);
        }
        // One that the backup holds was made while it was taken; its place is decided.
        known.entry(made.oid).or_insert(PlannedTablespace {
            oid: made.oid,
            was: made.path.clone(),
            becomes,
            from_wal: true,
        });
    }
    check_map(request, &known)?;
    check_places(&known)?;
    Ok(Spread { tablespaces: known.into_values().collect(), patches })
}

fn of_backup(request: &Request, oid: u32, location: &Path, data_directory: &Path) -> TablespacePlace {
    if let Some(mapped) = request.map.get(&oid) {
        return TablespacePlace::Directory(mapped.clone());
    }
    match request.place {
        _ if location.is_relative() => TablespacePlace::InPlace,
        Place::InPlace => TablespacePlace::Directory(location.to_path_buf()),
        Place::Directory(_) => {
            TablespacePlace::Directory(data_directory.join(SIDE_DIRECTORY).join(oid.to_string()))
        }
    }
}

/// The place, and what the record is made to say where that is something else.
fn of_wal(request: &Request, made: &Created) -> (TablespacePlace, Option<String>) {
    if made.path.is_empty() {
        return (TablespacePlace::InPlace, None);
    }
    if let Some(mapped) = request.map.get(&made.oid) {
        return (TablespacePlace::Directory(mapped.clone()), Some(mapped.display().to_string()));
    }
    match request.place {
        Place::InPlace => (TablespacePlace::Directory(PathBuf::from(&made.path)), None),
        Place::Directory(_) => (TablespacePlace::InPlace, Some(String::new())),
    }
}

fn check_map(request: &Request, known: &BTreeMap<u32, PlannedTablespace>) -> Result<()> {
    let Some(oid) = request.map.keys().find(|oid| !known.contains_key(oid)) else { return Ok(()) };
    let all: Vec<String> = known.values().map(|t| format!("{} ({})", t.oid, t.was)).collect();
    let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
    Err(Error::new(Code::Usage, "there is no such tablespace in this restore")
        .at(format!("--map {oid}=…"))
        .hint(format!("its tablespaces are: {all}")))
}

/// Two tablespaces in one directory would be two clusters' worth of trouble.
fn check_places(known: &BTreeMap<u32, PlannedTablespace>) -> Result<()> {
    let mut taken: BTreeMap<&Path, u32> = BTreeMap::new();
    for tablespace in known.values() {
        let TablespacePlace::Directory(path) = &tablespace.becomes else { continue };
        // A location can be used again once its tablespace was dropped; those of the WAL come one after another.
        if let Some(other) = taken.insert(path, tablespace.oid)
            && !tablespace.from_wal
        {
            let what = format!("tablespaces {other} and {} would share one directory", tablespace.oid);
            return Err(Error::new(Code::Usage, what)
                .at(path.display())
                .hint("give each a directory of its own with --map OID=DIR"));
        }
    }
    Ok(())
}

/// `tablespace_map` as the recovered cluster needs it: `oid path`, a backslash before line ends and backslashes
/// (`do_pg_backup_start` of `xlog.c`). Empty without linked tablespaces.
pub fn map_file(tablespaces: &[PlannedTablespace]) -> String {
    let mut text = String::new();
    for tablespace in tablespaces.iter().filter(|t| !t.from_wal) {
        if let TablespacePlace::Directory(path) = &tablespace.becomes {
            let mut escaped = String::new();
            for c in path.display().to_string().chars() {
                if matches!(c, '\n' | '\r' | '\\') {
                    escaped.push('\\');
                }
                escaped.push(c);
            }
            text.extend([&tablespace.oid.to_string(), " ", &escaped, "\n"]);
        }
    }
    text
}

/// The directories that tablespaces of this plan need, for those that are linked.
pub fn directories(tablespaces: &[PlannedTablespace]) -> impl Iterator<Item = (u32, &PathBuf, bool)> {
    tablespaces.iter().filter_map(|t| match &t.becomes {
        TablespacePlace::Directory(path) => Some((t.oid, path, t.from_wal)),
        TablespacePlace::InPlace => None,
    })
}
