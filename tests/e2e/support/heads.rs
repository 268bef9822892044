//! The heads of a repository as its listing shows them, and what the server says of its WAL.

use pgkeep::model::Lsn;

use super::pg::Pg;
use super::store::RawStore;

/// One stored head: the bytes `[from, to)` of a segment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head {
    pub segment: String,
    pub from: u64,
    pub to: u64,
    pub key: String,
}

/// All heads, in order.
pub fn heads(store: &RawStore) -> Vec<Head> {
    let parse = |key: String| {
        let (segment, rest) = key.rsplit('/').next()?.split_once(".head-")?;
        let mut parts = rest.split('-').map(|p| u64::from_str_radix(p, 16).ok());
        let (segment, from, to) = (segment.to_owned(), parts.next()??, parts.next()??);
        Some(Head { segment, from, to, key })
    };
    let mut found: Vec<Head> = store.list().into_iter().filter_map(parse).collect();
    found.sort();
    found
}

/// How far heads reach without a gap from a segment's first byte.
pub fn reach(heads: &[Head], segment: &str) -> u64 {
    let mut end = 0;
    let of_it = || heads.iter().filter(|h| h.segment == segment);
    while let Some(next) = of_it().filter(|h| h.from <= end && h.to > end).map(|h| h.to).max() {
        end = next;
    }
    end
}

/// The name of the segment that is being written, and how much of it is flushed.
pub fn flushed(pg: &Pg) -> (String, u64) {
    let lsn: Lsn = pg.one("select pg_current_wal_flush_lsn()").parse().unwrap();
    segment_at(pg, lsn)
}

/// The segment that holds the byte at `lsn`, and the byte's offset in it.
pub fn segment_at(pg: &Pg, lsn: Lsn) -> (String, u64) {
    let name = pg.one("select substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)");
    let size: u64 =
        pg.one("select setting from pg_settings where name = 'wal_segment_size'").parse().unwrap();
    let (number, per_log) = (lsn.0 / size, (1 << 32) / size);
    (format!("{name}{:08X}{:08X}", number / per_log, number % per_log), lsn.0 % size)
}
