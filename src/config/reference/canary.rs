//! `[canary]`.

use super::{KeyDoc, SectionDoc, key};

const CANARY: &str = "[canary]";

pub(super) const SECTIONS: &[SectionDoc] = &[SectionDoc {
    head: CANARY,
    example_head: "[canary]",
    meaning: "The canary: the agent of the primary writes a row a minute into the table `pgkeep.canary`, and drills and restore \
              tests prove by it that the last row of a restored cluster is the very one that it must be. It keeps an idle \
              cluster writing: a row a minute, and a WAL segment for each `archive_timeout`. The schema belongs to the role of \
              `connection`; `pgkeep check` says what it lacks. Switched off again, `DROP SCHEMA pgkeep CASCADE` removes it.",
}];

#[rustfmt::skip]
pub(super) const KEYS: &[KeyDoc] = &[
    key(CANARY, "enabled", "yes/no", "false", "true", "Whether the agent writes it."),
    key(CANARY, "database", "text", "\"postgres\"", "\"postgres\"",
        "Where the schema `pgkeep` is made. Not a database whose tables are all published: its subscribers lack the table."),
    key(CANARY, "interval", "duration", "\"1m\"", "\"1m\"", "Between two rows, 100ms to 5m."),
    key(CANARY, "keep", "duration", "\"7d\"", "\"7d\"", "How long rows stay; the newest always do."),
];
