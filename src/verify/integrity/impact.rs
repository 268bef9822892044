//! What something wrong means, and for which restores. Pure.

use std::collections::BTreeSet;

use super::finding::Kind;
use super::gaps::{Gap, Incomplete, Shorter};
use super::heal::can_be_healed;
use super::records::{About, Survey, Wrong};
use super::wal::Content;
use crate::model::{BackupId, BackupKind, RepoName, SystemId, TimelineId, Timestamp, WalFileName};
use crate::repository::catalog::CatalogEntry;
use crate::repository::keys::backup;
use crate::repository::record::BackupRecord;

/// Says what each finding means, from what a repository holds.
pub(super) struct Impact<'a> {
    pub(super) survey: &'a Survey,
    /// Backups that no restore can use any more.
    pub(super) lost: &'a [BackupId],
    /// Other repositories that answer and from which nothing was healed yet.
    pub(super) others: &'a [&'a RepoName],
}

impl Impact<'_> {
    pub(super) fn of(&self, wrong: &Wrong) -> String {
        let can = matches!(wrong.about, About::Backup(..) | About::Wal(..)) && can_be_healed(wrong.kind);
        let elsewhere = if can { self.elsewhere() } else { String::new() };
        self.means(wrong) + &elsewhere
    }

    /// The same of what a look at WAL as a whole found.
    pub(super) fn of_whole(&self, kind: Kind) -> String {
        let can = matches!(kind, Kind::Missing | Kind::WalHole | Kind::WalIncomplete | Kind::WalShorter);
        if can { self.elsewhere() } else { String::new() }
    }

    fn elsewhere(&self) -> String {
        let names: Vec<&str> = self.others.iter().map(|name| name.as_str()).collect();
        if names.is_empty() {
            return String::new();
        }
        format!("; `pgkeep verify --heal` brings it from {} if that one has it whole", names.join(" or "))
    }

    fn means(&self, wrong: &Wrong) -> String {
        if wrong.kind == Kind::WrongKey
            && let Some(text) = self.wrong_key(&wrong.about)
        {
            return text;
        }
        match &wrong.about {
            About::Repository => "restores do not need it; `pgkeep init` writes it again".to_owned(),
            About::System(id) => format!(
                "WAL of system identifier {id} is archived and restored by what this says; `pgkeep init` on its server \
                 writes it again where it is missing"
            ),
            About::Mark => "what it says of the backup is not believed".to_owned(),
            About::DamageMark(_, segment) => format!(
                "it makes {segment} count as damaged: restores end before it unless another content is there"
            ),
            About::Wal(..) if wrong.kind == Kind::Conflict => {
                "a restore takes the head that reaches farthest and ends before one that contradicts it, and either may \
                 be the other server's"
                    .to_owned()
            }
            About::Wal(system, content) => self.wal(*system, *content),
            About::Backup(id, None) => match self.survey.by_id(id) {
                Some(entry) => format!("no restore uses this backup{}", self.instead(&entry.record)),
                None => format!("no restore uses this backup{}", self.other_of_kind(id)),
            },
            About::Backup(id, Some(key)) => match self.survey.by_id(id) {
                Some(entry) => self.object(&entry.record, key),
                None => format!("what is in it cannot be restored from {id}"),
            },
        }
    }

    /// Where no identity here opens anything of it: that is this host's trouble, and not the repository's.
    fn wrong_key(&self, about: &About) -> Option<String> {
        let mine = |entry: &&CatalogEntry| match about {
            About::Backup(id, None) => entry.record.id == *id,
            About::System(system) => entry.record.system_identifier == *system,
            _ => false,
        };
        let what = match about {
            About::Backup(_, None) => "nothing of this backup can be restored",
            About::System(_) => "none of this WAL can be replayed",
            _ => return None,
        };
        let recipients: BTreeSet<&str> = self
            .survey
            .trusted()
            .filter(mine)
            .flat_map(|e| &e.record.recipients)
            .map(String::as_str)
            .collect();
        let recipients: Vec<&str> = recipients.into_iter().collect();
        let whose = match (recipients.as_slice(), about) {
            ([], _) => "the one that it was encrypted to".to_owned(),
            (all, About::System(_)) => {
                format!("the one that belongs to {} (which its backups are encrypted to)", all.join(" or "))
            }
            (all, _) => format!("the one that belongs to {}", all.join(" or ")),
        };
        Some(format!(
            "with the identity of this host {what}, with the right one it can: bring {whose} into \
             `encryption.identity_file`"
        ))
    }

    fn object(&self, record: &BackupRecord, key: &str) -> String {
        let instead = self.instead(record);
        if record.kind.is_base() {
            return if backup::is_manifest(key) {
                "a restore from this backup does not read it; pg_verifybackup does".to_owned()
            } else if backup::is_config(key) {
                "the data come back; the configuration from outside the data directory does not".to_owned()
            } else {
                format!("no restore from {}{instead}", record.id)
            };
        }
        match key.split('/').next().unwrap_or(key) {
            "dump" => format!("this database cannot be restored from {}{instead}", record.id),
            "csv" => format!("the rows of this table cannot be taken from {}{instead}", record.id),
            "schema" => "the readable schema of this database is lost".to_owned(),
            area if area.starts_with("globals") => {
                format!("roles and tablespaces cannot be taken from {}{instead}", record.id)
            }
            _ => format!("`pgkeep restore database` cannot use {}{instead}", record.id),
        }
    }

    /// Which backup stands in for this one.
    fn instead(&self, record: &BackupRecord) -> String {
        let good = |entry: &&CatalogEntry| {
            entry.record.id != record.id
                && !self.lost.contains(&entry.record.id)
                && entry.record.system_identifier == record.system_identifier
        };
        let same = |entry: &&CatalogEntry| {
            if record.kind.is_base() { entry.record.kind.is_base() } else { entry.record.kind == record.kind }
        };
        let mut others: Vec<(Timestamp, &BackupId)> = self
            .survey
            .trusted()
            .filter(good)
            .filter(same)
            .map(|e| (moment(&e.record), &e.record.id))
            .collect();
        others.sort();
        let mine = moment(record);
        let older = others.iter().rev().find(|(at, _)| *at < mine);
        let newer = others.iter().find(|(at, _)| *at > mine);
        if !record.kind.is_base() {
            return match newer.or(older) {
                Some((at, id)) => nearest(id, &format!(" of {}", at.human())),
                None => format!("; there is no other {} here", noun(record.kind)),
            };
        }
        match (older, newer) {
            (Some((_, older)), _) => {
                format!("; moments after {} are reached from {older} with more WAL to replay", mine.human())
            }
            (None, Some((at, newer))) => {
                format!("; moments before {} ({newer}) cannot be restored from this repository", at.human())
            }
            (None, None) => {
                "; there is no other base backup here, so nothing can be restored from it".to_owned()
            }
        }
    }

    /// Of a backup whose record cannot be read.
    fn other_of_kind(&self, id: &BackupId) -> String {
        let kind = |other: BackupKind| if id.kind().is_base() { other.is_base() } else { other == id.kind() };
        let others =
            self.survey.trusted().filter(|e| kind(e.record.kind) && !self.lost.contains(&e.record.id));
        let others: Vec<&BackupId> = others.map(|e| &e.record.id).filter(|other| *other != id).collect();
        let older = others.iter().filter(|other| **other < id).max();
        match older.or_else(|| others.iter().min()) {
            Some(other) => nearest(other, ""),
            None => format!("; there is no other {} here", noun(id.kind())),
        }
    }

    fn wal(&self, system: SystemId, content: Content) -> String {
        match content {
            Content::File(WalFileName::History(timeline), _) => of_history(timeline),
            Content::File(WalFileName::BackupHistory(..), _) => "no restore needs it".to_owned(),
            Content::File(WalFileName::Partial(segment), _) => {
                format!("the end of timeline {} cannot be replayed", segment.timeline)
            }
            Content::File(WalFileName::Segment(segment), _) | Content::Head { segment, .. } => {
                let bases = self.survey.kept().filter(|e| e.record.system_identifier == system);
                let needs = bases.filter(|e| {
                    e.record.base.as_ref().is_some_and(|b| {
                        let (size, number) = (b.wal_segment_bytes, segment.number(b.wal_segment_bytes));
                        segment.timeline == b.timeline
                            && (b.wal_first.number(size)..=b.wal_last.number(size)).contains(&number)
                    })
                });
                let ids: Vec<&str> = needs.map(|e| e.record.id.as_str()).collect();
                match ids.as_slice() {
                    [] => "restores cannot replay past it".to_owned(),
                    ids => format!("{} needs it to be consistent", ids.join(", ")),
                }
            }
        }
    }
}

fn noun(kind: BackupKind) -> &'static str {
    match kind {
        BackupKind::Full | BackupKind::Incr => "base backup",
        BackupKind::Dump => "dump",
        BackupKind::Schema => "schema",
        BackupKind::Tables => "export",
    }
}

/// Two of a kind need not hold the same: which databases and tables a backup has is not read for this.
fn nearest(id: &BackupId, of: &str) -> String {
    let kind = noun(id.kind());
    if id.kind().is_base() {
        return format!("; the nearest other {kind} is {id}{of}");
    }
    let what = if id.kind() == BackupKind::Tables { "this table" } else { "this database" };
    format!("; the nearest other {kind} is {id}{of}, and `pgkeep show {id}` tells whether it has {what}")
}

/// By which backups of a kind follow each other: the database's clock, where a record has it.
fn moment(record: &BackupRecord) -> Timestamp {
    let base = record.base.as_ref().map(|base| base.stop_time);
    base.or(record.logical.as_ref().map(|logical| logical.snapshot_at)).unwrap_or(record.started_at)
}

pub(super) fn of_history(timeline: TimelineId) -> String {
    format!(
        "restores along timeline {timeline} cannot be planned: it says where that timeline left its parent"
    )
}

/// Seen, and what it means.
pub(super) fn of_gap(gap: &Gap) -> (String, String) {
    let hole = &gap.hole;
    let why = if hole.damaged { "is damaged" } else { "is missing" };
    let what = match hole.next {
        // Heads of one segment that do not meet.
        Some(next) if next == hole.first_missing => {
            let until = gap.piece.map(|lsn| format!(" to {lsn}")).unwrap_or_default();
            format!("a piece of this unfinished segment, from {}{until}, {why}", hole.from)
        }
        Some(next) => format!("it {why}; WAL goes on with {next}"),
        None => format!("it {why}; WAL behind it cannot be reached"),
    };
    let ends = match &gap.before {
        Some(before) => format!("a restore from {} ends at {}", before.id, hole.from),
        None => format!("no restore reaches {}", hole.from),
    };
    let after = match &gap.after {
        Some(after) => {
            format!("the moments from there until {} ({}) are lost here", after.stop_time.human(), after.id)
        }
        None => "nothing behind it can be restored from here until a new base backup is taken".to_owned(),
    };
    (what, format!("{ends}, and {after}"))
}

pub(super) fn of_incomplete(incomplete: &Incomplete) -> (String, String) {
    let why = if incomplete.damaged { "is damaged" } else { "is not there" };
    let what = format!("it needs {}, which {why}", incomplete.missing);
    let stop = incomplete.backup.stop_lsn;
    (what, format!("it cannot be made consistent (at {stop}): no restore from it out of this repository"))
}

pub(super) fn of_shorter(shorter: &Shorter) -> (String, String) {
    let Shorter { before, until, .. } = shorter;
    let what = format!("WAL ends at {until}, and on {} it reached {}", before.seen_at.human(), before.until);
    (what, "the commits between the two cannot be restored from this repository".to_owned())
}
