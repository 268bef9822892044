//! PostgreSQL: settings, rights, how archiving has gone so far.

use super::Subject;
use super::findings::Findings;
use crate::cli::init::{archiving, own_command};
use crate::postgres::facts::ServerFacts;
use crate::postgres::session::Session;

/// What must be set for archiving, and what a backup would like.
pub fn settings(subject: &Subject<'_>, facts: &ServerFacts, pending: &[String], findings: &mut Findings) {
    if !facts.major.is_supported() {
        findings.fail("version", format!("PostgreSQL {} is not supported", facts.major), "14 to 18 are");
    }
    if let Some(other) = archiving::other_archiver(facts) {
        findings.fail(
            "settings",
            format!("another tool archives this server: {other}"),
            "`pgkeep init --apply --replace` puts pgkeep in its place",
        );
        return;
    }
    let command = match own_command(subject.ctx, &subject.cluster.name) {
        Ok(command) => command,
        Err(error) => return findings.error("settings", &error),
    };
    let mut changes = archiving::changes(facts, &command);
    if pending.iter().any(|name| name == "archive_mode") && changes.iter().any(|c| c.name == "archive_mode") {
        findings.fail(
            "settings",
            "archive_mode is set, and waits for a restart",
            "restart PostgreSQL, then run `pgkeep check` again",
        );
        // Until then the server says of archive_command only that it is disabled.
        changes.retain(|c| c.name != "archive_mode" && c.name != "archive_command");
    } else if changes.is_empty() {
        findings.ok("settings", "archive_mode, archive_command, archive_timeout and wal_level are right");
    }
    for change in changes {
        let now = if change.now.is_empty() { "unset" } else { &change.now };
        let what = format!("{} is {now}, should be {}", change.name, change.value);
        let restart = if change.restart { ", then restart PostgreSQL" } else { "" };
        let hint = format!("`pgkeep init --apply` sets it{restart}");
        let works = change.name == "archive_timeout"
            || (change.name == "archive_command" && archiving::is_ours(facts.archive_command()));
        if works { findings.warn("settings", what, hint) } else { findings.fail("settings", what, hint) }
    }
    if !facts.full_page_writes() {
        findings.warn(
            "settings",
            "full_page_writes is off",
            "PostgreSQL switches it on during a base backup of a primary; a backup from a standby is refused",
        );
    }
    if !facts.data_checksums {
        findings.warn(
            "settings",
            "data checksums are off: damaged pages are not noticed",
            "pg_checksums --enable, with the server stopped",
        );
    }
}

/// The role may do what a backup does.
pub async fn rights(session: &Session, findings: &mut Findings) {
    match session.missing_grants().await {
        Ok(missing) if missing.is_empty() => findings.ok("rights", "the role may do what backups need"),
        Ok(missing) => findings.fail(
            "rights",
            format!("the role lacks {} rights", missing.len()),
            format!("as a superuser, in this database:\n{};", missing.join(";\n")),
        ),
        Err(error) => findings.error("rights", &error),
    }
}

/// What PostgreSQL says about archiving until now.
pub async fn archiver(session: &Session, findings: &mut Findings) {
    let state = match session.archiver().await {
        Ok(state) => state,
        Err(error) => return findings.error("archiving so far", &error),
    };
    let failing = state.last_failed_at.is_some() && state.last_failed_at > state.last_archived_at;
    match (&state.last_failed_wal, &state.last_archived_wal) {
        (Some(wal), _) if failing => findings.warn(
            "archiving so far",
            format!("the last try failed: {wal}, {} failures", state.failed_count),
            "PostgreSQL's log says why; the forced segment below shows whether it works now",
        ),
        (_, Some(wal)) => {
            findings.ok("archiving so far", format!("{} files, the last was {wal}", state.archived_count));
        }
        (_, None) => findings.ok("archiving so far", "nothing archived yet"),
    }
}
