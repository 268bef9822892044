//! The server that the tables are read from: the cluster as it was, on a private socket, without archiving.

use std::path::PathBuf;
use std::time::Duration;

use super::Job;
use super::place::Place;
use super::request::From;
use crate::error::{Code, Error, Result};
use crate::model::{SystemId, TableName};
use crate::postgres::connect_to;
use crate::postgres::conninfo::ConnInfo;
use crate::postgres::privilege::Owner;
use crate::postgres::service::PidFile;
use crate::postgres::session::Session;
use crate::postgres::tools::Tools;
use crate::restore::connect;
use crate::restore::execute;
use crate::restore::prepare::Prepared;
use crate::util::failpoint;

/// Definitions of tables, not their rows.
const DEFINITIONS_WITHIN: Duration = Duration::from_mins(30);
const LARGEST_DEFINITIONS: usize = 256 << 20;

/// What the side instance is made from.
pub enum Source {
    Moment(Box<Prepared>),
}

impl Source {
    /// Of the cluster that was backed up.
    pub fn system_identifier(&self) -> SystemId {
        match self {
            Self::Moment(prepared) => prepared.plan.system_identifier,
        }
    }
}

/// A running side instance. Its place removes it.
pub struct Side {
    socket: PathBuf,
    port: u16,
    superuser: String,
    tools: Tools,
    owner: Owner,
}

/// Makes it and waits until it stands at the asked moment, open.
pub async fn make(job: &Job<'_>, source: Source, place: &Place) -> Result<Side> {
    let data_directory = super::place::data_directory(&place.directory);
    match source {
        Source::Moment(prepared) => {
            let From::Moment(request) = &job.request.from;
            let task = job.task(request, data_directory);
            let tools = prepared.tools.clone();
            let executed = Box::pin(execute::run(&task, *prepared)).await?;
            if let Some(proof) = executed.report.proofs.iter().find(|p| !p.holds) {
                let what = format!("{} is {}, and {} was planned", proof.what, proof.found, proof.planned);
                return Err(Error::new(Code::RecoveryFailed, what).at(task.data_directory.display()));
            }
            failpoint::reach("table-after-side")?;
            let session = connect::any(&task, &executed.plan).await.ok_or_else(nobody)?;
            let superuser = session.some_superuser().await?.ok_or_else(nobody)?;
            let file = PidFile::read(&task.data_directory)?;
            let file = file.ok_or_else(|| Error::new(Code::Service, "the side instance has ended"))?;
            let socket = task.data_directory.join(file.socket_dir.unwrap_or_default());
            Ok(Side { socket, port: file.port, superuser, tools, owner: job.owner.clone() })
        }
    }
}

fn nobody() -> Error {
    Error::new(Code::Connect, "no role with all rights can log in to the side instance")
        .hint("at that moment the cluster had no superuser with LOGIN; choose another moment")
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
                .hint("the database is in SQL_ASCII: restore the whole cluster with --target-dir, and use pg_dump there")
                .because(e)
        })
    }
}
