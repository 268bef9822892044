//! The plan of a database's restore: a value that is shown, confirmed and carried out.

use std::fmt::Write as _;

use serde::Serialize;

use super::globals::Needs;
use crate::model::{BackupId, ClusterName, Lsn, PgMajor, RepoName, SystemId, Timestamp};
use crate::postgres::databases::OtherSession;
use crate::restore::logical::PassedOver;
use crate::restore::space::Need;
use crate::util::human;

/// What is confirmed.
#[derive(Debug, Clone, Serialize)]
pub struct DatabasePlan {
    pub host: String,
    pub cluster: ClusterName,
    /// Where the server is, and as whom we are there.
    pub server: String,
    pub system_identifier: SystemId,
    pub pg_major: PgMajor,
    pub tool: String,
    pub backup: PlannedBackup,
    /// Its name when it was dumped.
    pub database: String,
    /// What it will be called.
    pub becomes: String,
    pub encoding: String,
    pub owner: Option<String>,
    pub tables: usize,
    pub rows: u64,
    /// Plain bytes of the tables' data.
    pub data_bytes: u64,
    pub large_objects: u64,
    /// None when the name is free.
    pub existing: Option<Existing>,
    pub roles_made: Vec<String>,
    pub tablespaces_made: Vec<String>,
    /// Programs at once.
    pub jobs: usize,
    /// In the data directory, where the server is on this host.
    pub room: Option<Need>,
    /// What killed restores have left, and is removed first.
    pub leftovers: Vec<String>,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct PlannedBackup {
    pub id: BackupId,
    pub repository: RepoName,
    /// Of the cluster that was dumped.
    pub system_identifier: SystemId,
    pub pg_version: String,
    pub snapshot_at: Timestamp,
    pub snapshot_lsn: Lsn,
    /// Of this database's archive.
    pub bytes_stored: u64,
    pub passed_over: Vec<PassedOver>,
}

/// The database that has the name.
#[derive(Debug, Clone, Serialize)]
pub struct Existing {
    /// What it will be called afterwards; none when it is dropped.
    pub kept_as: Option<String>,
    /// They are ended before the names are exchanged.
    pub sessions: Vec<OtherSession>,
}

/// Rows in tables with their indexes, beside the bytes that COPY wrote; indexes of many columns need more.
const ROOM_FACTOR: u64 = 3;
const ROOM_BESIDES: u64 = 100 << 20;

/// About so much room is needed where rows of so many bytes are restored.
pub const fn room_for(data_bytes: u64) -> u64 {
    data_bytes.saturating_mul(ROOM_FACTOR).saturating_add(ROOM_BESIDES)
}

impl DatabasePlan {
    pub fn is_other_cluster(&self) -> bool {
        self.system_identifier != self.backup.system_identifier
    }
}

/// Sessions named in a message.
const NAMED: usize = 5;

/// Who they are, the first of them.
pub fn who(sessions: &[OtherSession]) -> String {
    let first: Vec<String> = sessions.iter().take(NAMED).map(ToString::to_string).collect();
    let more = sessions.len().saturating_sub(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{}{more}", first.join("; "))
}

/// What the dump needs and nobody makes.
pub fn lacks(missing: &Needs) -> String {
    format!("this server does not have {}", missing.text())
}

/// For people. Warnings come first.
pub fn text(plan: &DatabasePlan) -> String {
    let mut text = String::new();
    for warning in &plan.warnings {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "WARNING: {warning}");
    }
    text.push_str("Plan of the database's restore\n");
    let mut line = |name: &str, words: String| {
        let name = if name.is_empty() { String::new() } else { format!("{name}:") };
        let _ = writeln!(text, "  {name:<18}{words}");
    };
    line("server", format!("host {}, {}", plan.host, plan.server));
    line(
        "system",
        format!(
            "identifier {}, PostgreSQL {}, cluster {}",
            plan.system_identifier, plan.pg_major, plan.cluster
        ),
    );
    if plan.is_other_cluster() {
        let dumped = plan.backup.system_identifier;
        line("", format!("ANOTHER CLUSTER than the one that was dumped, which has identifier {dumped}"));
    }
    let backup = &plan.backup;
    line("dump", format!("{} from {}, of PostgreSQL {}", backup.id, backup.repository, backup.pg_version));
    line("as of", format!("{} (lsn {})", backup.snapshot_at.postgres(), backup.snapshot_lsn));
    for passed in &backup.passed_over {
        line("passed over", format!("{}: {}", passed.id, passed.reason));
    }
    let renamed = if plan.becomes == plan.database { "" } else { ", under another name" };
    line("database", format!("{} becomes {}{renamed}", plan.database, plan.becomes));
    line(
        "holds",
        format!(
            "{} tables with {} rows, {} of data ({} to fetch){}",
            plan.tables,
            plan.rows,
            human::size(plan.data_bytes),
            human::size(backup.bytes_stored),
            match plan.large_objects {
                0 => String::new(),
                n => format!(", {n} large objects"),
            }
        ),
    );
    name(&mut line, plan);
    for (name, made) in [("makes roles", &plan.roles_made), ("makes tablespaces", &plan.tablespaces_made)] {
        if !made.is_empty() {
            line(name, made.join(", "));
        }
    }
    for left in &plan.leftovers {
        line("removes", format!("{left}, which a killed restore has left"));
    }
    let at_once = if plan.jobs == 1 { String::new() } else { format!(", {} at once", plan.jobs) };
    if let Some(room) = &plan.room {
        let (needed, available) = (human::size(room.needed), human::size(room.available));
        line("room", format!("{needed} needed, roughly, {available} available in {}", room.path.display()));
    }
    line("by", format!("{}{at_once}; only the server writes to a disk", plan.tool));
    text
}

/// What becomes of the database that has the name.
fn name(line: &mut impl FnMut(&str, String), plan: &DatabasePlan) {
    match &plan.existing {
        None => line("name", format!("{} is free: nothing is replaced", plan.becomes)),
        Some(existing) => {
            let fate = match &existing.kept_as {
                Some(name) => format!("is kept as {name}"),
                None => "is DROPPED, when the new one is whole".to_owned(),
            };
            line("REPLACED", format!("the database that is called {} now {fate}", plan.becomes));
            if !existing.sessions.is_empty() {
                line(
                    "sessions",
                    format!("{} are ENDED: {}", existing.sessions.len(), who(&existing.sessions)),
                );
            }
        }
    }
}
