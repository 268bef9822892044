//! Marks of backups and of damaged WAL: each is signed by a trusted host, and is what its name says. A mark that anybody
//! can write could hide a backup, or make sound WAL look damaged.

use futures::StreamExt;
use serde::Deserialize;

use super::finding::{Checked, Kind};
use super::reading::Trouble;
use super::records::{About, Wrong};
use super::run::Cx;
use super::signed;
use super::wal::WalHoldings;
use crate::error::Result;
use crate::model::BackupId;
use crate::repository::documents;
use crate::repository::keys::marks;
use crate::repository::keys::wal::{Sealing, WalObjectName};
use crate::repository::wal_object::DamageMark;

/// Marks read at once.
const PARALLEL: usize = 8;

/// What every mark of a backup has.
#[derive(Deserialize)]
struct AnyMark {
    backup: BackupId,
}

/// Marks of backups that are there.
pub(super) async fn of_backups(cx: &Cx<'_>) -> Result<Vec<Wrong>> {
    let listed = cx.repository.storage.list(&marks::all(cx.cluster), None).await?;
    let mut names: Vec<(String, BackupId)> = Vec::new();
    for object in listed {
        match marks::parse(cx.cluster, &object.key) {
            Some(mark) if cx.scope.has(&mark.backup) => names.push((object.key, mark.backup)),
            _ => {}
        }
    }
    let reads = names.into_iter().map(|(key, backup)| async move {
        let read = one(cx, &key, &backup).await;
        (key, read)
    });
    gather(futures::stream::iter(reads).buffered(PARALLEL).collect().await, |_| About::Mark)
}

async fn one(cx: &Cx<'_>, key: &str, backup: &BackupId) -> Checked<()> {
    let bytes = signed::read(cx.repository, key, cx.trust).await?;
    let mark: AnyMark = documents::parse(&bytes, &cx.repository.place(key))?;
    if mark.backup == *backup {
        return Ok(());
    }
    Err(Trouble::wrong(Kind::Inconsistent, format!("it is a mark of {}", mark.backup)))
}

/// Marks of damaged segments.
pub(super) async fn of_wal(cx: &Cx<'_>, wal: &WalHoldings) -> Result<Vec<Wrong>> {
    let mut marked = Vec::new();
    for segment in wal.listing.marked() {
        let digests = wal.listing.damage_marks(segment);
        marked.extend(digests.map(|digest| (segment, WalObjectName::Damaged { segment, digest })));
    }
    let reads = marked.into_iter().map(|(segment, name)| async move {
        let key = wal.root.key(name, Sealing::Compressed);
        let read = match signed::read(cx.repository, &key, cx.trust).await {
            Ok(bytes) => documents::parse::<DamageMark>(&bytes, &cx.repository.place(&key))
                .map(|_| ())
                .map_err(Trouble::from),
            Err(trouble) => Err(trouble),
        };
        ((key, segment), read)
    });
    let read: Vec<_> = futures::stream::iter(reads).buffered(PARALLEL).collect().await;
    let system = wal.root.system;
    let mut wrong = Vec::new();
    for ((key, segment), read) in read {
        let found = gather(vec![(key, read)], |_| About::DamageMark(system, segment))?;
        wrong.extend(found);
    }
    Ok(wrong)
}

/// A mark that is gone meanwhile is none.
fn gather(read: Vec<(String, Checked<()>)>, about: impl Fn(&str) -> About) -> Result<Vec<Wrong>> {
    let mut wrong = Vec::new();
    for (key, read) in read {
        match read {
            Ok(()) | Err(Trouble::Wrong(Kind::Missing, _)) => {}
            Err(Trouble::Store(error)) => return Err(error),
            Err(Trouble::Wrong(kind, what)) => {
                wrong.push(Wrong { kind, about: about(&key), key, what });
            }
        }
    }
    Ok(wrong)
}
