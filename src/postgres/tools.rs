//! PostgreSQL's own programs, of exactly the server's major version.
//!
//! Where they are looked for, in this order: the configured `bin_directory`, the running server's own directory,
//! Debian's, the RPM packages', `pg_config --bindir`, `PATH`. A configured directory of another major is an error;
//! elsewhere another major is passed over.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::privilege::{self, Owner};
use crate::error::{Code, Error, Result};
use crate::model::PgMajor;
use crate::util::priority::Priority;
use crate::util::process::Run;

const ASK: Duration = Duration::from_secs(20);

/// A directory with PostgreSQL's programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    pub bin_dir: PathBuf,
    pub major: PgMajor,
    /// For `LD_LIBRARY_PATH` of children: `<bin_dir>/../lib`, when the build lives outside the system's directories.
    lib_dir: Option<PathBuf>,
    /// Of everything that is run from here.
    pub priority: Priority,
}

impl Tools {
    /// Finds tools of `major`. `running` is the program of the running server ([`super::service::server_program`]).
    pub async fn find(major: PgMajor, bin_directory: Option<&Path>, running: Option<&Path>) -> Result<Self> {
        Self::find_with("postgres", major, bin_directory, running).await
    }

    /// The same by another program than `postgres`: a host that only dumps has PostgreSQL's clients alone.
    pub async fn find_with(
        program: &str,
        major: PgMajor,
        bin_directory: Option<&Path>,
        running: Option<&Path>,
    ) -> Result<Self> {
        if let Some(configured) = bin_directory {
            let found = version_in(configured, program).await?.ok_or_else(|| {
                Error::new(Code::Tools, format!("there is no `{program}` program in bin_directory"))
                    .at(configured.display())
                    .hint(format!("bin_directory is the one with {program} in it"))
            })?;
            if found != major {
                let what =
                    format!("bin_directory has the tools of PostgreSQL {found}, the cluster is of {major}");
                return Err(Error::new(Code::Tools, what)
                    .at(configured.display())
                    .hint(format!("set bin_directory to those of PostgreSQL {major}")));
            }
            return Ok(Self::in_directory(configured, major));
        }
        let mut seen = Vec::new();
        for directory in candidates(major, running).await {
            match version_in(&directory, program).await {
                Ok(Some(found)) if found == major => return Ok(Self::in_directory(&directory, major)),
                Ok(Some(found)) => seen.push(format!("{} has {found}", directory.display())),
                Ok(None) | Err(_) => {}
            }
        }
        let also = if seen.is_empty() { String::new() } else { format!(" ({})", seen.join(", ")) };
        Err(Error::new(Code::Tools, format!("the programs of PostgreSQL {major} are not on this host{also}"))
            .hint(format!("install postgresql-{major}, or set bin_directory of the cluster")))
    }

    fn in_directory(bin_dir: &Path, major: PgMajor) -> Self {
        let standard = bin_dir.starts_with("/usr") || bin_dir.starts_with("/bin");
        let lib = bin_dir.parent().map(|p| p.join("lib"));
        let lib_dir = lib.filter(|lib| !standard && lib.join("libpq.so.5").exists());
        Self { bin_dir: bin_dir.to_path_buf(), major, lib_dir, priority: Priority::Usual }
    }

    pub fn at(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    pub fn path(&self, program: &str) -> PathBuf {
        self.bin_dir.join(program)
    }
    /// The program when this build has it (`pg_combinebackup` is of 17, `pg_amcheck` a package of its own).
    pub fn optional(&self, program: &str) -> Option<PathBuf> {
        Some(self.path(program)).filter(|p| p.exists())
    }
    /// True when the server would find this library by its name (`$libdir`).
    pub fn has_library(&self, name: &str) -> bool {
        let beside = self.bin_dir.parent().unwrap_or(Path::new("/"));
        ["lib", "lib/postgresql", "lib64"]
            .iter()
            .any(|dir| beside.join(dir).join(format!("{name}.so")).exists())
    }
    /// The variables that children need to find their libraries.
    pub fn env(&self) -> Vec<(&'static str, OsString)> {
        let Some(lib) = &self.lib_dir else { return Vec::new() };
        let mut path = lib.clone().into_os_string();
        if let Some(inherited) = std::env::var_os("LD_LIBRARY_PATH").filter(|p| !p.is_empty()) {
            path.push(":");
            path.push(inherited);
        }
        vec![("LD_LIBRARY_PATH", path)]
    }
    /// A run of one of the programs as `owner`, in a clean environment: nothing of libpq's is inherited, messages
    /// are English (some are read).
    pub fn run(&self, program: &str, owner: &Owner, deadline: Duration) -> Run {
        Run::from_command(self.command(program, owner), deadline)
    }
    pub fn command(&self, program: &str, owner: &Owner) -> Command {
        let mut command = Command::new(self.path(program));
        for (name, _) in std::env::vars_os() {
            if name.as_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        command.env("LC_MESSAGES", "C").env_remove("LC_ALL").env_remove("LANGUAGE").envs(self.env());
        privilege::as_owner(&mut command, owner);
        self.priority.of_child(&mut command);
        command
    }
}

/// The major version of a program in `directory`; none when there is no such program.
async fn version_in(directory: &Path, name: &str) -> Result<Option<PgMajor>> {
    let program = directory.join(name);
    if !program.is_file() {
        return Ok(None);
    }
    let tools = Tools::in_directory(directory, PgMajor(0));
    let run = Run::from_command(tools.command(name, &Owner::current()?), ASK);
    let said = run.arg("--version").run().await.and_then(crate::util::process::Finished::success);
    let said = said.map_err(|e| {
        Error::new(Code::Tools, format!("the `{name}` program does not say its version"))
            .at(program.display())
            .because(e)
    })?;
    let text = said.stdout_text();
    parse_version(&text).map(Some).ok_or_else(|| {
        Error::new(Code::Tools, format!("`{}` is no version of PostgreSQL", text.trim()))
            .at(program.display())
    })
}

/// `postgres (PostgreSQL) 18.1 (Debian 18.1-1)`, `…19devel`.
pub(super) fn parse_version(text: &str) -> Option<PgMajor> {
    let (_, rest) = text.split_once("(PostgreSQL) ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |at| &rest[..at]);
    digits.parse().ok().map(PgMajor)
}

async fn candidates(major: PgMajor, running: Option<&Path>) -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = Vec::new();
    directories.extend(running.and_then(Path::parent).map(Path::to_path_buf));
    directories.push(format!("/usr/lib/postgresql/{major}/bin").into());
    directories.push(format!("/usr/pgsql-{major}/bin").into());
    directories.push(format!("/usr/libexec/postgresql{major}").into());
    if let Ok(run) = Run::new("pg_config", ASK).arg("--bindir").run().await {
        directories.push(PathBuf::from(run.stdout_text().trim()));
    }
    if let Some(path) = std::env::var_os("PATH") {
        // `postgres` on the PATH is often a link; its neighbours are where it leads.
        let linked =
            |d: PathBuf| std::fs::canonicalize(d.join("postgres")).ok()?.parent().map(Path::to_path_buf);
        directories.extend(std::env::split_paths(&path).filter_map(linked));
    }
    directories
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_packagers_are_read() {
        for (text, major) in [
            ("postgres (PostgreSQL) 14.23\n", 14),
            ("postgres (PostgreSQL) 15.19 (Debian 15.19-0+deb12u1)\n", 15),
            ("postgres (PostgreSQL) 18beta1\n", 18),
        ] {
            assert_eq!(parse_version(text), Some(PgMajor(major)));
        }
        for text in ["", "postgres 14", "postgres (PostgreSQL) ", "postgres (PostgreSQL) x"] {
            assert_eq!(parse_version(text), None);
        }
    }
}
