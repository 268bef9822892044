//! Is WAL reaching the repositories? Proved before the copy, waited for after it.
//!
//! With `wait_for_archive` off nobody else waits: a backup whose WAL never arrives would look good and be worthless.
//! A wait ends when nothing new arrives for [`patience`], or at once when PostgreSQL says that the archive command
//! fails again and again for a segment we need.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::full::FullRequest;
use super::preflight::Ready;
use crate::error::{Code, Error, Result};
use crate::model::{Lsn, RepoName, SegmentName, SegmentSize, TimelineId, WalFileName};
use crate::postgres::{ArchiverState, ServerFacts, Session};
use crate::repository::Repository;
use crate::repository::keys::wal::WalRoot;
use crate::repository::wal_listing::WalListing;
use crate::util::clock::Deadline;
use crate::util::progress::Progress;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// PostgreSQL tries three times a second apart and then rests up to a minute; two rests are patience enough.
const STALLED: Duration = Duration::from_secs(150);
/// Failed tries of the archive command after which waiting is pointless.
const FAILURES: u64 = 3;

/// Whoever can say why WAL does not arrive: sessions and settings of the server that archives.
pub(super) struct Watch<'a> {
    pub(super) root: &'a WalRoot,
    /// The server that archives; None when it cannot be asked.
    pub(super) archiver: Option<&'a Session>,
    /// What it said before the segments were asked for.
    pub(super) before: Option<ArchiverState>,
    pub(super) cancel: &'a CancellationToken,
    pub(super) progress: &'a dyn Progress,
    /// So long may nothing new arrive.
    pub(super) patience: Duration,
    /// What a person can do, when the wait fails.
    pub(super) hint: &'a str,
    /// Of a segment that was archived damaged.
    pub(super) damaged: Damaged,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damaged {
    /// Nothing can be rolled forward over it.
    Refused,
    /// It shows that archiving works, and is needed for nothing else.
    Arrived,
}

/// What the archiving server says now; for [`Watch::before`].
pub(super) async fn state(archiver: Option<&Session>) -> Result<Option<ArchiverState>> {
    match archiver {
        Some(session) => session.archiver().await.map(Some),
        None => Ok(None),
    }
}

/// Refuses a server whose settings archive nothing.
pub(super) fn check_settings(facts: &ServerFacts) -> Result<()> {
    let refused = |what: &str| {
        Err(Error::new(Code::NotReady, what.to_owned()).at("the server's settings").hint(
            "`pgkeep init` prints the settings for archiving; a change of archive_mode needs a restart",
        ))
    };
    match (facts.archive_mode(), facts.in_recovery) {
        ("on" | "always", false) | ("always", true) => {}
        // What a standby's primary does is proved by WAL arriving.
        (_, true) => return Ok(()),
        _ => return refused("archive_mode is off: a base backup without its WAL cannot be restored"),
    }
    if facts.archive_command().is_empty() && facts.archive_library().is_empty() {
        return refused("neither archive_command nor archive_library is set: no WAL is archived");
    }
    if facts.wal_level() == "minimal" {
        return refused("wal_level is minimal: such WAL cannot be replayed onto a base backup");
    }
    Ok(())
}

/// Closes the current segment on the primary and says which one was closed last.
pub(super) async fn force_switch(primary: &Session, size: SegmentSize) -> Result<SegmentName> {
    // A switch in an untouched segment does nothing and answers with its beginning, so that the byte before the
    // answer lies in the newest closed segment in both cases.
    let end = primary.switch_wal().await?;
    let timeline = primary.timeline().await?;
    let last = Lsn(end.0.saturating_sub(1));
    Ok(SegmentName::containing(timeline, last, size))
}

/// What of `wanted` a repository does not hold.
async fn missing(
    repository: &Repository,
    root: &WalRoot,
    wanted: &[SegmentName],
    damaged: Damaged,
) -> Result<Vec<SegmentName>> {
    let logs: BTreeSet<(TimelineId, u32)> = wanted.iter().map(|s| (s.timeline, s.log)).collect();
    let mut listing = WalListing::default();
    for (timeline, log) in logs {
        let any = SegmentName { timeline, log, seg: 0 };
        listing.merge(WalListing::load_log(&repository.name, &*repository.storage, root, any).await?);
    }
    let mut missing = Vec::new();
    for segment in wanted {
        let file = WalFileName::Segment(*segment);
        if listing.sound(file).next().is_some() {
            continue;
        }
        if !listing.objects(file).is_empty() {
            if damaged == Damaged::Arrived {
                continue;
            }
            return Err(Error::new(Code::WalDamaged, format!("segment {segment} was archived damaged"))
                .at(repository.place(&root.log_prefix(*segment)))
                .hint("take another backup: this one could not be rolled forward over it"));
        }
        missing.push(*segment);
    }
    Ok(missing)
}

/// What of `wanted` histories a repository does not hold.
async fn missing_histories(
    repository: &Repository,
    root: &WalRoot,
    wanted: &[TimelineId],
) -> Result<Vec<TimelineId>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let listing = WalListing::load_histories(&repository.name, &*repository.storage, root).await?;
    let absent = |t: &&TimelineId| listing.objects(WalFileName::History(**t)).is_empty();
    Ok(wanted.iter().filter(absent).copied().collect())
}

/// Waits until every one of `repositories` holds every wanted segment and history file.
pub(super) async fn wait_for(
    repositories: &[Repository],
    wanted: &[SegmentName],
    histories: &[TimelineId],
    watch: &Watch<'_>,
) -> Result<()> {
    let mut left: Vec<(RepoName, usize)> = Vec::new();
    let mut stalled = Deadline::after(watch.patience);
    let mut pause = FIRST_PAUSE;
    let mut told = false;
    loop {
        let mut now_left = Vec::new();
        let mut example = None;
        for repository in repositories {
            let segments = missing(repository, watch.root, wanted, watch.damaged).await?;
            let files = missing_histories(repository, watch.root, histories).await?;
            if segments.is_empty() && files.is_empty() {
                continue;
            }
            let first = segments.first().map(ToString::to_string);
            let name = first.or(files.first().map(|t| WalFileName::History(*t).to_string()));
            example = name.map(|name| (name, repository.name.clone()));
            now_left.push((repository.name.clone(), segments.len() + files.len()));
        }
        let Some((name, repository)) = example else { return Ok(()) };
        if now_left != left {
            stalled = Deadline::after(watch.patience);
            left = now_left;
        }
        if let (Some(before), Some(session)) = (&watch.before, watch.archiver) {
            let now = session.archiver().await?;
            refuse_failing(before, &now, &name, watch)?;
        }
        if stalled.passed() {
            return Err(Error::new(
                Code::NotReady,
                format!("{name} does not arrive in repository {repository}"),
            )
            .at(watch.root)
            .hint(watch.hint.to_owned()));
        }
        if !told && pause == LONGEST_PAUSE {
            watch.progress.note(&format!("waiting for {name} in repository {repository}"));
            told = true;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = watch.cancel.cancelled() => return Err(super::full::cancelled()),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn refuse_failing(
    before: &ArchiverState,
    now: &ArchiverState,
    waits_for: &str,
    watch: &Watch<'_>,
) -> Result<()> {
    let failing =
        now.failed_count >= before.failed_count + FAILURES && now.archived_count == before.archived_count;
    if !failing {
        return Ok(());
    }
    let failed = now.last_failed_wal.clone().unwrap_or_default();
    Err(Error::new(
        Code::NotReady,
        format!("PostgreSQL's archive command fails on {failed}, and {waits_for} waits behind it"),
    )
    .at(watch.root)
    .hint("the server's log has its message; run the command by hand, or `pgkeep check`"))
}

/// Ok when the repository holds everything, at the latest after `patience`.
pub(super) async fn holds(
    repository: &Repository,
    wanted: &[SegmentName],
    histories: &[TimelineId],
    root: &WalRoot,
    patience: Duration,
) -> Result<()> {
    let deadline = Deadline::after(patience);
    loop {
        let segments = missing(repository, root, wanted, Damaged::Refused).await?;
        let files = missing_histories(repository, root, histories).await?;
        if segments.is_empty() && files.is_empty() {
            return Ok(());
        }
        if deadline.passed() {
            let count = segments.len() + files.len();
            return Err(Error::new(
                Code::WalHole,
                format!("this repository lacks {count} WAL files of the backup, so it is not published here"),
            )
            .at(repository.storage.location()));
        }
        tokio::time::sleep(FIRST_PAUSE).await;
    }
}

/// Hours of copying for nothing are avoided by seeing one segment arrive first.
pub(super) async fn prove(request: &FullRequest<'_>, ready: &Ready) -> Result<()> {
    request.progress.phase("proving that archiving works");
    let size = ready.facts.wal_segment_size;
    let before = state(ready.lock.primary.as_ref()).await?;
    let segment = if let Some(primary) = &ready.lock.primary {
        force_switch(primary, size).await?
    } else {
        // The segment before the one being replayed is closed; if the archive has it, archiving works.
        let replayed = ready.session.position().await?;
        let closed = Lsn(replayed.0.saturating_sub(size.bytes()));
        SegmentName::containing(ready.facts.timeline, closed, size)
    };
    let watch = Watch {
        root: &ready.wal_root,
        archiver: ready.lock.primary.as_ref(),
        before,
        cancel: &request.cancel,
        progress: &*request.progress,
        patience: patience(&ready.facts, ready.lock.primary.is_some()),
        hint: hint(&ready.facts, ready.lock.primary.is_some()),
        // On an idle server the newest closed segment may be the damaged one because of which this backup is taken. On
        // a primary the backup begins behind it; a standby's restart point may lie before it.
        damaged: if ready.facts.in_recovery { Damaged::Refused } else { Damaged::Arrived },
    };
    wait_for(&ready.targets.required(), &[segment], &[], &watch)
        .await
        .map_err(|e| e.while_doing("archiving does not work, so a backup would be worthless"))
}

/// Where nobody can be asked for a switch, a quiet primary closes its segment only after `archive_timeout`.
pub(super) fn patience(facts: &ServerFacts, primary: bool) -> Duration {
    if primary { STALLED } else { STALLED + Duration::from_secs(facts.archive_timeout_seconds()) }
}

pub(super) fn hint(facts: &ServerFacts, primary: bool) -> &'static str {
    match (facts.in_recovery, primary) {
        (false, _) => "look at archive_command and the server's log; `pgkeep check` proves the whole way",
        (true, true) => {
            "look at archive_command and the log of the primary; `pgkeep check` there proves the way"
        }
        (true, false) => {
            "set `primary` in this cluster's configuration, so that a segment switch can be asked of the primary; \
             without it only archive_timeout ends a quiet primary's segment"
        }
    }
}
