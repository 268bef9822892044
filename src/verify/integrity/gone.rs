//! Backups of which nothing is left: they were there at the last look, and are told from those that expired by the marks.
//!
//! A whole directory that somebody removed leaves nothing behind that could be wrong, so only the memory tells. Only `expire`
//! removes backups, and it marks them first.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Scope;
use super::finding::Kind;
use super::records::{About, Wrong};
use super::run::Run;
use crate::error::Result;
use crate::model::{BackupId, Timestamp};
use crate::repository::keys::backup;

/// So long it is told: whoever removed it by hand cannot bring it back.
const TOLD_FOR: Duration = Duration::from_hours(14 * 24);

impl Run<'_> {
    /// The newest base backup that has expired and is gone.
    pub(super) fn expired(&self) -> Option<&BackupId> {
        let marked = self.survey.leaving.ids().chain(&self.before.leaving);
        let swept = marked.filter(|id| id.kind().is_base() && self.survey.by_id(id).is_none());
        swept.chain(&self.before.expired).max()
    }

    pub(super) async fn look_for_gone_backups(&mut self) -> Result<()> {
        let cx = self.cx;
        if !matches!(cx.scope, Scope::All) {
            self.gone.clone_from(&self.before.gone);
            return Ok(());
        }
        let directory = |unit: &String| backup::parse(cx.cluster, &format!("{unit}/-")).map(|(id, _)| id);
        let mut known: BTreeSet<BackupId> = self.before.units.keys().filter_map(directory).collect();
        known.extend(self.before.gone.keys().cloned());
        let now = cx.clock.now();
        for id in known {
            let told = |wrong: &Wrong| matches!(&wrong.about, About::Backup(other, _) if *other == id);
            if self.survey.by_id(&id).is_some() || self.wrong.iter().any(told) {
                continue;
            }
            let first = self.before.gone.get(&id).copied().unwrap_or(now);
            let key = backup::record(cx.cluster, &id);
            if now.since(first) > TOLD_FOR
                || self.before.leaving.contains(&id)
                || self.survey.goes(cx, &id).await?
                || cx.repository.storage.head(&key).await?.is_some()
            {
                continue;
            }
            self.gone.insert(id.clone(), first);
            self.wrong.push(Wrong {
                kind: Kind::Missing,
                about: About::Backup(id, None),
                key,
                what: what(first, now),
            });
        }
        Ok(())
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
