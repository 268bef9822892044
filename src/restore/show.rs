//! The plan in words: what `--dry-run` prints and what is confirmed.

use std::fmt::{self, Write as _};

use super::place::{DirectoryState, Role};
use super::plan::{Commit, RestorePlan, TablespacePlace};
use super::request::Action;
use crate::model::{Inclusion, Target};
use crate::util::human;

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transaction {} at {} (lsn {})", self.xid, self.at.postgres(), self.lsn)
    }
}

/// Lines of `name: text`, the texts in one column.
struct Page(String);

impl Page {
    fn line(&mut self, name: &str, text: impl AsRef<str>) {
        let name = if name.is_empty() { String::new() } else { format!("{name}:") };
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "  {name:<18}{}", text.as_ref());
    }
    fn head(&mut self, text: &str) {
        let _ = writeln!(self.0, "{text}");
    }
}

/// For people. Warnings come first.
pub fn text(plan: &RestorePlan) -> String {
    titled(plan, "Plan of the restore")
}

/// The same as a part of another plan.
pub fn titled(plan: &RestorePlan, title: &str) -> String {
    let mut page = Page(String::new());
    for warning in &plan.warnings {
        page.head(&format!("WARNING: {warning}"));
    }
    page.head(title);
    page.line(
        "where",
        format!("host {}, cluster {}, {}", plan.host, plan.cluster, plan.place.data_directory.display()),
    );
    page.line("system", format!("identifier {}, PostgreSQL {}", plan.system_identifier, plan.pg_major));
    target(&mut page, plan);
    backup_and_wal(&mut page, plan);
    lost(&mut page, plan);
    place(&mut page, plan);
    for tablespace in &plan.tablespaces {
        let to = match &tablespace.becomes {
            TablespacePlace::Directory(path) => path.display().to_string(),
            TablespacePlace::InPlace => format!("pg_tblspc/{} in the data directory", tablespace.oid),
        };
        let made = if tablespace.from_wal { " (made after the backup began)" } else { "" };
        page.line("tablespace", format!("{} {} -> {to}{made}", tablespace.oid, tablespace.was));
    }
    for need in &plan.space {
        page.line(
            "room",
            format!(
                "{}: {} needed, {} available",
                need.path.display(),
                human::size(need.needed),
                human::size(need.available)
            ),
        );
    }
    server(&mut page, plan);
    match &plan.estimate {
        Some(estimate) => {
            page.line("takes", estimate.text());
            page.line("", estimate.parts());
        }
        None => page.line("takes", "not known: no drill and no restore has been measured yet"),
    }
    page.0
}

fn target(page: &mut Page, plan: &RestorePlan) {
    let target = &plan.target;
    if plan.server.standby {
        page.line("becomes", "a standby that follows its primary on the latest timeline");
        return;
    }
    let side = match target.inclusion {
        Some(Inclusion::Before) => "just before ",
        Some(Inclusion::After) => "up to and with ",
        None => "",
    };
    let assumed = if target.zone_assumed { " (no zone was given: read as UTC)" } else { "" };
    let what = match &target.target {
        Target::Latest => "the latest that the archive holds".to_owned(),
        Target::Backup => "the moment the backup is consistent".to_owned(),
        Target::Time(time) => format!("{} UTC{assumed}", time.postgres().trim_end_matches("+00")),
        Target::Lsn(lsn) => format!("lsn {lsn}"),
        Target::Xid(xid) => format!("transaction {xid}"),
        Target::Name(name) => format!("restore point `{name}`"),
    };
    page.line("target", format!("{side}{what}, on timeline {}", target.timeline));
    page.line("ends at", format!("lsn {}", target.end));
    let kept = target
        .last_kept
        .map_or_else(|| "none after the backup began".to_owned(), |commit| commit.to_string());
    page.line("last commit kept", kept);
}

fn backup_and_wal(page: &mut Page, plan: &RestorePlan) {
    let backup = &plan.backup;
    page.line("backup", format!("{} from {}: {}", backup.id, backup.repository, backup.why));
    page.line(
        "",
        format!(
            "ended {} (lsn {}), {} to fetch, {} on disk",
            backup.stop_time.postgres(),
            backup.stop_lsn,
            human::size(backup.bytes_stored),
            human::size(backup.bytes_raw)
        ),
    );
    for passed in &backup.passed_over {
        page.line("passed over", format!("{}: {}", passed.id, passed.reason));
    }
    if plan.server.standby {
        return;
    }
    let wal = &plan.wal;
    let timelines: Vec<String> = wal
        .timelines
        .iter()
        .map(|(id, left)| left.map_or_else(|| id.to_string(), |at| format!("{id} up to {at}")))
        .collect();
    page.line(
        "WAL",
        format!(
            "{} to {}, {} segments ({}), timeline {}",
            wal.from,
            wal.to,
            wal.segments,
            human::size(wal.bytes),
            timelines.join(", then ")
        ),
    );
    if wal.only_in_pg_wal > 0 {
        page.line(
            "",
            format!("{} of it only in this pg_wal: archived first", human::size(wal.only_in_pg_wal)),
        );
    }
}

fn lost(page: &mut Page, plan: &RestorePlan) {
    let lost = &plan.lost;
    if plan.server.standby {
        return;
    }
    if lost.bytes() == 0 {
        page.line("left out", "nothing of the archive");
        return;
    }
    page.line("left out", format!("WAL {} to {} ({})", lost.from, lost.to, human::size(lost.bytes())));
    match (&lost.first, &lost.last) {
        (Some(first), Some(last)) if first != last => {
            page.line("", format!("from {first}"));
            page.line("", format!("to   {last}"));
        }
        (Some(only), _) | (None, Some(only)) => page.line("", only.to_string()),
        (None, None) => page.line("", "no commit in it"),
    }
}

fn place(page: &mut Page, plan: &RestorePlan) {
    let found = match &plan.place.found {
        DirectoryState::Absent => "nothing there".to_owned(),
        DirectoryState::Empty => "empty".to_owned(),
        DirectoryState::Leftover { plan, .. } => format!("what the unfinished restore {plan} left: removed"),
        DirectoryState::Cluster { major, role, bytes, .. } => {
            let role = match role {
                Role::Primary => "primary",
                Role::InRecovery => "standby or in recovery",
            };
            format!("this cluster, PostgreSQL {major}, {role}, {}", human::size(*bytes))
        }
        DirectoryState::Unreadable { why } => format!("a cluster that cannot be identified ({why})"),
        DirectoryState::Other { .. } => "something else".to_owned(),
    };
    page.line("found there", found);
    if let Some(server) = &plan.place.stops {
        page.line("stops", format!("{server}, by {}", plan.server.manager));
    }
    for step in &plan.place.moves {
        match &step.to {
            Some(to) => page.line("moves", format!("{} -> {}", step.from.display(), to.display())),
            None => page.line("DELETES", step.from.display().to_string()),
        }
    }
    if let Some(wal) = &plan.place.wal_directory {
        page.line("pg_wal", format!("linked to {}", wal.display()));
    }
}

fn server(page: &mut Page, plan: &RestorePlan) {
    let server = &plan.server;
    if !server.start {
        page.line("then", "nothing is started: start PostgreSQL to begin recovery");
        return;
    }
    let then = match (server.standby, server.action) {
        (true, _) => "follows the primary",
        (false, Action::Promote) => "recovers and opens for writing, on a new timeline",
        (false, Action::Pause) => {
            "recovers and stays open for reading until `pgkeep restore promote` or `discard`"
        }
        (false, Action::Shutdown) => "recovers and shuts down",
    };
    let with = if plan.place.in_place {
        format!("PostgreSQL by {}", server.manager)
    } else {
        server.manager.clone()
    };
    page.line("then", format!("starts {with}, {then}"));
    if let (Some(port), Some(socket)) = (server.port, &server.socket_dir) {
        page.line("listens", format!("socket only, {} port {port}", socket.display()));
    }
}
