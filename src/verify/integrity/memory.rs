//! What was checked when: carried from report to report, in the repository itself, so that any host goes on where
//! another ended.
//!
//! Objects are remembered by stretches of their keys within a unit (a backup, 4 GiB of WAL), not one by one. An object
//! that comes late into a stretch counts as checked with it until the stretch's turn comes again; whatever comes after the
//! last stretch was never checked.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{BackupId, Lsn, SystemId, TimelineId, Timestamp};

/// More stretches of one unit are joined, and the older time counts.
const STRETCHES: usize = 16;

/// Keys up to this one, from the end of the stretch before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stretch {
    pub(super) through: String,
    /// None: never.
    pub(super) at: Option<Timestamp>,
}

/// How far WAL of a timeline once reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WalEnd {
    pub(super) system: SystemId,
    pub(super) timeline: TimelineId,
    pub(super) until: Lsn,
    pub(super) seen_at: Timestamp,
}

/// Of one repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memory {
    #[serde(default)]
    pub(super) units: BTreeMap<String, Vec<Stretch>>,
    /// Objects that were found to be wrong; every run looks at them again.
    #[serde(default)]
    pub(super) failed: BTreeSet<String>,
    #[serde(default)]
    pub(super) wal_ends: Vec<WalEnd>,
    /// The newest base backup that has expired and is gone: WAL before the next one is not expected back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expired: Option<BackupId>,
    /// Backups that were marked as expiring and not gone yet.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) leaving: BTreeSet<BackupId>,
    /// Backups of which nothing is left though nobody has marked them, and when that was seen.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) gone: BTreeMap<BackupId, Timestamp>,
}

impl Memory {
    /// When this object was checked.
    pub(super) fn last(&self, unit: &str, key: &str) -> Option<Timestamp> {
        self.units.get(unit)?.iter().find(|stretch| stretch.through.as_str() >= key)?.at
    }

    pub(super) fn wal_end(&self, system: SystemId, timeline: TimelineId) -> Option<&WalEnd> {
        self.wal_ends.iter().find(|end| end.system == system && end.timeline == timeline)
    }

    /// Remembers a unit anew from its objects, in the order of their keys.
    pub(super) fn note<'k>(
        &mut self,
        unit: &str,
        objects: impl Iterator<Item = (&'k str, Option<Timestamp>)>,
    ) {
        let mut stretches: Vec<Stretch> = Vec::new();
        for (key, at) in objects {
            match stretches.last_mut() {
                Some(last) if last.at == at => key.clone_into(&mut last.through),
                _ => stretches.push(Stretch { through: key.to_owned(), at }),
            }
        }
        while stretches.len() > STRETCHES {
            let last = stretches.remove(1);
            stretches[0] = Stretch { at: stretches[0].at.min(last.at), ..last };
        }
        self.units.insert(unit.to_owned(), stretches);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Option<Timestamp> {
        Timestamp::from_unix_seconds(minute * 60)
    }

    #[test]
    fn stretches_say_when_each_key_was_checked() {
        let mut memory = Memory::default();
        assert_eq!(memory.last("u", "a"), None);
        memory.note("u", [("a", at(1)), ("b", at(1)), ("c", at(2)), ("d", None), ("e", at(3))].into_iter());
        let read = |memory: &Memory| ["a", "b", "bb", "c", "d", "e", "f"].map(|key| memory.last("u", key));
        // What comes after the last key was never seen.
        assert_eq!(read(&memory), [at(1), at(1), at(2), at(2), None, at(3), None]);
        let text = serde_json::to_string(&memory).unwrap();
        assert_eq!(serde_json::from_str::<Memory>(&text).unwrap(), memory);
    }

    #[test]
    fn many_stretches_become_few_and_never_younger() {
        let mut memory = Memory::default();
        let keys: Vec<String> = (0..40).map(|n| format!("{n:02}")).collect();
        memory.note("u", keys.iter().zip(0..).map(|(key, minute)| (key.as_str(), at(minute))));
        assert_eq!(memory.units["u"].len(), STRETCHES);
        for (key, minute) in keys.iter().zip(0..) {
            assert!(memory.last("u", key) <= at(minute), "{key}");
        }
    }
}
