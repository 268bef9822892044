//! What a server that pgkeep makes for itself takes of the host, which may be production's: said outright, whatever the
//! defaults of a build, the findings of `initdb` or the restored configuration are. Room on the disk has its own guard, the
//! reserve (`verify::room`), and the time of a processor its own too (`util::priority`).
//!
//! Not limited: what recovery needs to be at least production's (`max_connections` and its like, `restore::settings`), and
//! `temp_file_limit`, for it counts an index's sorting, too, so that a dump's large index could not be made; a question that
//! fills the disk meets the reserve.

use crate::model::SegmentSize;

/// Of each of them.
pub const LIMITS: [(&str, &str); 12] = [
    // As much as PostgreSQL takes unasked. Less would make replay slower than that of a real restore, more would be taken
    // from production's cache.
    ("shared_buffers", "128MB"),
    // Huge pages were set aside for production.
    ("huge_pages", "off"),
    // For each sort of an assertion; beyond it goes to the scratch disk.
    ("work_mem", "16MB"),
    ("hash_mem_multiplier", "1"),
    // For each index of a dump, and for the filter of each index that pg_amcheck holds against its table.
    ("maintenance_work_mem", "64MB"),
    // Two processors besides those that sessions keep busy, whatever the number of sessions.
    ("max_parallel_workers", "2"),
    ("max_parallel_workers_per_gather", "2"),
    ("max_parallel_maintenance_workers", "2"),
    // Compilers take memory in every session, for questions that are asked once.
    ("jit", "off"),
    // Nobody writes there for long enough to need it, and it would read what is being checked a second time.
    ("autovacuum", "off"),
    // It comes all the same where transaction ids of production are old.
    ("autovacuum_freeze_max_age", "2000000000"),
    ("autovacuum_multixact_freeze_max_age", "2000000000"),
];

/// Of one that begins empty, besides: nobody follows it, and after a crash it is made anew.
pub(super) const OF_FRESH: [(&str, &str); 7] = [
    // Rows that are loaded into a table of the same transaction are not written to WAL.
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("full_page_writes", "off"),
    ("synchronous_commit", "off"),
    // With `initdb`'s own files within what a restore test asks for (`FRESH_CLUSTER`).
    ("max_wal_size", "192MB"),
    ("min_wal_size", "32MB"),
    // Those of the programs that load it.
    ("max_connections", "20"),
];

/// WAL that a recovery keeps in `pg_wal`, in segments: a restore point begins at the first checkpoint beyond.
pub const SEGMENTS_AT_ONCE: u64 = 16;

/// `min_wal_size` and `max_wal_size` of a recovery. PostgreSQL takes no less than two segments.
pub fn wal_sizes(segment: SegmentSize) -> [(&'static str, String); 2] {
    let mib = |segments: u64| format!("{}MB", (segments * segment.bytes()) >> 20);
    [("min_wal_size", mib(2)), ("max_wal_size", mib(SEGMENTS_AT_ONCE))]
}
