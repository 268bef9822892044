//! `[tail]`.

use super::{KeyDoc, SectionDoc, key};

const TAIL: &str = "[tail]";

pub(super) const SECTIONS: &[SectionDoc] = &[SectionDoc {
    head: TAIL,
    example_head: "[tail]",
    meaning: "The live tail: while PostgreSQL still writes a WAL segment, the agent ships what is flushed of it, so that \
              the loss of this host costs seconds of commits. Only where the server is a primary that archives.",
}];

#[rustfmt::skip]
pub(super) const KEYS: &[KeyDoc] = &[
    key(TAIL, "enabled", "yes/no", "true", "true",
        "With false, a lost host loses the segment that was being written: minutes or hours of commits on a quiet server."),
    key(TAIL, "interval", "duration", "\"3s\"", "\"3s\"",
        "How often the server is asked whether there is more, 200ms to 1h. Nothing is stored while nothing is written."),
];
