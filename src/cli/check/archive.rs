//! A segment through the archive and back: PostgreSQL closes one, its `archive_command` ships it, and it is fetched from
//! every repository and compared.

use std::path::Path;
use std::time::Duration;

use super::Subject;
use super::findings::Findings;
use crate::cli::catalogs;
use crate::cli::init::archiving;
use crate::config::EncryptionConfig;
use crate::error::{Code, Error, Result};
use crate::model::{Digest, Lsn, SegmentName, WalFileName};
use crate::postgres::facts::ServerFacts;
use crate::postgres::session::Session;
use crate::repository::Repository;
use crate::repository::keys::wal::WalRoot;
use crate::repository::wal_listing::{WalListing, WalObject};
use crate::repository::wal_object::WalObjects;
use crate::storage;
use crate::util::clock::Deadline;
use crate::util::human;

/// PostgreSQL tries three times a second apart, then waits a minute.
const PATIENCE: Duration = Duration::from_secs(90);
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);
/// No stored segment is larger than a segment and a little.
const OVERHEAD: u64 = 1 << 20;
const AGE_HEAD: &[u8] = b"age-encryption.org/v1\n";

/// Closes a segment and follows it.
pub async fn round_trip(
    subject: &Subject<'_>,
    session: &Session,
    facts: &ServerFacts,
    repositories: &[Repository],
    findings: &mut Findings,
) {
    if facts.in_recovery && subject.cluster.primary.is_none() {
        findings.warn(
            "archive",
            "this is a standby: no segment can be forced",
            "set `primary` of the cluster, so that check and backup can switch WAL there",
        );
        return;
    }
    if !matches!(facts.archive_mode(), "on" | "always") {
        findings.fail("archive", "no segment was sent: archive_mode is off", "see `settings` above");
        return;
    }
    if !archiving::is_ours(facts.archive_command()) {
        findings.fail(
            "archive",
            "no segment was sent: archive_command is not pgkeep's",
            "see `settings` above",
        );
        return;
    }
    let begun = crate::util::clock::Stopwatch::start();
    let segment = match close_segment(subject, session, facts).await {
        Ok(segment) => segment,
        Err(error) => return findings.error("archive", &error),
    };
    let deadline = Deadline::after(PATIENCE);
    for repository in repositories {
        let check = format!("archive, {}", repository.name);
        match follow(subject, facts, repository, segment, &deadline).await {
            Ok(how) => {
                findings
                    .ok(check, format!("{segment} arrived after {}: {how}", human::span(begun.elapsed())));
            }
            Err(error) => findings.error_if(repository.required, check, &error),
        }
    }
}

/// Writes a record, so that there is something to close, and closes the segment.
async fn close_segment(subject: &Subject<'_>, session: &Session, facts: &ServerFacts) -> Result<SegmentName> {
    let elsewhere = match &subject.cluster.primary {
        Some(primary) if facts.in_recovery => Some(crate::postgres::connect::connect(primary).await?),
        _ => None,
    };
    let primary = elsewhere.as_ref().unwrap_or(session);
    primary.create_restore_point("pgkeep check").await?;
    let end = primary.switch_wal().await?;
    let timeline = primary.timeline().await?;
    Ok(SegmentName::containing(timeline, Lsn(end.0.saturating_sub(1)), facts.wal_segment_size))
}

/// Waits for the segment in one repository and compares it with what was sent.
async fn follow(
    subject: &Subject<'_>,
    facts: &ServerFacts,
    repository: &Repository,
    segment: SegmentName,
    deadline: &Deadline,
) -> Result<String> {
    let root = WalRoot::new(&subject.cluster.name, facts.system_identifier);
    let file = WalFileName::Segment(segment);
    let object = loop {
        let listing = WalListing::load_file(&repository.name, &*repository.storage, &root, file).await?;
        if let Some(object) = listing.objects(file).first() {
            break object.clone();
        }
        if deadline.passed() {
            return Err(Error::new(Code::NotReady, format!("the segment did not arrive within {}", human::span(PATIENCE)))
                .at(repository.place(&root.file_prefix(file)))
                .hint("PostgreSQL's log has what archive_command said; try the command by hand as PostgreSQL's user"));
        }
        tokio::select! {
            () = tokio::time::sleep(BETWEEN_LOOKS) => {}
            () = subject.ctx.cancel.cancelled() => return Err(Error::new(Code::Cancelled, "stopped by a signal")),
        }
    };
    compare(subject, facts, repository, segment, &object).await
}

async fn compare(
    subject: &Subject<'_>,
    facts: &ServerFacts,
    repository: &Repository,
    segment: SegmentName,
    object: &WalObject,
) -> Result<String> {
    let encrypted = matches!(subject.config.encryption, EncryptionConfig::Recipients { .. });
    let (identities, readable) = catalogs::keys(subject.config)?;
    if readable {
        let objects = WalObjects::new(std::slice::from_ref(repository), identities);
        let (bytes, _) = objects.bytes(&object.copies, object.digest).await?;
        if bytes.len() as u64 != facts.wal_segment_size.bytes() {
            return Err(Error::new(Code::Damaged, "the segment came back with another length").at(segment));
        }
        let opened = if encrypted { "decrypted" } else { "unpacked" };
        return Ok(format!("fetched back, {opened}, the same bytes"));
    }
    let limit = facts.wal_segment_size.bytes() + OVERHEAD;
    let copy = object.copies.first().ok_or_else(|| Error::internal("an object without a copy"))?;
    let stored = storage::get_bytes(&*repository.storage, &copy.key, limit).await?;
    if stored.len() as u64 != copy.bytes || !stored.starts_with(AGE_HEAD) {
        return Err(Error::new(Code::StoreLied, "what came back is not what was stored")
            .at(repository.place(&copy.key)));
    }
    let local = facts.data_directory.join("pg_wal").join(segment.to_string());
    let named = match same_digest(&local, object) {
        Some(true) => ", its name has the digest of the file in pg_wal",
        Some(false) => {
            return Err(
                Error::new(Code::WalConflict, "the archive has another content than pg_wal").at(segment)
            );
        }
        None => "",
    };
    Ok(format!("fetched back whole and encrypted{named} (decrypting needs the identity)"))
}

/// None when the file is gone from pg_wal already.
fn same_digest(local: &Path, object: &WalObject) -> Option<bool> {
    let bytes = std::fs::read(local).ok()?;
    Some(Digest::of(&bytes).short() == object.digest)
}
