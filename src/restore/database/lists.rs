//! Which entries of the archive are restored in which step, and by which of several programs. Pure.
//!
//! The steps are `pg_restore`'s own (`RestoreArchive` and `_tocEntryRestorePass` of `pg_backup_archiver.c`): what
//! belongs before the data, data, what belongs after them, then grants, event triggers and the contents of materialised
//! views. An entry of no section goes where it stands. Within every list the order is the archive's: a program that
//! reads a pipe finds its blocks in no other.

use std::collections::HashMap;

use crate::postgres::archive_format::{Section, Toc, TocEntry};

/// Dump ids, a list for each run of `pg_restore`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lists {
    pub before: Vec<u32>,
    /// At once. Each has its own stream of the archive.
    pub data: Vec<Vec<u32>>,
    /// At once: indexes and constraints of tables that have nothing to do with each other.
    pub indexes: Vec<Vec<u32>>,
    /// In order: foreign keys, triggers, rules, policies …
    pub after: Vec<u32>,
    /// Grants, event triggers, contents of materialised views: `pg_restore` has its own order for them.
    pub last: Vec<u32>,
}

/// One of `workers` more is of use for each so many bytes: a stream reads the archive from the beginning, and so costs
/// decryption and decompression of all that comes before its last table. COPY takes several times as long for a byte.
const WORTH_A_STREAM: u64 = 64 << 20;

/// How many run at once. `asked` is obeyed; otherwise as many as pay off on this host.
pub fn workers(asked: Option<usize>, processors: usize, tables: &[u64]) -> usize {
    let bytes: u64 = tables.iter().sum();
    let worth = usize::try_from(bytes / WORTH_A_STREAM).unwrap_or(usize::MAX).max(1);
    let usual = processors.clamp(1, 4).min(worth);
    asked.unwrap_or(usual).clamp(1, tables.len().max(1))
}

/// `bytes`: of the data of a TABLE DATA entry.
pub fn lists(toc: &Toc, bytes: impl Fn(&TocEntry) -> u64, workers: usize) -> Lists {
    let mut lists = Lists::default();
    let (mut data, mut after) = (Vec::new(), Vec::new());
    let mut section = Section::PreData;
    for (place, entry) in toc.entries.iter().enumerate() {
        if entry.section != Section::None {
            section = entry.section;
        }
        if entry.is_of_database() || is_setting(entry) {
            continue;
        }
        match section {
            _ if is_last(entry) => lists.last.push(entry.dump_id),
            Section::Data => data.push((place, entry)),
            Section::PostData => after.push((place, entry)),
            Section::None | Section::PreData => lists.before.push(entry.dump_id),
        }
    }
    // The bytes of a table, also by the dump id of its definition, which its indexes depend on.
    let mut of_table: HashMap<u32, u64> = HashMap::new();
    for (_, entry) in data.iter().filter(|(_, entry)| entry.is_table_data()) {
        for id in &entry.dependencies {
            of_table.insert(*id, bytes(entry));
        }
    }
    let (tables, others): (Vec<_>, Vec<_>) = data.into_iter().partition(|(_, e)| e.is_table_data());
    let mut parts: Vec<Weighed> =
        tables.iter().map(|(place, e)| (bytes(e), vec![(*place, e.dump_id)])).collect();
    // Large objects are made, filled and commented upon: in order, so by one program.
    parts.push((0, others.iter().map(|(place, e)| (*place, e.dump_id)).collect()));
    lists.data = spread(parts, workers);
    let (groups, rest) = independent(toc, &after, &of_table);
    lists.indexes = spread(groups, workers);
    lists.after = rest;
    lists
}

/// What `pg_restore` takes to heart as it reads it.
fn is_setting(entry: &TocEntry) -> bool {
    matches!(entry.description.as_str(), "ENCODING" | "STDSTRINGS" | "SEARCHPATH")
}

fn is_last(entry: &TocEntry) -> bool {
    match entry.description.as_str() {
        // Statistics of a materialised view come after its contents.
        "ACL"
        | "ACL LANGUAGE"
        | "DEFAULT ACL"
        | "EVENT TRIGGER"
        | "MATERIALIZED VIEW DATA"
        | "STATISTICS DATA" => true,
        "COMMENT" | "SECURITY LABEL" => entry.tag.starts_with("EVENT TRIGGER "),
        _ => false,
    }
}

type Weighed = (u64, Vec<(usize, u32)>);

/// The heaviest first, each to whoever has least so far; every list in the archive's order.
fn spread(mut parts: Vec<Weighed>, workers: usize) -> Vec<Vec<u32>> {
    parts.sort_by_key(|(weight, members)| (std::cmp::Reverse(*weight), members.first().copied()));
    let mut bins: Vec<Weighed> = vec![(0, Vec::new()); workers.max(1)];
    for (weight, members) in parts {
        // A part without weight costs something too.
        if let Some(least) = bins.iter_mut().min_by_key(|(weight, _)| *weight) {
            least.0 += weight + 1;
            least.1.extend(members);
        }
    }
    let lists = bins.into_iter().map(|(_, mut members)| {
        members.sort_unstable();
        members.into_iter().map(|(_, id)| id).collect::<Vec<_>>()
    });
    lists.filter(|list| !list.is_empty()).collect()
}

/// Indexes and constraints that wait for nothing else of this step, one group for each table (and what hangs together
/// with it), and the rest in order. In a group nothing runs at once: most of it locks its table.
fn independent(
    toc: &Toc,
    after: &[(usize, &TocEntry)],
    of_table: &HashMap<u32, u64>,
) -> (Vec<Weighed>, Vec<u32>) {
    let in_step: HashMap<u32, &TocEntry> = after.iter().map(|(_, e)| (e.dump_id, *e)).collect();
    let tables = ["TABLE", "MATERIALIZED VIEW"];
    let tables = toc.entries.iter().filter(|e| tables.contains(&e.description.as_str())).map(|e| e.dump_id);
    let mut groups = Groups::default();
    tables.for_each(|id| groups.add(id));
    let (mut taken, mut rest) = (Vec::new(), Vec::new());
    for (place, entry) in after {
        let starts = matches!(entry.description.as_str(), "INDEX" | "CONSTRAINT");
        let follows = matches!(entry.description.as_str(), "COMMENT" | "SECURITY LABEL");
        let known: Vec<u32> = entry.dependencies.iter().copied().filter(|id| groups.has(*id)).collect();
        let waits = entry.dependencies.iter().any(|id| in_step.contains_key(id) && !groups.has(*id));
        if !(starts || follows) || waits || known.is_empty() {
            rest.push(entry.dump_id);
            continue;
        }
        groups.add(entry.dump_id);
        for id in &known {
            groups.join(entry.dump_id, *id);
        }
        let weight: u64 = known.iter().filter_map(|id| of_table.get(id)).sum();
        taken.push((*place, entry.dump_id, if starts { weight } else { 0 }));
    }
    let mut by_group: HashMap<u32, Weighed> = HashMap::new();
    for (place, id, weight) in taken {
        let group = by_group.entry(groups.of(id)).or_default();
        group.0 += weight;
        group.1.push((place, id));
    }
    (by_group.into_values().collect(), rest)
}

/// Which dump ids hang together.
#[derive(Default)]
struct Groups(HashMap<u32, u32>);

impl Groups {
    fn add(&mut self, id: u32) {
        self.0.entry(id).or_insert(id);
    }
    fn has(&self, id: u32) -> bool {
        self.0.contains_key(&id)
    }
    /// The one that stands for the group.
    fn of(&self, mut id: u32) -> u32 {
        while let Some(next) = self.0.get(&id).copied().filter(|next| *next != id) {
            id = next;
        }
        id
    }
    fn join(&mut self, one: u32, other: u32) {
        let (one, other) = (self.of(one), self.of(other));
        self.0.insert(one, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(dump_id: u32, description: &str, section: Section, dependencies: &[u32]) -> TocEntry {
        TocEntry {
            dump_id,
            has_data: description == "TABLE DATA" || description == "BLOBS",
            catalog_oid: 0,
            oid: dump_id,
            tag: String::new(),
            description: description.to_owned(),
            section,
            schema: None,
            tablespace: None,
            owner: String::new(),
            definition: None,
            dependencies: dependencies.to_vec(),
        }
    }

    fn toc() -> Toc {
        use Section::{Data, None, PostData, PreData};
        let mut database = entry(4, "COMMENT", None, &[]);
        database.tag = "DATABASE app".to_owned();
        let entries = vec![
            entry(1, "ENCODING", PreData, &[]),
            entry(2, "DATABASE", PreData, &[]),
            entry(3, "SCHEMA", PreData, &[]),
            database,
            entry(10, "TABLE", PreData, &[3]),
            entry(5, "COMMENT", None, &[10]),
            entry(6, "ACL", None, &[10]),
            entry(11, "TABLE", PreData, &[3]),
            entry(12, "TABLE", PreData, &[3]),
            entry(20, "TABLE DATA", Data, &[10]),
            entry(21, "TABLE DATA", Data, &[11]),
            entry(22, "TABLE DATA", Data, &[12]),
            entry(23, "BLOB METADATA", Data, &[]),
            entry(24, "BLOBS", Data, &[23]),
            entry(25, "COMMENT", None, &[23]),
            entry(30, "CONSTRAINT", PostData, &[10]),
            entry(31, "INDEX", PostData, &[10]),
            entry(32, "COMMENT", None, &[31]),
            entry(33, "CONSTRAINT", PostData, &[11]),
            entry(34, "INDEX ATTACH", PostData, &[31, 33]),
            entry(35, "FK CONSTRAINT", PostData, &[30, 11, 10]),
            entry(36, "COMMENT", None, &[35]),
            entry(37, "INDEX", PostData, &[12, 35]),
            entry(38, "MATERIALIZED VIEW DATA", PostData, &[]),
            entry(39, "EVENT TRIGGER", PostData, &[]),
        ];
        Toc { entries }
    }

    fn bytes(entry: &TocEntry) -> u64 {
        [(20, 50), (21, 900), (22, 60)].iter().find(|(id, _)| *id == entry.dump_id).map_or(0, |(_, b)| *b)
    }

    #[test]
    fn every_entry_is_in_one_step_in_the_archives_order() {
        let one = lists(&toc(), bytes, 1);
        assert_eq!(one.before, [3, 10, 5, 11, 12]);
        assert_eq!(one.data, [vec![20, 21, 22, 23, 24, 25]]);
        assert_eq!(one.indexes, [vec![30, 31, 32, 33]]);
        assert_eq!(one.after, [34, 35, 36, 37]);
        assert_eq!(one.last, [6, 38, 39]);
    }

    #[test]
    fn tables_are_spread_by_size_and_indexes_by_table() {
        let two = lists(&toc(), bytes, 2);
        assert_eq!(two.data, [vec![21], vec![20, 22, 23, 24, 25]]);
        assert_eq!(two.indexes, [vec![33], vec![30, 31, 32]]);
        let many = lists(&toc(), bytes, 9);
        assert_eq!((many.data.len(), many.indexes.len()), (4, 2));
        assert!(many.data.contains(&vec![23, 24, 25]), "what belongs together stays together");
        assert_eq!((many.after, many.last), (two.after, two.last));
    }

    #[test]
    fn streams_are_as_many_as_pay_off_or_as_were_asked_for() {
        let big = 200 << 20;
        assert_eq!(workers(None, 8, &[1000, 1000]), 1);
        assert_eq!(workers(None, 8, &[big, big, big]), 3);
        assert_eq!(workers(None, 2, &[big, big, big]), 2);
        assert_eq!(workers(None, 8, &[big; 9]), 4);
        assert_eq!(workers(Some(3), 2, &[1000; 9]), 3);
        assert_eq!(workers(Some(3), 2, &[1000]), 1);
        assert_eq!(workers(Some(3), 2, &[]), 1);
    }
}
