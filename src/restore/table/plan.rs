//! The plan of a table's restore: production as it is now, the plan of the side instance, and what will be done. Made
//! without writing anything, so that what cannot work is refused before hours of recovery.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use super::load::locked_with;
use super::request::{From, TableRequest};
use super::{Job, Way, side};
use crate::error::{Code, Error, Result};
use crate::model::{ClusterName, SystemId, TableName};
use crate::postgres::session::Session;
use crate::postgres::tables::{TableFacts, TableKind};
use crate::restore::plan::RestorePlan;
use crate::restore::production::Production;
use crate::restore::{prepare as whole, show};
use crate::util::host;

/// What is confirmed.
#[derive(Debug, Clone, Serialize)]
pub struct TablePlan {
    pub host: String,
    pub cluster: ClusterName,
    /// Of the server that the tables come into.
    pub system_identifier: SystemId,
    /// Where that server is, and as whom we are there.
    pub production: String,
    /// The database that the tables were in.
    pub database: String,
    pub into: String,
    pub tables: Vec<PlannedTable>,
    /// Nobody reads or writes these while rows are exchanged.
    pub locked: Vec<TableName>,
    pub warnings: Vec<String>,
    /// Where the side instance will be.
    pub scratch: PathBuf,
    pub side: PlannedSide,
}

#[derive(Debug, Clone, Serialize)]
pub struct PlannedTable {
    pub table: TableName,
    pub becomes: TableName,
    pub way: Way,
}

/// Where the rows come from.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlannedSide {
    Moment(Box<RestorePlan>),
    Backup(Box<side::built::BuiltPlan>),
}

/// The plan, and what its execution goes on with.
pub struct Prepared {
    pub plan: TablePlan,
    pub side: side::Source,
    pub production: Production,
}

pub async fn prepare(job: &Job<'_>) -> Result<Prepared> {
    let request = job.request;
    request.check()?;
    job.progress.phase("looking at production");
    let production = Production::connect(job.cluster, request.connection.as_deref(), &request.into).await?;
    let mut tables = Vec::new();
    let mut warnings = Vec::new();
    let mut locked = BTreeSet::new();
    for table in &request.tables {
        let planned = table_plan(request, &production.session, table, &mut warnings).await?;
        if planned.way == Way::Rows {
            locked.extend(locked_with(&production.session, table).await?);
        }
        tables.push(planned);
    }
    let (side, planned) = match &request.from {
        From::Moment(moment) => {
            let data_directory = super::place::data_directory(&request.work);
            let prepared = Box::pin(whole::run(&job.task(moment, data_directory))).await?;
            let planned = PlannedSide::Moment(Box::new(prepared.plan.clone()));
            (side::Source::Moment(Box::new(prepared)), planned)
        }
        From::Backup(wanted, zone_assumed) => {
            if *zone_assumed {
                warnings.push("the time carried no zone and was read as UTC".to_owned());
            }
            let prepared = Box::pin(side::built::prepare(job, wanted, &production)).await?;
            warnings.extend(prepared.plan.warnings.iter().cloned());
            let planned = PlannedSide::Backup(Box::new(prepared.plan.clone()));
            (side::Source::Backup(Box::new(prepared)), planned)
        }
    };
    production.refuse_other(side.system_identifier(), request.other_cluster)?;
    let plan = TablePlan {
        host: host::name(),
        cluster: job.cluster.name.clone(),
        system_identifier: production.system,
        production: production.info.place(),
        database: request.database.clone(),
        into: request.into.clone(),
        tables,
        locked: locked.into_iter().collect(),
        warnings,
        scratch: request.work.clone(),
        side: planned,
    };
    Ok(Prepared { plan, side, production })
}

async fn table_plan(
    request: &TableRequest,
    session: &Session,
    table: &TableName,
    warnings: &mut Vec<String>,
) -> Result<PlannedTable> {
    let found = session.table(table).await?;
    let way = match (&found, request.replace) {
        (_, false) => Way::Beside,
        (Some(_), true) => Way::Rows,
        (None, true) => Way::Anew,
    };
    let becomes = if way == Way::Beside { request.copy_name(table) } else { table.clone() };
    match (way, &found) {
        (Way::Rows, Some(facts)) => may_replace(session, facts, warnings).await?,
        _ => may_make(request, session, &becomes).await?,
    }
    Ok(PlannedTable { table: table.clone(), becomes, way })
}

/// A new table: its name is free and its schema open.
async fn may_make(request: &TableRequest, session: &Session, table: &TableName) -> Result<()> {
    match session.may_create_in(&table.schema).await? {
        None => Err(Error::new(Code::Refused, "the schema does not exist in production")
            .at(format!("schema {} in database {}", table.schema, request.into))
            .hint("make it first (CREATE SCHEMA), or choose another database with --into")),
        Some(false) => Err(Error::new(Code::NotReady, "the role may not make tables in this schema")
            .at(format!("{}, schema {}", session.place(), table.schema))
            .hint(rights_hint(session))),
        Some(true) if session.relation_exists(table).await? => {
            Err(Error::new(Code::Refused, format!("{table} exists already"))
                .at(format!("database {}", request.into))
                .hint("give another name with --as NAME, or drop what an earlier restore left"))
        }
        Some(true) => Ok(()),
    }
}

async fn may_replace(session: &Session, facts: &TableFacts, warnings: &mut Vec<String>) -> Result<()> {
    if facts.kind == TableKind::Foreign {
        return Err(Error::new(Code::Refused, "the table's rows are on another server").at(&facts.name));
    }
    if session.acts_as(&facts.owner).await? != Some(true) {
        return Err(Error::new(Code::NotReady, format!("{} belongs to role {}", facts.name, facts.owner))
            .at(session.place())
            .hint(rights_hint(session)));
    }
    let tree: Vec<u32> = session.table_tree(facts.oid).await?.iter().map(|part| part.oid).collect();
    for key in session.foreign_keys(&tree).await? {
        let Some(other) = session.table(&key.table).await? else { continue };
        if session.acts_as(&other.owner).await? != Some(true) {
            let what = format!(
                "foreign key {} belongs to {}, whose owner is role {}",
                key.name, key.table, other.owner
            );
            return Err(Error::new(Code::NotReady, what).at(session.place()).hint(rights_hint(session)));
        }
    }
    let publications = session.publications_of(&[facts.oid]).await?;
    if !publications.is_empty() {
        warnings.push(format!(
            "{} is published by {}: subscribers get the exchange of its rows too",
            facts.name,
            publications.join(", ")
        ));
    }
    Ok(())
}

/// What to do where the role lacks rights.
pub fn rights_hint(session: &Session) -> String {
    format!(
        "role {} must own the tables (or be a member of their owner) and may CREATE in their schemas; give another \
         role with --connection \"host=… user=…\"",
        session.user()
    )
}

/// For people.
pub fn text(plan: &TablePlan) -> String {
    let mut text = String::new();
    let mut line = |words: &str| _ = writeln!(text, "{words}");
    for warning in &plan.warnings {
        line(&format!("WARNING: {warning}"));
    }
    line("Plan of the tables' restore");
    line(&format!("  production:       host {}, {}", plan.host, plan.production));
    line(&format!("  system:           identifier {}, cluster {}", plan.system_identifier, plan.cluster));
    line(&format!("  from database:    {}", plan.database));
    for table in &plan.tables {
        let how = match table.way {
            Way::Beside => format!("as a copy, {}; the table itself is not touched", table.becomes),
            Way::Rows => "all its rows are REPLACED by those of that moment, in one transaction".to_owned(),
            Way::Anew => "it is gone in production, and is made again".to_owned(),
        };
        line(&format!("  table:            {}: {how}", table.table));
    }
    if !plan.locked.is_empty() {
        let names: Vec<String> = plan.locked.iter().map(ToString::to_string).collect();
        line(&format!(
            "  locked meanwhile: {} (nobody reads or writes them while rows are copied)",
            names.join(", ")
        ));
    }
    line(&format!("  side instance:    {} (removed at the end)", plan.scratch.display()));
    match &plan.side {
        PlannedSide::Moment(side) => text.push_str(&show::titled(side, "Plan of the side instance")),
        PlannedSide::Backup(side) => text.push_str(&side::built::text(side)),
    }
    text
}
