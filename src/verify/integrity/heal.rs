//! Brings what is damaged or missing from another repository.
//!
//! Nothing is overwritten: what is missing is written under its own key, a replacement of what is damaged beside it
//! (`<key>.healed-<8 digits of its SHA-256>`), where readers find it. A copy is proved before it becomes visible: of a
//! backup's object the record says what its bytes are; WAL is opened and held against the digest in its name first.

use std::collections::BTreeMap;

mod whole;

use bytes::Bytes;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::finding::Kind;
use super::gaps::Gaps;
use super::items::Item;
use super::reading::{Stream, Trouble};
use super::records::{About, Survey, Wrong};
use super::run::Cx;
use super::wal::{Content, WalHoldings, WalItem};
use crate::error::{Code, Error, Result};
use crate::model::{Digest, RepoName, SegmentName, SystemId, WalFileName};
use crate::repository::Repository;
use crate::repository::keys::{self, backup};
use crate::repository::record::ObjectEntry;
use crate::repository::wal_listing::WalListing;
use crate::storage;

/// Segments of one hole that are brought back in one run.
const LONGEST_HOLE: u64 = 100_000;
/// No honest record or signature is larger.
const LARGEST_SIGNATURE: u64 = 64 << 20;

/// One object that is whole again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healed {
    pub repository: RepoName,
    /// What was wrong.
    pub key: String,
    /// What is read in its place.
    pub replacement: String,
    pub from: RepoName,
}

/// What is known of the repository.
pub(super) struct Subject<'a> {
    pub(super) survey: &'a Survey,
    pub(super) wal: &'a [WalHoldings],
    pub(super) items: &'a [Item],
    pub(super) gaps: &'a BTreeMap<SystemId, Gaps>,
}

#[derive(Default)]
pub(super) struct Outcome {
    pub(super) healed: Vec<Healed>,
    /// Keys about which nothing is wrong any more.
    pub(super) mended: Vec<String>,
    pub(super) notes: Vec<String>,
    pub(super) unproved: Vec<String>,
    /// What is wrong with what was brought back.
    pub(super) wrong: Vec<Wrong>,
}

pub(super) async fn heal(cx: &Cx<'_>, subject: &Subject<'_>, wrong: &[Wrong]) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    if cx.others.is_empty() {
        outcome.notes.push("there is no other repository to heal from".to_owned());
        return Ok(outcome);
    }
    for wrong in wrong.iter().filter(|wrong| can_be_healed(wrong.kind)) {
        let healed = match &wrong.about {
            // The key says whose record it is: a backup is told of another one that it needs, too.
            About::Backup(..)
                if backup::parse(cx.cluster, &wrong.key).is_some_and(|(_, k)| k == backup::RECORD) =>
            {
                if outcome.mended.contains(&wrong.key) {
                    continue;
                }
                let Some((id, _)) = backup::parse(cx.cluster, &wrong.key) else { continue };
                whole::backup(cx, subject.survey, &id, &mut outcome).await
            }
            About::Backup(id, Some(relative)) => {
                let entry = subject.survey.by_id(id).and_then(|e| e.record.object(relative));
                match entry {
                    Some(entry) => object(cx, &wrong.key, entry).await,
                    None => continue,
                }
            }
            About::Wal(_, content) => {
                let key = |item: &&Item| item.key() == wrong.key;
                match subject.items.iter().find(key) {
                    Some(Item::Wal(item)) => wal(cx, subject, item, *content, Some(wrong)).await,
                    _ => continue,
                }
            }
            _ => continue,
        };
        outcome.take(cx, &wrong.key, healed)?;
    }
    for (system, gaps) in subject.gaps {
        let Some(holdings) = subject.wal.iter().find(|wal| wal.root.system == *system) else { continue };
        for timeline in &gaps.histories {
            let file = WalFileName::History(*timeline);
            file_back(cx, subject, holdings, file, &mut outcome).await?;
        }
        for segment in missing(gaps, holdings) {
            cx.cancelled()?;
            if holdings.listing.has_segment(segment) {
                continue;
            }
            if !file_back(cx, subject, holdings, WalFileName::Segment(segment), &mut outcome).await? {
                break;
            }
        }
    }
    Ok(outcome)
}

impl Outcome {
    fn take(&mut self, cx: &Cx<'_>, key: &str, healed: Result<Option<Healed>>) -> Result<()> {
        match healed {
            Ok(Some(healed)) => {
                self.mended.push(key.to_owned());
                self.healed.push(healed);
                Ok(())
            }
            Ok(None) => {
                self.notes.push(format!("no other repository has a good copy of {key}"));
                Ok(())
            }
            Err(error) if error.code() == Code::Cancelled => Err(error),
            Err(error) => {
                self.notes.push(format!("{key} could not be healed in {}: {error}", cx.repository.name));
                Ok(())
            }
        }
    }
}

pub(super) fn can_be_healed(kind: Kind) -> bool {
    match kind {
        Kind::Missing
        | Kind::WrongLength
        | Kind::Damaged
        | Kind::Foreign
        | Kind::Unreadable
        | Kind::Untrusted => true,
        Kind::WrongKey
        | Kind::Inconsistent
        | Kind::WalHole
        | Kind::WalIncomplete
        | Kind::WalShorter
        | Kind::Conflict => false,
    }
}

/// Under its own name where that is free; beside it where something else is there.
async fn put_beside(cx: &Cx<'_>, key: &str, bytes: Bytes) -> Result<String> {
    let place = target(cx, key, Digest::of(&bytes)).await?;
    if place != key
        && storage::get_bytes(&*cx.repository.storage, key, LARGEST_SIGNATURE).await.is_ok_and(|b| b == bytes)
    {
        return Ok(key.to_owned());
    }
    match cx.repository.storage.put(&place, bytes).await {
        Ok(_) => Ok(place),
        Err(e) if e.code() == Code::ObjectExists => Ok(place),
        Err(e) => Err(e),
    }
}

/// Where a replacement is written: the object's own name, if that is free.
async fn target(cx: &Cx<'_>, key: &str, digest: Digest) -> Result<String> {
    let free = cx.repository.storage.head(key).await?.is_none();
    Ok(if free { key.to_owned() } else { backup::healed(key, digest) })
}

/// An object of a backup.
async fn object(cx: &Cx<'_>, key: &str, entry: &ObjectEntry) -> Result<Option<Healed>> {
    let replacement = target(cx, key, entry.sha256).await?;
    for other in &cx.others {
        for from in [key.to_owned(), backup::healed(key, entry.sha256)] {
            match copy(cx, other, &from, &replacement, entry.bytes, entry.sha256).await {
                Ok(()) => return Ok(Some(healed(cx, key, replacement, other))),
                Err(e) if no_good_copy(&e) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(None)
}

fn no_good_copy(error: &Error) -> bool {
    matches!(error.code(), Code::ObjectMissing | Code::Damaged | Code::StoreUnavailable | Code::StoreDenied)
}

fn healed(cx: &Cx<'_>, key: &str, replacement: String, from: &Repository) -> Healed {
    let repository = cx.repository.name.clone();
    Healed { repository, key: key.to_owned(), replacement, from: from.name.clone() }
}

/// A WAL object with this content.
async fn wal(
    cx: &Cx<'_>,
    subject: &Subject<'_>,
    item: &WalItem,
    content: Content,
    wrong: Option<&Wrong>,
) -> Result<Option<Healed>> {
    let system = item.document.system_identifier;
    let Some(holdings) = subject.wal.iter().find(|wal| wal.root.system == system) else { return Ok(None) };
    for other in &cx.others {
        let listing = match content.segment() {
            Some(s) => {
                WalListing::load_file(&other.name, &*other.storage, &holdings.root, WalFileName::Segment(s))
                    .await
            }
            None => WalListing::load_histories(&other.name, &*other.storage, &holdings.root).await,
        };
        let copies = match listing {
            Ok(listing) => content.copies(&listing),
            Err(e) if no_good_copy(&e) => continue,
            Err(e) => return Err(e),
        };
        for there in copies {
            let one = WalItem { copies: vec![there.clone()], ..item.clone() };
            match cx.check(other, &Item::Wal(one)).await {
                Ok(()) => {}
                Err(Trouble::Store(error)) if error.code() == Code::Cancelled => return Err(error),
                Err(_) => continue,
            }
            let key = wrong.map_or_else(|| keys::replaced(&there.key).to_owned(), |wrong| wrong.key.clone());
            let found = digest_of(cx, other, &there.key).await?;
            let replacement = target(cx, &key, found.1).await?;
            copy(cx, other, &there.key, &replacement, found.0, found.1).await?;
            return Ok(Some(healed(cx, &key, replacement, other)));
        }
    }
    Ok(None)
}

async fn digest_of(cx: &Cx<'_>, repository: &Repository, key: &str) -> Result<(u64, Digest)> {
    let stream = Stream::open(repository, [key.to_owned()], &cx.watch);
    let found = tokio::task::spawn_blocking(move || stream.finish());
    let found = found.await.map_err(|e| Error::internal("a reader died").because(e))??;
    let found = found.first().ok_or_else(|| Error::internal("an object without an end"))?;
    Ok((found.bytes, found.sha256))
}

/// Copies an object that must have this length and digest; else nothing becomes visible.
async fn copy(
    cx: &Cx<'_>,
    from: &Repository,
    source: &str,
    target: &str,
    bytes: u64,
    digest: Digest,
) -> Result<()> {
    let mut body = from.storage.get(source, None).await?;
    let mut upload = cx.repository.storage.upload(target).await?;
    let (mut sha256, mut seen) = (Sha256::new(), 0);
    let ended = loop {
        match body.next().await {
            None => break Ok(()),
            Some(Err(e)) => break Err(e),
            Some(Ok(_)) if cx.cancel.is_cancelled() => {
                break Err(Error::new(Code::Cancelled, "the verification was ended"));
            }
            Some(Ok(chunk)) => {
                sha256.update(&chunk);
                seen += chunk.len() as u64;
                if let Err(e) = upload.write(chunk).await {
                    break Err(e);
                }
            }
        }
    };
    let right = seen == bytes && Digest(sha256.finalize().into()) == digest;
    let ended = ended.and_then(|()| {
        let place = from.place(source);
        if right { Ok(()) } else { Err(Error::new(Code::Damaged, "this copy is damaged, too").at(place)) }
    });
    match ended {
        Ok(()) => upload.finish().await.map(|_| ()),
        Err(e) => {
            let _ = upload.abort().await;
            Err(e)
        }
    }
}

/// The segments of all holes.
fn missing(gaps: &Gaps, wal: &WalHoldings) -> Vec<SegmentName> {
    let size = wal.document.wal_segment_bytes;
    let holes = gaps.holes.iter().flat_map(|gap| {
        let first = gap.hole.first_missing;
        let end = gap.hole.next.map_or(first.number(size) + 1, |next| next.number(size));
        let end = end.max(first.number(size) + 1).min(first.number(size) + LONGEST_HOLE);
        (first.number(size)..end).map(move |number| SegmentName::numbered(first.timeline, number, size))
    });
    let own = gaps.incomplete.iter().map(|incomplete| incomplete.missing);
    let ends = gaps.shorter.iter().flat_map(|shorter| {
        let timeline = shorter.before.timeline;
        let (from, to) =
            (size.number_of(shorter.until), size.number_of(crate::model::Lsn(shorter.before.until.0 - 1)));
        (from..=to.min(from + LONGEST_HOLE)).map(move |number| SegmentName::numbered(timeline, number, size))
    });
    let mut all: Vec<SegmentName> = holes.chain(own).chain(ends).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Brings a missing file. False where no other repository has it.
async fn file_back(
    cx: &Cx<'_>,
    subject: &Subject<'_>,
    holdings: &WalHoldings,
    file: WalFileName,
    outcome: &mut Outcome,
) -> Result<bool> {
    if outcome.healed.iter().any(|h| h.key.contains(&file.to_string())) {
        return Ok(true);
    }
    for other in &cx.others {
        let listing = WalListing::load_file(&other.name, &*other.storage, &holdings.root, file).await?;
        let Some(object) = listing.sound(file).next() else { continue };
        let content = Content::File(file, object.digest);
        let document = std::sync::Arc::new(holdings.document.clone());
        let item = WalItem { document, content, copies: object.copies.clone() };
        let back = wal(cx, subject, &item, content, None).await;
        if let Ok(Some(healed)) = back {
            outcome.healed.push(healed);
            return Ok(true);
        }
    }
    outcome.notes.push(format!("no other repository has a good copy of {file}"));
    Ok(false)
}
