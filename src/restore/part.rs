//! Which databases of a base backup are restored where there is no room for all of them. Pure.
//!
//! What belongs to no database of the user is always there, for without it there is no cluster: shared relations, transaction
//! states, template1. Of the databases as many as fit, those of `initdb` first, the user's in an order that the seed says,
//! so that another night proves another. Those that are left out are hollow ([`crate::postgres::hollow`]): their relations
//! have their lengths and no bytes, so that WAL is replayed over them in the room of the pages that it touches.

mod plan;

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::scan::CopyOfDatabase;
use super::space;
use crate::model::SegmentSize;
use crate::postgres::scan::{DatabaseFile, FIRST_OF_USERS, of_database};
use crate::repository::index::BackupIndex;

pub(super) use plan::plan;

/// Without it nobody could ask for the others.
const TEMPLATE1: u32 = 1;

/// That a part will do where there is no room for the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    pub seed: u64,
    /// Bytes that are left free.
    pub reserve: u64,
}

/// What is restored, and what is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub kept: BTreeMap<u32, Database>,
    pub left_out: BTreeMap<u32, Database>,
    /// Bytes of members that are laid out.
    pub bytes: u64,
    /// For pages that WAL writes into hollow files.
    pub replay: u64,
}

/// As the backup knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Database {
    /// None where the backup could not ask.
    pub name: Option<String>,
    pub bytes: u64,
}

impl Database {
    /// What it is called, for people.
    pub fn label(&self, oid: u32) -> String {
        self.name.clone().unwrap_or_else(|| format!("the database with oid {oid}"))
    }
}

/// What is done with a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lay {
    Out,
    /// Its length alone.
    Hollow,
    /// Not even that.
    Not,
}

/// What there is room for.
#[derive(Debug, Clone, Copy)]
pub struct Room<'a> {
    pub available: u64,
    /// WAL that is replayed.
    pub wal: u64,
    pub segment: SegmentSize,
    /// What it does with the files of whole databases.
    pub copies: &'a [CopyOfDatabase],
}

/// As much as fits; None where not even the smallest part does, or where there is nothing to leave out.
pub fn choose(index: &BackupIndex, room: Room<'_>, parts: Parts) -> Option<Part> {
    let (shared, mut databases) = contents(index);
    // A page takes room once WAL writes it, and comes whole with its first change.
    let replay = room.wal.saturating_add(of_copies(&databases, room.copies));
    let besides = [parts.reserve, replay, space::wal_at_once(room.segment)];
    let room = besides.iter().try_fold(room.available, |left, needed| left.checked_sub(*needed))?;
    let mut part = Part { kept: BTreeMap::new(), left_out: BTreeMap::new(), bytes: shared, replay };
    let fits = |bytes: u64| space::with_books(bytes) <= room;
    if let Some(template) = databases.remove(&TEMPLATE1) {
        part.bytes += template.bytes;
        part.kept.insert(TEMPLATE1, template);
    }
    if !fits(part.bytes) {
        return None;
    }
    for oid in in_order(&databases, parts.seed) {
        let Some(database) = databases.remove(&oid) else { continue };
        if fits(part.bytes + database.bytes) {
            part.bytes += database.bytes;
            part.kept.insert(oid, database);
        } else {
            part.left_out.insert(oid, database);
        }
    }
    (!part.left_out.is_empty()).then_some(part)
}

/// Bytes that belong to no database, and the databases.
fn contents(index: &BackupIndex) -> (u64, BTreeMap<u32, Database>) {
    let (mut shared, mut databases) = (0, BTreeMap::<u32, Database>::new());
    for member in &index.members {
        match of_database(member.name.as_bytes()) {
            Some(of) if of.what == DatabaseFile::Relation => {
                databases.entry(of.database).or_default().bytes += member.size;
            }
            _ => shared += member.size,
        }
    }
    for (path, relation) in &index.relations {
        if let Some(of) = of_database(path.as_bytes())
            && let Some(database) = databases.get_mut(&of.database)
            && database.name.is_none()
        {
            database.name = first_identifier(relation);
        }
    }
    (shared, databases)
}

/// The most that copies of databases take at once. A copy of a hollow one is written out in its whole length.
fn of_copies(databases: &BTreeMap<u32, Database>, copies: &[CopyOfDatabase]) -> u64 {
    let mut made: BTreeMap<u32, u64> = BTreeMap::new();
    let mut most = 0;
    for copy in copies {
        match copy {
            CopyOfDatabase::Made { database, from } => {
                let of_backup = || databases.get(from).map_or(0, |known| known.bytes);
                let bytes = made.get(from).copied().unwrap_or_else(of_backup);
                made.insert(*database, bytes);
            }
            // A move drops what was moved, and its copy stays.
            CopyOfDatabase::Dropped { database } if !databases.contains_key(database) => {
                made.remove(database);
            }
            CopyOfDatabase::Dropped { .. } => {}
        }
        most = most.max(made.values().sum());
    }
    most
}

/// Those of `initdb`, the smallest first; then the user's, as the seed says.
fn in_order(databases: &BTreeMap<u32, Database>, seed: u64) -> Vec<u32> {
    let (mut initial, mut users): (Vec<u32>, Vec<u32>) =
        databases.keys().copied().partition(|oid| *oid < FIRST_OF_USERS);
    initial.sort_by_key(|oid| databases.get(oid).map(|database| database.bytes));
    users.shuffle(&mut StdRng::seed_from_u64(seed));
    initial.extend(users);
    initial
}

/// Of `app.public.users` or `"my app".public.users`, as SQL writes it.
fn first_identifier(name: &str) -> Option<String> {
    let Some(quoted) = name.strip_prefix('"') else { return name.split('.').next().map(str::to_owned) };
    let mut identifier = String::new();
    let mut chars = quoted.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if chars.peek() == Some(&'"') => identifier.extend(chars.next()),
            '"' => return Some(identifier),
            other => identifier.push(other),
        }
    }
    None
}

impl Part {
    /// What is done with a member of this name.
    pub fn lay(&self, name: &[u8]) -> Lay {
        match of_database(name) {
            Some(of) if self.left_out.contains_key(&of.database) => match of.what {
                DatabaseFile::Relation => Lay::Hollow,
                DatabaseFile::Version => Lay::Not,
                DatabaseFile::Other => Lay::Out,
            },
            _ => Lay::Out,
        }
    }

    /// Packs that hold something that is laid out, by their keys; the others need not be read.
    pub fn packs(&self, index: &BackupIndex) -> BTreeSet<String> {
        let wanted = index.members.iter().filter(|member| self.lay(member.name.as_bytes()) == Lay::Out);
        let numbers: BTreeSet<u32> = wanted.map(|member| member.pack).collect();
        let key = |number: u32| index.packs.get(usize::try_from(number).ok()?).cloned();
        numbers.into_iter().filter_map(key).collect()
    }

    /// Files that get their length alone.
    pub fn hollow(&self, index: &BackupIndex) -> Vec<(Vec<u8>, u64)> {
        let hollow = index.members.iter().filter(|member| self.lay(member.name.as_bytes()) == Lay::Hollow);
        hollow.map(|member| (member.name.as_bytes().to_vec(), member.size)).collect()
    }

    /// Room that the members take, and the pages that WAL writes into hollow ones; see `PlaceFacts::member_bytes`.
    fn member_bytes(&self) -> Vec<(u32, u64)> {
        vec![(0, self.bytes), (0, self.replay)]
    }

    /// Bytes of what is left out.
    pub fn missing(&self) -> u64 {
        self.left_out.values().map(|database| database.bytes).sum()
    }
}

#[cfg(test)]
mod tests;
