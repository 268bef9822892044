//! Marks of backups and of damaged WAL: each is signed by a trusted host, and is what its name says. A mark that anybody
//! can write could hide a backup, or make sound WAL look damaged.
//!
//! What looks wrong is looked at a second time, for marks go with what they are about; one without a signature about
//! nothing is what an ended sweep left, and decides nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use serde::Deserialize;

use super::finding::{Checked, Kind};
use super::leaving::{Leaving, decides};
use super::reading::Trouble;
use super::records::{About, Survey, Wrong};
use super::run::Cx;
use super::signed;
use super::wal::WalHoldings;
use crate::error::Result;
use crate::model::{BackupId, ShortDigest, Timestamp, WalFileName};
use crate::repository::keys::marks::MarkName;
use crate::repository::keys::wal::{Sealing, WalObjectName};
use crate::repository::keys::{self, marks};
use crate::repository::wal_object::DamageMark;
use crate::repository::{Repository, documents};

/// Marks read at once.
const PARALLEL: usize = 8;
/// What looks wrong may just be going.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// What a mark says of itself. Those that decide over a backup's end say all of it, so that none can be copied to
/// another name; others once said less.
#[derive(Deserialize)]
struct AnyMark {
    backup: BackupId,
    #[serde(default)]
    mark: Option<String>,
    #[serde(default)]
    at: Option<Timestamp>,
}

impl AnyMark {
    fn contradicts(&self, name: &MarkName) -> Option<String> {
        let all = decides(&name.mark);
        let at = self.at.map(Timestamp::compact_micros);
        if self.backup != name.backup {
            return Some(format!("it is a mark of {}", self.backup));
        }
        if self.mark.as_ref().map_or(all, |word| *word != name.mark) {
            return Some(match &self.mark {
                Some(word) => format!("it is a mark `{word}`"),
                None => "it does not say what it is".to_owned(),
            });
        }
        if at.map_or(all, |at| at != name.at.compact_micros()) {
            return Some("it is of another time".to_owned());
        }
        None
    }
}

/// Marks that were read: what they decide, and which of them are wrong.
#[derive(Default)]
pub(super) struct Read {
    pub(super) leaving: Leaving,
    /// Backups of which a trusted mark speaks: they were published.
    pub(super) marked: BTreeSet<BackupId>,
    pub(super) wrong: Vec<(MarkName, Wrong)>,
}

/// The marks of all backups that are looked at; of others those that decide over their end.
pub(super) async fn of_backups(cx: &Cx<'_>) -> Result<Read> {
    read(cx, None, |name| cx.scope.has(&name.backup) || decides(&name.mark)).await
}

/// What marks decide now, of one backup or of all.
pub(super) async fn deciding(cx: &Cx<'_>, backup: Option<&BackupId>) -> Result<Leaving> {
    Ok(read(cx, backup, |name| decides(&name.mark)).await?.leaving)
}

async fn read(cx: &Cx<'_>, backup: Option<&BackupId>, wanted: impl Fn(&MarkName) -> bool) -> Result<Read> {
    let prefix = backup.map_or_else(|| marks::all(cx.cluster), |id| marks::of(cx.cluster, id));
    let listed = cx.repository.storage.list(&prefix, None).await?;
    let names = listed.into_iter().filter_map(|o| Some((marks::parse(cx.cluster, &o.key)?, o.key)));
    let reads = names.filter(|(name, _)| wanted(name)).map(|(name, key)| async move {
        let read = one(cx, &key, &name).await;
        (name, key, read)
    });
    let mut reads = futures::stream::iter(reads.collect::<Vec<_>>()).buffered(PARALLEL);
    let mut found = Read::default();
    while let Some((name, key, read)) = reads.next().await {
        match read {
            Ok(()) => {
                found.leaving.believe(&name);
                found.marked.insert(name.backup);
            }
            // A mark that is gone meanwhile is none.
            Err(Trouble::Wrong(Kind::Missing, _)) => {}
            Err(Trouble::Store(error)) => return Err(error),
            Err(Trouble::Wrong(kind, what)) => {
                found.wrong.push((name, Wrong { kind, about: About::Mark, key, what }));
            }
        }
    }
    Ok(found)
}

async fn one(cx: &Cx<'_>, key: &str, name: &MarkName) -> Checked<()> {
    let bytes = signed::read(cx.repository, key, cx.trust).await?;
    let mark: AnyMark = documents::parse(&bytes, &cx.repository.place(key))?;
    mark.contradicts(name).map_or(Ok(()), |what| Err(Trouble::wrong(Kind::Inconsistent, what)))
}

/// What stays wrong of the marks, now that it is known what there is.
pub(super) async fn settle(
    cx: &Cx<'_>,
    wrong: Vec<(MarkName, Wrong)>,
    survey: &mut Survey,
) -> Result<Vec<Wrong>> {
    let mut stays = Vec::new();
    let mut wrong = wrong.into_iter().filter(|(name, _)| cx.scope.has(&name.backup)).peekable();
    if wrong.peek().is_some() {
        tokio::time::sleep(SECOND_LOOK).await;
    }
    for (name, wrong) in wrong {
        match one(cx, &wrong.key, &name).await {
            Ok(()) | Err(Trouble::Wrong(Kind::Missing, _)) => continue,
            Err(Trouble::Store(error)) => return Err(error),
            Err(Trouble::Wrong(..)) => {}
        }
        if !survey.has_objects_of(cx.cluster, &name.backup) && !is_signed(cx.repository, &wrong.key).await? {
            survey.notes.push(format!("{} is a mark without a signature, and its backup is gone", wrong.key));
        } else {
            stays.push(wrong);
        }
    }
    Ok(stays)
}

async fn is_signed(repository: &Repository, key: &str) -> Result<bool> {
    Ok(repository.storage.head(&keys::signature_of(key)).await?.is_some())
}

/// Marks of damaged segments.
pub(super) async fn of_wal(cx: &Cx<'_>, wal: &WalHoldings) -> Result<Vec<Wrong>> {
    let mut marked = Vec::new();
    for segment in wal.listing.marked() {
        marked.extend(wal.listing.damage_marks(segment).map(|digest| (segment, digest)));
    }
    let reads = marked.into_iter().map(|(segment, digest)| async move {
        let key = wal.root.key(WalObjectName::Damaged { segment, digest }, Sealing::Compressed);
        let read = damage_mark(cx, &key).await;
        (segment, digest, key, read)
    });
    let read: Vec<_> = futures::stream::iter(reads).buffered(PARALLEL).collect().await;
    let mut wrong = Vec::new();
    for (segment, digest, key, read) in read {
        match read {
            Ok(()) | Err(Trouble::Wrong(Kind::Missing, _)) => {}
            Err(Trouble::Store(error)) => return Err(error),
            Err(Trouble::Wrong(..)) => {
                let about = About::DamageMark(wal.root.system, segment);
                wrong
                    .extend(second_look(cx, wal, (WalFileName::Segment(segment), digest), key, about).await?);
            }
        }
    }
    Ok(wrong)
}

async fn damage_mark(cx: &Cx<'_>, key: &str) -> Checked<()> {
    let bytes = signed::read(cx.repository, key, cx.trust).await?;
    documents::parse::<DamageMark>(&bytes, &cx.repository.place(key))?;
    Ok(())
}

async fn second_look(
    cx: &Cx<'_>,
    wal: &WalHoldings,
    (file, digest): (WalFileName, ShortDigest),
    key: String,
    about: About,
) -> Result<Option<Wrong>> {
    tokio::time::sleep(SECOND_LOOK).await;
    match damage_mark(cx, &key).await {
        Ok(()) | Err(Trouble::Wrong(Kind::Missing, _)) => Ok(None),
        Err(Trouble::Store(error)) => Err(error),
        Err(Trouble::Wrong(kind, what)) => {
            let about_nothing = wal.listing.object(file, digest).is_none();
            let left_over = about_nothing && !is_signed(cx.repository, &key).await?;
            Ok((!left_over).then_some(Wrong { kind, key, about, what }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contradicts(word: &str, document: &str) -> Option<String> {
        let backup = BackupId::parse("20261121T020000Z-full-3f9a").unwrap();
        let at = "2026-11-22T03:04:05.000006Z".parse().unwrap();
        let mark: AnyMark = serde_json::from_str(document).unwrap();
        mark.contradicts(&MarkName { backup, at, mark: word.to_owned() })
    }

    #[test]
    fn a_mark_that_decides_over_a_backups_end_is_its_own_and_nobody_elses() {
        let document = |backup: &str, mark: &str, at: &str| {
            format!("{{\"backup\":\"{backup}\",\"mark\":\"{mark}\",\"at\":\"{at}\"}}")
        };
        let (mine, time) = ("20261121T020000Z-full-3f9a", "2026-11-22T03:04:05.000006Z");
        assert_eq!(contradicts("expiring", &document(mine, "expiring", time)), None);
        let other = "20261121T020001Z-full-3f9a";
        assert!(contradicts("expiring", &document(other, "expiring", time)).is_some());
        assert!(contradicts("expiring", &document(mine, "verified", time)).is_some());
        assert!(contradicts("pinned", &document(mine, "pinned", "2026-11-21T03:04:05Z")).is_some());
        // One that does not say it could be any.
        let bare = format!("{{\"backup\":\"{mine}\"}}");
        assert!(contradicts("expiring", &bare).is_some());
        assert_eq!(contradicts("verified", &bare), None);
    }
}
