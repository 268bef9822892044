//! Backups that were published once and have no record here: told from those that are running, and from those that
//! expired, by signatures, marks and the memory.
//!
//! A whole directory that somebody removed leaves nothing behind that could be wrong, so only the memory tells; marks alone
//! do not, for those of a backup that expired go one by one. Only `expire` removes backups, and it marks them first.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Scope;
use super::finding::Kind;
use super::records::{About, Wrong};
use super::run::Run;
use super::signed;
use crate::error::Result;
use crate::model::{BackupId, Timestamp};
use crate::repository::keys::backup;
use crate::util::human;

/// So long it is told: whoever removed it by hand cannot bring it back.
const TOLD_FOR: Duration = Duration::from_hours(14 * 24);
/// A signature whose record does not come within this time is what a killed backup, or a lost record, left.
const PUBLISHED_AFTER: Duration = Duration::from_mins(10);

impl Run<'_> {
    /// The newest base backup that has expired and is gone.
    pub(super) fn expired(&self) -> Option<&BackupId> {
        let marked = self.survey.leaving.ids().chain(&self.before.leaving);
        let swept = marked.filter(|id| id.kind().is_base() && self.survey.by_id(id).is_none());
        swept.chain(&self.before.expired).max()
    }

    /// `marked`: the backups of which a trusted mark speaks.
    pub(super) async fn look_for_lost_backups(&mut self, marked: &BTreeSet<BackupId>) -> Result<()> {
        let cx = self.cx;
        if !matches!(cx.scope, Scope::All) {
            self.gone.clone_from(&self.before.gone);
        }
        let directory = |unit: &String| backup::parse(cx.cluster, &format!("{unit}/-")).map(|(id, _)| id);
        let mut known: BTreeSet<BackupId> = self.before.units.keys().filter_map(directory).collect();
        known.extend(self.before.gone.keys().cloned());
        for (id, bytes) in std::mem::take(&mut self.survey.unpublished) {
            if cx.scope.has(&id) && !self.is_told(&id) {
                let known = if known.contains(&id) {
                    Some("it was here when it was last looked at")
                } else if marked.contains(&id) {
                    Some("marks of trusted hosts speak of it")
                } else {
                    None
                };
                self.without_record(id, bytes, known).await?;
            }
        }
        for id in known.into_iter().filter(|id| cx.scope.has(id)) {
            self.gone_backup(id).await?;
        }
        self.asked_for().await
    }

    fn is_told(&self, id: &BackupId) -> bool {
        let about = |wrong: &Wrong| matches!(&wrong.about, About::Backup(other, _) if other == id);
        self.wrong.iter().any(about)
    }

    fn lost(&mut self, id: &BackupId, what: String) {
        let key = backup::record(self.cx.cluster, id);
        self.wrong.push(Wrong { kind: Kind::Missing, about: About::Backup(id.clone(), None), key, what });
    }

    /// Objects without a record.
    async fn without_record(&mut self, id: BackupId, bytes: u64, known: Option<&str>) -> Result<()> {
        let cx = self.cx;
        if self.survey.goes(cx, &id).await? || self.before.leaving.contains(&id) {
            return Ok(());
        }
        let size = human::size(bytes);
        let signed = self.survey.signed.get(&id).copied();
        let young = |at: Option<Timestamp>| at.is_none_or(|at| cx.clock.now().since(at) < PUBLISHED_AFTER);
        let why = match (known, signed) {
            (Some(known), _) => known,
            (None, Some(at)) if young(at) && !cx.patience.is_zero() => {
                self.survey.notes.push(format!("{id} is being published ({size})"));
                return Ok(());
            }
            (None, Some(_)) => "its signature is there",
            (None, None) => {
                let what = format!("{id} is running or was never finished ({size}); it is no backup");
                self.survey.notes.push(what);
                return Ok(());
            }
        };
        let storage = &cx.repository.storage;
        let there = storage.head(&backup::record(cx.cluster, &id)).await?.is_some();
        let signature = backup::signature(cx.cluster, &id);
        if there || (known.is_none() && storage.head(&signature).await?.is_none()) {
            return Ok(());
        }
        if known.is_some() {
            let first = self.before.gone.get(&id).copied().unwrap_or_else(|| cx.clock.now());
            self.gone.insert(id.clone(), first);
        }
        self.lost(
            &id,
            format!("the record is not there, and the backup was published: {why}; {size} of it are left"),
        );
        Ok(())
    }

    /// One that was here.
    async fn gone_backup(&mut self, id: BackupId) -> Result<()> {
        let (cx, now) = (self.cx, self.cx.clock.now());
        if self.survey.by_id(&id).is_some() || self.is_told(&id) {
            return Ok(());
        }
        let first = self.before.gone.get(&id).copied().unwrap_or(now);
        if now.since(first) > TOLD_FOR
            || self.before.leaving.contains(&id)
            || self.survey.goes(cx, &id).await?
            || cx.repository.storage.head(&backup::record(cx.cluster, &id)).await?.is_some()
        {
            return Ok(());
        }
        self.gone.insert(id.clone(), first);
        self.lost(&id, what(first, now));
        Ok(())
    }

    /// Backups that were asked for by name and are not here.
    async fn asked_for(&mut self) -> Result<()> {
        let cx = self.cx;
        let Scope::Backups { ids, .. } = cx.scope else { return Ok(()) };
        for id in ids {
            if self.survey.by_id(id).is_some() || self.is_told(id) {
                continue;
            }
            let expired = self.before.leaving.contains(id)
                || (id.kind().is_base() && self.expired().is_some_and(|expired| id <= expired))
                || self.survey.goes(cx, id).await?;
            let has =
                if cx.repository.required && !expired { self.required_elsewhere(id).await } else { None };
            if let Some(other) = has {
                self.lost(id, format!("it is not in this required repository, and {other} has it"));
            } else {
                self.survey.notes.push(format!("backup {id} is not in this repository"));
                self.report.absent.push(id.clone());
            }
        }
        Ok(())
    }

    /// Another required repository that has this backup.
    async fn required_elsewhere(&self, id: &BackupId) -> Option<String> {
        let cx = self.cx;
        for other in cx.others.iter().filter(|other| other.required) {
            if signed::read(other, &backup::record(cx.cluster, id), cx.trust).await.is_ok() {
                return Some(other.name.to_string());
            }
        }
        None
    }
}

fn what(first: Timestamp, now: Timestamp) -> String {
    let since =
        if first == now { String::new() } else { format!(" (since {} at the latest)", first.human()) };
    let until = first.plus(TOLD_FOR).human();
    format!(
        "the whole backup was here and is gone{since}, and no trusted host has marked it as expiring; this is told until {until}"
    )
}
