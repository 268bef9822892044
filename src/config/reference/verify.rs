//! `[verify]`.

use super::{KeyDoc, SectionDoc, key};

const VERIFY: &str = "[verify]";

pub(super) const SECTIONS: &[SectionDoc] = &[SectionDoc {
    head: VERIFY,
    example_head: "[verify]",
    meaning: "Looking at what is stored: `pgkeep verify` and the jobs of that kind.",
}];

#[rustfmt::skip]
pub(super) const KEYS: &[KeyDoc] = &[
    key(VERIFY, "patience", "duration", "\"1m\"", "\"1m\"",
        "Segments are shipped side by side, so a newer one may be there first: WAL that is missing counts as a hole only if it \
         does not come within this time."),
];
