//! Carries the plan out, and takes everything back where it cannot be carried out.

use super::leftovers::{self, Leftover, Unfinished};
use super::load::Load;
use super::prepare::{CONTROL_DATABASE, Prepared, info_of};
use super::publish::{self, Names};
use super::report::DatabaseReport;
use super::{DatabaseTask, count};
use crate::error::{Code, Error, Result};
use crate::postgres::connect_to;
use crate::postgres::databases::{NewDatabase, comment_on_database};
use crate::postgres::restore_tool::LeaveOut;
use crate::postgres::session::{LOCK_CLASS, LOCK_RESTORE};
use crate::restore::report::Phases;
use crate::util::failpoint;

/// Ok means that the database has its name; look at [`DatabaseReport::holds`].
pub async fn run(task: &DatabaseTask<'_>, mut prepared: Prepared) -> Result<DatabaseReport> {
    let mut phases = Phases::start();
    let mut report = blank(&prepared);
    lock(&prepared).await?;
    remove_leftovers(task, &prepared, &mut report).await?;
    still_as_planned(task, &prepared).await?;
    let session = &prepared.production.session;
    let (roles, tablespaces) = (session.role_names().await?, session.tablespace_names().await?);
    prepared.making.without(&roles, &tablespaces);
    report.roles_made.clone_from(&prepared.making.roles);
    report.tablespaces_made.clone_from(&prepared.making.tablespaces);
    let mut unfinished = Leftover { database: leftovers::fresh_name(), made: Unfinished::default() };
    let work = make(task, &prepared, &mut unfinished, &mut report, &mut phases);
    let done = tokio::select! {
        done = work => done,
        () = task.cancel.cancelled() => Err(ended_by_signal()),
    };
    let names = Names::of(&prepared, report.differ.is_empty(), task.now);
    // Not to be given up half-way: nobody would know whether it counts.
    let done = match done {
        Ok(()) => publish(task, &prepared, &unfinished, &names, &mut report).await,
        failed => failed,
    };
    if let Err(error) = done {
        return Err(take_back(task, &prepared, &unfinished, error).await);
    }
    finish(&prepared, &names, &mut report).await;
    phases.done("publish");
    report.phases = phases.finish();
    Ok(report)
}

fn blank(prepared: &Prepared) -> DatabaseReport {
    let plan = &prepared.plan;
    DatabaseReport {
        backup: plan.backup.id.clone(),
        was: plan.database.clone(),
        database: plan.becomes.clone(),
        tables: plan.tables as u64,
        rows: plan.rows,
        large_objects: plan.large_objects,
        differ: Vec::new(),
        kept_as: None,
        dropped: false,
        roles_made: Vec::new(),
        tablespaces_made: Vec::new(),
        removed: Vec::new(),
        warnings: Vec::new(),
        notes: Vec::new(),
        phases: Vec::new(),
    }
}

async fn lock(prepared: &Prepared) -> Result<()> {
    let session = &prepared.production.session;
    if session.try_advisory_lock(LOCK_CLASS, LOCK_RESTORE).await? {
        return Ok(());
    }
    Err(Error::new(Code::Busy, "another restore of a database is running on this server")
        .at(session.place())
        .hint(format!(
            "wait for it; in SQL it is the session that holds advisory lock ({LOCK_CLASS}, {LOCK_RESTORE}) in pg_locks"
        )))
}

async fn remove_leftovers(
    task: &DatabaseTask<'_>,
    prepared: &Prepared,
    report: &mut DatabaseReport,
) -> Result<()> {
    let session = &prepared.production.session;
    for leftover in leftovers::find(session).await? {
        task.progress.note(&format!("removing {}, which a killed restore has left", leftover.database));
        report.notes.extend(leftovers::remove(session, &prepared.production.info, &leftover).await?);
        report.removed.push(leftover.database);
    }
    Ok(())
}

/// Roles that a leftover's removal took, a database that came meanwhile: whatever the plan does not know of any more.
async fn still_as_planned(task: &DatabaseTask<'_>, prepared: &Prepared) -> Result<()> {
    let session = &prepared.production.session;
    let all = session.all_databases().await?;
    let there = all.iter().any(|d| d.name == task.request.target);
    if there == prepared.plan.existing.is_some() {
        return Ok(());
    }
    let what = if there { "is there now" } else { "is gone now" };
    Err(Error::new(
        Code::Refused,
        format!("database {} {what}: the plan is out of date", task.request.target),
    )
    .at(session.place())
    .hint("run it again and look at the new plan"))
}

/// Up to the exchange of names, with which it counts.
async fn make(
    task: &DatabaseTask<'_>,
    prepared: &Prepared,
    unfinished: &mut Leftover,
    report: &mut DatabaseReport,
    phases: &mut Phases,
) -> Result<()> {
    let request = task.request;
    task.progress.phase("making the database");
    create(task, prepared, unfinished).await?;
    failpoint::reach("database-after-create")?;
    make_globals(prepared).await?;
    failpoint::reach("database-after-globals")?;
    phases.done("make the database");

    let load = Load {
        tool: &prepared.tool,
        info: info_of(&prepared.production, &unfinished.database),
        stream: &prepared.stream,
        head: &prepared.head,
        leave_out: LeaveOut { owners: request.no_owner, tablespaces: request.no_tablespaces },
        data_bytes: prepared.plan.data_bytes,
        progress: task.progress.clone(),
    };
    report.warnings.extend(load.run(&prepared.lists).await?);
    phases.done("restore");

    task.progress.phase("counting the rows");
    report.differ = count::differences(&load.info, &prepared.indexed, prepared.plan.jobs).await?;
    phases.done("count");
    failpoint::reach("database-before-publish")
}

async fn publish(
    task: &DatabaseTask<'_>,
    prepared: &Prepared,
    unfinished: &Leftover,
    names: &Names,
    report: &mut DatabaseReport,
) -> Result<()> {
    task.progress.phase("giving it its name");
    let (request, progress) = (task.request, &*task.progress);
    match publish::run(prepared, request, unfinished, names, progress).await {
        Ok(lost) => report.warnings.extend(lost),
        // The connection may have gone after the server had done it.
        Err(error) => {
            let fresh = connect_to(&info_of(&prepared.production, CONTROL_DATABASE)).await;
            let all = match &fresh {
                Ok(session) => session.all_databases().await,
                Err(_) => return Err(error),
            };
            let all = all.map_err(|_| ()).unwrap_or_default();
            let there = |name: &str| all.iter().any(|d| d.name == name);
            if there(&unfinished.database) || !there(&names.new) {
                return Err(error);
            }
            report.notes.push(format!("the answer to the last step was lost, and it was done: {error}"));
        }
    }
    Ok(())
}

async fn create(task: &DatabaseTask<'_>, prepared: &Prepared, unfinished: &mut Leftover) -> Result<()> {
    let facts = &prepared.indexed.facts;
    let session = &prepared.production.session;
    // A tablespace that is made for it is not there yet; the default one is found by every object by itself.
    let usual = facts.tablespace.is_empty()
        || facts.tablespace == "pg_default"
        || task.request.no_tablespaces
        || prepared.making.tablespaces.contains(&facts.tablespace);
    let new = NewDatabase {
        name: &unfinished.database,
        encoding: &facts.encoding,
        collate: &facts.collate,
        ctype: &facts.ctype,
        locale_provider: &facts.locale_provider,
        locale: facts.locale.as_deref(),
        icu_rules: facts.icu_rules.as_deref(),
        tablespace: (!usual).then_some(facts.tablespace.as_str()),
    };
    session.create_database(&new).await?;
    unfinished.made = Unfinished {
        pgkeep: format!(
            "unfinished restore of {} from {}, begun {}; the next restore of a database removes it",
            prepared.plan.database,
            prepared.plan.backup.id,
            task.now.postgres()
        ),
        roles: prepared.making.roles.clone(),
        tablespaces: prepared.making.tablespaces.clone(),
    };
    let comment = serde_json::to_string(&unfinished.made)
        .map_err(|e| Error::internal("a comment that is no JSON").because(e))?;
    let comment = comment_on_database(&unfinished.database, Some(&comment));
    session.alone("say what the new database is", &comment).await
}

async fn make_globals(prepared: &Prepared) -> Result<()> {
    let (session, making) = (&prepared.production.session, &prepared.making);
    let plain = |statement: &String| statement.trim_end().trim_end_matches(';').to_owned();
    if !making.role_statements.is_empty() {
        let statements: Vec<String> = making.role_statements.iter().map(plain).collect();
        session.all_or_nothing("make the missing roles", &statements).await?;
    }
    for statement in &making.tablespace_statements {
        session.alone("make the missing tablespaces", &plain(statement)).await?;
    }
    Ok(())
}

/// The error, and where something had to be left the way to be rid of it.
async fn take_back(
    task: &DatabaseTask<'_>,
    prepared: &Prepared,
    unfinished: &Leftover,
    error: Error,
) -> Error {
    task.progress.phase("taking everything back");
    // A server that is full has no room for another session, and the first one may be lost.
    let mut removed =
        leftovers::remove(&prepared.production.session, &prepared.production.info, unfinished).await;
    if prepared.production.session.is_lost() {
        removed = async {
            let fresh = connect_to(&info_of(&prepared.production, CONTROL_DATABASE)).await?;
            leftovers::remove(&fresh, &prepared.production.info, unfinished).await
        }
        .await;
    }
    match removed {
        Ok(stays) => {
            for line in stays {
                task.progress.note(&format!("WARNING: {line}"));
            }
            error
        }
        Err(also) => {
            task.progress.note(&format!(
                "WARNING: the unfinished database {} is still there ({also}); the next restore of a database removes it",
                unfinished.database
            ));
            error
        }
    }
}

/// What is left to do once it counts: failures are told, not more.
async fn finish(prepared: &Prepared, names: &Names, report: &mut DatabaseReport) {
    report.database.clone_from(&names.new);
    let session = &prepared.production.session;
    if let Err(error) = failpoint::reach("database-after-publish") {
        report.warnings.push(error.to_string());
    }
    match &names.dropped {
        Some(old) => match session.drop_database(old).await {
            Ok(()) => report.dropped = true,
            Err(error) => {
                report.kept_as = Some(old.clone());
                report.warnings.push(format!("the old database could not be dropped: {error}"));
            }
        },
        None => report.kept_as = names.aside.as_ref().map(|(_, aside)| aside.clone()),
    }
    report.notes.push(format!(
        "a dump holds no statistics: `vacuumdb --analyze-in-stages -d {}` makes queries fast again",
        crate::postgres::instance::shell_quote(&names.new)
    ));
}

fn ended_by_signal() -> Error {
    Error::new(Code::Cancelled, "the restore was ended by a signal, and nothing has changed")
        .hint("run the same command again; it begins anew")
}
