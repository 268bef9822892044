//! The server that the tables are read from: private, ours alone, removed at the end.
//!
//! There are several ways to make one, each a file below and a variant of [`Source`]: *recovered* is the whole cluster as
//! it was at a moment; *built* is a fresh cluster with what a dump or an export holds. Whatever made it, a [`Side`] answers the same questions, and nothing after it knows the difference:
//! looking at the tables, new names for copies, definitions, rows, checks and the report are shared.

pub mod built;
mod recovered;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::Job;
use super::place::Place;
use crate::error::{Code, Error, Result};
use crate::model::{SystemId, TableName};
use crate::postgres::connect_to;
use crate::postgres::conninfo::ConnInfo;
use crate::postgres::privilege::Owner;
use crate::postgres::session::Session;
use crate::postgres::tools::Tools;
use crate::restore::prepare::Prepared;
use crate::restore::report::Phase;

/// Definitions of tables, not their rows.
const DEFINITIONS_WITHIN: Duration = Duration::from_mins(30);
const LARGEST_DEFINITIONS: usize = 256 << 20;

/// What the side instance is made from.
pub enum Source {
    /// A base backup and WAL, up to a moment.
    Moment(Box<Prepared>),
    /// A dump, or an export of tables.
    Backup(Box<built::Prepared>),
}

impl Source {
    /// Of the cluster that was backed up.
    pub fn system_identifier(&self) -> SystemId {
        match self {
            Self::Moment(prepared) => prepared.plan.system_identifier,
            Self::Backup(prepared) => prepared.plan.system_identifier,
        }
    }
}

/// A running side instance. Its place removes it.
pub struct Side {
    /// Where it listens.
    socket: PathBuf,
    port: u16,
    /// A role that may do everything there.
    superuser: String,
    /// Of the server's own major.
    tools: Tools,
    owner: Owner,
    /// What it stands for, for the report: a moment, with the last commit kept.
    pub stands_at: String,
    /// Rows of each table as its source has recorded them, where it has: what comes out must be as many.
    pub recorded_rows: BTreeMap<TableName, u64>,
    /// How long making it took.
    pub phases: Vec<Phase>,
}

/// Makes it and waits until it is open for us.
pub async fn make(job: &Job<'_>, source: Source, place: &Place) -> Result<Side> {
    match source {
        Source::Moment(prepared) => recovered::make(job, *prepared, place).await,
        Source::Backup(prepared) => built::make(job, *prepared, place).await,
    }
}

impl Side {
    pub async fn connect(&self, database: &str) -> Result<Session> {
        let info = ConnInfo::socket(&self.socket, self.port, &self.superuser, database);
        connect_to(&info).await.map_err(|e| {
            e.while_doing(format!("cannot open database {database} of the side instance"))
                .hint("name the database as it was at that moment with --database")
        })
    }

    /// The statements that make these tables, of one section (`pre-data`, `post-data`).
    pub async fn definitions(
        &self,
        database: &str,
        tables: &[TableName],
        section: &str,
        no_owner: bool,
    ) -> Result<String> {
        let run = self.tools.run("pg_dump", &self.owner, DEFINITIONS_WITHIN).limit(LARGEST_DEFINITIONS);
        let mut run = run.arg(format!("--section={section}")).args(["--encoding=UTF8", "--no-publications"]);
        run = run.args(["--no-subscriptions", "--no-password", "--username", &self.superuser, "--host"]);
        // In the environment a name is only a name; as an argument it may be taken for a connection string.
        run = run.arg(&self.socket).arg("--port").arg(self.port.to_string()).env("PGDATABASE", database);
        if no_owner {
            run = run.args(["--no-owner", "--no-privileges"]);
        }
        for table in tables {
            run = run.arg("--table").arg(table.quoted());
        }
        let said =
            run.run().await?.success().map_err(|e| {
                Error::new(Code::Tools, "pg_dump cannot read the tables' definitions").because(e)
            })?;
        String::from_utf8(said.stdout).map_err(|e| {
            Error::new(Code::Refused, "the definitions of the tables are not in UTF-8")
                .hint(
                    "the database is in SQL_ASCII: restore the whole cluster with --target-dir, and use pg_dump there",
                )
                .because(e)
        })
    }
}
