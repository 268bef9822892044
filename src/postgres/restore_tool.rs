//! `pg_restore`: of exactly the server's major version, reading one archive from its standard input, and of that archive
//! the listed entries alone.
//!
//! The list is a file to `pg_restore`. Here it is one in memory, which nobody else can open, and it holds numbers only.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::conninfo::ConnInfo;
use super::dump_tool::{LONGEST, STDERR, WithConnection, complaints, said_error};
use super::privilege::Owner;
use super::tools::{Tools, parse_version};
use crate::error::{Code, Error, Result};
use crate::model::PgMajor;
use crate::util::priority::Priority;
use crate::util::process::{Finished, Run};

const ASK: Duration = Duration::from_secs(20);

/// PostgreSQL's program for restores, checked.
#[derive(Debug, Clone)]
pub struct RestoreTool {
    tools: Tools,
    owner: Owner,
    /// `pg_restore (PostgreSQL) 18.6`
    pub version: String,
}

/// What is left out of every entry.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeaveOut {
    /// Owners and grants: everything belongs to the connection's role.
    pub owners: bool,
    /// Everything lands in the database's own tablespace.
    pub tablespaces: bool,
}

/// Dump ids of the entries of one run, in their order. It must live until the run has ended.
#[derive(Debug)]
pub struct EntryList(File);

impl EntryList {
    pub fn new(ids: &[u32]) -> Result<Self> {
        let failed = |e: std::io::Error| Error::new(Code::Io, "cannot make a file in memory").because(e);
        // Inherited by the program, for that is who reads it.
        let file = memfd_create(c"pgkeep-entries", MFdFlags::empty()).map_err(|e| failed(e.into()))?;
        let mut file = File::from(file);
        let text = ids.iter().fold(String::new(), |text, id| text + &id.to_string() + ";\n");
        file.write_all(text.as_bytes()).map_err(failed)?;
        Ok(Self(file))
    }
    /// As the program sees it.
    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}

impl RestoreTool {
    /// Finds the program of `major`, as [`Tools::find_with`] says; another major is refused before anything starts.
    pub async fn find(major: PgMajor, bin_directory: Option<&Path>, running: Option<&Path>) -> Result<Self> {
        let tools = Tools::find_with("pg_restore", major, bin_directory, running).await?;
        let owner = Owner::current()?;
        let run = tools.run("pg_restore", &owner, ASK).arg("--version").run().await;
        let said = run.and_then(Finished::success).map_err(|e| {
            Error::new(Code::Tools, "`pg_restore` does not say its version")
                .at(tools.path("pg_restore").display())
                .because(e)
        })?;
        let version = said.stdout_text().trim().to_owned();
        if parse_version(&version) != Some(major) {
            let what = format!("`pg_restore` is `{version}`, the server is PostgreSQL {major}");
            return Err(Error::new(Code::Tools, what)
                .at(tools.path("pg_restore").display())
                .hint(format!("install the client of PostgreSQL {major}, or set bin_directory to it")));
        }
        Ok(Self { tools, owner, version })
    }

    pub fn at(self, priority: Priority) -> Self {
        Self { tools: self.tools.at(priority), ..self }
    }

    /// Restores the listed entries of an archive on standard input into the connection's database, whose name must be
    /// a plain word.
    pub fn restore(&self, info: &ConnInfo, list: &EntryList, leave_out: LeaveOut) -> Run {
        let mut run = self
            .tools
            .run("pg_restore", &self.owner, LONGEST)
            .arg("--format=custom")
            .arg("--exit-on-error")
            .arg("--no-password")
            .arg(format!("--use-list={}", list.path()))
            .arg(format!("--dbname={}", info.dbname));
        if leave_out.owners {
            run = run.arg("--no-owner").arg("--no-privileges");
        }
        if leave_out.tablespaces {
            run = run.arg("--no-tablespaces");
        }
        run.with_connection(info, "pgkeep restore").limit(STDERR)
    }
}

/// Why the program failed, as an error with its own words.
pub fn failure(finished: &Finished, doing: &str) -> Error {
    let said = said_error(finished);
    let what = format!("cannot {doing}: {}: {said}", finished.status);
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if has(&["too many clients", "too many connections", "remaining connection slots"]) {
        return Error::new(Code::ServerFull, what).at(&finished.program).hint(
            "the server has no free connection: ask for fewer with --jobs, or end some, and run it again",
        );
    }
    let error = Error::new(Code::RestoreFailed, what).at(&finished.program);
    match () {
        () if has(&["No space left on device"]) => {
            error.hint("make room on the server's disk and run it again")
        }
        () if said.contains("role \"") && said.contains("does not exist") => {
            error.hint("--globals makes the roles that are missing; --no-owner leaves owners and grants out")
        }
        () if said.contains("tablespace \"") && said.contains("does not exist") => {
            error.hint("--globals makes the tablespaces that are missing; --no-tablespaces does without")
        }
        () if said.contains("extension \"") && said.contains("is not available") => {
            error.hint("install this extension's files on the server's host and run it again")
        }
        () if has(&["permission denied", "must be superuser", "must be owner", "must be able to"]) => {
            error.hint("connect as a superuser: --connection \"host=… user=postgres\"")
        }
        () => error,
    }
}

/// What a run that ended with 0 warned of.
pub fn warnings(finished: &Finished) -> Vec<String> {
    complaints(&finished.stderr_text(), |kind| kind == "warning")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_list_is_read_by_the_program_and_has_no_name() {
        let list = EntryList::new(&[7, 12]).unwrap();
        let run = Run::new("cat", ASK).arg(list.path()).run().await.unwrap().success().unwrap();
        assert_eq!(run.stdout_text(), "7;\n12;\n");
    }
}
