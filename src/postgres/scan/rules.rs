//! What a name means at its place in a data directory. Pure: names in, verdicts out.
//!
//! Sources: PostgreSQL's `basebackup.c` (`excludeDirContents`, `excludeFiles`), `reinit.c`
//! (`parse_filename_for_nontemp_relation`), `fd.c` (`looks_like_temp_rel_name`).

use std::collections::HashSet;

/// A kind of directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Root,
    /// `global`: shared relations.
    Global,
    /// `base`: one directory per database.
    Base,
    /// A database's directory, in `base` or in a tablespace: relations, temporary and unlogged ones among them.
    Database,
    /// `pg_tblspc`.
    TablespaceLinks,
    /// A tablespace's own directory: `PG_<major>_<catalog>` is ours, all else belongs to others.
    TablespaceRoot,
    /// `PG_<major>_<catalog>`: one directory per database.
    TablespaceVersion,
    /// Anywhere else.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Take,
    LeaveOut,
    /// A directory that must exist and whose content is of no use to a copy.
    KeepEmpty,
    /// `pg_wal`: empty, with its own empty directories.
    WalDirectory,
}

/// Directories of the data directory that come back empty.
const KEPT_EMPTY: [&[u8]; 7] = [
    b"pg_dynshmem",
    b"pg_notify",
    b"pg_replslot",
    b"pg_serial",
    b"pg_snapshots",
    b"pg_stat_tmp",
    b"pg_subtrans",
];

/// Files left out wherever they lie.
const LEFT_OUT: [&[u8]; 10] = [
    b"backup_label",
    b"backup_label.old",
    b"backup_manifest",
    b"current_logfiles",
    b"current_logfiles.tmp",
    b"postgresql.auto.conf.tmp",
    b"postmaster.opts",
    b"postmaster.pid",
    b"tablespace_map",
    b"tablespace_map.old",
];

/// What pgkeep itself leaves in a data directory while it restores, and `util::durable`'s temporaries.
const OWN_PREFIXES: [&[u8]; 2] = [b"pgkeep.", b".pgkeep-tmp-"];

pub(super) fn decide(place: Place, name: &[u8]) -> Verdict {
    if place == Place::Root {
        if name == b"pg_wal" {
            return Verdict::WalDirectory;
        }
        if KEPT_EMPTY.contains(&name) {
            return Verdict::KeepEmpty;
        }
        if OWN_PREFIXES.iter().any(|p| name.starts_with(p)) {
            return Verdict::LeaveOut;
        }
    }
    let left_out = LEFT_OUT.contains(&name)
        || name.starts_with(b"pgsql_tmp")
        || name.starts_with(b"pg_internal.init")
        || name.starts_with(b".pgkeep-tmp-")
        || place == Place::Database && is_temporary_relation(name);
    if left_out { Verdict::LeaveOut } else { Verdict::Take }
}

/// What kind of directory `name` is, standing in a directory of the kind `place`.
pub(super) fn place_inside(place: Place, name: &[u8], version_directory: &[u8]) -> Place {
    match (place, name) {
        (Place::Root, b"global") => Place::Global,
        (Place::Root, b"base") => Place::Base,
        (Place::Root, b"pg_tblspc") => Place::TablespaceLinks,
        (Place::Base | Place::TablespaceVersion, name) if is_number(name) => Place::Database,
        // A directory in pg_tblspc is an in-place tablespace.
        (Place::TablespaceLinks, name) if is_number(name) => Place::TablespaceRoot,
        (Place::TablespaceRoot, name) if name == version_directory => Place::TablespaceVersion,
        _ => Place::Other,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fork {
    Main,
    FreeSpaceMap,
    VisibilityMap,
    Init,
}

/// The name of a relation's file, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RelationFile {
    pub relfilenode: u32,
    pub fork: Fork,
    /// 0 for `16384`, 1 for `16384.1`: the number to multiply with the blocks per file.
    pub segment: u32,
}

/// A permanent or unlogged relation's file; none for anything else, and none outside the places of relations.
pub(super) fn relation(place: Place, name: &[u8]) -> Option<RelationFile> {
    matches!(place, Place::Global | Place::Database).then(|| parse_relation(name))?
}

/// `16384`, `16384_fsm`, `16384_vm.1`, `16384_init`: digits without leading zeros, as PostgreSQL writes them.
pub(super) fn parse_relation(name: &[u8]) -> Option<RelationFile> {
    let name = std::str::from_utf8(name).ok()?;
    let (stem, segment) = match name.split_once('.') {
        Some((stem, segment)) => (stem, number(segment).filter(|n| *n > 0)?),
        None => (name, 0),
    };
    let (node, fork) = match stem.split_once('_') {
        None => (stem, Fork::Main),
        Some((node, "fsm")) => (node, Fork::FreeSpaceMap),
        Some((node, "vm")) => (node, Fork::VisibilityMap),
        Some((node, "init")) => (node, Fork::Init),
        Some(_) => return None,
    };
    Some(RelationFile { relfilenode: number(node).filter(|n| *n > 0)?, fork, segment })
}

/// `t<backend>_<relfilenode>[_fork][.segment]`.
pub(super) fn is_temporary_relation(name: &[u8]) -> bool {
    let Some((backend, rest)) = name
        .strip_prefix(b"t")
        .and_then(|rest| rest.iter().position(|b| *b == b'_').map(|at| (&rest[..at], &rest[at + 1..])))
    else {
        return false;
    };
    is_number(backend) && parse_relation(rest).is_some()
}

/// Relations of a directory that have an `_init` fork: crash recovery makes the other forks anew from it.
pub(super) fn unlogged<'a>(place: Place, names: impl Iterator<Item = &'a [u8]>) -> HashSet<u32> {
    names
        .filter_map(|name| relation(place, name))
        .filter(|r| r.fork == Fork::Init)
        .map(|r| r.relfilenode)
        .collect()
}

/// True for every fork but `_init` of those relations.
pub(super) fn is_unlogged_content(place: Place, name: &[u8], unlogged: &HashSet<u32>) -> bool {
    relation(place, name).is_some_and(|r| r.fork != Fork::Init && unlogged.contains(&r.relfilenode))
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// Up to `u32::MAX`, no leading zero.
fn number(text: &str) -> Option<u32> {
    let plain = is_number(text.as_bytes()) && (text.len() == 1 || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[allow(clippy::unnecessary_wraps)] // it is what it is compared with
    fn file(relfilenode: u32, fork: Fork, segment: u32) -> Option<RelationFile> {
        Some(RelationFile { relfilenode, fork, segment })
    }

    #[test]
    fn a_relations_name_says_its_number_fork_and_segment() {
        assert_eq!(parse_relation(b"16384"), file(16384, Fork::Main, 0));
        assert_eq!(parse_relation(b"16384.7"), file(16384, Fork::Main, 7));
        assert_eq!(parse_relation(b"16384_fsm"), file(16384, Fork::FreeSpaceMap, 0));
        assert_eq!(parse_relation(b"16384_vm.1"), file(16384, Fork::VisibilityMap, 1));
        assert_eq!(parse_relation(b"16384_init"), file(16384, Fork::Init, 0));
        assert_eq!(parse_relation(b"4294967295"), file(u32::MAX, Fork::Main, 0));
    }

    #[test]
    fn what_only_looks_like_a_relation_is_none() {
        for name in [
            "",
            "0",
            "016384",
            "16384.",
            "16384.0",
            "16384.01",
            "16384_",
            "16384_foo",
            "_init",
            "a1",
            "1a",
            "4294967296",
            "16384_fsm_vm",
            "16384.1.2",
            "16384 ",
            "pg_filenode.map",
            "PG_VERSION",
            "t3_12345",
        ] {
            assert_eq!(parse_relation(name.as_bytes()), None, "{name:?}");
        }
        assert_eq!(parse_relation(b"16384\xff"), None);
        assert_eq!(relation(Place::Other, b"16384"), None);
    }

    #[test]
    fn temporary_relations_are_known_by_their_backend() {
        for name in ["t3_12345", "t0_1.2", "t12_16384_fsm", "t12_16384_vm.1"] {
            assert!(is_temporary_relation(name.as_bytes()), "{name}");
        }
        for name in ["t_12345", "t3_", "t3", "t3_foo", "x3_12345", "t3a_1", "3_12345", "t3_12345_bar"] {
            assert!(!is_temporary_relation(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn unlogged_relations_keep_only_their_init_fork_and_only_where_relations_live() {
        let names: [&[u8]; 6] = [b"100", b"100.1", b"100_init", b"100_fsm", b"1001", b"101_vm"];
        let unlogged = unlogged(Place::Database, names.into_iter());
        let left: Vec<_> =
            names.into_iter().filter(|n| !is_unlogged_content(Place::Database, n, &unlogged)).collect();
        assert_eq!(left, [&b"100_init"[..], b"1001", b"101_vm"]);
        assert!(super::unlogged(Place::Other, names.into_iter()).is_empty());
    }

    #[test]
    fn excluded_names_are_excluded_at_their_place_only() {
        assert_eq!(decide(Place::Root, b"pg_wal"), Verdict::WalDirectory);
        assert_eq!(decide(Place::Other, b"pg_wal"), Verdict::Take);
        assert_eq!(decide(Place::Root, b"pg_stat_tmp"), Verdict::KeepEmpty);
        assert_eq!(decide(Place::Database, b"pg_internal.init.1234"), Verdict::LeaveOut);
        assert_eq!(decide(Place::Database, b"t3_12345"), Verdict::LeaveOut);
        assert_eq!(decide(Place::Other, b"t3_12345"), Verdict::Take);
        assert_eq!(decide(Place::Root, b"pgkeep.recovery.json"), Verdict::LeaveOut);
        assert_eq!(decide(Place::Other, b"pgkeep.toml"), Verdict::Take);
        assert_eq!(decide(Place::Root, b"standby.signal"), Verdict::Take);
    }

    proptest! {
        #[test]
        fn no_name_makes_the_rules_panic(name: Vec<u8>) {
            for place in [Place::Root, Place::Database, Place::TablespaceLinks, Place::TablespaceRoot] {
                let _ = (decide(place, &name), relation(place, &name), place_inside(place, &name, b"PG_18_1"));
            }
        }

        #[test]
        fn a_printed_relation_reads_back(node in 1u32.., segment in 0u32..10_000, fork in 0usize..4) {
            let (fork, suffix) =
                [(Fork::Main, ""), (Fork::FreeSpaceMap, "_fsm"), (Fork::VisibilityMap, "_vm"), (Fork::Init, "_init")][fork];
            let tail = if segment == 0 { String::new() } else { format!(".{segment}") };
            prop_assert_eq!(parse_relation(format!("{node}{suffix}{tail}").as_bytes()), file(node, fork, segment));
        }
    }
}
