//! What a run leaves behind: what was checked when, its report, and marks of the backups that it looked at.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::Finding;
use super::items::Item;
use super::memory::Memory;
use super::run::Run;
use super::{Scope, publish};
use crate::error::Result;
use crate::model::Timestamp;
use crate::repository::keys::is_wal;
use crate::util::failpoint;

impl Run<'_> {
    /// What is remembered after this run.
    fn memory(&self) -> Memory {
        let ran_to_its_end = self.report.interrupted.is_none();
        let in_scope = |unit: &str| match self.cx.scope {
            Scope::All => ran_to_its_end,
            Scope::Wal => ran_to_its_end && is_wal(unit),
            Scope::Backups { .. } => false,
        };
        let mut memory = Memory::default();
        let kept = self.before.units.iter().filter(|(unit, _)| !in_scope(unit));
        memory.units = kept.map(|(unit, stretches)| (unit.clone(), stretches.clone())).collect();
        let mut units: BTreeMap<&str, Vec<(&str, Option<Timestamp>)>> = BTreeMap::new();
        for (at, item) in self.items.iter().enumerate() {
            let before = self.before.last(item.unit(), item.key());
            let last = if self.checked.contains(&at) { Some(self.started_at) } else { before };
            units.entry(item.unit()).or_default().push((item.key(), last));
        }
        for (unit, mut objects) in units {
            objects.sort_unstable();
            // A look at some of its WAL says nothing of the rest.
            if matches!(self.cx.scope, Scope::Backups { wal: false, .. }) && is_wal(unit) {
                continue;
            }
            memory.note(unit, objects.into_iter());
        }
        let read: BTreeSet<&str> = self.checked.iter().map(|at| self.items[*at].key()).collect();
        let there: BTreeSet<&str> = self.items.iter().map(Item::key).collect();
        let still = self.before.failed.iter().filter(|key| {
            let looked = read.contains(key.as_str());
            !looked
                && (there.contains(key.as_str()) || !matches!(self.cx.scope, Scope::All) || !ran_to_its_end)
        });
        memory.failed = still.cloned().collect();
        memory
            .failed
            .extend(self.wrong.iter().map(|w| w.key.clone()).filter(|key| read.contains(key.as_str())));
        memory.gone.clone_from(&self.gone);
        memory.expired = self.expired().cloned();
        memory.leaving = self.survey.expiring(self.cx.cluster).cloned().collect();
        memory.wal_ends.clone_from(&self.before.wal_ends);
        for end in self.gaps.values().flat_map(|gaps| &gaps.ends) {
            memory.wal_ends.retain(|old| (old.system, old.timeline) != (end.system, end.timeline));
            memory.wal_ends.push(*end);
        }
        memory
    }

    /// Writes it down.
    pub(super) async fn publish(&mut self) -> Result<()> {
        let cx = self.cx;
        // Where nothing could be seen there is nothing to say.
        if self.report.interrupted.is_some() && self.checked.is_empty() {
            return Ok(());
        }
        let memory = self.memory();
        self.report.oldest = memory.units.values().flatten().map(|stretch| stretch.at).min().flatten();
        let mut stored = publish::draft(cx, self.started_at, memory);
        stored.complete = self.report.interrupted.is_none() && self.report.left.0 == 0;
        stored.counts = self.report.counts;
        stored.findings.clone_from(&self.report.findings);
        stored.healed.clone_from(&self.report.healed);
        stored.unproved.clone_from(&self.report.unproved);
        stored.expiring = self.report.expiring;
        failpoint::reach("verify-before-report")?;
        publish::report(cx, &stored).await?;
        // One on its way out is not marked: the mark could come after its end.
        for entry in self.survey.kept().filter(|entry| cx.scope.has(&entry.record.id)) {
            let id = &entry.record.id;
            let mine = |item: &Item| matches!(item, Item::Stream(stream) if stream.check.record.id == *id);
            let all = self.items.iter().enumerate().filter(|(_, item)| mine(item));
            if !all.map(|(at, _)| at).all(|at| self.checked.contains(&at)) {
                continue;
            }
            let about: Vec<&Finding> =
                self.report.findings.iter().filter(|finding| finding.backup.as_ref() == Some(id)).collect();
            if self.report.interrupted.is_none() || !about.is_empty() {
                let checked = if cx.keys.data.is_some() || !cx.keys.encrypted {
                    "stored bytes, signature, contents, own WAL"
                } else {
                    "stored bytes and signature"
                };
                publish::mark(cx, entry, checked, about).await?;
            }
        }
        Ok(())
    }
}
