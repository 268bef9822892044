//! The refusals of targets that cannot be reached. Each names what can be.

use super::scan::Scanned;
use crate::error::{Code, Error};
use crate::model::{BackupId, Lsn, Target, Timestamp};
use crate::repository::continuity::Hole;
use crate::wal::TransactionMark;

/// What can be reached along the path of this recovery.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// When the oldest backup that fits was consistent.
    pub first_time: Timestamp,
    pub first_lsn: Lsn,
    /// The last commit before WAL ends or has its hole.
    pub last_commit: Option<TransactionMark>,
    /// The start of the last record there.
    pub last_record: Option<Lsn>,
    pub hole: Option<Hole>,
    /// The backup that the user asked for.
    pub named: Option<BackupId>,
}

impl Bounds {
    fn window(&self) -> String {
        let from = format!("from {} (lsn {})", self.first_time.postgres(), self.first_lsn);
        let to = match (&self.last_commit, self.last_record) {
            (Some(last), _) => format!("to {} (lsn {})", last.at.postgres(), last.lsn),
            (None, Some(record)) => {
                format!("to lsn {record} (nothing was committed in the last WAL before it)")
            }
            (None, None) => "and not beyond".to_owned(),
        };
        let base = self.named.as_ref().map_or(String::new(), |id| format!(" with backup {id}"));
        format!("what can be reached{base} is {from} {to}")
    }
    /// The last `--to` before the hole.
    fn before_hole(&self) -> String {
        self.last_record.map_or_else(|| "--to backup".to_owned(), |lsn| format!("--to lsn:{lsn}"))
    }
}

fn unreachable(what: impl Into<String>, target: &Target) -> Error {
    Error::new(Code::TargetUnreachable, what).at(format!("--to {target}"))
}

pub fn no_backup() -> Error {
    Error::new(Code::NoBackup, "no base backup can be recovered along this path")
        .hint("`pgkeep list` shows the backups and `pgkeep window` what can be recovered on each timeline")
}

/// `latest` with a hole on the way.
pub fn hole_before_latest(bounds: &Bounds) -> Error {
    let Some(hole) = &bounds.hole else { return no_backup() };
    let damaged = if hole.damaged { "is damaged" } else { "is missing" };
    let beyond = hole.next.map_or("and history says that WAL went on after it".to_owned(), |n| {
        format!("and WAL goes on with {n}")
    });
    unreachable(
        format!("the archive has a hole: {} {damaged}, {beyond}", hole.first_missing),
        &Target::Latest,
    )
    .hint(format!(
        "`{}` ends just before the hole; `pgkeep window` shows it, and a segment that pg_wal or another \
             server still has can be archived with `pgkeep wal push`",
        bounds.before_hole()
    ))
}

/// Beyond the end, or beyond a hole.
pub fn past_the_end(target: &Target, bounds: &Bounds) -> Error {
    if let Some(hole) = &bounds.hole {
        let what =
            format!("the target lies beyond a hole in the archive: {} is not there", hole.first_missing);
        return unreachable(what, target).hint(format!(
            "`{}` ends just before the hole; {}",
            bounds.before_hole(),
            bounds.window()
        ));
    }
    let what = match target {
        Target::Time(_) => "no transaction ended after this time, so a recovery would never stop there",
        _ => "the archive ends before the target",
    };
    unreachable(what, target).hint(format!("`--to latest` recovers everything there is; {}", bounds.window()))
}

pub fn before_the_first(target: &Target, bounds: &Bounds) -> Error {
    unreachable("the target lies before the first moment that can be reached", target).hint(bounds.window())
}

/// A transaction or restore point that did not come.
pub fn not_found(target: &Target, bounds: &Bounds) -> Error {
    if bounds.hole.is_some() {
        return past_the_end(target, bounds);
    }
    let what = match target {
        Target::Xid(xid) => format!("no transaction {xid} ended in the WAL that can be replayed"),
        Target::Name(name) => format!("there is no restore point `{name}` in the WAL that can be replayed"),
        _ => "the target is not in the WAL that can be replayed".to_owned(),
    };
    unreachable(what, target).hint(bounds.window())
}

/// The backup's own WAL ends before it is consistent: the listing said otherwise.
pub fn unreadable(target: &Target, bounds: &Bounds) -> Error {
    unreachable("the WAL of the backup ends before its data are consistent", target).hint(bounds.window())
}

/// WAL in the middle of the way does not hold what it should.
pub fn broken(scanned: &Scanned) -> Error {
    let before = scanned.last_record.map_or_else(
        || "choose another backup with `--backup`".to_owned(),
        |lsn| format!("`--to lsn:{lsn}` ends just before it"),
    );
    Error::new(Code::WalDamaged, format!("WAL on the way cannot be read: {}", scanned.end.reason))
        .at(scanned.end.lsn)
        .hint(format!("{before}; `pgkeep window` shows what else is wrong"))
}
