//! `[proof]` and `[[assertion]]`.

use super::{KeyDoc, SectionDoc, key};

const PROOF: &str = "[proof]";
const ASSERTION: &str = "[[assertion]]";

pub(super) const SECTIONS: &[SectionDoc] = &[
    SectionDoc {
        head: PROOF,
        example_head: "[proof]",
        meaning: "Drills and restore tests: what a return must hold to, and what they leave alone. They work in the scratch \
                  directory of [restore].",
    },
    SectionDoc {
        head: ASSERTION,
        example_head: "[[assertion]]",
        meaning: "What must be true in a restored database; there may be several. Drills and restore tests ask each, as \
                  superuser, in an instance that is theirs alone and is removed afterwards.",
    },
];

#[rustfmt::skip]
pub(super) const KEYS: &[KeyDoc] = &[
    key(PROOF, "rpo", "duration", "none", "\"1m\"",
        "The objective for what may be lost at most. Reports hold it against what was found, and an alert says when it is not kept."),
    key(PROOF, "rto", "duration", "none", "\"4h\"",
        "The objective for how long a return may take at most. A drill that takes longer has failed; an alert says when the estimate is longer."),
    key(PROOF, "reserve", "size", "\"2GiB\"", "\"2GiB\"",
        "What a drill or a restore test leaves free on each disk that it writes to: it does not begin without, and ends when it \
         is touched."),
    key(PROOF, "amcheck", "yes/no", "true", "true",
        "Whether pg_amcheck reads every table and index of what was restored."),
    key(PROOF, "low_priority", "yes/no", "true", "true",
        "Whether the PostgreSQL, pg_restore and checks of a drill or a restore test give way to everything else on the host (nice 19, \
         the disk's idle class). With false they take as long as a restore in earnest would on a busy host."),
    key(PROOF, "deadline", "duration", "\"12h\"", "\"12h\"", "How long one of the proofs may take."),

    key(ASSERTION, "name", "text", "required", "\"every user has a mail address\"", "For reports and alerts."),
    key(ASSERTION, "cluster", "text", "the only one", "\"main\"", "Of which `[cluster.NAME]`; needed where several are configured."),
    key(ASSERTION, "database", "text", "required", "\"app\"", "Where it is asked."),
    key(ASSERTION, "sql", "text", "required", "\"select not exists (select from users where email is null)\"",
        "One statement with one value, which must be true."),
];
