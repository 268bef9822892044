//! From the request to the plan: the dump is chosen and its head is read, the server is looked at, and what cannot work
//! is refused. Nothing is written.

use std::sync::Arc;

use super::globals::{self, Making, Needs};
use super::leftovers::Leftover;
use super::plan::{self, DatabasePlan, Existing, PlannedBackup};
use super::request::{DatabaseRequest, with_suffix};
use super::{DatabaseTask, leftovers, lists};
use crate::error::{Code, Error, Result};
use crate::model::{BackupKind, RepoName};
use crate::postgres::archive_format::Head;
use crate::postgres::databases::OtherSession;
use crate::postgres::restore_tool::RestoreTool;
use crate::postgres::sql_text;
use crate::postgres::{ConnInfo, as_owner, service};
use crate::repository::Repository;
use crate::repository::access;
use crate::repository::logical_index::IndexedDatabase;
use crate::restore::gather::Archive;
use crate::restore::logical::StoredStream;
use crate::restore::logical::choose::{self, ChosenBackup};
use crate::restore::production::Production;
use crate::restore::space::Need;
use crate::restore::survey;
use crate::util::{host, human};

/// Where databases are made and renamed from.
pub const CONTROL_DATABASE: &str = "postgres";

/// The plan, and what its execution goes on with.
pub struct Prepared {
    pub plan: DatabasePlan,
    pub production: Production,
    pub tool: RestoreTool,
    pub stream: StoredStream,
    pub head: Arc<Head>,
    pub indexed: IndexedDatabase,
    pub making: Making,
    pub lists: lists::Lists,
}

pub async fn run(task: &DatabaseTask<'_>) -> Result<Prepared> {
    let request = task.request;
    request.check()?;
    task.progress.phase("looking at the dumps");
    let logical = |kind: BackupKind| !kind.is_base();
    let archive =
        Archive::load_kinds(task.config, &task.cluster.name, task.only, &task.trusted, logical).await?;
    let metadata = access::metadata_identities(task.config, task.identities.as_ref())?;
    let dump = [BackupKind::Dump];
    let chosen =
        choose::choose(&archive, &request.from, &request.database, &dump, metadata.as_ref(), |_, d| whole(d));
    let chosen = chosen.await?;
    let (repository, stream, head) = open(task, &archive, &chosen).await?;

    task.progress.phase("looking at the server");
    let production =
        Production::connect(task.cluster, request.connection.as_deref(), CONTROL_DATABASE).await?;
    refuse_server(request, &chosen, &production).await?;
    let running = task.cluster.data_directory.as_deref().and_then(service::server_program);
    let bin_directory = task.cluster.bin_directory.as_deref();
    let tool = RestoreTool::find(production.major, bin_directory, running.as_deref()).await?;
    let tool = tool.at(task.priority);
    let left = leftovers::find(&production.session).await?;
    let making = make_globals(task, &chosen, &repository, &head, &production, &left).await?;
    let existing = existing(task, &chosen, &production).await?;

    let tables: Vec<u64> = chosen.database.tables.iter().map(|t| t.bytes).collect();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = lists::workers(request.jobs, processors, &tables);
    let bytes = |entry: &crate::postgres::archive_format::TocEntry| {
        let known = chosen.database.tables.iter().find(|t| t.dump_id == Some(entry.dump_id));
        known.map_or(0, |t| t.bytes)
    };
    let lists = lists::lists(&head.toc, bytes, jobs);
    let mut plan = plan_of(task, &chosen, &repository.name, &production, &tool);
    plan.backup.bytes_stored = stream.stored_bytes();
    plan.existing = existing;
    plan.roles_made.clone_from(&making.roles);
    plan.tablespaces_made.clone_from(&making.tablespaces);
    plan.jobs = lists.data.len().max(lists.indexes.len()).max(1);
    plan.leftovers = left.into_iter().map(|l| l.database).collect();
    plan.warnings.splice(0..0, archive.notes);
    plan.room = room(task, plan.data_bytes)?;
    plan.warnings.extend(plan.room.as_ref().and_then(short));
    Ok(Prepared { plan, production, tool, stream, head, indexed: chosen.database, making, lists })
}

/// Known where the server's socket says where its files are. A tablespace of its own is not looked at.
fn room(task: &DatabaseTask<'_>, data_bytes: u64) -> Result<Option<Need>> {
    let connection = task.request.connection.as_deref().unwrap_or(&task.cluster.connection);
    let Some(path) = as_owner::data_directory(connection)? else { return Ok(None) };
    let available = survey::disk(&path)?.available;
    Ok(Some(Need { path, needed: plan::room_for(data_bytes), available }))
}

/// No more than a warning: how much indexes take is not known before. A full disk ends the whole server.
fn short(room: &Need) -> Option<String> {
    (room.needed > room.available).then(|| {
        format!(
            "the server may run out of room, and would end with all its databases: about {} needed, {} available in {}",
            human::size(room.needed),
            human::size(room.available),
            room.path.display()
        )
    })
}

/// Why a dump is not taken unless it is named.
fn whole(database: &IndexedDatabase) -> Result<(), String> {
    if database.only_tables.is_empty() {
        return Ok(());
    }
    Err(format!("it holds only the tables {}", database.only_tables.join(", ")))
}

/// The archive in the first repository that has it as long as it was stored and lets its head be read.
async fn open(
    task: &DatabaseTask<'_>,
    archive: &Archive,
    chosen: &ChosenBackup,
) -> Result<(Repository, StoredStream, Arc<Head>)> {
    let record = &chosen.held.record;
    let relative = chosen.database.dump.as_ref();
    let relative =
        relative.ok_or_else(|| Error::new(Code::Damaged, "the index names no archive").at(&record.id))?;
    let mut failed = None;
    for name in &chosen.held.repositories {
        let repository = archive.repository(name)?.clone();
        let attempt = async {
            let identities = task.identities.as_ref();
            let stream = StoredStream::new(&repository, &task.cluster.name, record, relative, identities)?;
            stream.check_length().await?;
            let from = stream.clone();
            let head =
                tokio::task::spawn_blocking(move || Head::read(from.open()?).map_err(|e| e.at(from.place())));
            let head = head.await.map_err(|e| Error::internal("a reader died").because(e))??;
            Ok((stream, head))
        };
        match attempt.await {
            Ok((stream, head)) if head.header.uncompressed => {
                return Ok((repository, stream, Arc::new(head)));
            }
            Ok((stream, _)) => {
                failed =
                    Some(Error::new(Code::Damaged, "the archive is compressed in itself").at(stream.place()));
            }
            Err(error) => failed = Some(error),
        }
    }
    Err(failed
        .unwrap_or_else(|| Error::internal("a backup without a repository"))
        .while_doing(format!("dump {} cannot be read, and nothing was done", record.id))
        .see("restore-a-dump.md"))
}

/// Another cluster, an older major, a role without the right.
async fn refuse_server(
    request: &DatabaseRequest,
    chosen: &ChosenBackup,
    production: &Production,
) -> Result<()> {
    let record = &chosen.held.record;
    production
        .refuse_other(record.system_identifier, request.other_cluster)
        .map_err(|e| e.see("restore-a-dump.md"))?;
    let dumped = record.major().ok_or_else(|| {
        Error::new(Code::Damaged, format!("`{}` is no version of PostgreSQL", record.pg_version))
            .at(&record.id)
    })?;
    if production.major < dumped {
        let what =
            format!("the dump is of PostgreSQL {dumped}, and this server is the older {}", production.major);
        return Err(Error::new(Code::Refused, what)
            .at(production.info.place())
            .hint("restore it into a server of the same or a newer major version")
            .see("restore-a-dump.md"));
    }
    if production.session.may_create_databases().await? {
        return Ok(());
    }
    let what = format!("role {} may not make databases", production.session.user());
    Err(Error::new(Code::NotReady, what)
        .at(production.info.place())
        .hint("connect as a superuser: --connection \"host=… user=postgres\""))
}

/// What makes the roles and tablespaces that are missing; refused where something is missing and nobody shall make it.
async fn make_globals(
    task: &DatabaseTask<'_>,
    chosen: &ChosenBackup,
    repository: &Repository,
    head: &Head,
    production: &Production,
    leftovers: &[Leftover],
) -> Result<Making> {
    let request = task.request;
    let mut needs = Needs::of(&head.toc, request.no_owner, request.no_tablespaces);
    let facts = &chosen.database.facts;
    if !request.no_owner {
        needs.roles.insert(facts.owner.clone());
    }
    if !request.no_tablespaces {
        needs.tablespaces.extend(Some(facts.tablespace.clone()).filter(|t| !t.is_empty()));
    }
    // What a killed restore has made is removed before this one makes its own.
    let (mut roles, mut tablespaces) =
        (production.session.role_names().await?, production.session.tablespace_names().await?);
    for leftover in leftovers {
        leftover.made.roles.iter().for_each(|name| _ = roles.remove(name));
        leftover.made.tablespaces.iter().for_each(|name| _ = tablespaces.remove(name));
    }
    let missing = needs.missing(&roles, &tablespaces);
    let mut making = Making::default();
    if request.globals {
        let object = chosen.index.globals.as_ref().ok_or_else(|| {
            Error::new(Code::NoBackup, "the dump has no roles and tablespaces").at(&chosen.held.record.id)
        })?;
        let record = &chosen.held.record;
        let (cluster, identities) = (&task.cluster.name, task.identities.as_ref());
        let stream = StoredStream::new(repository, cluster, record, &object.object, identities)?;
        let script = tokio::task::spawn_blocking(move || globals::read(&stream));
        let script = script.await.map_err(|e| Error::internal("a reader died").because(e))??;
        making = Making::of(&script, &roles, &missing);
    }
    let missing = making.lacks(&missing);
    if missing.is_empty() {
        return Ok(making);
    }
    let hint = match (request.globals, missing.roles.is_empty()) {
        (true, _) => "the dump's own roles do not have them either: make them by hand",
        (false, true) => "--globals makes them from the dump; --no-tablespaces does without",
        (false, false) => "--globals makes them from the dump; --no-owner leaves owners and grants out",
    };
    Err(Error::new(Code::Refused, plan::lacks(&missing))
        .at(production.info.place())
        .hint(hint)
        .see("restore-a-dump.md"))
}

/// The database that has the name, and what becomes of it; refused where it was not to be replaced.
async fn existing(
    task: &DatabaseTask<'_>,
    chosen: &ChosenBackup,
    production: &Production,
) -> Result<Option<Existing>> {
    let request = task.request;
    let all = production.session.all_databases().await?;
    let Some(found) = all.iter().find(|d| d.name == request.target) else {
        return Ok(None);
    };
    let refused = |code: Code, what: String, hint: &str| {
        Error::new(code, what).at(production.info.place()).hint(hint).see("restore-a-dump.md")
    };
    if !request.replace {
        let what = format!("there is a database {} already", request.target);
        return Err(refused(
            Code::NotEmpty,
            what,
            "--as NAME restores beside it; --replace puts the dump in its place and keeps the old one under another name",
        ));
    }
    if let Err(partial) = whole(&chosen.database) {
        let what = format!("a whole database cannot be replaced by this dump: {partial}");
        return Err(refused(Code::Refused, what, "restore it beside the old one with --as NAME"));
    }
    if found.is_template {
        let what = format!("database {} is a template", request.target);
        return Err(refused(Code::Refused, what, "restore it beside the old one with --as NAME"));
    }
    let sessions = production.session.sessions_in(&request.target).await?;
    if !sessions.is_empty() && !request.terminate {
        return Err(in_the_way(&request.target, &sessions).at(production.info.place()));
    }
    let aside = with_suffix(&request.target, &format!("_before_{}", task.now.compact_seconds()));
    Ok(Some(Existing { kept_as: (!request.overwrite).then_some(aside), sessions }))
}

/// Who holds up the exchange.
pub fn in_the_way(database: &str, sessions: &[OtherSession]) -> Error {
    let what = format!("{} sessions are connected to {database}: {}", sessions.len(), plan::who(sessions));
    Error::new(Code::Refused, what)
        .hint("end them (stop the application, or the pooler), or give --terminate to have them ended")
        .see("restore-a-dump.md")
}

fn plan_of(
    task: &DatabaseTask<'_>,
    chosen: &ChosenBackup,
    repository: &RepoName,
    production: &Production,
    tool: &RestoreTool,
) -> DatabasePlan {
    let (record, database, request) = (&chosen.held.record, &chosen.database, task.request);
    let mut warnings = Vec::new();
    if request.zone_assumed {
        warnings.push("the time carried no zone and was read as UTC".to_owned());
    }
    warnings
        .extend(whole(database).err().map(|partial| format!("this is not the whole database: {partial}")));
    let about = format!("{}: ", database.name);
    let of_this = chosen.index.warnings.iter().filter(|w| w.starts_with(&about));
    warnings.extend(of_this.map(|w| format!("when it was dumped: {}", &w[about.len()..])));
    if chosen.index.globals.as_ref().is_some_and(|g| !g.passwords) && request.globals {
        warnings.push("the roles come back without their passwords: they were not readable".to_owned());
    }
    DatabasePlan {
        host: host::name(),
        cluster: task.cluster.name.clone(),
        server: production.info.place(),
        system_identifier: production.system,
        pg_major: production.major,
        tool: tool.version.clone(),
        backup: PlannedBackup {
            id: record.id.clone(),
            repository: repository.clone(),
            system_identifier: record.system_identifier,
            pg_version: record.pg_version.clone(),
            snapshot_at: database.snapshot_at,
            snapshot_lsn: database.snapshot_lsn,
            bytes_stored: 0,
            passed_over: chosen.passed_over.clone(),
        },
        database: database.name.clone(),
        becomes: request.target.clone(),
        encoding: database.facts.encoding.clone(),
        owner: (!request.no_owner).then(|| database.facts.owner.clone()),
        tables: database.tables.len(),
        rows: database.rows(),
        data_bytes: database.tables.iter().map(|t| t.bytes).sum(),
        large_objects: database.large_objects,
        existing: None,
        roles_made: Vec::new(),
        tablespaces_made: Vec::new(),
        jobs: 1,
        room: None,
        leftovers: Vec::new(),
        warnings,
    }
}

/// The database's own settings, grants, comment and labels, as statements about `becomes`. What cannot be read so is
/// said in the second value.
pub fn properties(prepared: &Prepared, no_owner: bool, becomes: &str) -> (Vec<String>, Vec<String>) {
    let (mut statements, mut lost) = (Vec::new(), Vec::new());
    for entry in prepared.head.toc.entries.iter().filter(|e| e.is_of_database()) {
        let Some(definition) = &entry.definition else { continue };
        if entry.description == "ACL" && no_owner {
            continue;
        }
        match sql_text::of_other_database(definition, &prepared.indexed.name, becomes) {
            Some(text) if !text.contains('\u{fffd}') => statements.extend(sql_text::statements(&text)),
            _ => lost.push(format!("{} of the database could not be taken over", entry.description)),
        }
    }
    (statements, lost)
}

/// A connection to another database of the same server.
pub fn info_of(production: &Production, database: &str) -> ConnInfo {
    production.info.clone().with_dbname(database)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_may_run_out_of_room_is_a_warning_with_the_figures_and_the_place() {
        let room = |available| Need { path: "/var/lib/postgresql".into(), needed: 4 << 30, available };
        assert_eq!(short(&room(4 << 30)), None);
        let warning = short(&room(1 << 30)).unwrap();
        for part in ["4.0 GiB", "1.0 GiB", "/var/lib/postgresql"] {
            assert!(warning.contains(part), "{warning}");
        }
    }
}
