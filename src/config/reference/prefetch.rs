//! `[prefetch]`.

use super::{KeyDoc, SectionDoc, key};

const PREFETCH: &str = "[prefetch]";

pub(super) const SECTIONS: &[SectionDoc] = &[SectionDoc {
    head: PREFETCH,
    example_head: "[prefetch]",
    meaning: "For a standby that follows the archive: the agent receives the next WAL segments before `wal fetch` asks for \
              them.",
}];

#[rustfmt::skip]
pub(super) const KEYS: &[KeyDoc] = &[
    key(PREFETCH, "enabled", "yes/no", "true", "true",
        "With false, every `wal fetch` receives its segment by itself."),
    key(PREFETCH, "directory", "path", "none", "\"/var/lib/postgresql\"",
        "Where `pgkeep.prefetch.NAME` is made to keep them, while a standby asks: not in pg_wal, and on its file system, or \
         they are copied. Without it, the state directory where that is so, else the data directory if the agent may write \
         there."),
    key(PREFETCH, "size", "size", "\"128MiB\"", "\"128MiB\"",
        "How much is kept ready for each cluster; at least one segment, at most 64."),
];
