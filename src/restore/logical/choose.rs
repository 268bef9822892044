//! Which logical backup is meant by an id, `latest` or a time. By the database's clock, never by name or a host's clock.

use serde::Serialize;

use crate::codec::Identities;
use crate::error::{Code, Error, Result};
use crate::model::{BackupId, BackupKind, Target, Timestamp};
use crate::repository::logical_index::{IndexedDatabase, LogicalIndex};
use crate::repository::signature::Verdict;
use crate::restore::gather::{Archive, Held};

/// What `--from` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    Id(BackupId),
    Latest,
    /// The newest whose snapshot is not younger.
    At(Timestamp),
}

impl Wanted {
    /// True with it: a time without a zone, read as UTC.
    pub fn parse(text: &str, now: Timestamp) -> Result<(Self, bool)> {
        if let Some(id) = BackupId::parse(text.trim()) {
            return Ok((Self::Id(id), false));
        }
        let unreadable = || {
            Error::new(Code::Usage, format!("`{text}` is no backup's id, not `latest` and no time"))
                .hint("`pgkeep list` shows the ids; a time is \"2026-11-21 14:25:00+00\" or \"2 hours ago\"")
        };
        let parsed = Target::parse(text, now).map_err(|_| unreadable())?;
        match parsed.target {
            Target::Latest => Ok((Self::Latest, false)),
            Target::Time(at) => Ok((Self::At(at), parsed.zone_assumed)),
            _ => Err(unreadable()),
        }
    }
}

/// A younger backup that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PassedOver {
    pub id: BackupId,
    pub reason: String,
}

/// What was chosen.
pub struct ChosenBackup {
    pub held: Held,
    pub index: LogicalIndex,
    pub database: IndexedDatabase,
    pub passed_over: Vec<PassedOver>,
}

/// The backup of `kinds` that is meant and has `database`. `fits` says why one does not do, as far as its index tells; one
/// that was named is taken all the same.
pub async fn choose(
    archive: &Archive,
    wanted: &Wanted,
    database: &str,
    kinds: &[BackupKind],
    identities: Option<&Identities>,
    fits: impl Fn(&LogicalIndex, &IndexedDatabase) -> Result<(), String>,
) -> Result<ChosenBackup> {
    let mut passed_over = Vec::new();
    let before = match wanted {
        Wanted::Id(id) => {
            let held = named(archive, id, database, kinds)?;
            let index = archive.index(held, identities, LogicalIndex::read).await?;
            let indexed = in_index(&index, held, database)?;
            return Ok(ChosenBackup { held: held.clone(), index, database: indexed, passed_over });
        }
        Wanted::Latest => None,
        Wanted::At(time) => Some(*time),
    };
    for held in candidates(archive, database, kinds, before) {
        let id = held.record.id.clone();
        if let Verdict::Untrusted(reason) = &held.trust {
            passed_over.push(PassedOver { id, reason: format!("untrusted: {reason}") });
            continue;
        }
        let index = archive.index(held, identities, LogicalIndex::read).await?;
        let indexed = in_index(&index, held, database)?;
        match fits(&index, &indexed) {
            Ok(()) => return Ok(ChosenBackup { held: held.clone(), index, database: indexed, passed_over }),
            Err(reason) => passed_over.push(PassedOver { id, reason }),
        }
    }
    Err(none(archive, database, kinds, before, &passed_over))
}

/// Newest first.
fn candidates<'a>(
    archive: &'a Archive,
    database: &str,
    kinds: &[BackupKind],
    before: Option<Timestamp>,
) -> Vec<&'a Held> {
    let snapshot = |held: &Held| held.record.logical.as_ref().map(|l| l.snapshot_at);
    let mut found: Vec<&Held> = archive
        .backups
        .values()
        .filter(|held| kinds.contains(&held.record.kind) && has(held, database))
        .filter(|held| before.is_none_or(|limit| snapshot(held).is_some_and(|at| at <= limit)))
        .collect();
    found.sort_by_key(|held| std::cmp::Reverse((snapshot(held), held.record.id.clone())));
    found
}

fn has(held: &Held, database: &str) -> bool {
    held.record.logical.as_ref().is_some_and(|l| l.databases.iter().any(|name| name == database))
}

fn named<'a>(archive: &'a Archive, id: &BackupId, database: &str, kinds: &[BackupKind]) -> Result<&'a Held> {
    let Some(held) = archive.backups.get(id) else {
        return Err(Error::new(Code::NoBackup, "there is no such backup")
            .at(id)
            .hint("`pgkeep list` shows what there is")
            .see("restore-a-dump.md"));
    };
    if !kinds.contains(&held.record.kind) {
        let what = format!("this is a {} backup, not a {}", held.record.kind, names(kinds));
        return Err(Error::new(Code::NoBackup, what).at(id).hint("`pgkeep list` shows the kind of each"));
    }
    if let Verdict::Untrusted(reason) = &held.trust {
        return Err(Error::new(Code::Untrusted, format!("this backup is not to be believed: {reason}"))
            .at(id)
            .hint("if you know the host that made it: --trust RW… for once, `[trust] hosts` for good"));
    }
    if !has(held, database) {
        return Err(not_in(held, database));
    }
    Ok(held)
}

fn in_index(index: &LogicalIndex, held: &Held, database: &str) -> Result<IndexedDatabase> {
    index.database(database).cloned().ok_or_else(|| not_in(held, database))
}

fn not_in(held: &Held, database: &str) -> Error {
    let all = held.record.logical.as_ref().map(|l| l.databases.join(", ")).unwrap_or_default();
    Error::new(Code::NoBackup, format!("the backup does not have database {database}"))
        .at(&held.record.id)
        .hint(format!("it has {all}"))
        .see("restore-a-dump.md")
}

fn names(kinds: &[BackupKind]) -> String {
    kinds.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

fn none(
    archive: &Archive,
    database: &str,
    kinds: &[BackupKind],
    before: Option<Timestamp>,
    passed_over: &[PassedOver],
) -> Error {
    let when = before.map(|t| format!(" taken up to {}", t.postgres())).unwrap_or_default();
    let error = archive.without(&format!("{} with database {database}{when}", names(kinds)));
    let error = error.see("restore-a-dump.md");
    if passed_over.is_empty() {
        return error;
    }
    let reasons: Vec<String> = passed_over.iter().map(|p| format!("{}: {}", p.id, p.reason)).collect();
    let code = if passed_over.iter().all(|p| p.reason.starts_with("untrusted")) {
        Code::Untrusted
    } else {
        Code::NoBackup
    };
    Error::new(code, format!("no {} with database {database}{when} can be taken", names(kinds)))
        .at(reasons.join("; "))
        .hint("--from ID takes one all the same where it is to be believed")
        .see("restore-a-dump.md")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_meant_by_id_latest_or_time() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let parse = |text| Wanted::parse(text, now);
        assert_eq!(parse("latest").unwrap(), (Wanted::Latest, false));
        let id = "20261121T020000Z-dump-3f9a";
        assert_eq!(parse(id).unwrap().0, Wanted::Id(BackupId::parse(id).unwrap()));
        assert_eq!(parse("1 hour ago").unwrap().0, Wanted::At("2026-11-21T11:00:00Z".parse().unwrap()));
        assert!(parse("2026-11-21 02:00").unwrap().1);
        for wrong in ["", "backup", "lsn:0/1", "xid:7", "newest", "20261121T020000Z-dump"] {
            assert_eq!(parse(wrong).unwrap_err().code(), Code::Usage, "{wrong}");
        }
    }
}
