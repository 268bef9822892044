//! A fresh cluster with the definitions of a logical backup and the rows of the asked tables alone.
//!
//! Order, and why: `initdb` → roles (as names, for owners and grants) → the database → everything that is no row, indexes and
//! keys included → rows, with triggers and keys asleep → triggers. Keys come before the rows because the tables that they
//! lead to stay empty here: made afterwards they would not hold. Then the rows are counted and held against the backup's
//! index, before production is touched.
//!
//! Of a dump, definitions and rows come from its archive. An export of tables has the definitions of its tables alone: the
//! types and functions that they need are taken from production as it is now, without a table of it.

mod csv;
mod dump;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::Side;
use crate::codec::Identities;
use crate::error::{Code, Error, Result};
use crate::model::{BackupId, BackupKind, Lsn, RepoName, SystemId, TableName, Timestamp};
use crate::postgres::conninfo::ConnInfo;
use crate::postgres::databases::{NewDatabase, new_role};
use crate::postgres::instance::{Instance, StartOptions, init_scratch, scratch_settings};
use crate::postgres::session::Session;
use crate::postgres::tools::Tools;
use crate::postgres::{connect_to, service};
use crate::repository::Repository;
use crate::repository::access;
use crate::repository::logical_index::{DatabaseFacts, IndexedDatabase, IndexedTable};
use crate::restore::gather::Archive;
use crate::restore::logical::choose::{self, ChosenBackup};
use crate::restore::logical::{PassedOver, Wanted};
use crate::restore::production::Production;
use crate::restore::report::Phases;
use crate::restore::table::Job;
use crate::restore::table::place::{self, Place};
use crate::util::{failpoint, human};

const OPEN_WITHIN: Duration = Duration::from_mins(2);
const SUPERUSER: &str = "postgres";
const PORT: u16 = 5432;
/// Rows come in as they were: neither triggers nor keys look at them.
const ASLEEP: &str = "-c session_replication_role=replica";

/// What is made, for the plan.
#[derive(Debug, Clone, Serialize)]
pub struct BuiltPlan {
    pub id: BackupId,
    pub kind: BackupKind,
    pub repository: RepoName,
    pub system_identifier: SystemId,
    pub pg_version: String,
    pub database: String,
    pub snapshot_at: Timestamp,
    pub snapshot_lsn: Lsn,
    /// Of the asked tables with their parts.
    pub rows: u64,
    pub bytes: u64,
    pub passed_over: Vec<PassedOver>,
    pub warnings: Vec<String>,
}

/// A backup that has the tables, opened as far as its head.
pub struct Prepared {
    pub plan: BuiltPlan,
    facts: DatabaseFacts,
    /// The asked tables and their parts.
    tables: Vec<IndexedTable>,
    content: Content,
    tools: Tools,
    roles: BTreeSet<String>,
}

enum Content {
    Dump(dump::Dump),
    Csv(csv::Csv),
}

pub async fn prepare(job: &Job<'_>, wanted: &Wanted, production: &Production) -> Result<Prepared> {
    job.progress.phase("looking at the dumps and exports");
    let logical = |kind: BackupKind| !kind.is_base();
    let archive = Archive::load_kinds(job.config, &job.cluster.name, job.only, &job.trusted, logical).await?;
    let identities = access::metadata_identities(job.config, job.identities.as_ref())?;
    let database = &job.request.database;
    let kinds = [BackupKind::Dump, BackupKind::Tables];
    let fits = |_: &_, indexed: &IndexedDatabase| fits(indexed, &job.request.tables);
    let chosen = choose::choose(&archive, wanted, database, &kinds, identities.as_ref(), fits).await?;
    let filtered = |t: &IndexedTable| t.csv.as_ref().is_some_and(|csv| csv.filter.is_some());
    if job.request.replace
        && chosen.database.tables.iter().any(|t| job.request.tables.contains(&name_of(t)) && filtered(t))
    {
        let what = "the export holds only some of the rows: they cannot replace all of them";
        return Err(Error::new(Code::Refused, what)
            .at(&chosen.held.record.id)
            .hint("restore beside the table (without --replace)"));
    }
    let running = job.cluster.data_directory.as_deref().and_then(service::server_program);
    let bin_directory = job.cluster.bin_directory.as_deref();
    let tools = Tools::find(production.major, bin_directory, running.as_deref()).await?;
    let dumped = chosen.held.record.major();
    if dumped.is_none_or(|major| major > production.major) {
        let what =
            format!("the backup is of PostgreSQL {}, production is older", chosen.held.record.pg_version);
        return Err(Error::new(Code::Refused, what).at(production.info.place()));
    }
    let mut failed = None;
    for name in chosen.held.repositories.clone() {
        match open(job, archive.repository(&name)?, &chosen, production, bin_directory).await {
            Ok((content, tables)) => {
                let roles = production.session.role_names().await?;
                let mut prepared = prepared(&name, chosen, content, tables, tools, roles);
                prepared.plan.warnings.extend(unknown_losses(job, production, &prepared.content).await?);
                return Ok(prepared);
            }
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| Error::internal("a backup without a repository")))
}

/// An export has its tables alone, so that nothing says what else a dropped table took with it.
async fn unknown_losses(job: &Job<'_>, production: &Production, content: &Content) -> Result<Option<String>> {
    if !matches!(content, Content::Csv(_)) || !job.request.replace {
        return Ok(None);
    }
    for table in &job.request.tables {
        if production.session.table(table).await?.is_none() {
            return Ok(Some(format!(
                "an export has no views and publications: those that went away with {table} are neither restored nor told"
            )));
        }
    }
    Ok(None)
}

/// Why a backup is not taken unless it is named. A whole dump has whatever its archive says.
fn fits(database: &IndexedDatabase, tables: &[TableName]) -> Result<(), String> {
    if database.dump.is_some() && database.only_tables.is_empty() {
        return Ok(());
    }
    for table in tables {
        let indexed = database.table(&table.schema, &table.name);
        let indexed = indexed.ok_or_else(|| format!("it does not have {table}"))?;
        if let Some(filter) = indexed.csv.as_ref().and_then(|csv| csv.filter.as_ref()) {
            return Err(format!("it holds only the rows of {table} for which {filter}"));
        }
    }
    Ok(())
}

async fn open(
    job: &Job<'_>,
    repository: &Repository,
    chosen: &ChosenBackup,
    production: &Production,
    bin_directory: Option<&std::path::Path>,
) -> Result<(Content, Vec<IndexedTable>)> {
    let identities: Option<&Identities> = job.identities.as_ref();
    if chosen.held.record.kind == BackupKind::Dump {
        let (dump, tables) =
            dump::open(job, repository, chosen, production.major, bin_directory, identities).await?;
        return Ok((Content::Dump(dump), tables));
    }
    let (csv, tables) = csv::open(job, repository, chosen, production, identities).await?;
    Ok((Content::Csv(csv), tables))
}

fn name_of(indexed: &IndexedTable) -> TableName {
    TableName::new(&indexed.schema, &indexed.name)
}

/// What was asked for and is not there.
fn not_in(chosen: &ChosenBackup, table: &TableName) -> Error {
    Error::new(Code::Refused, format!("the backup does not have {table}"))
        .at(format!("{}, database {}", chosen.held.record.id, chosen.database.name))
        .hint(
            "`pgkeep show ID` lists the tables of a backup; check the name (quoted as in SQL) and --database",
        )
        .see("table-dropped-or-damaged.md")
}

fn prepared(
    repository: &RepoName,
    chosen: ChosenBackup,
    content: Content,
    tables: Vec<IndexedTable>,
    tools: Tools,
    mut roles: BTreeSet<String>,
) -> Prepared {
    let record = &chosen.held.record;
    if let Content::Dump(dump) = &content {
        roles.extend(dump.roles());
    }
    roles.insert(chosen.database.facts.owner.clone());
    roles.retain(|name| !name.starts_with("pg_") && name != SUPERUSER);
    let filters = tables.iter().filter_map(|t| {
        let filter = t.csv.as_ref()?.filter.as_ref()?;
        Some(format!("{} holds only the rows for which {filter}", t.name))
    });
    let plan = BuiltPlan {
        id: record.id.clone(),
        kind: record.kind,
        repository: repository.clone(),
        system_identifier: record.system_identifier,
        pg_version: record.pg_version.clone(),
        database: chosen.database.name.clone(),
        snapshot_at: chosen.database.snapshot_at,
        snapshot_lsn: chosen.database.snapshot_lsn,
        rows: tables.iter().map(|t| t.rows).sum(),
        bytes: tables.iter().map(|t| t.bytes).sum(),
        passed_over: chosen.passed_over,
        warnings: filters.collect(),
    };
    Prepared { plan, facts: chosen.database.facts, tables, content, tools, roles }
}

/// For people.
pub fn text(plan: &BuiltPlan) -> String {
    let mut text = String::from("Plan of the side instance\n");
    let mut line = |name: &str, words: String| {
        text.push_str(&format!("  {name:<18}{words}\n"));
    };
    line("from:", format!("{} in {}, of PostgreSQL {}", plan.id, plan.repository, plan.pg_version));
    line("as of:", format!("{} (lsn {})", plan.snapshot_at.postgres(), plan.snapshot_lsn));
    for passed in &plan.passed_over {
        line("passed over:", format!("{}: {}", passed.id, passed.reason));
    }
    line("rows:", format!("{} in all, {} of data", plan.rows, human::size(plan.bytes)));
    text
}

pub(super) async fn make(job: &Job<'_>, prepared: Prepared, place: &Place) -> Result<Side> {
    let mut phases = Phases::start();
    job.progress.phase("making the side instance");
    let socket = start(job, &prepared.tools, place).await?;
    let info = |database: &str| ConnInfo::socket(&socket, PORT, SUPERUSER, database);
    let control = connect_to(&info("template1")).await?;
    for role in &prepared.roles {
        control.alone(&format!("make role {role}"), &new_role(role)).await?;
    }
    create(&control, &prepared).await?;
    drop(control);
    phases.done("make the side instance");

    let into = info(&prepared.plan.database);
    let asleep = into.clone().with_options(ASLEEP);
    job.progress.phase("rows into the side instance");
    job.progress.total(prepared.plan.bytes);
    let notes = match &prepared.content {
        Content::Dump(dump) => dump.load(job, &into, &asleep).await?,
        Content::Csv(csv) => csv.load(job, &into, &asleep, &prepared.tools).await?,
    };
    let recorded = count(&into, &prepared).await?;
    phases.done("fill it");
    failpoint::reach("table-after-build")?;
    let Prepared { plan, tools, .. } = prepared;
    for note in notes {
        job.progress.note(&format!("WARNING: {note}"));
    }
    Ok(Side {
        socket,
        port: PORT,
        superuser: SUPERUSER.to_owned(),
        tools,
        owner: job.owner.clone(),
        stands_at: format!("{}, snapshot of {}", plan.id, plan.snapshot_at.postgres()),
        recorded_rows: recorded,
        phases: phases.finish(),
    })
}

/// Makes and starts a cluster that only we reach; where its socket is. Its place stops and removes it.
async fn start(job: &Job<'_>, tools: &Tools, at: &Place) -> Result<std::path::PathBuf> {
    let data = place::data_directory(&at.directory);
    init_scratch(tools, &job.owner, &data, &[], "cannot make the side instance").await?;
    let socket = place::socket_directory(&at.directory).unwrap_or_else(|| data.clone());
    let mut settings = scratch_settings(&socket);
    settings.push(("port".to_owned(), PORT.to_string()));
    let options = StartOptions { settings, log_file: at.directory.join("server.log") };
    let mut instance = Instance::start(tools, &data, &job.owner, &options)?;
    instance.wait_until_open(OPEN_WITHIN).await?;
    instance.leave_running();
    Ok(socket)
}

async fn create(control: &Session, prepared: &Prepared) -> Result<()> {
    let name = prepared.plan.database.as_str();
    // The one that every cluster begins with.
    control.drop_database(name).await?;
    let facts = &prepared.facts;
    let new = NewDatabase {
        name,
        encoding: &facts.encoding,
        collate: &facts.collate,
        ctype: &facts.ctype,
        locale_provider: &facts.locale_provider,
        locale: facts.locale.as_deref(),
        icu_rules: facts.icu_rules.as_deref(),
        tablespace: None,
    };
    match control.create_database(&new).await {
        // Rows are only passed through here: no locale of this host is needed for that.
        Err(_) if !control.is_lost() => {
            let plain = NewDatabase {
                collate: "C",
                ctype: "C",
                locale_provider: "c",
                locale: None,
                icu_rules: None,
                ..new
            };
            control.create_database(&plain).await
        }
        done => done,
    }
}

/// Rows as they came in; an error where they are not those of the index.
async fn count(info: &ConnInfo, prepared: &Prepared) -> Result<BTreeMap<TableName, u64>> {
    let session = connect_to(info).await?;
    let mut recorded = BTreeMap::new();
    let mut differ = Vec::new();
    for indexed in &prepared.tables {
        let table = name_of(indexed);
        let rows = match &prepared.content {
            Content::Dump(_) => session.count_own_rows(&table).await?,
            Content::Csv(_) => csv::count(&session, indexed, &table).await?,
        };
        if rows != indexed.rows {
            differ.push(format!("{table} has {rows} rows, and the backup says {}", indexed.rows));
        }
        recorded.insert(table, rows);
    }
    if differ.is_empty() {
        return Ok(recorded);
    }
    Err(Error::new(Code::RowsDiffer, "the backup's rows did not come back as they were written")
        .at(differ.join("; "))
        .hint("nothing in production has changed; try another backup, or another repository with --repo"))
}
