//! Backups on their way out: a trusted host has marked them `expiring`, and after a grace time a sweep takes away their
//! objects, in whatever order, and the WAL that only they needed.
//!
//! * What is *not there* of such a backup is no finding, whichever went first: data, record or signature. The mark is
//!   written before anything goes, so whoever sees something missing and then reads the marks finds it there.
//! * What *is there* is read and judged like everything else: until the sweep the mark can be taken back, by a later
//!   `pinned` or `retained`, and damage tells of the store whatever it hit. Once something of the backup is gone no restore
//!   can use the rest, and it is not read any more.
//! * A mark that no trusted host signed, or that is another's copied to this name, is a finding and hides nothing.
//! * A base backup that expires says that the retained window begins at a newer one: of WAL before that one only the
//!   retained base backups' own is still needed. WAL beyond the place where a timeline was left expires, too.
//! * The order of backups is that of their ids, for the record may be gone: two base backups of a cluster never run at
//!   once, so a clock would have to be wrong by the whole distance between them.
//!
//! What has gone is remembered in the report, so the marks may go in the end, too.

use std::collections::{BTreeMap, BTreeSet};

use super::marks;
use super::run::Cx;
use crate::error::Result;
use crate::model::{BackupId, Timestamp};
use crate::repository::keys::marks::MarkName;

/// The mark.
pub(super) const EXPIRING: &str = "expiring";
/// Later marks that take it back.
const KEEPS: [&str; 2] = ["pinned", "retained"];

/// Whether a mark's word decides over a backup's end.
pub(super) fn decides(word: &str) -> bool {
    word == EXPIRING || KEEPS.contains(&word)
}

/// The marks that trusted hosts wrote, as far as they say whether a backup stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Leaving(BTreeMap<BackupId, BTreeSet<(Timestamp, bool)>>);

impl Leaving {
    /// Takes a mark that is trusted and is what its name says.
    pub(super) fn believe(&mut self, mark: &MarkName) {
        if decides(&mark.mark) {
            let keeps = mark.mark != EXPIRING;
            self.0.entry(mark.backup.clone()).or_default().insert((mark.at, keeps));
        }
    }

    pub(super) fn has(&self, id: &BackupId) -> bool {
        self.0.get(id).and_then(BTreeSet::last).is_some_and(|(_, keeps)| !keeps)
    }

    pub(super) fn ids(&self) -> impl DoubleEndedIterator<Item = &BackupId> {
        self.0.keys().filter(|id| self.has(id))
    }

    /// For something that is not there: the marks that came meanwhile count, too.
    pub(super) async fn has_by_now(&mut self, cx: &Cx<'_>, id: &BackupId) -> Result<bool> {
        if !self.has(id) {
            let more = marks::deciding(cx, Some(id)).await?;
            self.join(more);
        }
        Ok(self.has(id))
    }

    /// Everything that was marked until now, besides what is known.
    pub(super) async fn refresh(&mut self, cx: &Cx<'_>) -> Result<()> {
        let more = marks::deciding(cx, None).await?;
        self.join(more);
        Ok(())
    }

    /// What was seen counts, though it is gone by now: a sweep takes marks along.
    fn join(&mut self, more: Self) {
        for (id, marks) in more.0 {
            self.0.entry(id).or_default().extend(marks);
        }
    }

    /// The retained base backup at which the window begins at the earliest, for a newer one than that has no older to
    /// stand in for it: the first behind one that expires, or `expired` once. None where nothing says that WAL expires.
    pub(super) fn floor<'k>(
        &self,
        expired: Option<&BackupId>,
        kept: impl Iterator<Item = &'k BackupId>,
    ) -> Option<BackupId> {
        let kept: BTreeSet<&BackupId> = kept.filter(|id| !self.has(id)).collect();
        let mut gone: BTreeSet<&BackupId> = self.ids().filter(|id| id.kind().is_base()).collect();
        gone.extend(expired);
        let behind = |id: &&BackupId| kept.iter().find(|kept| *kept > id).map(|kept| (*kept).clone());
        gone.iter().rev().find_map(behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BackupKind;

    fn id(minute: i64) -> BackupId {
        BackupId::new(at(minute), BackupKind::Full, 0)
    }
    fn at(minute: i64) -> Timestamp {
        Timestamp::from_unix_seconds(minute * 60).unwrap()
    }
    fn marked(marks: &[(i64, i64, &str)]) -> Leaving {
        let mut leaving = Leaving::default();
        for (backup, minute, word) in marks {
            leaving.believe(&MarkName { backup: id(*backup), at: at(*minute), mark: (*word).to_owned() });
        }
        leaving
    }

    #[test]
    fn the_last_word_counts_and_other_marks_say_nothing_about_it() {
        let leaving = marked(&[
            (1, 10, "expiring"),
            (1, 12, "verified"),
            (2, 10, "expiring"),
            (2, 11, "pinned"),
            (3, 10, "expiring"),
            (3, 11, "retained"),
            (3, 12, "expiring"),
            (4, 10, "expiring"),
            (4, 11, "unpinned"),
        ]);
        assert_eq!(leaving.ids().collect::<Vec<_>>(), [&id(1), &id(3), &id(4)]);
    }

    #[test]
    fn the_window_begins_behind_the_newest_backup_that_expires() {
        let kept = [id(1), id(3), id(5), id(6)];
        let floor = |leaving: &Leaving, expired: Option<&BackupId>| leaving.floor(expired, kept.iter());
        assert_eq!(floor(&Leaving::default(), None), None);
        assert_eq!(floor(&marked(&[(2, 10, "expiring")]), None), Some(id(3)));
        assert_eq!(floor(&marked(&[(2, 10, "expiring"), (4, 10, "expiring")]), None), Some(id(5)));
        assert_eq!(floor(&marked(&[(5, 10, "expiring")]), None), Some(id(6)), "it is not kept itself");
        // Nothing stands in for the newest one: its end says nothing of WAL.
        assert_eq!(floor(&marked(&[(7, 10, "expiring")]), None), None);
        assert_eq!(floor(&marked(&[(2, 10, "expiring"), (7, 10, "expiring")]), None), Some(id(3)));
        assert_eq!(floor(&Leaving::default(), Some(&id(4))), Some(id(5)), "its mark is gone, too");
    }
}
