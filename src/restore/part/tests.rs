use super::*;
use crate::repository::index::IndexedMember;
use crate::repository::pack::PackedMember;

const MIB: u64 = 1 << 20;

fn index() -> BackupIndex {
    let member = |pack, name: &str, size| {
        let name = name.as_bytes().to_vec();
        IndexedMember::new(pack, PackedMember { name, offset: 0, length: 1, size })
    };
    let packs = (1..=4).map(|n| format!("data/{n:05}.tar.zst")).collect();
    let mut index = BackupIndex::new(
        packs,
        vec![
            member(0, "base/16384", 0),
            member(0, "base/16384/16385", 900 * MIB),
            member(1, "base/16384/16385.1", 100 * MIB),
            member(1, "pg_tblspc/16400/PG_18_1/16384/16386_vm", 10 * MIB),
            member(2, "base/16384/PG_VERSION", 3),
            member(2, "base/16384/pg_filenode.map", 524),
            member(2, "base/1/1259", 7 * MIB),
            member(2, "base/4/1259", 7 * MIB),
            member(2, "base/5/1259", 20 * MIB),
            member(2, "base/16500/1259", 100 * MIB),
            member(2, "base/16600/1259", 100 * MIB),
            member(2, "global/1262", 2 * MIB),
            member(3, "global/pg_control", 8192),
        ],
    );
    index.relations = [
        ("base/16384/16385", "\"my \"\"big\"\" one\".public.t"),
        ("base/16500/1259", "small.pg_catalog.pg_class"),
        ("base/5/1259", "postgres.pg_catalog.pg_class"),
    ]
    .map(|(path, name)| (path.to_owned(), name.to_owned()))
    .into();
    index
}

fn chosen(available: u64, seed: u64) -> Option<Part> {
    let room = Room { available, wal: 50 * MIB, segment: SegmentSize::DEFAULT, copies: &[] };
    choose(&index(), room, Parts { seed, reserve: 100 * MIB })
}

/// The reserve, the WAL that lies about, the replay.
const BESIDES: u64 = (100 + 256 + 50) * MIB;

#[test]
fn databases_of_initdb_come_first_and_the_seed_says_which_of_the_users() {
    let mut nights = BTreeSet::new();
    for seed in 0..50 {
        // Room for one of the small ones.
        let part = chosen(BESIDES + 160 * MIB, seed).unwrap();
        assert_eq!(part, chosen(BESIDES + 160 * MIB, seed).unwrap(), "a seed says the same again");
        assert!([1, 4, 5].iter().all(|oid| part.kept.contains_key(oid)), "{part:?}");
        assert_eq!((part.kept.len(), part.left_out.len()), (4, 2), "{part:?}");
        assert!(space::with_books(part.bytes) <= 160 * MIB);
        assert_eq!((part.replay, part.missing()), (50 * MIB, 1110 * MIB));
        nights.extend(part.kept.keys().copied());
    }
    assert!(nights.contains(&16500) && nights.contains(&16600), "each has its night: {nights:?}");
}

#[test]
fn a_database_that_does_not_fit_keeps_no_smaller_one_from_being_restored() {
    for seed in 0..20 {
        let part = chosen(BESIDES + 300 * MIB, seed).unwrap();
        assert_eq!(part.left_out.keys().copied().collect::<Vec<_>>(), [16384], "{part:?}");
        assert_eq!(part.left_out[&16384].label(16384), "my \"big\" one");
        assert_eq!(part.kept[&16500].label(16500), "small");
        assert_eq!(part.kept[&16600].label(16600), "the database with oid 16600");
    }
}

#[test]
fn without_room_for_what_every_cluster_has_there_is_no_part_and_with_room_for_all_none_either() {
    assert_eq!(chosen(BESIDES + 8 * MIB, 1), None);
    let smallest = chosen(BESIDES + 10 * MIB, 1).unwrap();
    assert_eq!(smallest.kept.keys().copied().collect::<Vec<_>>(), [TEMPLATE1]);
    assert_eq!(chosen(BESIDES - 1, 1), None);
    assert_eq!(chosen(BESIDES + 2000 * MIB, 1), None);
    assert_eq!(chosen(0, 1), None);
}

#[test]
fn a_hollow_database_has_its_files_but_no_bytes_and_lets_nobody_in() {
    let part = chosen(BESIDES + 300 * MIB, 1).unwrap();
    let lay = |name: &str| part.lay(name.as_bytes());
    for name in ["base/16384/16385", "base/16384/16385.1", "pg_tblspc/16400/PG_18_1/16384/16386_vm"] {
        assert_eq!(lay(name), Lay::Hollow, "{name}");
    }
    assert_eq!(lay("base/16384/PG_VERSION"), Lay::Not);
    for name in ["base/16384", "base/16384/pg_filenode.map", "base/16500/1259", "global/1262", "PG_VERSION"] {
        assert_eq!(lay(name), Lay::Out, "{name}");
    }
    let hollow: Vec<_> = part.hollow(&index()).into_iter().map(|(_, size)| size / MIB).collect();
    assert_eq!(hollow, [900, 100, 10]);
    // The second pack holds nothing else.
    let packs: Vec<_> = part.packs(&index()).into_iter().collect();
    assert_eq!(packs, ["data/00001.tar.zst", "data/00003.tar.zst", "data/00004.tar.zst"]);
}

#[test]
fn copies_of_databases_take_room_until_they_are_dropped() {
    let (_, databases) = contents(&index());
    let made = |database, from| CopyOfDatabase::Made { database, from };
    let dropped = |database| CopyOfDatabase::Dropped { database };
    let most = |copies: &[CopyOfDatabase]| of_copies(&databases, copies) / MIB;
    assert_eq!(most(&[]), 0);
    assert_eq!(most(&[made(20000, 16500), dropped(20000), made(20001, 16500), dropped(20001)]), 100);
    assert_eq!(most(&[made(20000, 16500), made(20001, 20000)]), 200, "a copy of a copy");
    // A move to another tablespace, and back.
    assert_eq!(most(&[made(16500, 16500), dropped(16500), made(16500, 16500), dropped(16500)]), 100);
    assert_eq!(most(&[made(20000, 999)]), 0);
}
