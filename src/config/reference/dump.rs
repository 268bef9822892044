//! The keys of `[dump]`.

use super::{KeyDoc, SectionDoc, key};

const DUMP: &str = "[dump]";

pub(super) const SECTIONS: &[SectionDoc] =
    &[SectionDoc { head: DUMP, example_head: "[dump]", meaning: "Dumps, schemas and exports of tables." }];

#[rustfmt::skip]
pub(super) const KEYS: &[KeyDoc] = &[
    key(DUMP, "databases", "list", "all but templates", "[\"app\", \"tenant_*\"]",
        "Which databases; `*` is anything, `?` one character, and what stands in double quotes is taken as it is."),
    key(DUMP, "tables", "list", "[]", "[\"users\", \"billing.*\"]",
        "What `backup tables` exports when it is not told: tables as in SQL, with `*` and `?`; without a schema, in any."),
    key(DUMP, "connections", "number", "2", "2", "Tables exported at once, 1 to 32, each on a connection of its own."),
    key(DUMP, "compression", "number", "1", "1", "zstd's level, 1 to 19, of all that this section is about."),
    key(DUMP, "lock_timeout", "duration", "\"10s\"", "\"10s\"",
        "A table that cannot be locked within this (a migration holds it, or waits for it) ends the try: whoever waits \
         for a lock holds up everybody behind."),
    key(DUMP, "retries", "number", "5", "5",
        "How often it is tried again after that, or when the server has no free connection."),
    key(DUMP, "retry_after", "duration", "\"10s\"", "\"10s\"", "Until the first of these tries; doubled for each further one, up to ten minutes."),
];
